//! Partitions come and go: where each begins, and how each is handed over.
//!
//! librdkafka calls [`Member::rebalance`] from within the poll, on the
//! polling thread, so everything here may block that thread, within bounds.
//! Nothing that it waits for needs that thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::batch::Slice;
use super::ownership::{Generation, InFlight, Ownership, Ticket};
use super::recovery::{self, Positions, Refusal, Start};
use crate::beside::Moved;
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};
use crate::store::{Position, Store, StoreError};

/// Longest wait for committed offsets. Those of a transaction that a killed instance left open stay unreadable until
/// Kafka ends it (`transaction.timeout.ms`, 10 s), and meanwhile the group wants its member to poll: so a part of that
/// at a time, and again.
const COMMITTED_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a partition's first and last offset.
const WATERMARK_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for batches under way before partitions are handed over. Well under max.poll.interval.ms.
const HANDOVER_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for a seek.
const SEEK_LIMIT: Duration = Duration::from_secs(10);

/// A consumer that is one member of the group.
pub(super) type MemberConsumer = BaseConsumer<Member>;

/// The context of one membership's consumer.
pub(super) struct Member {
    assignment: Arc<Assignment>,
    topics: Vec<Arc<str>>,
    settled: AtomicBool,
}

impl Member {
    /// Subscribed to these topics alone.
    pub(super) fn new(assignment: Arc<Assignment>, topics: &[&str]) -> Self {
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        Self { assignment, topics, settled: AtomicBool::new(false) }
    }

    /// What the pipeline's memberships have in common.
    pub(super) fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Its topics.
    pub(super) fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    /// Whether a partition can be one of this membership's.
    pub(super) fn may_own(&self, at: &TopicPartition) -> bool {
        self.topics.contains(&at.topic)
    }

    /// Whether the group has given it partitions once, or told it that there are none for it.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }
}

/// A partition being read.
#[derive(Debug)]
struct Reading {
    at: TopicPartition,
    generation: Generation,
    /// Where the ledger must be at least when the next record is applied.
    expected: NextOffset,
}

/// What a pipeline's memberships of the group have in common: which partitions are read, from where, and what of them is
/// under way.
pub struct Assignment {
    store: Arc<dyn Store>,
    runtime: Handle,
    moved: Moved,
    accept_data_loss: bool,
    /// What is owned, for the stages to ask.
    pub ownership: Ownership,
    in_flight: Arc<InFlight>,
    reading: Mutex<Vec<Reading>>,
    changed: AtomicBool,
    rewind: AtomicBool,
    leaving: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
}

impl Assignment {
    /// Nothing assigned yet. `runtime` is where the store's futures run; `moved` learns that who had the partitions
    /// before may have left levels untold.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, runtime: Handle, moved: Moved, accept_data_loss: bool) -> Self {
        Self {
            store,
            runtime,
            moved,
            accept_data_loss,
            ownership: Ownership::default(),
            in_flight: Arc::default(),
            reading: Mutex::default(),
            changed: AtomicBool::new(false),
            rewind: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// Asks the polling thread to read every partition again from its committed offset.
    ///
    /// What was read so far is dropped; what the ledger decided of it is told from there.
    pub fn request_rewind(&self) {
        self.ownership.end_all();
        self.rewind.store(true, Ordering::SeqCst);
    }

    /// Begins no partition any more: the member leaves the group.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(super) fn rewind_is_due(&self) -> bool {
        self.rewind.load(Ordering::SeqCst)
    }

