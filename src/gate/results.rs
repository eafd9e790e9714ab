//! Results of the ledger, read by every gate without a group: they settle entries, and tell who waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cache::RedisCache;
use super::level_reads::WantedLevels;
use super::rule::Settled;
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Record;
use crate::event::types::{ORDER_ACCEPTED, ORDER_REJECTED};
use crate::http::Orders;
use crate::kafka::follower::{Followed, Follower};
use crate::kafka::topics::Topics;
use crate::ledger::{Id, Item, Location, NextOffset, Sku, TopicPartition};

/// What a gate calls itself in Kafka.
pub const CLIENT_ID: &str = "stock-verifier-gate";
/// The pause after Redis did not answer, or is not filled yet.
const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// How often is looked for partitions that topics have been given.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);

/// What is read of a result or a level.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    order_id: Option<Id>,
    #[serde(flatten)]
    item: Named,
    #[serde(default)]
    lines: Vec<Named>,
    #[serde(default)]
    returned: Vec<Named>,
    #[serde(default)]
    reasons: Vec<Named>,
}

/// An item, where one is named.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    sku: Option<Sku>,
    #[serde(default)]
    location: Option<Location>,
}

impl Event {
    /// What a record says; `None` where it is not of this program.
    fn read(record: &Record) -> Option<Self> {
        serde_json::from_slice(record.value.as_deref()?).ok()
    }

    /// The order that was decided, and whether it was accepted.
    fn verdict(&self) -> Option<(Id, bool)> {
        let accepted = match &*self.kind {
            ORDER_ACCEPTED => true,
            ORDER_REJECTED => false,
            _ => return None,
        };
        Some((self.order_id.clone()?, accepted))
    }

    /// The items whose levels are other than before, or other than was thought.
    fn items(self) -> impl Iterator<Item = Item> {
        let named = std::iter::once(self.item).chain(self.lines).chain(self.returned).chain(self.reasons);
        named.filter_map(|named| Some(Item { sku: named.sku?, location: named.location }))
    }
}

/// Reads results and levels.
pub(super) struct Results {
    pub(super) cache: RedisCache,
    pub(super) kafka: KafkaArgs,
    pub(super) topics: TopicArgs,
    /// Whether levels are published. They only say what to read.
    pub(super) follow_levels: bool,
    pub(super) wanted: Arc<WantedLevels>,
    pub(super) orders: Orders,
    /// Asks for the cache to be filled.
    pub(super) fill: Arc<Notify>,
}

impl Results {
    /// Reads until stopped.
    ///
    /// # Errors
    /// When Kafka's client cannot be made, or has ended.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut follower = Follower::new(&self.kafka, CLIENT_ID)?;
        let mut read: HashSet<TopicPartition> = HashSet::new();
        // Where a partition is read again from, until its records from there come.
        let mut expected: HashMap<TopicPartition, NextOffset> = HashMap::new();
        let mut looks = tokio::time::interval(PARTITIONS_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = looks.tick() => {
                    if !self.begin(&follower, &mut read).await {
                        looks.reset_after(AWAY_PAUSE);
                    }
                }
                turn = follower.next() => {
                    let turn = turn.ok_or_else(|| anyhow::anyhow!("reading results has ended"))?;
                    if let Some(from) = expected.get(&turn.at) {
                        if *from != turn.from {
                            continue;
                        }
                        expected.remove(&turn.at);
                    }
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        gap = self.take(&turn) => if let Some(from) = gap {
                            tracing::info!(
                                at = %turn.at, %from, "Redis knows less than it did: results are read again"
                            );
                            expected.insert(turn.at.clone(), from);
                            follower.read(turn.at, from);
                        },
                    }
                }
            }
        }
    }

    /// Begins to read the partitions that are not read yet. Whether all that is needed for it answered.
    async fn begin(&self, follower: &Follower, read: &mut HashSet<TopicPartition>) -> bool {
        let begun = async {
            if !self.cache.status().await?.filled {
                self.fill.notify_one();
                return Ok(false);
            }
            let (results, levels) = self.partitions().await?;
            let new: Vec<_> = results.into_iter().filter(|(at, _)| !read.contains(at)).collect();
            // Of a partition that is new all is read.
            let firsts: Vec<_> = new.iter().map(|(at, (low, _))| (at.clone(), *low)).collect();
            self.cache.begin_offsets(&firsts).await?;
            let partitions: Vec<TopicPartition> = new.into_iter().map(|(at, _)| at).collect();
            if !partitions.is_empty() {
                for (at, stored) in partitions.iter().zip(self.cache.offsets(&partitions).await?) {
                    let Some(from) = stored else { return Ok(false) };
                    follower.read(at.clone(), from);
                    read.insert(at.clone());
                }
            }
            for (at, (_, end)) in levels {
                if read.insert(at.clone()) {
                    follower.read(at, end);
                }
            }
            anyhow::Ok(true)
        };
        begun.await.unwrap_or_else(|error| {
            tracing::debug!("results cannot be read yet: {error:#}");
            false
        })
    }

    /// Where the partitions of results and of levels begin and end.
    async fn partitions(&self) -> Result<(Ends, Ends)> {
        let (kafka, topics) = (self.kafka.clone(), self.topics.clone());
        let levels = self.follow_levels;
        spawn_blocking(move || {
            let asked = Topics::connect(&kafka, CLIENT_ID)?;
            let mut results = ends(&asked, &topics.accepted_topic)?;
            results.extend(ends(&asked, &topics.rejected_topic)?);
            let levels = if levels { ends(&asked, &topics.levels_topic)? } else { Vec::new() };
            Ok((results, levels))
        })
        .await?
    }

    /// Settles some records; where to go back to, where Redis knows less than was settled.
    async fn take(&self, followed: &Followed) -> Option<NextOffset> {
        let events: Vec<Event> = followed.records.iter().filter_map(Event::read).collect();
        if *followed.at.topic == *self.topics.levels_topic {
            self.wanted.add(events.into_iter().flat_map(Event::items));
            return None;
        }
        let verdicts: Vec<(Id, bool)> = events.iter().filter_map(Event::verdict).collect();
        let Followed { at, from, next, .. } = followed;
        let gap = loop {
            match self.cache.settle(at, *from, *next, &verdicts).await {
                Ok(Settled::Applied | Settled::Already) => break None,
                Ok(Settled::Gap(stored)) => break Some(stored),
                Ok(Settled::Empty) => self.fill.notify_one(),
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "settling results"),
            }
            sleep(AWAY_PAUSE).await;
        };
        self.orders.decided(verdicts.iter().map(|(id, _)| id));
        self.wanted.add(events.into_iter().flat_map(Event::items));
        gap
    }
}

