//! A batch's levels: locked and read, repaired, written.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::copy::CopyRows;
use super::failure::failed;
use super::rows;
use super::rows::{Ctid, LevelColumns, location_column};
use crate::ledger::{Changes, Item, Level, Limits, Map};
use crate::store::{Advance, StoreError};

/// Makes these levels what their newest movements say.
pub(super) async fn repair(connection: &mut PgConnection, items: &[&Item]) -> Result<(), StoreError> {
    let (skus, locations) = rows::item_columns(items.iter().copied());
    sqlx::query(
        "INSERT INTO levels (sku, location, available, version, backorder_limit)
         SELECT wanted.sku, wanted.location, coalesce(newest.balance, 0), coalesce(newest.version, 0),
                -- Only where the row was missing; what went below zero was allowed to.
                greatest(0, -coalesce(newest.balance, 0))
         FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location)
              LEFT JOIN LATERAL (SELECT balance, version FROM movements
                                 WHERE movements.sku = wanted.sku AND movements.location = wanted.location
                                 ORDER BY version DESC LIMIT 1) AS newest ON true
         ORDER BY wanted.sku, wanted.location
         ON CONFLICT (sku, location) DO UPDATE SET available = excluded.available, version = excluded.version",
    )
    .bind(skus)
    .bind(locations)
    .execute(connection)
    .await
    .map_err(failed("repairing levels"))?;
    Ok(())
}

/// Where the row of each wanted item's level is, and its limits; in item order, `None` where there is no row.
pub(super) type LevelRows = Vec<Option<(Ctid, Limits)>>;

/// Locks these levels in item order and reads them.
///
/// A join, not `= ANY`: each row that another batch changed while this one
/// waited is compared again, and with the whole array that was a scan of it.
pub(super) async fn lock(
    connection: &mut PgConnection,
    items: &[&Item],
) -> Result<(Map<Item, Level>, LevelRows), StoreError> {
    if items.is_empty() {
        return Ok((Map::default(), LevelRows::new()));
    }
    let doing = failed("locking the levels");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    // Each answered by its number and read by column: a text that is known already and a name cost as much as the rest.
    let locked = if items.iter().all(|item| item.location.is_none()) {
        // Of the default location alone, as nearly every batch is: a fifth less than with a second column to compare.
        sqlx::query(
            "SELECT wanted.number, available, version, backorder_limit, order_limit, levels.ctid
             FROM UNNEST($1::text[]) WITH ORDINALITY AS wanted (sku, number)
                  JOIN levels ON levels.sku = wanted.sku AND levels.location = ''
             ORDER BY levels.sku FOR NO KEY UPDATE OF levels",
        )
        .bind(skus)
    } else {
        sqlx::query(
            "SELECT wanted.number, available, version, backorder_limit, order_limit, levels.ctid
             FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (sku, location, number)
                  JOIN levels ON levels.sku = wanted.sku AND levels.location = wanted.location
             ORDER BY levels.sku, levels.location FOR NO KEY UPDATE OF levels",
        )
        .bind(skus)
        .bind(locations)
    }
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    read(&locked, items).map_err(doing)
}

/// The same of levels that nobody else has: it waits for nobody, and passes over the others.
pub(super) async fn lock_free(
    connection: &mut PgConnection,
    items: &[&Item],
) -> Result<(Map<Item, Level>, LevelRows), StoreError> {
    let doing = failed("locking the levels of items that began");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    let locked = sqlx::query(
        "SELECT wanted.number, available, version, backorder_limit, order_limit, levels.ctid
         FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (sku, location, number)
              JOIN levels ON levels.sku = wanted.sku AND levels.location = wanted.location
         FOR NO KEY UPDATE OF levels SKIP LOCKED",
    )
    .bind(skus)
    .bind(locations)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    read(&locked, items).map_err(doing)
}

/// How many of these items have a level.
pub(super) async fn count(connection: &mut PgConnection, items: &[&Item]) -> Result<usize, StoreError> {
    let doing = failed("looking for items that began");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location)
                              JOIN levels USING (sku, location)",
    )
    .bind(skus)
    .bind(locations)
    .fetch_one(connection)
    .await
    .map_err(doing)?;
    // Holds because it is no more than there are items.
    Ok(usize::try_from(count).expect("a count of items"))
}

/// Levels that were locked for these items, and where their rows are.
fn read(locked: &[PgRow], items: &[&Item]) -> Result<(Map<Item, Level>, LevelRows), sqlx::Error> {
    let mut levels = Map::default();
    levels.reserve(locked.len());
    let mut rows: LevelRows = vec![None; items.len()];
    for found in locked {
        let (index, level) = numbered(found)?;
        levels.insert(items[index].clone(), level);
        rows[index] = Some((found.try_get(5)?, level.limits));
    }
    Ok((levels, rows))
}

/// The level of a row, and which of those asked for it is. Its columns are, from the first on: number, available, version,
/// `backorder_limit`, `order_limit`.
pub(super) fn numbered(row: &PgRow) -> Result<(usize, Level), sqlx::Error> {
    let number: i64 = row.try_get(0)?;
    let limits = Limits { backorder: row.try_get(3)?, order: row.try_get(4)? };
    let level = Level { available: row.try_get(1)?, version: row.try_get(2)?, limits };
    // Holds because the database numbers what it was given, from 1.
    Ok((usize::try_from(number - 1).expect("a number from 1"), level))
}

