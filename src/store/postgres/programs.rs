//! Which program reads which records.

use sqlx::{Connection as _, PgConnection};

use super::failure::failed;
use super::gate;
use crate::ledger::{HeldProgram, NextOffset, TopicPartition};
use crate::store::StoreError;
use crate::store::programs::{ProgramChange, program_change, with_change};

/// All that is kept, sorted by partition and offset.
pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<HeldProgram>, StoreError> {
    let rows: Vec<(String, i32, i64, Option<String>)> = sqlx::query_as(
        "SELECT topic, partition, from_offset, program FROM mapping_programs ORDER BY topic, partition, from_offset",
    )
    .fetch_all(connection)
    .await
    .map_err(failed("reading the mappings"))?;
    let held = rows.into_iter().map(|(topic, partition, from, program)| HeldProgram {
        at: TopicPartition::new(topic, partition),
        from: NextOffset(from),
        program,
    });
    Ok(held.collect())
}

/// States which program reads these partitions from these offsets on, and returns all that is kept then.
pub(super) async fn hold(
    connection: &mut PgConnection,
    now: &[HeldProgram],
) -> Result<Vec<HeldProgram>, StoreError> {
    let doing = failed("noting the mappings");
    let mut past = all(connection).await?;
    // Nearly always all is as it should be.
    if now.iter().all(|now| program_change(&past, now).is_none()) {
        return Ok(past);
    }
    let mut transaction = connection.begin_with(gate::BEGIN).await.map_err(&doing)?;
    // Another instance may be noting the same: one after the other, each on what the one before left. Nobody who reads waits.
    sqlx::query("LOCK TABLE mapping_programs IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .map_err(&doing)?;
    past = all(&mut transaction).await?;
    for now in now {
        let Some(ProgramChange { remove, insert }) = program_change(&past, now) else { continue };
        if remove {
            sqlx::query(
                "DELETE FROM mapping_programs WHERE topic = $1 AND partition = $2 AND from_offset >= $3",
            )
            .bind(now.at.topic.as_ref())
            .bind(now.at.partition)
            .bind(now.from.0)
            .execute(&mut *transaction)
            .await
            .map_err(&doing)?;
        }
        if let Some(insert) = insert {
            sqlx::query(
                "INSERT INTO mapping_programs (topic, partition, from_offset, program) VALUES ($1, $2, $3, $4)",
            )
            .bind(insert.at.topic.as_ref())
            .bind(insert.at.partition)
            .bind(insert.from.0)
            .bind(&insert.program)
            .execute(&mut *transaction)
            .await
            .map_err(&doing)?;
        }
        past = with_change(past, now);
    }
    transaction.commit().await.map_err(doing)?;
    Ok(past)
}
