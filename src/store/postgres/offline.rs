//! Batches of an operator's offline work: the steps of [`super::apply`], with what only these do between them.

use sqlx::PgConnection;

use super::apply::{IdLookup, Locked, LookedUp, commit, write};
use super::{failed, levels};
use crate::ledger::{Seq, Sequenced, Sequences};
use crate::store::{Applied, CommandBatch, StoreError};

/// Applies a batch at the ledger sequences that its decisions had before.
pub(super) async fn restore(
    connection: &mut PgConnection,
    batch: &CommandBatch,
    sequences: &[Sequenced],
) -> Result<Applied, StoreError> {
    let before = LookedUp::of(connection, batch).await?;
    let mut transaction = before.begin(connection).await?;
    let items = before.items(batch);
    let locked = Locked::of(&mut transaction, batch, &before, &items, IdLookup::Any).await?;
    let (rows, changes) = locked.decide(batch, Sequences::Given(sequences));
    write(&mut transaction, batch, &rows, &changes).await?;
    if let [.., last] = sequences {
        draw_through(&mut transaction, last.seq).await?;
    }
    commit(transaction, changes).await
}

/// Applies a batch after it made the levels of its items follow from their movements.
pub(super) async fn repair(
    connection: &mut PgConnection,
    batch: &CommandBatch,
) -> Result<Applied, StoreError> {
    let before = LookedUp::of(connection, batch).await?;
    let mut transaction = before.begin(connection).await?;
    let items = before.items(batch);
    // Whoever moves them now is waited for, so that the newest movement is the newest.
    levels::lock(&mut transaction, &items).await?;
    levels::repair(&mut transaction, &items).await?;
    let locked = Locked::of(&mut transaction, batch, &before, &items, IdLookup::Any).await?;
    let sequences = Sequences::From(locked.next);
    let (rows, changes) = locked.decide(batch, sequences);
    write(&mut transaction, batch, &rows, &changes).await?;
    commit(transaction, changes).await
}

/// Lets the next batch begin after this ledger sequence.
async fn draw_through(connection: &mut PgConnection, last: Seq) -> Result<(), StoreError> {
    sqlx::query("SELECT setval('ledger_seq', greatest($1, last_value)) FROM ledger_seq")
        .bind(last.0)
        .execute(connection)
        .await
        .map_err(failed("keeping the ledger sequences"))?;
    Ok(())
}
