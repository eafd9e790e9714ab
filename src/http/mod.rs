//! The read API: stock, prechecks, orders and movements for neighbours; probes and metrics for operators, and a page for
//! people. It writes nothing: orders and adjustments go by Kafka.
//!
//! It is given what it reads ([`LedgerQueries`], on connections of its own) and how to ask how Kafka is. Who waits for a
//! verdict is notified by the ledger that the pipeline writes to, wrapped ([`Server::ledger`]); no room knows of it. Bounds on
//! everything are in [`bounds`]; every error is a problem document (RFC 9457); the document that describes all of it is
//! [`openapi`]'s.

mod answer;
pub mod bounds;
mod health;
mod level_cache;
mod live;
mod movements;
mod notifying;
pub mod openapi;
mod orders;
mod page;
mod precheck;
mod probes;
mod problem;
mod server;
mod state;
mod stock;
mod token;
mod waiters;
mod watched;

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
pub(crate) use answer::id_schema;
pub use bounds::STOP_LIMIT;
pub use health::Stopped;
pub use level_cache::LevelCache;
pub use live::{AskMembers, Live, Member};
pub(crate) use movements::MovementView;
pub use orders::Orders;
pub(crate) use orders::{KnownOrder, OrderStanding, OrderView, wait_of};
pub(crate) use page::{File, Page, embedded};
pub(crate) use problem::{Asked, Kind, OtherKind, Problem, ProblemDocument};
pub use state::{Metrics, Render};
pub use token::Token;
pub use watched::{Answered, Begun, Watch};

use bounds::{MAX_BODY_BYTES, MAX_WAIT, REQUEST_LIMIT};
use health::Health;
use live::Hub;
use notifying::Notifying;
use state::ApiState;
use token::Required;
use waiters::Waiters;

use crate::store::{Layered, LedgerQueries, VerifierStore};

/// The names of what readiness depends on.
const DATABASE: &str = "database";
const KAFKA: &str = "kafka";

/// Asks a dependency how it is.
pub type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

/// What the API answers from.
pub struct Api {
    /// What is read.
    pub queries: Arc<dyn LedgerQueries>,
    /// Levels in memory that prechecks are answered from, where any are kept.
    pub levels: Option<Arc<LevelCache>>,
    /// How Kafka is asked whether it is there.
    pub kafka: Probe,
    /// Names the partitions that are stopped.
    pub stopped: Box<Stopped>,
    /// Cancelled once the process was told to stop: it is not ready from then on, and answers until [`Server::stop`].
    pub stopping: CancellationToken,
    /// The metrics, where any are kept.
    pub metrics: Option<Metrics>,
    /// What the live page shows, where something is watched.
    pub live: Option<Live>,
    /// The token that all but the probes and the page's files need, where one is required.
    pub token: Option<Token>,
    /// Who watches requests, where somebody does.
    pub watch: Option<Arc<Watch>>,
}

/// Makes addresses, given what is known of orders.
pub(crate) type Routes = Box<dyn FnOnce(Orders) -> Router + Send>;

/// What another room serves at the same address, and depends on.
pub(crate) struct Extra {
    /// What readiness depends on besides, with how each is asked.
    pub(crate) dependencies: Vec<(&'static str, Probe)>,
    /// Its addresses, guarded by the token as the others are.
    pub(crate) routes: Option<Routes>,
    /// Its page.
    pub(crate) page: &'static Page,
    /// The document that describes all addresses.
    pub(crate) document: fn() -> &'static str,
}

impl Default for Extra {
    fn default() -> Self {
        Self { dependencies: Vec::new(), routes: None, page: &page::VERIFIER, document: openapi::document }
    }
}

/// A server that runs. Dropped, it runs on until the process ends.
pub struct Server {
    address: SocketAddr,
    waiters: Arc<Waiters>,
    required: Required,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    /// Listens, and serves until [`Server::stop`].
    ///
    /// # Errors
    /// When nothing can be listened on at this address: it is taken, or not this machine's.
    pub async fn start(listen: SocketAddr, api: Api) -> anyhow::Result<Self> {
        Self::start_with(listen, api, Extra::default()).await
    }

