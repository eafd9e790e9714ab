//! What rdkafka does not have.

pub mod partitioner;
pub mod topic_ids;
