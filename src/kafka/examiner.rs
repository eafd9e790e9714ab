//! Asks a cluster for what `doctor` judges. Changes nothing but one transactional id of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::admin_request::Operations;
use super::closing::BoundedClose;
use super::elections::wait_for_coordinator;
use super::error::ClientError;
use super::groups::{self, GroupDescription};
use super::offsets::{CommittedOffsets, list, offsets_at_times};
use super::topic_ids::{Described, allowed, describe};
use super::transactional::TRANSACTION_TIMEOUT_MS;
use crate::config::KafkaArgs;
use crate::ledger::TopicPartition;

/// Most groups that are looked into. Each is a question of its own.
const MOST_GROUPS: usize = 500;
/// Longest wait for what librdkafka has heard by the way: the reason of a broker that cannot be reached, say.
const REASON_LIMIT: Duration = Duration::from_millis(100);
/// How long one poll for a record waits.
const POLL: Duration = Duration::from_millis(50);

/// What a broker says it can do: the newest version of each kind of request, by its number in Kafka's protocol.
pub type ApiVersions = BTreeMap<i16, i16>;

/// A cluster as it describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The brokers that are up.
    pub brokers: Vec<i32>,
    /// The topics that this user may know of.
    pub topics: BTreeMap<String, Vec<PartitionLayout>>,
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLayout {
    /// Its number.
    pub partition: i32,
    /// Whether it has a leader.
    pub led: bool,
    /// How many copies there should be.
    pub replicas: usize,
    /// How many follow.
    pub in_sync: usize,
}

/// Where the log of a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOffsets {
    /// The first record it still holds.
    pub low: i64,
    /// What a reader of committed records sees at most: where the first open transaction begins.
    pub stable: i64,
    /// Its end.
    pub high: i64,
    /// The first record that is younger than was asked for; the end when none is.
    pub young: i64,
}

/// Hears what librdkafka says by the way.
#[derive(Default)]
struct Ear {
    error: Mutex<Option<String>>,
    versions: Mutex<BTreeMap<String, ApiVersions>>,
}

