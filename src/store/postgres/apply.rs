//! Applying a batch: lock, read, decide in memory, write. The module above lists the round trips.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection, Row};

use super::copy::CopyRows;
use super::{failed, rows};
use crate::ledger::{
    Changes, CommandKey, Decision, Level, Movement, NextOffset, Seq, Sku, Stamp, TopicPartition, View, decide,
};
use crate::store::{Advance, Applied, Batch, StoreError, find_positions, is_below};

/// One try on one connection. A connection that saw an error is closed, never given back.
pub(super) async fn attempt(pool: &PgPool, batch: &Batch) -> Result<Applied, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed("connecting to PostgreSQL"))?;
    let applied = apply(&mut connection, batch).await;
    if applied.is_err() {
        connection.close_on_drop();
    }
    applied
}

async fn apply(connection: &mut PgConnection, batch: &Batch) -> Result<Applied, StoreError> {
    let mut transaction = connection.begin().await.map_err(failed("beginning a transaction"))?;
    let levels = lock_levels(&mut transaction, batch).await?;
    let positions = lock_positions(&mut transaction, &batch.advances).await?;
    let (decisions, first, now) = read_decisions(&mut transaction, batch).await?;

    let view = View { levels, decisions };
    let changes = decide(view, &batch.requests, |request| is_below(&positions, request), first, now);

    write_levels_and_positions(&mut transaction, &changes, &batch.advances).await?;
    copy_decisions(&mut transaction, &changes).await?;
    copy_movements(&mut transaction, &changes).await?;
    transaction.commit().await.map_err(failed("committing a batch"))?;
    Ok(Applied { outcomes: changes.outcomes, levels: changes.levels })
}

/// Locks the batch's levels in SKU order and reads them.
///
/// The one statement Citus wants otherwise: across shards it refuses
/// `FOR UPDATE`, and `UPDATE … SET version = version … RETURNING` takes its place.
async fn lock_levels(
    connection: &mut PgConnection,
    batch: &Batch,
) -> Result<HashMap<Sku, Level>, StoreError> {
    let mut skus: Vec<&str> =
        batch.requests.iter().flat_map(|request| request.command.skus()).map(Sku::as_str).collect();
    skus.sort_unstable();
    skus.dedup();
    if skus.is_empty() {
        return Ok(HashMap::new());
    }
    sqlx::query(
        "SELECT sku, available, version FROM levels WHERE sku = ANY($1) ORDER BY sku FOR NO KEY UPDATE",
    )
    .bind(skus)
    .fetch_all(connection)
    .await
    .map_err(failed("locking the levels"))?
    .iter()
    .map(rows::level)
    .collect()
}

/// Locks the batch's positions and reads them; refuses a ledger that went back in time.
async fn lock_positions(
    connection: &mut PgConnection,
    advances: &[Advance],
) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
    if advances.is_empty() {
        return Ok(HashMap::new());
    }
    let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
    let found = sqlx::query(
        "SELECT topic, partition, next_offset FROM positions
         WHERE (topic, partition) IN (SELECT * FROM UNNEST($1::text[], $2::int[]))
         ORDER BY topic, partition FOR NO KEY UPDATE",
    )
    .bind(topics)
    .bind(partitions)
    .fetch_all(connection)
    .await
    .map_err(failed("locking the positions"))?
    .iter()
    .map(rows::position)
    .collect::<Result<_, _>>()
    .map_err(failed("locking the positions"))?;
    find_positions(found, advances)
}

