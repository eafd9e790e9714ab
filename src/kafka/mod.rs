//! Kafka's clients: the only room that knows librdkafka.

pub mod admin;
mod admin_request;
pub mod asker;
mod client;
mod closing;
pub mod consumer;
mod elections;
mod error;
pub mod examiner;
pub mod following;
pub mod groups;
pub mod in_process;
mod member_id;
pub mod offsets;
pub mod order_producer;
pub mod partitioner;
mod password;
pub mod probe;
pub mod reader;
mod record;
mod renewed;
pub mod sender;
pub mod topic_ids;
pub mod topics;
pub mod transactional;

pub use admin_request::{Operation, Operations};
pub use error::{ClientError, Error, JoinedAnew};
pub use password::set_password;
