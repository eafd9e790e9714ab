//! A batch's transaction in PostgreSQL. The module above lists the round trips.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, Postgres, Row, Transaction};

use super::copy::CopyRows;
use super::failure::failed;
use super::levels::LevelRows;
use super::rows::location_column;
use super::{gate, levels, orders, rows};
use crate::ledger::{
    Changes, CommandKey, CommandKind, Decision, Id, Item, Level, Map, Movement, NextOffset, OrderState, Seq,
    Sequenced, Stamp, TopicPartition,
};
use crate::store::apply::{IdLookup, LedgerTx, UnknownItems};
use crate::store::offline::OfflineTx;
use crate::store::{Advance, CommandBatch, StoreError};

/// Draws the batch's ledger sequences, and reads the decisions for which this holds.
macro_rules! decisions_where {
    ($condition:literal) => {
        concat!(
            r#"SELECT drawn.first, drawn.now, d.id, d.kind, d.seq, d.digest, d.accepted, d.detail, d.topic,
                      d.partition, d."offset", d.decided_at
               FROM (SELECT nextval('ledger_seq') AS first,
                            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS drawn
               LEFT JOIN decisions AS d ON "#,
            $condition
        )
    };
}

/// A batch's transaction.
pub(super) struct PostgresTx<'c> {
    transaction: Transaction<'c, Postgres>,
    /// Where the levels' rows are that were locked last, in the order of their items.
    rows: LevelRows,
    /// How the decisions were looked up, and so how the notes of levels are written.
    lookup: IdLookup,
}

impl<'c> PostgresTx<'c> {
    /// One that was begun.
    pub(super) fn begun(transaction: Transaction<'c, Postgres>) -> Self {
        Self { transaction, rows: LevelRows::new(), lookup: IdLookup::Any }
    }

    /// What it is on.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

#[async_trait]
impl<'c> LedgerTx<'c> for PostgresTx<'c> {
    type Connection = PgConnection;

    async fn begin(
        connection: &'c mut PgConnection,
        batch: &CommandBatch,
        followed: &[&Id],
    ) -> Result<(Self, Map<CommandKey, Arc<Decision>>), StoreError> {
        // Before the gate: a batch that is about to have it for itself must know so.
        let decided = look_up(connection, followed).await?;
        let begin = gate::begin_of(batch, &decided);
        let transaction = connection.begin_with(begin).await.map_err(failed("beginning a transaction"))?;
        Ok((Self::begun(transaction), decided))
    }

    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError> {
        let (levels, rows) = levels::lock(&mut self.transaction, items).await?;
        self.rows = rows;
        Ok(levels)
    }

    async fn meet_at_items(&mut self, unknown: UnknownItems<'_>) -> Result<Map<Item, Level>, StoreError> {
        let (begun, rows) = gate::meet_at_items(&mut self.transaction, &unknown).await?;
        // The unknown items are those without a row, in the same order.
        let missing = self.rows.iter_mut().filter(|row| row.is_none());
        missing.zip(rows).for_each(|(missing, row)| *missing = row);
        Ok(begun)
    }

    async fn lock_positions(
        &mut self,
        advances: &[Advance],
    ) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        if advances.is_empty() {
            return Ok(HashMap::new());
        }
        let (topics, partitions) = rows::partition_columns(advances.iter().map(|advance| &advance.at));
        sqlx::query(
            "SELECT topic, partition, next_offset FROM positions
             WHERE (topic, partition) IN (SELECT * FROM UNNEST($1::text[], $2::int[]))
             ORDER BY topic, partition FOR NO KEY UPDATE",
        )
        .bind(topics)
        .bind(partitions)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed("locking the positions"))?
        .iter()
        .map(|row| rows::position(row).map_err(failed("locking the positions")))
        .collect()
    }

    /// A statement of its own, after the locks: its snapshot holds everything that earlier holders of the locks
    /// committed.
    async fn read_decisions(
        &mut self,
        ids: &[&Id],
        lookup: IdLookup,
    ) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError> {
        self.lookup = lookup;
        let statement = match lookup {
            IdLookup::Any => decisions_where!("d.id = ANY($1)"),
            // As `decisions_cancelled` has it, the index that holds nothing else: a number in place of the 2 would not do.
            IdLookup::New => decisions_where!("d.id = ANY($1) AND d.kind = 2"),
        };
        let doing = failed("reading the decisions");
        let wanted: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let found =
            sqlx::query(statement).bind(wanted).fetch_all(&mut *self.transaction).await.map_err(&doing)?;
        let one = found.first().ok_or_else(|| doing(sqlx::Error::RowNotFound))?;
        let first = Seq(one.try_get("first").map_err(&doing)?);
        let now = Stamp(one.try_get("now").map_err(&doing)?);
        let mut decisions = Map::default();
        for row in &found {
            if row.try_get::<Option<&str>, _>("id").map_err(&doing)?.is_some() {
                let decision = rows::decision(row, 2)?;
                decisions.insert(decision.key.clone(), Arc::new(decision));
            }
        }
        Ok((decisions, Sequenced { seq: first, at: now }))
    }

    async fn read_orders(&mut self, orders: &mut Map<Id, OrderState>) -> Result<(), StoreError> {
        orders::read_states(&mut self.transaction, orders).await
    }

    async fn write(
        &mut self,
        batch: &CommandBatch,
        items: &[&Item],
        changes: &Changes,
    ) -> Result<(), StoreError> {
        let connection = &mut *self.transaction;
        let writing = levels::write_with_positions(connection, (items, &self.rows), changes, &batch.advances);
        let (written, decided) = meanwhile(writing, || DecidedRows::of(changes)).await;
        written?;
        decided.write(connection, changes, self.lookup).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(failed("committing a batch"))
    }
}

