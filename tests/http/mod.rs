//! The read API: what it answers on every store, on a running verifier, and by which indexes.

mod answers;
pub mod client;
mod live;
mod measured;
mod plans;
mod problems;
mod replicas;
pub mod running;

use std::sync::Arc;

use stock_verifier::http::{Api, Metrics, Server, Token};
use stock_verifier::store::{LedgerQueries, Store};
use tokio_util::sync::CancellationToken;

use client::Client;

/// What reads on this store and has no Kafka.
fn api(queries: Arc<dyn LedgerQueries>) -> Api {
    Api {
        levels: None,
        queries,
        kafka: Box::new(|| Box::pin(async { Ok(()) })),
        stopped: Box::new(Vec::new),
        stopping: CancellationToken::new(),
        metrics: None,
        live: None,
        token: None,
        watch: None,
    }
}

/// A server on a store, and who asks it.
async fn serve(store: &Arc<dyn Store>) -> (Server, Client) {
    start(api(store.clone())).await
}

async fn start(api: Api) -> (Server, Client) {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), api).await.unwrap();
    let client = Client::new(server.address());
    (server, client)
}

/// Asks beside the runtime's own threads.
async fn ask<T: Send + 'static>(client: &Client, ask: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let client = client.clone();
    tokio::task::spawn_blocking(move || ask(client)).await.unwrap()
}
