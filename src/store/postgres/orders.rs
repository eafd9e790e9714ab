//! What is kept of orders beside their decisions: what they gave back, and their holds. A plain order that gives
//! nothing back has no row here.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::copy::CopyRows;
use super::failure::failed;
use super::rows::{PgStamp, damaged, item, item_columns, limit_column, location_column};
use crate::ledger::{Hold, Id, Item, Map, Movement, OrderState, TopicPartition};
use crate::store::apply::IdLookup;
use crate::store::{DueHold, MOST_LEASE, OverdueHolds, StoreError};

/// Fills in what these orders gave back, and their holds. The locks on their levels keep both as they are.
pub(super) async fn read_states(
    connection: &mut PgConnection,
    orders: &mut Map<Id, OrderState>,
) -> Result<(), StoreError> {
    if orders.is_empty() {
        return Ok(());
    }
    let doing = failed("reading the orders");
    let ids: Vec<String> = orders.keys().map(|id| id.as_str().to_owned()).collect();
    let given_back =
        sqlx::query("SELECT order_id, sku, location, returned FROM order_lines WHERE order_id = ANY($1)")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await
            .map_err(&doing)?;
    for row in &given_back {
        let order_id: &str = row.try_get("order_id").map_err(&doing)?;
        let item = item(row)?;
        let line = orders
            .get_mut(order_id)
            .and_then(|order| order.lines.iter_mut().find(|line| line.item == item))
            .ok_or_else(|| {
                damaged(format!("a return of {item} for order {order_id}, which never took any"))
            })?;
        line.returned = row.try_get("returned").map_err(&doing)?;
    }
    let holds = sqlx::query(
        "SELECT order_id, topic, partition, expires_at
         FROM holds WHERE order_id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    for row in &holds {
        let order_id: &str = row.try_get("order_id").map_err(&doing)?;
        let expires_at = row.try_get::<PgStamp, _>("expires_at").map_err(&doing)?.0;
        if let Some(order) = orders.get_mut(order_id) {
            order.hold = Some(Hold { expires_at, at: hold_partition(row).map_err(&doing)? });
        }
    }
    Ok(())
}

pub(super) fn hold_partition(row: &PgRow) -> Result<Option<TopicPartition>, sqlx::Error> {
    let topic: Option<&str> = row.try_get("topic")?;
    let partition: Option<i32> = row.try_get("partition")?;
    Ok(topic.zip(partition).map(|(topic, partition)| TopicPartition::new(topic, partition)))
}

/// Writes what changed of orders.
pub(super) async fn write_states(
    connection: &mut PgConnection,
    orders: &[(Id, OrderState)],
) -> Result<(), StoreError> {
    write_lines(connection, orders).await?;
    write_holds(connection, orders).await?;
    end_holds(connection, orders).await
}

async fn write_lines(connection: &mut PgConnection, orders: &[(Id, OrderState)]) -> Result<(), StoreError> {
    let (mut ids, mut items, mut deducted, mut returned) = (vec![], vec![], vec![], vec![]);
    for (id, order) in orders {
        for line in order.lines.iter().filter(|line| line.returned > 0) {
            ids.push(id.as_str());
            items.push(&line.item);
            deducted.push(line.deducted);
            returned.push(line.returned);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let (skus, locations) = item_columns(items.into_iter());
    sqlx::query(
        "INSERT INTO order_lines (order_id, sku, location, deducted, returned)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
         ON CONFLICT (order_id, sku, location) DO UPDATE SET returned = excluded.returned",
    )
    .bind(ids)
    .bind(skus)
    .bind(locations)
    .bind(deducted)
    .bind(returned)
    .execute(connection)
    .await
    .map_err(failed("writing what orders gave back"))?;
    Ok(())
}

async fn write_holds(connection: &mut PgConnection, orders: &[(Id, OrderState)]) -> Result<(), StoreError> {
    let (mut ids, mut ends, mut topics, mut partitions) = (vec![], vec![], vec![], vec![]);
    for (id, hold) in orders.iter().filter_map(|(id, order)| Some((id, order.hold.as_ref()?))) {
        ids.push(id.as_str());
        ends.push(hold.expires_at.0);
        topics.push(hold.at.as_ref().map(|at| at.topic.as_ref()));
        partitions.push(hold.at.as_ref().map(|at| at.partition));
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        // By whole seconds and microseconds: a double cannot hold the sum of both exactly.
        "INSERT INTO holds (order_id, expires_at, topic, partition)
         SELECT order_id, to_timestamp(ends / 1000000) + ends % 1000000 * interval '1 microsecond', topic, partition
         FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::int[]) AS new (order_id, ends, topic, partition)
         ON CONFLICT (order_id) DO UPDATE SET expires_at = excluded.expires_at, asked_until = NULL",
    )
    .bind(ids)
    .bind(ends)
    .bind(topics)
    .bind(partitions)
    .execute(connection)
    .await
    .map_err(failed("writing the holds"))?;
    Ok(())
}

async fn end_holds(connection: &mut PgConnection, orders: &[(Id, OrderState)]) -> Result<(), StoreError> {
    let ended: Vec<&str> =
        orders.iter().filter(|(_, order)| order.hold.is_none()).map(|(id, _)| id.as_str()).collect();
    if ended.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM holds WHERE order_id = ANY($1)")
        .bind(ended)
        .execute(connection)
        .await
        .map_err(failed("ending the holds"))?;
    Ok(())
}

/// Notes the levels that commands from no record moved. An item without a movement before is not noted, which is trusted as
/// `lookup` trusts ids: only a ledger that lost its movements has such a note.
pub(super) async fn note_unannounced(
    connection: &mut PgConnection,
    movements: &[Movement],
    lookup: IdLookup,
) -> Result<(), StoreError> {
    let (mut new, mut known) = (BTreeSet::new(), BTreeSet::new());
    for Movement { item, version, .. } in movements.iter().filter(|movement| movement.source.is_none()) {
        let is_new = *version == 1 && lookup == IdLookup::New;
        if is_new { &mut new } else { &mut known }.insert(item);
    }
    known.retain(|item| !new.contains(item));
    note_new(connection, &new).await?;
    note_known(connection, &known).await
}

/// Notes items of which none is noted. An import has many.
async fn note_new(connection: &mut PgConnection, items: &BTreeSet<&Item>) -> Result<(), StoreError> {
    let mut rows = CopyRows::new(2);
    for item in items {
        rows.row().text(item.sku.as_str()).text(location_column(item));
    }
    let statement = "COPY unannounced_levels (sku, location) FROM STDIN WITH (FORMAT binary)";
    rows.copy(connection, statement).await.map_err(failed("noting new levels to announce"))
}

async fn note_known(connection: &mut PgConnection, items: &BTreeSet<&Item>) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let (skus, locations) = item_columns(items.iter().copied());
    sqlx::query(
        // Updates what is there, so that who takes it meanwhile waits for this batch's level, or skips it.
        "INSERT INTO unannounced_levels (sku, location) SELECT * FROM UNNEST($1::text[], $2::text[])
         ON CONFLICT (sku, location) DO UPDATE SET location = excluded.location",
    )
    .bind(skus)
    .bind(locations)
    .execute(connection)
    .await
    .map_err(failed("noting levels to announce"))?;
    Ok(())
}

pub(super) async fn take_unannounced(
    connection: &mut PgConnection,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    sqlx::query(
        "DELETE FROM unannounced_levels
         WHERE (sku, location) IN (SELECT sku, location FROM unannounced_levels LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING sku, location",
    )
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await
    .map_err(failed("taking levels to announce"))?
    .iter()
    .map(item)
    .collect()
}

pub(super) async fn take_due_holds(
    connection: &mut PgConnection,
    limit: usize,
    lease: Duration,
) -> Result<Vec<DueHold>, StoreError> {
    let doing = failed("taking due holds");
    sqlx::query(
        "UPDATE holds SET asked_until = now() + $2 * interval '1 microsecond'
         FROM (SELECT order_id FROM holds
               WHERE expires_at <= now()
                     AND (asked_until IS NULL OR asked_until <= now()
                          -- Asked by a clock that was ahead: nobody asks for longer.
                          OR asked_until > now() + $3 * interval '1 second')
               ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED) AS due
         WHERE holds.order_id = due.order_id
         RETURNING holds.order_id, holds.topic, holds.partition",
    )
    .bind(limit_column(limit))
    .bind(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX))
    .bind(i64::try_from(MOST_LEASE.as_secs()).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .map_err(&doing)?
    .iter()
    .map(due_hold)
    .collect()
}

/// A hold that was taken: its `order_id`, `topic` and `partition`.
pub(super) fn due_hold(row: &PgRow) -> Result<DueHold, StoreError> {
    let doing = failed("taking due holds");
    let id: &str = row.try_get("order_id").map_err(&doing)?;
    let order_id = Id::new(id).map_err(|error| damaged(format!("a hold whose order id {error}")))?;
    Ok(DueHold { order_id, at: hold_partition(row).map_err(&doing)? })
}

pub(super) async fn overdue_holds(
    connection: &mut PgConnection,
    by: Duration,
) -> Result<Option<OverdueHolds>, StoreError> {
    let doing = failed("looking for overdue holds");
    let Some(row) = sqlx::query(
        "SELECT order_id, expires_at, count(*) OVER () AS count FROM holds
         WHERE expires_at < now() - $1 * interval '1 microsecond' ORDER BY expires_at, order_id LIMIT 1",
    )
    .bind(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
    .fetch_optional(connection)
    .await
    .map_err(&doing)?
    else {
        return Ok(None);
    };
    let id: &str = row.try_get("order_id").map_err(&doing)?;
    let oldest = Id::new(id).map_err(|error| damaged(format!("a hold whose order id {error}")))?;
    let count: i64 = row.try_get("count").map_err(&doing)?;
    let since = row.try_get::<PgStamp, _>("expires_at").map_err(&doing)?.0;
    Ok(Some(OverdueHolds { count: count.unsigned_abs(), oldest, since }))
}
