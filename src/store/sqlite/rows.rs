//! Rows to and from SQLite: each statement beside what it carries.
//!
//! Every writer asserts how many rows were written: a JSON text that does
//! not mean what it should must never pass silently.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sqlx::migrate::AppliedMigration;
use sqlx::{SqliteConnection, SqlitePool};

use super::database;
use crate::ledger::{
    CommandKey, CommandKind, Decision, Digest, Id, Item, Level, Limits, Location, Map, Movement, NextOffset,
    Offset, Seq, Sku, Source, Stamp, TopicId, TopicPartition,
};
use crate::store::{Advance, Incarnation, MOST_REPAIRED, Position, StoreError, StoredMovement, version};

/// The migrations applied.
pub(super) async fn read_migrations(pool: &SqlitePool) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
            .fetch_one(pool)
            .await?;
    if tables == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(pool)
        .await
        .map(version::applied)
}

/// The positions of these partitions; one the ledger never saw is absent.
pub(super) async fn read_positions(
    conn: &mut SqliteConnection,
    of: impl Iterator<Item = &TopicPartition>,
) -> Result<HashMap<TopicPartition, NextOffset>, sqlx::Error> {
    let keys: Vec<(&str, i32)> = of.map(|at| (&*at.topic, at.partition)).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, i32, i64)> = sqlx::query_as(
        "SELECT p.topic, p.partition, p.next_offset
         FROM json_each(?1) AS k
         CROSS JOIN positions AS p ON p.topic = k.value ->> 0 AND p.partition = k.value ->> 1",
    )
    .bind(json(&keys))
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(topic, partition, next)| (TopicPartition::new(topic, partition), NextOffset(next)))
        .collect())
}

/// Every position.
pub(super) async fn read_all_positions(
    conn: &mut SqliteConnection,
) -> Result<HashMap<TopicPartition, NextOffset>, sqlx::Error> {
    let rows: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM positions").fetch_all(conn).await?;
    Ok(rows
        .into_iter()
        .map(|(topic, partition, next)| (TopicPartition::new(topic, partition), NextOffset(next)))
        .collect())
}

/// Topic, partition, next offset, published offset, topic id.
type PositionRow = (String, i32, i64, Option<i64>, Option<String>);

/// All that is kept of the position of every partition, or of this one.
pub(super) async fn read_full_positions(
    conn: &mut SqliteConnection,
    of: Option<&TopicPartition>,
) -> Result<HashMap<TopicPartition, Position>, sqlx::Error> {
    let rows: Vec<PositionRow> = sqlx::query_as(
        "SELECT topic, partition, next_offset, published_offset, topic_id FROM positions
         WHERE ?1 IS NULL OR (topic = ?1 AND partition = ?2)",
    )
    .bind(of.map(|at| &*at.topic))
    .bind(of.map(|at| at.partition))
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(topic, partition, next, published, topic_id)| {
            let position = Position {
                next: NextOffset(next),
                published: published.map(NextOffset),
                topic_id: topic_id.map(TopicId::new),
            };
            (TopicPartition::new(topic, partition), position)
        })
        .collect())
}

/// States a position, whatever it was.
pub(super) async fn write_position(
    conn: &mut SqliteConnection,
    at: &TopicPartition,
    now: &Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO positions (topic, partition, next_offset, published_offset, topic_id)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset,
             published_offset = excluded.published_offset, topic_id = excluded.topic_id",
    )
    .bind(&*at.topic)
    .bind(at.partition)
    .bind(now.next.0)
    .bind(now.published.map(|published| published.0))
    .bind(now.topic_id.as_ref().map(TopicId::as_str))
    .execute(conn)
    .await
    .map(drop)
}

/// Notes that from a ledger sequence on a partition's decisions are of this topic.
pub(super) async fn write_incarnation(
    conn: &mut SqliteConnection,
    at: &TopicPartition,
    topic_id: &TopicId,
    from: Seq,
) -> Result<(), sqlx::Error> {
    // Twice at one sequence: nothing was decided of the first.
    sqlx::query(
        "INSERT INTO topic_incarnations (topic, partition, from_seq, topic_id) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (topic, partition, from_seq) DO UPDATE SET topic_id = excluded.topic_id",
    )
    .bind(&*at.topic)
    .bind(at.partition)
    .bind(from.0)
    .bind(topic_id.as_str())
    .execute(conn)
    .await
    .map(drop)
}

