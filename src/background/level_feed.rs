//! The compacted topic of levels: soon after a level moved it is published, and the last record of an item always becomes
//! its level, whoever moved it and whatever crashed.
//!
//! There is no leader. Each instance publishes what its own batches moved, the newest version of each item once in a while.
//! Two instances may publish one item in the wrong order; so some time after its records have arrived, an instance reads
//! those levels again, and publishes once more what is newer. Whoever published last reads after it: so what is last is newest,
//! or is followed by it.
//!
//! What an instance decided and did not publish before it was killed is published by a round over all levels: each instance
//! makes one when it starts, and when it is given partitions. An operator's own commands leave a note in the ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::causes;
use crate::event::level;
use crate::kafka::sender::{Lost, Sender};
use crate::ledger::{Item, Level, Map};
use crate::store::{ItemLevel, LedgerReader, WorkQueue};

/// Most items that wait to be published; with more, all levels are published instead. Some 20 MB.
const MOST_WAITING: usize = 200_000;
/// Levels read and published at once. Ten thousand took 15 MB more and were no quicker.
const PAGE: usize = 2_000;
/// Most items of operators' commands that are taken up at once, before all that waits is published and a rest follows: of an
/// import of a million they come quicker than they are published, and each costs the database more than its record.
const MOST_TAKEN: usize = 10_000;
/// Levels of a round published at once, and the shortest rest after them: 5,000 a second at most, so that a round over a
/// large catalogue takes its time and not the orders'.
const ROUND_PAGE: usize = 500;
/// See [`ROUND_PAGE`].
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// The rest after a round that failed: what it failed by, be it the database or the clocks, may stay for long.
const ROUND_AGAIN: Duration = Duration::from_secs(1);
/// How long after an item was published last its level is read again: once that long, at most twice. Not soon, since it costs
/// as much as publishing; an item that moves again meanwhile needs it only after its next record.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Publishing levels rests this many times as long as it took, so that it takes a tenth of one processor at most.
const REST: u32 = 9;
/// The longest rest, and so the longest delay under full load.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How often levels are published when stopping at most, until none is newer than what was published. An item that still moves
/// so often is moved by another instance, which publishes it.
const LAST_ROUNDS: usize = 20;

/// How long to rest after what began then, at least `shortest`.
fn rest_after(begun: Instant, shortest: Duration) -> Duration {
    (begun.elapsed() * REST).min(LONGEST_REST).max(shortest)
}

/// What moved since it was published last.
#[derive(Debug, Default)]
struct Waiting {
    levels: Mutex<Map<Item, Level>>,
    round: AtomicBool,
}

impl Waiting {
    fn levels(&self) -> MutexGuard<'_, Map<Item, Level>> {
        // A panic between two inserts leaves some levels unmarked, and ends the process.
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, moved: impl IntoIterator<Item = (Item, Level)>) {
        let mut levels = self.levels();
        for (item, level) in moved {
            let known = levels.entry(item).or_insert(level);
            if known.version < level.version {
                *known = level;
            }
        }
        if levels.len() > MOST_WAITING {
            levels.clear();
            self.round.store(true, Ordering::SeqCst);
        }
    }
}

/// Takes the word of the other stages that levels moved.
#[derive(Debug, Clone)]
pub struct LevelChanges(Option<Arc<Waiting>>);

impl LevelChanges {
    /// Tells nobody.
    #[must_use]
    pub fn ignored() -> Self {
        Self(None)
    }

    /// These levels moved, and are this now.
    pub fn mark(&self, moved: Vec<(Item, Level)>) {
        if let Some(waiting) = &self.0 {
            waiting.mark(moved);
        }
    }

    /// How many items wait to be published.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.levels().len())
    }

    /// Any level may have moved unpublished: partitions were taken over from an instance that is gone.
    pub fn mark_all(&self) {
        if let Some(waiting) = &self.0 {
            waiting.round.store(true, Ordering::SeqCst);
        }
    }
}

