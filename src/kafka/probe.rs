//! Whether Kafka answers.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::asker::Asker;
use crate::config::KafkaArgs;

/// The client id that asks.
const CLIENT_ID: &str = "stock-verifier-probe";

/// Asks again each time it is called: for metadata of this topic, which any of the brokers can answer.
///
/// # Errors
/// When a password file cannot be read, or the configuration is refused.
pub fn probe(
    kafka: &KafkaArgs,
    topic: &str,
) -> Result<impl Fn() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync + use<>> {
    let asker = Arc::new(Asker::new(kafka, CLIENT_ID, None)?);
    let topic: Arc<str> = topic.into();
    Ok(move || {
        let (asker, topic) = (Arc::clone(&asker), Arc::clone(&topic));
        let ask = tokio::task::spawn_blocking(move || asker.describe(&[&*topic]).map(drop));
        let answer: Pin<Box<dyn Future<Output = Result<()>> + Send>> =
            Box::pin(
                async move { ask.await.context("asking Kafka panicked")?.context("Kafka does not answer") },
            );
        answer
    })
}
