//! Results of the ledger, read by every gate without a group: they settle entries, and tell who waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::cache::RedisCache;
use super::level_reads::WantedLevels;
use super::rule::Settled;
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Record;
use crate::event::types::{ORDER_ACCEPTED, ORDER_REJECTED};
use crate::http::Orders;
use crate::kafka::asker::Asker;
use crate::kafka::following::partitions::{Followed, Follower};
use crate::kafka::topic_ids::Described;
use crate::kafka::topics::Topics;
use crate::ledger::{Id, Item, Location, NextOffset, Sku, TopicId, TopicPartition};

/// What a gate calls itself in Kafka.
pub const CLIENT_ID: &str = "stock-verifier-gate";
/// The pause after Redis did not answer, or is not filled yet.
const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// How often is looked for partitions that topics have been given.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// How often is looked whether Redis and Kafka are still those that they were: two small questions.
const CHECK_EVERY: Duration = Duration::from_secs(1);

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
        let mut reading = Reading::new(&self.kafka)?;
        let asker = Arc::new(Asker::new(&self.kafka, CLIENT_ID, None)?);
        let mut looks = interval(PARTITIONS_EVERY);
        let mut checks = interval(CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {
                    if !self.begin(&mut reading).await {
                        looks.reset_after(AWAY_PAUSE);
                    }
                }
                _ = checks.tick() => {
                    if let Err(error) = self.check(&asker, &mut reading).await {
                        tracing::debug!("results are read on unchecked: {error:#}");
                    }
                }
                turn = reading.follower.next() => {
                    let turn = turn.ok_or_else(|| anyhow::anyhow!("reading results has ended"))?;
                    if !reading.is_expected(&turn) {
                        continue;
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        from = self.take(&turn) => reading.go_on(&turn, from),
                    }
                }
            }
        }
        // The end of a client can block.
        drop(spawn_blocking(move || drop(asker)));
        Ok(())
    }

    /// Begins to read the partitions that are not read yet. Whether all that is needed for it answered.
    async fn begin(&self, reading: &mut Reading) -> bool {
        let begun = async {
            if !self.cache.status().await?.filled {
                self.fill.notify_one();
                return Ok(false);
            }
            let (results, levels) = self.partitions().await?;
            let new: Vec<_> = results.into_iter().filter(|(at, _)| !reading.reads(at)).collect();
            // Of a partition that is new all is read.
            let firsts: Vec<_> = new.iter().map(|(at, (low, _))| (at.clone(), *low)).collect();
            self.cache.begin_offsets(&firsts).await?;
            let partitions: Vec<TopicPartition> = new.into_iter().map(|(at, _)| at).collect();
            for (at, stored) in partitions.iter().zip(self.cache.offsets(&partitions).await?) {
                let Some(from) = stored else { return Ok(false) };
                reading.read(at.clone(), from);
            }
            for (at, (_, end)) in levels {
                if !reading.reads(&at) {
                    reading.read(at, end);
                }
            }
            anyhow::Ok(true)
        };
        begun.await.unwrap_or_else(|error| {
            tracing::debug!("results cannot be read yet: {error:#}");
            false
        })
    }

    /// Looks whether Redis still knows what was settled, and whether the topics are those that were read. No result that
    /// comes need say either.
    async fn check(&self, asker: &Arc<Asker>, reading: &mut Reading) -> Result<()> {
        self.check_topics(asker, reading).await?;
        let results: Vec<TopicPartition> =
            reading.nexts.keys().filter(|at| *at.topic != *self.topics.levels_topic).cloned().collect();
        if results.is_empty() {
            return Ok(());
        }
        for (at, stored) in results.iter().zip(self.cache.offsets(&results).await?) {
            match stored {
                // Filling begins them anew.
                None => self.fill.notify_one(),
                Some(from) if reading.nexts.get(at).is_some_and(|next| from < *next) => {
                    reading.go_back(at, from);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Reads a topic that was made anew from its beginning: its offsets begin anew, and would be taken for settled. What the
    /// one before had and nobody read is gone; entries that wait for it end by their bound.
    async fn check_topics(&self, asker: &Arc<Asker>, reading: &mut Reading) -> Result<()> {
        let topics = [&self.topics.accepted_topic, &self.topics.rejected_topic, &self.topics.levels_topic];
        let names: Vec<String> =
            topics.into_iter().take(if self.follow_levels { 3 } else { 2 }).cloned().collect();
        let described = {
            let (asker, names) = (Arc::clone(asker), names.clone());
            spawn_blocking(move || {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                asker.describe(&names)
            })
            .await??
        };
        for (name, described) in names.into_iter().zip(described) {
            let Described::There { id: Some(id), partitions } = described else { continue };
            let is_result = name != self.topics.levels_topic;
            // First, so that a gate that fails in between does it again.
            let is_anew = is_result && self.cache.meet_topic(&name, &id, partitions).await?;
            let was = reading.topics.get(&name);
            if was == Some(&id) {
                continue;
            }
            if is_anew || was.is_some() {
                tracing::warn!(
                    topic = %name,
                    %id,
                    "the topic was made anew: it is read from its beginning. Entries whose results were in the one before, and \
                     not read, end by their bound (--entry-bound)"
                );
                reading.forget(&name);
                if !self.begin(reading).await {
                    // It is met as a new one again.
                    return Ok(());
                }
            }
            reading.topics.insert(name, id);
        }
        Ok(())
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

/// What is read, and how far.
struct Reading {
    follower: Follower,
    /// Where each partition is settled up to, by what this gate knows.
    nexts: HashMap<TopicPartition, NextOffset>,
    /// Where a partition is read again from, until its records from there come.
    expected: HashMap<TopicPartition, NextOffset>,
    /// The topics that are read, by their names.
    topics: HashMap<String, TopicId>,
}

impl Reading {
    fn new(kafka: &KafkaArgs) -> Result<Self> {
        let follower = Follower::new(kafka, CLIENT_ID)?;
        Ok(Self { follower, nexts: HashMap::new(), expected: HashMap::new(), topics: HashMap::new() })
    }

    fn reads(&self, at: &TopicPartition) -> bool {
        self.nexts.contains_key(at)
    }

    /// Reads a partition from here on. What comes of it from elsewhere was on its way before.
    fn read(&mut self, at: TopicPartition, from: NextOffset) {
        self.nexts.insert(at.clone(), from);
        self.expected.insert(at.clone(), from);
        self.follower.read(at, from);
    }

    fn go_back(&mut self, at: &TopicPartition, from: NextOffset) {
        tracing::info!(%at, %from, "Redis knows less than it did: results are read again");
        self.read(at.clone(), from);
    }

    /// Whether these are the next records of their partition.
    fn is_expected(&mut self, turn: &Followed) -> bool {
        match self.expected.get(&turn.at) {
            Some(from) if *from != turn.from => false,
            _ => {
                self.expected.remove(&turn.at);
                self.reads(&turn.at)
            }
        }
    }

    /// After some records: from where on, where Redis knew less.
    fn go_on(&mut self, turn: &Followed, from: Option<NextOffset>) {
        match from {
            None => drop(self.nexts.insert(turn.at.clone(), turn.next)),
            Some(from) => self.go_back(&turn.at, from),
        }
    }

    /// Forgets a topic's partitions, which are begun again.
    fn forget(&mut self, topic: &str) {
        self.nexts.retain(|at, _| *at.topic != *topic);
        self.expected.retain(|at, _| *at.topic != *topic);
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
