//! The read API: stock, prechecks, orders and movements for neighbours; probes and metrics for operators. It writes
//! nothing: orders and adjustments go by Kafka.
//!
//! It is given what it reads ([`LedgerQueries`], on connections of its own) and how to ask how Kafka is. Who waits for a
//! verdict is told by the ledger that the pipeline writes to, wrapped ([`Server::ledger`]); no room knows of it. Bounds on
//! everything are in [`bounds`]; every error is a problem document (RFC 9457); the document that describes all of it is
//! [`openapi`]'s.

mod answer;
pub mod bounds;
mod health;
mod movements;
pub mod openapi;
mod orders;
mod precheck;
mod probes;
mod problem;
mod server;
mod state;
mod stock;
mod telling;
mod token;
mod waiters;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

pub use answer::AS_OF;
pub use health::Stopped;
pub use state::{Metrics, Render};
pub use token::Token;

use bounds::{MAX_BODY_BYTES, MAX_WAIT, REQUEST_LIMIT};
use health::Health;
use state::ApiState;
use telling::TellingLedger;
use waiters::Waiters;

use crate::store::{LedgerQueries, VerifierStore};

/// The names of what readiness depends on.
const DATABASE: &str = "database";
const KAFKA: &str = "kafka";

/// Asks a dependency how it is.
pub type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

/// What the API answers from.
pub struct Api {
    /// What is read.
    pub queries: Arc<dyn LedgerQueries>,
    /// How Kafka is asked whether it is there.
    pub kafka: Probe,
    /// Names the partitions that are stopped.
    pub stopped: Box<Stopped>,
    /// The metrics, where any are kept.
    pub metrics: Option<Metrics>,
    /// The token that all but the probes need, where one is required.
    pub token: Option<Token>,
}

/// A server that runs. Dropped, it runs on until the process ends.
pub struct Server {
    address: SocketAddr,
    waiters: Arc<Waiters>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    /// Listens, and serves until [`Server::stop`].
    ///
    /// # Errors
    /// When nothing can be listened on at this address: it is taken, or not this machine's.
    pub async fn start(listen: SocketAddr, api: Api) -> anyhow::Result<Self> {
        let cannot = || format!("cannot listen on {listen} (--http-listen)");
        let listener = TcpListener::bind(listen).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let stop = CancellationToken::new();
        let waiters = Arc::new(Waiters::new(stop.clone()));
        let health = Arc::new(Health::new(&[DATABASE, KAFKA], api.stopped));
        let (asked, kafka) = (Arc::clone(&api.queries), api.kafka);
        let database = move || {
            let asked = Arc::clone(&asked);
            async move { asked.moment().await }
        };
        tokio::spawn(Arc::clone(&health).watch(DATABASE, database, stop.clone()));
        tokio::spawn(Arc::clone(&health).watch(KAFKA, kafka, stop.clone()));
        tokio::spawn({
            let (waiters, queries) = (Arc::clone(&waiters), Arc::clone(&api.queries));
            async move { waiters.run(&*queries).await }
        });
        let state = ApiState::new(api.queries, Arc::clone(&waiters), health, api.metrics);
        let serving = tokio::spawn(server::serve(listener, router(state, api.token), stop.clone()));
        Ok(Self { address, waiters, stop, serving })
    }

    /// Where it listens, with the port that it was given where none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A ledger that tells who waits here what it decided.
    #[must_use]
    pub fn ledger(&self, store: Arc<dyn VerifierStore>) -> Arc<dyn VerifierStore> {
        Arc::new(TellingLedger { inner: store, waiters: Arc::clone(&self.waiters) })
    }

    /// Finishes what is under way, within a bound.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.serving.await.is_err() {
            tracing::error!("serving HTTP panicked");
        }
    }
}

/// All addresses.
fn router(state: ApiState, token: Option<Token>) -> Router {
    let within = |limit| TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limit);
    let waiting =
        Router::new().route("/v1/orders/{id}", get(orders::order)).layer(within(MAX_WAIT + REQUEST_LIMIT));
    let guarded = Router::new()
        .route("/v1/stock/{sku}", get(stock::stock))
        .route("/v1/stock:batch", post(stock::batch))
        .route("/v1/precheck", post(precheck::check))
        .route("/v1/movements", get(movements::movements))
        .route("/metrics", get(probes::metrics))
        .route("/openapi.json", get(openapi::serve))
        .layer(within(REQUEST_LIMIT))
        .merge(waiting)
        .route_layer(from_fn_with_state(token, token::check));
    Router::new()
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(problem::as_documents))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(Arc::new(state))
}