/// Partitions, each with where it begins and ends.
pub(super) type Ends = Vec<(TopicPartition, (NextOffset, NextOffset))>;

/// Where the partitions of a topic begin and end.
pub(super) fn ends(topics: &Topics, topic: &str) -> Result<Ends> {
    Ok(topics.whole_topic(topic)?.into_iter().map(|range| (range.at, (range.from, range.to))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Offset, Source};

    fn event(text: &str) -> Option<Event> {
        let source = Source { at: TopicPartition::new("stock.accepted", 0), offset: Offset(0) };
        let value = Some(text.as_bytes().to_vec());
        Event::read(&Record {
            source,
            key: None,
            value,
            headers: Vec::new(),
            timestamp_ms: None,
            decoded: None,
        })
    }

    fn items(text: &str) -> Vec<String> {
        let items = event(text).unwrap().items();
        items
            .map(|item| format!("{}@{}", item.sku, item.location.map_or(String::new(), |at| at.to_string())))
            .collect()
    }

    #[test]
    fn a_result_names_its_order_and_every_event_the_items_to_read() {
        let accepted = r#"{"type":"order.accepted","order_id":"o-1","lines":[{"sku":"MUG","quantity":1,"balance":3},
            {"sku":"HAT","location":"berlin","quantity":1,"balance":3}],"source":{"topic":"orders","partition":3,"offset":4}}"#;
        assert_eq!(event(accepted).unwrap().verdict(), Some((Id::new("o-1").unwrap(), true)));
        assert_eq!(items(accepted), ["MUG@", "HAT@berlin"]);
        let rejected = r#"{"type":"order.rejected","order_id":"o-2","reasons":[{"reason":"order_cancelled"},
            {"reason":"insufficient_stock","sku":"MUG","requested":9,"available":3}]}"#;
        assert_eq!(event(rejected).unwrap().verdict(), Some((Id::new("o-2").unwrap(), false)));
        assert_eq!(items(rejected), ["MUG@"]);
        let returned = r#"{"type":"return.accepted","return_id":"r-1","order_id":"o-1","returned":[{"sku":"MUG","quantity":1,"balance":4}]}"#;
        assert_eq!(event(returned).unwrap().verdict(), None, "it decides no order");
        assert_eq!(items(returned), ["MUG@"]);
        assert_eq!(
            items(r#"{"type":"stock.level","sku":"MUG","location":"berlin","available":3,"version":4}"#),
            ["MUG@berlin"]
        );
        assert!(event("no JSON").is_none());
    }
}
