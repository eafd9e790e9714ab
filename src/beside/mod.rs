//! What goes out beside the transactions: the levels, and the question whether a hold's time is over.
//!
//! Both are told from the ledger and may be told twice without harm, so a plain idempotent producer is enough, one for
//! the whole process.

mod holds;
mod levels;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use levels::Announcer;
pub use levels::LevelChanges;
pub(crate) use sender::{Lost, Sender};

use crate::config::{KafkaArgs, TopicArgs};
use crate::store::Store;

/// Tells levels and asks for the end of holds, until `stop`; then tells what is still to be told, within bounds.
pub struct Beside {
    sender: Arc<Sender>,
    announcer: Option<Announcer>,
    store: Arc<dyn Store>,
    orders_topic: String,
}

impl Beside {
    /// With a producer of its own. Levels are told `delay` after they moved, at most; `None` tells none.
    ///
    /// # Errors
    /// When a password file cannot be read, or the producer's configuration is refused.
    pub fn new(
        kafka: &KafkaArgs,
        topics: &TopicArgs,
        delay: Option<Duration>,
        store: Arc<dyn Store>,
    ) -> Result<Self> {
        let sender = Arc::new(Sender::new(kafka, topics)?);
        let announcer = delay.map(|delay| Announcer::new(Arc::clone(&sender), Arc::clone(&store), delay));
        Ok(Self { sender, announcer, store, orders_topic: topics.orders_topic.clone() })
    }

    /// Where the deciding stages say which levels moved.
    #[must_use]
    pub fn level_changes(&self) -> LevelChanges {
        self.announcer.as_ref().map_or_else(LevelChanges::ignored, Announcer::level_changes)
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let asking = holds::ask(&*self.store, &self.sender, &self.orders_topic, &stop);
        let telling = async {
            if let Some(announcer) = &self.announcer {
                announcer.run(&stop).await;
            }
        };
        tokio::join!(asking, telling);
    }
}
