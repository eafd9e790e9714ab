//! Topics made, described and looked at, as an operator does.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, DefaultConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};

use super::closing::BoundedClose;
use super::elections::wait_for_coordinator;
use super::offsets::{CommittedOffsets, list, offsets_at_times, watermarks};
use super::topic_ids::{Described, describe};
use crate::config::KafkaArgs;
use crate::ledger::{NextOffset, TopicPartition};

/// Longest wait for the brokers when topics are made.
const CREATE_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for any other answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the reason of a broker that cannot be reached.
const REASON_LIMIT: Duration = Duration::from_millis(100);

/// How often something is asked where the client drops the question.
const MOST_ASKED: usize = 5;

/// Asks, and asks again where the client dropped the broker that it had asked: librdkafka (2.12) knows a broker first by the
/// address that it was given, and may let go of that one, and of what waits for it, once it knows the broker by its id.
async fn ask_again<T, F: Future<Output = KafkaResult<T>>>(mut ask: impl FnMut() -> F) -> KafkaResult<T> {
    for _ in 1..MOST_ASKED {
        match ask().await {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::DestroyBroker)) => {}
            answer => return answer,
        }
    }
    ask().await
}

fn admin(kafka: &KafkaArgs) -> Result<BoundedClose<AdminClient<DefaultClientContext>>> {
    let mut config = kafka.client()?;
    kafka.overlay(&mut config);
    BoundedClose::of(&config, DefaultClientContext)
}

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct TopicPlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The number of its partitions.
    pub partitions: i32,
    /// Copies of each partition; -1 is the brokers' default.
    pub replication: i32,
    /// Its settings; the rest is the brokers' own.
    pub settings: Vec<(&'a str, String)>,
}

/// What became of a topic that was to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is made.
    Now(String),
    /// It was there.
    Before(String),
    /// Kafka refuses it, for this reason.
    Refused(String, String),
}

