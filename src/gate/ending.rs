//! The end of entries whose result does not come: the end of their partition is read, the ledger's position waited for to
//! pass it, and the id looked up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::cache::RedisCache;
use super::orders_topic::{Offsets, OrdersTopic, Standing, TopicEnds};
use super::rule::Unsettled;
use crate::kafka::partitioner::partition_of;
use crate::ledger::{CommandKey, CommandKind, Id, NextOffset, TopicId, TopicPartition};
use crate::store::LedgerReader;

/// How often is looked for entries that are over their bound.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that one look takes up, and entries that it brings to their end.
const AT_ONCE: usize = 1_000;
/// Entries that wait for their end at most. Past it only the oldest are looked at again.
const MOST_UNDER_WAY: usize = 100_000;
/// After so long a position that stands still is looked into.
const MARKS_AFTER: Duration = Duration::from_secs(5);
/// How often is looked at least which topic it is and how many partitions it has, though no entry is new.
const TOPIC_EVERY: Duration = Duration::from_secs(60);
/// How long a number of partitions counts after it was seen last: a producer asks for it again every five minutes
/// (librdkafka's `topic.metadata.refresh.interval.ms`), and goes by the old one until then; and an entry is looked at only
/// after its bound.
const COUNT_KEPT: Duration = Duration::from_secs(600);

/// An entry on its way to its end.
struct Ending {
    entry: Unsettled,
    /// The partitions that its order can stand in, each with its end after nobody could send the order any more: one, but
    /// where the topic was given more just before.
    ends: Vec<(TopicPartition, NextOffset)>,
    /// The round in which it was seen last.
    round: u64,
}

/// Entries on their way to their end. All that are over their bound are gone over in rounds, some at each look: those of a
/// partition that stands still keep no others from their end.
#[derive(Default)]
struct UnderWay {
    entries: HashMap<Id, Ending>,
    standing: Standing,
    /// Which topic all this is of.
    topic: Option<TopicId>,
    /// How many partitions it has and had, each with when that was seen last.
    counts: HashMap<i32, Instant>,
    round: u64,
    /// How many of the round were looked at.
    seen: usize,
}

impl UnderWay {
    fn is_new(&self, entry: &Unsettled) -> bool {
        self.entries.get(&entry.id).is_none_or(|ending| ending.entry.at != entry.at)
    }

    /// Takes up what is new of some entries, where the topic ends so after they were over their bound.
    fn take_up(&mut self, over: &[Unsettled], topic: &TopicEnds, now: Instant) {
        if topic.id.is_some() && topic.id != self.topic {
            // Offsets in a topic that was there before say nothing of this one.
            if self.topic.is_some() {
                *self = Self { round: self.round, seen: self.seen, ..Self::default() };
            }
            self.topic.clone_from(&topic.id);
        }
        self.counts.insert(topic.count, now);
        self.counts.retain(|_, seen| now.duration_since(*seen) < COUNT_KEPT);
        for entry in over {
            if !self.is_new(entry) {
                continue;
            }
            let id = entry.id.as_str().as_bytes();
            let numbers: BTreeSet<i32> = self.counts.keys().map(|count| partition_of(id, *count)).collect();
            let end_of = |number: i32| {
                topic.ends.iter().find(|(at, _)| at.partition == number).map(|(at, end)| (at.clone(), *end))
            };
            let ends: Option<Vec<_>> = numbers.into_iter().map(end_of).collect();
            // One that says nothing of itself is asked for again.
            let Some(ends) = ends else { continue };
            let ending = Ending { entry: entry.clone(), ends, round: self.round };
            self.entries.insert(entry.id.clone(), ending);
        }
    }

    /// After a look at some entries: the next look goes on behind them, or begins a round.
    fn looked_at(&mut self, over: &[Unsettled]) {
        for entry in over {
            if let Some(ending) = self.entries.get_mut(&entry.id) {
                ending.round = self.round;
            }
        }
        self.seen += over.len();
        if over.len() < AT_ONCE {
            // What was not seen has ended by another gate or by its result.
            self.entries.retain(|_, ending| ending.round == self.round);
        }
        if over.len() < AT_ONCE || self.entries.len() >= MOST_UNDER_WAY {
            (self.round, self.seen) = (self.round + 1, 0);
        }
    }

    /// Up to where it matters how far each partition is decided.
    fn ends(&self) -> Offsets {
        let mut ends = Offsets::new();
        for (at, end) in self.entries.values().flat_map(|ending| &ending.ends) {
            let last = ends.entry(at.clone()).or_insert(*end);
            *last = (*last).max(*end);
        }
        ends
    }
}

/// Brings entries to their end.
pub(super) struct Endings {
    pub(super) cache: RedisCache,
    pub(super) ledger: Arc<dyn LedgerReader>,
    pub(super) orders: OrdersTopic,
    pub(super) bound: Duration,
    pub(super) observer: Arc<dyn Observer>,
}

