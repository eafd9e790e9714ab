//! What a cluster says of its topics: their partitions, where they begin and end, and what is committed of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::closing::BoundedClose;
use super::elections::{COORDINATOR_LIMIT, wait_for_coordinator};
use super::offsets::{self, offsets_at_times};
use super::reader::{OffsetRange, Quiet, Reader};
use super::topic_ids::{Described, describe};
use crate::config::KafkaArgs;
use crate::event::Record;
use crate::ledger::{NextOffset, TopicPartition};
use crate::registry::Registry;

/// Longest wait for one answer of Kafka. Committed offsets wait for an open transaction, which may live for 10 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for an answer about one of many partitions: who asks so goes on with the others, and asks again.
const EACH_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the end of transactions that hide results: twice as long as one of a verifier can be open. Another's
/// may be open for longer; waiting for it is the operator's to decide.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks.
const SETTLE_LOOK: Duration = Duration::from_millis(200);

/// What Kafka says of partitions one by one.
#[derive(Debug, Default)]
pub struct Answered {
    /// All of each that it says something of.
    pub whole: Vec<OffsetRange>,
    /// Those that it says nothing of, each with why.
    pub silent: Vec<(TopicPartition, String)>,
}

/// Asks a cluster about its topics. Every call blocks.
pub struct Topics {
    config: ClientConfig,
    consumer: BoundedClose<BaseConsumer<Quiet>>,
    /// Where schemas are looked up that values are written by.
    registry: Option<Arc<Registry>>,
}

