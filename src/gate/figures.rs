//! What a gate does now, for people who look: what its observer is told, kept, and what there is of entries and sales.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Observer;
use super::cache::{CacheError, CacheStatus, RedisCache};
use super::rule::{Sale, stamp};
use crate::http::{Problem, ProblemDocument, id_schema};
use crate::ledger::{Item, Sku, Stamp};

/// SKUs that are shown, of those that something is stated of.
const MAX_SALES: usize = 50;
/// Says that nothing was compared yet.
const NOT_COMPARED: u64 = u64::MAX;

/// Keeps what it tells another observer.
pub(super) struct Figures {
    inner: Arc<dyn Observer>,
    answers: Vec<(&'static str, AtomicU64)>,
    drift: AtomicU64,
}

impl Figures {
    pub(super) fn new(inner: Arc<dyn Observer>) -> Self {
        let answers = super::answers().map(|answer| (answer, AtomicU64::new(0))).collect();
        Self { inner, answers, drift: AtomicU64::new(NOT_COMPARED) }
    }
}

impl Observer for Figures {
    fn answered(&self, answer: &'static str, took: Option<Duration>) {
        if let Some((_, count)) = self.answers.iter().find(|(name, _)| *name == answer) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.answered(answer, took);
    }

    fn entries(&self, status: Option<&CacheStatus>) {
        self.inner.entries(status);
    }

    fn drift(&self, pieces: u64) {
        self.drift.store(pieces, Ordering::Relaxed);
        self.inner.drift(pieces);
    }
}

/// What a gate does now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GateView {
    /// When this was, by the gate's clock.
    #[schema(format = DateTime)]
    at: String,
    /// How many orders this gate has answered since it began, by what they were answered.
    answers: BTreeMap<String, u64>,
    /// What all gates of this Redis keep; absent while it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cache: Option<CacheView>,
    /// By how many pieces cached amounts differed from the ledger, when all were compared last with no entry open; absent
    /// until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    drift_pieces: Option<u64>,
}

/// What all gates of a Redis keep there.
#[derive(Debug, Serialize, ToSchema)]
struct CacheView {
    /// Whether it was filled from the ledger.
    filled: bool,
    /// Entries that wait for a result.
    waiting_for_result: u64,
    /// Accepted entries that wait for a level.
    waiting_for_level: u64,
    /// How long the oldest of both is open; 0 where there is none.
    oldest_seconds: f64,
    /// SKUs that were opened or closed, the first of them in their order.
    sales: Vec<SaleView>,
}

/// How a SKU is sold at its default location.
#[derive(Debug, Serialize, ToSchema)]
struct SaleView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// What is left by the estimate; absent where nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    left: Option<i64>,
    /// Pieces of entries that are open.
    of_entries: i64,
    /// Whether it was closed by hand.
    closed: bool,
    /// From when on it is sold, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    opens_at: Option<String>,
    /// How many pieces each buyer can have, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    buyer_limit: Option<i64>,
}

/// What the address works with.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) figures: Arc<Figures>,
    pub(super) cache: RedisCache,
}

/// What this gate does now. The page at `/` shows it, and asks again each second.
#[utoipa::path(get, path = "/v1/gate", tag = "gate", operation_id = "gate",
    responses(
        (status = 200, description = "What it does.", body = GateView),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn serve(State(shown): State<Shown>) -> Result<Response, Problem> {
    let cache = match cache(&shown.cache).await {
        Ok(cache) => Some(cache),
        Err(error) => {
            // Readiness says it.
            tracing::debug!(error = &error as &dyn std::error::Error, "the cache for the page");
            None
        }
    };
    let count =
        |(name, count): &(&'static str, AtomicU64)| ((*name).to_owned(), count.load(Ordering::Relaxed));
    let drift = shown.figures.drift.load(Ordering::Relaxed);
    let view = GateView {
        at: now().rfc3339(),
        answers: shown.figures.answers.iter().map(count).collect(),
        cache,
        drift_pieces: (drift != NOT_COMPARED).then_some(drift),
    };
    let mut response = Json(view).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn cache(cache: &RedisCache) -> Result<CacheView, CacheError> {
    let CacheStatus { filled, unsettled, accepted, oldest } = cache.status().await?;
    let skus: Vec<Sku> = cache.sales().await?.into_iter().take(MAX_SALES).collect();
    let items: Vec<Item> = skus.iter().cloned().map(Item::from).collect();
    let mut sales = Vec::with_capacity(skus.len());
    for (sku, (level, of_entries)) in skus.into_iter().zip(cache.amounts(&items).await?) {
        let Sale { opens_at, closed, buyer } = cache.sale(&sku).await?;
        sales.push(SaleView {
            left: level.map(|level| level.available - of_entries),
            of_entries,
            closed,
            opens_at: opens_at.map(|at| stamp(at).rfc3339()),
            buyer_limit: buyer.map(|limit| limit.pieces),
            sku,
        });
    }
    Ok(CacheView {
        filled,
        waiting_for_result: unsettled,
        waiting_for_level: accepted,
        oldest_seconds: oldest.unwrap_or_default().as_secs_f64(),
        sales,
    })
}

fn now() -> Stamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
