//! Rows to and from SQLite: decisions and movements, each statement beside what it carries, and what all statements
//! share.
//!
//! Every writer asserts how many rows were written: a JSON text that does
//! not mean what it should must never pass silently.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sqlx::{SqliteConnection, SqlitePool};

use super::failure::database;
use crate::ledger::{
    CommandKey, CommandKind, Decision, Digest, Id, Item, Location, Map, Movement, Offset, Seq, Sku, Source,
    Stamp, TopicPartition,
};
use crate::store::{DatedMovement, MovementCursor, StoreError, StoredMovement, version};

/// The migrations applied.
pub(super) async fn read_migrations(pool: &SqlitePool) -> Result<Vec<version::FoundMigration>, sqlx::Error> {
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
            .fetch_one(pool)
            .await?;
    if tables == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "SELECT version, description, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(pool)
    .await
    .map(version::applied)
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

/// The decisions that follow these orders under ids of their own, of each the newest so many.
pub(super) async fn read_decisions_following(
    conn: &mut SqliteConnection,
    orders: &BTreeSet<&Id>,
    limit: usize,
) -> Result<Vec<Decision>, StoreError> {
    let mut topics = HashMap::new();
    let mut found = Vec::new();
    // One by one, since SQLite has no lateral join to bound each by: it answers from this process.
    for order in orders {
        let rows: Vec<DecisionRow> = sqlx::query_as(
            "SELECT seq, id, kind, accepted, digest, detail, topic, partition, \"offset\", decided_at FROM decisions
             WHERE kind IN (3, 4, 6) AND detail ->> '$.order_id' = ?1 ORDER BY seq DESC LIMIT ?2",
        )
        .bind(order.as_str())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *conn)
        .await
        .map_err(database("reading decisions"))?;
        for row in rows {
            found.push(row.read(&mut topics)?);
        }
    }
    Ok(found)
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

/// A page of a SKU's movements, the newest first. There is no index by SKU (see the migration): the table is gone through
/// from its end until the page is full.
pub(super) async fn read_movements_of(
    conn: &mut SqliteConnection,
    sku: &Sku,
    location: Option<&str>,
    before: Option<&MovementCursor>,
    limit: usize,
) -> Result<Vec<DatedMovement>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        movement: MovementRow,
        decided_at: Option<i64>,
        topic: Option<String>,
    }
    let (seq, beside) = before.map_or((i64::MAX, ""), |cursor| {
        (cursor.seq.0, cursor.location.as_ref().map_or("", Location::as_str))
    });
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT m.seq, m.sku, m.location, m.version, m.quantity, m.balance, m.kind, m.id, m.partition, m.\"offset\",
                d.decided_at, d.topic
         FROM movements AS m LEFT JOIN decisions AS d ON d.seq = m.seq
         WHERE m.sku = ?1 AND (?2 IS NULL OR m.location = ?2) AND (m.seq, m.sku, m.location) < (?3, ?1, ?4)
         ORDER BY m.seq DESC, m.sku DESC, m.location DESC LIMIT ?5",
    )
    .bind(sku.as_str())
    .bind(location)
    .bind(seq)
    .bind(beside)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(database("reading movements"))?;
    rows.into_iter()
        .map(|Row { movement, decided_at, topic }| {
            Ok(DatedMovement {
                movement: movement.read()?,
                decided_at: decided_at.map(Stamp),
                topic: topic.map(Arc::from),
            })
        })
        .collect()
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