impl ClientContext for Ear {
    fn log(&self, _: RDKafkaLogLevel, subject: &str, line: &str) {
        if let Some((broker, kind, newest)) = (subject == "APIVERSION").then(|| api_version(line)).flatten() {
            let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.entry(broker.to_owned()).or_default().insert(kind, newest);
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Ear {}

/// Reads `[thrd:HOST:PORT/1]: HOST:PORT/1:   ApiKey Produce (0) Versions 0..13`, as librdkafka logs it when it has
/// connected. It has no call for it.
fn api_version(line: &str) -> Option<(&str, i16, i16)> {
    let (thread, rest) = line.strip_prefix("[thrd:")?.split_once(']')?;
    let (_, rest) = rest.split_once("ApiKey ")?;
    let (number, rest) = rest.split_once('(')?.1.split_once(')')?;
    let newest = rest.trim().strip_prefix("Versions ")?.split_once("..")?.1;
    Some((thread, number.parse().ok()?, newest.trim().parse().ok()?))
}

/// Asks a cluster. Every call blocks, no longer than the limit it was made with.
pub struct Examiner {
    kafka: KafkaArgs,
    group: String,
    consumer: BoundedClose<BaseConsumer<Ear>>,
    limit: Duration,
}

impl Examiner {
    /// With a client that joins nothing. `group` is whose committed offsets are asked for.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, group: &str, limit: Duration) -> Result<Self> {
        let consumer = consumer(kafka, group, "read_uncommitted", Ear::default())?;
        Ok(Self { kafka: kafka.clone(), group: group.to_owned(), consumer, limit })
    }

    /// The cluster, asked for no longer than this.
    ///
    /// # Errors
    /// When no broker answers, with the reason.
    pub fn cluster(&self, limit: Duration) -> Result<Cluster> {
        let metadata = self.consumer.fetch_metadata(None, limit).map_err(|error| {
            // Serves the error callbacks that say why.
            let _ = self.consumer.poll(REASON_LIMIT);
            let heard = &self.consumer.context().error;
            let why = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
            anyhow::anyhow!(why.unwrap_or_else(|| error.to_string()))
        })?;
        let topics = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| {
            let partitions = topic.partitions().iter().map(|partition| PartitionLayout {
                partition: partition.id(),
                led: partition.leader() >= 0,
                replicas: partition.replicas().len(),
                in_sync: partition.isr().len(),
            });
            (topic.name().to_owned(), partitions.collect())
        });
        Ok(Cluster {
            brokers: metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect(),
            topics: topics.collect(),
        })
    }

    /// What each broker can do that was asked anything so far, by its name.
    #[must_use]
    pub fn api_versions(&self) -> BTreeMap<String, ApiVersions> {
        // What librdkafka logs waits in a queue, with errors that end a poll early.
        let deadline = Instant::now() + REASON_LIMIT;
        while Instant::now() < deadline {
            let _ = self.consumer.poll(deadline.saturating_duration_since(Instant::now()));
        }
        self.consumer.context().versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which topics these names mean.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn topics(&self, names: &[&str]) -> Result<Vec<Described>> {
        describe(self.consumer.client(), names, self.limit)
            .map_err(|error| anyhow::anyhow!(error.why().to_owned()))
    }

    /// What this user may do with these topics; `None` where it may not know of one.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn allowed(&self, names: &[&str]) -> Result<Vec<Option<Operations>>> {
        allowed(self.consumer.client(), names, self.limit)
            .map_err(|error| anyhow::anyhow!(error.why().to_owned()))
    }

    /// This group; why not, where it is not described.
    ///
    /// # Errors
    /// When Kafka does not answer, or does not let this user know.
    pub fn group(&self) -> Result<GroupDescription> {
        let found = groups::describe(self.consumer.client(), &[&self.group], self.limit)
            .map_err(|error| anyhow::anyhow!(error.why().to_owned()))?;
        let group = found.into_iter().next().context("the answer leaves the group out")?;
        group.map_err(|why| anyhow::anyhow!(why))
    }

    /// All other groups that this user may know of and that have members, and whether there are more than are looked into.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn other_groups(&self) -> Result<(Vec<GroupDescription>, bool)> {
        let begun = Instant::now();
        let listed = wait_for_coordinator(self.limit, || self.consumer.fetch_group_list(None, self.limit))
            .context("the groups cannot be listed")?;
        let mut names: Vec<&str> =
            listed.groups().iter().map(GroupInfo::name).filter(|name| *name != self.group).collect();
        names.sort_unstable();
        names.dedup();
        let more = names.len() > MOST_GROUPS;
        names.truncate(MOST_GROUPS);
        let left = self.limit.saturating_sub(begun.elapsed());
        let found = groups::describe(self.consumer.client(), &names, left)
            .map_err(|error| anyhow::anyhow!(error.why().to_owned()))?;
        // Groups of other kinds are not described.
        let found = found.into_iter().filter_map(Result::ok);
        Ok((found.filter(|group| !group.members.is_empty()).collect(), more))
    }

