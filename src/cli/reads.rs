//! The read API of `run`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use secrecy::ExposeSecret as _;

use super::{Access, open_ledger};
use crate::config::{DatabaseArgs, HttpArgs};
use crate::http::{self, Api, Server, Token};
use crate::kafka::probe::probe;
use crate::observe::{CONTENT_TYPE, Metrics};
use crate::pipeline::{Settings, StoppedPartitions};
use crate::store::Store;
use crate::store::postgres::Connections;

/// Connections to PostgreSQL for reads: look-ups by index take a fraction of a millisecond each, so few answer thousands
/// a second. Their own, so that who reads never waits with who decides, nor the other way round.
const CONNECTIONS: Connections = Connections { batches: 1, readers: 4, others: 1 };

/// The read API, with the ledger it reads.
pub(super) struct Reads {
    pub(super) server: Server,
    store: Arc<dyn Store>,
}

impl Reads {
    /// Listens and serves, where an address is given.
    pub(super) async fn start(
        http: &HttpArgs,
        database: &DatabaseArgs,
        settings: &Settings,
        stopped: StoppedPartitions,
        metrics: Metrics,
    ) -> Result<Option<Self>> {
        let Some(listen) = http.http_listen else { return Ok(None) };
        let token = http.token()?.map(|token| Token::new(token.expose_secret()));
        let store = open_ledger(database, CONNECTIONS, Access::Read).await?;
        let api = Api {
            queries: store.clone(),
            kafka: Box::new(probe(&settings.kafka, &settings.topics.orders_topic)?),
            stopped: Box::new(move || {
                stopped.all().into_iter().map(|(at, stopped)| (at, stopped.since)).collect()
            }),
            metrics: Some(http::Metrics {
                render: Arc::new(move || metrics.render()),
                content_type: CONTENT_TYPE,
            }),
            token,
        };
        let server = Self::listen(listen, api, &store).await?;
        tracing::info!("answering reads, probes and metrics at http://{}", server.address());
        Ok(Some(Self { server, store }))
    }

    async fn listen(listen: SocketAddr, api: Api, store: &Arc<dyn Store>) -> Result<Server> {
        match Server::start(listen, api).await {
            Ok(server) => Ok(server),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Finishes what is under way, and closes its ledger.
    pub(super) async fn stop(self) {
        self.server.stop().await;
        self.store.close().await;
    }
}
