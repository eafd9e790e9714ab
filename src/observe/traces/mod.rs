//! What a verifier does, as spans: one for each batch, with its stages below it, linked to the traces of its records.
//!
//! | span | from | to |
//! |---|---|---|
//! | `process` | its first record was read | its last result is published |
//! | below it `poll` | its first record was read | the database is asked |
//! | `decide` | the database is asked | it answered; one for each try |
//! | `send` | a transaction begins | it ended; one for each try and each portion |
//!
//! Decorators alone, as for the metrics: of the source, the ledger and the sink. Which of what they see belongs together,
//! they know by partition and offset (`under_way`). Nothing of it is there unless spans are exported, and they are where
//! OpenTelemetry's own variables say so (`exporter`). Names and attributes are those of its conventions for messaging and
//! HTTP. A trace of its own for each batch, not a span in each record's trace: a batch of 16,000 orders is one piece of
//! work, and the conventions link such a piece to its messages.

mod exporter;
mod ledger;
mod request;
mod sink;
mod source;
mod under_way;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::task::spawn_blocking;

pub(super) use ledger::LedgerTraces;
pub use request::RequestSpan;
pub(super) use sink::TracedSink;
pub(super) use source::TracedSource;

use self::under_way::UnderWay;
use crate::config::TopicArgs;
use crate::event::{TRACEPARENT, TRACESTATE, TraceContext};

/// Longest wait at a stop for the last spans to be exported: a part of what a stop may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Attributes of OpenTelemetry's conventions for messaging (1.38, in development there).
const SYSTEM: &str = "messaging.system";
const OPERATION_NAME: &str = "messaging.operation.name";
const OPERATION_TYPE: &str = "messaging.operation.type";
const DESTINATION: &str = "messaging.destination.name";
const PARTITION: &str = "messaging.destination.partition.id";
const GROUP: &str = "messaging.consumer.group.name";
const MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// The kind of a failure, for every kind of span.
const ERROR_TYPE: &str = "error.type";

/// Exports spans of one process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    group: Arc<str>,
    topics: Arc<TopicArgs>,
    under_way: Arc<UnderWay>,
}

impl Traces {
    /// As OpenTelemetry's variables say; `None` where they ask for no export, or for one that is not possible, which is
    /// then logged: selling goes on without it.
    #[must_use]
    pub fn from_environment(group: &str, instance: &str, topics: &TopicArgs) -> Option<Self> {
        let (provider, tracer) = exporter::from_environment(instance)?;
        let under_way = Arc::default();
        Some(Self { tracer, provider, group: group.into(), topics: Arc::new(topics.clone()), under_way })
    }

    /// Exports what is left, within a bound, and ends it.
    pub async fn stop(self) {
        let provider = self.provider.clone();
        // What never ended is to be seen too.
        self.under_way.clear();
        let ended = spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be exported within {FLUSH_LIMIT:?}");
        }
    }

    /// What every span about messages has.
    fn attributes(&self, name: &'static str, kind: &'static str) -> Vec<KeyValue> {
        vec![
            KeyValue::new(SYSTEM, "kafka"),
            KeyValue::new(OPERATION_NAME, name),
            KeyValue::new(OPERATION_TYPE, kind),
            KeyValue::new(GROUP, Arc::clone(&self.group)),
        ]
    }
}

/// The span that a record or a request is of; `None` where it brings none that can be read.
fn remote(trace: TraceContext<'_>) -> Option<SpanContext> {
    struct Headers<'a>(TraceContext<'a>);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            let value = match key {
                TRACEPARENT => self.0.traceparent,
                TRACESTATE => self.0.tracestate,
                _ => None,
            };
            str::from_utf8(value?).ok()
        }

        fn keys(&self) -> Vec<&str> {
            vec![TRACEPARENT, TRACESTATE]
        }
    }
    trace.traceparent.filter(|traceparent| is_well_formed(traceparent))?;
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(trace));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Whether it has the form that the W3C says: the propagator takes shorter numbers too.
fn is_well_formed(traceparent: &[u8]) -> bool {
    /// `00-`, 32 digits, `-`, 16 digits, `-`, two digits. A later version may go on after another `-`.
    const BYTES: usize = 55;
    let Some((head, rest)) = traceparent.split_at_checked(BYTES) else { return false };
    let is_right = |(at, byte): (usize, &u8)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    head.iter().enumerate().all(is_right) && (rest.is_empty() || rest[0] == b'-')
}

#[cfg(test)]
mod tests;
