//! Applying a batch: lock, read, decide in memory, write. The module above lists the round trips.
//!
//! # The gate
//!
//! Commands of one order are on one partition, and so never in two batches at once. A producer that does not key its
//! records breaks that: an order and its cancellation may then be decided by two instances at the same time, and
//! neither sees the other. Every other pair meets at the levels' locks; this one has none, since a cancellation does
//! not know the SKUs of an order that is not decided yet. So every batch passes a gate that it shares with all others,
//! and a batch that is about to remember such a cancellation has it for itself. So has one that states the first level
//! of an item, which orders for it cannot meet either.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Connection, PgConnection, Postgres, Row, Transaction};

use super::copy::CopyRows;
use super::levels::LevelRows;
use super::rows::location_column;
use super::{DECISIONS_KEY, broke, failed, levels, orders, rows};
use crate::ledger::{
    Action, Changes, CommandKey, CommandKind, Decision, Id, Item, Map, Movement, NextOffset, OrderState, Seq,
    Sequenced, Sequences, Set, Stamp, TopicPartition, View, decide,
};
use crate::store::{
    Advance, Applied, CommandBatch, StoreError, find_positions, followed_orders, is_below, order_states,
};

/// The gate's number, this program's own among advisory locks.
pub(super) const GATE: i64 = 7_309_940_776_305_091_937;

/// How a batch begins: one message, whatever is usual on this server, for this role or database.
///
/// Each statement sees what was committed before it: with another isolation, what was decided while the batch waited
/// at the gate or for a lock would go unseen. And no result is published before its decision is durable here and on
/// whatever standby a commit waits for; who asked for more than that (`remote_apply`) keeps it. Not `READ WRITE`: who
/// made the database read-only, as when its disk is nearly full, means us too.
macro_rules! begin {
    ($($gate:literal)?) => {
        concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT ",
            $($gate,)?
            "set_config('synchronous_commit',
                 CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
        )
    };
}
/// Through the gate, which many batches pass at once.
const BEGIN_SHARED: &str = begin!("pg_advisory_xact_lock_shared(7309940776305091937), ");
/// Alone behind the gate until the batch ends.
const BEGIN_ALONE: &str = begin!("pg_advisory_xact_lock(7309940776305091937), ");
/// What is no batch needs no gate.
pub(super) const BEGIN: &str = begin!();

/// What is thought of a batch's command ids before they are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdLookup {
    /// All are new, so that only cancellations made before their orders are looked up. When one is not new, the
    /// decisions' key refuses it, and the whole batch: see [`met_known_id`].
    New,
    /// Some may have been decided before: all are looked up.
    Any,
}

/// Whether a batch was refused because one of its ids was decided before.
pub(super) fn met_known_id(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: sqlx::Error::Database(database), .. }
        if broke(&**database, DECISIONS_KEY))
}

/// One try on one connection.
pub(super) async fn apply(
    connection: &mut PgConnection,
    batch: &CommandBatch,
    ids: IdLookup,
) -> Result<Applied, StoreError> {
    let before = LookedUp::of(connection, batch).await?;
    let mut transaction = before.begin(connection).await?;
    let items = before.items(batch);
    let locked = Locked::of(&mut transaction, batch, &before, &items, ids).await?;
    let sequences = Sequences::From(locked.next);
    let (rows, changes) = locked.decide(batch, sequences);
    write(&mut transaction, batch, &rows, &changes).await?;
    commit(transaction, changes).await
}

/// What is looked up before anything is locked.
pub(super) struct LookedUp<'a> {
    /// The orders that the batch's commands follow.
    followed: Vec<&'a Id>,
    /// Those of them that were accepted by then.
    orders: Map<Id, OrderState>,
    /// Whether the batch has the gate for itself.
    alone: bool,
}

impl<'a> LookedUp<'a> {
    pub(super) async fn of(
        connection: &mut PgConnection,
        batch: &'a CommandBatch,
    ) -> Result<Self, StoreError> {
        let followed = followed_orders(batch);
        let decisions = look_up(connection, &followed).await?;
        let alone = remembers_cancellation(batch, &decisions) || begins_items(connection, batch).await?;
        let orders = order_states(&decisions, &followed)?;
        Ok(Self { followed, orders, alone })
    }

