//! Kafka's clients: the only room that knows librdkafka.

pub mod admin;
pub mod asker;
mod client;
pub mod consumer;
mod error;
pub mod in_process;
mod member_id;
pub mod offsets;
pub mod partitioner;
pub mod probe;
pub mod reader;
mod record;
pub mod sender;
pub mod topic_ids;
pub mod topics;
pub mod transactional;

pub use error::Error;
