//! What rdkafka does not have.

pub mod topic_ids;