    /// Begins the batch's transaction, and passes the gate.
    pub(super) async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
    ) -> Result<Transaction<'c, Postgres>, StoreError> {
        let begin = if self.alone { BEGIN_ALONE } else { BEGIN_SHARED };
        connection.begin_with(begin).await.map_err(failed("beginning a transaction"))
    }

    /// The items whose levels the batch may change, sorted, each once.
    pub(super) fn items<'b>(&'b self, batch: &'b CommandBatch) -> Vec<&'b Item> {
        items_of(batch, &self.orders)
    }
}

/// What a batch decides on, locked.
pub(super) struct Locked<'a> {
    view: View,
    rows: LevelRows<'a>,
    positions: HashMap<TopicPartition, NextOffset>,
    /// The first of the ledger sequences drawn for it, and its time.
    pub(super) next: Sequenced,
}

impl<'a> Locked<'a> {
    /// Locks and reads.
    pub(super) async fn of(
        connection: &mut PgConnection,
        batch: &CommandBatch,
        before: &LookedUp<'_>,
        items: &[&'a Item],
        ids: IdLookup,
    ) -> Result<Self, StoreError> {
        let followed = &before.followed;
        let (levels, rows) = levels::lock(connection, items).await?;
        let positions = lock_positions(connection, &batch.advances).await?;
        let below = |request: &_| is_below(&positions, request);
        let ids = if followed.is_empty() && !batch.requests.iter().any(below) { ids } else { IdLookup::Any };
        let (decisions, next) = read_decisions(connection, batch, followed, ids).await?;
        let mut orders = order_states(&decisions, followed)?;
        if !are_locked(&orders, items) {
            return Err(StoreError::ConcurrentChange);
        }
        orders::read_states(connection, &mut orders).await?;
        Ok(Self { view: View { levels, decisions, orders }, rows, positions, next })
    }

    /// Decides, in memory; with it the rows of the levels that are to be written.
    pub(super) fn decide(self, batch: &CommandBatch, sequences: Sequences<'_>) -> (LevelRows<'a>, Changes) {
        let below = |request: &_| is_below(&self.positions, request);
        (self.rows, decide(self.view, &batch.requests, below, sequences))
    }
}

/// Writes what was decided.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &CommandBatch,
    rows: &LevelRows<'_>,
    changes: &Changes,
) -> Result<(), StoreError> {
    levels::write_with_positions(connection, rows, changes, &batch.advances).await?;
    copy_decisions(connection, changes).await?;
    copy_movements(connection, changes).await?;
    orders::write_states(connection, &changes.orders).await?;
    orders::note_unannounced(connection, &changes.movements).await
}

pub(super) async fn commit(
    transaction: Transaction<'_, Postgres>,
    changes: Changes,
) -> Result<Applied, StoreError> {
    transaction.commit().await.map_err(failed("committing a batch"))?;
    Ok(Applied { outcomes: changes.outcomes, levels: changes.levels })
}

