//! One transactional producer: begin, send, offsets, commit, and what each error means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::bindings as native;
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::refusal::{Care, Lesson};
use super::{InitError, PublishError, PublishRequest, Watchdog};
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;
use crate::kafka::error::ClientError;
use crate::kafka::password::{WithPassword, renewed};
use crate::kafka::record::{marked, topic};

/// How long Kafka leaves a transaction open when its producer falls silent. Short, because it is how long a killed
/// instance's partitions stay unreadable; long enough, because a transaction begins after the database's commit.
pub(in crate::kafka) const TRANSACTION_TIMEOUT_MS: &str = "10000";
/// Longest wait for one transactional call; more than the transaction can live, so past it the outcome is unknown.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for the offsets to be taken: as long as Kafka leaves the transaction open. It can hang past that.
const OFFSETS_LIMIT: Duration = Duration::from_secs(10);
/// Added to that limit before the call is abandoned, and the producer with it.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);
/// Longest wait for the producer id, which waits for a predecessor's transaction to end.
const INIT_LIMIT: Duration = Duration::from_secs(60);
/// How long one call waits for it: how soon a stop is seen meanwhile.
const INIT_SLICE: Duration = Duration::from_secs(1);
/// Longest wait until a transaction is aborted, with all that it takes. Past it the producer is given up: a new one under
/// the same id ends the transaction too, and at once.
const ABORT_LIMIT: Duration = Duration::from_secs(5);
/// Added to a call's own limit before the watchdog calls it hung.
const HUNG_AFTER: Duration = Duration::from_secs(30);
/// Most tries of one call that says it can be called again.
const CALL_TRIES: usize = 10;
/// How often to look whether everything sent has arrived, or whether the send queue has room again.
const DRAIN_LOOK: Duration = Duration::from_micros(200);
/// How often to ask meanwhile whether the transaction can still commit. What waits to be sent in one that cannot is
/// neither sent nor reported until it is aborted. A transaction that goes well is over before it is asked.
const FAILED_LOOK: Duration = Duration::from_millis(50);
/// Most tries of one transaction while it becomes clear which of its records Kafka refuses: by topic, then by record.
/// Each may also meet the gap that the one before left.
const NARROWINGS: usize = 8;
/// Longest that records wait for others before a batch of them is sent, in milliseconds. A full batch is sent at once, and
/// so is everything when the last of a transaction is in the queue (see [`flush`]), so this is for what stands between:
/// the rest of a queue that is full.
///
/// Not shorter: what is sent early is sent in two parts, and while the first is on its way librdkafka asks without a pause
/// whether the second may go, since an idempotent producer has one batch of a partition under way and a batch whose time
/// is over is always due (`rd_kafka_toppar_producer_serve` of 2.12). That takes a processor while the broker is slow.
const LINGER_MS: &str = "20";
/// Records waiting to be sent at most; a transaction's results fit, or sending waits.
const SEND_QUEUE_RECORDS: &str = "50000";
/// KiB waiting to be sent at most. A record with more is refused for its size.
const SEND_QUEUE_KIB: &str = "32768";
/// Largest record sent, in bytes: all that librdkafka can. What is too large the topic says (max.message.bytes); with
/// librdkafka's own default of 1 MB the dead letter of a large record could not be sent, and its batch never be published.
const LARGEST_RECORD: &str = "1000000000";

/// What sending offsets comes to that hangs.
const HANG: KafkaError = KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut);

/// Whether sending the offsets hung.
pub(super) fn is_hang(error: &ClientError) -> bool {
    error.0 == HANG
}

type Producing = WithPassword<ThreadedProducer<Log>>;

/// A producer under one transactional id.
pub(super) struct Lane {
    config: ClientConfig,
    transactional_id: String,
    topics: TopicArgs,
    watchdog: Arc<Watchdog>,
    producer: Option<Producing>,
    /// When the transaction in hand was begun.
    begun: Instant,
    /// Whether the next is published topic by topic: the last broke the producer, since some topic of it may not be written.
    by_topic: bool,
}

