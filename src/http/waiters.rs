//! Who waits for verdicts. Waiting costs the database nothing for each who waits: one task looks for all, many orders in
//! one read, when an order is first waited for, when this process decided it, and every [`LOOK_EVERY`] for what other
//! instances decided. Deciding tells nobody by the database: a `NOTIFY` would be part of a batch's transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::bounds::{LOOK_AT, LOOK_EVERY, LOOK_TOGETHER, MAX_WAITERS, REQUEST_LIMIT};
use crate::ledger::{Id, Map};
use crate::store::{AsOf, LedgerQueries, OrderLife};

/// What is known of an order.
pub(super) type Found = Arc<AsOf<OrderLife>>;

/// Why a wait ended without having waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotWaited {
    /// Too many wait already.
    TooMany,
    /// The database could not be asked all the while.
    NeverLooked,
}

/// Who waits for which order.
pub(super) struct Waiters {
    /// How many wait: read by who decides, without a lock.
    count: AtomicUsize,
    orders: Mutex<Orders>,
    look: Notify,
    stop: CancellationToken,
}

#[derive(Default)]
struct Orders {
    // The map's seed is a secret: strangers choose the ids.
    waited_for: HashMap<Id, Waited>,
    /// To be looked at now.
    due: Vec<Id>,
}

/// An order that is waited for.
struct Waited {
    found: watch::Sender<Option<Found>>,
    waiting: usize,
    /// Whether the ledger was asked for it.
    looked: bool,
}

impl Waited {
    fn has_verdict(&self) -> bool {
        has_verdict(self.found.borrow().as_ref())
    }
}

fn has_verdict(found: Option<&Found>) -> bool {
    found.is_some_and(|found| found.value.verdict().is_some())
}

impl Waiters {
    /// Nobody waits yet. All waiting ends with `stop`.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { count: AtomicUsize::new(0), orders: Mutex::default(), look: Notify::new(), stop }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // A panic while it was held left nothing half done.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that these orders were decided by this process, and committed. Costs one look at a number while nobody waits.
    pub(super) fn decided<'a>(&self, ids: impl IntoIterator<Item = &'a Id>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut orders = self.orders();
        let Orders { waited_for, due } = &mut *orders;
        let before = due.len();
        due.extend(ids.into_iter().filter(|id| waited_for.contains_key(*id)).cloned());
        if due.len() > before {
            self.look.notify_one();
        }
    }

    /// Waits for the verdict about an order, for so long; what is known of it then, which may be nothing.
    pub(super) async fn wait(&self, id: &Id, limit: Duration) -> Result<Option<Found>, NotWaited> {
        let mut waiting = self.enter(id)?;
        let verdict = waiting.found.wait_for(|found| has_verdict(found.as_ref()));
        tokio::select! {
            _ = timeout(limit, verdict) => {}
            () = self.stop.cancelled() => {}
        }
        let found = waiting.found.borrow().clone();
        let looked = self.orders().waited_for.get(id).is_some_and(|waited| waited.looked);
        if found.is_none() && !looked { Err(NotWaited::NeverLooked) } else { Ok(found) }
    }

    fn enter(&self, id: &Id) -> Result<Waiting<'_>, NotWaited> {
        let mut orders = self.orders();
        if self.count.load(Ordering::SeqCst) >= MAX_WAITERS {
            return Err(NotWaited::TooMany);
        }
        // Before the look: what is decided after it finds that somebody waits.
        self.count.fetch_add(1, Ordering::SeqCst);
        let Orders { waited_for, due } = &mut *orders;
        let waited = waited_for.entry(id.clone()).or_insert_with(|| {
            due.push(id.clone());
            Waited { found: watch::Sender::new(None), waiting: 0, looked: false }
        });
        waited.waiting += 1;
        let found = waited.found.subscribe();
        self.look.notify_one();
        Ok(Waiting { waiters: self, id: id.clone(), found })
    }

    /// Looks for all, until stopped.
    pub(super) async fn run(&self, queries: &dyn LedgerQueries) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let all = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.look.notified() => false,
                _ = ticks.tick() => true,
            };
            if !all {
                sleep(LOOK_TOGETHER).await;
            }
            for some in self.to_look_at(all).chunks(LOOK_AT) {
                match timeout(REQUEST_LIMIT, queries.orders(some)).await {
                    Ok(Ok(found)) => self.found(some, found),
                    // Readiness says it; all are looked at again with the next tick.
                    Ok(Err(error)) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "looking for verdicts");
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    fn to_look_at(&self, all: bool) -> Vec<Id> {
        let mut orders = self.orders();
        let Orders { waited_for, due } = &mut *orders;
        let mut ids = std::mem::take(due);
        if all {
            ids = waited_for.keys().cloned().collect();
        } else {
            ids.sort_unstable();
            ids.dedup();
        }
        ids.retain(|id| waited_for.get(id).is_some_and(|waited| !waited.has_verdict()));
        ids
    }

    fn found(&self, asked: &[Id], found: AsOf<Map<Id, OrderLife>>) {
        let AsOf { mut value, at, .. } = found;
        let mut orders = self.orders();
        for id in asked {
            if let Some(waited) = orders.waited_for.get_mut(id) {
                waited.looked = true;
                if let Some(life) = value.remove(id) {
                    waited.found.send_replace(Some(Arc::new(AsOf::new(life, at))));
                }
            }
        }
    }
}

