//! What is asked of Kafka again and again beside the work: whether it answers, and who is in the group.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::asker::Asker;
use super::groups::MemberDescription;
use crate::config::KafkaArgs;

/// The client id that asks whether it answers.
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

/// The client id that asks who is in the group.
const MEMBERS_CLIENT_ID: &str = "stock-verifier-members";

/// Who is in a group, once Kafka answers.
pub type MembersAnswer = Pin<Box<dyn Future<Output = Result<Vec<MemberDescription>>> + Send>>;

/// Asks each time it is called who is in this group, and which partitions each has.
///
/// # Errors
/// When a password file cannot be read, or the configuration is refused.
pub fn members(kafka: &KafkaArgs, group: &str) -> Result<impl Fn() -> MembersAnswer + Send + Sync + use<>> {
    let asker = Arc::new(Asker::new(kafka, MEMBERS_CLIENT_ID, None)?);
    let group: Arc<str> = group.into();
    Ok(move || {
        let (asker, group) = (Arc::clone(&asker), Arc::clone(&group));
        let ask = tokio::task::spawn_blocking(move || asker.group(&group));
        let answer: MembersAnswer =
            Box::pin(async move { Ok(ask.await.context("asking Kafka panicked")??.members) });
        answer
    })
}
