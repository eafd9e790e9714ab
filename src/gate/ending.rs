//! The end of entries whose result does not come: the end of their partition is read, the ledger's position waited for to
//! pass it, and the id looked up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::cache::RedisCache;
use super::orders_topic::{Offsets, OrdersTopic, Standing};
use super::rule::Unsettled;
use crate::kafka::partitioner::partition_of;
use crate::ledger::{CommandKey, CommandKind, Id, NextOffset, TopicPartition};
use crate::store::LedgerReader;

/// How often is looked for entries that are over their bound.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that one look takes up, and entries that it brings to their end.
const AT_ONCE: usize = 1_000;
/// Entries that wait for their end at most. Past it only the oldest are looked at again.
const MOST_UNDER_WAY: usize = 100_000;
/// After so long a position that stands still is looked into.
const MARKS_AFTER: Duration = Duration::from_secs(5);

/// An entry on its way to its end.
struct Ending {
    entry: Unsettled,
    partition: TopicPartition,
    /// The partition's end after nobody could send the order any more.
    end: NextOffset,
    /// The round in which it was seen last.
    round: u64,
}

/// Entries on their way to their end. All that are over their bound are gone over in rounds, some at each look: those of a
/// partition that stands still keep no others from their end.
#[derive(Default)]
struct UnderWay {
    entries: HashMap<Id, Ending>,
    standing: Standing,
    round: u64,
    /// How many of the round were looked at.
    seen: usize,
}

impl UnderWay {
    fn is_new(&self, entry: &Unsettled) -> bool {
        self.entries.get(&entry.id).is_none_or(|ending| ending.entry.at != entry.at)
    }

    /// Takes up what is new of some entries, where these are the partitions' ends after they were over their bound.
    fn take_up(&mut self, over: &[Unsettled], ends: &Offsets) {
        let count = i32::try_from(ends.len()).unwrap_or(i32::MAX);
        for entry in over {
            let number = partition_of(entry.id.as_str().as_bytes(), count);
            let Some((partition, end)) = ends.iter().find(|(at, _)| at.partition == number) else { continue };
            let ending =
                Ending { entry: entry.clone(), partition: partition.clone(), end: *end, round: self.round };
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
        for Ending { partition, end, .. } in self.entries.values() {
            let last = ends.entry(partition.clone()).or_insert(*end);
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
        let new: Vec<Unsettled> = over.iter().filter(|entry| under_way.is_new(entry)).cloned().collect();
        if !new.is_empty() {
            under_way.take_up(&new, &self.orders.ends().await?);
        }
        under_way.looked_at(&over);
        let ends = under_way.ends();
        let decided = self.orders.decided(&ends, &mut under_way.standing, MARKS_AFTER).await?;
        let is_passed = |ending: &&Ending| decided.get(&ending.partition).is_some_and(|to| *to >= ending.end);
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
