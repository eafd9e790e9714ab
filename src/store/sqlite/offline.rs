//! Batches of an operator's offline work: the steps of [`super::apply`], with what only these do between them.

use sqlx::SqliteConnection;

use super::apply::Found;
use super::rows;
use crate::ledger::{Sequenced, Sequences};
use crate::store::{Applied, CommandBatch, StoreError};

/// Applies a batch at the ledger sequences that its decisions had before.
pub(super) async fn restore(
    conn: &mut SqliteConnection,
    batch: &CommandBatch,
    sequences: &[Sequenced],
) -> Result<Applied, StoreError> {
    let read = Found::read(conn, batch).await?.read_stock(conn, batch).await?;
    read.decide_and_write(conn, batch, Sequences::Given(sequences)).await
}

/// Applies a batch after it made the levels of its items follow from their movements.
pub(super) async fn repair(conn: &mut SqliteConnection, batch: &CommandBatch) -> Result<Applied, StoreError> {
    let found = Found::read(conn, batch).await?;
    rows::mend_levels(conn, &found.items(batch)).await?;
    let read = found.read_stock(conn, batch).await?;
    let sequences = Sequences::From(read.next);
    read.decide_and_write(conn, batch, sequences).await
}
