//! Results of the ledger, read by every gate without a group: they settle entries, and tell who waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::cache::RedisCache;
use super::level_reads::WantedLevels;
use super::partitions::{CLIENT_ID, Partitions};
use super::rule::Settled;
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Record;
use crate::event::types::{ORDER_ACCEPTED, ORDER_REJECTED};
use crate::http::Orders;
use crate::kafka::asker::Asker;
use crate::kafka::following::partitions::{Followed, Follower};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topic_ids::Described;
use crate::kafka::topics::Answered;
use crate::ledger::{Id, Item, Location, NextOffset, Sku, TopicId, TopicPartition};

/// The pause after Redis did not answer, or is not filled yet.
const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// How often is looked for partitions that topics have been given.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// The pause before partitions that said nothing are asked for again: each time by a client of its own.
const SILENT_PAUSE: Duration = Duration::from_secs(2);
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
    pub(super) partitions: Partitions,
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
                _ = looks.tick() => looks.reset_after(self.look(&mut reading).await),
                () = reading.forgot.notified() => looks.reset_immediately(),
                Some(answered) = reading.asked.join_next() => {
                    looks.reset_after(self.begin(&mut reading, answered).await);
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
                        taken = self.take(&turn) => reading.go_on(&turn, taken),
                    }
                }
            }
        }
        // The end of a client can block.
        drop(spawn_blocking(move || drop(asker)));
        Ok(())
    }

    /// The topics that are read.
    fn names(&self) -> Vec<String> {
        let TopicArgs { accepted_topic, rejected_topic, levels_topic, .. } = &self.topics;
        let all = [accepted_topic, rejected_topic, levels_topic];
        all.into_iter().take(if self.follow_levels { 3 } else { 2 }).cloned().collect()
    }

    fn is_level(&self, at: &TopicPartition) -> bool {
        *at.topic == *self.topics.levels_topic
    }

    /// Asks for the partitions that are not read yet, unless that is being asked. Not here: what is read goes on meanwhile,
    /// however long Kafka takes. After how long to look again, where nothing comes of it.
    async fn look(&self, reading: &mut Reading) -> Duration {
        if !reading.asked.is_empty() {
            return PARTITIONS_EVERY;
        }
        match self.cache.status().await {
            Ok(status) if status.filled => {
                let (partitions, names) = (self.partitions.clone(), self.names());
                let read: HashSet<TopicPartition> = reading.nexts.keys().cloned().collect();
                reading.asked.spawn(async move { partitions.whole(names, read).await });
                PARTITIONS_EVERY
            }
            Ok(_) => {
                self.fill.notify_one();
                AWAY_PAUSE
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "results cannot be read yet");
                AWAY_PAUSE
            }
        }
    }

    /// Begins to read the partitions that were asked for. After how long to look again.
    async fn begin(&self, reading: &mut Reading, answered: Result<Result<Answered>, JoinError>) -> Duration {
        let begun = async {
            let Answered { whole, silent } = answered.context("asking Kafka panicked")??;
            let (levels, results): (Vec<OffsetRange>, Vec<OffsetRange>) =
                whole.into_iter().partition(|range| self.is_level(&range.at));
            // Of a partition that is new all is read.
            let firsts: Vec<_> = results.into_iter().map(|range| (range.at, range.from)).collect();
            self.cache.begin_offsets(&firsts).await?;
            let partitions: Vec<TopicPartition> = firsts.into_iter().map(|(at, _)| at).collect();
            for (at, stored) in partitions.iter().zip(self.cache.offsets(&partitions).await?) {
                let Some(from) = stored else { return Ok(AWAY_PAUSE) };
                reading.read(at.clone(), from);
            }
            // Levels only say what to read: the round over all of them has what was said before.
            for level in levels {
                reading.read(level.at, level.to);
            }
            anyhow::Ok(if silent.is_empty() { PARTITIONS_EVERY } else { SILENT_PAUSE })
        };
        begun.await.unwrap_or_else(|error| {
            tracing::debug!("results cannot be read yet: {error:#}");
            AWAY_PAUSE
        })
    }

    /// Looks whether Redis still knows what was settled, and whether the topics are those that were read. No result that
    /// comes need say either.
    async fn check(&self, asker: &Arc<Asker>, reading: &mut Reading) -> Result<()> {
        self.check_topics(asker, reading).await?;
        let results: Vec<TopicPartition> =
            reading.nexts.keys().filter(|at| !self.is_level(at)).cloned().collect();
        let mut unknown = HashSet::new();
        for (at, stored) in results.iter().zip(self.cache.offsets(&results).await?) {
            match stored {
                None => drop(unknown.insert(at)),
                Some(from) if reading.nexts.get(at).is_some_and(|next| from < *next) => {
                    reading.go_back(at, from);
                }
                Some(_) => {}
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        if self.cache.status().await?.filled {
            // It went back to before they were begun: filling does it no more.
            reading.begin_anew(|at| unknown.contains(at));
        } else {
            // Filling begins them anew.
            self.fill.notify_one();
        }
        Ok(())
    }

    /// Reads a topic that was made anew from its beginning: its offsets begin anew, and would be taken for settled. What the
    /// one before had and nobody read is gone; entries that wait for it end by their bound. Levels are read from its end.
    async fn check_topics(&self, asker: &Arc<Asker>, reading: &mut Reading) -> Result<()> {
        let names = self.names();
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
                if is_result {
                    tracing::warn!(
                        topic = %name,
                        %id,
                        "the topic was made anew: it is read from its beginning. Entries whose results were in the one \
                         before, and not read, end by their bound (--entry-bound)"
                    );
                } else {
                    tracing::warn!(
                        topic = %name,
                        %id,
                        "the topic of levels was made anew: it is read from its end, and what it had before is read from the \
                         ledger"
                    );
                }
                reading.forget(|at| *at.topic == *name);
            }
            reading.topics.insert(name, id);
        }
        Ok(())
    }

    /// Settles some records.
    async fn take(&self, followed: &Followed) -> Taken {
        let events: Vec<Event> = followed.records.iter().filter_map(Event::read).collect();
        if self.is_level(&followed.at) {
            self.wanted.add(events.into_iter().flat_map(Event::items));
            return Taken::Settled;
        }
        let verdicts: Vec<(Id, bool)> = events.iter().filter_map(Event::verdict).collect();
        let Followed { at, from, next, .. } = followed;
        let taken = loop {
            match self.cache.settle(at, *from, *next, &verdicts).await {
                Ok(Settled::Applied | Settled::Already) => break Taken::Settled,
                Ok(Settled::Gap(stored)) => break Taken::Behind(stored),
                Ok(Settled::Empty) => {
                    if self.cache.status().await.is_ok_and(|status| status.filled) {
                        break Taken::Unknown;
                    }
                    self.fill.notify_one();
                }
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "settling results"),
            }
            sleep(AWAY_PAUSE).await;
        };
        self.orders.decided(verdicts.iter().map(|(id, _)| id));
        self.wanted.add(events.into_iter().flat_map(Event::items));
        taken
    }
}

