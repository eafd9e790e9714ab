//! The memberships of a pipeline, as the publishing end sees them.
//!
//! A pipeline is two members of the group, one for each topic it reads (see
//! [`super::Sharing`]). A transaction's offsets are sent for each membership
//! under its own name, since the group answers for each whether it still owns
//! what it speaks of.

use std::sync::Arc;

use super::Assignment;
use crate::kafka::consumer::{Consumer, GroupMember, NotSpeaking};
use crate::ledger::{NextOffset, TopicPartition};

/// How the publishing end learns which members of the group speak.
#[derive(Clone)]
pub struct Membership {
    members: Arc<[Arc<Consumer>]>,
    assignment: Arc<Assignment>,
}

impl Membership {
    pub(super) fn new(members: Arc<[Arc<Consumer>]>, assignment: Arc<Assignment>) -> Self {
        Self { members, assignment }
    }

    /// Who the members are now that own what these offsets are of. Taken before a transaction's records are chosen and
    /// used for its offsets: if partitions change hands in between, Kafka refuses the offsets and the transaction is
    /// aborted.
    ///
    /// # Errors
    /// [`NotSpeaking`] when one is no member, or another than it was when it took its partitions over.
    pub fn now(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<Vec<GroupMember>, NotSpeaking> {
        let owns_some =
            |consumer: &&Arc<Consumer>| offsets.iter().any(|(at, _)| consumer.member().may_own(at));
        self.members.iter().filter(owns_some).map(|consumer| consumer.member().speaking()).collect()
    }

    /// What the group still owns and what is under way.
    #[must_use]
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }
}
