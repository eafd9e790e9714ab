//! A batch's transaction in SQLite, which has the file's write lock from its beginning to its end: what it reads stays as
//! it is. The module above lists the statements.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection as _, Sqlite, SqliteConnection, Transaction};

use super::failure::database;
use super::{levels, now, orders, positions, rows};
use crate::ledger::{
    Changes, CommandKey, Decision, Id, Item, Level, Map, NextOffset, OrderState, Seq, Sequenced,
    TopicPartition,
};
use crate::store::apply::{IdLookup, LedgerTx};
use crate::store::offline::OfflineTx;
use crate::store::{Advance, CommandBatch, StoreError};

/// A batch's transaction.
pub(super) struct SqliteTx<'c> {
    transaction: Transaction<'c, Sqlite>,
    /// All decisions for the batch's ids, and for those of the orders followed: read at once, since each statement hops
    /// to the driver's thread and back.
    decisions: Map<CommandKey, Arc<Decision>>,
    /// The orders followed that hold something.
    held: HashSet<Id>,
}

#[async_trait]
impl<'c> LedgerTx<'c> for SqliteTx<'c> {
    type Connection = SqliteConnection;

    async fn begin(
        connection: &'c mut SqliteConnection,
        batch: &CommandBatch,
        followed: &[&Id],
    ) -> Result<(Self, Map<CommandKey, Arc<Decision>>), StoreError> {
        let mut transaction =
            connection.begin_with("BEGIN IMMEDIATE").await.map_err(database("beginning a batch"))?;
        let own = batch.requests.iter().map(|request| &request.command.key.id);
        let ids: BTreeSet<&Id> = own.chain(followed.iter().copied()).collect();
        let decisions = rows::read_decisions(&mut transaction, &ids).await?;
        Ok((Self { transaction, decisions: decisions.clone(), held: HashSet::new() }, decisions))
    }

    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError> {
        let items: BTreeSet<&Item> = items.iter().copied().collect();
        Ok(levels::read(&mut self.transaction, &items).await?.into_iter().collect())
    }

    async fn lock_positions(
        &mut self,
        advances: &[Advance],
    ) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        positions::read(&mut self.transaction, advances.iter().map(|advance| &advance.at))
            .await
            .map_err(database("reading positions"))
    }

    async fn read_decisions(
        &mut self,
        _: &[&Id],
        _: IdLookup,
    ) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError> {
        let seq =
            rows::next_seq(&mut self.transaction).await.map_err(database("drawing ledger sequences"))?;
        Ok((std::mem::take(&mut self.decisions), Sequenced { seq, at: now() }))
    }

    async fn read_orders(&mut self, states: &mut Map<Id, OrderState>) -> Result<(), StoreError> {
        orders::read_lines(&mut self.transaction, states).await?;
        orders::read_holds(&mut self.transaction, states).await?;
        let held = states.iter().filter(|(_, state)| state.hold.is_some());
        self.held = held.map(|(id, _)| id.clone()).collect();
        Ok(())
    }

    async fn write(
        &mut self,
        batch: &CommandBatch,
        _: &[&Item],
        changes: &Changes,
    ) -> Result<(), StoreError> {
        let connection = &mut *self.transaction;
        levels::write_all(connection, &changes.levels).await?;
        rows::write_decisions(connection, &changes.decisions).await?;
        rows::write_movements(connection, &changes.movements).await?;
        orders::write_lines(connection, &changes.orders).await?;
        orders::write_holds(connection, &changes.orders, &self.held).await?;
        orders::write_unannounced(connection, &changes.movements).await?;
        positions::advance(connection, &batch.advances).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(database("committing a batch"))
    }
}

#[async_trait]
impl<'c> OfflineTx<'c> for SqliteTx<'c> {
    async fn repair_levels(&mut self, items: &[&Item]) -> Result<(), StoreError> {
        levels::repair(&mut self.transaction, &items.iter().copied().collect()).await
    }

    async fn draw_through(&mut self, _: Seq) -> Result<(), StoreError> {
        // The next batch begins after the last decision there is.
        Ok(())
    }
}
