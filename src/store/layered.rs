//! What stands around a ledger: it says what it adds, and everything else is the ledger's, which is said here for all.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, OverdueHolds, PoolUse, Position,
    StoreError, StoredOrder, VerifierStore, WorkQueue,
};
use crate::ledger::{CommandKey, Decision, HeldProgram, Id, Item, Sku, TopicPartition};

/// Stands around a ledger, and sees what is applied and taken. By default it adds nothing.
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// The ledger within.
    fn inner(&self) -> &dyn VerifierStore;

    /// Around [`LedgerWriter::apply`].
    ///
    /// # Errors
    /// Those of the ledger.
    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        self.inner().apply(batch).await
    }

    /// Around [`WorkQueue::take_due_holds`].
    ///
    /// # Errors
    /// Those of the ledger.
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        self.inner().take_due_holds(limit, lease).await
    }

    /// Around [`WorkQueue::overdue_holds`].
    ///
    /// # Errors
    /// Those of the ledger.
    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        self.inner().overdue_holds(by).await
    }
}

/// A ledger with something around it.
#[derive(Debug)]
pub struct Layered<L>(pub L);

#[async_trait]
impl<L: Layer> LedgerWriter for Layered<L> {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        self.0.inner().claim_group(group, take_over).await
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.0.inner().positions(of).await
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.0.inner().all_positions().await
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        self.0.inner().set_position(at, was, now).await
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        self.0.inner().hold_programs(now).await
    }

    fn connection_epoch(&self) -> u64 {
        self.0.inner().connection_epoch()
    }

    fn connections(&self) -> Vec<PoolUse> {
        self.0.inner().connections()
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        self.0.inner().applying_positions().await
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        self.0.apply(batch).await
    }
}

#[async_trait]
impl<L: Layer> LedgerReader for Layered<L> {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        self.0.inner().levels(of).await
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        self.0.inner().levels_of(items).await
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        self.0.inner().levels_after(after, limit).await
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        self.0.inner().decision(of).await
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        self.0.inner().order(id).await
    }
}

#[async_trait]
impl<L: Layer> WorkQueue for Layered<L> {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        self.0.take_due_holds(limit, lease).await
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        self.0.overdue_holds(by).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.0.inner().take_unannounced(limit).await
    }
}