/// Which topics the decisions of each partition are of, sorted by partition and ledger sequence.
pub(super) async fn read_incarnations(conn: &mut SqliteConnection) -> Result<Vec<Incarnation>, sqlx::Error> {
    let rows: Vec<(String, i32, i64, String)> = sqlx::query_as(
        "SELECT topic, partition, from_seq, topic_id FROM topic_incarnations ORDER BY topic, partition, from_seq",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(topic, partition, from, topic_id)| Incarnation {
            at: TopicPartition::new(topic, partition),
            topic_id: TopicId::new(topic_id),
            from: Seq(from),
        })
        .collect())
}

/// Takes positions on, never back.
pub(super) async fn advance_positions(
    conn: &mut SqliteConnection,
    advances: &[Advance],
) -> Result<(), StoreError> {
    let rows: Vec<_> = advances
        .iter()
        .map(|advance| {
            let published = advance.published.map(|published| published.0);
            (&*advance.at.topic, advance.at.partition, advance.next.0, published)
        })
        .collect();
    write(
        conn,
        "writing positions",
        "INSERT INTO positions (topic, partition, next_offset, published_offset)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3 FROM json_each(?1) AS r WHERE true
         ON CONFLICT (topic, partition) DO UPDATE SET
             next_offset = max(next_offset, excluded.next_offset),
             published_offset = max(coalesce(published_offset, excluded.published_offset),
                                    coalesce(excluded.published_offset, published_offset))",
        &rows,
    )
    .await
}

/// What a level is kept as: SKU, location, available, version, limit of backorders, limit of an order.
type LevelRow = (String, String, i64, i64, i64, Option<i64>);

/// The levels of these items, in no order; unknown ones are absent.
pub(super) async fn read_levels(
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
    levels(rows)
}

/// The levels of these SKUs at every location, sorted by item; unknown ones are absent.
pub(super) async fn read_levels_of_skus(
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
    levels(rows)
}

/// Every level, sorted by item.
pub(super) async fn read_all_levels(conn: &mut SqliteConnection) -> Result<Vec<(Item, Level)>, StoreError> {
    read_levels_after(conn, None, usize::MAX).await
}

/// The next levels after an item, sorted by item.
pub(super) async fn read_levels_after(
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
    levels(rows)
}

/// Levels that are not where their movements end, though those are one chain: as they should be.
pub(super) async fn read_mendable_levels(
    conn: &mut SqliteConnection,
) -> Result<Vec<(Item, Level)>, StoreError> {
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
    .bind(MOST_REPAIRED)
    .fetch_all(conn)
    .await;
    levels(rows)
}