    /// Whether no batch is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.wait_until_idle(Duration::ZERO)
    }

    /// Whether partitions came or went since the last call.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::SeqCst)
    }

    /// The failure of a rebalance, which has no caller to return it to.
    pub(super) fn take_failure(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    pub(super) fn enter(&self) -> Ticket {
        self.in_flight.enter()
    }

    pub(super) fn wait_until_idle(&self, limit: Duration) -> bool {
        self.in_flight.wait_until_idle(limit)
    }

    /// Waits until the next stage takes a batch, or for so long.
    pub(super) fn wait_for_turn(&self, turns: &Semaphore, limit: Duration) {
        // Elapsed or closed: the caller's next try tells which. No database future is dropped here.
        let _ = self.runtime.block_on(async { tokio::time::timeout(limit, turns.acquire()).await.map(drop) });
    }

    /// Takes a record in: the slice it belongs to and its place. `None` when its partition is not being read.
    pub(super) fn admit(&self, topic: &str, partition: i32, offset: i64) -> Option<(Slice, Source)> {
        let mut reading = lock(&self.reading);
        let reading = reading
            .iter_mut()
            .find(|reading| reading.at.partition == partition && reading.at.topic.as_ref() == topic)?;
        let offset = Offset(offset);
        let slice = Slice {
            at: reading.at.clone(),
            generation: reading.generation,
            expected: reading.expected,
            next: offset.next(),
        };
        reading.expected = reading.expected.max(slice.next);
        Some((slice, Source { at: reading.at.clone(), offset }))
    }

    /// Fetches a membership's partitions again, except what was stopped for good.
    pub(super) fn resume(&self, consumer: &MemberConsumer) -> Result<()> {
        consumer.resume(&self.list(consumer.context())).context("cannot resume the partitions")
    }

    fn list(&self, member: &Member) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for reading in lock(&self.reading).iter().filter(|reading| member.may_own(&reading.at)) {
            list.add_partition(&reading.at.topic, reading.at.partition);
        }
        list
    }

    /// Reads every assigned partition of all memberships again from its committed offset. Nothing may be under way.
    pub(super) fn rewind<'a>(&self, consumers: impl IntoIterator<Item = &'a MemberConsumer>) -> Result<()> {
        self.rewind.store(false, Ordering::SeqCst);
        consumers
            .into_iter()
            .try_for_each(|consumer| self.try_rewind(consumer))
            .or_else(|error| self.postpone(error))
    }

    /// What could not be begun because Kafka or the database is away is begun later; a refusal is for good.
    fn postpone(&self, error: anyhow::Error) -> Result<()> {
        let for_good = match (error.downcast_ref::<KafkaError>(), error.downcast_ref::<StoreError>()) {
            (Some(kafka), _) => matches!(
                kafka.rdkafka_error_code(),
                Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)
            ),
            (None, Some(store)) => !store.is_transient(),
            (None, None) => true,
        };
        if for_good {
            return Err(error);
        }
        tracing::warn!("partitions cannot be begun yet: {error:#}");
        self.request_rewind();
        Ok(())
    }

    fn try_rewind(&self, consumer: &MemberConsumer) -> Result<()> {
        let assigned = consumer.assignment().context("cannot read the assignment")?;
        lock(&self.reading).retain(|reading| !consumer.context().may_own(&reading.at));
        if assigned.count() == 0 {
            return Ok(());
        }
        let starts = self.begin(consumer, &assigned)?;
        let mut seek = TopicPartitionList::new();
        for (at, start) in &starts {
            seek.add_partition_offset(&at.topic, at.partition, KafkaOffset::Offset(start.from.0))?;
        }
        for element in consumer.seek_partitions(seek, SEEK_LIMIT).context("cannot seek")?.elements() {
            element
                .error()
                .with_context(|| format!("cannot seek {}[{}]", element.topic(), element.partition()))?;
        }
        consumer.pause(&assigned).context("cannot pause the partitions")?;
        self.resume(consumer)
    }

    /// Finds where each partition begins, and begins to own it. A partition whose next record is gone is left out.
    fn begin(
        &self,
        consumer: &MemberConsumer,
        partitions: &TopicPartitionList,
    ) -> Result<Vec<(TopicPartition, Start)>> {
        let wanted: Vec<TopicPartition> = partitions
            .elements()
            .iter()
            .map(|element| TopicPartition::new(element.topic(), element.partition()))
            .collect();
        let committed = consumer
            .committed_offsets(partitions.clone(), COMMITTED_LIMIT)
            .context("cannot read the committed offsets")?;
        let ledger = self.runtime.block_on(self.store.positions(&wanted))?;
        let mut begun = Vec::with_capacity(wanted.len());
        for at in wanted {
            let (low, high) = consumer
                .fetch_watermarks(&at.topic, at.partition, WATERMARK_LIMIT)
                .with_context(|| format!("cannot read the first and last offset of {at}"))?;
            let committed = committed
                .find_partition(&at.topic, at.partition)
                .and_then(|element| element.offset().to_raw())
                .filter(|offset| *offset >= 0)
                .map(NextOffset);
            let positions = Positions {
                committed,
                ledger: ledger.get(&at).map(|position| position.next),
                low: NextOffset(low),
                high: NextOffset(high),
            };
            match recovery::begin(positions, self.accept_data_loss) {
                Ok(start) => begun.push((at, start, positions)),
                Err(refusal @ Refusal::LedgerBehind { .. }) => {
                    return Err(anyhow::Error::new(refusal).context(format!("{at} is refused")));
                }
                Err(refusal @ Refusal::OutOfRange { .. }) => {
                    tracing::error!(partition = %at, "stopped: {refusal}");
                }
            }
        }
        for (at, start, _) in begun.iter().filter(|(_, start, _)| start.place) {
            let was = ledger.get(at);
            let published = Some(start.from);
            let topic_id = was.and_then(|was| was.topic_id.clone());
            let now = Position { next: start.ledger, published, topic_id };
            self.runtime.block_on(self.store.set_position(at, was, &now))?;
        }
        commit_beginnings(consumer, &begun)?;
        for (at, start, positions) in &begun {
            self.own(at, *start, *positions);
        }
        Ok(begun.into_iter().map(|(at, start, _)| (at, start)).collect())
    }

    fn own(&self, at: &TopicPartition, start: Start, positions: Positions) {
        if positions.ledger.is_some_and(|ledger| ledger != start.ledger) || start.from < positions.low {
            tracing::warn!(partition = %at, from = %start.from, before = ?positions, "going on after accepted data loss");
        } else {
            tracing::info!(partition = %at, from = %start.from, ledger = %start.ledger, "reading");
        }
        let generation = self.ownership.begin(at);
        lock(&self.reading).push(Reading { at: at.clone(), generation, expected: start.ledger });
    }

    /// Takes assigned partitions over, each from its own place.
    fn take_over(&self, consumer: &MemberConsumer, partitions: &TopicPartitionList) -> Result<()> {
        // On a refusal they are taken over all the same, stopped: librdkafka cannot close in mid-rebalance.
        // When leaving, neither: the group's coordinator answers a closing consumer no more, so begin would wait in vain.
        let leaving = self.leaving.load(Ordering::SeqCst);
        let begun = if leaving { Ok(Vec::new()) } else { self.begin(consumer, partitions) };
        let starts = begun.as_deref().unwrap_or_default();
        let mut assign = TopicPartitionList::new();
        for element in partitions.elements() {
            let at = TopicPartition::new(element.topic(), element.partition());
            let start = starts.iter().find(|(started, _)| *started == at).map(|(_, start)| start.from);
            // A stopped partition stays assigned, paused, at an offset that is never fetched.
            let offset = start.map_or(KafkaOffset::End, |from| KafkaOffset::Offset(from.0));
            assign.add_partition_offset(&at.topic, at.partition, offset)?;
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&assign),
            RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.assign(&assign),
        }
        .context("cannot take the partitions over")?;
        // A pause survives a reassignment inside librdkafka, so say for each what it is to be.
        consumer.pause(partitions).context("cannot pause the partitions")?;
        match begun {
            Ok(_) => {
                self.moved.mark_all();
                self.resume(consumer)
            }
            Err(error) => self.postpone(error),
        }
    }

    /// Hands partitions over: what is under way of them is told first, unless they are lost already.
    fn hand_over(&self, consumer: &MemberConsumer, partitions: &TopicPartitionList) -> Result<()> {
        if consumer.assignment_lost() {
            tracing::warn!("partitions were lost: this member was silent for too long");
        } else if !self.wait_until_idle(HANDOVER_LIMIT) {
            tracing::warn!(
                "batches are still under way after {HANDOVER_LIMIT:?}; their results are told by the next owner"
            );
        }
        for element in partitions.elements() {
            let at = TopicPartition::new(element.topic(), element.partition());
            self.ownership.end(&at);
            lock(&self.reading).retain(|reading| reading.at != at);
            tracing::info!(partition = %at, "handed over");
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.unassign(),
        }
        .context("cannot hand the partitions over")
    }
}

