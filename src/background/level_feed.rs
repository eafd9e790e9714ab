//! The compacted topic of levels: soon after a level moved it is told, and the last record of an item always becomes
//! its level, whoever moved it and whatever crashed.
//!
//! There is no leader. Each instance tells what its own batches moved, the newest version of each item once in a while.
//! Two instances may tell one item in the wrong order; so some time after its records have arrived, an instance reads
//! those levels again, and tells once more what is newer. Whoever told last reads after it: so what is last is newest,
//! or is followed by it.
//!
//! What an instance decided and did not tell before it was killed is told by a round over all levels: each instance
//! makes one when it starts, and when it is given partitions. An operator's own commands leave a note in the ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::{Lost, Sender};
use crate::event::level;
use crate::ledger::{Item, Level, Map};
use crate::store::{ItemLevel, Store};

/// Most items that wait to be told; with more, all levels are told instead. Some 20 MB.
const MOST_WAITING: usize = 200_000;
/// Levels read and told at once. Ten thousand took 15 MB more and were no quicker.
const PAGE: usize = 2_000;
/// Levels of a round told at once, and the shortest rest after them: 5,000 a second at most, so that a round over a
/// large catalogue takes its time and not the orders'.
const ROUND_PAGE: usize = 500;
/// See [`ROUND_PAGE`].
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How long after an item was told last its level is read again: once that long, at most twice. Not soon, since it costs
/// as much as telling; an item that moves again meanwhile needs it only after its next record.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Publishing levels rests this many times as long as it took, so that it takes a tenth of one processor at most.
const REST: u32 = 9;
/// The longest rest, and so the longest delay under full load.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How often levels are told when stopping at most, until none is newer than what was told. An item that still moves
/// so often is moved by another instance, which tells it.
const LAST_TELLINGS: usize = 20;

/// How long to rest after what began then, at least `shortest`.
fn rest_after(begun: Instant, shortest: Duration) -> Duration {
    (begun.elapsed() * REST).min(LONGEST_REST).max(shortest)
}

/// What moved since it was told last.
#[derive(Default)]
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
#[derive(Clone)]
pub struct LevelChanges(Option<Arc<Waiting>>);

impl LevelChanges {
    /// Tells nobody.
    #[must_use]
    pub(super) fn ignored() -> Self {
        Self(None)
    }

    /// These levels moved, and are this now.
    pub fn mark(&self, moved: Vec<(Item, Level)>) {
        if let Some(waiting) = &self.0 {
            waiting.mark(moved);
        }
    }

    /// Any level may have moved untold: partitions were taken over from an instance that is gone.
    pub fn mark_all(&self) {
        if let Some(waiting) = &self.0 {
            waiting.round.store(true, Ordering::SeqCst);
        }
    }
}

/// What was told and not read again since, in two ages. An item that is told again becomes young again, so that one
/// that moves all the time is never read.
#[derive(Default)]
struct Told {
    /// The version each item was told at last, since [`Told::since`].
    young: Map<Item, i64>,
    /// The same of items told in the time before, and not since.
    old: Map<Item, i64>,
    /// When the first of the young was told.
    since: Option<Instant>,
}

impl Told {
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

/// Tells levels.
pub(super) struct LevelFeed {
    sender: Arc<Sender>,
    store: Arc<dyn Store>,
    delay: Duration,
    waiting: Arc<Waiting>,
    /// Held while telling, so that what is noted as told last was sent last.
    told: tokio::sync::Mutex<Told>,
}

impl LevelFeed {
    pub(super) fn new(sender: Arc<Sender>, store: Arc<dyn Store>, delay: Duration) -> Self {
        let waiting = Arc::new(Waiting::default());
        // What a predecessor left untold.
        waiting.round.store(true, Ordering::SeqCst);
        Self { sender, store, delay, waiting, told: tokio::sync::Mutex::default() }
    }

    pub(super) fn level_changes(&self) -> LevelChanges {
        LevelChanges(Some(Arc::clone(&self.waiting)))
    }

    /// Tells until `stop`, then the rest.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        tokio::join!(self.tell_moved(stop), self.go_rounds(stop));
        if let Err(error) = self.tell_rest().await {
            tracing::warn!("levels are left untold, until the next start: {error:#}");
        }
    }

