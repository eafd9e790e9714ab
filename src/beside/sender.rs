//! A plain producer: sends, and waits until all of it has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;
use crate::ledger::TopicPartition;
use crate::publish::{record, topic};

/// How long a record may be under way before it counts as lost, and is told again later.
const MESSAGE_TIMEOUT_MS: &str = "10000";
/// Longest wait for everything sent to arrive or fail: past it librdkafka itself has given up on all of it.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(15);
/// The pause when the send queue is full.
const ROOM_LOOK: Duration = Duration::from_millis(1);
/// Records waiting to be sent at most.
const SEND_QUEUE_RECORDS: &str = "50000";
/// KiB waiting to be sent at most.
const SEND_QUEUE_KIB: &str = "16384";

/// An idempotent producer without transactions.
pub(crate) struct Sender {
    producer: ThreadedProducer<Lost>,
    topics: TopicArgs,
}

/// Counts what did not arrive.
#[derive(Default)]
struct Lost(AtomicUsize);

impl ClientContext for Lost {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer of levels");
    }
}

impl ProducerContext for Lost {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.fetch_add(1, Ordering::SeqCst);
            tracing::debug!(%error, "a record was not delivered");
        }
    }
}

impl Sender {
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub(crate) fn new(kafka: &KafkaArgs, topics: &TopicArgs) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", "stock-verifier-levels")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", SEND_QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", SEND_QUEUE_KIB)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("delivery.report.only.error", "true");
        kafka.overlay(&mut config);
        // Keeps the order of a partition's records, also over a retry: the newest level is the last.
        config.set("enable.idempotence", "true");
        let producer =
            config.create_with_context(Lost::default()).context("the producer's configuration is refused")?;
        Ok(Self { producer, topics: topics.clone() })
    }

    /// Sends, each to its channel's topic or to a partition of its own, and waits until all has arrived. On a thread
    /// of its own.
    ///
    /// # Errors
    /// When not all of it arrived, or of what another call sent meanwhile; which of it did is unknown.
    pub(crate) async fn send(
        self: &Arc<Self>,
        events: Vec<(Outgoing, Option<TopicPartition>)>,
    ) -> Result<()> {
        let sender = Arc::clone(self);
        tokio::task::spawn_blocking(move || sender.send_blocking(&events))
            .await
            .context("sending panicked")?
    }

    fn send_blocking(&self, events: &[(Outgoing, Option<TopicPartition>)]) -> Result<()> {
        let lost_before = self.producer.context().0.load(Ordering::SeqCst);
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        for (event, at) in events {
            let mut record = match at {
                Some(at) => record(event, &at.topic).partition(at.partition),
                None => record(event, topic(&self.topics, event.channel)),
            };
            while let Err((error, back)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull)
                    || Instant::now() > deadline
                {
                    return Err(error).context("cannot send");
                }
                record = back;
                std::thread::sleep(ROOM_LOOK);
            }
        }
        self.producer.flush(ARRIVAL_LIMIT).context("not everything arrived")?;
        let lost = self.producer.context().0.load(Ordering::SeqCst) - lost_before;
        if lost > 0 {
            bail!("{lost} of {} records did not arrive", events.len());
        }
        Ok(())
    }
}