/// One who waits, until dropped.
struct Waiting<'w> {
    waiters: &'w Waiters,
    id: Id,
    found: watch::Receiver<Option<Found>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut orders = self.waiters.orders();
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        if let Some(waited) = orders.waited_for.get_mut(&self.id) {
            waited.waiting -= 1;
            if waited.waiting == 0 {
                orders.waited_for.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use async_trait::async_trait;

    use super::*;
    use crate::ledger::{Command, Item, Location, Quantity, Request, Sku, Stamp, Terms};
    use crate::store::memory::MemoryStore;
    use crate::store::{
        CommandBatch, DatedMovement, ItemLevel, LedgerWriter as _, MovementCursor, StoreError,
    };

    /// A ledger in memory that counts how often it is asked for orders, and may be away.
    struct Counted {
        store: MemoryStore,
        asked: AtomicU64,
        away: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl LedgerQueries for Counted {
        async fn moment(&self) -> Result<Stamp, StoreError> {
            self.store.moment().await
        }

        async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            self.store.stock(sku, limit).await
        }

        async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            self.store.stock_of(items).await
        }

        async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                return Err(StoreError::ConcurrentChange);
            }
            self.store.orders(ids).await
        }

        async fn movements(
            &self,
            sku: &Sku,
            location: Option<Option<&Location>>,
            before: Option<&MovementCursor>,
            limit: usize,
        ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
            self.store.movements(sku, location, before, limit).await
        }
    }

    fn counted() -> Arc<Counted> {
        let store = MemoryStore::new(|| Stamp(1));
        Arc::new(Counted { store, asked: AtomicU64::new(0), away: false.into() })
    }

    fn id(number: usize) -> Id {
        Id::new(&format!("o-{number}")).unwrap()
    }

    async fn decide(store: &MemoryStore, numbers: std::ops::Range<usize>) {
        let requests = numbers.map(|number| {
            let lines = vec![(Sku::new("MUG").unwrap().into(), Quantity::new(1).unwrap())];
            Request { command: Command::order_created(id(number), lines, Terms::default()), source: None }
        });
        let batch = CommandBatch { requests: requests.collect(), ..CommandBatch::default() };
        store.apply(&batch).await.unwrap();
    }

    fn start(ledger: &Arc<Counted>) -> Arc<Waiters> {
        let waiters = Arc::new(Waiters::new(CancellationToken::new()));
        let (looking, queries) = (Arc::clone(&waiters), Arc::clone(ledger));
        tokio::spawn(async move { looking.run(&*queries).await });
        waiters
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_wait_for_what_this_process_decides_cost_a_handful_of_reads() {
        let ledger = counted();
        let waiters = start(&ledger);
        let all: Vec<_> = (0..1_000)
            .map(|number| {
                let waiters = Arc::clone(&waiters);
                tokio::spawn(async move { waiters.wait(&id(number), Duration::from_secs(5)).await })
            })
            .collect();
        while waiters.count.load(Ordering::SeqCst) < 1_000 {
            tokio::task::yield_now().await;
        }
        decide(&ledger.store, 0..1_000).await;
        let ids: Vec<Id> = (0..1_000).map(id).collect();
        waiters.decided(&ids);
        for waiting in all {
            let found = waiting.await.unwrap().unwrap().unwrap();
            assert!(found.value.verdict().is_some());
        }
        let asked = ledger.asked.load(Ordering::SeqCst);
        assert!((1..=8).contains(&asked), "{asked} reads for 1,000 orders, {LOOK_AT} at a time");
        assert!(waiters.orders().waited_for.is_empty() && waiters.count.load(Ordering::SeqCst) == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_instance_decides_is_found_with_the_next_look() {
        let ledger = counted();
        let waiters = start(&ledger);
        let waiting = tokio::spawn({
            let waiters = Arc::clone(&waiters);
            async move { waiters.wait(&id(1), Duration::from_secs(5)).await }
        });
        // The first look has found nothing.
        while ledger.asked.load(Ordering::SeqCst) == 0 {
            sleep(LOOK_TOGETHER).await;
        }
        decide(&ledger.store, 1..2).await;
        let since = tokio::time::Instant::now();
        assert!(waiting.await.unwrap().unwrap().is_some());
        assert!(since.elapsed() <= LOOK_EVERY + LOOK_TOGETHER, "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_in_its_time_with_nothing_known_and_says_when_nobody_could_look() {
        let ledger = counted();
        let waiters = start(&ledger);
        assert_eq!(waiters.wait(&id(1), Duration::from_secs(2)).await, Ok(None));
        ledger.away.store(true, Ordering::SeqCst);
        assert_eq!(waiters.wait(&id(1), Duration::from_secs(2)).await, Err(NotWaited::NeverLooked));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may() {
        let waiters = Waiters::new(CancellationToken::new());
        let all: Vec<_> = (0..MAX_WAITERS).map(|number| waiters.enter(&id(number)).unwrap()).collect();
        assert_eq!(waiters.enter(&id(0)).err(), Some(NotWaited::TooMany));
        drop(all);
        assert!(waiters.enter(&id(0)).is_ok());
    }
}
