//! What is kept of orders beside their decisions: what they gave back, and their holds. And the levels to announce.
//!
//! A plain order that gives nothing back has no row here.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use sqlx::SqliteConnection;

use super::failure::database;
use super::rows::{json, location_column, stored_item, write};
use crate::ledger::{Hold, Id, Item, Map, Movement, OrderState, OrderStock, Stamp, TopicPartition};
use crate::store::{DueHold, MOST_LEASE, OverdueHolds, StoreError};

/// Fills in what these orders gave back.
pub(super) async fn read_lines(
    conn: &mut SqliteConnection,
    states: &mut Map<Id, OrderState>,
) -> Result<(), StoreError> {
    if states.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT o.order_id, o.sku, o.location, o.returned
         FROM json_each(?1) AS k CROSS JOIN order_lines AS o ON o.order_id = k.value",
    )
    .bind(json(&ids(states)))
    .fetch_all(conn)
    .await
    .map_err(database("reading what orders gave back"))?;
    for (order_id, sku, location, returned) in rows {
        let item = stored_item(&sku, &location)?;
        let line = states
            .get_mut(order_id.as_str())
            .and_then(|state| state.lines.iter_mut().find(|line| line.item == item))
            .ok_or_else(|| StoreError::Damaged {
                what: format!("a return of {item} for order {order_id}, which never took any"),
            })?;
        line.returned = returned;
    }
    Ok(())
}

/// Fills in the holds of these orders.
pub(super) async fn read_holds(
    conn: &mut SqliteConnection,
    states: &mut Map<Id, OrderState>,
) -> Result<(), StoreError> {
    if states.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, i64, Option<String>, Option<i32>)> = sqlx::query_as(
        "SELECT h.order_id, h.expires_at, h.topic, h.partition
         FROM json_each(?1) AS k CROSS JOIN holds AS h ON h.order_id = k.value",
    )
    .bind(json(&ids(states)))
    .fetch_all(conn)
    .await
    .map_err(database("reading holds"))?;
    for (order_id, expires_at, topic, partition) in rows {
        if let Some(state) = states.get_mut(order_id.as_str()) {
            let at = partition_of(topic.map(Arc::from), partition);
            state.hold = Some(Hold { expires_at: Stamp(expires_at), at });
        }
    }
    Ok(())
}

/// The next lines of orders that gave something back, sorted by order and item.
pub(super) async fn read_lines_after(
    conn: &mut SqliteConnection,
    after: Option<(&Id, &Item)>,
    limit: usize,
) -> Result<Vec<(Id, OrderStock)>, StoreError> {
    // No id is empty, so every order comes after this.
    let (id, sku, location) =
        after.map_or(("", "", ""), |(id, item)| (id.as_str(), item.sku.as_str(), location_column(item)));
    let rows: Vec<(String, String, String, i64, i64)> = sqlx::query_as(
        "SELECT order_id, sku, location, deducted, returned FROM order_lines
         WHERE (order_id, sku, location) > (?1, ?2, ?3) ORDER BY order_id, sku, location LIMIT ?4",
    )
    .bind(id)
    .bind(sku)
    .bind(location)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("reading what orders gave back"))?;
    rows.into_iter()
        .map(|(id, sku, location, deducted, returned)| {
            Ok((stored_id(&id)?, OrderStock { item: stored_item(&sku, &location)?, deducted, returned }))
        })
        .collect()
}

/// The next open holds, sorted by order.
pub(super) async fn read_holds_after(
    conn: &mut SqliteConnection,
    after: Option<&Id>,
    limit: usize,
) -> Result<Vec<(Id, Hold)>, StoreError> {
    let rows: Vec<(String, i64, Option<String>, Option<i32>)> = sqlx::query_as(
        "SELECT order_id, expires_at, topic, partition FROM holds
         WHERE order_id > ?1 ORDER BY order_id LIMIT ?2",
    )
    .bind(after.map_or("", Id::as_str))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("reading holds"))?;
    rows.into_iter()
        .map(|(id, expires_at, topic, partition)| {
            let at = partition_of(topic.map(Arc::from), partition);
            Ok((stored_id(&id)?, Hold { expires_at: Stamp(expires_at), at }))
        })
        .collect()
}

fn stored_id(id: &str) -> Result<Id, StoreError> {
    Id::new(id).map_err(|error| StoreError::Damaged { what: format!("an order {id:?} whose id {error}") })
}

/// Sorted, so that look-ups walk the index one way.
fn ids(states: &Map<Id, OrderState>) -> BTreeSet<&Id> {
    states.keys().collect()
}

fn partition_of(topic: Option<Arc<str>>, partition: Option<i32>) -> Option<TopicPartition> {
    topic.zip(partition).map(|(topic, partition)| TopicPartition::new(topic, partition))
}

/// States what orders gave back so far.
pub(super) async fn write_lines(
    conn: &mut SqliteConnection,
    orders: &[(Id, OrderState)],
) -> Result<(), StoreError> {
    let rows: Vec<_> = orders
        .iter()
        .flat_map(|(id, state)| {
            state.lines.iter().filter(|line| line.returned > 0).map(move |line| {
                (id, &line.item.sku, location_column(&line.item), line.deducted, line.returned)
            })
        })
        .collect();
    write(
        conn,
        "writing what orders gave back",
        "INSERT INTO order_lines (order_id, sku, location, deducted, returned)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4
         FROM json_each(?1) AS r WHERE true
         ON CONFLICT (order_id, sku, location) DO UPDATE SET returned = excluded.returned",
        &rows,
    )
    .await
}

