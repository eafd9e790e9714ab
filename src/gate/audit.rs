//! Whether the cache is what the ledger says, at rest: each difference by name, and how it is put right.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;

use super::cache::{LevelRead, RedisCache};
use crate::ledger::{Item, Level, Map};
use crate::store::{ItemLevel, LedgerReader};

/// Items compared at once.
const PAGE: usize = 500;

/// Something in the cache that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The cache was not filled from the ledger.
    NotFilled,
    /// The ledger has an item that the cache does not know.
    Missing(Item),
    /// The cache has an item that the ledger does not know.
    Unknown(Item),
    /// The stored level is not the ledger's.
    Level {
        /// Which item.
        item: Item,
        /// In the cache.
        cached: Level,
        /// In the ledger.
        ledger: Level,
    },
    /// What is subtracted is not what entries take.
    Pieces {
        /// Which item.
        item: Item,
        /// Pieces that are subtracted.
        subtracted: i64,
        /// Pieces of open entries.
        of_entries: i64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFilled => f.write_str("the cache was not filled from the ledger yet: a gate does it"),
            Self::Missing(item) => write!(f, "{}: the cache does not know it", named(item)),
            Self::Unknown(item) => write!(f, "{}: the ledger does not know it", named(item)),
            Self::Level { item, cached, ledger } => write!(
                f,
                "{}: the cache has {} (version {}), the ledger {} (version {})",
                named(item),
                cached.available,
                cached.version,
                ledger.available,
                ledger.version
            ),
            Self::Pieces { item, subtracted, of_entries } => {
                write!(f, "{}: {subtracted} pieces are subtracted, entries have {of_entries}", named(item))
            }
        }
    }
}

fn named(item: &Item) -> String {
    item.location.as_ref().map_or_else(|| item.sku.to_string(), |at| format!("{} at {at}", item.sku))
}

/// Compares all of the cache with the ledger. While orders are decided, levels that are on their way differ.
///
/// # Errors
/// When Redis or the database does not answer.
pub async fn compare(cache: &RedisCache, ledger: &dyn LedgerReader) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    if !cache.status().await?.filled {
        found.push(Difference::NotFilled);
    }
    let mut unseen: BTreeSet<Item> = cache.items().await?;
    let mut after = None;
    loop {
        let page = ledger.levels_after(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.item.clone());
        let items: Vec<Item> = page.iter().map(|level| level.item.clone()).collect();
        for (ItemLevel { item, level }, (cached, _)) in page.into_iter().zip(cache.amounts(&items).await?) {
            unseen.remove(&item);
            match cached {
                None => found.push(Difference::Missing(item)),
                Some(cached) if cached != level => {
                    found.push(Difference::Level { item, cached, ledger: level });
                }
                Some(_) => {}
            }
        }
        found.extend(pieces(cache.recount(&items, false).await?));
    }
    let unseen: Vec<Item> = unseen.into_iter().collect();
    for page in unseen.chunks(PAGE) {
        for (item, (level, _)) in page.iter().zip(cache.amounts(page).await?) {
            // One without a level waits for the end of an order for what nobody knows.
            found.extend(level.map(|_| Difference::Unknown(item.clone())));
        }
        found.extend(pieces(cache.recount(page, false).await?));
    }
    Ok(found)
}

fn pieces(found: Vec<(Item, i64, i64)>) -> impl Iterator<Item = Difference> {
    found.into_iter().map(|(item, subtracted, of_entries)| Difference::Pieces {
        item,
        subtracted,
        of_entries,
    })
}

/// Puts differences right: levels by the ledger, pieces by the entries.
///
/// # Errors
/// When Redis or the database does not answer.
pub async fn repair(cache: &RedisCache, ledger: &dyn LedgerReader, found: &[Difference]) -> Result<()> {
    let (mut levels, mut recounted) = (Vec::new(), Vec::new());
    for difference in found {
        match difference {
            Difference::NotFilled => {}
            Difference::Missing(item) | Difference::Unknown(item) | Difference::Level { item, .. } => {
                levels.push(item.clone());
            }
            Difference::Pieces { item, .. } => recounted.push(item.clone()),
        }
    }
    for page in levels.chunks(PAGE) {
        cache.forget_levels(page).await?;
        let read: Map<Item, Level> = ledger
            .levels_of(page)
            .await?
            .into_iter()
            .map(|ItemLevel { item, level }| (item, level))
            .collect();
        let read: Vec<LevelRead> = read
            .into_iter()
            .map(|(item, level)| LevelRead { item, level: Some(level), closes: BTreeSet::new() })
            .collect();
        cache.store_levels(&read).await?;
    }
    for page in recounted.chunks(PAGE) {
        cache.recount(page, true).await?;
    }
    Ok(())
}
