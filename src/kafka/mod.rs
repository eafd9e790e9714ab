//! What rdkafka does not have.

pub mod member_id;
pub mod partitioner;
pub mod topic_ids;
