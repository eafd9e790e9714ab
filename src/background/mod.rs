//! What goes out beside the transactions: the levels, and the question whether a hold's time is over.
//!
//! Both are published from the ledger and may be published twice without harm, so a plain idempotent producer is enough, one for
//! the whole process.

mod hold_expiry;
mod level_feed;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

pub use level_feed::LevelChanges;
use level_feed::LevelFeed;

use crate::config::{KafkaArgs, TopicArgs};
use crate::kafka::sender::Sender;
use crate::store::{LedgerReader, WorkQueue};

/// Publishes levels and asks for the end of holds, until `stop`; then publishes what is still to be published, within bounds.
pub struct Background {
    sender: Arc<Sender>,
    level_feed: Option<LevelFeed>,
    queue: Arc<dyn WorkQueue>,
    orders_topic: String,
}

impl Background {
    /// With a producer of its own. Levels are published `delay` after they moved, at most; `None` publishes none.
    ///
    /// # Errors
    /// When a password file cannot be read, or the producer's configuration is refused.
    pub fn new(
        kafka: &KafkaArgs,
        topics: &TopicArgs,
        delay: Option<Duration>,
        reader: Arc<dyn LedgerReader>,
        queue: Arc<dyn WorkQueue>,
    ) -> Result<Self> {
        let sender = Arc::new(Sender::new(kafka, topics)?);
        let level_feed =
            delay.map(|delay| LevelFeed::new(Arc::clone(&sender), reader, Arc::clone(&queue), delay));
        Ok(Self { sender, level_feed, queue, orders_topic: topics.orders_topic.clone() })
    }

    /// Where the deciding stages say which levels moved.
    #[must_use]
    pub fn level_changes(&self) -> LevelChanges {
        self.level_feed.as_ref().map_or_else(LevelChanges::ignored, LevelFeed::level_changes)
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let asking = hold_expiry::ask(&*self.queue, &self.sender, &self.orders_topic, &stop);
        let publishing = async {
            if let Some(level_feed) = &self.level_feed {
                level_feed.run(&stop).await;
            }
        };
        tokio::join!(asking, publishing);
    }
}
