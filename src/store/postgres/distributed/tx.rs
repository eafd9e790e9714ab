//! A batch's transaction on a distributed ledger. Its round trips are those of the plain one; what differs is here.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _};

use super::super::failure::failed;
use super::super::levels;
use super::super::rows::{self, LevelColumns};
use super::super::tx::{self, DecidedRows, PostgresTx};
use super::turn;
use crate::ledger::{
    Changes, CommandKey, Decision, Id, Item, Level, Map, NextOffset, OrderState, Seq, Sequenced, Stamp,
    TopicPartition,
};
use crate::store::apply::{IdLookup, LedgerTx};
use crate::store::offline::OfflineTx;
use crate::store::{Advance, CommandBatch, StoreError};

/// A batch's transaction.
pub(in super::super) struct DistributedTx<'c> {
    /// Does what is the same.
    plain: PostgresTx<'c>,
    /// The levels that were read last, in the order of their items.
    read: Vec<Option<Level>>,
}

#[async_trait]
impl<'c> LedgerTx<'c> for DistributedTx<'c> {
    type Connection = PgConnection;

    async fn begin(
        connection: &'c mut PgConnection,
        _: &CommandBatch,
        followed: &[&Id],
    ) -> Result<(Self, Map<CommandKey, Arc<Decision>>), StoreError> {
        let decided = tx::look_up(connection, followed).await?;
        let plain = PostgresTx::begun(turn::begin(connection).await?);
        Ok((Self { plain, read: Vec::new() }, decided))
    }

    /// The gate locks them: whoever moves one has it alone.
    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError> {
        let (levels, read) = read_levels(self.plain.connection(), items).await?;
        self.read = read;
        Ok(levels)
    }

    async fn lock_positions(
        &mut self,
        advances: &[Advance],
    ) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        self.plain.lock_positions(advances).await
    }

    async fn read_decisions(
        &mut self,
        ids: &[&Id],
        lookup: IdLookup,
    ) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError> {
        let connection = self.plain.connection();
        Ok((read_decisions(connection, ids, lookup).await?, draw(connection).await?))
    }

    async fn read_orders(&mut self, orders: &mut Map<Id, OrderState>) -> Result<(), StoreError> {
        self.plain.read_orders(orders).await
    }

    async fn write(
        &mut self,
        batch: &CommandBatch,
        items: &[&Item],
        changes: &Changes,
    ) -> Result<(), StoreError> {
        let connection = self.plain.connection();
        let writing = write_levels(connection, (items, &self.read), changes);
        let (written, decided) = tx::meanwhile(writing, || DecidedRows::of(changes)).await;
        written?;
        write_positions(connection, &batch.advances).await?;
        // Not as if all were new: the notes are on the coordinator, and nodes may lose what they are of.
        decided.write(connection, changes, IdLookup::Any).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.plain.commit().await
    }
}

#[async_trait]
impl<'c> OfflineTx<'c> for DistributedTx<'c> {
    async fn repair_levels(&mut self, items: &[&Item]) -> Result<(), StoreError> {
        repair_levels(self.plain.connection(), items).await
    }

    async fn draw_through(&mut self, last: Seq) -> Result<(), StoreError> {
        self.plain.draw_through(last).await
    }
}

/// Draws a batch's ledger sequences, and its time. Not with the decisions: a node that has all of those would be asked for
/// both, and has no sequence.
async fn draw(connection: &mut PgConnection) -> Result<Sequenced, StoreError> {
    let (first, now): (i64, i64) = sqlx::query_as(
        "SELECT nextval('ledger_seq'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("drawing ledger sequences"))?;
    Ok(Sequenced { seq: Seq(first), at: Stamp(now) })
}

async fn read_decisions(
    connection: &mut PgConnection,
    ids: &[&Id],
    lookup: IdLookup,
) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
    let wanted: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    sqlx::query(match lookup {
        IdLookup::Any => {
            r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
               FROM decisions WHERE id = ANY($1)"#
        }
        // As `decisions_cancelled` has it.
        IdLookup::New => {
            r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
               FROM decisions WHERE id = ANY($1) AND kind = 2"#
        }
    })
    .bind(wanted)
    .fetch_all(connection)
    .await
    .map_err(failed("reading the decisions"))?
    .iter()
    .map(|row| rows::decision(row, 0).map(|decision| (decision.key.clone(), Arc::new(decision))))
    .collect()
}

/// Reads the levels of these items; in item order, `None` where there is none.
async fn read_levels(
    connection: &mut PgConnection,
    items: &[&Item],
) -> Result<(Map<Item, Level>, Vec<Option<Level>>), StoreError> {
    let mut levels = Map::default();
    let mut read = vec![None; items.len()];
    if items.is_empty() {
        return Ok((levels, read));
    }
    let doing = failed("reading the levels");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    // As `levels::lock` asks, and for the same reasons.
    let found = if items.iter().all(|item| item.location.is_none()) {
        sqlx::query(
            "SELECT wanted.number, available, version, backorder_limit, order_limit
             FROM UNNEST($1::text[]) WITH ORDINALITY AS wanted (sku, number)
                  JOIN levels ON levels.sku = wanted.sku AND levels.location = ''",
        )
        .bind(skus)
    } else {
        sqlx::query(
            "SELECT wanted.number, available, version, backorder_limit, order_limit
             FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (sku, location, number)
                  JOIN levels ON levels.sku = wanted.sku AND levels.location = wanted.location",
        )
        .bind(skus)
        .bind(locations)
    }
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    levels.reserve(found.len());
    for row in &found {
        let (index, level) = levels::numbered(row).map_err(&doing)?;
        levels.insert(items[index].clone(), level);
        read[index] = Some(level);
    }
    Ok((levels, read))
}