    /// The same with what another room serves.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn start_with(listen: SocketAddr, api: Api, extra: Extra) -> anyhow::Result<Self> {
        let cannot = || format!("cannot listen on {listen} (--http-listen)");
        let listener = TcpListener::bind(listen).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let stop = CancellationToken::new();
        let waiters = Arc::new(Waiters::new(stop.clone()));
        let mut names = vec![DATABASE, KAFKA];
        names.extend(extra.dependencies.iter().map(|(name, _)| *name));
        let health = Arc::new(Health::new(&names, api.stopped, api.stopping));
        let (asked, kafka) = (Arc::clone(&api.queries), api.kafka);
        let database = move || {
            let asked = Arc::clone(&asked);
            async move { asked.moment().await }
        };
        tokio::spawn(Arc::clone(&health).watch(DATABASE, database, stop.clone()));
        tokio::spawn(Arc::clone(&health).watch(KAFKA, kafka, stop.clone()));
        for (name, probe) in extra.dependencies {
            tokio::spawn(Arc::clone(&health).watch(name, probe, stop.clone()));
        }
        tokio::spawn({
            let (waiters, queries) = (Arc::clone(&waiters), Arc::clone(&api.queries));
            async move { waiters.run(&*queries).await }
        });
        let hub = api.live.map(|live| {
            let (queries, health) = (Arc::clone(&api.queries), Arc::clone(&health));
            Arc::new(Hub::new(live, queries, health, stop.clone()))
        });
        if let Some(hub) = hub.clone() {
            tokio::spawn(async move { hub.run().await });
        }
        let waiting = Arc::clone(&waiters);
        let state = Arc::new(ApiState::new(api.queries, api.levels, waiting, health, api.metrics, hub));
        let required = Required::new(api.token);
        let routes = extra.routes.map(|routes| routes(Orders(Arc::clone(&state)))).unwrap_or_default();
        let served = Served { routes, page: extra.page, document: extra.document };
        let addresses = router(state, required.clone(), served, api.watch);
        let serving = tokio::spawn(server::serve(listener, addresses, stop.clone()));
        Ok(Self { address, waiters, required, stop, serving })
    }

    /// Where it listens, with the port that it was given where none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the token is changed that requests must bring.
    pub fn change_token(&self) -> impl Fn(Token) + Send + Sync + 'static {
        let required = self.required.clone();
        move |token| required.set(token)
    }

    /// A ledger that notifies who waits here of what it decided.
    #[must_use]
    pub fn ledger(&self, store: Arc<dyn VerifierStore>) -> Arc<dyn VerifierStore> {
        Arc::new(Layered(Notifying { inner: store, waiters: Arc::clone(&self.waiters) }))
    }

    /// Finishes what is under way, within a bound.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.serving.await.is_err() {
            tracing::error!("serving HTTP panicked");
        }
    }
}

/// What differs by who serves.
struct Served {
    /// Another room's addresses.
    routes: Router,
    page: &'static Page,
    document: fn() -> &'static str,
}