/// What taking some records came to.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// They are settled.
    Settled,
    /// Redis knows less than was settled: up to here.
    Behind(NextOffset),
    /// Redis was filled, and has no offset of their partition: it went back to before that was made.
    Unknown,
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
    /// The answer about those that are not read yet, while it is waited for.
    asked: JoinSet<Result<Answered>>,
    /// Some were forgotten, and are to be begun again.
    forgot: Notify,
}

impl Reading {
    fn new(kafka: &KafkaArgs) -> Result<Self> {
        let follower = Follower::new(kafka, CLIENT_ID)?;
        Ok(Self {
            follower,
            nexts: HashMap::new(),
            expected: HashMap::new(),
            topics: HashMap::new(),
            asked: JoinSet::new(),
            forgot: Notify::new(),
        })
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

    /// After some records.
    fn go_on(&mut self, turn: &Followed, taken: Taken) {
        match taken {
            Taken::Settled => drop(self.nexts.insert(turn.at.clone(), turn.next)),
            Taken::Behind(from) => self.go_back(&turn.at, from),
            Taken::Unknown => self.begin_anew(|at| *at == turn.at),
        }
    }

    /// Begins partitions again of which Redis has no offset, though it was filled.
    fn begin_anew(&mut self, is_unknown: impl Fn(&TopicPartition) -> bool) {
        for at in self.nexts.keys().filter(|at| is_unknown(at)) {
            tracing::warn!(%at, "Redis does not know any more how far results were settled: all that are left are read again");
        }
        self.forget(is_unknown);
    }

    /// Forgets partitions, which are begun again. What is being asked meanwhile is not of them, or of a topic that is gone.
    fn forget(&mut self, is_forgotten: impl Fn(&TopicPartition) -> bool) {
        self.nexts.retain(|at, _| !is_forgotten(at));
        self.expected.retain(|at, _| !is_forgotten(at));
        self.asked = JoinSet::new();
        self.forgot.notify_one();
    }
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
