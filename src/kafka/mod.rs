//! Kafka's clients: the only room that knows librdkafka.

pub mod admin;
pub mod asker;
mod client;
pub mod consumer;
mod member_id;
pub mod offsets;
pub mod partitioner;
pub mod reader;
mod record;
pub mod sender;
pub mod topic_ids;
pub mod transactional;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Whether an error of Kafka may pass when the same is done again; `None` when it is no error of Kafka.
#[must_use]
pub fn may_pass(error: &anyhow::Error) -> Option<bool> {
    if error.is::<topic_ids::NoAnswer>() || error.is::<consumer::JoinedAnew>() {
        return Some(true);
    }
    let kafka: &KafkaError = error.downcast_ref()?;
    let is_refusal = matches!(
        kafka.rdkafka_error_code(),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)
    );
    Some(!is_refusal)
}