/// Makes topics.
///
/// # Errors
/// When the configuration is refused, or Kafka does not answer.
pub async fn create_topics(kafka: &KafkaArgs, plans: &[TopicPlan<'_>]) -> Result<Vec<Created>> {
    let topics = plans.iter().map(|plan| {
        let topic = NewTopic::new(plan.name, plan.partitions, TopicReplication::Fixed(plan.replication));
        plan.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    });
    let topics: Vec<_> = topics.collect();
    let options =
        AdminOptions::new().operation_timeout(Some(CREATE_LIMIT)).request_timeout(Some(CREATE_LIMIT));
    let admin = admin(kafka)?;
    let created = ask_again(|| admin.create_topics(&topics, &options))
        .await
        .with_context(|| format!("no answer from Kafka at {}", kafka.brokers))?;
    let created = created.into_iter().map(|result| match result {
        Ok(name) => Created::Now(name),
        Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => Created::Before(name),
        Err((name, why)) => Created::Refused(name, why.to_string()),
    });
    Ok(created.collect())
}

/// The settings of a topic, or of a broker.
#[derive(Debug, Clone, Default)]
pub struct Settings(HashMap<String, String>);

/// The settings of a topic.
pub type TopicSettings = Settings;

impl Settings {
    /// These.
    #[must_use]
    pub fn new(settings: &[(&str, &str)]) -> Self {
        Self(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// Kafka's settings of one thing are never none. Where it refuses to tell them, rdkafka (0.39) gives none in place of
    /// Kafka's reason.
    fn of(resource: ConfigResource) -> Result<Self, String> {
        if resource.entries.is_empty() {
            return Err("Kafka does not tell its settings".to_owned());
        }
        let known = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
        Ok(Self(known.collect()))
    }

    /// A setting's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A setting's value, where it is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

/// The settings of topics, in their order; Kafka's reason where it does not say one's.
///
/// # Errors
/// When the configuration is refused, or Kafka does not answer.
pub async fn settings_of(kafka: &KafkaArgs, topics: &[&str]) -> Result<Vec<Result<TopicSettings, String>>> {
    settings_within(kafka, topics, ANSWER_LIMIT).await
}

/// The same, waited for no longer than `limit`.
///
/// # Errors
/// As [`settings_of`].
pub async fn settings_within(
    kafka: &KafkaArgs,
    topics: &[&str],
    limit: Duration,
) -> Result<Vec<Result<TopicSettings, String>>> {
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    described(kafka, &wanted, limit).await
}

/// The settings of a broker; Kafka's reason where it does not say them.
///
/// # Errors
/// As [`settings_of`].
pub async fn broker_settings(
    kafka: &KafkaArgs,
    broker: i32,
    limit: Duration,
) -> Result<Result<Settings, String>> {
    let found = described(kafka, &[ResourceSpecifier::Broker(broker)], limit).await?;
    found.into_iter().next().context("the answer leaves the broker out")
}

async fn described(
    kafka: &KafkaArgs,
    wanted: &[ResourceSpecifier<'_>],
    limit: Duration,
) -> Result<Vec<Result<Settings, String>>> {
    let options = AdminOptions::new().request_timeout(Some(limit));
    let admin = admin(kafka)?;
    let described = ask_again(|| admin.describe_configs(wanted, &options)).await?;
    Ok(described.into_iter().map(|one| one.map_err(|why| why.to_string()).and_then(Settings::of)).collect())
}

/// Remembers the last error of a client, to say why a broker could not be reached.
#[derive(Default)]
struct LastError(Mutex<Option<String>>);

impl ClientContext for LastError {
    fn error(&self, _: KafkaError, reason: &str) {
        // The latest is the one to show; a poisoned lock only means an older one is shown.
        if let Ok(mut last) = self.0.lock() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for LastError {}

/// Asks which topics there are. Every call blocks.
pub struct TopicList {
    consumer: BoundedClose<BaseConsumer<LastError>>,
    brokers: String,
}

impl TopicList {
    /// With a client of its own.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn connect(kafka: &KafkaArgs) -> Result<Self> {
        let mut config = kafka.client()?;
        kafka.overlay(&mut config);
        let consumer = BoundedClose::of(&config, LastError::default())?;
        Ok(Self { consumer, brokers: kafka.brokers.clone() })
    }

    /// All topics that can be read or written, with their numbers of partitions.
    ///
    /// # Errors
    /// When the brokers do not answer, with the reason and what to check.
    pub fn partitions(&self) -> Result<HashMap<String, usize>> {
        let metadata = self.consumer.fetch_metadata(None, ANSWER_LIMIT).map_err(|error| {
            // Serves the error callbacks that say why.
            let _ = self.consumer.poll(REASON_LIMIT);
            let why = self.consumer.context().0.lock().ok().and_then(|mut last| last.take());
            anyhow!(
                "no answer from Kafka at {} within {ANSWER_LIMIT:?}: {}. Check --brokers, and the security.protocol, \
                 sasl.* and ssl.* properties given with -X",
                self.brokers,
                why.unwrap_or_else(|| error.to_string())
            )
        })?;
        let there = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Ok(there.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    }

    /// Those of these topics that this user may not see, be they there or not.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub fn hidden(&self, names: &[String]) -> Result<Vec<String>> {
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let described = describe(self.consumer.client(), &asked, ANSWER_LIMIT)?;
        let hidden =
            names.iter().zip(described).filter(|(_, described)| *described == Described::NotPermitted);
        Ok(hidden.map(|(name, _)| name.clone()).collect())
    }
}

/// Where the group and the log of a partition are.
#[derive(Debug, Clone, Copy)]
pub struct Lag {
    /// The first record the log still holds.
    pub low: i64,
    /// The next record the group reads.
    pub next: i64,
    /// The end of the log.
    pub high: i64,
    /// The first record that is younger than was asked for; the end when none is.
    pub young: i64,
}

/// How far a group is in each partition of a topic, and where the records begin that are not older than this time, in
/// milliseconds since 1970. Partitions without a committed offset are left out. Blocks.
///
/// # Errors
/// When the configuration is refused, or Kafka does not answer.
pub fn lags(kafka: &KafkaArgs, group: &str, topic: &str, since_ms: i64) -> Result<Vec<(i32, Lag)>> {
    let mut config = kafka.client()?;
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        // Where a transaction is open is no question here, and would be waited for.
        .set("isolation.level", "read_uncommitted");
    kafka.overlay(&mut config);
    config.remove("group.instance.id");
    let consumer = BoundedClose::<BaseConsumer>::of(&config, DefaultConsumerContext)?;
    let metadata =
        consumer.fetch_metadata(Some(topic), ANSWER_LIMIT).context("cannot read the topic's partitions")?;
    let partitions: Vec<_> = metadata
        .topics()
        .iter()
        .flat_map(MetadataTopic::partitions)
        .map(|partition| TopicPartition::new(topic, partition.id()))
        .collect();
    let mut times = TopicPartitionList::new();
    for at in &partitions {
        times.add_partition_offset(topic, at.partition, Offset::Offset(since_ms.max(0)))?;
    }
    let committed =
        wait_for_coordinator(ANSWER_LIMIT, || consumer.committed_offsets(list(&partitions), ANSWER_LIMIT));
    let committed = committed.context("cannot read the committed offsets")?;
    let mut committed = CommittedOffsets::of_answer(&committed);
    let young =
        offsets_at_times(&consumer, &times, ANSWER_LIMIT).context("cannot look up offsets by time")?;
    let mut lags = Vec::new();
    for at in partitions {
        let (low, high) = watermarks(&consumer, &at, ANSWER_LIMIT)?;
        // Without a committed offset it is not known where it begins: the ledger may say.
        let Some(NextOffset(next)) = committed.take(&at)? else { continue };
        let young = young.find_partition(topic, at.partition).and_then(|element| element.offset().to_raw());
        // The end is a negative number of its own.
        let young = young.filter(|offset| *offset >= 0).unwrap_or(high);
        lags.push((at.partition, Lag { low, next, high, young }));
    }
    Ok(lags)
}
