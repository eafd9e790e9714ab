//! One transactional producer: begin, send, offsets, commit, and what each error means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{TellError, Telling, Watchdog, record, topic};
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;

/// How long Kafka leaves a transaction open when its producer falls silent. Short, because it is how long a killed
/// instance's partitions stay unreadable; long enough, because a transaction begins after the database's commit.
const TRANSACTION_TIMEOUT_MS: &str = "10000";
/// Longest wait for one transactional call; more than the transaction can live, so past it the outcome is unknown.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for the offsets to be taken: as long as Kafka leaves the transaction open. It can hang past that.
const OFFSETS_LIMIT: Duration = Duration::from_secs(10);
/// Added to that limit before the call is abandoned, and the producer with it.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);
/// Longest wait for the producer id, which waits for a predecessor's transaction to end.
const FENCE_LIMIT: Duration = Duration::from_secs(60);
/// Added to a call's own limit before the watchdog calls it hung.
const HUNG_AFTER: Duration = Duration::from_secs(30);
/// Most tries of one call that says it can be called again.
const CALL_TRIES: usize = 10;
/// How often to look whether everything sent has arrived, or whether the send queue has room again.
const DRAIN_LOOK: Duration = Duration::from_micros(200);
/// Records waiting to be sent at most; a transaction's results fit, or sending waits.
const SEND_QUEUE_RECORDS: &str = "50000";
/// KiB waiting to be sent at most.
const SEND_QUEUE_KIB: &str = "32768";
/// Largest record sent, in bytes: all that librdkafka can. What is too large the topic says (max.message.bytes); with
/// librdkafka's own default of 1 MB the dead letter of a large record could not be sent, and its batch never be told.
const LARGEST_RECORD: &str = "1000000000";

/// A producer under one transactional id.
pub(super) struct Lane {
    config: ClientConfig,
    transactional_id: String,
    topics: TopicArgs,
    watchdog: Arc<Watchdog>,
    producer: Option<ThreadedProducer<Log>>,
    /// When the transaction in hand was begun.
    begun: Instant,
}

struct Log;

impl ClientContext for Log {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Log {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // The transaction cannot commit any more, which is where it is handled; a batch would be a flood here.
            tracing::debug!(%error, "a result was not delivered");
        }
    }
}

