//! What replay and audit read of a ledger.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ledger::{
    CommandKey, Decision, HeldProgram, Hold, Id, Item, Map, NextOffset, OrderStock, Seq, TopicPartition,
};
use crate::store::{Audit, Incarnation, ItemLevel, StoreError, StoredMovement};

/// Reads all that a ledger ever decided. Changes nothing.
#[async_trait]
pub trait LedgerHistory: Send + Sync + 'static {
    /// The group whose ledger it is; `None` before the first verifier.
    async fn group(&self) -> Result<Option<String>, StoreError>;

    /// The ledger as it is now, to be read at leisure while batches go on.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Proves, or names where it does not hold, what the database alone can prove of the design's invariants 1 to 3;
    /// for 6 it returns the positions. Looks at one moment of the ledger, and holds up no batch.
    async fn audit(&self) -> Result<Audit, StoreError>;
}

/// The ledger at one moment, whatever is written meanwhile. Dropped without ceremony.
#[async_trait]
pub trait Snapshot: Send {
    /// How many decisions there are.
    async fn count(&mut self) -> Result<u64, StoreError>;

    /// The last ledger sequence a decision has; `None` in an empty ledger.
    async fn last_seq(&mut self) -> Result<Option<Seq>, StoreError>;

    /// The position of every partition.
    async fn positions(&mut self) -> Result<HashMap<TopicPartition, NextOffset>, StoreError>;

    /// Which topics the decisions of each partition are of, sorted by partition and ledger sequence.
    async fn incarnations(&mut self) -> Result<Vec<Incarnation>, StoreError>;

    /// Which programs read the records of each partition, sorted by partition and offset; none of one that was always read
    /// as it is.
    async fn programs(&mut self) -> Result<Vec<HeldProgram>, StoreError>;

    /// The next decisions after a ledger sequence, in that order: at least one where there is one,
    /// at most `limit`. None are left when it returns none. Begin at [`Seq::START`].
    async fn decisions_after(&mut self, after: Seq, limit: usize) -> Result<Vec<Decision>, StoreError>;

    /// The movements that decisions after `after` and up to `through` made, in the ledger's order, and by item
    /// within a decision. Bounded by what those decisions can have moved; so read it for one page of
    /// [`Snapshot::decisions_after`] at a time.
    async fn movements_between(
        &mut self,
        after: Seq,
        through: Seq,
    ) -> Result<Vec<StoredMovement>, StoreError>;

    /// The decisions of every kind for these ids; unknown ones are absent.
    async fn decisions_of(&mut self, ids: &[&Id]) -> Result<Map<CommandKey, Arc<Decision>>, StoreError>;

    /// The next levels after an item, as [`LedgerReader::levels_after`](super::LedgerReader::levels_after).
    async fn levels_after(
        &mut self,
        after: Option<&Item>,
        limit: usize,
    ) -> Result<Vec<ItemLevel>, StoreError>;

    /// The next lines of orders that gave something back, after this one, sorted by order and item, at most `limit`.
    async fn order_lines_after(
        &mut self,
        after: Option<(&Id, &Item)>,
        limit: usize,
    ) -> Result<Vec<(Id, OrderStock)>, StoreError>;

    /// The next open holds after this order's, sorted by order, at most `limit`.
    async fn holds_after(&mut self, after: Option<&Id>, limit: usize) -> Result<Vec<(Id, Hold)>, StoreError>;
}
