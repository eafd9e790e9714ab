//! Levels as they were last committed or read.

use crate::ledger::{Item, Level, Map};

/// Most items whose levels are remembered, some 15 MB of them; the rest is read. As many as a large shop sells of within
/// minutes.
const MAX_ITEMS: usize = 100_000;

/// Levels by item: each as it was stated last, or not there; never older.
///
/// Two halves: what is stated goes to the newer one, and when that is full the older one goes, with what was not stated
/// since. So it forgets what is not used, without a list of when each was.
#[derive(Debug)]
pub(super) struct Levels {
    newer: Map<Item, Level>,
    older: Map<Item, Level>,
    /// Most of each half.
    half: usize,
}

impl Default for Levels {
    fn default() -> Self {
        Self { newer: Map::default(), older: Map::default(), half: MAX_ITEMS / 2 }
    }
}

impl Levels {
    /// The level of an item, if it is remembered.
    pub(super) fn get(&self, item: &Item) -> Option<Level> {
        self.newer.get(item).or_else(|| self.older.get(item)).copied()
    }

    /// States a level.
    pub(super) fn remember(&mut self, item: &Item, level: Level) {
        if let Some(known) = self.newer.get_mut(item) {
            *known = level;
            return;
        }
        if self.newer.len() == self.half {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(item.clone(), level);
    }

    /// States a level where it is remembered, and nothing where it is not.
    pub(super) fn update(&mut self, item: &Item, level: Level) {
        if let Some(known) = self.newer.get_mut(item).or_else(|| self.older.get_mut(item)) {
            *known = level;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{Limits, Sku};

    const HALF: usize = 8;

    fn item(number: usize) -> Item {
        Sku::new(&format!("SKU-{number}")).unwrap().into()
    }

    fn level(version: i64) -> Level {
        Level { available: version * 3, version, limits: Limits::default() }
    }

    proptest! {
        #[test]
        fn a_level_is_as_it_was_stated_last_or_is_not_there_and_what_is_used_stays(
            deeds in prop::collection::vec((any::<bool>(), 0..3 * HALF), 0..200),
        ) {
            let mut levels = Levels { half: HALF, ..Levels::default() };
            // The model: all that was ever stated, and in which order.
            let mut stated: BTreeMap<usize, Level> = BTreeMap::new();
            let mut order = Vec::new();
            for (version, (is_update, number)) in (1..).zip(deeds) {
                let was_known = levels.get(&item(number)).is_some();
                if is_update {
                    levels.update(&item(number), level(version));
                    prop_assert_eq!(levels.get(&item(number)).is_some(), was_known);
                } else {
                    levels.remember(&item(number), level(version));
                    order.push(number);
                }
                if was_known || !is_update {
                    stated.insert(number, level(version));
                }
                prop_assert!(levels.newer.len() <= HALF && levels.older.len() <= HALF);
                for number in 0..3 * HALF {
                    let found = levels.get(&item(number));
                    prop_assert!(found.is_none() || found == stated.get(&number).copied());
                }
                let mut last = BTreeSet::new();
                for number in order.iter().rev() {
                    last.insert(*number);
                    if last.len() > HALF {
                        break;
                    }
                    prop_assert!(levels.get(&item(*number)).is_some(), "{} was used lately", number);
                }
            }
        }
    }
}
