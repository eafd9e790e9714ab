//! How many orders were decided in each of the last seconds.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::bounds::LIVE_HISTORY;
use crate::live::Counts;

/// Orders decided in a second, and of these the rejected ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) orders: f64,
    pub(super) rejected: f64,
}

/// The last seconds, newest last.
pub(super) struct History {
    counts: Counts,
    at: Instant,
    rates: VecDeque<Rates>,
}

impl History {
    /// Nothing is known of the time before.
    pub(super) fn new(counts: Counts, at: Instant) -> Self {
        Self { counts, at, rates: VecDeque::with_capacity(LIVE_HISTORY) }
    }

    /// So much was done by this moment.
    pub(super) fn add(&mut self, counts: Counts, now: Instant) {
        let before = std::mem::replace(&mut self.counts, counts);
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let rate = |now: u64, before: u64| {
            let more = u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
            // One decimal: more is noise.
            (f64::from(more) / passed * 10.0).round() / 10.0
        };
        if self.rates.len() == LIVE_HISTORY {
            self.rates.pop_front();
        }
        self.rates.push_back(Rates {
            orders: rate(counts.orders, before.orders),
            rejected: rate(counts.rejected_orders, before.rejected_orders),
        });
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rates> {
        self.rates.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_second_is_what_came_in_it_and_the_oldest_goes() {
        let start = Instant::now();
        let mut history = History::new(Counts { orders: 7, rejected_orders: 1 }, start);
        history.add(Counts { orders: 7, rejected_orders: 1 }, start);
        assert_eq!(history.all().next(), None);
        let mut now = start;
        for second in 1..=200_u64 {
            now += Duration::from_secs(1);
            history.add(Counts { orders: 7 + second * second, rejected_orders: 1 + second }, now);
        }
        // A square grows by twice its root less one.
        assert_eq!(history.all().last(), Some(&Rates { orders: 399.0, rejected: 1.0 }));
        assert_eq!(history.all().count(), LIVE_HISTORY);
        assert_eq!(history.all().next(), Some(&Rates { orders: 161.0, rejected: 1.0 }));
        history.add(Counts { orders: 7 + 40_000 + 30, rejected_orders: 201 }, now + Duration::from_secs(4));
        assert_eq!(
            history.all().last(),
            Some(&Rates { orders: 7.5, rejected: 0.0 }),
            "a late look is no burst"
        );
    }
}