/// Writes the new levels, whose rows were locked for these items, and positions. Every row meant must be written, or the
/// batch fails whole.
pub(super) async fn write_with_positions(
    connection: &mut PgConnection,
    (items, rows): (&[&Item], &LevelRows),
    changes: &Changes,
    advances: &[Advance],
) -> Result<(), StoreError> {
    let (mut moved, mut limited, mut new) =
        ((Vec::new(), LevelColumns::default()), (Vec::new(), LevelColumns::default()), Vec::new());
    // Both in item order: one walk finds each level's row.
    let mut rows = items.iter().zip(rows);
    for (item, level) in &changes.levels {
        match rows.find(|(at, _)| **at == item).and_then(|(_, row)| row.as_ref()) {
            Some((row_id, limits)) => {
                let (row_ids, columns) = if *limits == level.limits { &mut moved } else { &mut limited };
                row_ids.push(*row_id);
                columns.push(*level);
            }
            None => new.push((item, *level)),
        }
    }
    move_levels(connection, moved, advances).await?;
    if !limited.0.is_empty() {
        state_levels(connection, limited).await?;
    }
    insert_levels(connection, &new).await
}

/// Writes levels whose limits stay, and the positions.
async fn move_levels(
    connection: &mut PgConnection,
    (rows, levels): (Vec<Ctid>, LevelColumns),
    advances: &[Advance],
) -> Result<(), StoreError> {
    let doing = failed("writing the levels");
    let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
    let nexts: Vec<i64> = advances.iter().map(|advance| advance.next.0).collect();
    let published: Vec<Option<i64>> =
        advances.iter().map(|advance| advance.published.map(|published| published.0)).collect();
    let meant = (rows.len(), advances.len());
    let written = sqlx::query(
        // By the rows' ids (ctid), which their locks hold fast: half the cost of finding them by SKU again.
        "WITH moved AS (
             UPDATE levels SET available = new.available, version = new.version
             FROM UNNEST($1::tid[], $2::bigint[], $3::bigint[]) AS new (row_id, available, version)
             WHERE levels.ctid = new.row_id
             RETURNING 1
         ), placed AS (
             INSERT INTO positions (topic, partition, next_offset, published_offset)
             SELECT * FROM UNNEST($4::text[], $5::int[], $6::bigint[], $7::bigint[])
             ON CONFLICT (topic, partition)
                 DO UPDATE SET next_offset = greatest(positions.next_offset, excluded.next_offset),
                               published_offset = greatest(positions.published_offset, excluded.published_offset)
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM placed) AS placed",
    )
    .bind(rows)
    .bind(levels.availables)
    .bind(levels.versions)
    .bind(topics)
    .bind(partitions)
    .bind(nexts)
    .bind(published)
    .fetch_one(connection)
    .await
    .map_err(&doing)?;
    let moved: i64 = written.try_get("moved").map_err(&doing)?;
    let placed: i64 = written.try_get("placed").map_err(&doing)?;
    if (usize::try_from(moved), usize::try_from(placed)) != (Ok(meant.0), Ok(meant.1)) {
        return Err(StoreError::Damaged {
            what: format!(
                "{moved} of {} levels and {placed} of {} positions that were just locked",
                meant.0, meant.1
            ),
        });
    }
    Ok(())
}

/// Writes levels whose limits change too. By themselves: the others' statement is quicker without.
async fn state_levels(
    connection: &mut PgConnection,
    (row_ids, levels): (Vec<Ctid>, LevelColumns),
) -> Result<(), StoreError> {
    let meant = row_ids.len();
    let written = sqlx::query(
        "UPDATE levels SET available = new.available, version = new.version,
                           backorder_limit = new.backorder_limit, order_limit = new.order_limit
         FROM UNNEST($1::tid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
              AS new (row_id, available, version, backorder_limit, order_limit)
         WHERE levels.ctid = new.row_id",
    )
    .bind(row_ids)
    .bind(levels.availables)
    .bind(levels.versions)
    .bind(levels.backorder_limits)
    .bind(levels.order_limits)
    .execute(connection)
    .await
    .map_err(failed("writing the limits"))?
    .rows_affected();
    if usize::try_from(written) != Ok(meant) {
        return Err(StoreError::Damaged {
            what: format!("{written} of {meant} levels that were just locked"),
        });
    }
    Ok(())
}

/// Writes the levels of items that had none.
pub(super) async fn insert_levels(
    connection: &mut PgConnection,
    new: &[(&Item, Level)],
) -> Result<(), StoreError> {
    let mut rows = CopyRows::new(6);
    for (item, level) in new {
        let row = rows.row();
        row.text(item.sku.as_str())
            .text(location_column(item))
            .bigint(level.available)
            .bigint(level.version)
            .bigint(level.limits.backorder);
        match level.limits.order {
            Some(limit) => row.bigint(limit),
            None => row.null(),
        };
    }
    let statement = "COPY levels (sku, location, available, version, backorder_limit, order_limit)
                     FROM STDIN WITH (FORMAT binary)";
    rows.copy(connection, statement).await.map_err(failed("writing the levels of new items"))
}
