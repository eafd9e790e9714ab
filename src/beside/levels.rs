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

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::Sender;
use crate::event::level;
use crate::ledger::{Item, Level, Map};
use crate::store::{ItemLevel, Store};

/// Most items that wait to be told; with more, all levels are told instead. Some 20 MB.
const MOST_WAITING: usize = 200_000;
/// Levels read and told at once.
const PAGE: usize = 10_000;
/// Levels of a round told at once, and the pause after them: 5,000 a second, so that a round over a large catalogue
/// takes its time and not the orders'.
const ROUND_PAGE: usize = 500;
/// See [`ROUND_PAGE`].
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How long after levels were told they are read again, at most. Seldom, since it costs as much as telling: of an item
/// that moves all the time one look is enough, and its next record is newer anyway.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Telling levels rests this many times as long as it took, so that it takes a tenth of one processor at most.
const REST: u32 = 9;
/// The longest rest, and so the longest delay under full load.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How often levels are told when stopping at most, until none is newer than what was told. An item that still moves
/// so often is moved by another instance, which tells it.
const LAST_TELLINGS: usize = 20;

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
pub struct Moved(Option<Arc<Waiting>>);

impl Moved {
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

/// What was told and not read again since.
#[derive(Default)]
struct Told {
    /// The version each item was told at last.
    versions: Map<Item, i64>,
    /// When the first of them was.
    since: Option<Instant>,
}

impl Told {
    fn are_due(&self) -> bool {
        !self.versions.is_empty()
            && (self.since.is_none_or(|since| since.elapsed() >= LOOK_AGAIN)
                || self.versions.len() > MOST_WAITING)
    }
}

/// Tells levels.
pub(super) struct Announcer {
    sender: Arc<Sender>,
    store: Arc<dyn Store>,
    delay: Duration,
    waiting: Arc<Waiting>,
}

impl Announcer {
    pub(super) fn new(sender: Arc<Sender>, store: Arc<dyn Store>, delay: Duration) -> Self {
        let waiting = Arc::new(Waiting::default());
        // What a predecessor left untold.
        waiting.round.store(true, Ordering::SeqCst);
        Self { sender, store, delay, waiting }
    }

    pub(super) fn moved(&self) -> Moved {
        Moved(Some(Arc::clone(&self.waiting)))
    }

    /// Tells until `stop`, then the rest.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let (told, ()) = tokio::join!(self.tell_moved(stop), self.go_rounds(stop));
        // Only when no round is under way any more, whose records may be older.
        self.tell_rest(told).await;
    }

    /// Tells what moved, once in a while. What is left to be read again.
    async fn tell_moved(&self, stop: &CancellationToken) -> Told {
        let mut failing = false;
        let mut told = Told::default();
        let mut rest = self.delay;
        while stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
            let begun = Instant::now();
            let result = self.tell_waiting(&mut told).await;
            rest = (begun.elapsed() * REST).min(LONGEST_REST).max(self.delay);
            if let (false, Err(error)) = (failing, &result) {
                tracing::warn!("levels cannot be told now; they are told when they can: {error:#}");
            }
            failing = result.is_err();
        }
        told
    }

    /// Tells the rest, until nothing is newer than it was told.
    async fn tell_rest(&self, mut told: Told) {
        for _ in 0..LAST_TELLINGS {
            // Now, however short ago they were told.
            told.since = None;
            if let Err(error) = self.tell_waiting(&mut told).await {
                tracing::warn!("levels are left untold, until the next start: {error:#}");
                return;
            }
            if told.versions.is_empty() {
                return;
            }
        }
    }

    /// Tells what waits. What fails waits on.
    async fn tell_waiting(&self, told: &mut Told) -> Result<()> {
        self.mark_unannounced().await?;
        if told.are_due() {
            // Until they are read again they are not forgotten.
            self.look_again(&told.versions).await?;
            *told = Told::default();
        }
        let waiting = std::mem::take(&mut *self.waiting.levels());
        let mut waiting: Vec<(Item, Level)> = waiting.into_iter().collect();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(PAGE));
            if let Err(error) = self.tell(&waiting).await {
                self.waiting.mark(waiting.into_iter().chain(rest));
                return Err(error);
            }
            told.since.get_or_insert_with(Instant::now);
            told.versions.extend(waiting.into_iter().map(|(item, level)| (item, level.version)));
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
            let page = self.store.levels_after(last.as_ref(), ROUND_PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.item.clone());
            let page: Vec<_> = page.into_iter().map(|ItemLevel { item, level }| (item, level)).collect();
            self.tell(&page).await?;
            self.look_again(&page.into_iter().map(|(item, level)| (item, level.version)).collect()).await?;
            if stop.run_until_cancelled(tokio::time::sleep(ROUND_PAUSE)).await.is_none() {
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

    /// Tells these levels, and waits until Kafka has them.
    async fn tell(&self, levels: &[(Item, Level)]) -> Result<()> {
        let events = levels.iter().map(|(item, now)| (level(item, now), None)).collect();
        self.sender.send(events).await
    }

    /// Marks what has become newer than it was told.
    async fn look_again(&self, told: &Map<Item, i64>) -> Result<()> {
        let items: Vec<Item> = told.keys().cloned().collect();
        for page in items.chunks(PAGE) {
            let mut now = self.store.levels_of(page).await?;
            now.retain(|now| told.get(&now.item) != Some(&now.level.version));
            self.mark_levels(now);
        }
        Ok(())
    }

    fn mark_levels(&self, levels: Vec<ItemLevel>) {
        self.waiting.mark(levels.into_iter().map(|ItemLevel { item, level }| (item, level)));
    }
}
