//! Reading the ledger back, in its order, as it was at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};

use super::failure::database;
use super::levels::{self, item_levels};
use super::{orders, positions, programs, rows};
use crate::ledger::{
    CommandKey, Decision, HeldProgram, Hold, Id, Item, Map, NextOffset, OrderStock, Seq, TopicPartition,
};
use crate::store::{Incarnation, ItemLevel, Snapshot, StoreError, StoredMovement};

/// A read transaction: SQLite shows it the file as it was when it first read.
pub(super) struct SqliteSnapshot(pub(super) Transaction<'static, Sqlite>);

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn count(&mut self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM decisions")
            .fetch_one(&mut *self.0)
            .await
            .map_err(database("counting the decisions"))?;
        Ok(count.unsigned_abs())
    }

    async fn last_seq(&mut self) -> Result<Option<Seq>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(seq) FROM decisions")
            .fetch_one(&mut *self.0)
            .await
            .map_err(database("reading the last decision's ledger sequence"))?;
        Ok(last.map(Seq))
    }

    async fn positions(&mut self) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        positions::read_all(&mut self.0).await.map_err(database("reading positions"))
    }

    async fn incarnations(&mut self) -> Result<Vec<Incarnation>, StoreError> {
        positions::read_incarnations(&mut self.0).await.map_err(database("reading the topics' ids"))
    }

    async fn programs(&mut self) -> Result<Vec<HeldProgram>, StoreError> {
        programs::all(&mut self.0).await.map_err(database("reading the mappings"))
    }

    async fn decisions_after(&mut self, after: Seq, limit: usize) -> Result<Vec<Decision>, StoreError> {
        rows::read_decisions_after(&mut self.0, after, limit).await
    }

    async fn movements_between(
        &mut self,
        after: Seq,
        through: Seq,
    ) -> Result<Vec<StoredMovement>, StoreError> {
        rows::read_movements_between(&mut self.0, after, through).await
    }

    async fn decisions_of(&mut self, ids: &[&Id]) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
        rows::read_decisions(&mut self.0, &ids.iter().copied().collect()).await
    }

    async fn levels_after(
        &mut self,
        after: Option<&Item>,
        limit: usize,
    ) -> Result<Vec<ItemLevel>, StoreError> {
        levels::read_after(&mut self.0, after, limit).await.map(item_levels)
    }

    async fn order_lines_after(
        &mut self,
        after: Option<(&Id, &Item)>,
        limit: usize,
    ) -> Result<Vec<(Id, OrderStock)>, StoreError> {
        orders::read_lines_after(&mut self.0, after, limit).await
    }

    async fn holds_after(&mut self, after: Option<&Id>, limit: usize) -> Result<Vec<(Id, Hold)>, StoreError> {
        orders::read_holds_after(&mut self.0, after, limit).await
    }
}
