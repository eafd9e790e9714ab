//! The gate's producer: an order at a time, each with what became of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::{OnceCell, oneshot};

use super::error::ClientError;
use super::record::marked;
use super::renewed::RenewedProducer;
use crate::config::KafkaArgs;
use crate::event::Outgoing;

/// How long an order may be under way before its sender is told that nobody knows. A buyer waits.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(5);
/// How soon Kafka must have refused an order with those it was sent with, so that it is sent once more, alone, within
/// [`DELIVERY_LIMIT`]. Whoever refuses answers at once.
const ALONE_WITHIN: Duration = Duration::from_secs(2);
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
    config: ClientConfig,
    producer: RenewedProducer<Reports>,
    /// Sends each order by itself; there once one was refused with others.
    alone: OnceCell<RenewedProducer<Reports>>,
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
        let producer = RenewedProducer::new("orders", config.clone())?;
        Ok(Self { topic: topic.to_owned(), config, producer, alone: OnceCell::new() })
    }

    /// Sends an order, and waits until it is known what became of it, some seconds at most.
    ///
    /// Kafka refuses what is sent together as a whole, and so for its size each order of it, however small. So one that was
    /// refused for that is sent again alone: only then it is too large by itself.
    pub async fn send(&self, order: &Outgoing) -> Delivery {
        let begun = Instant::now();
        let answer = match self.hand_over(&self.producer, order) {
            Ok(answer) => answer,
            Err(error) => return Delivery::NotWritten(error),
        };
        let delivery = heard(answer).await;
        if !delivery.is_too_large() {
            return delivery;
        }
        // Nothing is the matter with it as far as is known.
        let with_others = KafkaError::MessageProduction(RDKafkaErrorCode::InvalidDifferentRecord);
        if begun.elapsed() > ALONE_WITHIN {
            return Delivery::NotWritten(with_others.into());
        }
        let answer = match self.alone.get_or_try_init(|| async { self.make_alone() }).await {
            Ok(alone) => self.hand_over(alone, order),
            Err(error) => {
                tracing::debug!("{error:#}");
                Err(with_others.into())
            }
        };
        match answer {
            Ok(answer) => heard(answer).await,
            Err(error) => Delivery::NotWritten(error),
        }
    }

    fn make_alone(&self) -> Result<RenewedProducer<Reports>> {
        tracing::warn!(
            topic = %self.topic,
            "Kafka refuses orders that are sent together for their size, and each is sent again alone, which is slow: give \
             the topic a larger max.message.bytes, or the gate a smaller batch.size (-X)"
        );
        let mut config = self.config.clone();
        config
            .set("batch.num.messages", "1")
            .set("message.timeout.ms", DELIVERY_LIMIT.saturating_sub(ALONE_WITHIN).as_millis().to_string());
        RenewedProducer::new("single orders", config)
    }

    /// Gives an order to a producer, which will say what became of it.
    fn hand_over(
        &self,
        producer: &RenewedProducer<Reports>,
        order: &Outgoing,
    ) -> Result<oneshot::Receiver<Delivery>, ClientError> {
        let (asker, answer) = oneshot::channel();
        let producer = producer.get().map_err(|error| {
            tracing::debug!("{error:#}");
            ClientError::from(KafkaError::MessageProduction(RDKafkaErrorCode::Fatal))
        })?;
        match producer.send(marked(order, &self.topic, Box::new(asker))) {
            Ok(()) => Ok(answer),
            Err((error, _)) => Err(error.into()),
        }
    }
}

async fn heard(answer: oneshot::Receiver<Delivery>) -> Delivery {
    // Dropped without a word only with the producer.
    answer.await.unwrap_or(Delivery::Unknown(ClientError::CLOSED))
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
        // With others, and alone.
        let too_large = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 2];
        cluster.request_errors(RDKafkaApiKey::Produce, &too_large);
        let refused = producer.send(&order(10)).await;
        assert!(refused.is_too_large(), "{refused:?}");
        assert!(matches!(producer.send(&order(10)).await, Delivery::Written), "the next is not held up");
    }

    #[tokio::test]
    async fn an_order_that_is_too_large_only_together_with_others_is_written_alone() {
        let (cluster, producer) = scene();
        assert!(matches!(producer.send(&order(10)).await, Delivery::Written));
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let alone = producer.send(&order(10)).await;
        assert!(matches!(alone, Delivery::Written), "{alone:?}");
        assert!(producer.alone.initialized() && matches!(producer.send(&order(10)).await, Delivery::Written));
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
