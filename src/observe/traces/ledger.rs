//! A span for each try to apply a batch to a ledger.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Tracer as _};

use super::Traces;
use super::under_way::end;
use crate::ledger::Outcome;
use crate::observe::names::error_name;
use crate::store::{Applied, CommandBatch, Layer, StoreError, VerifierStore};

/// How many commands a batch has, and what became of them.
const COMMANDS: &str = "stock_verifier.commands";
const ACCEPTED: &str = "stock_verifier.accepted";
const REJECTED: &str = "stock_verifier.rejected";

/// Each try to apply a batch has a span.
pub(in crate::observe) struct LedgerTraces {
    pub(in crate::observe) inner: Arc<dyn VerifierStore>,
    pub(in crate::observe) traces: Traces,
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[async_trait]
impl Layer for LedgerTraces {
    fn inner(&self) -> &dyn VerifierStore {
        &*self.inner
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let traces = &self.traces;
        let Some(under_way) = traces.under_way.batch(traces, batch) else {
            return self.inner.apply(batch).await;
        };
        let mut span = traces
            .tracer
            .span_builder("decide")
            .with_kind(SpanKind::Internal)
            .with_attributes([KeyValue::new(COMMANDS, number(batch.requests.len()))])
            .start_with_context(&traces.tracer, under_way.context());
        let applied = self.inner.apply(batch).await;
        under_way.went_on();
        if let Ok(applied) = &applied {
            let decided = |accepted| {
                let is_so =
                    |outcome: &&Outcome| matches!(outcome, Outcome::Decided(d) if d.accepted == accepted);
                number(applied.outcomes.iter().filter(is_so).count())
            };
            span.set_attribute(KeyValue::new(ACCEPTED, decided(true)));
            span.set_attribute(KeyValue::new(REJECTED, decided(false)));
        }
        end(span, applied.as_ref().err().map(error_name));
        applied
    }
}
