//! The memberships of a pipeline, as the publishing end sees them.
//!
//! A pipeline is two members of the group, one for each topic it reads (see
//! [`super::Sharing`]). A transaction's offsets are sent for each membership
//! under its own name, since the group answers for each whether it still owns
//! what it speaks of.

use std::sync::Arc;

use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};

use super::assignment::{Assignment, JoinedAnew, Member, MemberConsumer};
use crate::ledger::{NextOffset, TopicPartition};

/// How the publishing end learns which members of the group speak.
#[derive(Clone)]
pub struct Membership(pub(super) Arc<[Arc<MemberConsumer>]>);

impl Membership {
    /// Who the members are now that own what these offsets are of. Taken before a transaction's records are chosen and
    /// used for its offsets: if partitions change hands in between, Kafka refuses the offsets and the transaction is
    /// aborted.
    ///
    /// # Errors
    /// [`NotSpeaking`] when one is no member, or another than it was when it took its partitions over.
    pub fn now(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<Speaking, NotSpeaking> {
        let owns_some =
            |consumer: &&Arc<MemberConsumer>| offsets.iter().any(|(at, _)| consumer.context().may_own(at));
        let speaking = self.0.iter().filter(owns_some).map(|consumer| {
            let member = consumer.group_metadata().ok_or(NotSpeaking::NoMember)?;
            // After it: should it have joined anew in between, Kafka refuses what is sent as the member that it was.
            Member::check_joined(consumer)?;
            Ok((consumer.context().topics().to_vec(), Arc::new(member)))
        });
        speaking.collect::<Result<_, _>>().map(Speaking)
    }

    /// What the group still owns and what is under way.
    #[must_use]
    pub fn assignment(&self) -> &Arc<Assignment> {
        // All have the same, and there is one at least.
        self.0[0].context().assignment()
    }
}

/// Why offsets cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSpeaking {
    /// Not set to be a member at all.
    #[error("not a member of any group")]
    NoMember,
    /// What is under way was read as the member that it was.
    #[error(transparent)]
    JoinedAnew(#[from] JoinedAnew),
}

/// The memberships that a transaction's offsets are sent under, each with its topics.
pub struct Speaking(Vec<(Vec<Arc<str>>, Arc<ConsumerGroupMetadata>)>);

/// What one membership sends of a transaction's offsets.
type Share<'a> = (&'a Arc<ConsumerGroupMetadata>, Vec<&'a (TopicPartition, NextOffset)>);

impl Speaking {
    /// A membership that owns partitions of one topic.
    #[must_use]
    pub fn of(topic: &str, member: ConsumerGroupMetadata) -> Self {
        Self(vec![(vec![Arc::from(topic)], Arc::new(member))])
    }

    /// The offsets of each membership that has some.
    pub fn shares<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, NextOffset)],
    ) -> impl Iterator<Item = Share<'a>> {
        self.0.iter().filter_map(move |(topics, member)| {
            let share: Vec<_> = offsets.iter().filter(|(at, _)| topics.contains(&at.topic)).collect();
            (!share.is_empty()).then_some((member, share))
        })
    }
}
