//! What deciding needs of a ledger.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::ledger::{HeldProgram, TopicPartition};
use crate::store::{Applied, CommandBatch, PoolUse, Position, StoreError};

/// Applies batches, and keeps how far each partition is applied.
#[async_trait]
pub trait LedgerWriter: Send + Sync + 'static {
    /// Makes this the ledger of a consumer group, if it is of none; `take_over` makes it so from any.
    ///
    /// # Errors
    /// [`StoreError::OtherGroup`] when it is another group's.
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError>;

    /// The positions of these partitions; one the ledger never saw is absent.
    async fn positions(&self, of: &[TopicPartition])
    -> Result<HashMap<TopicPartition, Position>, StoreError>;

    /// The position of every partition the ledger ever saw.
    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError>;

    /// States the position of a partition, if it still is what it `was`: for one the ledger never saw (`None`), for
    /// accepted data loss, and for the id of its topic. A new id is noted with the ledger sequence from
    /// which on the partition's decisions are of it.
    ///
    /// # Errors
    /// [`StoreError::PositionChanged`] when it is something else by now.
    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError>;

    /// States by which program each of these partitions is read from these offsets on, where nothing was decided yet; one
    /// that was read as it is, and is again, is not noted. Returns all that is noted then, sorted by partition and offset.
    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError>;

    /// Grows whenever a connection that applies batches is opened. See [`CommandBatch::epoch`].
    fn connection_epoch(&self) -> u64;

    /// How many connections to the database there are; none where a store has no such.
    fn connections(&self) -> Vec<PoolUse> {
        Vec::new()
    }

    /// The same as the connections see it that apply batches, and the [`LedgerWriter::connection_epoch`] in which that is so.
    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError>;

    /// Applies a batch in one transaction, once: retries what is transient
    /// a bounded number of times within, and is safe to call again with the
    /// same batch after any error, since positions and decisions make a
    /// second time a no-op that answers the same. What cost the connection is
    /// not tried again within where the batch has an epoch: the next try could
    /// only say that there is a new one, and why would be lost.
    ///
    /// # Errors
    /// [`StoreError::LedgerBehind`] when a position is below what the caller knows to be applied: the database went back
    /// in time. [`StoreError::PreviousNotCommitted`] when it is below what the batch goes on from: that batch has to be
    /// applied first. [`StoreError::Database`] else.
    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError>;
}