/// What was published and not read again since, in two ages. An item that is republished becomes young again, so that one
/// that moves all the time is never read.
#[derive(Default)]
struct PublishedVersions {
    /// The version each item was published at last, since [`PublishedVersions::since`].
    young: Map<Item, i64>,
    /// The same of items published in the time before, and not since.
    old: Map<Item, i64>,
    /// When the first of the young was published.
    since: Option<Instant>,
}

impl PublishedVersions {
    fn note<'a>(&mut self, levels: impl IntoIterator<Item = &'a (Item, Level)>) {
        self.since.get_or_insert_with(Instant::now);
        for (item, level) in levels {
            self.old.remove(item);
            self.young.insert(item.clone(), level.version);
        }
    }

    /// The old ones, once it is time; the young become old.
    fn grow_older(&mut self) -> Map<Item, i64> {
        let full = self.young.len() > MOST_WAITING;
        if full || self.since.is_some_and(|since| since.elapsed() >= LOOK_AGAIN) {
            self.since = (!self.young.is_empty()).then(Instant::now);
            return std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        }
        Map::default()
    }

    /// All of them.
    fn take(&mut self) -> Map<Item, i64> {
        let mut all = std::mem::take(&mut self.old);
        all.extend(self.young.drain());
        self.since = None;
        all
    }

    /// Keeps what could not be read.
    fn put_back(&mut self, versions: Map<Item, i64>) {
        for (item, version) in versions {
            if !self.young.contains_key(&item) {
                self.old.entry(item).or_insert(version);
            }
        }
        self.since.get_or_insert_with(Instant::now);
    }
}

/// Publishes levels.
pub(super) struct LevelFeed {
    sender: Arc<Sender>,
    reader: Arc<dyn LedgerReader>,
    queue: Arc<dyn WorkQueue>,
    delay: Duration,
    waiting: Arc<Waiting>,
    /// What operators' commands moved may have been taken, and its answer lost.
    may_be_lost: AtomicBool,
    /// Held while publishing, so that what is noted as published last was sent last.
    published: tokio::sync::Mutex<PublishedVersions>,
}

impl LevelFeed {
    pub(super) fn new(
        sender: Arc<Sender>,
        reader: Arc<dyn LedgerReader>,
        queue: Arc<dyn WorkQueue>,
        delay: Duration,
    ) -> Self {
        let waiting = Arc::new(Waiting::default());
        // What a predecessor left unpublished.
        waiting.round.store(true, Ordering::SeqCst);
        let may_be_lost = AtomicBool::new(false);
        let published = tokio::sync::Mutex::default();
        Self { sender, reader, queue, delay, waiting, may_be_lost, published }
    }

    pub(super) fn level_changes(&self) -> LevelChanges {
        LevelChanges(Some(Arc::clone(&self.waiting)))
    }