/// All addresses, with another room's.
fn router(state: Arc<ApiState>, token: Required, served: Served, watch: Option<Arc<Watch>>) -> Router {
    let Served { routes, page, document } = served;
    let within = |limit| TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limit);
    let waiting =
        Router::new().route("/v1/orders/{id}", get(orders::order)).layer(within(MAX_WAIT + REQUEST_LIMIT));
    let guarded = Router::new()
        .route("/v1/stock/{sku}", get(stock::stock))
        .route("/v1/stock:batch", post(stock::batch))
        .route("/v1/precheck", post(precheck::check))
        .route("/v1/movements", get(movements::movements))
        .route("/metrics", get(probes::metrics))
        .route("/v1/live", get(page::live))
        .route("/openapi.json", get(move || async move { openapi::serve(document) }))
        .layer(within(REQUEST_LIMIT))
        .merge(waiting)
        .merge(routes.with_state(()))
        .route_layer(from_fn_with_state(token, token::check));
    let all = Router::new()
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/", get(move || async move { page::index(page) }))
        .route("/page/{file}", get(move |name: problem::Named| async move { page::file(page, name) }))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(problem::as_documents))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(state);
    // Outside of everything, so that it sees what is answered in the end; not there unless somebody watches.
    match watch {
        Some(watch) => all.layer(from_fn_with_state(watch, watched::watched)),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::Response;
    use tower::ServiceExt as _;

    use super::*;
    use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};
    use crate::store::{AsOf, DatedMovement, ItemLevel, MovementCursor, OrderLife, StoreError};

    /// A ledger that never answers, or panics.
    struct Silent {
        panics: bool,
    }

    #[async_trait]
    impl LedgerQueries for Silent {
        async fn moment(&self) -> Result<Stamp, StoreError> {
            std::future::pending().await
        }

        async fn stock(&self, _: &Sku, _: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            assert!(!self.panics, "as it was told to");
            std::future::pending().await
        }

        async fn stock_of(&self, _: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            std::future::pending().await
        }

        async fn orders(&self, _: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
            std::future::pending().await
        }

        async fn movements(
            &self,
            _: &Sku,
            _: Option<Option<&Location>>,
            _: Option<&MovementCursor>,
            _: usize,
        ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
            std::future::pending().await
        }
    }

    fn addresses(panics: bool) -> Router {
        let waiters = Arc::new(Waiters::new(CancellationToken::new()));
        let health = Arc::new(Health::new(&[DATABASE], Box::new(Vec::new), CancellationToken::new()));
        let state = ApiState::new(Arc::new(Silent { panics }), None, waiters, health, None, None);
        let served = Served { routes: Router::new(), page: &page::VERIFIER, document: openapi::document };
        router(Arc::new(state), Required::default(), served, None)
    }

    async fn get(addresses: &Router, path: &str) -> Response {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        addresses.clone().oneshot(request).await.unwrap()
    }

    async fn post(addresses: &Router, path: &str, body: Body) -> Response {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("content-length", "100")
            .body(body)
            .unwrap();
        addresses.clone().oneshot(request).await.unwrap()
    }

    async fn kind(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), MAX_BODY_BYTES).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, document["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_too_long_is_a_problem_and_one_that_panics_too() {
        let silent = addresses(false);
        for path in ["/v1/stock/MUG", "/v1/orders/o-1", "/v1/movements?sku=MUG"] {
            assert_eq!(kind(get(&silent, path).await).await, (504, "timed-out".to_owned()), "{path}");
        }
        // Nobody looks here, as when the database is away.
        let waited = kind(get(&silent, "/v1/orders/o-1?wait=30s").await).await;
        assert_eq!(waited, (503, "ledger-away".to_owned()));
        let panicked = kind(get(&addresses(true), "/v1/stock/MUG").await).await;
        assert_eq!(panicked, (500, "blank".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_many_are_under_way_the_next_is_told_so_and_probes_are_answered_all_the_same() {
        let silent = addresses(false);
        let under_way: Vec<_> = (0..bounds::MAX_REQUESTS)
            .map(|_| {
                let silent = silent.clone();
                tokio::spawn(async move { get(&silent, "/v1/stock/MUG").await })
            })
            .collect();
        // Less than they have: each has begun, and none is over.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let next = get(&silent, "/v1/stock/MUG").await;
        assert_eq!(next.headers()["retry-after"], "1");
        assert_eq!(kind(next).await, (503, "busy".to_owned()));
        let cart = || Body::from(r#"{"lines":[{"sku":"MUG","quantity":1}]}"#);
        assert_eq!(kind(post(&silent, "/v1/precheck", cart()).await).await, (503, "busy".to_owned()));
        assert_eq!(get(&silent, "/livez").await.status(), 200);
        assert_eq!(get(&silent, "/readyz").await.status(), 503);
        for one in under_way {
            assert_eq!(one.await.unwrap().status(), 504);
        }
        let after = kind(get(&silent, "/v1/stock/MUG").await).await;
        assert_eq!(after, (504, "timed-out".to_owned()), "permits are free again");
        let after = kind(post(&silent, "/v1/precheck", cart()).await).await;
        assert_eq!(after, (504, "timed-out".to_owned()), "for those with a body too");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_body_slowly_takes_no_place_and_is_told_that_it_did_not_come() {
        let silent = addresses(false);
        let slow: Vec<_> = (0..2 * bounds::MAX_REQUESTS)
            .map(|number| {
                let path = if number % 2 == 0 { "/v1/precheck" } else { "/v1/stock:batch" };
                let nothing = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
                let silent = silent.clone();
                tokio::spawn(async move { post(&silent, path, Body::from_stream(nothing)).await })
            })
            .collect();
        // Less than they have: each has begun, and none is over.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let other = kind(get(&silent, "/v1/stock/MUG").await).await;
        assert_eq!(other, (504, "timed-out".to_owned()), "it was let in, and the database is silent");
        for one in slow {
            assert_eq!(kind(one.await.unwrap()).await, (408, "blank".to_owned()));
        }
    }
}