#[async_trait]
impl<'c> OfflineTx<'c> for PostgresTx<'c> {
    async fn repair_levels(&mut self, items: &[&Item]) -> Result<(), StoreError> {
        let found = self.lock_levels(items).await?;
        if let Some(missing) = UnknownItems::to_begin(items, &found) {
            self.meet_at_items(missing).await?;
        }
        levels::repair(&mut self.transaction, items).await
    }

    async fn draw_through(&mut self, last: Seq) -> Result<(), StoreError> {
        sqlx::query("SELECT setval('ledger_seq', greatest($1, last_value)) FROM ledger_seq")
            .bind(last.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(failed("keeping the ledger sequences"))?;
        Ok(())
    }
}

/// Does some work while a statement is under way: the statement is sent, the work done, and then its answer is awaited.
pub(super) async fn meanwhile<F: Future, T>(statement: F, work: impl FnOnce() -> T) -> (F::Output, T) {
    let mut statement = std::pin::pin!(statement);
    let answer = std::future::poll_fn(|context| Poll::Ready(statement.as_mut().poll(context))).await;
    let made = work();
    match answer {
        Poll::Ready(answer) => (answer, made),
        Poll::Pending => (statement.await, made),
    }
}

/// The decisions there are for orders that commands follow, before anything is locked.
pub(super) async fn look_up(
    connection: &mut PgConnection,
    orders: &[&Id],
) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
    if orders.is_empty() {
        return Ok(Map::default());
    }
    let ids: Vec<&str> = orders.iter().map(|id| id.as_str()).collect();
    sqlx::query(
        r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
           FROM decisions WHERE id = ANY($1) AND kind = $2"#,
    )
    .bind(ids)
    .bind(CommandKind::OrderCreated.number())
    .fetch_all(connection)
    .await
    .map_err(failed("looking up orders"))?
    .iter()
    .map(|row| rows::decision(row, 0).map(|decision| (decision.key.clone(), Arc::new(decision))))
    .collect()
}

/// The rows of what a batch decided.
pub(super) struct DecidedRows {
    decisions: CopyRows,
    movements: CopyRows,
}

impl DecidedRows {
    /// Makes them.
    pub(super) fn of(changes: &Changes) -> Self {
        Self { decisions: decisions(changes), movements: movements(changes) }
    }

    /// Writes what was decided, beside levels and positions. Where the batch's ids were taken for new, so are the notes of items
    /// that are: what shows neither to be so is `failure::met_known`.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        changes: &Changes,
        lookup: IdLookup,
    ) -> Result<(), StoreError> {
        let statement = r#"COPY decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
                           FROM STDIN WITH (FORMAT binary)"#;
        self.decisions.copy(connection, statement).await.map_err(failed("writing the decisions"))?;
        let statement = r#"COPY movements (version, quantity, balance, seq, "offset", partition, kind, sku, location, id)
                           FROM STDIN WITH (FORMAT binary)"#;
        self.movements.copy(connection, statement).await.map_err(failed("writing the movements"))?;
        orders::write_states(connection, &changes.orders).await?;
        orders::note_unannounced(connection, &changes.movements, lookup).await
    }
}

fn decisions(changes: &Changes) -> CopyRows {
    let mut rows = CopyRows::new(10);
    for decision in &changes.decisions {
        let row = rows.row();
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
    rows
}

fn movements(changes: &Changes) -> CopyRows {
    // In the order of the primary key: neighbours go to the same page of its index.
    // Sorted by numbers, since there are many movements of few items: the items' order is known.
    let indexes: Map<&Item, usize> =
        changes.levels.iter().enumerate().map(|(index, (item, _))| (item, index)).collect();
    let mut movements: Vec<(usize, &Movement)> =
        changes.movements.iter().map(|movement| (indexes[&movement.item], movement)).collect();
    movements.sort_unstable_by_key(|(index, movement)| (*index, movement.version));
    let mut rows = CopyRows::new(10);
    for (_, movement) in movements {
        let row = rows.row();
        row.bigint(movement.version)
            .bigint(movement.quantity)
            .bigint(movement.balance)
            .bigint(movement.seq.0);
        match &movement.source {
            Some(source) => row.bigint(source.offset.0).integer(source.at.partition),
            None => row.null().null(),
        };
        row.smallint(movement.cause.kind.number())
            .text(movement.item.sku.as_str())
            .text(location_column(&movement.item))
            .text(movement.cause.id.as_str());
    }
    rows
}
