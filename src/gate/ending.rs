//! The end of entries whose result does not come: the end of their partition is read, the ledger's position waited for to
//! pass it, and the id looked up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::cache::RedisCache;
use super::results::{CLIENT_ID, ends};
use super::rule::{Millis, Unsettled};
use crate::config::KafkaArgs;
use crate::kafka::partitioner::partition_of;
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{CommandKey, CommandKind, Id, NextOffset, TopicPartition};
use crate::store::{LedgerReader, LedgerWriter};

/// How often is looked for entries that are over their bound.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that are brought to their end at once.
const AT_ONCE: usize = 1_000;
/// A position that has not moved for so long may have nothing to move over: the marks of transactions move an end, and no
/// position. So the partition is looked into. Not while it moves: then a verifier has a backlog, as in a sale.
const MARKS_AFTER: Duration = Duration::from_secs(5);

/// An entry on its way to its end.
struct Ending {
    at: Millis,
    partition: TopicPartition,
    /// The partition's end after nobody could send the order any more.
    end: NextOffset,
}

/// Since when the ledger's position in a partition has been the same.
type Standing = HashMap<TopicPartition, (NextOffset, Instant)>;

/// Brings entries to their end.
pub(super) struct Endings {
    pub(super) cache: RedisCache,
    pub(super) ledger: Arc<dyn LedgerReader>,
    /// For the positions alone.
    pub(super) positions: Arc<dyn LedgerWriter>,
    pub(super) kafka: KafkaArgs,
    pub(super) orders_topic: String,
    pub(super) bound: Duration,
    pub(super) observer: Arc<dyn Observer>,
}

impl Endings {
    /// Looks again and again, until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut under_way: HashMap<Id, Ending> = HashMap::new();
        let mut standing = Standing::new();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.observer.entries(self.cache.status().await.ok().as_ref());
            if let Err(error) = self.look(&mut under_way, &mut standing).await {
                tracing::debug!("entries over their bound: {error:#}");
            }
        }
    }

    async fn look(&self, under_way: &mut HashMap<Id, Ending>, standing: &mut Standing) -> Result<()> {
        let over = self.cache.unsettled(self.bound, AT_ONCE).await?;
        let is_under_way = |entry: &Unsettled, known: &HashMap<Id, Ending>| {
            known.get(&entry.id).is_some_and(|ending| ending.at == entry.at)
        };
        // What has ended by another gate or by its result, or was sent again.
        let now: HashMap<&Id, Millis> = over.iter().map(|entry| (&entry.id, entry.at)).collect();
        under_way.retain(|id, ending| now.get(id) == Some(&ending.at));
        if over.iter().any(|entry| !is_under_way(entry, under_way)) {
            let partitions = self.ends().await?;
            for entry in over.iter().filter(|entry| !is_under_way(entry, under_way)).collect::<Vec<_>>() {
                let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
                let number = partition_of(entry.id.as_str().as_bytes(), count);
                let Some((partition, end)) =
                    partitions.iter().find(|(at, _)| at.partition == number).cloned()
                else {
                    continue;
                };
                under_way.insert(entry.id.clone(), Ending { at: entry.at, partition, end });
            }
        }
        let passed = self.passed(under_way, standing).await?;
        for entry in over.into_iter().filter(|entry| passed.contains(&entry.id)) {
            self.end(&entry).await?;
            under_way.remove(&entry.id);
        }
        Ok(())
    }

    /// Where the partitions of the orders end now.
    async fn ends(&self) -> Result<Vec<(TopicPartition, NextOffset)>> {
        let (kafka, topic) = (self.kafka.clone(), self.orders_topic.clone());
        spawn_blocking(move || {
            let ends = ends(&Topics::connect(&kafka, CLIENT_ID)?, &topic)?;
            Ok(ends.into_iter().map(|(at, (_, end))| (at, end)).collect())
        })
        .await?
    }

    /// The orders whose partition's end the ledger has passed.
    async fn passed(&self, under_way: &HashMap<Id, Ending>, standing: &mut Standing) -> Result<Vec<Id>> {
        let mut ends: HashMap<TopicPartition, NextOffset> = HashMap::new();
        for Ending { partition, end, .. } in under_way.values() {
            let last = ends.entry(partition.clone()).or_insert(*end);
            *last = (*last).max(*end);
        }
        standing.retain(|at, _| ends.contains_key(at));
        if ends.is_empty() {
            return Ok(Vec::new());
        }
        let partitions: Vec<TopicPartition> = ends.keys().cloned().collect();
        let positions = self.positions.positions(&partitions).await?;
        let mut reached = HashMap::new();
        for (at, end) in ends {
            let next = positions.get(&at).map_or(NextOffset(0), |position| position.next);
            let (stands_at, since) = standing.entry(at.clone()).or_insert((next, Instant::now()));
            if *stands_at != next {
                (*stands_at, *since) = (next, Instant::now());
            }
            let is_looked_into = next < end && since.elapsed() > MARKS_AFTER;
            let decided = if is_looked_into { self.first_record(&at, next, end).await? } else { next };
            reached.insert(at, decided);
        }
        let is_passed = |ending: &Ending| reached.get(&ending.partition).is_some_and(|to| *to >= ending.end);
        Ok(under_way.iter().filter(|(_, ending)| is_passed(ending)).map(|(id, _)| id.clone()).collect())
    }

    /// Where the first record from an offset on stands; where there is none, the offset up to which it was looked.
    async fn first_record(
        &self,
        at: &TopicPartition,
        from: NextOffset,
        to: NextOffset,
    ) -> Result<NextOffset> {
        let kafka = self.kafka.clone();
        let range = OffsetRange { at: at.clone(), from, to };
        spawn_blocking(move || {
            let topics = Topics::connect(&kafka, CLIENT_ID)?;
            // What retention took cannot be read, and is not there.
            let whole = topics.whole(&range.at)?;
            let range = OffsetRange { from: range.from.max(whole.from), ..range };
            let first = topics.read(&[range])?.take_next()?;
            Ok(first.map_or(to, |record| NextOffset(record.source.offset.0)))
        })
        .await?
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