impl Lane {
    /// A producer under this transactional id; it must be fenced before it tells.
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
            .set("linger.ms", "0.5")
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
        })
    }

    /// Whether nothing stands in the way of telling.
    pub(super) fn is_fenced(&self) -> bool {
        self.producer.is_some()
    }

    /// Gives the producer up: what became of its transaction is unknown.
    pub(super) fn give_up(&mut self) {
        if let Some(old) = self.producer.take() {
            self.watchdog.guard(HUNG_AFTER, || drop(old));
        }
    }

    /// Makes the producer anew and ends whatever a predecessor with this transactional id left open.
    ///
    /// # Errors
    /// When Kafka cannot be reached in time or refuses the id.
    pub(super) fn fence(&mut self) -> Result<()> {
        self.give_up();
        let producer: ThreadedProducer<Log> =
            self.config.create_with_context(Log).context("the producer's configuration is refused")?;
        self.watchdog
            .guard(FENCE_LIMIT + HUNG_AFTER, || producer.init_transactions(FENCE_LIMIT))
            .with_context(|| format!("cannot begin as transactional id {:?}", self.transactional_id))?;
        self.producer = Some(producer);
        Ok(())
    }

    /// Tells everything in one transaction, with the offsets.
    ///
    /// # Errors
    /// [`TellError`] says what must be done before telling again.
    pub(super) fn tell(&mut self, telling: &Telling<'_>) -> Result<(), TellError> {
        self.begun = Instant::now();
        let Some(producer) = &self.producer else {
            return Err(TellError::Renew(KafkaError::Canceled));
        };
        self.call(|| producer.begin_transaction())?;
        let told = self.send(producer, telling.events).and_then(|()| self.end(producer, telling));
        match told {
            Err(TellError::Undone(cause)) => Err(self.undo(producer, cause)),
            told => told,
        }
    }

    fn send(&self, producer: &ThreadedProducer<Log>, events: &[Outgoing]) -> Result<(), TellError> {
        let deadline = Instant::now() + CALL_LIMIT;
        for event in events {
            let mut record = record(event, topic(&self.topics, event.channel));
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((error, back))
                        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                            && Instant::now() < deadline =>
                    {
                        record = back;
                        std::thread::sleep(DRAIN_LOOK);
                    }
                    Err((error, _)) => return Err(TellError::Undone(error)),
                }
            }
        }
        Ok(())
    }

    fn end(&self, producer: &ThreadedProducer<Log>, telling: &Telling<'_>) -> Result<(), TellError> {
        // Anything still in flight makes the commit wait in slices of 100 ms.
        drain(producer)?;
        for (member, share) in telling.group.iter().flat_map(|group| group.shares(telling.offsets)) {
            let mut offsets = TopicPartitionList::with_capacity(share.len());
            for (at, next) in share {
                offsets
                    .add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))
                    .map_err(TellError::Undone)?;
            }
            self.call(|| self.send_offsets(producer, &offsets, member))?;
            drain(producer)?;
        }
        self.call_once(|| producer.commit_transaction(CALL_LIMIT))
    }

    /// Sends the offsets; when that hangs, the call and its producer are abandoned.
    fn send_offsets(
        &self,
        producer: &ThreadedProducer<Log>,
        offsets: &TopicPartitionList,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> KafkaResult<()> {
        let (producer, offsets, group) = (producer.clone(), offsets.clone(), Arc::clone(group));
        let sent = self.watchdog.abandon_after(OFFSETS_LIMIT + ABANDONED_AFTER, move || {
            producer.send_offsets_to_transaction(&offsets, &group, OFFSETS_LIMIT)
        });
        sent.unwrap_or_else(|| {
            tracing::warn!(id = self.transactional_id, "sending offsets hangs; its producer is abandoned");
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut))
        })
    }

    /// Undoes the transaction; what remains is the error to report.
    fn undo(&self, producer: &ThreadedProducer<Log>, cause: KafkaError) -> TellError {
        // Aborting with records in flight has gone wrong before (librdkafka#4849).
        let undone = drain(producer).and_then(|()| self.call(|| producer.abort_transaction(CALL_LIMIT)));
        match undone {
            Ok(()) => TellError::Undone(cause),
            Err(fenced @ TellError::Fenced(_)) => fenced,
            Err(TellError::Undone(error) | TellError::Renew(error)) => {
                tracing::warn!(%error, "the transaction could not be undone");
                TellError::Renew(cause)
            }
        }
    }

    /// Makes a call, and again while it says that it may be.
    fn call(&self, call: impl Fn() -> KafkaResult<()>) -> Result<(), TellError> {
        let mut last = Ok(());
        for _ in 0..CALL_TRIES {
            last = self.watchdog.guard(CALL_LIMIT + HUNG_AFTER, &call);
            match &last {
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && !error.txn_requires_abort() =>
                {
                    tracing::info!(%error, "a transactional call is made again");
                }
                _ => break,
            }
        }
        last.map_err(|error| self.judge(error))
    }

    /// Makes a call that must not be repeated: after an unknown end the producer is not used again (librdkafka#5423).
    fn call_once(&self, call: impl Fn() -> KafkaResult<()>) -> Result<(), TellError> {
        self.watchdog.guard(CALL_LIMIT + HUNG_AFTER, &call).map_err(|error| self.judge(error))
    }

    /// What an error means for the producer.
    fn judge(&self, error: KafkaError) -> TellError {
        let KafkaError::Transaction(inner) = &error else { return TellError::Renew(error) };
        match inner.code() {
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
                // Kafka fences the producer of a transaction that it ended itself for its age, after a long outage say.
                if !inner.txn_requires_abort() && self.begun.elapsed() < self.transaction_timeout() =>
            {
                TellError::Fenced(self.transactional_id.clone())
            }
            _ if inner.txn_requires_abort() => TellError::Undone(error),
            _ => TellError::Renew(error),
        }
    }

    fn transaction_timeout(&self) -> Duration {
        let text = self.config.get("transaction.timeout.ms").unwrap_or(TRANSACTION_TIMEOUT_MS);
        // What is no number was refused when the producer was made.
        Duration::from_millis(text.parse().unwrap_or(0))
    }
}

/// Waits until everything sent has arrived or failed.
fn drain(producer: &ThreadedProducer<Log>) -> Result<(), TellError> {
    let deadline = Instant::now() + CALL_LIMIT;
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            return Err(TellError::Renew(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
        }
        std::thread::sleep(DRAIN_LOOK);
    }
    Ok(())
}
