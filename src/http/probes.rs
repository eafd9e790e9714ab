//! Probes and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::health::Readiness;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::ApiState;

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Liveness {
    /// Always, where there is an answer.
    alive: bool,
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the process lives: whatever becomes of the database and of Kafka, which a restart does not mend.
#[utoipa::path(get, path = "/livez", tag = "probes", operation_id = "livez", security(()),
    responses(
        (status = 200, description = "It lives.", body = Liveness),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn livez() -> Response {
    uncached(Json(Liveness { alive: true }).into_response())
}

/// Whether everything that it depends on answers: each with its state and since when, and the partitions that are stopped. A
/// database that takes no writes answers too: then reads go on, and orders wait.
#[utoipa::path(get, path = "/readyz", tag = "probes", operation_id = "readyz", security(()),
    responses(
        (status = 200, description = "It is ready.", body = Readiness),
        (status = 503, description = "It is not; which part is why.", body = Readiness),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn readyz(State(api): State<Arc<ApiState>>) -> Response {
    let readiness = api.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    uncached((status, Json(readiness)).into_response())
}

/// The metrics, in the text format of `OpenMetrics`.
#[utoipa::path(get, path = "/metrics", tag = "probes", operation_id = "metrics",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn metrics(State(api): State<Arc<ApiState>>) -> Response {
    let Some(metrics) = &api.metrics else {
        return Problem::new(Kind::Plain(StatusCode::NOT_FOUND), "no metrics are kept").into_response();
    };
    let kind = HeaderValue::from_static(metrics.content_type);
    uncached(([(CONTENT_TYPE, kind)], (metrics.render)()).into_response())
}
