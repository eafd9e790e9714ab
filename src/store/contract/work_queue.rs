//! What waits in a ledger for a running verifier to do.

use std::time::Duration;

use async_trait::async_trait;

use crate::ledger::Item;
use crate::store::{DueHold, OverdueHolds, StoreError};

/// Hands out work: holds whose time is over, and levels to announce. All instances share one queue.
#[async_trait]
pub trait WorkQueue: Send + Sync + 'static {
    /// Up to `limit` holds whose time is over by the database's clock, the longest over first. Who is given one has it
    /// to himself for `lease`, ten minutes at most; after that it is given again, until its end is decided. What somebody
    /// seems to have for longer was given by a clock that was ahead, and is given again.
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError>;

    /// The holds that are over since longer than this by the database's clock; `None` when there are none.
    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError>;

    /// Takes up to `limit` items whose level was changed by a command from no record (an operator's own) off the list
    /// of those that nobody announced yet. No two callers get the same one for the same change.
    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError>;
}