impl Topics {
    /// A client that joins no group and commits nothing; `group` is whose committed offsets it can ask for.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn connect(kafka: &KafkaArgs, group: &str) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", "stock-verifier-replay")
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384")
            // A fetch is compressed and opened whole, as when gathering.
            .set("fetch.max.bytes", "1048576")
            // How soon the end of a partition is known.
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5");
        kafka.overlay(&mut config);
        let consumer = BoundedClose::of(&config, Quiet)?;
        Ok(Self { config, consumer, registry: None })
    }

    /// Decodes the values that are read, by the registry's schemas.
    #[must_use]
    pub fn decoding(self, registry: Option<Arc<Registry>>) -> Self {
        Self { registry, ..self }
    }

    /// Decodes a record's value anew, which was changed. Waits for the registry.
    ///
    /// # Errors
    /// When the registry stays away.
    pub fn decode(&self, record: &mut Record) -> Result<()> {
        record.decoded = None;
        self.registry.as_ref().map_or(Ok(()), |registry| registry.decode_waiting(record))
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<TopicPartition>> {
        Ok(self.led_partitions(topic, ANSWER_LIMIT)?.into_iter().map(|(at, _)| at).collect())
    }

    /// The partitions of a topic, each with the broker that leads it, where one does.
    fn led_partitions(&self, topic: &str, limit: Duration) -> Result<Vec<(TopicPartition, Option<i32>)>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), limit)
            .with_context(|| format!("no answer from Kafka about topic {topic}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
        if error == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            bail!(
                "this user may not see topic {topic}, so whether it is there is not known: allow it (ACL: Describe, which \
                 Read and Write imply; docs/permissions.md has the lines), or check its name"
            );
        }
        let found = found.filter(|found| error.is_none() && !found.partitions().is_empty());
        let Some(found) = found else {
            bail!("there is no topic {topic}: check its name, or --brokers");
        };
        let topic: Arc<str> = topic.into();
        let mut partitions: Vec<_> = found
            .partitions()
            .iter()
            .map(|partition| {
                let leader = Some(partition.leader()).filter(|leader| *leader >= 0);
                (TopicPartition::new(Arc::clone(&topic), partition.id()), leader)
            })
            .collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Which topics these names mean.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn describe(&self, names: &[&str]) -> Result<Vec<Described>> {
        Ok(describe(self.consumer.client(), names, ANSWER_LIMIT)?)
    }

    /// All of a partition that readers of committed records see now.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn whole(&self, at: &TopicPartition) -> Result<OffsetRange> {
        let (low, high) = watermarks(&self.consumer, at)?;
        Ok(OffsetRange { at: at.clone(), from: NextOffset(low), to: NextOffset(high) })
    }

    /// All of every partition of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub fn whole_topic(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        self.partitions(topic)?.iter().map(|at| self.whole(at)).collect()
    }

    /// The same of those partitions of it that are asked for, one by one: one without a leader, or whose leader is silent,
    /// keeps no other from its answer.
    ///
    /// # Errors
    /// When Kafka says nothing of the topic, or there is none.
    pub fn each_whole(&self, topic: &str, is_asked: impl Fn(&TopicPartition) -> bool) -> Result<Answered> {
        self.each(&self.consumer, topic, EACH_LIMIT, is_asked)
    }

    /// The same of every partition, with what open transactions hide from readers of committed records.
    ///
    /// # Errors
    /// When Kafka says nothing of the topic, or there is none.
    pub fn each_with_hidden(&self, topic: &str) -> Result<Answered> {
        let consumer = self.of_all_records()?;
        self.each(&consumer, topic, EACH_LIMIT, |_| true)
    }

    fn each(
        &self,
        consumer: &BaseConsumer<Quiet>,
        topic: &str,
        limit: Duration,
        is_asked: impl Fn(&TopicPartition) -> bool,
    ) -> Result<Answered> {
        let (mut answered, mut silent_leaders) = (Answered::default(), Vec::new());
        for (at, leader) in self.led_partitions(topic, EACH_LIMIT)? {
            if !is_asked(&at) {
                continue;
            }
            let asked = match leader {
                None => Err("it has no leader".to_owned()),
                // Waited for once, and not for each partition that it leads.
                Some(leader) if silent_leaders.contains(&leader) => {
                    Err(format!("its leader, broker {leader}, does not answer"))
                }
                Some(leader) => offsets::watermarks(consumer, &at, limit).map_err(|error| {
                    if is_silence(&error) {
                        silent_leaders.push(leader);
                    }
                    error.to_string()
                }),
            };
            match asked {
                Ok((low, high)) => {
                    answered.whole.push(OffsetRange { at, from: NextOffset(low), to: NextOffset(high) });
                }
                Err(why) => answered.silent.push((at, why)),
            }
        }
        Ok(answered)
    }

    /// A client that reads what open transactions hide, too.
    fn of_all_records(&self) -> Result<BoundedClose<BaseConsumer<Quiet>>> {
        let mut config = self.config.clone();
        config.set("isolation.level", "read_uncommitted");
        BoundedClose::of(&config, Quiet)
    }

    /// Where every partition of these topics ends, with what open transactions hide from readers of committed records.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub fn ends_with_hidden(&self, topics: &[&str]) -> Result<Vec<(TopicPartition, NextOffset)>> {
        let all = self.of_all_records()?;
        let mut ends = Vec::new();
        for topic in topics {
            for at in self.partitions(topic)? {
                let (_, end) = watermarks(&all, &at)?;
                ends.push((at, NextOffset(end)));
            }
        }
        Ok(ends)
    }

    /// The first record of a partition whose timestamp is this or later, in milliseconds since 1970; its end when there
    /// is none.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn at_time(&self, of: &OffsetRange, millis: i64) -> Result<NextOffset> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(&of.at.topic, of.at.partition, KafkaOffset::Offset(millis))?;
        let found = offsets_at_times(&self.consumer, &wanted, ANSWER_LIMIT)
            .with_context(|| format!("cannot find a time in {}", of.at))?;
        Ok(
            match found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset)
            {
                Some(KafkaOffset::Offset(offset)) => NextOffset(offset),
                _ => of.to,
            },
        )
    }

    /// What the group committed of these partitions. Waits for a transaction that is open, as long as one can be.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self, of: &[TopicPartition]) -> Result<HashMap<TopicPartition, NextOffset>> {
        let mut list = TopicPartitionList::new();
        for at in of {
            list.add_partition(&at.topic, at.partition);
        }
        let offsets = wait_for_coordinator(COORDINATOR_LIMIT, || {
            self.consumer.committed_offsets(list.clone(), ANSWER_LIMIT)
        })
        .context("no committed offsets from Kafka: it is away, or a transaction stays open")?;
        let mut committed = HashMap::new();
        for element in offsets.elements() {
            let at = TopicPartition::new(element.topic(), element.partition());
            // An answer for all can hold an error for one: that is not "never committed".
            element.error().with_context(|| format!("Kafka does not say what is committed of {at}"))?;
            if let Some(next) = element.offset().to_raw().filter(|offset| *offset >= 0) {
                committed.insert(at, NextOffset(next));
            }
        }
        Ok(committed)
    }

    /// Waits until readers of committed records see all of these topics that is there now: a transaction that is open
    /// hides what was published after its start, whoever published it.
    ///
    /// # Errors
    /// When something stays hidden, or Kafka does not answer.
    pub fn settle(&self, topics: &[&str]) -> Result<()> {
        let mut hidden = self.ends_with_hidden(topics)?;
        let begun = Instant::now();
        loop {
            let mut still = Vec::new();
            for (at, end) in hidden {
                let seen = self.whole(&at)?.to;
                if seen < end {
                    still.push((at, seen, end));
                }
            }
            let Some((at, seen, end)) = still.first() else { return Ok(()) };
            if begun.elapsed() > SETTLE_LIMIT {
                let all: Vec<String> =
                    still.iter().map(|(at, seen, end)| format!("{at} from offset {seen} to {end}")).collect();
                bail!(
                    "a transaction stays open, and hides what was published after its start, so nobody can say what was \
                     never published: {}. Whose it is, Kafka's own tools say: kafka-transactions.sh describe-producers \
                     --topic {} --partition {} (the one with a CurrentTransactionStartOffset; {seen} here); wait for its \
                     end, or abort it there if it hangs",
                    all.join(", "),
                    at.topic,
                    at.partition
                );
            }
            tracing::debug!(%at, %seen, %end, "waiting for the end of a transaction");
            std::thread::sleep(SETTLE_LOOK);
            hidden = still.into_iter().map(|(at, _, end)| (at, end)).collect();
        }
    }

    /// Whether a member of this client's group is there.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn group_is_running(&self, group: &str) -> Result<bool> {
        let groups = wait_for_coordinator(COORDINATOR_LIMIT, || {
            self.consumer.fetch_group_list(Some(group), ANSWER_LIMIT)
        })
        .with_context(|| format!("no answer from Kafka about group {group}"))?;
        Ok(groups.groups().iter().any(|found| found.name() == group && !found.members().is_empty()))
    }

    /// Reads these ranges.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn read(&self, ranges: &[OffsetRange]) -> Result<Reader> {
        Reader::new(&self.config, ranges, self.registry.clone())
    }

    /// When the first record that is left of a partition was produced, in milliseconds since 1970.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn first_timestamp(&self, whole: &OffsetRange) -> Result<Option<i64>> {
        let mut reader = self.read(std::slice::from_ref(whole))?;
        Ok(reader.pop(&whole.at)?.and_then(|record| record.timestamp_ms))
    }
}

