//! Requests, watched by somebody from outside.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;

/// Addresses that are watched begin so: probes and scrapes come all the time, and ask for nothing.
const WATCHED: &str = "/v1/";

/// A request that begins.
#[derive(Debug, Clone, Copy)]
pub struct Begun<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its address, with the names of its parts for what they are: `/v1/stock/{sku}`.
    pub route: &'a str,
    /// Its address, without the query.
    pub path: &'a str,
    /// The W3C trace context that it brings.
    pub traceparent: Option<&'a [u8]>,
    /// What tracing systems added to that.
    pub tracestate: Option<&'a [u8]>,
}

/// Learns the status that a request was answered with. Dropped when nobody waits for the answer any more.
pub type Answered = Box<dyn FnOnce(u16) + Send>;

/// Learns that a request begins.
pub type Watch = dyn Fn(Begun<'_>) -> Answered + Send + Sync;

/// Lets somebody watch a request that is asked of the ledger.
pub(super) async fn watched(State(watch): State<Arc<Watch>>, request: Request, next: Next) -> Response {
    let answered = begin(&*watch, &request);
    let response = next.run(request).await;
    if let Some(answered) = answered {
        answered(response.status().as_u16());
    }
    response
}

/// Says that a request begins; not of those that are not watched.
fn begin(watch: &Watch, request: &Request) -> Option<Answered> {
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    route.starts_with(WATCHED).then(|| {
        watch(Begun {
            method: request.method().as_str(),
            route,
            path: request.uri().path(),
            traceparent: header("traceparent"),
            tracestate: header("tracestate"),
        })
    })
}
