//! A broker in this process, librdkafka's mock, with a producer and a reader that need no group: what the demo runs on.
//!
//! What the mock is not: it shows readers the records of aborted and open
//! transactions, keeps no offsets sent in a transaction, and drops the oldest
//! records of a partition past about 5 MiB.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::consumer::own;
use super::offsets::list_at;
use crate::config::KafkaArgs;
use crate::event::Record;
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};
use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

/// Longest wait for a partition's end.
const WATERMARK_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the last records to arrive.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How often to look whether there is room again.
const LOOK: Duration = Duration::from_micros(500);

/// A running mock broker; it ends when this is dropped.
pub struct MockBroker(MockCluster<'static, DefaultProducerContext>);

impl MockBroker {
    /// Starts it.
    ///
    /// # Errors
    /// When no local port can be opened.
    pub fn start() -> Result<Self> {
        Ok(Self(MockCluster::new(1).context("cannot start the broker in this process")?))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        self.0.create_topic(topic, partitions, 1).with_context(|| format!("cannot create the topic {topic}"))
    }

    /// Refuses the next request of a producer: its records are taken for bad.
    #[cfg(test)]
    pub(crate) fn refuse_next_records(&self) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD];
        self.0.request_errors(RDKafkaApiKey::Produce, &refused);
    }

    /// Lets no producer write to the partitions that its transaction asks for next.
    #[cfg(test)]
    pub(crate) fn refuse_next_partitions(&self) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        self.0.request_errors(RDKafkaApiKey::AddPartitionsToTxn, &refused);
    }

    /// Refuses the next commits of offsets, as while members join a group.
    #[cfg(test)]
    pub(crate) fn refuse_next_commits(&self, count: usize) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

        let refused = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; count];
        self.0.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    }

    /// Where it listens.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// Counts records the broker did not take.
#[derive(Default)]
struct Refused(AtomicU64);

impl ClientContext for Refused {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "a plain producer");
    }
}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer without transactions, as a shop has one.
pub struct ShopProducer(ThreadedProducer<Refused>);

impl ShopProducer {
    /// Under this client id.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, client_id: &str) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", client_id)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "2");
        Ok(Self(config.create_with_context(Refused::default()).context("cannot make a producer")?))
    }

    /// Sends a record; waits while the queue is full.
    ///
    /// # Errors
    /// When it is refused at once.
    pub fn send(&self, topic: &str, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key);
        record.payload = value;
        while let Err((error, back)) = self.0.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot produce an order");
            }
            record = back;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until all has arrived.
    ///
    /// # Errors
    /// When something has not, or was refused.
    pub fn finish(self) -> Result<()> {
        self.0.flush(FLUSH_LIMIT).context("the last orders did not reach the broker")?;
        match self.0.context().0.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => bail!("the broker refused {refused} records"),
        }
    }
}

/// Reads partitions from their beginning, and goes on with what comes; it joins nothing and commits nothing.
pub struct Tail(BaseConsumer);

impl Tail {
    /// Of these partitions, each from this offset on.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, client_id: &str, from: &[(TopicPartition, NextOffset)]) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", client_id)
            // Needed to make a consumer.
            .set("group.id", client_id)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed");
        kafka.overlay(&mut config);
        let consumer: BaseConsumer = config.create().context("cannot make the consumer that reads back")?;
        consumer.assign(&list_at(from)?).context("cannot read the topics back")?;
        Ok(Self(consumer))
    }

    /// The next record, if one comes in time.
    ///
    /// # Errors
    /// What the client says; it goes on all the same.
    pub fn poll(&self, wait: Duration) -> Result<Option<Record>> {
        use rdkafka::message::Message as _;
        let Some(message) = self.0.poll(wait) else { return Ok(None) };
        let message = message?;
        let at = TopicPartition::new(message.topic(), message.partition());
        let source = Source { at, offset: Offset(message.offset()) };
        Ok(Some(own(&message, source).0))
    }

    /// Where a partition ends now.
    ///
    /// # Errors
    /// When the broker does not say.
    pub fn end(&self, at: &TopicPartition) -> Result<NextOffset> {
        let (_, high) = self
            .0
            .fetch_watermarks(&at.topic, at.partition, WATERMARK_LIMIT)
            .with_context(|| format!("cannot read where {at} ends"))?;
        Ok(NextOffset(high))
    }
}