/// Commits where each partition begins whose committed offset says otherwise, before anything of it is decided.
///
/// Without that, a crash between deciding a partition's first batch and telling it would leave a ledger ahead and no
/// committed offset; and then, reading from the ledger's position, those results would never be told.
fn commit_beginnings(
    consumer: &MemberConsumer,
    begun: &[(TopicPartition, Start, Positions)],
) -> Result<()> {
    let mut beginnings = TopicPartitionList::new();
    for (at, start, positions) in begun {
        if positions.committed != Some(start.from) {
            beginnings.add_partition_offset(&at.topic, at.partition, KafkaOffset::Offset(start.from.0))?;
        }
    }
    if beginnings.count() == 0 {
        return Ok(());
    }
    consumer.commit(&beginnings, CommitMode::Sync).context("cannot commit where partitions begin")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is one assignment, push or retain: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Member {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka consumer");
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &MemberConsumer,
        event: rd_kafka_resp_err_t,
        partitions: &mut TopicPartitionList,
    ) {
        let assignment = &self.assignment;
        let done = if event == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.settled.store(true, Ordering::SeqCst);
            assignment.take_over(consumer, partitions)
        } else {
            assignment.hand_over(consumer, partitions)
        };
        assignment.changed.store(true, Ordering::SeqCst);
        if let Err(error) = done {
            lock(&assignment.failure).get_or_insert(error);
        }
    }
}
