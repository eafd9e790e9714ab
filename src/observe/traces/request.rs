//! A request to the read API, traced.

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::{ERROR_TYPE, Traces, remote};
use crate::event::TraceContext;

/// Attributes of OpenTelemetry's conventions for HTTP servers.
const METHOD: &str = "http.request.method";
const ROUTE: &str = "http.route";
const STATUS: &str = "http.response.status_code";
const SCHEME: &str = "url.scheme";
const PATH: &str = "url.path";

/// From here on the server is at fault, not who asks.
const SERVER_ERROR: u16 = 500;

/// A request under way. Dropped without an answer, it ended without one.
pub struct RequestSpan(Span);

impl Traces {
    /// A request begins: in the trace that it brings, else in one of its own. `path` has no query in it.
    #[must_use]
    pub fn request(&self, method: &str, route: &str, path: &str, trace: TraceContext<'_>) -> RequestSpan {
        let parent =
            remote(trace).map_or_else(Context::new, |span| Context::new().with_remote_span_context(span));
        let attributes = [
            KeyValue::new(METHOD, method.to_owned()),
            KeyValue::new(ROUTE, route.to_owned()),
            KeyValue::new(PATH, path.to_owned()),
            KeyValue::new(SCHEME, "http"),
        ];
        let span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        RequestSpan(span)
    }
}

impl RequestSpan {
    /// It was answered.
    pub fn answered(mut self, status: u16) {
        self.0.set_attribute(KeyValue::new(STATUS, i64::from(status)));
        if status >= SERVER_ERROR {
            self.0.set_attribute(KeyValue::new(ERROR_TYPE, status.to_string()));
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}
