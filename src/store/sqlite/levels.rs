//! The levels, read and written.

use std::collections::BTreeSet;

use sqlx::SqliteConnection;

use super::failure::database;
use super::rows::{json, location_column, stored_item, write};
use crate::ledger::{Item, Level, Limits, Sku};
use crate::store::{ItemLevel, MOST_REPAIRED, StoreError};

/// What a level is kept as: SKU, location, available, version, limit of backorders, limit of an order.
type LevelRow = (String, String, i64, i64, i64, Option<i64>);

/// The levels of these items, in no order; unknown ones are absent.
pub(super) async fn read(
    conn: &mut SqliteConnection,
    items: &BTreeSet<&Item>,
) -> Result<Vec<(Item, Level)>, StoreError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<(&Sku, &str)> = items.iter().map(|item| (&item.sku, location_column(item))).collect();
    let rows = sqlx::query_as(
        "SELECT l.sku, l.location, l.available, l.version, l.backorder_limit, l.order_limit
         FROM json_each(?1) AS k
         CROSS JOIN levels AS l ON l.sku = k.value ->> 0 AND l.location = k.value ->> 1",
    )
    .bind(json(&keys))
    .fetch_all(conn)
    .await;
    of_rows(rows)
}

/// The levels of these SKUs at every location, sorted by item; unknown ones are absent.
pub(super) async fn read_of_skus(
    conn: &mut SqliteConnection,
    skus: &BTreeSet<&Sku>,
) -> Result<Vec<(Item, Level)>, StoreError> {
    if skus.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as(
        "SELECT l.sku, l.location, l.available, l.version, l.backorder_limit, l.order_limit
         FROM json_each(?1) AS k CROSS JOIN levels AS l ON l.sku = k.value
         ORDER BY l.sku, l.location",
    )
    .bind(json(skus))
    .fetch_all(conn)
    .await;
    of_rows(rows)
}

/// The levels of one SKU, sorted by location.
pub(super) async fn read_of_sku(
    conn: &mut SqliteConnection,
    sku: &Sku,
    limit: usize,
) -> Result<Vec<(Item, Level)>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
         WHERE sku = ?1 ORDER BY location LIMIT ?2",
    )
    .bind(sku.as_str())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await;
    of_rows(rows)
}

/// Every level, sorted by item.
pub(super) async fn read_all(conn: &mut SqliteConnection) -> Result<Vec<(Item, Level)>, StoreError> {
    read_after(conn, None, usize::MAX).await
}

/// The next levels after an item, sorted by item.
pub(super) async fn read_after(
    conn: &mut SqliteConnection,
    after: Option<&Item>,
    limit: usize,
) -> Result<Vec<(Item, Level)>, StoreError> {
    // No SKU is empty, so every item comes after this.
    let (sku, location) = after.map_or(("", ""), |item| (item.sku.as_str(), location_column(item)));
    let rows = sqlx::query_as(
        "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
         WHERE (sku, location) > (?1, ?2) ORDER BY sku, location LIMIT ?3",
    )
    .bind(sku)
    .bind(location)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await;
    of_rows(rows)
}

/// Levels that are not where their movements end, though those are one chain: as they should be.
pub(super) async fn read_repairable(conn: &mut SqliteConnection) -> Result<Vec<(Item, Level)>, StoreError> {
    let rows = sqlx::query_as(
        "WITH chained AS (
             SELECT sku, location, version, quantity, balance,
                    lag(version, 1, 0) OVER chain AS version_before, lag(balance, 1, 0) OVER chain AS balance_before
             FROM movements WINDOW chain AS (PARTITION BY sku, location ORDER BY version)
         ), m AS (
             SELECT sku, location, count(*) AS movements, sum(quantity) AS total
             FROM chained GROUP BY sku, location
             HAVING sum(version <> version_before + 1 OR balance <> balance_before + quantity) = 0
         )
         SELECT m.sku, m.location, m.total, m.movements, coalesce(l.backorder_limit, max(0, -m.total)), l.order_limit
         FROM m LEFT JOIN levels AS l ON l.sku = m.sku AND l.location = m.location
         WHERE l.version IS NOT m.movements OR l.available IS NOT m.total
         ORDER BY m.sku, m.location LIMIT ?1",
    )
    .bind(i64::from(MOST_REPAIRED))
    .fetch_all(conn)
    .await;
    of_rows(rows)
}

/// Makes these levels what their newest movements say.
pub(super) async fn repair(conn: &mut SqliteConnection, items: &BTreeSet<&Item>) -> Result<(), StoreError> {
    let rows: Vec<_> = items.iter().map(|item| (&item.sku, location_column(item))).collect();
    write(
        conn,
        "repairing levels",
        "INSERT INTO levels (sku, location, available, version, backorder_limit)
         SELECT w.value ->> 0, w.value ->> 1, coalesce(m.balance, 0), coalesce(m.version, 0),
                max(0, -coalesce(m.balance, 0)) -- only where the row was missing
         FROM json_each(?1) AS w
         LEFT JOIN (SELECT sku, location, balance, max(version) AS version FROM movements GROUP BY sku, location) AS m
             ON m.sku = w.value ->> 0 AND m.location = w.value ->> 1
         WHERE true
         ON CONFLICT (sku, location) DO UPDATE SET available = excluded.available, version = excluded.version",
        &rows,
    )
    .await
}

fn of_rows(rows: Result<Vec<LevelRow>, sqlx::Error>) -> Result<Vec<(Item, Level)>, StoreError> {
    rows.map_err(database("reading levels"))?
        .into_iter()
        .map(|(sku, location, available, version, backorder, order)| {
            let level = Level { available, version, limits: Limits { backorder, order } };
            Ok((stored_item(&sku, &location)?, level))
        })
        .collect()
}

/// States the levels that changed.
pub(super) async fn write_all(
    conn: &mut SqliteConnection,
    levels: &[(Item, Level)],
) -> Result<(), StoreError> {
    let rows: Vec<_> = levels
        .iter()
        .map(|(item, level)| {
            let Limits { backorder, order } = level.limits;
            (&item.sku, location_column(item), level.available, level.version, backorder, order)
        })
        .collect();
    write(
        conn,
        "writing levels",
        "INSERT INTO levels (sku, location, available, version, backorder_limit, order_limit)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5
         FROM json_each(?1) AS r WHERE true
         ON CONFLICT (sku, location) DO UPDATE SET
             available = excluded.available, version = excluded.version,
             backorder_limit = excluded.backorder_limit, order_limit = excluded.order_limit",
        &rows,
    )
    .await
}

pub(super) fn item_levels(levels: Vec<(Item, Level)>) -> Vec<ItemLevel> {
    levels.into_iter().map(|(item, level)| ItemLevel { item, level }).collect()
}