    /// What the group committed.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self, partitions: &[TopicPartition]) -> Result<CommittedOffsets> {
        if partitions.is_empty() {
            return Ok(CommittedOffsets::default());
        }
        let answer = self.consumer.committed_offsets(list(partitions), self.limit);
        Ok(CommittedOffsets::of_answer(&answer.context("cannot read the committed offsets")?))
    }

    /// Those of these partitions whose offsets an open transaction has now. Each that is under way has some for a moment.
    ///
    /// # Errors
    /// When Kafka does not answer for each.
    pub fn in_open_transactions(&self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>> {
        groups::in_open_transactions(self.consumer.client(), &self.group, partitions, self.limit)
            .map_err(|error| anyhow::anyhow!(error.why().to_owned()))
    }

    /// Where the logs of these partitions are; each with the time, in milliseconds since 1970, that `young` is asked for.
    /// Those that Kafka says nothing of are left out.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn offsets(&self, wanted: &[(TopicPartition, i64)]) -> Result<HashMap<TopicPartition, LogOffsets>> {
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let deadline = Instant::now() + self.limit;
        let times = |time: &dyn Fn(i64) -> Offset| -> Vec<(&TopicPartition, Offset)> {
            wanted.iter().map(|(at, since)| (at, time(*since))).collect()
        };
        let committed = consumer(&self.kafka, &self.group, "read_committed", Ear::default())?;
        let low = ask_offsets(&self.consumer, &times(&|_| Offset::Beginning), deadline)?;
        // In this order no transaction that is over by then can seem open.
        let stable = ask_offsets(&committed, &times(&|_| Offset::End), deadline)?;
        let high = ask_offsets(&self.consumer, &times(&|_| Offset::End), deadline)?;
        let young = ask_offsets(&self.consumer, &times(&|since| Offset::Offset(since.max(0))), deadline)?;
        let found = wanted.iter().filter_map(|(at, _)| {
            let high = *high.get(at)?;
            let young = young.get(at).copied().unwrap_or(high);
            Some((at.clone(), LogOffsets { low: *low.get(at)?, stable: *stable.get(at)?, high, young }))
        });
        Ok(found.collect())
    }

    /// What a reader of committed records sees at most of these partitions. Those that Kafka says nothing of are left out.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn stable(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, i64>> {
        if partitions.is_empty() {
            return Ok(HashMap::new());
        }
        let committed = consumer(&self.kafka, &self.group, "read_committed", Ear::default())?;
        let ends: Vec<_> = partitions.iter().map(|at| (at, Offset::End)).collect();
        ask_offsets(&committed, &ends, Instant::now() + self.limit)
    }

    /// When the first record from this offset on was produced, in milliseconds since 1970, committed or not; `None` where
    /// none comes within `limit`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn produced_at(&self, at: &TopicPartition, offset: i64, limit: Duration) -> Result<Option<i64>> {
        let deadline = Instant::now() + limit;
        let reader = consumer(&self.kafka, &self.group, "read_uncommitted", Ear::default())?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))?;
        reader.assign(&from)?;
        while Instant::now() < deadline {
            match reader.poll(POLL) {
                Some(Ok(record)) => return Ok(record.timestamp().to_millis()),
                Some(Err(error))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
                {
                    return Err(error.into());
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }

    /// Tries whether this user may use a transactional id, which nobody may use for anything else: who does is fenced. Why
    /// not, where Kafka refuses it or does not answer; [`ClientError::is_final_for_producer`] tells them apart.
    ///
    /// # Errors
    /// When it cannot be tried with these settings.
    pub fn try_transactional_id(&self, id: &str) -> Result<Result<(), ClientError>> {
        let mut config = self.kafka.client()?;
        config.set("client.id", id).set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        self.kafka.overlay(&mut config);
        config.set("transactional.id", id);
        let producer = BoundedClose::<BaseProducer>::of(&config, DefaultProducerContext)?.unwaited();
        Ok(producer.init_transactions(self.limit).map_err(ClientError::from))
    }
}

/// The first offset at each of these times, in one request to each broker; Kafka has numbers for the ends in place of a time.
fn ask_offsets(
    consumer: &BaseConsumer<Ear>,
    wanted: &[(&TopicPartition, Offset)],
    deadline: Instant,
) -> Result<HashMap<TopicPartition, i64>> {
    let mut times = TopicPartitionList::new();
    for (at, time) in wanted {
        times.add_partition_offset(&at.topic, at.partition, *time)?;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = offsets_at_times(consumer, &times, left).context("cannot read where the topics end")?;
    let known = answer.elements().into_iter().filter(|element| element.error().is_ok());
    let known = known.filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((TopicPartition::new(element.topic(), element.partition()), offset)),
        // Nothing is as young as that.
        _ => None,
    });
    Ok(known.collect())
}

fn consumer(
    kafka: &KafkaArgs,
    group: &str,
    isolation: &str,
    ear: Ear,
) -> Result<BoundedClose<BaseConsumer<Ear>>> {
    let mut config = kafka.client()?;
    kafka.overlay(&mut config);
    config
        .set("client.id", "stock-verifier-doctor")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", isolation)
        // What brokers can do is only said so.
        .set("debug", "feature")
        .set_log_level(RDKafkaLogLevel::Debug)
        .remove("group.instance.id");
    // It joins nothing, and doctor is in a hurry.
    BoundedClose::of(&config, ear).map(BoundedClose::unwaited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_can_do_is_read_from_what_librdkafka_logs() {
        let line = "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1:   ApiKey Produce (0) Versions 0..13";
        assert_eq!(api_version(line), Some(("127.0.0.1:9092/1", 0, 13)));
        assert_eq!(api_version("[thrd:a/1]: a/1: Broker API support:"), None);
        assert_eq!(api_version("anything else"), None);
    }
}