/// The decisions there are for orders that commands follow, before anything is locked.
async fn look_up(
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

/// Whether the batch cancels an order that is neither decided yet nor in the batch itself: with the latter another
/// instance that decides it too meets this batch's decision.
fn remembers_cancellation(batch: &CommandBatch, decided: &Map<CommandKey, Arc<Decision>>) -> bool {
    let created = |id: &Id| CommandKey { id: id.clone(), kind: CommandKind::OrderCreated };
    let mut unknown: Set<CommandKey> = batch
        .requests
        .iter()
        .filter(|request| request.command.action == Action::Cancel)
        .map(|request| created(&request.command.key.id))
        .filter(|key| !decided.contains_key(key))
        .collect();
    if !unknown.is_empty() {
        for request in &batch.requests {
            unknown.remove(&request.command.key);
        }
    }
    !unknown.is_empty()
}

/// Whether the batch states the first level of an item. There is no level yet that would make batches meet: an order for
/// it could be rejected at a later ledger sequence than this, without having seen it.
async fn begins_items(connection: &mut PgConnection, batch: &CommandBatch) -> Result<bool, StoreError> {
    let begun: Set<&Item> = batch
        .requests
        .iter()
        .filter_map(|request| match &request.command.action {
            Action::Receive { item, .. } | Action::Set { item, .. } => Some(item),
            _ => None,
        })
        .collect();
    if begun.is_empty() {
        return Ok(false);
    }
    let (skus, locations) = rows::item_columns(begun.iter().copied());
    let known: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location)
                              JOIN levels USING (sku, location)",
    )
    .bind(skus)
    .bind(locations)
    .fetch_one(connection)
    .await
    .map_err(failed("looking up items"))?;
    Ok(usize::try_from(known) != Ok(begun.len()))
}

/// The items whose levels the batch may change, sorted, each once.
fn items_of<'a>(batch: &'a CommandBatch, orders: &'a Map<Id, OrderState>) -> Vec<&'a Item> {
    let followed = orders.values().flat_map(|order| order.lines.iter().map(|line| &line.item));
    // Each once before sorting, which compares texts.
    let items: Set<&Item> =
        batch.requests.iter().flat_map(|request| request.command.items()).chain(followed).collect();
    let mut items: Vec<&Item> = items.into_iter().collect();
    items.sort_unstable();
    items
}

/// Whether the levels of all these orders are among the locked items; not those of an order that another batch
/// decided after it was looked up.
fn are_locked(orders: &Map<Id, OrderState>, items: &[&Item]) -> bool {
    orders.values().flat_map(|order| &order.lines).all(|line| items.binary_search(&&line.item).is_ok())
}

/// Locks the batch's positions and reads them; refuses a ledger that is not where the batch goes on from.
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

/// Reads decisions already made for the batch's ids, and draws the batch's ledger sequences.
///
/// A statement of its own, after the locks: its snapshot holds everything
/// that earlier holders of the locks committed.
async fn read_decisions(
    connection: &mut PgConnection,
    batch: &CommandBatch,
    followed: &[&Id],
    ids: IdLookup,
) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError> {
    let statement = match ids {
        IdLookup::Any => decisions_where!("d.id = ANY($1)"),
        // As `decisions_cancelled` has it, the index that holds nothing else: a number in place of the 2 would not do.
        IdLookup::New => decisions_where!("d.id = ANY($1) AND d.kind = 2"),
    };
    let own = batch.requests.iter().map(|request| &request.command.key.id);
    let wanted: Vec<&str> = own.chain(followed.iter().copied()).map(Id::as_str).collect();
    let found = sqlx::query(statement)
        .bind(wanted)
        .fetch_all(connection)
        .await
        .map_err(failed("reading the decisions"))?;
    let doing = failed("reading the decisions");
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
    // Sorted by numbers, since there are many movements of few items: the items' order is known.
    let indexes: Map<&Item, usize> =
        changes.levels.iter().enumerate().map(|(index, (item, _))| (item, index)).collect();
    let mut movements: Vec<(usize, &Movement)> =
        changes.movements.iter().map(|movement| (indexes[&movement.item], movement)).collect();
    movements.sort_unstable_by_key(|(index, movement)| (*index, movement.version));
    let doing = failed("writing the movements");
    let statement = r#"COPY movements (version, quantity, balance, seq, "offset", partition, kind, sku, location, id)
                       FROM STDIN WITH (FORMAT binary)"#;
    let mut rows = CopyRows::begin(connection, statement, 10).await.map_err(&doing)?;
    for (_, movement) in movements {
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
            .text(movement.item.sku.as_str())
            .text(location_column(&movement.item))
            .text(movement.cause.id.as_str());
    }
    rows.finish().await.map_err(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_has_one_number() {
        for begin in [BEGIN_SHARED, BEGIN_ALONE] {
            assert!(begin.contains(&format!("({GATE})")), "{begin}");
        }
    }
}
