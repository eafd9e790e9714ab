//! A ledger that is measured when it is used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::lag::Lags;
use super::metrics::{Counters, counted, number};
use super::names::error_name;
use crate::ledger::{CommandKey, Decision, Id, Item, Outcome, Sku, TopicPartition};
use crate::live::Recorder;
use crate::store::{
    Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, OverdueHolds, PoolUse, Position,
    StoreError, StoredOrder, VerifierStore, WorkQueue,
};

pub(super) struct MeasuredLedger {
    pub(super) inner: Arc<dyn VerifierStore>,
    pub(super) counters: Arc<Counters>,
    pub(super) lags: Arc<Lags>,
    pub(super) live: Arc<Recorder>,
}

#[async_trait]
impl LedgerWriter for MeasuredLedger {
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
        let begun = Instant::now();
        let applied = self.inner.apply(batch).await;
        let took = begun.elapsed();
        self.counters.apply_seconds.observe(took.as_secs_f64());
        match &applied {
            Ok(applied) => {
                if let Some(since_read) = self.lags.applied(&batch.advances) {
                    self.counters.read_to_applied_seconds.observe(since_read.as_secs_f64());
                }
                self.counters.batch_commands.observe(f64::from(number(batch.requests.len())));
                let counts = counted(applied.outcomes.iter().filter_map(|outcome| match outcome {
                    Outcome::Decided(decision) => Some(&**decision),
                    _ => None,
                }));
                self.counters.decided(&counts);
                self.live.applied(&batch.requests, &applied.outcomes, &counts, took);
            }
            Err(error) => self.counters.database_failed(error_name(error)),
        }
        applied
    }
}

#[async_trait]
impl LedgerReader for MeasuredLedger {
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
impl WorkQueue for MeasuredLedger {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let taken = self.inner.take_due_holds(limit, lease).await;
        if let Ok(taken) = &taken {
            self.counters.due_holds.inc_by(u64::from(number(taken.len())));
        }
        taken
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        let overdue = self.inner.overdue_holds(by).await;
        if let Ok(overdue) = &overdue {
            let count = overdue.as_ref().map_or(0, |overdue| overdue.count);
            self.counters.overdue_holds.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        overdue
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.inner.take_unannounced(limit).await
    }
}