/// What is reported of one transaction's records.
#[derive(Default)]
struct Log {
    /// Which were not delivered, by their index among what is published, and why.
    failed: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

impl Log {
    /// What failed since the last call.
    fn take(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        // One push or take at a time: a panic elsewhere leaves nothing half done.
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether something failed since then.
    fn has_failed(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl ClientContext for Log {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Log {
    /// The record's index among what is published.
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        if let Err((error, message)) = result {
            // The transaction cannot commit any more, which is where it is handled; a batch would be a flood here.
            tracing::debug!(%error, topic = message.topic(), "a result was not delivered");
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, code));
        }
    }
}

impl Lane {
    /// A producer under this transactional id; it must [`Lane::init_transactions`] before it publishes.
    ///
    /// # Errors
    /// When a password file cannot be read.
    pub(super) fn new(
        kafka: &KafkaArgs,
        topics: &TopicArgs,
        transactional_id: String,
        watchdog: Arc<Watchdog>,
    ) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", &transactional_id)
            .set("linger.ms", LINGER_MS)
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", SEND_QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", SEND_QUEUE_KIB)
            .set("message.max.bytes", LARGEST_RECORD)
            .set("retry.backoff.ms", "20")
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            // A delivered record needs no report: the transaction's commit says it for all of them.
            .set("delivery.report.only.error", "true");
        kafka.overlay(&mut config);
        config.set("transactional.id", &transactional_id);
        Ok(Self {
            config,
            transactional_id,
            topics: topics.clone(),
            watchdog,
            producer: None,
            begun: Instant::now(),
            by_topic: false,
        })
    }

    /// Whether nothing stands in the way of publishing.
    pub(super) fn is_ready(&self) -> bool {
        self.producer.is_some()
    }

    /// Gives the producer up: what became of its transaction is unknown.
    pub(super) fn give_up(&mut self) {
        if let Some(old) = self.producer.take() {
            self.let_go(old);
        }
    }

    /// Closing a producer can hang like any other call.
    fn let_go(&self, producer: Producing) {
        self.watchdog.guard(HUNG_AFTER, || drop(producer));
    }

    /// Makes the producer anew and ends whatever a predecessor with this transactional id left open.
    ///
    /// # Errors
    /// When Kafka cannot be reached in time or refuses the id, or at a stop.
    pub(super) fn init_transactions(&mut self, stop: &CancellationToken) -> Result<(), InitError> {
        self.give_up();
        let producer = renewed(&self.config).create_with_context(Log::default());
        let producer = producer.map_err(|refused| InitError::Configuration(refused.into()))?;
        let producer = WithPassword::producer(producer);
        match self.init(&producer, stop) {
            Ok(()) => self.producer = Some(producer),
            Err(error) => {
                self.let_go(producer);
                return Err(InitError::NotBegun { id: self.transactional_id.clone(), why: error.into() });
            }
        }
        Ok(())
    }

    fn init(&self, producer: &Producing, stop: &CancellationToken) -> KafkaResult<()> {
        let deadline = Instant::now() + INIT_LIMIT;
        loop {
            let made =
                self.watchdog.guard(INIT_SLICE + HUNG_AFTER, || producer.init_transactions(INIT_SLICE));
            match made {
                // It goes on where it was when it is called again.
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && Instant::now() < deadline && !stop.is_cancelled() => {}
                made => return made,
            }
        }
    }

