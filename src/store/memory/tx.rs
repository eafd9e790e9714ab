//! A batch's transaction in memory, which has the turn from its beginning to its end: what it reads stays as it is.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use super::MemoryStore;
use super::chain::{Chain, chains, level_after};
use super::ledger::Writes;
use crate::ledger::{
    Changes, CommandKey, Decision, Id, Item, Level, Map, NextOffset, OrderState, Seq, Sequenced,
    TopicPartition,
};
use crate::store::apply::{IdLookup, LedgerTx};
use crate::store::offline::OfflineTx;
use crate::store::{Advance, CommandBatch, LedgerWriter as _, StoreError};

/// A batch's transaction. What it writes waits here until it commits.
pub(super) struct MemoryTx<'c> {
    store: &'c MemoryStore,
    epoch: u64,
    _turn: OwnedMutexGuard<()>,
    writes: Writes,
}

#[async_trait]
impl<'c> LedgerTx<'c> for MemoryTx<'c> {
    type Connection = MemoryStore;

    async fn begin(
        store: &'c mut MemoryStore,
        batch: &CommandBatch,
        followed: &[&Id],
    ) -> Result<(Self, Map<CommandKey, Arc<Decision>>), StoreError> {
        let store: &'c MemoryStore = store;
        let turn = store.turn().await;
        let epoch = store.connection_epoch();
        if batch.epoch.is_some_and(|compared| compared != epoch) {
            return Err(StoreError::Reconnected);
        }
        let decisions = store.ledger().decisions_of(followed);
        Ok((Self { store, epoch, _turn: turn, writes: Writes::default() }, decisions))
    }

    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError> {
        let ledger = self.store.ledger();
        let level = |item| self.writes.repaired.get(item).or_else(|| ledger.levels.get(item));
        Ok(items.iter().filter_map(|item| Some(((*item).clone(), *level(item)?))).collect())
    }

    async fn lock_positions(
        &mut self,
        advances: &[Advance],
    ) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        let ledger = self.store.ledger();
        let found = advances.iter().map(|advance| &advance.at);
        Ok(found.filter_map(|at| Some((at.clone(), ledger.positions.get(at)?.next))).collect())
    }

    async fn read_decisions(
        &mut self,
        ids: &[&Id],
        _: IdLookup,
    ) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError> {
        let at = self.store.now();
        let mut ledger = self.store.ledger();
        let seq = ledger.draw();
        Ok((ledger.decisions_of(ids), Sequenced { seq, at }))
    }

    async fn read_orders(&mut self, orders: &mut Map<Id, OrderState>) -> Result<(), StoreError> {
        let ledger = self.store.ledger();
        for (id, state) in orders {
            if let Some(kept) = ledger.orders.get(id) {
                state.clone_from(kept);
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        batch: &CommandBatch,
        _: &[&Item],
        changes: &Changes,
    ) -> Result<(), StoreError> {
        self.writes.advances.clone_from(&batch.advances);
        self.writes.changes = Changes {
            outcomes: Vec::new(),
            decisions: changes.decisions.clone(),
            movements: changes.movements.clone(),
            levels: changes.levels.clone(),
            orders: changes.orders.clone(),
        };
        Ok(())
    }

    async fn commit(self) -> Result<(), StoreError> {
        if self.epoch != self.store.connection_epoch() {
            return Err(StoreError::Database {
                doing: "committing a batch",
                source: sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()),
                retry: true,
            });
        }
        self.store.ledger().commit(self.writes)
    }
}

#[async_trait]
impl<'c> OfflineTx<'c> for MemoryTx<'c> {
    async fn repair_levels(&mut self, items: &[&Item]) -> Result<(), StoreError> {
        let ledger = self.store.ledger();
        let chains = chains(&ledger);
        for item in items {
            let level = level_after(chains.get(item).map(Chain::newest), ledger.levels.get(*item));
            self.writes.repaired.insert((*item).clone(), level);
        }
        Ok(())
    }

    async fn draw_through(&mut self, last: Seq) -> Result<(), StoreError> {
        self.store.ledger().draw_through(last);
        Ok(())
    }
}
