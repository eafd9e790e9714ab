//! A ledger in memory, for tests, simulations and examples: all that a ledger database can do, and nothing durable.
//!
//! It reads no clock, draws no random number and never sleeps, so that the same calls give the same answers: its time is
//! given, and a connection is lost when the caller says so. Reading it back is reading a copy.

mod admin;
mod audit;
mod chain;
mod history;
mod ledger;
mod queries;
mod tx;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use ledger::{Ledger, item_level};
use tx::MemoryTx;

use super::apply::{self, IdLookup};
use super::{
    Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, MOST_LEASE, OverdueHolds,
    Position, StoreError, StoredOrder, WorkQueue,
};
use crate::ledger::{CommandKey, Decision, HeldProgram, Id, Item, Sku, Stamp, TopicPartition};

/// Says what time it is.
pub type Time = dyn Fn() -> Stamp + Send + Sync;

/// A connection to a ledger in memory. A clone is the same connection; [`MemoryStore::connect`] makes another.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    epoch: Arc<AtomicU64>,
}

/// What all connections to one ledger share.
struct Shared {
    time: Box<Time>,
    /// One writer at a time, from the beginning of its transaction to its end. First come, first served.
    turns: Arc<Turns<()>>,
    /// What is committed. Held for moments only, so that readers wait for no transaction.
    ledger: Mutex<Ledger>,
}

impl MemoryStore {
    /// An empty ledger, whose time is what this says.
    pub fn new(time: impl Fn() -> Stamp + Send + Sync + 'static) -> Self {
        let shared = Shared { time: Box::new(time), turns: Arc::default(), ledger: Mutex::default() };
        Self { shared: Arc::new(shared), epoch: Arc::new(AtomicU64::new(1)) }
    }

    /// Another connection to the same ledger, as another instance has it.
    #[must_use]
    pub fn connect(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), epoch: Arc::new(AtomicU64::new(1)) }
    }

    /// Breaks this connection and opens it anew: a batch under way is lost, and its epoch rises.
    pub fn lose_connection(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic while it was held left it whole: what is committed is put together before.
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger as it is now.
    fn copy(&self) -> Ledger {
        self.ledger().clone()
    }

    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.shared.turns).lock_owned().await
    }

    fn now(&self) -> Stamp {
        (self.shared.time)()
    }
}

#[async_trait]
impl LedgerWriter for MemoryStore {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let mut ledger = self.ledger();
        match &ledger.group {
            Some(owner) if owner != group && !take_over => {
                Err(StoreError::OtherGroup { owner: owner.clone() })
            }
            _ => {
                ledger.group = Some(group.to_owned());
                Ok(())
            }
        }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let ledger = self.ledger();
        Ok(of.iter().filter_map(|at| Some((at.clone(), ledger.positions.get(at)?.clone()))).collect())
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        Ok(self.ledger().positions.clone())
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        self.ledger().set_position(at, was, now)
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        let _turn = self.turn().await;
        Ok(self.ledger().hold_programs(now))
    }

    fn connection_epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        Ok((self.connection_epoch(), self.all_positions().await?))
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        // Not tried again within: nothing changes under a transaction, and a lost connection is the caller's to see.
        apply::apply::<MemoryTx<'_>>(&mut self.clone(), batch, IdLookup::Any).await
    }
}

#[async_trait]
impl LedgerReader for MemoryStore {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let wanted = |item: &Item| of.is_none_or(|skus| skus.contains(&item.sku));
        Ok(self.ledger().levels.iter().filter(|(item, _)| wanted(item)).map(item_level).collect())
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let items: BTreeSet<&Item> = items.iter().collect();
        let ledger = self.ledger();
        Ok(items.into_iter().filter_map(|item| ledger.levels.get_key_value(item)).map(item_level).collect())
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        Ok(self.ledger().levels_after(after, limit))
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        Ok(self.ledger().decision(of).map(|decision| Decision::clone(decision)))
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        self.ledger().order(id)
    }
}

#[async_trait]
impl WorkQueue for MemoryStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let now = self.now();
        let until = Stamp(now.0.saturating_add(micros(lease)));
        let mut ledger = self.ledger();
        let mut due: Vec<DueHold> = ledger.holds_over(now).into_iter().map(|(_, hold)| hold).collect();
        // What is asked for longer than anybody asks was asked by a clock that was ahead.
        let most = Stamp(now.0.saturating_add(micros(MOST_LEASE)));
        let is_free = |asked: &Stamp| *asked <= now || *asked > most;
        due.retain(|hold| ledger.asked_until.get(&hold.order_id).is_none_or(is_free));
        due.truncate(limit);
        ledger.asked_until.extend(due.iter().map(|hold| (hold.order_id.clone(), until)));
        Ok(due)
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        // Over since longer than that: a moment more.
        let before = Stamp(self.now().0.saturating_sub(micros(by)).saturating_sub(1));
        let over = self.ledger().holds_over(before);
        let count = u64::try_from(over.len()).unwrap_or(u64::MAX);
        Ok(over.into_iter().next().map(|(since, hold)| OverdueHolds { count, oldest: hold.order_id, since }))
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        let mut ledger = self.ledger();
        let taken: Vec<Item> = ledger.unannounced.iter().take(limit).cloned().collect();
        ledger.unannounced.retain(|item| !taken.contains(item));
        Ok(taken)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
