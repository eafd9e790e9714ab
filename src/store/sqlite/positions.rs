//! How far each partition is applied, and which topics its decisions are of.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::rows::{json, write};
use crate::ledger::{NextOffset, Seq, TopicId, TopicPartition};
use crate::store::{Advance, Incarnation, Position, StoreError};

/// The positions of these partitions; one the ledger never saw is absent.
pub(super) async fn read(
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
pub(super) async fn read_all(
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
pub(super) async fn read_full(
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
pub(super) async fn write_one(
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
pub(super) async fn advance(conn: &mut SqliteConnection, advances: &[Advance]) -> Result<(), StoreError> {
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