/// Writes the new levels over those that were read for these items. Every row meant must be written.
async fn write_levels(
    connection: &mut PgConnection,
    (items, read): (&[&Item], &[Option<Level>]),
    changes: &Changes,
) -> Result<(), StoreError> {
    let (mut moved, mut limited, mut new) = (LevelUpdates::default(), LevelUpdates::default(), Vec::new());
    // Both in item order: one walk finds what each was.
    let mut read = items.iter().zip(read);
    for (item, level) in &changes.levels {
        match read.find(|(at, _)| **at == item).and_then(|(_, was)| *was) {
            Some(was) if was.limits == level.limits => moved.push(item, was, *level),
            Some(was) => limited.push(item, was, *level),
            None => new.push((item, *level)),
        }
    }
    moved
        .write(
            connection,
            "UPDATE levels SET available = new.available, version = new.version
             FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                  AS new (sku, location, was, available, version)
             WHERE levels.sku = new.sku AND levels.location = new.location AND levels.version = new.was",
            false,
        )
        .await?;
    limited
        .write(
            connection,
            "UPDATE levels SET available = new.available, version = new.version,
                               backorder_limit = new.backorder_limit, order_limit = new.order_limit
             FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
                  AS new (sku, location, was, available, version, backorder_limit, order_limit)
             WHERE levels.sku = new.sku AND levels.location = new.location AND levels.version = new.was",
            true,
        )
        .await?;
    levels::insert_levels(connection, &new).await
}

/// Levels to write over what was read.
#[derive(Default)]
struct LevelUpdates<'a> {
    items: Vec<&'a Item>,
    /// The versions read.
    were: Vec<i64>,
    levels: LevelColumns,
}

impl<'a> LevelUpdates<'a> {
    fn push(&mut self, item: &'a Item, was: Level, level: Level) {
        self.items.push(item);
        self.were.push(was.version);
        self.levels.push(level);
    }

    async fn write(
        self,
        connection: &mut PgConnection,
        statement: &'static str,
        with_limits: bool,
    ) -> Result<(), StoreError> {
        let meant = self.items.len();
        if meant == 0 {
            return Ok(());
        }
        let (skus, locations) = rows::item_columns(self.items.into_iter());
        let mut query = sqlx::query(statement)
            .bind(skus)
            .bind(locations)
            .bind(self.were)
            .bind(self.levels.availables)
            .bind(self.levels.versions);
        if with_limits {
            query = query.bind(self.levels.backorder_limits).bind(self.levels.order_limits);
        }
        let written = query.execute(connection).await.map_err(failed("writing the levels"))?.rows_affected();
        // Somebody changed one past the gate: it is read again.
        if usize::try_from(written) == Ok(meant) { Ok(()) } else { Err(StoreError::ConcurrentChange) }
    }
}

/// Writes the positions, which the batch has locked.
async fn write_positions(connection: &mut PgConnection, advances: &[Advance]) -> Result<(), StoreError> {
    if advances.is_empty() {
        return Ok(());
    }
    let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
    let nexts: Vec<i64> = advances.iter().map(|advance| advance.next.0).collect();
    let published: Vec<Option<i64>> =
        advances.iter().map(|advance| advance.published.map(|published| published.0)).collect();
    sqlx::query(
        "INSERT INTO positions (topic, partition, next_offset, published_offset)
         SELECT * FROM UNNEST($1::text[], $2::int[], $3::bigint[], $4::bigint[])
         ON CONFLICT (topic, partition)
             DO UPDATE SET next_offset = greatest(positions.next_offset, excluded.next_offset),
                           published_offset = greatest(positions.published_offset, excluded.published_offset)",
    )
    .bind(topics)
    .bind(partitions)
    .bind(nexts)
    .bind(published)
    .execute(connection)
    .await
    .map_err(failed("writing the positions"))?;
    Ok(())
}

/// Makes these levels what their newest movements say. In two statements: Citus takes no lateral join with a function.
async fn repair_levels(connection: &mut PgConnection, items: &[&Item]) -> Result<(), StoreError> {
    let doing = failed("repairing levels");
    let (skus, locations) = rows::item_columns(items.iter().copied());
    let newest = sqlx::query(
        "SELECT DISTINCT ON (m.sku, m.location) m.sku, m.location, m.balance, m.version
         FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location)
              JOIN movements AS m ON m.sku = wanted.sku AND m.location = wanted.location
         ORDER BY m.sku, m.location, m.version DESC",
    )
    .bind(&skus)
    .bind(&locations)
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let mut found: Map<Item, (i64, i64)> = Map::default();
    for row in &newest {
        let balance_and_version =
            (row.try_get("balance").map_err(&doing)?, row.try_get("version").map_err(&doing)?);
        found.insert(rows::item(row)?, balance_and_version);
    }
    let (balances, versions): (Vec<i64>, Vec<i64>) =
        items.iter().map(|item| found.get(*item).copied().unwrap_or_default()).unzip();
    sqlx::query(
        "INSERT INTO levels (sku, location, available, version, backorder_limit)
         -- Only where the row was missing; what went below zero was allowed to.
         SELECT sku, location, available, version, greatest(0, -available)
         FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS newest (sku, location, available, version)
         ON CONFLICT (sku, location) DO UPDATE SET available = excluded.available, version = excluded.version",
    )
    .bind(skus)
    .bind(locations)
    .bind(balances)
    .bind(versions)
    .execute(connection)
    .await
    .map_err(doing)?;
    Ok(())
}
