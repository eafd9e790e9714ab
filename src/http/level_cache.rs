//! Levels that are kept in memory: prechecks of a sale ask for the same few again and again.
//!
//! How much there is of an item follows the levels topic. That does not say what bounds orders, so an item's level is also
//! read from the ledger, once in a while ([`READ_COUNTS`]); the newer of both counts. What is not here, or too old, the
//! ledger is asked for: an unknown SKU, say. The topic's last word on an item becomes its level, whatever crashed or was
//! restored; until then it can be wrong for seconds, and a cart that was found acceptable be rejected, or the other way
//! round. It is an estimate in any case: the order is decided on the ledger.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::event::PublishedLevel;
use crate::ledger::{Item, Level, Map, Stamp};
use crate::store::{AsOf, ItemLevel};

/// Most items kept, some 200 bytes each with their names. The ledger is asked for those beyond.
const MAX_ITEMS: usize = 200_000;
/// How long what was read of an item from the ledger counts: its limits change by an operator's word, not by orders.
const READ_COUNTS: Duration = Duration::from_secs(30);

/// What is known of an item.
#[derive(Debug, Clone, Copy)]
struct Known {
    published: PublishedLevel,
    /// Its level in the ledger, and when that was read.
    read: Option<(Level, Instant)>,
}

impl Known {
    /// Its level, as new as is known; `None` where it was not read for too long.
    fn level(&self, now: Instant) -> Option<Level> {
        let (read, _) = self.read.filter(|(_, at)| now.saturating_duration_since(*at) <= READ_COUNTS)?;
        let PublishedLevel { available, version } = self.published;
        let is_newer = version > read.version;
        Some(if is_newer { Level { available, version, limits: read.limits } } else { read })
    }
}

#[derive(Debug, Default)]
struct Inner {
    items: Map<Item, Known>,
    /// Until when the topic was followed: by the machine's clock, and by the process's.
    followed: Option<(Stamp, Instant)>,
}

/// The levels that a follower of the levels topic knows.
#[derive(Debug)]
pub struct LevelCache {
    inner: RwLock<Inner>,
    max_age: Duration,
    /// Questions that were answered here.
    answered: AtomicU64,
    /// Questions that the ledger was asked.
    passed_on: AtomicU64,
}

impl LevelCache {
    /// An empty one, which answers nothing yet, nor whenever what it knows is older than this.
    #[must_use]
    pub fn new(max_age: Duration) -> Self {
        Self { inner: RwLock::default(), max_age, answered: AtomicU64::new(0), passed_on: AtomicU64::new(0) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic between two changes leaves an estimate wrong, nothing worse.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic says this of an item. What it says last counts.
    pub fn published(&self, item: Item, level: PublishedLevel) {
        let mut inner = self.write();
        let is_full = inner.items.len() >= MAX_ITEMS;
        match inner.items.entry(item) {
            Entry::Occupied(mut known) => known.get_mut().published = level,
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(place) => {
                place.insert(Known { published: level, read: None });
            }
        }
    }

    /// All that stood in the topic at this moment was told: by the machine's clock, and by the process's.
    pub fn followed_until(&self, at: Stamp, looked: Instant) {
        self.write().followed = Some((at, looked));
    }

    /// These were read from the ledger just now.
    pub(super) fn read_from_ledger(&self, levels: &[ItemLevel]) {
        let now = Instant::now();
        let mut inner = self.write();
        for ItemLevel { item, level } in levels {
            if let Some(known) = inner.items.get_mut(item) {
                known.read = Some((*level, now));
            }
        }
    }

    /// How many questions were answered here, and how many the ledger was asked.
    #[must_use]
    pub fn answered(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.passed_on.load(Ordering::Relaxed))
    }

    /// The levels of these items, where all are known and new enough.
    pub(super) fn levels_of(&self, items: &[Item]) -> Option<AsOf<Vec<ItemLevel>>> {
        let found = self.find(items);
        let count = if found.is_some() { &self.answered } else { &self.passed_on };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn find(&self, items: &[Item]) -> Option<AsOf<Vec<ItemLevel>>> {
        let inner = self.read();
        let (at, known_at) = inner.followed.filter(|(_, at)| at.elapsed() <= self.max_age)?;
        let now = Instant::now();
        let level = |item: &Item| {
            let level = inner.items.get(item)?.level(now)?;
            Some(ItemLevel { item: item.clone(), level })
        };
        let levels = items.iter().map(level).collect::<Option<Vec<_>>>()?;
        Some(AsOf { value: levels, at, behind: known_at.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Limits, Sku};

    const LONG: Duration = Duration::from_secs(3_600);

    fn item(name: &str) -> Item {
        Sku::new(name).unwrap().into()
    }

    fn read(name: &str, available: i64, limits: Limits) -> ItemLevel {
        ItemLevel { item: item(name), level: Level { available, version: 1, limits } }
    }

    fn published(available: i64, version: i64) -> PublishedLevel {
        PublishedLevel { available, version }
    }

    #[test]
    fn it_answers_with_what_was_published_last_and_with_limits_that_were_read() {
        let cache = LevelCache::new(LONG);
        cache.published(item("MUG"), published(7, 1));
        assert_eq!(cache.levels_of(&[item("MUG")]), None, "the topic is not read to its end yet");
        cache.followed_until(Stamp(1), Instant::now());
        assert_eq!(cache.levels_of(&[item("MUG")]), None, "its limits are not known");
        let limits = Limits { backorder: 3, order: Some(2) };
        cache.read_from_ledger(&[read("MUG", 7, limits), read("CUP", 1, limits)]);
        cache.published(item("MUG"), published(5, 2));
        let level = ItemLevel { item: item("MUG"), level: Level { available: 5, version: 2, limits } };
        let found = cache.levels_of(&[item("MUG")]).unwrap();
        assert_eq!((found.value, found.at), (vec![level], Stamp(1)));
        assert_eq!(cache.answered(), (1, 2));
        assert_eq!(cache.levels_of(&[item("MUG"), item("CUP")]), None, "one was never published");
        // Another instance published late.
        cache.published(item("MUG"), published(9, 0));
        assert_eq!(
            cache.levels_of(&[item("MUG")]).unwrap().value[0].level.available,
            7,
            "what was read is newer"
        );
    }

    #[test]
    fn it_answers_nothing_when_the_topic_is_not_followed_any_more() {
        let cache = LevelCache::new(Duration::ZERO);
        cache.published(item("MUG"), published(7, 1));
        cache.followed_until(Stamp(1), Instant::now());
        cache.read_from_ledger(&[read("MUG", 7, Limits::default())]);
        assert_eq!(cache.levels_of(&[item("MUG")]), None);
    }
}
