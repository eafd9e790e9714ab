//! Reads ranges of topics to their ends, partition by partition.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::closing::BoundedClose;
use super::consumer::own;
use crate::event::Record;
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};
use crate::registry::Registry;

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
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!(%error, reason, "Kafka consumer of a replay");
        }
    }
}

impl ConsumerContext for Quiet {}

/// Reads ranges of partitions to their ends, each partition's records in their order.
pub struct Reader {
    /// One for each topic: the event of a partition's end does not say the topic.
    consumers: Vec<BoundedClose<BaseConsumer<Quiet>>>,
    indexes: HashMap<TopicPartition, usize>,
    partitions: Vec<Partition>,
    share: usize,
    /// Where schemas are looked up that values are written by.
    registry: Option<Arc<Registry>>,
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
    pub(super) fn new(
        config: &ClientConfig,
        ranges: &[OffsetRange],
        registry: Option<Arc<Registry>>,
    ) -> Result<Self> {
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
                let consumer = BoundedClose::<BaseConsumer<Quiet>>::of(config, Quiet)?;
                consumer.assign(assignment).with_context(|| format!("cannot read {topic}"))?;
                Ok(consumer)
            })
            .collect::<Result<_>>()?;
        let share = (AHEAD_BYTES / partitions.len().max(1)).max(LEAST_SHARE);
        Ok(Self { consumers, indexes, partitions, share, registry, turn: 0 })
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
                    let (mut record, bytes) = own(&message, source);
                    if let Some(registry) = &self.registry {
                        registry.decode_waiting(&mut record)?;
                    }
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
