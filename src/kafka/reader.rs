//! Topics at rest: where they begin and end, and their records, partition by partition.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::consumer::own;
use super::topic_ids::{Described, describe};
use crate::config::KafkaArgs;
use crate::event::Record;
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};

/// Longest wait for one answer of Kafka. Committed offsets wait for an open transaction, which may live for 10 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the end of transactions that hide results: twice as long as one of a verifier can be open. Another's
/// may be open for longer; waiting for it is the operator's to decide.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks at that.
const SETTLE_LOOK: Duration = Duration::from_millis(200);
/// Longest silence while records are still to come.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Longest sleep in one poll of one topic.
const POLL: Duration = Duration::from_millis(10);
/// Bytes of records read ahead of their turn, of all partitions together; past its share a partition pauses.
const AHEAD_BYTES: usize = 32 << 20;
/// Least share of a partition: pausing throws away what the client fetched.
const LEAST_SHARE: usize = 1 << 20;

/// What a record takes beside its content.
const RECORD_BYTES: usize = 256;

/// A range of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetRange {
    /// Which partition.
    pub at: TopicPartition,
    /// Its first record.
    pub from: NextOffset,
    /// The offset after its last.
    pub to: NextOffset,
}

impl OffsetRange {
    /// Whether this offset is within.
    #[must_use]
    pub fn holds(&self, offset: Offset) -> bool {
        !self.from.covers(offset) && self.to.covers(offset)
    }

    /// How many offsets it spans: at least as many as it has records.
    #[must_use]
    pub fn span(&self) -> u64 {
        (self.to.0 - self.from.0).max(0).unsigned_abs()
    }
}

/// Says nothing of ends of partitions, which librdkafka counts among the errors.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!(%error, reason, "Kafka consumer of a replay");
        }
    }
}

impl ConsumerContext for Quiet {}

/// Asks a cluster about its topics. Every call blocks.
pub struct Topics {
    config: ClientConfig,
    consumer: BaseConsumer<Quiet>,
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
        let consumer = config.create_with_context(Quiet).context("the Kafka configuration is refused")?;
        Ok(Self { config, consumer })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<TopicPartition>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), ANSWER_LIMIT)
            .with_context(|| format!("no answer from Kafka about topic {topic}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let Some(found) = found.filter(|found| !found.partitions().is_empty()) else {
            bail!("there is no topic {topic}: check its name, or --brokers");
        };
        let topic: Arc<str> = topic.into();
        let mut partitions: Vec<_> = found
            .partitions()
            .iter()
            .map(|partition| TopicPartition::new(Arc::clone(&topic), partition.id()))
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

    /// The first record of a partition whose timestamp is this or later, in milliseconds since 1970; its end when there
    /// is none.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn at_time(&self, of: &OffsetRange, millis: i64) -> Result<NextOffset> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(&of.at.topic, of.at.partition, KafkaOffset::Offset(millis))?;
        let found = self
            .consumer
            .offsets_for_times(wanted, ANSWER_LIMIT)
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
        let offsets = self
            .consumer
            .committed_offsets(list, ANSWER_LIMIT)
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
        let all: BaseConsumer<Quiet> = self
            .config
            .clone()
            .set("isolation.level", "read_uncommitted")
            .create_with_context(Quiet)
            .context("the Kafka configuration is refused")?;
        let mut hidden = Vec::new();
        for topic in topics {
            for at in self.partitions(topic)? {
                let (_, end) = watermarks(&all, &at)?;
                hidden.push((at, NextOffset(end)));
            }
        }
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
        let groups = self
            .consumer
            .fetch_group_list(Some(group), ANSWER_LIMIT)
            .with_context(|| format!("no answer from Kafka about group {group}"))?;
        Ok(groups.groups().iter().any(|found| found.name() == group && !found.members().is_empty()))
    }

    /// Reads these ranges.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn read(&self, ranges: &[OffsetRange]) -> Result<Reader> {
        Reader::new(&self.config, ranges)
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
    consumer
        .fetch_watermarks(&at.topic, at.partition, ANSWER_LIMIT)
        .with_context(|| format!("cannot read where {at} begins and ends"))
}

