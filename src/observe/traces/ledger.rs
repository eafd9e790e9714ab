//! A ledger whose batches are traced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Tracer as _};

use super::Traces;
use super::under_way::end;
use crate::ledger::{CommandKey, Decision, Id, Item, Outcome, Sku, TopicPartition};
use crate::observe::names::error_name;
use crate::store::{
    Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, OverdueHolds, PoolUse, Position,
    StoreError, StoredOrder, VerifierStore, WorkQueue,
};

/// How many commands a batch has, and what became of them.
const COMMANDS: &str = "stock_verifier.commands";
const ACCEPTED: &str = "stock_verifier.accepted";
const REJECTED: &str = "stock_verifier.rejected";

/// Everything is the inner ledger's; each try to apply a batch has a span.
pub(in crate::observe) struct TracedLedger {
    pub(in crate::observe) inner: Arc<dyn VerifierStore>,
    pub(in crate::observe) traces: Traces,
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[async_trait]
impl LedgerWriter for TracedLedger {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        self.inner.claim_group(group, take_over).await
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.inner.positions(of).await
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.inner.all_positions().await
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        self.inner.set_position(at, was, now).await
    }

    fn connection_epoch(&self) -> u64 {
        self.inner.connection_epoch()
    }

    fn connections(&self) -> Vec<PoolUse> {
        self.inner.connections()
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        self.inner.applying_positions().await
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

#[async_trait]
impl LedgerReader for TracedLedger {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        self.inner.levels(of).await
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        self.inner.levels_of(items).await
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        self.inner.levels_after(after, limit).await
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        self.inner.decision(of).await
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        self.inner.order(id).await
    }
}

#[async_trait]
impl WorkQueue for TracedLedger {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        self.inner.take_due_holds(limit, lease).await
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        self.inner.overdue_holds(by).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.inner.take_unannounced(limit).await
    }
}