/// States the holds that are open now, and removes those that no longer are. `held` are the orders that had one when
/// the batch began: a hold that began and ended within it leaves no row.
pub(super) async fn write_holds(
    conn: &mut SqliteConnection,
    orders: &[(Id, OrderState)],
    held: &HashSet<Id>,
) -> Result<(), StoreError> {
    let open: Vec<_> = orders
        .iter()
        .filter_map(|(id, state)| {
            let Hold { expires_at, at } = state.hold.as_ref()?;
            Some((id, expires_at.0, at.as_ref().map(|at| &*at.topic), at.as_ref().map(|at| at.partition)))
        })
        .collect();
    write(
        conn,
        "writing holds",
        "INSERT INTO holds (order_id, expires_at, topic, partition)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3 FROM json_each(?1) AS r WHERE true
         ON CONFLICT (order_id) DO UPDATE SET expires_at = excluded.expires_at, asked_until = NULL",
        &open,
    )
    .await?;
    let ended: Vec<&Id> = orders
        .iter()
        .filter(|(id, state)| state.hold.is_none() && held.contains(id))
        .map(|(id, _)| id)
        .collect();
    write(
        conn,
        "ending holds",
        "DELETE FROM holds WHERE order_id IN (SELECT value FROM json_each(?1))",
        &ended,
    )
    .await
}

/// Gives up to `limit` holds that are over to this caller alone until `asked_until`, the longest over first.
pub(super) async fn take_due_holds(
    conn: &mut SqliteConnection,
    limit: usize,
    now: Stamp,
    asked_until: Stamp,
) -> Result<Vec<DueHold>, StoreError> {
    let mut rows: Vec<(i64, String, Option<String>, Option<i32>)> = sqlx::query_as(
        "UPDATE holds SET asked_until = ?2
         WHERE order_id IN (SELECT order_id FROM holds
                            WHERE expires_at <= ?1
                                  AND (asked_until IS NULL OR asked_until <= ?1
                                       -- Asked by a clock that was ahead: nobody asks for longer.
                                       OR asked_until > ?1 + ?4)
                            ORDER BY expires_at LIMIT ?3)
         RETURNING expires_at, order_id, topic, partition",
    )
    .bind(now.0)
    .bind(asked_until.0)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(i64::try_from(MOST_LEASE.as_micros()).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("taking due holds"))?;
    // Rows are returned in the order they were updated in.
    rows.sort_unstable();
    rows.into_iter()
        .map(|(_, id, topic, partition)| {
            let order_id = Id::new(&id).map_err(|error| StoreError::Damaged {
                what: format!("a hold of order {id:?}, which {error}"),
            })?;
            Ok(DueHold { order_id, at: partition_of(topic.map(Arc::from), partition) })
        })
        .collect()
}

/// The holds that were over before this time.
pub(super) async fn overdue_holds(
    conn: &mut SqliteConnection,
    before: Stamp,
) -> Result<Option<OverdueHolds>, StoreError> {
    let row: Option<(String, i64, i64)> = sqlx::query_as(
        "SELECT order_id, expires_at, count(*) OVER () FROM holds
         WHERE expires_at < ?1 ORDER BY expires_at, order_id LIMIT 1",
    )
    .bind(before.0)
    .fetch_optional(conn)
    .await
    .map_err(database("looking for overdue holds"))?;
    row.map(|(id, since, count)| {
        let oldest = Id::new(&id).map_err(|error| StoreError::Damaged {
            what: format!("a hold of order {id:?}, which {error}"),
        })?;
        Ok(OverdueHolds { count: count.unsigned_abs(), oldest, since: Stamp(since) })
    })
    .transpose()
}

/// Notes the levels that commands from no record moved.
pub(super) async fn write_unannounced(
    conn: &mut SqliteConnection,
    movements: &[Movement],
) -> Result<(), StoreError> {
    let items: BTreeSet<&Item> = movements
        .iter()
        .filter(|movement| movement.source.is_none())
        .map(|movement| &movement.item)
        .collect();
    let rows: Vec<_> = items.into_iter().map(|item| (&item.sku, location_column(item))).collect();
    write(
        conn,
        "noting levels to announce",
        // Updates what is there, so that every row counts as written.
        "INSERT INTO unannounced_levels (sku, location)
         SELECT r.value ->> 0, r.value ->> 1 FROM json_each(?1) AS r WHERE true
         ON CONFLICT (sku, location) DO UPDATE SET location = excluded.location",
        &rows,
    )
    .await
}

/// Takes up to `limit` items off the list of those whose level nobody announced.
pub(super) async fn take_unannounced(
    conn: &mut SqliteConnection,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "DELETE FROM unannounced_levels
         WHERE (sku, location) IN (SELECT sku, location FROM unannounced_levels ORDER BY sku, location LIMIT ?1)
         RETURNING sku, location",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("taking levels to announce"))?;
    rows.iter().map(|(sku, location)| stored_item(sku, location)).collect()
}
