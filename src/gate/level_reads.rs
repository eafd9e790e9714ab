//! Reading levels of the ledger for the cache. Which orders a level closes is asked before its read begins; so many reads
//! may be under way, of several gates, and come in any order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::cache::{LevelRead, RedisCache};
use crate::ledger::{Id, Item, Level, Map};
use crate::store::{ItemLevel, LedgerReader};

/// Time between two reads: what changes in between is one read for each item.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Items of one read.
const READ_ITEMS: usize = 500;
/// Of them at most so many that accepted orders wait for and nobody else wants.
const READ_WAITING: usize = 250;
/// Orders of one item that one read closes: a script holds up all others while it runs.
const READ_ORDERS: usize = 1_000;
/// Orders that one call closes, about.
const STORE_ORDERS: usize = 2_000;
/// Items that are wanted at most: past it the round over all levels has to do.
const WANTED_MAX: usize = 200_000;
/// Levels of a page of the round over all levels.
const PAGE: usize = 500;
/// Time between two pages of that round.
const PAGE_EVERY: Duration = Duration::from_millis(500);
/// The pause after Redis or the database did not answer.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// Items whose levels are to be read soon.
#[derive(Default)]
pub(super) struct WantedLevels(Mutex<BTreeSet<Item>>);

impl WantedLevels {
    pub(super) fn add(&self, items: impl IntoIterator<Item = Item>) {
        // Nothing can panic while it is locked.
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for item in items {
            if wanted.len() < WANTED_MAX {
                wanted.insert(item);
            }
        }
    }

    fn take(&self) -> Vec<Item> {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        while taken.len() < READ_ITEMS - READ_WAITING
            && let Some(item) = wanted.pop_first()
        {
            taken.push(item);
        }
        taken
    }
}

/// Reads what is wanted or waited for, until stopped.
pub(super) async fn run(
    cache: RedisCache,
    ledger: Arc<dyn LedgerReader>,
    wanted: Arc<WantedLevels>,
    stop: CancellationToken,
) {
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let items = wanted.take();
        if let Err(error) = read(&cache, &*ledger, &items).await {
            tracing::debug!("levels were not read: {error:#}");
            wanted.add(items);
            sleep(AWAY_PAUSE).await;
        }
    }
}

async fn read(cache: &RedisCache, ledger: &dyn LedgerReader, items: &[Item]) -> Result<()> {
    let begun = cache.begin_read(items, READ_WAITING, READ_ORDERS).await?;
    if begun.is_empty() {
        return Ok(());
    }
    let items: Vec<Item> = begun.iter().map(|(item, _)| item.clone()).collect();
    let levels: Map<Item, Level> =
        ledger.levels_of(&items).await?.into_iter().map(|ItemLevel { item, level }| (item, level)).collect();
    let read = begun.into_iter().map(|(item, closes)| {
        let level = levels.get(&item).copied();
        LevelRead { item, level, closes }
    });
    // Of an item that the ledger does not know an accepted order had nothing (a partial one, say): its line waits for nothing.
    store(cache, read.filter(|read| read.level.is_some() || !read.closes.is_empty())).await
}

async fn store(cache: &RedisCache, levels: impl IntoIterator<Item = LevelRead>) -> Result<()> {
    let (mut some, mut orders) = (Vec::new(), 0);
    for level in levels {
        orders += level.closes.len() + 1;
        some.push(level);
        if orders >= STORE_ORDERS {
            cache.store_levels(&some).await?;
            (some, orders) = (Vec::new(), 0);
        }
    }
    if !some.is_empty() {
        cache.store_levels(&some).await?;
    }
    Ok(())
}

/// Stores the next page of all levels after an item; the last item of it, `None` at the end of all.
pub(super) async fn store_page(
    cache: &RedisCache,
    ledger: &dyn LedgerReader,
    after: Option<&Item>,
) -> Result<Option<Item>> {
    let page = ledger.levels_after(after, PAGE).await?;
    let last = page.last().map(|level| level.item.clone());
    let none = BTreeSet::<Id>::new();
    let levels = page.into_iter().map(|ItemLevel { item, level }| LevelRead {
        item,
        level: Some(level),
        closes: none.clone(),
    });
    store(cache, levels).await?;
    Ok(last)
}

/// Goes over all levels, a page at a time, again and again, until stopped: what no event told of is found here, and how far
/// the cache has drifted.
pub(super) async fn go_round(
    cache: RedisCache,
    ledger: Arc<dyn LedgerReader>,
    observer: Arc<dyn Observer>,
    stop: CancellationToken,
) {
    let (mut after, mut drift) = (None, Some(0));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PAGE_EVERY) => {}
        }
        let page = drift_of_page(&cache, &*ledger, after.as_ref()).await;
        if let Err(error) = &page {
            tracing::debug!("a page of levels was not compared: {error:#}");
        }
        drift = page.as_ref().ok().copied().flatten().zip(drift).map(|(page, so_far)| page + so_far);
        match store_page(&cache, &*ledger, after.as_ref()).await {
            Ok(Some(last)) => after = Some(last),
            Ok(None) => {
                // Entries that are open explain a difference, so nothing is said while there are any.
                if let Some(pieces) = drift {
                    observer.drift(pieces);
                }
                (after, drift) = (None, Some(0));
            }
            Err(error) => {
                tracing::debug!("a page of levels was not stored: {error:#}");
                sleep(AWAY_PAUSE).await;
            }
        }
    }
}

/// By how many pieces cached amounts of a page differ from the ledger where nothing is on its way; `None` while entries are
/// open.
async fn drift_of_page(
    cache: &RedisCache,
    ledger: &dyn LedgerReader,
    after: Option<&Item>,
) -> Result<Option<u64>> {
    let is_at_rest = async || {
        let status = cache.status().await?;
        anyhow::Ok(status.filled && status.unsettled + status.accepted == 0)
    };
    if !is_at_rest().await? {
        return Ok(None);
    }
    let page = ledger.levels_after(after, PAGE).await?;
    let items: Vec<Item> = page.iter().map(|level| level.item.clone()).collect();
    let cached = cache.amounts(&items).await?;
    let drifts = page.iter().zip(cached).map(|(ItemLevel { level, .. }, (stored, pending))| {
        // Of another version, the level is on its way.
        let same = stored.filter(|stored| stored.version == level.version);
        same.map_or(0, |stored| (stored.available - pending).abs_diff(level.available))
    });
    // Also after it was read: an entry may have been made meanwhile.
    Ok(if is_at_rest().await? { Some(drifts.sum()) } else { None })
}