/// A partition's first offset and its end: for readers of committed records, where the first open transaction begins.
fn watermarks(consumer: &BaseConsumer<Quiet>, at: &TopicPartition) -> Result<(i64, i64)> {
    offsets::watermarks(consumer, at, ANSWER_LIMIT)
        .with_context(|| format!("cannot read where {at} begins and ends"))
}

/// Whether a broker did not answer, rather than say what is the matter with a partition.
fn is_silence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(OperationTimedOut | BrokerTransportFailure | AllBrokersDown))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// A cluster with the topic `there`, of one partition, and who asks it.
    fn there() -> (MockCluster<'static, DefaultProducerContext>, Topics) {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("there", 1, 1).expect("a topic");
        let kafka = KafkaArgs {
            brokers: cluster.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let topics = Topics::connect(&kafka, "g").expect("a client");
        (cluster, topics)
    }

    #[test]
    fn a_coordinator_that_is_not_there_yet_is_waited_for() {
        let (cluster, topics) = there();
        let not_yet = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 5];
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &not_yet);
        let there = TopicPartition::new("there", 0);
        assert_eq!(topics.committed(&[there]).expect("an answer"), HashMap::new());
    }

    #[test]
    fn a_leader_that_is_not_there_yet_is_waited_for() {
        let (cluster, topics) = there();
        let there = TopicPartition::new("there", 0);
        let not_yet = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 4];
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &not_yet);
        let whole = topics.whole(&there).expect("where it begins and ends");
        assert_eq!((whole.from, whole.to), (NextOffset(0), NextOffset(0)));
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &not_yet);
        assert_eq!(topics.at_time(&whole, 1).expect("an offset"), NextOffset(0));
    }

    #[test]
    fn a_partition_without_a_leader_keeps_no_other_from_its_answer() {
        let (cluster, topics) = there();
        cluster.create_topic("two", 2, 1).expect("a topic");
        cluster.partition_leader("two", 0, None).expect("it loses its leader");
        let [first, second] = [0, 1].map(|partition| TopicPartition::new("two", partition));
        for asked in [topics.each_whole("two", |_| true), topics.each_with_hidden("two")] {
            let Answered { whole, silent } = asked.expect("an answer");
            let empty = OffsetRange { at: second.clone(), from: NextOffset(0), to: NextOffset(0) };
            assert_eq!(whole, [empty]);
            assert_eq!(silent, [(first.clone(), "it has no leader".to_owned())]);
        }
        let Answered { whole, silent } =
            topics.each_whole("two", |at| *at != first).expect("what is not asked for is left out");
        assert_eq!((whole.len(), silent.len()), (1, 0));
    }

    #[test]
    fn a_broker_that_is_gone_keeps_no_partition_of_another_from_its_answer() {
        let cluster = MockCluster::new(2).expect("a mock cluster");
        cluster.create_topic("four", 4, 1).expect("a topic");
        for (partition, leader) in [(0, 2), (1, 2), (2, 1), (3, 1)] {
            cluster.partition_leader("four", partition, Some(leader)).expect("a leader");
        }
        let kafka = KafkaArgs {
            brokers: cluster.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let topics = Topics::connect(&kafka, "g").expect("a client");
        let numbers =
            |whole: &[OffsetRange]| -> Vec<i32> { whole.iter().map(|range| range.at.partition).collect() };
        let all = topics.each_whole("four", |_| true).expect("an answer");
        assert_eq!(numbers(&all.whole), [0, 1, 2, 3], "{all:?}");
        cluster.broker_down(2).expect("the broker goes");
        // The question who leads may be on its way to the one that goes.
        let some =
            (0..5).find_map(|_| topics.each(&topics.consumer, "four", Duration::from_secs(1), |_| true).ok());
        let some = some.expect("an answer");
        assert_eq!(numbers(&some.whole), [2, 3], "{some:?}");
        let silent: Vec<i32> = some.silent.iter().map(|(at, _)| at.partition).collect();
        assert_eq!(silent, [0, 1], "{some:?}");
    }

    #[test]
    fn what_kafka_does_not_say_of_one_partition_is_not_taken_for_never_committed() {
        let (_cluster, topics) = there();
        let there = TopicPartition::new("there", 0);
        assert_eq!(topics.committed(std::slice::from_ref(&there)).expect("an answer"), HashMap::new());
        // The mock answers with an error for this partition alone.
        let error = topics.committed(&[there, TopicPartition::new("there", 7)]).expect_err("cannot be said");
        assert!(format!("{error:#}").contains("there[7]"), "{error:#}");
    }
}