    /// Publishes until `stop`, then the rest.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        tokio::join!(self.publish_moved(stop), self.go_rounds(stop));
        if let Err(error) = self.publish_rest().await {
            tracing::warn!(
                "levels are left unpublished, until the next start: {}",
                causes::of(error.as_ref())
            );
        }
    }

    /// Publishes what moved, once in a while.
    async fn publish_moved(&self, stop: &CancellationToken) {
        let mut failing = false;
        let mut rest = self.delay;
        while stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
            let begun = Instant::now();
            let result = self.look_and_publish().await;
            rest = rest_after(begun, self.delay);
            if let (false, Err(error)) = (failing, &result) {
                tracing::warn!(
                    "levels cannot be published now; they are published when they can: {}",
                    causes::of(error.as_ref())
                );
            }
            failing = result.is_err();
        }
    }

    async fn look_and_publish(&self) -> Result<()> {
        let due = self.published.lock().await.grow_older();
        self.look_again(due).await?;
        self.publish_waiting().await
    }

    /// Publishes the rest, until nothing is newer than it was published.
    async fn publish_rest(&self) -> Result<()> {
        for _ in 0..LAST_ROUNDS {
            self.publish_waiting().await?;
            let published = self.published.lock().await.take();
            if published.is_empty() {
                break;
            }
            self.look_again(published).await?;
        }
        Ok(())
    }

    /// Publishes what waits. What fails waits on.
    async fn publish_waiting(&self) -> Result<()> {
        self.mark_unannounced().await?;
        let waiting = std::mem::take(&mut *self.waiting.levels());
        let mut waiting: Vec<(Item, Level)> = waiting.into_iter().collect();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(PAGE));
            if let Err(error) = self.publish(&waiting, &mut *self.published.lock().await).await {
                self.waiting.mark(rest);
                return Err(error);
            }
            waiting = rest;
        }
        Ok(())
    }

    /// Publishes all levels, page by page, whenever it is asked for. What cannot be published is published by a new round.
    async fn go_rounds(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(ROUND_PAUSE)).await.is_some() {
            if self.waiting.round.swap(false, Ordering::SeqCst)
                && let Err(error) = self.go_round(stop).await
            {
                tracing::debug!("a round over the levels failed and begins anew: {error:#}");
                self.waiting.round.store(true, Ordering::SeqCst);
                let _ = stop.run_until_cancelled(tokio::time::sleep(ROUND_AGAIN)).await;
            }
        }
    }

    async fn go_round(&self, stop: &CancellationToken) -> Result<()> {
        let mut last = None;
        loop {
            let begun = Instant::now();
            // Read under the lock, so that it is not older than what was published just now.
            let mut published = self.published.lock().await;
            let page = self.reader.levels_after(last.as_ref(), ROUND_PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.item.clone());
            // What this instance published is published too: who is gone may have published an older level after it, and would have
            // looked again.
            let page: Vec<_> = page.into_iter().map(|ItemLevel { item, level }| (item, level)).collect();
            self.publish(&page, &mut published).await?;
            drop(published);
            let rest = rest_after(begun, ROUND_PAUSE);
            if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes up what operators' commands moved.
    async fn mark_unannounced(&self) -> Result<()> {
        let marked = self.take_unannounced().await;
        if marked.is_err() {
            // What was taken is noted nowhere else any more; it may be taken too where only the answer was lost.
            self.may_be_lost.store(true, Ordering::SeqCst);
        } else if self.may_be_lost.swap(false, Ordering::SeqCst) {
            // Once, and not while it fails again and again, as where the database takes no writes.
            self.waiting.round.store(true, Ordering::SeqCst);
        }
        marked
    }

    async fn take_unannounced(&self) -> Result<()> {
        let items = self.queue.take_unannounced(MOST_TAKEN).await?;
        for page in items.chunks(PAGE) {
            self.mark_levels(self.reader.levels_of(page).await?);
        }
        Ok(())
    }

    /// Publishes these levels, and waits until Kafka has them. What does not arrive waits on, and holds no other up.
    async fn publish(&self, levels: &[(Item, Level)], published: &mut PublishedVersions) -> Result<()> {
        let events = levels.iter().map(|(item, now)| (level(item, now), None)).collect();
        let lost = match self.sender.send(events).await {
            Ok(lost) => lost,
            Err(error) => {
                self.waiting.mark(levels.iter().cloned());
                return Err(error);
            }
        };
        let mut arrived = vec![true; levels.len()];
        for Lost { index, .. } in &lost {
            arrived[*index] = false;
        }
        published.note(levels.iter().zip(arrived).filter_map(|(level, arrived)| arrived.then_some(level)));
        let (for_good, for_now): (Vec<Lost>, Vec<Lost>) = lost.into_iter().partition(Lost::for_good);
        // Sent again at once, it would be refused again; its next change, or the next round, tries anew.
        if let Some(Lost { index, error }) = for_good.first() {
            tracing::warn!(
                levels = for_good.len(),
                item = %levels[*index].0,
                "Kafka refuses the records of some levels, this item's first of all: {error}"
            );
        }
        self.waiting.mark(for_now.iter().map(|lost| levels[lost.index].clone()));
        match for_now.into_iter().next() {
            None => Ok(()),
            Some(lost) if lost.is_for_clocks() => Err(lost.error).context(
                "Kafka refuses the time of levels: this host's clock and the brokers' are further apart than the topic \
                 allows (message.timestamp.after.max.ms). Set the clocks right",
            ),
            Some(Lost { error, .. }) => Err(error).context("not all levels arrived"),
        }
    }

    /// Marks what has become newer than it was published.
    async fn look_again(&self, published: Map<Item, i64>) -> Result<()> {
        let items: Vec<Item> = published.keys().cloned().collect();
        for page in items.chunks(PAGE) {
            match self.reader.levels_of(page).await {
                Ok(mut now) => {
                    now.retain(|now| published.get(&now.item) != Some(&now.level.version));
                    self.mark_levels(now);
                }
                Err(error) => {
                    self.published.lock().await.put_back(published);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn mark_levels(&self, levels: Vec<ItemLevel>) {
        self.waiting.mark(levels.into_iter().map(|ItemLevel { item, level }| (item, level)));
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::config::{KafkaArgs, TopicArgs};
    use crate::kafka::in_process::MockBroker;
    use crate::ledger::{Sku, Stamp};
    use crate::store::memory::MemoryStore;
    use crate::store::{DueHold, OverdueHolds, StoreError};

    /// A queue in which an import notes items as quickly as they are taken.
    struct Endless;

    #[async_trait]
    impl WorkQueue for Endless {
        async fn take_due_holds(&self, _: usize, _: Duration) -> Result<Vec<DueHold>, StoreError> {
            Ok(Vec::new())
        }

        async fn overdue_holds(&self, _: Duration) -> Result<Option<OverdueHolds>, StoreError> {
            Ok(None)
        }

        async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
            // So that who waits for its end can give it up.
            tokio::task::yield_now().await;
            let item = |number| Item::from(Sku::new(&format!("SKU-{number}")).unwrap());
            Ok((0..limit).map(item).collect())
        }
    }

    /// A ledger that does what it is asked, and whose answers are lost at first.
    struct Unanswered(AtomicBool);

    #[async_trait]
    impl WorkQueue for Unanswered {
        async fn take_due_holds(&self, _: usize, _: Duration) -> Result<Vec<DueHold>, StoreError> {
            Ok(Vec::new())
        }

        async fn overdue_holds(&self, _: Duration) -> Result<Option<OverdueHolds>, StoreError> {
            Ok(None)
        }

        async fn take_unannounced(&self, _: usize) -> Result<Vec<Item>, StoreError> {
            if !self.0.load(Ordering::SeqCst) {
                return Ok(Vec::new());
            }
            let source = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
            Err(StoreError::Database { doing: "taking levels to publish", source, retry: true })
        }
    }

    fn feed(broker: &MockBroker, queue: Arc<dyn WorkQueue>) -> LevelFeed {
        let kafka = KafkaArgs {
            brokers: broker.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let name = |name: &str| name.to_owned();
        let topics = TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        };
        let sender = Arc::new(Sender::new(&kafka, &topics).unwrap());
        let reader = Arc::new(MemoryStore::new(|| Stamp(0)));
        let feed = LevelFeed::new(sender, reader, queue, Duration::ZERO);
        // The round that every start begins with is done.
        feed.waiting.round.store(false, Ordering::SeqCst);
        feed
    }

    #[tokio::test]
    async fn an_import_that_goes_on_is_taken_up_in_parts() {
        let broker = MockBroker::start().unwrap();
        let feed = feed(&broker, Arc::new(Endless));
        let taken = tokio::time::timeout(Duration::from_secs(60), feed.mark_unannounced()).await;
        taken.expect("it comes to an end").unwrap();
    }

    #[tokio::test]
    async fn all_levels_are_published_where_what_operators_moved_may_be_taken_and_lost() {
        let broker = MockBroker::start().unwrap();
        let queue = Arc::new(Unanswered(AtomicBool::new(true)));
        let feed = feed(&broker, queue.clone());
        let is_due = || feed.waiting.round.swap(false, Ordering::SeqCst);
        for _ in 0..2 {
            feed.mark_unannounced().await.unwrap_err();
            assert!(!is_due(), "it would be due again with each try");
        }
        queue.0.store(false, Ordering::SeqCst);
        feed.mark_unannounced().await.unwrap();
        assert!(is_due(), "a round over all levels");
        feed.mark_unannounced().await.unwrap();
        assert!(!is_due(), "one is enough");
    }
}
