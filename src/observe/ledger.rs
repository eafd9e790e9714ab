//! What a ledger does, measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::lag::Lags;
use super::metrics::{Counters, counted, number};
use super::names::error_name;
use crate::ledger::Outcome;
use crate::live::Recorder;
use crate::store::{Applied, CommandBatch, DueHold, Layer, OverdueHolds, StoreError, VerifierStore};

pub(super) struct LedgerMetrics {
    pub(super) inner: Arc<dyn VerifierStore>,
    pub(super) counters: Arc<Counters>,
    pub(super) lags: Arc<Lags>,
    pub(super) live: Arc<Recorder>,
}

#[async_trait]
impl Layer for LedgerMetrics {
    fn inner(&self) -> &dyn VerifierStore {
        &*self.inner
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
}
