//! Results to Kafka, transactionally.
//!
//! Transactional calls block, so they live on a thread of their own.

mod lane;
mod refusal;
mod watchdog;

use std::sync::Arc;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

pub(super) use lane::TRANSACTION_TIMEOUT_MS;
use lane::{Lane, is_hang};
pub use refusal::{Refusal, RefusalCode};
pub use watchdog::{EXIT_HUNG, Watchdog};

use super::consumer::MemberName;
use super::error::ClientError;
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;
use crate::ledger::{NextOffset, TopicPartition};

/// What is added to a worker's transactional id for each of its producers. The first is the id itself.
const LANES: [&str; 2] = ["", "-b"];

/// Why a batch could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The transaction was aborted; the same producer can go on.
    #[error("the transaction was aborted: {0}")]
    Aborted(ClientError),
    /// The transaction was aborted, since Kafka refuses these records and always will; nothing else stands in the way.
    #[error("Kafka refuses {} of its records, the first for {}: {}", .0.len(), .0[0].topic, .0[0].why)]
    Refused(Vec<Refusal>),
    /// The transaction was aborted, and the same again would fare no better: fewer records must be published at once.
    #[error("the transaction was aborted, and fewer records must be published at once: {0}")]
    TooMany(ClientError),
    /// What became of the transaction is unknown, or the producer is broken: it must be made anew before anything else.
    #[error("the producer must be made anew: {0}")]
    ProducerLost(ClientError),
    /// Another instance took over this transactional id.
    #[error(
        "another instance uses transactional id {0:?} now: if it is not this one's successor, give each instance \
         its own --instance-id"
    )]
    Fenced(String),
}

/// Why a producer cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It cannot be made of its settings.
    #[error("the producer's configuration is refused")]
    Configuration(#[source] ClientError),
    /// Kafka cannot be reached in time or refuses its id, or it was stopped.
    #[error("cannot begin as transactional id {id:?}")]
    NotBegun {
        /// The id.
        id: String,
        /// Why not.
        #[source]
        why: ClientError,
    },
}

impl InitError {
    /// Whether it is a refusal, which the next try would meet again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let (Self::Configuration(why) | Self::NotBegun { why, .. }) = self;
        why.is_final_for_producer()
    }
}

/// What one transaction publishes.
pub struct PublishRequest<'a> {
    /// The results and dead letters.
    pub events: &'a [&'a Outgoing],
    /// How far each partition is published by them.
    pub offsets: &'a [(TopicPartition, NextOffset)],
    /// The memberships that the offsets are sent under, each its own; without one none are sent.
    pub group: &'a [MemberName],
}

/// The transactional producers of one worker, which take turns.
///
/// Kafka answers a commit before it has marked the transaction's end in every
/// partition, and until then refuses the producer's next transaction;
/// librdkafka asks again after 20 ms. With two producers, one's marks are
/// written while the other publishes. Still one transaction at a time: one begins
/// when the one before has committed.
pub struct Publisher {
    lanes: [Lane; LANES.len()],
    turn: usize,
}

impl Publisher {
    /// A publisher under this transactional id; it must [`Publisher::init_transactions`] before it publishes.
    ///
    /// # Errors
    /// When a password file cannot be read.
    pub fn new(kafka: &KafkaArgs, topics: &TopicArgs, transactional_id: &str) -> Result<Self> {
        let watchdog = Arc::new(Watchdog::start(transactional_id));
        let [first, second] = LANES
            .map(|lane| Lane::new(kafka, topics, format!("{transactional_id}{lane}"), Arc::clone(&watchdog)));
        Ok(Self { lanes: [first?, second?], turn: 0 })
    }

    /// Makes the producers that are missing, and ends whatever a predecessor with their transactional ids left open.
    ///
    /// # Errors
    /// When Kafka cannot be reached in time or refuses an id, or at a stop.
    pub fn init_transactions(&mut self, stop: &CancellationToken) -> Result<(), InitError> {
        self.lanes
            .iter_mut()
            .filter(|lane| !lane.is_ready())
            .try_for_each(|lane| lane.init_transactions(stop))
    }

    /// Publishes everything in one transaction, with the offsets.
    ///
    /// # Errors
    /// [`PublishError`] says what must be done before publishing again.
    pub fn publish(&mut self, publishing: &PublishRequest<'_>) -> Result<(), PublishError> {
        let lane = &mut self.lanes[self.turn];
        self.turn = (self.turn + 1) % LANES.len();
        let published = lane.publish(publishing);
        match &published {
            // What hangs is the way to the group's coordinator: the other producer remembers the same one, which may be gone,
            // and would hang as long.
            Err(PublishError::ProducerLost(error)) if is_hang(error) => {
                self.lanes.iter_mut().for_each(Lane::give_up);
            }
            Err(PublishError::ProducerLost(_)) => lane.give_up(),
            _ => {}
        }
        published
    }
}
