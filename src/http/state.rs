//! What handlers work with.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bounds::MAX_REQUESTS;
use super::health::Health;
use super::level_cache::LevelCache;
use super::live::Hub;
use super::problem::{Kind, Problem};
use super::waiters::Waiters;
use crate::store::LedgerQueries;

/// Writes the metrics down.
pub type Render = dyn Fn() -> String + Send + Sync;

/// The metrics, as they are exposed.
#[derive(Clone)]
pub struct Metrics {
    /// Writes them down.
    pub render: Arc<Render>,
    /// Their media type.
    pub content_type: &'static str,
}

/// What handlers work with.
pub(super) struct ApiState {
    pub(super) queries: Arc<dyn LedgerQueries>,
    pub(super) levels: Option<Arc<LevelCache>>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Option<Metrics>,
    pub(super) live: Option<Arc<Hub>>,
    admission: Arc<Semaphore>,
}

impl ApiState {
    pub(super) fn new(
        queries: Arc<dyn LedgerQueries>,
        levels: Option<Arc<LevelCache>>,
        waiters: Arc<Waiters>,
        health: Arc<Health>,
        metrics: Option<Metrics>,
        live: Option<Arc<Hub>>,
    ) -> Self {
        let admission = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { queries, levels, waiters, health, metrics, live, admission }
    }

    /// Lets a request in that asks the database. One that has a body when that has come.
    pub(super) fn admit(&self) -> Result<Admitted, Problem> {
        let permit = Arc::clone(&self.admission).try_acquire_owned();
        permit.map(|permit| Admitted { _permit: permit }).map_err(|_| {
            Problem::new(Kind::Busy, format!("{MAX_REQUESTS} requests are under way: ask again"))
        })
    }
}

/// A request that was let in, until dropped.
pub(super) struct Admitted {
    _permit: OwnedSemaphorePermit,
}

impl FromRequestParts<Arc<ApiState>> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, api: &Arc<ApiState>) -> Result<Self, Problem> {
        api.admit()
    }
}
