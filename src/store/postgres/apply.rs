//! Applying a batch: lock, read, decide in memory, write. The module above lists the round trips.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection, Row};

use super::copy::CopyRows;
use super::rows::Ctid;
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
    let (levels, rows) = lock_levels(&mut transaction, batch).await?;
    let positions = lock_positions(&mut transaction, &batch.advances).await?;
    let (decisions, first, now) = read_decisions(&mut transaction, batch).await?;

    let view = View { levels, decisions };
    let changes = decide(view, &batch.requests, |request| is_below(&positions, request), first, now);

    write_levels_and_positions(&mut transaction, &rows, &changes, &batch.advances).await?;
    copy_decisions(&mut transaction, &changes).await?;
    copy_movements(&mut transaction, &changes).await?;
    transaction.commit().await.map_err(failed("committing a batch"))?;
    Ok(Applied { outcomes: changes.outcomes, levels: changes.levels })
}

/// Where the rows of locked levels are.
type LevelRows = HashMap<Sku, Ctid>;

/// Locks the batch's levels in SKU order and reads them.
///
/// A join, not `= ANY`: each row that another batch changed while this one
/// waited is compared again, and with the whole array that was a scan of it.
///
/// Citus wants another statement here: across shards it refuses `FOR UPDATE`,
/// and `UPDATE … SET version = version … RETURNING` takes its place.
async fn lock_levels(
    connection: &mut PgConnection,
    batch: &Batch,
) -> Result<(HashMap<Sku, Level>, LevelRows), StoreError> {
    let mut skus: Vec<&str> =
        batch.requests.iter().flat_map(|request| request.command.skus()).map(Sku::as_str).collect();
    skus.sort_unstable();
    skus.dedup();
    let (mut levels, mut rows) = (HashMap::with_capacity(skus.len()), HashMap::with_capacity(skus.len()));
    if skus.is_empty() {
        return Ok((levels, rows));
    }
    let doing = failed("locking the levels");
    let locked = sqlx::query(
        "SELECT levels.sku, available, version, levels.ctid
         FROM UNNEST($1::text[]) AS wanted (sku) JOIN levels ON levels.sku = wanted.sku
         ORDER BY levels.sku FOR NO KEY UPDATE OF levels",
    )
    .bind(skus)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    for row in &locked {
        let (sku, level) = rows::level(row)?;
        rows.insert(sku.clone(), row.try_get("ctid").map_err(&doing)?);
        levels.insert(sku, level);
    }
    Ok((levels, rows))
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
    rows: &LevelRows,
    changes: &Changes,
    advances: &[Advance],
) -> Result<(), StoreError> {
    let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
    let nexts: Vec<i64> = advances.iter().map(|advance| advance.next.0).collect();
    let (known, availables, versions) =
        rows::level_columns(changes.levels.iter().filter_map(|(sku, level)| Some((*rows.get(sku)?, *level))));
    let levels = known.len();
    let written = sqlx::query(
        // By the rows' places, which their locks hold fast: half the cost of finding them by SKU again.
        "WITH moved AS (
             UPDATE levels SET available = new.available, version = new.version
             FROM UNNEST($1::tid[], $2::bigint[], $3::bigint[]) AS new (place, available, version)
             WHERE levels.ctid = new.place
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
    .bind(known)
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
    if usize::try_from(moved) != Ok(levels) || usize::try_from(placed) != Ok(advances.len()) {
        return Err(StoreError::Damaged {
            what: format!(
                "{moved} of {levels} levels and {placed} of {} positions that were just locked",
                advances.len()
            ),
        });
    }
    let (new, availables, versions) = rows::level_columns(
        changes
            .levels
            .iter()
            .filter(|(sku, _)| !rows.contains_key(sku))
            .map(|(sku, level)| (sku.as_str(), *level)),
    );
    if !new.is_empty() {
        sqlx::query(
            "INSERT INTO levels (sku, available, version)
             SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[])",
        )
        .bind(new)
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
    let doing = failed("writing the decisions");
    let statement = r#"COPY decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
                       FROM STDIN WITH (FORMAT binary)"#;
    let mut rows = CopyRows::begin(connection, statement, 10).await.map_err(&doing)?;
    for decision in &changes.decisions {
        let row = rows.row().await.map_err(&doing)?;
        row.bigint(decision.seq.0).timestamp(decision.decided_at.0);
        match &decision.source {
            Some(source) => row.bigint(source.offset.0).integer(source.at.partition),
            None => row.null().null(),
        };
        row.smallint(decision.key.kind.number()).boolean(decision.accepted).text(decision.key.id.as_str());
        match &decision.source {
            Some(source) => row.text(&source.at.topic),
            None => row.null(),
        };
        row.bytes(&decision.digest.0).text(&decision.detail);
    }
    rows.finish().await.map_err(doing)
}

async fn copy_movements(connection: &mut PgConnection, changes: &Changes) -> Result<(), StoreError> {
    if changes.movements.is_empty() {
        return Ok(());
    }
    // In the order of the primary key: neighbours go to the same page of its index.
    let mut movements: Vec<&Movement> = changes.movements.iter().collect();
    movements.sort_unstable_by(|a, b| (&a.sku, a.version).cmp(&(&b.sku, b.version)));
    let doing = failed("writing the movements");
    let statement = r#"COPY movements (version, quantity, balance, seq, "offset", partition, kind, sku, id)
                       FROM STDIN WITH (FORMAT binary)"#;
    let mut rows = CopyRows::begin(connection, statement, 9).await.map_err(&doing)?;
    for movement in movements {
        let row = rows.row().await.map_err(&doing)?;
        row.bigint(movement.version)
            .bigint(movement.quantity)
            .bigint(movement.balance)
            .bigint(movement.seq.0);
        match &movement.source {
            Some(source) => row.bigint(source.offset.0).integer(source.at.partition),
            None => row.null().null(),
        };
        row.smallint(movement.cause.kind.number())
            .text(movement.sku.as_str())
            .text(movement.cause.id.as_str());
    }
    rows.finish().await.map_err(doing)
}
