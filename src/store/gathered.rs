//! Many who ask for levels at once are answered by a few statements: while one is under way, who asks waits for the next.
//!
//! Who asks alone waits for nobody: a statement begins as soon as one of [`MAX_STATEMENTS`] is free. Where others wait when
//! one ends, the next begins [`MIN_INTERVAL`] after it began. So an answer is as new as one asked for alone, and thousands of
//! readers a second cost the database hundreds of statements, however quick it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{AsOf, DatedMovement, ItemLevel, LedgerQueries, MovementCursor, OrderLife, StoreError};
use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};

/// Most statements under way. Two: while the database works on one, the answer of the other is handed out.
const MAX_STATEMENTS: usize = 2;
/// Most items that one statement asks for, unless one who asks wants more: some milliseconds of the database's time.
const MAX_ITEMS: usize = 2_000;
/// Least time between the beginnings of two statements of which the second is waited for. A quick database would
/// be asked thousands of times a second, for one or two readers each, and a statement costs it more than what it asks for.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// What one who waits is sent: what was found of all that the statement asked for.
type Answer = Arc<AsOf<Map<Item, ItemLevel>>>;

/// One who waits.
struct Asker {
    items: Vec<Item>,
    /// Sent nothing where the statement failed.
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Asking {
    /// In the order they came. As many as requests may be under way at most.
    askers: Vec<Asker>,
    statements: usize,
}

/// A ledger whose levels are asked for together.
pub struct Gathered(Arc<Shared>);

struct Shared {
    inner: Arc<dyn LedgerQueries>,
    /// [`MIN_INTERVAL`], but in tests, whose clock goes by whole milliseconds.
    min_interval: Duration,
    asking: Mutex<Asking>,
}

impl Gathered {
    /// Asks this one.
    #[must_use]
    pub fn new(inner: Arc<dyn LedgerQueries>) -> Self {
        Self::paced(inner, MIN_INTERVAL)
    }

    fn paced(inner: Arc<dyn LedgerQueries>, min_interval: Duration) -> Self {
        Self(Arc::new(Shared { inner, min_interval, asking: Mutex::default() }))
    }
}

impl Shared {
    fn asking(&self) -> MutexGuard<'_, Asking> {
        // Nothing panics while it is locked.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits with the others. `None` where the statement failed: who asks alone then is told why.
    async fn ask(self: &Arc<Self>, items: &[Item]) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut asking = self.asking();
            asking.askers.push(Asker { items: items.to_vec(), answer });
            let begins = asking.statements < MAX_STATEMENTS;
            asking.statements += usize::from(begins);
            begins
        };
        if begins {
            // A task of its own: the others wait for it, whoever gives up.
            tokio::spawn(Arc::clone(self).answer_all());
        }
        answered.await.ok()
    }

    /// Asks until nobody waits.
    async fn answer_all(self: Arc<Self>) {
        while let Some(askers) = self.next_askers() {
            let begun = Instant::now();
            let mut items: Vec<Item> = askers.iter().flat_map(|asker| asker.items.iter().cloned()).collect();
            items.sort_unstable();
            items.dedup();
            match self.inner.stock_of(&items).await {
                Ok(AsOf { value, at, behind }) => {
                    let value = value.into_iter().map(|level| (level.item.clone(), level)).collect();
                    let found = Arc::new(AsOf { value, at, behind });
                    for asker in askers {
                        // Who gave up takes none.
                        let _ = asker.answer.send(Arc::clone(&found));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, askers = askers.len(), "levels were asked for together");
                    // They ask alone now.
                    drop(askers);
                }
            }
            if self.is_awaited() {
                tokio::time::sleep_until(begun + self.min_interval).await;
            }
        }
    }

    /// Whether somebody waits for the next statement.
    fn is_awaited(&self) -> bool {
        !self.asking().askers.is_empty()
    }

    /// The next who wait, as many as one statement asks for; `None` where nobody does, and then this one is over.
    fn next_askers(&self) -> Option<Vec<Asker>> {
        let mut asking = self.asking();
        if asking.askers.is_empty() {
            asking.statements -= 1;
            return None;
        }
        let mut items = 0;
        let fit = asking.askers.iter().take_while(|asker| {
            items += asker.items.len();
            items <= MAX_ITEMS
        });
        let count = fit.count().max(1);
        Some(asking.askers.drain(..count).collect())
    }
}

