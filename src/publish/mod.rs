//! Results to Kafka, transactionally.
//!
//! Transactional calls block, so they live on a thread of their own.

mod decided;
mod lane;
mod record;
mod watchdog;

use std::sync::Arc;

use anyhow::Result;
use rdkafka::error::KafkaError;

pub use decided::Decided;
use lane::Lane;
pub(crate) use record::{record, topic};
pub use watchdog::{EXIT_HUNG, Watchdog};

use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;
use crate::intake::Speaking;
use crate::ledger::{NextOffset, TopicPartition};

/// What is added to a worker's transactional id for each of its producers. The first is the id itself.
const LANES: [&str; 2] = ["", "-b"];

/// Why a batch could not be told.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The transaction was undone; the same producer can go on.
    #[error("the transaction was undone: {0}")]
    Undone(KafkaError),
    /// What became of the transaction is unknown, or the producer is broken: it must be made anew before anything else.
    #[error("the producer must be made anew: {0}")]
    Renew(KafkaError),
    /// Another instance took over this transactional id.
    #[error(
        "another instance uses transactional id {0:?} now: if it is not this one's successor, give each instance \
         its own --instance-id"
    )]
    Fenced(String),
}

/// What one transaction tells.
pub struct Telling<'a> {
    /// The results and dead letters.
    pub events: &'a [Outgoing],
    /// How far each partition is told by them.
    pub offsets: &'a [(TopicPartition, NextOffset)],
    /// The memberships that the offsets are sent under; without one none are sent.
    pub group: Option<Speaking>,
}

/// The transactional producers of one worker, which take turns.
///
/// Kafka answers a commit before it has marked the transaction's end in every
/// partition, and until then refuses the producer's next transaction;
/// librdkafka asks again after 20 ms. With two producers, one's marks are
/// written while the other tells. Still one transaction at a time: one begins
/// when the one before has committed.
pub struct Publisher {
    lanes: [Lane; LANES.len()],
    turn: usize,
}

impl Publisher {
    /// A publisher under this transactional id; it must [`Publisher::fence`] before it tells.
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
    /// When Kafka cannot be reached in time or refuses an id.
    pub fn fence(&mut self) -> Result<()> {
        self.lanes.iter_mut().filter(|lane| !lane.is_fenced()).try_for_each(Lane::fence)
    }

    /// Tells everything in one transaction, with the offsets.
    ///
    /// # Errors
    /// [`TellError`] says what must be done before telling again.
    pub fn tell(&mut self, telling: &Telling<'_>) -> Result<(), TellError> {
        let lane = &mut self.lanes[self.turn];
        self.turn = (self.turn + 1) % LANES.len();
        let told = lane.tell(telling);
        if let Err(TellError::Renew(_)) = told {
            lane.give_up();
        }
        told
    }
}
