//! A ledger in memory, for tests, simulations and examples: what a running verifier needs, and nothing durable.
//!
//! It reads no clock, draws no random number and never sleeps, so that the same calls give the same answers. It is read
//! by key alone, and so is no [`LedgerHistory`](super::LedgerHistory); it has no tables, and so is no
//! [`LedgerAdmin`](super::LedgerAdmin).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use super::apply::{self, IdLookup, LedgerTx};
use super::{
    Advance, Applied, CommandBatch, DueHold, ItemLevel, LedgerReader, LedgerWriter, MAX_BATCH, OverdueHolds,
    Position, StoreError, StoredMovement, StoredOrder, WorkQueue, stored_order,
};
use crate::ledger::{
    Changes, CommandKey, CommandKind, Decision, Id, Item, Level, Map, Movement, NextOffset, OrderState, Seq,
    Sequenced, Sku, Stamp, TopicPartition,
};

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

#[derive(Default)]
struct Ledger {
    group: Option<String>,
    levels: BTreeMap<Item, Level>,
    decisions: Map<CommandKey, Arc<Decision>>,
    /// Orders that held or gave something back.
    orders: BTreeMap<Id, OrderState>,
    /// Until when the end of a hold is somebody's to ask for.
    asked_until: Map<Id, Stamp>,
    /// In the ledger's order, and by item within a decision.
    movements: Vec<Movement>,
    positions: HashMap<TopicPartition, Position>,
    unannounced: BTreeSet<Item>,
    /// The last ledger sequence drawn.
    drawn: i64,
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

    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.shared.turns).lock_owned().await
    }

    fn now(&self) -> Stamp {
        (self.shared.time)()
    }
}

/// A batch's transaction. What it writes waits here until it commits.
struct MemoryTx<'c> {
    store: &'c MemoryStore,
    epoch: u64,
    _turn: OwnedMutexGuard<()>,
    advances: Vec<Advance>,
    changes: Changes,
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
        let (advances, changes) = (Vec::new(), Changes::default());
        Ok((Self { store, epoch, _turn: turn, advances, changes }, decisions))
    }

    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError> {
        let ledger = self.store.ledger();
        Ok(items.iter().filter_map(|item| Some(((*item).clone(), *ledger.levels.get(item)?))).collect())
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
        let seq = Seq(ledger.drawn + 1);
        // Holds because a batch has no more, and a ledger in memory has few.
        ledger.drawn += i64::try_from(MAX_BATCH).expect("a hundred thousand");
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
        self.advances.clone_from(&batch.advances);
        self.changes = Changes {
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
        self.store.ledger().commit(self.advances, self.changes);
        Ok(())
    }
}

impl Ledger {
    /// The decisions of every kind for these ids.
    fn decisions_of(&self, ids: &[&Id]) -> Map<CommandKey, Arc<Decision>> {
        ids.iter()
            .flat_map(|id| CommandKind::ALL.into_iter().map(|kind| CommandKey { id: (*id).clone(), kind }))
            .filter_map(|key| self.decisions.get(&key).map(|decision| (key, Arc::clone(decision))))
            .collect()
    }

    fn commit(&mut self, advances: Vec<Advance>, changes: Changes) {
        self.levels.extend(changes.levels);
        self.decisions.extend(changes.decisions.into_iter().map(|made| (made.key.clone(), made)));
        for (id, state) in changes.orders {
            self.asked_until.remove(&id);
            self.orders.insert(id, state);
        }
        let own = changes.movements.iter().filter(|movement| movement.source.is_none());
        self.unannounced.extend(own.map(|movement| movement.item.clone()));
        self.movements.extend(changes.movements);
        self.movements.sort_by(|a, b| (a.seq, &a.item).cmp(&(b.seq, &b.item)));
        for Advance { at, next, published, .. } in advances {
            let position =
                self.positions.entry(at).or_insert(Position { next, published: None, topic_id: None });
            position.next = position.next.max(next);
            position.published = position.published.max(published);
        }
    }

    /// Orders whose hold is over at this time, the longest over first, with its end.
    fn holds_over(&self, at: Stamp) -> Vec<(Stamp, DueHold)> {
        let mut over: Vec<(Stamp, DueHold)> = self
            .orders
            .iter()
            .filter_map(|(id, state)| Some((id, state.hold.as_ref()?)))
            .filter(|(_, hold)| hold.expires_at <= at)
            .map(|(id, hold)| (hold.expires_at, DueHold { order_id: id.clone(), at: hold.at.clone() }))
            .collect();
        // Stable: those that are over since the same moment stay in the order of their ids.
        over.sort_by_key(|(end, _)| *end);
        over
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
        let mut ledger = self.ledger();
        if ledger.positions.get(at) != was {
            return Err(StoreError::PositionChanged { at: at.clone() });
        }
        ledger.positions.insert(at.clone(), now.clone());
        Ok(())
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
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        Ok(self.ledger().levels.range::<Item, _>((from, Unbounded)).take(limit).map(item_level).collect())
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        Ok(self.ledger().decisions.get(of).map(|decision| Decision::clone(decision)))
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let ledger = self.ledger();
        let decisions = stored_order::about(id, ledger.decisions_of(&[id]));
        if decisions.is_empty() {
            return Ok(None);
        }
        let bare = stored_order::bare_state(id, &decisions)?.remove(id);
        let state = bare.map(|bare| ledger.orders.get(id).cloned().unwrap_or(bare));
        let sequences = stored_order::sequences(&decisions);
        let moved = ledger.movements.iter().filter(|movement| sequences.contains(&movement.seq));
        let movements = moved.map(StoredMovement::of).collect();
        Ok(Some(StoredOrder { decisions, state, movements }))
    }
}

#[async_trait]
impl WorkQueue for MemoryStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let now = self.now();
        let until = Stamp(now.0.saturating_add(micros(lease)));
        let mut ledger = self.ledger();
        let mut due: Vec<DueHold> = ledger.holds_over(now).into_iter().map(|(_, hold)| hold).collect();
        due.retain(|hold| ledger.asked_until.get(&hold.order_id).is_none_or(|until| *until <= now));
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

fn item_level((item, level): (&Item, &Level)) -> ItemLevel {
    ItemLevel { item: item.clone(), level: *level }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
