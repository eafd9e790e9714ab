//! The guard of batches that are decided on remembered levels: see [`crate::store::remembered`].

use sqlx::{PgConnection, Row as _};

use super::rows::LevelColumns;
use super::{failed, rows};
use crate::ledger::{Item, Level, Limits, MAX_QUANTITY, Map};
use crate::store::StoreError;
use crate::store::remembered::ExpectedLevel;

/// Above every limit there can be: see [`GUARD`].
const NO_LIMIT: i64 = 1_000_000_000_000_000;
const _: () = assert!(NO_LIMIT > MAX_QUANTITY);

/// The guard: one statement that takes the rows in the order they are given, locks each, compares it under its lock, and
/// writes it, as it is where the batch only looked at it. It is an upsert for what that is by its nature:
///
/// * The order: rows are inserted one after the other, as the sort gives them; no plan can change that, as one of a join
///   could. Where there is a row already, which is always, that one is locked.
/// * The comparison: it is with the row as it is now, whatever the statement's snapshot has. A row that another batch
///   changes is waited for, and looked at again.
///
/// What was expected stands in arrays, found by the row's number. The number comes in the one column that the new row
/// does not need, its order limit, so high that none is: a row that is gone, and so is inserted, is told by it.
/// As quick as this is no other that keeps the order. Locking by `SELECT … FOR NO KEY UPDATE` and updating what that
/// found takes a third more of PostgreSQL's time (8,000 of 10,000 rows).
const GUARD: &str = "WITH written AS (
        INSERT INTO levels (sku, location, available, version, backorder_limit, order_limit)
        SELECT sku, location, available, version, backorder_limit, $9 + number
        FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
             WITH ORDINALITY AS new (sku, location, available, version, backorder_limit, number)
        ORDER BY number
        ON CONFLICT (sku, location) DO UPDATE SET available = excluded.available, version = excluded.version
        WHERE levels.available = ($6::bigint[])[excluded.order_limit - $9]
          AND levels.version = ($7::bigint[])[excluded.order_limit - $9]
          AND levels.backorder_limit = excluded.backorder_limit
          AND coalesce(levels.order_limit, 0) = ($8::bigint[])[excluded.order_limit - $9]
        RETURNING order_limit
    )
    SELECT count(*) FROM written WHERE coalesce(order_limit, 0) < $9";

/// Locks these levels, sorted by item, compares them, and writes them. Whether every one was as expected; where not, some may be
/// written, and the transaction is of no use.
pub(super) async fn move_levels(
    connection: &mut PgConnection,
    levels: &[ExpectedLevel<'_>],
) -> Result<bool, StoreError> {
    if levels.is_empty() {
        return Ok(true);
    }
    let doing = failed("locking and writing the levels");
    let (skus, locations) = rows::item_columns(levels.iter().map(|level| level.item));
    let (mut before, mut after) = (LevelColumns::default(), LevelColumns::default());
    for level in levels {
        before.push(level.before);
        after.push(level.after);
    }
    // No nulls: among them an array's elements have to be searched for.
    let order_limits: Vec<i64> = before.order_limits.iter().map(|limit| limit.unwrap_or(0)).collect();
    let as_expected: i64 = sqlx::query_scalar(GUARD)
        .bind(skus)
        .bind(locations)
        .bind(after.availables)
        .bind(after.versions)
        .bind(after.backorder_limits)
        .bind(before.availables)
        .bind(before.versions)
        .bind(order_limits)
        .bind(NO_LIMIT)
        .fetch_one(connection)
        .await
        .map_err(doing)?;
    Ok(usize::try_from(as_expected) == Ok(levels.len()))
}

/// Reads these levels without locks; unknown ones are absent.
pub(super) async fn read(
    connection: &mut PgConnection,
    items: &[&Item],
) -> Result<Map<Item, Level>, StoreError> {
    let doing = failed("reading the levels");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    let found = sqlx::query(
        "SELECT wanted.number, available, version, backorder_limit, order_limit
         FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (sku, location, number)
              JOIN levels ON levels.sku = wanted.sku AND levels.location = wanted.location",
    )
    .bind(skus)
    .bind(locations)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    let mut levels = Map::default();
    for row in &found {
        let number: i64 = row.try_get(0).map_err(&doing)?;
        let level = Level {
            available: row.try_get(1).map_err(&doing)?,
            version: row.try_get(2).map_err(&doing)?,
            limits: Limits {
                backorder: row.try_get(3).map_err(&doing)?,
                order: row.try_get(4).map_err(&doing)?,
            },
        };
        // Holds because the database numbers what it was given, from 1.
        let index = usize::try_from(number - 1).expect("a number from 1");
        levels.insert(items[index].clone(), level);
    }
    Ok(levels)
}
