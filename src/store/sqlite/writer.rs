//! What deciding needs: applying batches, and positions.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sqlx::{Connection as _, SqliteConnection};

use super::failure::database;
use super::tx::SqliteTx;
use super::{SqliteStore, positions, programs, rows};
use crate::ledger::{HeldProgram, TopicPartition};
use crate::store::apply::{self, IdLookup};
use crate::store::{Applied, CommandBatch, LedgerWriter, Position, StoreError, first_seq_of, retry_when};

#[async_trait]
impl LedgerWriter for SqliteStore {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let doing = "claiming the ledger";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let owner: String = sqlx::query_scalar(
            "INSERT INTO ledger_group (only_one, name) VALUES (1, ?1)
             ON CONFLICT (only_one) DO UPDATE SET name = CASE WHEN ?2 THEN excluded.name ELSE name END
             RETURNING name",
        )
        .bind(group)
        .bind(take_over)
        .fetch_one(&mut *conn)
        .await
        .map_err(database(doing))?;
        if owner == group { Ok(()) } else { Err(StoreError::OtherGroup { owner }) }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let mut found = self.all_positions().await?;
        found.retain(|at, _| of.contains(at));
        Ok(found)
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading positions"))?;
        positions::read_full(&mut conn, None).await.map_err(database("reading positions"))
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        let doing = "setting a position";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(database(doing))?;
        let found = positions::read_full(&mut tx, Some(at)).await.map_err(database(doing))?.remove(at);
        if found.as_ref() != was {
            return Err(StoreError::PositionChanged { at: at.clone() });
        }
        positions::write_one(&mut tx, at, now).await.map_err(database(doing))?;
        if let Some(topic_id) = &now.topic_id
            && was.and_then(|was| was.topic_id.as_ref()) != Some(topic_id)
        {
            let from = first_seq_of(was, rows::next_seq(&mut tx).await.map_err(database(doing))?);
            positions::write_incarnation(&mut tx, at, topic_id, from).await.map_err(database(doing))?;
        }
        tx.commit().await.map_err(database(doing))
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        let doing = "noting the mappings";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        programs::hold(&mut conn, now).await.map_err(database(doing))
    }

    fn connection_epoch(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        let doing = "reading positions";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let epoch = self.connection_epoch();
        Ok((epoch, positions::read_full(&mut conn, None).await.map_err(database(doing))?))
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        // Each error of the database costs the connection.
        let again = |error: &StoreError| {
            error.is_transient() && (batch.epoch.is_none() || !matches!(error, StoreError::Database { .. }))
        };
        retry_when("applying a batch", again, || {
            self.write_once(batch, async |conn: &mut SqliteConnection| {
                apply::apply::<SqliteTx<'_>>(conn, batch, IdLookup::Any).await
            })
        })
        .await
    }
}
