//! The memberships of a pipeline, as the telling end sees them.
//!
//! A pipeline is two members of the group, one for each topic it reads: the assignors share out the sum of what members
//! subscribe to, so that with one membership for both topics an instance could get all the orders and another all the
//! adjustments. A transaction's offsets are sent for each membership under its own name, since the group answers for
//! each whether it still owns what it speaks of.

use std::sync::Arc;

use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};

use super::assignment::{Assignment, MemberConsumer};
use crate::ledger::{NextOffset, TopicPartition};

/// How the telling end learns which members of the group speak.
#[derive(Clone)]
pub struct Membership(pub(super) [Arc<MemberConsumer>; 2]);

impl Membership {
    /// Who the members are now that own what these offsets are of. Taken before a transaction's records are chosen and
    /// used for its offsets: if partitions change hands in between, Kafka refuses the offsets and the transaction is
    /// undone. `None` when one is no member.
    #[must_use]
    pub fn now(&self, offsets: &[(TopicPartition, NextOffset)]) -> Option<Speaking> {
        let speaking = |consumer: &&Arc<MemberConsumer>| {
            offsets.iter().any(|(at, _)| at.topic == *consumer.context().topic())
        };
        let members = self.0.iter().filter(speaking);
        let members = members.map(|consumer| {
            Some((Arc::clone(consumer.context().topic()), Arc::new(consumer.group_metadata()?)))
        });
        members.collect::<Option<_>>().map(Speaking)
    }

    /// What the group still owns and what is under way.
    #[must_use]
    pub fn assignment(&self) -> &Arc<Assignment> {
        // Both have the same.
        self.0[0].context().assignment()
    }
}

/// The memberships that a transaction's offsets are sent under, each with its topic.
#[derive(Default)]
pub struct Speaking(Vec<(Arc<str>, Arc<ConsumerGroupMetadata>)>);

/// What one membership sends of a transaction's offsets.
type Share<'a> = (&'a Arc<ConsumerGroupMetadata>, Vec<&'a (TopicPartition, NextOffset)>);

impl Speaking {
    /// A membership that owns partitions of one topic.
    #[must_use]
    pub fn of(topic: &str, member: ConsumerGroupMetadata) -> Self {
        Self(vec![(Arc::from(topic), Arc::new(member))])
    }

    /// The offsets of each membership that has some.
    pub fn shares<'a>(&'a self, offsets: &'a [(TopicPartition, NextOffset)]) -> impl Iterator<Item = Share<'a>> {
        self.0.iter().filter_map(move |(topic, member)| {
            let share: Vec<_> = offsets.iter().filter(|(at, _)| at.topic == *topic).collect();
            (!share.is_empty()).then_some((member, share))
        })
    }
}