/// Reads decisions already made for the batch's ids, and draws the batch's places in the ledger's order.
///
/// A statement of its own, after the locks: its snapshot holds everything
/// that earlier holders of the locks committed.
async fn read_decisions(
    connection: &mut PgConnection,
    batch: &Batch,
) -> Result<(HashMap<CommandKey, Arc<Decision>>, Seq, Stamp), StoreError> {
    let ids: Vec<&str> = batch.requests.iter().map(|request| request.command.key.id.as_str()).collect();
    let found = sqlx::query(
        r#"SELECT drawn.first, drawn.now, d.id, d.kind, d.seq, d.digest, d.accepted, d.detail, d.topic, d.partition,
                  d."offset", (extract(epoch FROM d.decided_at) * 1000000)::bigint AS decided_at
           FROM (SELECT nextval('ledger_seq') AS first,
                        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS drawn
           LEFT JOIN decisions AS d ON d.id = ANY($1)"#,
    )
    .bind(ids)
    .fetch_all(connection)
    .await
    .map_err(failed("reading the decisions"))?;
    let doing = failed("reading the decisions");
    let one = found.first().ok_or_else(|| doing(sqlx::Error::RowNotFound))?;
    let first = Seq(one.try_get("first").map_err(&doing)?);
    let now = Stamp(one.try_get("now").map_err(&doing)?);
    let mut decisions = HashMap::new();
    for row in &found {
        if row.try_get::<Option<&str>, _>("id").map_err(&doing)?.is_some() {
            let decision = rows::decision(row)?;
            decisions.insert(decision.key.clone(), Arc::new(decision));
        }
    }
    Ok((decisions, first, now))
}

/// Writes the new levels and positions. Every row meant must be written, or the batch fails whole.
async fn write_levels_and_positions(
    connection: &mut PgConnection,
    changes: &Changes,
    advances: &[Advance],
) -> Result<(), StoreError> {
    let born: HashSet<&Sku> = changes
        .movements
        .iter()
        .filter(|movement| movement.version == 1)
        .map(|movement| &movement.sku)
        .collect();
    let (new, known): (Vec<_>, Vec<_>) = changes.levels.iter().partition(|(sku, _)| born.contains(sku));
    let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
    let nexts: Vec<i64> = advances.iter().map(|advance| advance.next.0).collect();
    let (skus, availables, versions) = rows::level_columns(&known);
    let written = sqlx::query(
        "WITH moved AS (
             UPDATE levels SET available = new.available, version = new.version
             FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS new (sku, available, version)
             WHERE levels.sku = new.sku
             RETURNING 1
         ), placed AS (
             INSERT INTO positions (topic, partition, next_offset)
             SELECT * FROM UNNEST($4::text[], $5::int[], $6::bigint[])
             ON CONFLICT (topic, partition)
                 DO UPDATE SET next_offset = greatest(positions.next_offset, excluded.next_offset)
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM placed) AS placed",
    )
    .bind(skus)
    .bind(availables)
    .bind(versions)
    .bind(topics)
    .bind(partitions)
    .bind(nexts)
    .fetch_one(&mut *connection)
    .await
    .map_err(failed("writing the levels"))?;
    let moved: i64 = written.try_get("moved").map_err(failed("writing the levels"))?;
    let placed: i64 = written.try_get("placed").map_err(failed("writing the levels"))?;
    if usize::try_from(moved) != Ok(known.len()) || usize::try_from(placed) != Ok(advances.len()) {
        return Err(StoreError::Damaged {
            what: format!(
                "{moved} of {} levels and {placed} of {} positions that were just locked",
                known.len(),
                advances.len()
            ),
        });
    }
    if !new.is_empty() {
        let (skus, availables, versions) = rows::level_columns(&new);
        sqlx::query(
            "INSERT INTO levels (sku, available, version)
             SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[])",
        )
        .bind(skus)
        .bind(availables)
        .bind(versions)
        .execute(connection)
        .await
        .map_err(failed("writing the levels of new SKUs"))?;
    }
    Ok(())
}

async fn copy_decisions(connection: &mut PgConnection, changes: &Changes) -> Result<(), StoreError> {
    if changes.decisions.is_empty() {
        return Ok(());
    }
    let mut rows = CopyRows::new(10, changes.decisions.len() * 256);
    for decision in &changes.decisions {
        rows.row().bigint(decision.seq.0).timestamp(decision.decided_at.0);
        match &decision.source {
            Some(source) => rows.bigint(source.offset.0).integer(source.at.partition),
            None => rows.null().null(),
        };
        rows.smallint(decision.key.kind.number()).boolean(decision.accepted).text(decision.key.id.as_str());
        match &decision.source {
            Some(source) => rows.text(&source.at.topic),
            None => rows.null(),
        };
        rows.bytes(&decision.digest.0).text(&decision.detail);
    }
    rows.send(
        connection,
        r#"COPY decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
           FROM STDIN WITH (FORMAT binary)"#,
    )
    .await
    .map_err(failed("writing the decisions"))
}

async fn copy_movements(connection: &mut PgConnection, changes: &Changes) -> Result<(), StoreError> {
    if changes.movements.is_empty() {
        return Ok(());
    }
    // In the order of the primary key: neighbours go to the same page of its index.
    let mut movements: Vec<&Movement> = changes.movements.iter().collect();
    movements.sort_unstable_by(|a, b| (&a.sku, a.version).cmp(&(&b.sku, b.version)));
    let mut rows = CopyRows::new(9, movements.len() * 160);
    for movement in movements {
        rows.row()
            .bigint(movement.version)
            .bigint(movement.quantity)
            .bigint(movement.balance)
            .bigint(movement.seq.0);
        match &movement.source {
            Some(source) => rows.bigint(source.offset.0).integer(source.at.partition),
            None => rows.null().null(),
        };
        rows.smallint(movement.cause.kind.number())
            .text(movement.sku.as_str())
            .text(movement.cause.id.as_str());
    }
    rows.send(
        connection,
        r#"COPY movements (version, quantity, balance, seq, "offset", partition, kind, sku, id)
           FROM STDIN WITH (FORMAT binary)"#,
    )
    .await
    .map_err(failed("writing the movements"))
}
