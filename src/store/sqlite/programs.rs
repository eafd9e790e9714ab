//! Which program reads which records.

use sqlx::{Connection as _, SqliteConnection};

use crate::ledger::{HeldProgram, NextOffset, TopicPartition};
use crate::store::programs::{ProgramChange, program_change, with_change};

/// All that is kept, sorted by partition and offset.
pub(super) async fn all(conn: &mut SqliteConnection) -> Result<Vec<HeldProgram>, sqlx::Error> {
    let rows: Vec<(String, i32, i64, Option<String>)> = sqlx::query_as(
        "SELECT topic, partition, from_offset, program FROM mapping_programs ORDER BY topic, partition, from_offset",
    )
    .fetch_all(conn)
    .await?;
    let held = rows.into_iter().map(|(topic, partition, from, program)| HeldProgram {
        at: TopicPartition::new(topic, partition),
        from: NextOffset(from),
        program,
    });
    Ok(held.collect())
}

/// States which program reads these partitions from these offsets on, and returns all that is kept then.
pub(super) async fn hold(
    conn: &mut SqliteConnection,
    now: &[HeldProgram],
) -> Result<Vec<HeldProgram>, sqlx::Error> {
    let mut past = all(conn).await?;
    // Nearly always all is as it should be, and nothing waits for a writer.
    if now.iter().all(|now| program_change(&past, now).is_none()) {
        return Ok(past);
    }
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    // Another process may have noted something since.
    past = all(&mut tx).await?;
    for now in now {
        let Some(ProgramChange { remove, insert }) = program_change(&past, now) else { continue };
        if remove {
            sqlx::query(
                "DELETE FROM mapping_programs WHERE topic = ?1 AND partition = ?2 AND from_offset >= ?3",
            )
            .bind(&*now.at.topic)
            .bind(now.at.partition)
            .bind(now.from.0)
            .execute(&mut *tx)
            .await?;
        }
        if let Some(insert) = insert {
            sqlx::query(
                "INSERT INTO mapping_programs (topic, partition, from_offset, program) VALUES (?1, ?2, ?3, ?4)",
            )
            .bind(&*insert.at.topic)
            .bind(insert.at.partition)
            .bind(insert.from.0)
            .bind(&insert.program)
            .execute(&mut *tx)
            .await?;
        }
        past = with_change(past, now);
    }
    tx.commit().await?;
    Ok(past)
}
