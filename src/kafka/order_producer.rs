//! The gate's producer: an order at a time, each with what became of it.

use std::time::Duration;

use anyhow::Result;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::oneshot;

use super::error::ClientError;
use super::record::marked;
use super::renewed::RenewedProducer;
use crate::config::KafkaArgs;
use crate::event::Outgoing;

/// How long an order may be under way before its sender is told that nobody knows. A buyer waits.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(5);
/// How long an order waits for others to be sent with it, in milliseconds: under load that makes batches, which cost the
/// broker less.
const LINGER_MS: &str = "2";
/// Orders waiting to be sent at most: past it Kafka is away or slow, and the next is told so at once.
const SEND_QUEUE_ORDERS: &str = "20000";
/// KiB of them.
const SEND_QUEUE_KIB: &str = "65536";
/// The longest pause before a broker is connected to anew, in milliseconds: librdkafka tells of an order that is late only
/// between two tries, and its own ten seconds are longer than the order may take.
const RECONNECT_MAX_MS: &str = "1000";

/// What became of an order.
#[derive(Debug)]
pub enum Delivery {
    /// Kafka has it.
    Written,
    /// Kafka does not have it, and will not: it was never handed over, or refused by itself.
    NotWritten(ClientError),
    /// Kafka may have it.
    Unknown(ClientError),
}

impl Delivery {
    /// Whether it is too large for its topic.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::NotWritten(error) if error.code() == Some(RDKafkaErrorCode::MessageSizeTooLarge))
    }
}

/// Hands the word on each order to who waits for it.
#[derive(Default)]
struct Reports;

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer of orders");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Delivery>>;
    fn delivery(&self, result: &DeliveryResult<'_>, asker: Self::DeliveryOpaque) {
        let delivery = match result {
            Ok(_) => Delivery::Written,
            Err((error, _)) if is_refusal(error) => Delivery::NotWritten(error.clone().into()),
            Err((error, _)) => Delivery::Unknown(error.clone().into()),
        };
        // Who asked may have gone.
        let _ = asker.send(delivery);
    }
}

/// Whether Kafka answered that it does not take this very record.
fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

/// An idempotent producer of orders.
pub struct OrderProducer {
    topic: String,
    producer: RenewedProducer<Reports>,
}

impl OrderProducer {
    /// To this topic.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, topic: &str) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", "stock-verifier-gate")
            .set("linger.ms", LINGER_MS)
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", SEND_QUEUE_ORDERS)
            .set("queue.buffering.max.kbytes", SEND_QUEUE_KIB)
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS);
        kafka.overlay(&mut config);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As Java's clients choose it: an order stands beside what follows it, whoever sends that.
            .set("partitioner", "murmur2_random")
            // An entry ends by a bound that is longer.
            .set("message.timeout.ms", DELIVERY_LIMIT.as_millis().to_string())
            .set("delivery.report.only.error", "false");
        Ok(Self { topic: topic.to_owned(), producer: RenewedProducer::new("orders", config)? })
    }

    /// Sends an order, and waits until it is known what became of it, some seconds at most.
    pub async fn send(&self, order: &Outgoing) -> Delivery {
        let (asker, answer) = oneshot::channel();
        {
            let producer = match self.producer.get() {
                Ok(producer) => producer,
                Err(error) => {
                    tracing::debug!("{error:#}");
                    return Delivery::NotWritten(
                        KafkaError::MessageProduction(RDKafkaErrorCode::Fatal).into(),
                    );
                }
            };
            if let Err((error, _)) = producer.send(marked(order, &self.topic, Box::new(asker))) {
                return Delivery::NotWritten(error.into());
            }
        }
        // Dropped without a word only with the producer.
        answer.await.unwrap_or(Delivery::Unknown(ClientError::CLOSED))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::event::{TraceContext, submitted};
    use crate::ledger::Id;

    /// Kafka's part in these tests is to take records or not; nothing here is about exactness.
    fn scene() -> (MockCluster<'static, DefaultProducerContext>, OrderProducer) {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("o", 2, 1).expect("a topic");
        let kafka = KafkaArgs {
            brokers: cluster.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let producer = OrderProducer::new(&kafka, "o").expect("a producer");
        (cluster, producer)
    }

    fn order(bytes: usize) -> Outgoing {
        submitted(&Id::new("o-1").expect("an id"), &vec![b' '; bytes], TraceContext::NONE)
    }

    #[tokio::test]
    async fn it_is_told_whether_an_order_was_written_and_whether_it_cannot_be() {
        let (cluster, producer) = scene();
        assert!(matches!(producer.send(&order(10)).await, Delivery::Written));
        let large = producer.send(&order(2_000_000)).await;
        assert!(large.is_too_large(), "{large:?}");
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let refused = producer.send(&order(10)).await;
        assert!(refused.is_too_large(), "{refused:?}");
        assert!(matches!(producer.send(&order(10)).await, Delivery::Written), "the next is not held up");
    }

    #[tokio::test]
    async fn what_is_not_answered_in_time_may_have_been_written() {
        let (cluster, producer) = scene();
        assert!(matches!(producer.send(&order(10)).await, Delivery::Written));
        cluster.broker_down(1).expect("the broker goes");
        let begun = std::time::Instant::now();
        let unknown = producer.send(&order(10)).await;
        assert!(matches!(unknown, Delivery::Unknown(_)), "{unknown:?}");
        assert!(begun.elapsed() < DELIVERY_LIMIT * 2, "it took {:?}", begun.elapsed());
    }
}