#[async_trait]
impl LedgerQueries for Gathered {
    async fn moment(&self) -> Result<Stamp, StoreError> {
        self.0.inner.moment().await
    }

    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        self.0.inner.stock(sku, limit).await
    }

    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let Some(found) = self.0.ask(items).await else { return self.0.inner.stock_of(items).await };
        let mut wanted: Vec<&Item> = items.iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let value = wanted.into_iter().filter_map(|item| found.value.get(item).cloned()).collect();
        Ok(AsOf { value, at: found.at, behind: found.behind })
    }

    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
        self.0.inner.orders(ids).await
    }

    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
        self.0.inner.movements(sku, location, before, limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ledger::Level;

    /// Knows each item whose SKU has an even number, after a while; answers nothing about more than it is told to.
    struct Slow {
        statements: AtomicUsize,
        fails_above: Option<usize>,
        takes: Duration,
    }

    impl Default for Slow {
        fn default() -> Self {
            Self { statements: AtomicUsize::default(), fails_above: None, takes: Duration::from_millis(5) }
        }
    }

    fn item(number: usize) -> Item {
        Sku::new(&format!("SKU-{number:05}")).unwrap().into()
    }

    #[async_trait]
    impl LedgerQueries for Slow {
        async fn moment(&self) -> Result<Stamp, StoreError> {
            unreachable!("nobody asks")
        }

        async fn stock(&self, _: &Sku, _: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            unreachable!("nobody asks")
        }

        async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
            self.statements.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            if self.fails_above.is_some_and(|most| items.len() > most) {
                return Err(StoreError::Reconnected);
            }
            let is_even =
                |item: &&Item| item.sku.as_str().as_bytes().last().is_some_and(|digit| digit % 2 == 0);
            let items: std::collections::BTreeSet<&Item> = items.iter().collect();
            let level = |item: &Item| ItemLevel { item: item.clone(), level: Level::default() };
            Ok(AsOf::new(items.into_iter().filter(is_even).map(level).collect(), Stamp(1)))
        }

        async fn orders(&self, _: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
            unreachable!("nobody asks")
        }

        async fn movements(
            &self,
            _: &Sku,
            _: Option<Option<&Location>>,
            _: Option<&MovementCursor>,
            _: usize,
        ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
            unreachable!("nobody asks")
        }
    }

    /// So many ask for two items each at once; each is told of its own.
    async fn ask(inner: &Arc<Slow>, askers: usize) {
        let gathered = Arc::new(Gathered::new(inner.clone()));
        let asking = (0..askers).map(|number| {
            let gathered = Arc::clone(&gathered);
            tokio::spawn(async move {
                let wanted = [item(2 * number + 1), item(2 * number), item(2 * number)];
                let found = gathered.stock_of(&wanted).await.unwrap();
                let found: Vec<Item> = found.value.into_iter().map(|level| level.item).collect();
                assert_eq!(found, [item(2 * number)]);
            })
        });
        for one in asking.collect::<Vec<_>>() {
            one.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_are_answered_by_a_few_statements_each_of_its_own() {
        let inner = Arc::new(Slow::default());
        ask(&inner, 500).await;
        let statements = inner.statements.load(Ordering::Relaxed);
        assert!((1..=4).contains(&statements), "{statements}");
        ask(&inner, 1).await;
        assert_eq!(inner.statements.load(Ordering::Relaxed), statements + 1, "it goes on when it was idle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_asks_for_no_more_than_its_bound() {
        let inner = Arc::new(Slow { fails_above: Some(MAX_ITEMS), ..Slow::default() });
        ask(&inner, 3 * MAX_ITEMS).await;
        assert!(inner.statements.load(Ordering::Relaxed) < 20, "none failed, so nobody asked alone");
    }

    /// One comes each millisecond, to a database that answers in five: each place would ask every five.
    #[tokio::test(start_paused = true)]
    async fn a_quick_database_is_asked_for_those_together_who_come_within_the_interval() {
        const MILLISECONDS: usize = 400;
        let inner = Arc::new(Slow::default());
        let gathered = Arc::new(Gathered::paced(inner.clone(), Duration::from_millis(20)));
        let mut asking = Vec::new();
        for number in 0..MILLISECONDS {
            let gathered = Arc::clone(&gathered);
            asking.push(tokio::spawn(async move { gathered.stock_of(&[item(number)]).await.unwrap() }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for one in asking {
            one.await.unwrap();
        }
        let statements = inner.statements.load(Ordering::Relaxed);
        let most = MAX_STATEMENTS * (MILLISECONDS / 20 + 1);
        assert!(statements <= most, "{statements}, at most {most}");
        assert!(statements >= MILLISECONDS / 20, "and it is asked all the while: {statements}");
    }

    /// One that asks again as soon as it is answered.
    #[tokio::test(start_paused = true)]
    async fn who_asks_alone_waits_for_no_interval() {
        let inner = Arc::new(Slow { takes: Duration::from_millis(1), ..Slow::default() });
        let gathered = Gathered::new(inner.clone());
        let begun = Instant::now();
        for number in 0..20 {
            gathered.stock_of(&[item(number)]).await.unwrap();
        }
        assert!(begun.elapsed() <= Duration::from_millis(20), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_statement_fails_each_asks_alone() {
        let inner = Arc::new(Slow { fails_above: Some(3), ..Slow::default() });
        ask(&inner, 10).await;
        assert!(inner.statements.load(Ordering::Relaxed) > 9);
    }
}
