//! Which items are asked for most, in bounded memory: the Space-Saving algorithm (Metwally, Agrawal and El Abbadi, 2005),
//! whose counters fade with time. No crate of it is kept up, and those there are do not fade.

use std::time::{Duration, Instant};

use super::HotItem;
use crate::ledger::{Item, Map};

/// Items that are counted at once. What is asked for more often than one in so many is among them; a page shows few.
const COUNTERS: usize = 256;
/// After so long, what was asked for counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);

struct Counter {
    item: Item,
    /// Pieces, faded. Too high by what the item had that this one took over from.
    pieces: f64,
}

/// The counters.
pub(super) struct HotItems {
    counters: Vec<Counter>,
    indexes: Map<Item, usize>,
    since: Instant,
    faded: Instant,
}

impl HotItems {
    /// Nothing was asked for yet, at this moment.
    pub(super) fn new(now: Instant) -> Self {
        Self { counters: Vec::new(), indexes: Map::default(), since: now, faded: now }
    }

    /// Lets what was counted fade until now.
    pub(super) fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.faded);
        self.faded = now;
        let left = left_after(passed);
        for counter in &mut self.counters {
            counter.pieces *= left;
        }
    }

    /// So many pieces of an item are asked for.
    pub(super) fn add(&mut self, item: &Item, pieces: f64) {
        if let Some(index) = self.indexes.get(item) {
            self.counters[*index].pieces += pieces;
            return;
        }
        if self.counters.len() < COUNTERS {
            self.indexes.insert(item.clone(), self.counters.len());
            self.counters.push(Counter { item: item.clone(), pieces });
            return;
        }
        let least = self
            .counters
            .iter()
            .enumerate()
            .min_by(|(_, one), (_, other)| one.pieces.total_cmp(&other.pieces));
        let Some((index, _)) = least else { return };
        let counter = &mut self.counters[index];
        self.indexes.remove(&counter.item);
        self.indexes.insert(item.clone(), index);
        counter.item = item.clone();
        counter.pieces += pieces;
    }

    /// Those that most is asked for, most first.
    pub(super) fn top(&self, most: usize) -> Vec<HotItem> {
        // What a steady rate of one a second comes to by now.
        let half_lives =
            self.faded.saturating_duration_since(self.since).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let of_one = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2 * (1.0 - 0.5_f64.powf(half_lives));
        if of_one <= 0.0 {
            return Vec::new();
        }
        let mut order: Vec<&Counter> = self.counters.iter().collect();
        order.sort_unstable_by(|one, other| {
            other.pieces.total_cmp(&one.pieces).then_with(|| one.item.cmp(&other.item))
        });
        let hot = |counter: &Counter| HotItem {
            item: counter.item.clone(),
            wanted_per_second: counter.pieces / of_one,
        };
        order.into_iter().take(most).map(hot).collect()
    }
}

/// The part that is left after so long.
fn left_after(passed: Duration) -> f64 {
    0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Sku;

    fn item(number: usize) -> Item {
        Sku::new(&format!("S-{number}")).unwrap().into()
    }

    proptest! {
        /// What Space-Saving promises: nothing is counted too low, nothing too high by more than the sum over the counters,
        /// and whatever has more than that is there.
        #[test]
        fn no_count_is_too_low_nor_too_high_by_more_than_its_share(
            asked in prop::collection::vec((0_usize..2_000, 1_u32..5), 1..4_000)
        ) {
            let start = Instant::now();
            let mut hot = HotItems::new(start);
            let mut exact: HashMap<Item, f64> = HashMap::new();
            // A few are asked for again and again, between all others.
            for (number, (other, pieces)) in asked.into_iter().enumerate() {
                let item = item(if number % 3 == 0 { number % 4 } else { other });
                hot.add(&item, f64::from(pieces));
                *exact.entry(item).or_default() += f64::from(pieces);
            }
            let share = exact.values().sum::<f64>() / f64::from(u32::try_from(COUNTERS).unwrap());
            prop_assert!(hot.counters.len() <= COUNTERS && hot.counters.len() == hot.indexes.len());
            for counter in &hot.counters {
                let known = exact[&counter.item];
                prop_assert!(counter.pieces >= known && counter.pieces <= known + share);
            }
            for (item, known) in &exact {
                prop_assert!(*known <= share || hot.indexes.contains_key(item));
            }
        }
    }

    #[test]
    fn a_steady_rate_is_told_from_the_first_second_on_and_fades_when_it_ends() {
        let start = Instant::now();
        let mut hot = HotItems::new(start);
        assert_eq!(hot.top(3), []);
        let mut now = start;
        for second in 1..=120_u32 {
            for _ in 0..10 {
                now += Duration::from_millis(100);
                hot.fade(now);
                hot.add(&item(1), 5.0);
                hot.add(&item(2), 0.5);
            }
            let top = hot.top(1);
            assert_eq!((top.len(), &top[0].item), (1, &item(1)));
            assert!((45.0..=60.0).contains(&top[0].wanted_per_second), "{second}: {top:?}");
        }
        hot.fade(now + HALF_LIFE * 10);
        assert!(hot.top(1)[0].wanted_per_second < 0.1);
    }
}
