//! Reading the ledger back, in its order.
//!
//! Places in the order are kept by BRIN indexes: the tables are append-only,
//! so places follow the rows' order on disk closely, and such an index costs
//! a batch next to nothing. What it cannot do is sort; so each page is a
//! bounded stretch of places, of which the index names the few blocks.

use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::rows::damaged;
use super::{failed, rows};
use crate::ledger::{CommandKey, CommandKind, Decision, Id, Offset, Seq};
use crate::store::{MAX_BATCH, StoreError, StoredMovement};

/// Places between the first one of a batch and that of the next, as `ledger_seq` draws them.
const BATCH_PLACES: i64 = 100_000;
const _: () = assert!(MAX_BATCH == 100_000, "ledger_seq is incremented by MAX_BATCH");

/// Places looked through at once: ten batches, so that a page of usual length reads no block more than twice.
const STRETCH: i64 = 10 * BATCH_PLACES;

/// The next decisions in the ledger's order.
pub(super) async fn decisions_after(
    pool: &PgPool,
    after: Seq,
    limit: usize,
) -> Result<Vec<Decision>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut after = after.0;
    loop {
        let through = after.saturating_add(STRETCH);
        let found: Vec<Decision> = sqlx::query(
            r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset",
                      (extract(epoch FROM decided_at) * 1000000)::bigint AS decided_at
               FROM decisions WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"#,
        )
        .bind(after)
        .bind(through)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("reading the decisions"))?
        .iter()
        .map(rows::decision)
        .collect::<Result<_, _>>()?;
        // A stretch may be empty: batches that failed drew their places all the same.
        if !found.is_empty() || last_place(pool).await? <= through {
            return Ok(found);
        }
        after = through;
    }
}

/// The last place any batch can have drawn.
async fn last_place(pool: &PgPool) -> Result<i64, StoreError> {
    let last_batch: i64 = sqlx::query_scalar("SELECT last_value FROM ledger_seq")
        .fetch_one(pool)
        .await
        .map_err(failed("reading the ledger's last place"))?;
    Ok(last_batch.saturating_add(BATCH_PLACES))
}

/// A stretch of movements in the ledger's order.
pub(super) async fn movements_between(
    pool: &PgPool,
    after: Seq,
    through: Seq,
) -> Result<Vec<StoredMovement>, StoreError> {
    sqlx::query(
        r#"SELECT seq, sku, location, version, quantity, balance, kind, id, partition, "offset"
           FROM movements WHERE seq > $1 AND seq <= $2 ORDER BY seq, sku, location"#,
    )
    .bind(after.0)
    .bind(through.0)
    .fetch_all(pool)
    .await
    .map_err(failed("reading the movements"))?
    .iter()
    .map(movement)
    .collect()
}

fn movement(row: &PgRow) -> Result<StoredMovement, StoreError> {
    let doing = failed("reading the movements");
    let item = rows::item(row)?;
    let id: &str = row.try_get("id").map_err(&doing)?;
    let id =
        Id::new(id).map_err(|error| damaged(format!("a movement of {item} whose command id {error}")))?;
    let number: i16 = row.try_get("kind").map_err(&doing)?;
    let kind = CommandKind::from_number(number)
        .ok_or_else(|| damaged(format!("a movement of {item} by a command of kind {number}")))?;
    let partition: Option<i32> = row.try_get("partition").map_err(&doing)?;
    let offset: Option<i64> = row.try_get("offset").map_err(&doing)?;
    Ok(StoredMovement {
        item,
        version: row.try_get("version").map_err(&doing)?,
        quantity: row.try_get("quantity").map_err(&doing)?,
        balance: row.try_get("balance").map_err(&doing)?,
        cause: CommandKey { id, kind },
        seq: Seq(row.try_get("seq").map_err(&doing)?),
        place: partition.zip(offset.map(Offset)),
    })
}