/// Reads ranges of partitions to their ends, each partition's records in their order.
pub struct Reader {
    /// One for each topic: the event of a partition's end does not say the topic.
    consumers: Vec<BaseConsumer<Quiet>>,
    indexes: HashMap<TopicPartition, usize>,
    partitions: Vec<Partition>,
    share: usize,
    /// The partition that [`Reader::take_next`] looks at first.
    turn: usize,
}

struct Partition {
    range: OffsetRange,
    /// Which consumer reads it.
    consumer: usize,
    queue: VecDeque<(Record, usize)>,
    bytes: usize,
    paused: bool,
    /// All of the range is read.
    ended: bool,
}

impl Reader {
    fn new(config: &ClientConfig, ranges: &[OffsetRange]) -> Result<Self> {
        let (mut indexes, mut partitions) = (HashMap::new(), Vec::new());
        let mut assignments: Vec<(Arc<str>, TopicPartitionList)> = Vec::new();
        for range in ranges.iter().filter(|range| range.span() > 0) {
            let OffsetRange { at, from, .. } = range;
            let known = assignments.iter().position(|(topic, _)| *topic == at.topic);
            let consumer = known.unwrap_or_else(|| {
                assignments.push((Arc::clone(&at.topic), TopicPartitionList::new()));
                assignments.len() - 1
            });
            assignments[consumer].1.add_partition_offset(
                &at.topic,
                at.partition,
                KafkaOffset::Offset(from.0),
            )?;
            indexes.insert(at.clone(), partitions.len());
            partitions.push(Partition {
                range: range.clone(),
                consumer,
                queue: VecDeque::new(),
                bytes: 0,
                paused: false,
                ended: false,
            });
        }
        let consumers = assignments
            .iter()
            .map(|(topic, assignment)| {
                let consumer: BaseConsumer<Quiet> =
                    config.create_with_context(Quiet).context("the Kafka configuration is refused")?;
                consumer.assign(assignment).with_context(|| format!("cannot read {topic}"))?;
                Ok(consumer)
            })
            .collect::<Result<_>>()?;
        let share = (AHEAD_BYTES / partitions.len().max(1)).max(LEAST_SHARE);
        Ok(Self { consumers, indexes, partitions, share, turn: 0 })
    }