    /// Publishes everything in one transaction, with the offsets. Where Kafka refuses records for good, it finds out which,
    /// by publishing again with more care.
    ///
    /// # Errors
    /// [`PublishError`] says what must be done before publishing again.
    pub(super) fn publish(&mut self, publishing: &PublishRequest<'_>) -> Result<(), PublishError> {
        let mut care = Care::new(self.by_topic);
        let mut narrowed = 0;
        loop {
            self.begun = Instant::now();
            let Some(producer) = &self.producer else {
                return Err(PublishError::ProducerLost(ClientError::CLOSED));
            };
            drop(producer.context().take());
            self.call(|| producer.begin_transaction())?;
            let groups = care.groups(publishing.events);
            let mut sent = 0_usize;
            let published = groups
                .iter()
                .try_for_each(|group| {
                    sent += 1;
                    self.send(producer, publishing.events, group)
                })
                .and_then(|()| self.end(producer, publishing));
            let Err(PublishError::Aborted(cause)) = published else {
                self.by_topic &= published.is_err();
                return published;
            };
            // Where not even the first topic could be added there is nothing that Kafka could abort, and it says so by an
            // error that breaks the producer: what is learned counts all the same.
            let (cause, is_broken) = match self.abort(producer, cause) {
                PublishError::Aborted(cause) => (cause, false),
                PublishError::ProducerLost(cause) => (cause, true),
                other => return Err(other),
            };
            // All reports are there where it is aborted: nothing of it is under way any more.
            let failed = producer.context().take();
            // Only what was sent can have been refused; none is in hand where there is nothing to publish but offsets.
            let group = sent.checked_sub(1).map_or(&[][..], |last| &groups[last]);
            narrowed += 1;
            match care.learn(&cause, &failed, group, publishing.events, &self.topics) {
                Lesson::Known(refusals) => {
                    if is_broken {
                        self.give_up();
                    }
                    return Err(PublishError::Refused(refusals));
                }
                _ if is_broken => {
                    self.by_topic = care.is_by_topic();
                    return Err(PublishError::ProducerLost(cause));
                }
                Lesson::LookCloser if narrowed < NARROWINGS => {
                    tracing::debug!(%cause, "Kafka refuses something of a transaction; looking what");
                }
                Lesson::TooMany => return Err(PublishError::TooMany(cause)),
                // A refused record leaves a gap in its partition's sequence. librdkafka learns of it from the next
                // transaction, and has closed it when that one is aborted.
                Lesson::CanPass
                    if cause.code() == Some(RDKafkaErrorCode::OutOfOrderSequenceNumber)
                        && narrowed < NARROWINGS => {}
                Lesson::CanPass | Lesson::LookCloser => return Err(PublishError::Aborted(cause)),
            }
        }
    }