    /// Tells what moved, once in a while.
    async fn tell_moved(&self, stop: &CancellationToken) {
        let mut failing = false;
        let mut rest = self.delay;
        while stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
            let begun = Instant::now();
            let result = self.look_and_tell().await;
            rest = rest_after(begun, self.delay);
            if let (false, Err(error)) = (failing, &result) {
                tracing::warn!("levels cannot be told now; they are told when they can: {error:#}");
            }
            failing = result.is_err();
        }
    }

    async fn look_and_tell(&self) -> Result<()> {
        let due = self.told.lock().await.grow_older();
        self.look_again(due).await?;
        self.tell_waiting().await
    }

    /// Tells the rest, until nothing is newer than it was told.
    async fn tell_rest(&self) -> Result<()> {
        for _ in 0..LAST_TELLINGS {
            self.tell_waiting().await?;
            let told = self.told.lock().await.take();
            if told.is_empty() {
                break;
            }
            self.look_again(told).await?;
        }
        Ok(())
    }

    /// Tells what waits. What fails waits on.
    async fn tell_waiting(&self) -> Result<()> {
        self.mark_unannounced().await?;
        let waiting = std::mem::take(&mut *self.waiting.levels());
        let mut waiting: Vec<(Item, Level)> = waiting.into_iter().collect();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(PAGE));
            if let Err(error) = self.tell(&waiting, &mut *self.told.lock().await).await {
                self.waiting.mark(rest);
                return Err(error);
            }
            waiting = rest;
        }
        Ok(())
    }

    /// Tells all levels, page by page, whenever it is asked for. What cannot be told is told by a new round.
    async fn go_rounds(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(ROUND_PAUSE)).await.is_some() {
            if self.waiting.round.swap(false, Ordering::SeqCst)
                && let Err(error) = self.go_round(stop).await
            {
                tracing::debug!("a round over the levels failed and begins anew: {error:#}");
                self.waiting.round.store(true, Ordering::SeqCst);
            }
        }
    }

    async fn go_round(&self, stop: &CancellationToken) -> Result<()> {
        let mut last = None;
        loop {
            let begun = Instant::now();
            // Read under the lock, so that it is not older than what was told just now.
            let mut told = self.told.lock().await;
            let page = self.store.levels_after(last.as_ref(), ROUND_PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.item.clone());
            // What this instance told is told too: who is gone may have told an older level after it, and would have
            // looked again.
            let page: Vec<_> = page.into_iter().map(|ItemLevel { item, level }| (item, level)).collect();
            self.tell(&page, &mut told).await?;
            drop(told);
            let rest = rest_after(begun, ROUND_PAUSE);
            if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes up what operators' commands moved.
    async fn mark_unannounced(&self) -> Result<()> {
        loop {
            let items = self.store.take_unannounced(PAGE).await?;
            if items.is_empty() {
                return Ok(());
            }
            match self.store.levels_of(&items).await {
                Ok(levels) => self.mark_levels(levels),
                Err(error) => {
                    // They are noted nowhere else any more.
                    self.waiting.round.store(true, Ordering::SeqCst);
                    return Err(error.into());
                }
            }
        }
    }

    /// Tells these levels, and waits until Kafka has them. What does not arrive waits on, and holds no other up.
    async fn tell(&self, levels: &[(Item, Level)], told: &mut Told) -> Result<()> {
        let events = levels.iter().map(|(item, now)| (level(item, now), None)).collect();
        let lost = match self.sender.send(events).await {
            Ok(lost) => lost,
            Err(error) => {
                self.waiting.mark(levels.iter().cloned());
                return Err(error);
            }
        };
        let mut arrived = vec![true; levels.len()];
        for Lost { place, .. } in &lost {
            arrived[*place] = false;
        }
        told.note(levels.iter().zip(arrived).filter_map(|(level, arrived)| arrived.then_some(level)));
        let (for_good, for_now): (Vec<Lost>, Vec<Lost>) = lost.into_iter().partition(Lost::for_good);
        // Sent again at once, it would be refused again; its next change, or the next round, tries anew.
        if let Some(Lost { place, error }) = for_good.first() {
            tracing::warn!(
                levels = for_good.len(),
                "Kafka refuses the records of some levels, the first of SKU {}: {error}",
                levels[*place].0
            );
        }
        self.waiting.mark(for_now.iter().map(|lost| levels[lost.place].clone()));
        match for_now.into_iter().next() {
            None => Ok(()),
            Some(Lost { error, .. }) => Err(error).context("not all levels arrived"),
        }
    }

    /// Marks what has become newer than it was told.
    async fn look_again(&self, told: Map<Item, i64>) -> Result<()> {
        let items: Vec<Item> = told.keys().cloned().collect();
        for page in items.chunks(PAGE) {
            match self.store.levels_of(page).await {
                Ok(mut now) => {
                    now.retain(|now| told.get(&now.item) != Some(&now.level.version));
                    self.mark_levels(now);
                }
                Err(error) => {
                    self.told.lock().await.put_back(told);
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
