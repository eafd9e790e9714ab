//! Batches applied, and how far each partition is.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::connection::{self, AnswerLimit};
use super::distributed::{DistributedTx, Layout};
use super::failure::{self, failed};
use super::tx::PostgresTx;
use super::{PostgresStore, positions, programs, rows};
use crate::ledger::{HeldProgram, TopicPartition};
use crate::store::apply::{self, IdLookup};
use crate::store::{self, Applied, CommandBatch, LedgerWriter, PoolUse, Position, StoreError};

/// Batches in which command ids are looked up before they are taken for new again, once one was not: a batch refused
/// for that is done twice, so where producers repeat themselves all the time it costs a hundredth.
const FULL_LOOKUP_BATCHES: usize = 100;

impl PostgresStore {
    /// Applies a batch as if all its ids were new, which nearly always they are, or with a look at each.
    async fn attempt(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let full_lookup_batches =
            self.full_lookup_batches
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if full_lookup_batches.is_err() {
            match self.attempt_as(batch, IdLookup::New).await {
                Err(error) if failure::met_known(&error) => {
                    tracing::debug!(
                        "a command id was decided before, or a new item noted; both are looked up for a while"
                    );
                    self.full_lookup_batches.store(FULL_LOOKUP_BATCHES, Ordering::Relaxed);
                }
                applied => return applied,
            }
        }
        self.attempt_as(batch, IdLookup::Any).await
    }

    async fn attempt_as(&self, batch: &CommandBatch, ids: IdLookup) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let apply = async |connection: &mut PgConnection| {
            self.check_epoch(batch)?;
            match layout {
                Layout::Plain => apply::apply::<PostgresTx<'_>>(connection, batch, ids),
                Layout::Distributed => apply::apply::<DistributedTx<'_>>(connection, batch, ids),
            }
            .await
        };
        let applied = connection::with_connection(&self.batches, AnswerLimit::Usual, apply).await;
        self.settle_after(layout, &applied).await;
        applied
    }
}

#[async_trait]
impl LedgerWriter for PostgresStore {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let owner: String = self
            .with(async |connection| {
                sqlx::query_scalar(
                    "INSERT INTO ledger_group (name) VALUES ($1)
                     ON CONFLICT (only_one)
                         DO UPDATE SET name = CASE WHEN $2 THEN excluded.name ELSE ledger_group.name END
                     RETURNING name",
                )
                .bind(group)
                .bind(take_over)
                .fetch_one(connection)
                .await
                .map_err(failed("claiming the ledger"))
            })
            .await?;
        if owner == group { Ok(()) } else { Err(StoreError::OtherGroup { owner }) }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let (topics, partitions) = rows::partition_columns(of.iter());
        self.with(async |connection| {
            sqlx::query(
                "SELECT topic, partition, next_offset, published_offset, topic_id FROM positions
                 JOIN UNNEST($1::text[], $2::int[]) AS wanted (topic, partition) USING (topic, partition)",
            )
            .bind(topics)
            .bind(partitions)
            .fetch_all(connection)
            .await
            .map_err(failed("reading the positions"))?
            .iter()
            .map(|row| rows::full_position(row).map_err(failed("reading the positions")))
            .collect()
        })
        .await
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.with(positions::all).await
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        self.with(async |connection| positions::set(connection, at, was, now).await).await
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        self.with(async |connection| programs::hold(connection, now).await).await
    }

    fn connection_epoch(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    fn connections(&self) -> Vec<PoolUse> {
        vec![self.batches.usage("batches"), self.readers.usage("readers"), self.pool.usage("others")]
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        let read = async |connection: &mut PgConnection| {
            // Now that it is there: its own opening counts.
            let epoch = self.connection_epoch();
            Ok((epoch, positions::all(connection).await?))
        };
        connection::with_connection(&self.batches, AnswerLimit::Usual, read).await
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let again = |error: &StoreError| {
            error.is_transient() && (batch.epoch.is_none() || failure::keeps_session(error))
        };
        store::retry_when("applying a batch", again, || self.attempt(batch)).await
    }
}