    /// Sends these, and waits until all have arrived.
    fn send(&self, producer: &Producing, events: &[&Outgoing], group: &[usize]) -> Result<(), PublishError> {
        let deadline = Instant::now() + CALL_LIMIT;
        let mut look = Instant::now() + FAILED_LOOK;
        for index in group {
            let event = events[*index];
            let mut record = marked(event, topic(&self.topics, event.channel), *index);
            // Whether nothing was in the queue before the record was sent: then none other makes it full.
            let mut was_empty = false;
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((error, back))
                        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                            && !was_empty
                            && Instant::now() < deadline =>
                    {
                        record = back;
                        self.check_open(producer, &mut look)?;
                        std::thread::sleep(DRAIN_LOOK);
                        was_empty = producer.in_flight_count() == 0;
                    }
                    Err((error, record)) => {
                        // Refused only because the transaction has failed already, which has an error of its own.
                        self.check_open(producer, &mut Instant::now())?;
                        let code = match error.rdkafka_error_code() {
                            // It never has room for this one.
                            Some(RDKafkaErrorCode::QueueFull) if was_empty => {
                                RDKafkaErrorCode::MessageSizeTooLarge
                            }
                            code => code.unwrap_or(RDKafkaErrorCode::Unknown),
                        };
                        let mut failed =
                            producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push((record.delivery_opaque, code));
                        return Err(PublishError::Aborted(error.into()));
                    }
                }
            }
        }
        // Anything still in flight makes the commit wait in slices of 100 ms.
        self.drain(producer, deadline)
    }

    /// Fails once the transaction in hand cannot commit any more; asks only when it is time for a look.
    fn check_open(&self, producer: &Producing, look: &mut Instant) -> Result<(), PublishError> {
        if Instant::now() < *look {
            return Ok(());
        }
        *look = Instant::now() + FAILED_LOOK;
        // Refused in any case, since a transaction is open: but one that failed is refused with its own error.
        match self.watchdog.guard(CALL_LIMIT + HUNG_AFTER, || producer.begin_transaction()) {
            Err(KafkaError::Transaction(error)) if error.code() == RDKafkaErrorCode::State => Ok(()),
            Err(error) => Err(self.judge(error)),
            Ok(()) => Err(PublishError::ProducerLost(ClientError::CLOSED)),
        }
    }

    /// Waits until everything sent has arrived or failed, or cannot arrive any more.
    fn drain(&self, producer: &Producing, deadline: Instant) -> Result<(), PublishError> {
        let mut look = Instant::now() + FAILED_LOOK;
        settle(producer, deadline, || self.check_open(producer, &mut look))?;
        // A transaction that fails takes what waits out of the queue (rd_kafka_txn_set_abortable_error0): that nothing is left
        // may mean that nothing arrived. What is sent next would be blamed for it.
        if producer.context().has_failed() { self.check_open(producer, &mut Instant::now()) } else { Ok(()) }
    }

    fn end(&self, producer: &Producing, publishing: &PublishRequest<'_>) -> Result<(), PublishError> {
        for (member, share) in publishing.group.iter().filter_map(|member| member.share(publishing.offsets)) {
            let mut offsets = TopicPartitionList::with_capacity(share.len());
            for (at, next) in share {
                offsets
                    .add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))
                    .map_err(|error| PublishError::Aborted(error.into()))?;
            }
            self.call(|| self.send_offsets(producer, &offsets, member))?;
            self.drain(producer, Instant::now() + CALL_LIMIT)?;
        }
        self.call_once(|| producer.commit_transaction(CALL_LIMIT))
    }

    /// Sends the offsets; when that hangs, the call and its producer are abandoned.
    fn send_offsets(
        &self,
        producer: &Producing,
        offsets: &TopicPartitionList,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> KafkaResult<()> {
        let (producer, offsets, group) =
            (ThreadedProducer::clone(producer), offsets.clone(), Arc::clone(group));
        let sent = self.watchdog.abandon_after(OFFSETS_LIMIT + ABANDONED_AFTER, move || {
            producer.send_offsets_to_transaction(&offsets, &group, OFFSETS_LIMIT)
        });
        sent.unwrap_or_else(|| {
            tracing::warn!(id = self.transactional_id, "sending offsets hangs; its producer is abandoned");
            Err(HANG)
        })
    }

    /// Undoes the transaction; what remains is the error to report.
    fn abort(&self, producer: &Producing, cause: ClientError) -> PublishError {
        let deadline = Instant::now() + ABORT_LIMIT;
        // What was never sent is not worth waiting for; what was is, since aborting with records in flight has gone wrong
        // before (librdkafka#4849).
        self.watchdog.guard(HUNG_AFTER, || producer.purge(PurgeConfig::default().queue()));
        let aborted = settle(producer, deadline, || Ok(())).and_then(|()| {
            self.call_until(deadline, || {
                let left = deadline.saturating_duration_since(Instant::now());
                producer.abort_transaction(left.max(DRAIN_LOOK))
            })
        });
        match aborted {
            Ok(()) => PublishError::Aborted(cause),
            Err(fenced @ PublishError::Fenced(_)) => fenced,
            Err(error) => {
                tracing::warn!(%error, "the transaction could not be aborted; its producer is given up");
                PublishError::ProducerLost(cause)
            }
        }
    }

    /// Makes a call, and again while it says that it may be.
    fn call(&self, call: impl Fn() -> KafkaResult<()>) -> Result<(), PublishError> {
        self.call_until(Instant::now() + CALL_LIMIT, call)
    }

    /// The same with a limit for all tries together.
    fn call_until(&self, deadline: Instant, call: impl Fn() -> KafkaResult<()>) -> Result<(), PublishError> {
        let mut last = Ok(());
        for _ in 0..CALL_TRIES {
            last = self.watchdog.guard(CALL_LIMIT + HUNG_AFTER, &call);
            match &last {
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && !error.txn_requires_abort() && Instant::now() < deadline =>
                {
                    tracing::info!(%error, "a transactional call is made again");
                }
                _ => break,
            }
        }
        last.map_err(|error| self.judge(error))
    }

    /// Makes a call that must not be repeated: after an unknown end the producer is not used again (librdkafka#5423).
    fn call_once(&self, call: impl Fn() -> KafkaResult<()>) -> Result<(), PublishError> {
        self.watchdog.guard(CALL_LIMIT + HUNG_AFTER, &call).map_err(|error| self.judge(error))
    }

    /// What an error means for the producer.
    fn judge(&self, error: KafkaError) -> PublishError {
        let KafkaError::Transaction(inner) = &error else { return PublishError::ProducerLost(error.into()) };
        match inner.code() {
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
                // Kafka fences the producer of a transaction that it ended itself for its age, after a long outage say.
                if !inner.txn_requires_abort() && self.begun.elapsed() < self.transaction_timeout() =>
            {
                PublishError::Fenced(self.transactional_id.clone())
            }
            _ if inner.txn_requires_abort() => PublishError::Aborted(error.into()),
            _ => PublishError::ProducerLost(error.into()),
        }
    }

    fn transaction_timeout(&self) -> Duration {
        let text = self.config.get("transaction.timeout.ms").unwrap_or(TRANSACTION_TIMEOUT_MS);
        // What is no number was refused when the producer was made.
        Duration::from_millis(text.parse().unwrap_or(0))
    }
}