/// Makes these levels what their newest movements say.
pub(super) async fn mend_levels(
    conn: &mut SqliteConnection,
    items: &BTreeSet<&Item>,
) -> Result<(), StoreError> {
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

fn levels(rows: Result<Vec<LevelRow>, sqlx::Error>) -> Result<Vec<(Item, Level)>, StoreError> {
    rows.map_err(database("reading levels"))?
        .into_iter()
        .map(|(sku, location, available, version, backorder, order)| {
            let level = Level { available, version, limits: Limits { backorder, order } };
            Ok((stored_item(&sku, &location)?, level))
        })
        .collect()
}

/// An item as its columns keep it.
pub(super) fn stored_item(sku: &str, location: &str) -> Result<Item, StoreError> {
    let stored_sku = Sku::new(sku)
        .map_err(|error| StoreError::Damaged { what: format!("the SKU {sku:?}, which {error}") })?;
    let location = match location {
        "" => None,
        name => Some(Location::new(name).map_err(|error| StoreError::Damaged {
            what: format!("the location {name:?} of SKU {sku:?}, which {error}"),
        })?),
    };
    Ok(Item { sku: stored_sku, location })
}

/// An item's location as its column keeps it: empty for the default one.
pub(super) fn location_column(item: &Item) -> &str {
    item.location.as_ref().map_or("", Location::as_str)
}

/// States the levels that changed.
pub(super) async fn write_levels(
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

/// A stored decision.
#[derive(sqlx::FromRow)]
struct DecisionRow {
    seq: i64,
    id: String,
    kind: i16,
    accepted: bool,
    digest: Vec<u8>,
    detail: String,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    decided_at: i64,
}

impl DecisionRow {
    /// `topics` keeps one copy of each topic's name.
    fn read(self, topics: &mut HashMap<String, Arc<str>>) -> Result<Decision, StoreError> {
        let Some(kind) = CommandKind::from_number(self.kind) else {
            return Err(damaged(&self.id, &format!("of the unknown kind {}", self.kind)));
        };
        let Ok(digest) = <[u8; 16]>::try_from(self.digest.as_slice()) else {
            return Err(damaged(&self.id, "whose digest is not 16 bytes"));
        };
        let source = match (self.topic, self.partition, self.offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                let topic = topics.entry(topic).or_insert_with_key(|name| Arc::from(name.as_str()));
                Some(Source { at: TopicPartition::new(Arc::clone(topic), partition), offset: Offset(offset) })
            }
            (None, None, None) => None,
            _ => return Err(damaged(&self.id, "with half a source")),
        };
        let id = Id::new(&self.id).map_err(|error| damaged(&self.id, &format!("whose id {error}")))?;
        Ok(Decision {
            key: CommandKey { id, kind },
            seq: Seq(self.seq),
            digest: Digest(digest),
            accepted: self.accepted,
            detail: self.detail,
            source,
            decided_at: Stamp(self.decided_at),
        })
    }
}

fn damaged(id: &str, what: &str) -> StoreError {
    StoreError::Damaged { what: format!("a decision for {id:?} {what}") }
}

/// The decisions of every kind for these ids.
pub(super) async fn read_decisions(
    conn: &mut SqliteConnection,
    ids: &BTreeSet<&Id>,
) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
    if ids.is_empty() {
        return Ok(Map::default());
    }
    let rows: Vec<DecisionRow> = sqlx::query_as(
        "SELECT d.seq, d.id, d.kind, d.accepted, d.digest, d.detail, d.topic, d.partition, d.\"offset\", d.decided_at
         FROM json_each(?1) AS k CROSS JOIN decisions AS d ON d.id = k.value",
    )
    .bind(json(ids))
    .fetch_all(conn)
    .await
    .map_err(database("reading decisions"))?;
    let mut topics = HashMap::new();
    rows.into_iter()
        .map(|row| {
            let decision = row.read(&mut topics)?;
            Ok((decision.key.clone(), Arc::new(decision)))
        })
        .collect()
}

/// The next decisions in the ledger's order, which is the table's own.
pub(super) async fn read_decisions_after(
    conn: &mut SqliteConnection,
    after: Seq,
    limit: usize,
) -> Result<Vec<Decision>, StoreError> {
    let rows: Vec<DecisionRow> = sqlx::query_as(
        "SELECT seq, id, kind, accepted, digest, detail, topic, partition, \"offset\", decided_at
         FROM decisions WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )
    .bind(after.0)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("reading decisions"))?;
    let mut topics = HashMap::new();
    rows.into_iter().map(|row| row.read(&mut topics)).collect()
}

/// A stored movement.
#[derive(sqlx::FromRow)]
struct MovementRow {
    seq: i64,
    sku: String,
    location: String,
    version: i64,
    quantity: i64,
    balance: i64,
    kind: i16,
    id: String,
    partition: Option<i32>,
    offset: Option<i64>,
}

