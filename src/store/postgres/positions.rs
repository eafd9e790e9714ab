//! Positions, outside of batches.

use std::collections::HashMap;

use sqlx::{Connection as _, PgConnection};

use super::failure::failed;
use super::{gate, rows};
use crate::ledger::{Seq, TopicId, TopicPartition};
use crate::store::{Position, StoreError, first_seq_of};

/// The position of every partition.
pub(super) async fn all(
    connection: &mut PgConnection,
) -> Result<HashMap<TopicPartition, Position>, StoreError> {
    let doing = failed("reading the positions");
    sqlx::query("SELECT topic, partition, next_offset, published_offset, topic_id FROM positions")
        .fetch_all(connection)
        .await
        .map_err(&doing)?
        .iter()
        .map(|row| rows::full_position(row).map_err(&doing))
        .collect()
}

/// States a position if it still is what it `was`, and notes a new id of its topic.
pub(super) async fn set(
    connection: &mut PgConnection,
    at: &TopicPartition,
    was: Option<&Position>,
    now: &Position,
) -> Result<(), StoreError> {
    let doing = failed("setting a position");
    let mut transaction = connection.begin_with(gate::BEGIN).await.map_err(&doing)?;
    let found = sqlx::query(
        "SELECT topic, partition, next_offset, published_offset, topic_id FROM positions
         WHERE topic = $1 AND partition = $2 FOR UPDATE",
    )
    .bind(at.topic.as_ref())
    .bind(at.partition)
    .fetch_optional(&mut *transaction)
    .await
    .map_err(&doing)?;
    let found =
        found.map(|row| rows::full_position(&row)).transpose().map_err(&doing)?.map(|(_, found)| found);
    if found.as_ref() != was {
        return Err(StoreError::PositionChanged { at: at.clone() });
    }
    // One that was not there may be there by now: then it is left alone, and nothing is written.
    let written = sqlx::query(
        "INSERT INTO positions AS stored (topic, partition, next_offset, published_offset, topic_id)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset,
             published_offset = excluded.published_offset, topic_id = excluded.topic_id
         WHERE $6",
    )
    .bind(at.topic.as_ref())
    .bind(at.partition)
    .bind(now.next.0)
    .bind(now.published.map(|published| published.0))
    .bind(now.topic_id.as_ref().map(TopicId::as_str))
    .bind(was.is_some())
    .execute(&mut *transaction)
    .await
    .map_err(&doing)?
    .rows_affected();
    if written == 0 {
        return Err(StoreError::PositionChanged { at: at.clone() });
    }
    if let Some(topic_id) = &now.topic_id
        && was.and_then(|was| was.topic_id.as_ref()) != Some(topic_id)
    {
        // Drawn while the position is locked: every decision of the partition so far has a lower one.
        let next: i64 = sqlx::query_scalar("SELECT nextval('ledger_seq')")
            .fetch_one(&mut *transaction)
            .await
            .map_err(&doing)?;
        sqlx::query(
            "INSERT INTO topic_incarnations (topic, partition, from_seq, topic_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT (topic, partition, from_seq) DO UPDATE SET topic_id = excluded.topic_id",
        )
        .bind(at.topic.as_ref())
        .bind(at.partition)
        .bind(first_seq_of(was, Seq(next)).0)
        .bind(topic_id.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(&doing)?;
    }
    transaction.commit().await.map_err(doing)
}
