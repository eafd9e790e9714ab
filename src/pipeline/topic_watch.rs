//! Notices a topic that is deleted or made anew while it is read.
//!
//! librdkafka takes a topic made anew for the one it was, and goes on at the old offsets. So somebody asks Kafka which
//! topics the names mean, again and again: one client for the process, beside the threads that read.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::config::{KafkaArgs, TopicArgs};
use crate::kafka::asker::Asker;
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::{LedgerWriter, Position};

/// How often Kafka is asked. It is also about how long records of a topic made anew may be taken for the old one's, if it
/// is longer than the old one by then; and one small request for the whole process.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait at start for partitions that the ledger knows: ones just added are not known to every broker yet.
const PARTITIONS_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for them.
const PARTITIONS_LOOK: Duration = Duration::from_millis(100);

/// What Kafka said last of each topic that is read.
type Said = Arc<[(String, Described)]>;

/// Asks Kafka which topics the names mean.
pub(super) struct TopicWatch {
    question: Arc<Question>,
    said: watch::Sender<Said>,
}

/// What is asked, and who asks. Every call blocks.
struct Question {
    asker: Asker,
    names: Vec<String>,
}

impl Question {
    fn ask(&self) -> Result<Said> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Ok(self.names.iter().cloned().zip(self.asker.describe(&names)?).collect())
    }
}

impl TopicWatch {
    /// Watches the topics that commands come by.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn new(kafka: &KafkaArgs, topics: &TopicArgs) -> Result<Self> {
        let asker = Asker::new(kafka, "stock-verifier-topics", None)?;
        let names = topics.read().map(str::to_owned).to_vec();
        Ok(Self { question: Arc::new(Question { asker, names }), said: watch::Sender::new(Arc::default()) })
    }

    /// Refuses a ledger that has positions on partitions that are no more: what comes next there is in a topic that was
    /// deleted. With `accept_data_loss` they are written off, so that they are not refused again.
    ///
    /// # Errors
    /// When there are such, or Kafka or the database cannot be asked.
    pub(super) async fn check_partitions(
        &self,
        store: &dyn LedgerWriter,
        accept_data_loss: bool,
    ) -> Result<()> {
        let begun = tokio::time::Instant::now();
        let (said, lost) = loop {
            let question = Arc::clone(&self.question);
            let said =
                spawn_blocking(move || question.ask()).await.context("asking for topics panicked")??;
            let positions = store.all_positions().await?;
            let lost: Vec<_> =
                positions.into_iter().filter(|(at, position)| is_lost(&said, at, position)).collect();
            if lost.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > PARTITIONS_LIMIT {
                break (said, lost);
            }
            tokio::time::sleep(PARTITIONS_LOOK).await;
        };
        let mut names: Vec<String> = lost.iter().map(|(at, was)| format!("{at} at {}", was.next)).collect();
        names.sort_unstable();
        let names = names.join(", ");
        if !accept_data_loss {
            bail!(
                "the ledger has positions on partitions that are no more: {names}. A topic never loses partitions, so \
                 it was deleted and made anew with fewer: what of the old one was not decided is gone. Start with \
                 --accept-data-loss to go on without"
            );
        }
        tracing::warn!("going on after accepted data loss, without partitions that are no more: {names}");
        for (at, was) in lost {
            let described = said.iter().find(|(name, _)| **name == *at.topic).map(|(_, described)| described);
            let topic_id = described.and_then(Described::id).cloned().or_else(|| was.topic_id.clone());
            // The topic there is has nothing there: should it grow, that is where it begins.
            let beginning = NextOffset(0);
            let now = Position { next: beginning, published: Some(beginning), topic_id };
            store.set_position(&at, Some(&was), &now).await?;
        }
        Ok(())
    }

    /// What Kafka says, as long as it is asked.
    #[must_use]
    pub(super) fn listen(&self) -> TopicNews {
        TopicNews::of(&self.said)
    }

    /// Asks until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { question, said } = self;
        let asking = async {
            loop {
                tokio::time::sleep(PERIOD).await;
                let question = Arc::clone(&question);
                match spawn_blocking(move || question.ask()).await {
                    Ok(Ok(answer)) => drop(said.send_replace(answer)),
                    Ok(Err(error)) => tracing::debug!("{error:#}"),
                    Err(panicked) => tracing::error!(%panicked, "asking for topics"),
                }
            }
        };
        // A question under way ends by itself; nobody waits for its answer.
        let _: Option<std::convert::Infallible> = stop.run_until_cancelled(asking).await;
        // The end of a client can block.
        drop(spawn_blocking(move || drop(question)));
    }
}

/// Whether a position is on a partition that its topic does not have. Where nothing was applied nothing is lost.
fn is_lost(said: &Said, at: &TopicPartition, position: &Position) -> bool {
    position.next > NextOffset(0)
        && said.iter().any(|(name, described)| {
            **name == *at.topic
                && matches!(described, Described::There { partitions, .. } if *partitions <= at.partition)
        })
}

/// What Kafka says of the topics, for one who reads them.
#[derive(Clone)]
pub struct TopicNews(watch::Receiver<Said>);

impl TopicNews {
    /// Nobody asks Kafka: there are no news.
    #[must_use]
    pub fn none() -> Self {
        Self(watch::Sender::new(Said::default()).subscribe())
    }

    /// What this sender says from now on, in place of Kafka: simulations have one.
    #[must_use]
    pub fn of(said: &watch::Sender<Arc<[(String, Described)]>>) -> Self {
        Self(said.subscribe())
    }

    /// Waits for an answer that is not known yet; for ever when nobody asks any more. A wait that is cut short loses
    /// nothing.
    pub(super) async fn changed(&mut self) -> Said {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.0.borrow_and_update())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_lost_where_its_topic_has_no_such_partition() {
        let said: Said = [
            ("orders".to_owned(), Described::There { id: None, partitions: 6 }),
            ("stock".to_owned(), Described::NotPermitted),
        ]
        .into();
        let lost = |topic: &str, partition, next| {
            let position = Position { next: NextOffset(next), published: None, topic_id: None };
            is_lost(&said, &TopicPartition::new(topic, partition), &position)
        };
        assert!(lost("orders", 6, 1));
        assert!(!lost("orders", 5, 1));
        assert!(!lost("orders", 6, 0), "nothing was there");
        assert!(!lost("stock", 6, 1), "nobody knows");
        assert!(!lost("another", 6, 1), "not a topic of this verifier");
    }
}