    /// The next record of a partition, left where it is; `None` at the end of its range.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn peek(&mut self, at: &TopicPartition) -> Result<Option<&Record>> {
        let Some(&index) = self.indexes.get(at) else { return Ok(None) };
        self.wait_for(|reader| {
            let partition = &reader.partitions[index];
            partition.ended || !partition.queue.is_empty()
        })?;
        Ok(self.partitions[index].queue.front().map(|(record, _)| record))
    }

    /// Takes the next record of a partition; `None` at the end of its range.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn pop(&mut self, at: &TopicPartition) -> Result<Option<Record>> {
        if self.peek(at)?.is_none() {
            return Ok(None);
        }
        // Holds because it was found there just now.
        let index = self.indexes[at];
        self.take(index)
    }

    /// Takes the next record of any partition; `None` at the end of all.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn take_next(&mut self) -> Result<Option<Record>> {
        self.wait_for(|reader| {
            reader.partitions.iter().any(|partition| !partition.queue.is_empty())
                || reader.partitions.iter().all(|partition| partition.ended)
        })?;
        let count = self.partitions.len();
        let found = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(|index| !self.partitions[*index].queue.is_empty());
        let Some(index) = found else { return Ok(None) };
        self.turn = index;
        self.take(index)
    }

    fn take(&mut self, index: usize) -> Result<Option<Record>> {
        let share = self.share;
        let partition = &mut self.partitions[index];
        let Some((record, bytes)) = partition.queue.pop_front() else { return Ok(None) };
        partition.bytes -= bytes;
        if partition.paused && !partition.ended && partition.bytes < share / 4 {
            partition.paused = false;
            self.consumers[partition.consumer]
                .resume(&one(&partition.range.at))
                .context("cannot go on reading")?;
        }
        Ok(Some(record))
    }

    fn wait_for(&mut self, is_there: impl Fn(&Self) -> bool) -> Result<()> {
        let mut silent_since = Instant::now();
        while !is_there(self) {
            if self.poll_all()? {
                silent_since = Instant::now();
            } else if silent_since.elapsed() > SILENCE_LIMIT {
                let waiting: Vec<String> = self
                    .partitions
                    .iter()
                    .filter(|partition| !partition.ended)
                    .map(|partition| partition.range.at.to_string())
                    .collect();
                bail!("no record within {SILENCE_LIMIT:?} from {}", waiting.join(", "));
            }
        }
        Ok(())
    }

    /// Takes in what comes next of each topic; whether anything came.
    fn poll_all(&mut self) -> Result<bool> {
        let mut came = false;
        for consumer in 0..self.consumers.len() {
            came |= self.poll(consumer, Duration::ZERO)?;
        }
        if came {
            return Ok(true);
        }
        for consumer in 0..self.consumers.len() {
            came |= self.poll(consumer, POLL)?;
        }
        Ok(came)
    }

    fn poll(&mut self, consumer: usize, wait: Duration) -> Result<bool> {
        if !self.partitions.iter().any(|partition| partition.consumer == consumer && !partition.ended) {
            return Ok(false);
        }
        let index = |reader: &Self, number: i32| {
            reader.partitions.iter().position(|partition| {
                partition.consumer == consumer && partition.range.at.partition == number
            })
        };
        match self.consumers[consumer].poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                let Some(index) = index(self, message.partition()) else {
                    bail!("a record of {}, which is not read", message.topic())
                };
                let partition = &mut self.partitions[index];
                let offset = Offset(message.offset());
                if partition.range.holds(offset) {
                    let source = Source { at: partition.range.at.clone(), offset };
                    let (record, bytes) = own(&message, source);
                    partition.bytes += bytes + RECORD_BYTES;
                    partition.queue.push_back((record, bytes + RECORD_BYTES));
                }
                drop(message);
                let ended = !partition.range.to.covers(Offset(offset.0 + 1));
                self.settle(index, ended)?;
                Ok(true)
            }
            // The end of what is committed, which a transaction that stays open can hold below the range's own; and
            // the marks of transactions at a range's end are no records.
            Some(Err(KafkaError::PartitionEOF(number))) => {
                if let Some(index) = index(self, number) {
                    self.settle(index, true)?;
                }
                Ok(true)
            }
            Some(Err(error)) if is_passing(&error) => {
                tracing::debug!(%error, "reading topics");
                Ok(false)
            }
            Some(Err(error)) => Err(error).context("the topics cannot be read"),
        }
    }

    /// Ends or pauses a partition when it is time.
    fn settle(&mut self, index: usize, ended: bool) -> Result<()> {
        let share = self.share;
        let partition = &mut self.partitions[index];
        partition.ended |= ended;
        if (partition.ended || partition.bytes > share) && !partition.paused {
            partition.paused = true;
            self.consumers[partition.consumer]
                .pause(&one(&partition.range.at))
                .context("cannot pause reading")?;
        }
        Ok(())
    }
}

fn one(at: &TopicPartition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&at.topic, at.partition);
    list
}

/// What librdkafka puts right by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn what_kafka_does_not_say_of_one_partition_is_not_taken_for_never_committed() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("there", 1, 1).expect("a topic");
        let kafka = KafkaArgs {
            brokers: cluster.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let topics = Topics::connect(&kafka, "g").expect("a client");
        let there = TopicPartition::new("there", 0);
        assert_eq!(topics.committed(std::slice::from_ref(&there)).expect("an answer"), HashMap::new());
        // The mock answers with an error for this partition alone.
        let error = topics.committed(&[there, TopicPartition::new("there", 7)]).expect_err("cannot be said");
        assert!(format!("{error:#}").contains("there[7]"), "{error:#}");
    }
}
