//! A ledger that tells who waits for verdicts what it decided.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::waiters::Waiters;
use crate::ledger::{CommandKey, CommandKind, Decision, Id, Item, Outcome, Sku, TopicPartition};
use crate::store::{
    Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, OverdueHolds, PoolUse, Position,
    StoreError, StoredOrder, VerifierStore, WorkQueue,
};

/// Everything is the inner ledger's; what a batch decided is told once it is committed.
pub(super) struct TellingLedger {
    pub(super) inner: Arc<dyn VerifierStore>,
    pub(super) waiters: Arc<Waiters>,
}

#[async_trait]
impl LedgerWriter for TellingLedger {
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
        let applied = self.inner.apply(batch).await?;
        // Also what was decided before and is published again: who waits may have come in between.
        self.waiters.decided(applied.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Decided(decision) | Outcome::Republished(decision)
                if decision.key.kind == CommandKind::OrderCreated =>
            {
                Some(&decision.key.id)
            }
            _ => None,
        }));
        Ok(applied)
    }
}

#[async_trait]
impl LedgerReader for TellingLedger {
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
impl WorkQueue for TellingLedger {
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
