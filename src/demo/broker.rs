//! The broker in this process: librdkafka's mock.
//!
//! What it is not: it shows readers the records of aborted and open
//! transactions, keeps no offsets sent in a transaction, and drops the oldest
//! records of a partition past about 5 MiB. So everything here is fed no
//! faster than it is read, and nobody is told that this proves Kafka's part.

use anyhow::Result;

use crate::config::{KafkaArgs, Property, TopicArgs};
use crate::kafka::in_process::MockBroker;

/// Partitions of the topics that carry every order or its result: enough to mix orders of many partitions in a batch.
pub(super) const PARTITIONS: i32 = 6;
/// Partitions of the dead letters' topic.
const LETTER_PARTITIONS: i32 = 1;
/// The mock answers an empty fetch only when this time is over, even if a record comes meanwhile: so it is the latency.
const FETCH_WAIT_MS: &str = "5";

/// After how long without a heartbeat a member is thrown out. Whenever one joins again, the mock waits for the others for a
/// second less than that, also when all are there. And more than the 3 s that it lets a first member wait.
const SESSION_MS: &str = "5000";

/// A running mock broker; it ends when this is dropped.
pub(super) struct Broker {
    /// How the verifier reaches it.
    pub kafka: KafkaArgs,
    /// The topics on it.
    pub topics: TopicArgs,
    #[cfg_attr(not(test), expect(dead_code, reason = "held because it ends when dropped"))]
    pub(super) mock: MockBroker,
}

impl Broker {
    /// Starts the broker and creates the topics.
    ///
    /// # Errors
    /// When no local port can be opened.
    pub(super) fn start() -> Result<Self> {
        let mock = MockBroker::start()?;
        let topics = TopicArgs {
            orders_topic: "orders".to_owned(),
            adjustments_topic: "stock-adjustments".to_owned(),
            accepted_topic: "stock.accepted".to_owned(),
            rejected_topic: "stock.rejected".to_owned(),
            levels_topic: "stock.levels".to_owned(),
            dead_letter_topic: "orders.dlq".to_owned(),
        };
        for (topic, partitions) in [
            (&topics.orders_topic, PARTITIONS),
            (&topics.adjustments_topic, PARTITIONS),
            (&topics.accepted_topic, PARTITIONS),
            (&topics.rejected_topic, PARTITIONS),
            (&topics.levels_topic, PARTITIONS),
            (&topics.dead_letter_topic, LETTER_PARTITIONS),
        ] {
            mock.create(topic, partitions)?;
        }
        let kafka = KafkaArgs {
            brokers: mock.bootstrap_servers(),
            kafka_password_file: None,
            properties: vec![
                Property::new("fetch.wait.max.ms", FETCH_WAIT_MS),
                Property::new("session.timeout.ms", SESSION_MS),
                // No static member, for the mock cannot be asked whether one has left.
                Property::new("group.instance.id", ""),
            ],
        };
        Ok(Self { kafka, topics, mock })
    }

    /// The topics that are read back, each with its partitions.
    #[must_use]
    pub(super) fn read_back(&self) -> Vec<(String, i32)> {
        vec![
            (self.topics.orders_topic.clone(), PARTITIONS),
            (self.topics.accepted_topic.clone(), PARTITIONS),
            (self.topics.rejected_topic.clone(), PARTITIONS),
            (self.topics.dead_letter_topic.clone(), LETTER_PARTITIONS),
        ]
    }
}
