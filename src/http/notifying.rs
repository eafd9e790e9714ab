//! Notifies who waits for verdicts of what a ledger decided.

use std::sync::Arc;

use async_trait::async_trait;

use super::waiters::Waiters;
use crate::ledger::{CommandKind, Outcome};
use crate::store::{Applied, CommandBatch, Layer, StoreError, VerifierStore};

/// Who waits is notified of what a batch decided once it is committed.
pub(super) struct Notifying {
    pub(super) inner: Arc<dyn VerifierStore>,
    pub(super) waiters: Arc<Waiters>,
}

#[async_trait]
impl Layer for Notifying {
    fn inner(&self) -> &dyn VerifierStore {
        &*self.inner
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
