//! Asking Kafka about partitions: those that do not answer are left out, and hold up no others.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::spawn_blocking;

use crate::config::KafkaArgs;
use crate::kafka::topics::{Answered, Topics};
use crate::ledger::TopicPartition;

/// What a gate calls itself in Kafka.
pub const CLIENT_ID: &str = "stock-verifier-gate";
/// How often is said which partitions do not answer: they are asked for again each second or two.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Who asks. Clones share when it was last said that some do not answer.
#[derive(Clone)]
pub(super) struct Partitions {
    kafka: KafkaArgs,
    said: Arc<Mutex<Option<Instant>>>,
}

impl Partitions {
    pub(super) fn new(kafka: &KafkaArgs) -> Self {
        Self { kafka: kafka.clone(), said: Arc::default() }
    }

    /// Asks, on a thread that may block.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Topics) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let kafka = self.kafka.clone();
        spawn_blocking(move || ask(&Topics::connect(&kafka, CLIENT_ID)?)).await?
    }

    /// All of each partition of these topics that readers of committed records see now, but for some partitions.
    pub(super) async fn whole(&self, topics: Vec<String>, but: HashSet<TopicPartition>) -> Result<Answered> {
        let answered = self.ask(move |asked| {
            let mut all = Answered::default();
            for topic in &topics {
                let Answered { whole, silent } = asked.each_whole(topic, |at| !but.contains(at))?;
                all.whole.extend(whole);
                all.silent.extend(silent);
            }
            Ok(all)
        });
        let answered = answered.await?;
        self.say(&answered.silent);
        Ok(answered)
    }

    /// Says now and then which partitions do not answer, each with why.
    pub(super) fn say(&self, silent: &[(TopicPartition, String)]) {
        if silent.is_empty() {
            return;
        }
        // A moment is whole, whoever panicked.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            let silent: Vec<String> = silent.iter().map(|(at, why)| format!("{at} ({why})")).collect();
            tracing::warn!(
                partitions = silent.join(", "),
                "Kafka says nothing of these partitions, which are left out until it does; what there is of others goes on"
            );
        }
    }
}