impl Endings {
    /// Looks again and again, until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut under_way = UnderWay::default();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.observer.entries(self.cache.status().await.ok().as_ref());
            if let Err(error) = self.look(&mut under_way).await {
                tracing::debug!("entries over their bound: {error:#}");
            }
        }
    }

    async fn look(&self, under_way: &mut UnderWay) -> Result<()> {
        let over = self.cache.unsettled(self.bound, under_way.seen, AT_ONCE).await?;
        let was_long_ago = under_way.counts.values().all(|seen| seen.elapsed() >= TOPIC_EVERY);
        if was_long_ago || over.iter().any(|entry| under_way.is_new(entry)) {
            match self.orders.ends().await {
                Ok(topic) => under_way.take_up(&over, &topic, Instant::now()),
                // What is under way comes to its end all the same.
                Err(error) => tracing::debug!("no entries are taken up: {error:#}"),
            }
        }
        under_way.looked_at(&over);
        let ends = under_way.ends();
        let UnderWay { topic, standing, .. } = under_way;
        let decided = self.orders.decided(topic.as_ref(), &ends, standing, MARKS_AFTER).await?;
        let is_passed = |ending: &&Ending| {
            ending.ends.iter().all(|(at, end)| decided.get(at).is_some_and(|decided| decided >= end))
        };
        let passed = under_way.entries.values().filter(is_passed).take(AT_ONCE);
        let passed: Vec<Unsettled> = passed.map(|ending| ending.entry.clone()).collect();
        for entry in passed {
            self.end(&entry).await?;
            under_way.entries.remove(&entry.id);
        }
        Ok(())
    }

    /// Settles an entry by what the ledger decided, or gives it back.
    async fn end(&self, entry: &Unsettled) -> Result<()> {
        let key = CommandKey { id: entry.id.clone(), kind: CommandKind::OrderCreated };
        let decision = self.ledger.decision(&key).await?;
        match decision.filter(|decision| decision.digest == entry.digest) {
            Some(decision) => {
                self.cache.settle_found(&entry.id, entry.digest, decision.accepted).await?;
            }
            None => {
                self.cache.give_back(&entry.id, entry.at).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Digest;

    fn over(number: usize) -> Unsettled {
        Unsettled { id: Id::new(&format!("o-{number}")).unwrap(), digest: Digest([0; 16]), at: 1 }
    }

    /// The topic with so many partitions, all of which end here but those that say nothing.
    fn topic(id: &str, count: i32, end: i64, silent: &[i32]) -> TopicEnds {
        let ends = (0..count).filter(|number| !silent.contains(number));
        let ends = ends.map(|number| (TopicPartition::new("orders", number), NextOffset(end))).collect();
        TopicEnds { id: Some(TopicId::new(id)), count, ends }
    }

    /// The partitions that an entry waits for, each with its end.
    fn waits_for(under_way: &UnderWay, entry: &Unsettled) -> Vec<(i32, i64)> {
        let ending = under_way.entries.get(&entry.id);
        ending
            .map_or(Vec::new(), |ending| ending.ends.iter().map(|(at, end)| (at.partition, end.0)).collect())
    }

    fn number_of(entry: &Unsettled, count: i32) -> i32 {
        partition_of(entry.id.as_str().as_bytes(), count)
    }

    #[test]
    fn a_partition_that_says_nothing_keeps_no_entry_of_another_from_being_taken_up() {
        let all: Vec<Unsettled> = (0..20).map(over).collect();
        let mut under_way = UnderWay::default();
        under_way.take_up(&all, &topic("a", 4, 7, &[2]), Instant::now());
        for entry in &all {
            // Also by the number of all partitions, and not by that of those that answered.
            let number = number_of(entry, 4);
            let ends = if number == 2 { vec![] } else { vec![(number, 7)] };
            assert_eq!(waits_for(&under_way, entry), ends, "{entry:?}");
        }
        under_way.take_up(&all, &topic("a", 4, 9, &[]), Instant::now());
        for entry in &all {
            let number = number_of(entry, 4);
            let end = if number == 2 { 9 } else { 7 };
            assert_eq!(waits_for(&under_way, entry), [(number, end)], "it is taken up once: {entry:?}");
        }
    }

    #[test]
    fn what_is_under_way_is_taken_up_anew_when_the_topic_is_another() {
        let (entry, mut under_way) = (over(1), UnderWay::default());
        let take_up = |under_way: &mut UnderWay, topic: &TopicEnds| {
            under_way.take_up(std::slice::from_ref(&entry), topic, Instant::now());
        };
        take_up(&mut under_way, &topic("a", 4, 1_000, &[]));
        take_up(&mut under_way, &TopicEnds { id: None, ..topic("", 4, 1, &[]) });
        assert_eq!(waits_for(&under_way, &entry), [(number_of(&entry, 4), 1_000)], "nobody says that it is");
        take_up(&mut under_way, &topic("b", 3, 2, &[]));
        assert_eq!(waits_for(&under_way, &entry), [(number_of(&entry, 3), 2)]);
        assert_eq!(under_way.topic, Some(TopicId::new("b")));
    }

    #[test]
    fn where_the_topic_was_given_partitions_an_order_is_looked_for_where_it_stood_before_too() {
        let mut under_way = UnderWay::default();
        let begun = Instant::now();
        let moved = (0..100).map(over).find(|entry| number_of(entry, 2) != number_of(entry, 5));
        let moved = moved.expect("some are");
        under_way.take_up(&[], &topic("a", 2, 0, &[]), begun);
        let soon = begun + COUNT_KEPT / 2;
        under_way.take_up(std::slice::from_ref(&moved), &topic("a", 5, 3, &[]), soon);
        let mut both = [(number_of(&moved, 2), 3), (number_of(&moved, 5), 3)];
        both.sort_unstable();
        assert_eq!(waits_for(&under_way, &moved), both);
        // Every producer knows it by then.
        let later = Unsettled { at: 2, ..moved };
        under_way.take_up(std::slice::from_ref(&later), &topic("a", 5, 4, &[]), begun + COUNT_KEPT);
        assert_eq!(waits_for(&under_way, &later), [(number_of(&later, 5), 4)]);
    }
}
