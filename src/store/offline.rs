//! Batches of an operator's offline work: the steps of [`super::apply`], with what only these do between them.

use async_trait::async_trait;

use super::apply::{Applying, IdLookup, LedgerTx, Locked, applied, begin};
use super::{CommandBatch, StoreError};
use crate::ledger::{Item, Seq, Sequenced, Sequences};

/// What offline work needs of a database besides.
#[async_trait]
pub(super) trait OfflineTx<'c>: LedgerTx<'c> {
    /// Makes these levels, sorted and each once, what their newest movements say. Whoever moves them now is waited for,
    /// so that the newest movement is the newest.
    async fn repair_levels(&mut self, items: &[&Item]) -> Result<(), StoreError>;

    /// Lets the next batch begin after this ledger sequence.
    async fn draw_through(&mut self, last: Seq) -> Result<(), StoreError>;
}

/// Applies a batch at the ledger sequences that its decisions had before.
pub(super) fn restore<'c, T: OfflineTx<'c> + 'c>(
    connection: &'c mut T::Connection,
    batch: &'c CommandBatch,
    sequences: &'c [Sequenced],
) -> Applying<'c> {
    Box::pin(async move {
        let (mut tx, begun) = begin::<T>(connection, batch).await?;
        let items = begun.items(batch);
        let locked = Locked::of(&mut tx, batch, &begun, &items, IdLookup::Any).await?;
        let changes = locked.decide(batch, Sequences::Given(sequences));
        tx.write(batch, &items, &changes).await?;
        if let [.., last] = sequences {
            tx.draw_through(last.seq).await?;
        }
        tx.commit().await?;
        Ok(applied(changes))
    })
}

/// Applies a batch after it made the levels of its items follow from their movements.
pub(super) fn repair<'c, T: OfflineTx<'c> + 'c>(
    connection: &'c mut T::Connection,
    batch: &'c CommandBatch,
) -> Applying<'c> {
    Box::pin(async move {
        let (mut tx, begun) = begin::<T>(connection, batch).await?;
        let items = begun.items(batch);
        tx.repair_levels(&items).await?;
        let locked = Locked::of(&mut tx, batch, &begun, &items, IdLookup::Any).await?;
        let sequences = Sequences::From(locked.next);
        let changes = locked.decide(batch, sequences);
        tx.write(batch, &items, &changes).await?;
        tx.commit().await?;
        Ok(applied(changes))
    })
}