impl MovementRow {
    fn read(self) -> Result<StoredMovement, StoreError> {
        let damaged = |what: &str| StoreError::Damaged {
            what: format!("a movement of {:?} by {:?} {what}", self.sku, self.id),
        };
        let kind = CommandKind::from_number(self.kind).ok_or_else(|| damaged("of an unknown kind"))?;
        let id = Id::new(&self.id).map_err(|error| damaged(&format!("whose id {error}")))?;
        Ok(StoredMovement {
            item: stored_item(&self.sku, &self.location)?,
            version: self.version,
            quantity: self.quantity,
            balance: self.balance,
            cause: CommandKey { id, kind },
            seq: Seq(self.seq),
            record: self.partition.zip(self.offset.map(Offset)),
        })
    }
}

/// A range of movements in the ledger's order, which is the table's own.
pub(super) async fn read_movements_between(
    conn: &mut SqliteConnection,
    after: Seq,
    through: Seq,
) -> Result<Vec<StoredMovement>, StoreError> {
    let rows: Vec<MovementRow> = sqlx::query_as(
        "SELECT seq, sku, location, version, quantity, balance, kind, id, partition, \"offset\"
         FROM movements WHERE seq > ?1 AND seq <= ?2 ORDER BY seq, sku, location",
    )
    .bind(after.0)
    .bind(through.0)
    .fetch_all(conn)
    .await
    .map_err(database("reading movements"))?;
    rows.into_iter().map(MovementRow::read).collect()
}

/// The first free ledger sequence. The caller holds the write lock, so it stays free.
pub(super) async fn next_seq(conn: &mut SqliteConnection) -> Result<Seq, sqlx::Error> {
    // The key of decisions is their sequence, so this reads one leaf.
    sqlx::query_scalar("SELECT coalesce(max(seq), 0) + 1 FROM decisions").fetch_one(conn).await.map(Seq)
}

/// Appends decisions.
pub(super) async fn write_decisions(
    conn: &mut SqliteConnection,
    decisions: &[Arc<Decision>],
) -> Result<(), StoreError> {
    let rows: Vec<_> = decisions
        .iter()
        .map(|decision| {
            let source = decision.source.as_ref();
            (
                decision.seq.0,
                &decision.key.id,
                decision.key.kind.number(),
                i16::from(decision.accepted),
                hex(decision.digest),
                &decision.detail,
                source.map(|source| &*source.at.topic),
                source.map(|source| source.at.partition),
                source.map(|source| source.offset.0),
                decision.decided_at.0,
            )
        })
        .collect();
    write(
        conn,
        "writing decisions",
        "INSERT INTO decisions (seq, id, kind, accepted, digest, detail, topic, partition, \"offset\", decided_at)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, unhex(r.value ->> 4),
                r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9
         FROM json_each(?1) AS r",
        &rows,
    )
    .await
}

fn hex(digest: Digest) -> String {
    digest.0.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Appends movements.
pub(super) async fn write_movements(
    conn: &mut SqliteConnection,
    movements: &[Movement],
) -> Result<(), StoreError> {
    let rows: Vec<_> = movements
        .iter()
        .map(|movement| {
            let source = movement.source.as_ref();
            (
                &movement.item.sku,
                location_column(&movement.item),
                movement.version,
                movement.quantity,
                movement.balance,
                movement.seq.0,
                movement.cause.kind.number(),
                &movement.cause.id,
                source.map(|source| source.at.partition),
                source.map(|source| source.offset.0),
            )
        })
        .collect();
    write(
        conn,
        "writing movements",
        "INSERT INTO movements (sku, location, version, quantity, balance, seq, kind, id, partition, \"offset\")
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4,
                r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9
         FROM json_each(?1) AS r",
        &rows,
    )
    .await
}

/// Runs a statement that writes one row for each of `rows`; none at all when there are none.
pub(super) async fn write(
    conn: &mut SqliteConnection,
    doing: &'static str,
    sql: &'static str,
    rows: &[impl Serialize],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let written = sqlx::query(sql).bind(json(rows)).execute(conn).await.map_err(database(doing))?;
    let meant = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    if written.rows_affected() != meant {
        return Err(StoreError::Damaged {
            what: format!("{} rows after {doing}, {meant} were meant", written.rows_affected()),
        });
    }
    Ok(())
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    // Holds because only tuples and lists of strings and integers come here.
    serde_json::to_string(value).expect("plain data is always valid JSON")
}