/// Waits until everything sent has arrived or failed, while the check says that it can.
fn settle(
    producer: &Producing,
    deadline: Instant,
    mut check: impl FnMut() -> Result<(), PublishError>,
) -> Result<(), PublishError> {
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            let late = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
            return Err(PublishError::ProducerLost(late.into()));
        }
        check()?;
        flush(producer, FAILED_LOOK.min(deadline.saturating_duration_since(Instant::now())));
        // Reports that nobody took yet count too.
        std::thread::sleep(DRAIN_LOOK);
    }
    Ok(())
}

/// Sends what waits in the queue without lingering, and waits for so long at most that all has arrived or failed.
/// rdkafka's own flush does not wait, and so may be over before the broker's thread sees it.
#[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
fn flush(producer: &Producing, limit: Duration) {
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the producer lives for as long as the call. What it answers is asked again by its callers.
    unsafe { native::rd_kafka_flush(producer.client().native_ptr(), limit_ms) };
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Channel;
    use crate::kafka::in_process::MockBroker;

    /// A lane to a broker in this process.
    fn scene() -> (MockBroker, Lane) {
        let name = |name: &str| name.to_owned();
        let topics = TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        };
        let broker = MockBroker::start().expect("a broker");
        for topic in [&topics.accepted_topic, &topics.rejected_topic, &topics.dead_letter_topic] {
            broker.create(topic, 1).expect("a topic");
        }
        let kafka = KafkaArgs {
            brokers: broker.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let mut lane = Lane::new(&kafka, &topics, name("a-lane"), Arc::new(Watchdog::start("a test")))
            .expect("a producer's settings");
        lane.init_transactions(&CancellationToken::new()).expect("a producer");
        (broker, lane)
    }

    fn event(channel: Channel, bytes: usize) -> Outgoing {
        Outgoing { channel, key: None, value: Some(vec![b'x'; bytes]), headers: Vec::new() }
    }

    #[test]
    fn a_topic_that_may_not_be_written_is_named_and_not_the_one_after_it() {
        let (broker, mut lane) = scene();
        lane.by_topic = true;
        let (rejected, accepted) = (event(Channel::Rejected, 10), event(Channel::Accepted, 10));
        broker.refuse_next_partitions();
        let refused =
            lane.publish(&PublishRequest { events: &[&rejected, &accepted], offsets: &[], group: &[] });
        let Err(PublishError::Refused(refusals)) = &refused else { panic!("{refused:?}") };
        let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
        assert!(refusal.index == 0 && refusal.is_for_topic(), "{refusal:?}");
    }

    #[test]
    fn a_record_larger_than_the_send_queue_is_refused_for_its_size_and_others_are_published() {
        let (_broker, mut lane) = scene();
        let room: usize = SEND_QUEUE_KIB.parse().expect("a number");
        let (small, large) = (event(Channel::Accepted, 10), event(Channel::DeadLetter, room * 1024 + 1));
        let begun = Instant::now();
        let refused = lane.publish(&PublishRequest { events: &[&small, &large], offsets: &[], group: &[] });
        let Err(PublishError::Refused(refusals)) = &refused else { panic!("{refused:?}") };
        let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
        assert!(refusal.index == 1 && refusal.is_for_size(), "{refusal:?}");
        assert!(begun.elapsed() < CALL_LIMIT, "it waited for room that never comes");
        lane.publish(&PublishRequest { events: &[&small], offsets: &[], group: &[] }).expect("published");
    }
}
