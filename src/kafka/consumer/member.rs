//! A member of the group: what becomes of its partitions, and under which name it sends offsets.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata, RebalanceProtocol};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::context::Context;
use crate::kafka::error::{Doing as _, Error, JoinedAnew};
use crate::kafka::member_id::member_id;
use crate::kafka::offsets::{CommittedOffsets, list, list_at, partitions};
use crate::kafka::topic_ids::{Described, describe};
use crate::ledger::{NextOffset, TopicPartition};

/// Longest wait for committed offsets. Those of a transaction that a killed instance left open stay unreadable until
/// Kafka ends it (`transaction.timeout.ms`, 10 s), and meanwhile the group wants its member to poll: so a part of that
/// at a time, and again.
const COMMITTED_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a partition's first and last offset.
const WATERMARK_LIMIT: Duration = Duration::from_secs(10);
/// Partitions whose offsets are asked for at once: a thread each, for a moment.
const WATERMARKS_AT_ONCE: usize = 32;
/// Longest wait for Kafka to say which topics there are.
const TOPICS_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a seek.
const SEEK_LIMIT: Duration = Duration::from_secs(10);

/// How far a partition's log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that it still holds.
    pub low: NextOffset,
    /// Its end.
    pub high: NextOffset,
}

/// A member of the group, for whoever decides what becomes of its partitions.
#[derive(Clone, Copy)]
pub struct Member<'a>(pub(super) &'a BaseConsumer<Context>);

impl<'a> Member<'a> {
    /// The topics it reads.
    #[must_use]
    pub fn topics(self) -> &'a [Arc<str>] {
        self.0.context().topics()
    }

    /// Whether a partition can be one of this membership's.
    #[must_use]
    pub fn may_own(self, at: &TopicPartition) -> bool {
        self.topics().contains(&at.topic)
    }

    /// The partitions that are read.
    pub(super) fn reading(self) -> Vec<TopicPartition> {
        self.0.context().reading().clone()
    }

    /// Whether the group has given it partitions once, or told it that there are none for it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self.0.context().is_settled()
    }

    /// The id under which the group knows it now.
    #[must_use]
    pub fn id(self) -> String {
        member_id(self.0.client())
    }

    /// Notes that all its partitions were taken over as this member.
    pub fn set_taken_as(self, id: String) {
        *self.0.context().taken_as() = id;
    }

    /// Whether it was this member that took its partitions over.
    #[must_use]
    pub fn was_taken_as(self, id: &str) -> bool {
        *self.0.context().taken_as() == id
    }

    /// Under which name it sends offsets now.
    ///
    /// # Errors
    /// [`NotSpeaking`] when it is no member, or another than it was when it took its partitions over.
    pub fn speaking(self) -> Result<MemberName, NotSpeaking> {
        let metadata = self.0.group_metadata().ok_or(NotSpeaking::NoMember)?;
        // After it: should it have joined anew in between, Kafka refuses what is sent as the member that it was.
        if !self.was_taken_as(&self.id()) {
            return Err(JoinedAnew.into());
        }
        Ok(MemberName { topics: self.topics().to_vec(), metadata: Arc::new(metadata) })
    }

    /// What it is assigned.
    ///
    /// # Errors
    /// When librdkafka does not say.
    pub(super) fn assigned(self) -> Result<Vec<TopicPartition>, Error> {
        Ok(partitions(&self.0.assignment().doing(|| "cannot read the assignment")?))
    }

    /// What the group committed for these.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(self, of: &[TopicPartition]) -> Result<CommittedOffsets, Error> {
        let answer = self.0.committed_offsets(list(of), COMMITTED_LIMIT);
        Ok(CommittedOffsets::of_answer(&answer.doing(|| "cannot read the committed offsets")?))
    }

    /// Of each of these, the first offset that the log still holds, and its end. Asked for side by side: Kafka answers a
    /// connection's requests one after the other, and where nothing comes, each would wait behind a fetch of its own.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn watermarks(self, of: &[TopicPartition]) -> Result<Vec<Watermarks>, Error> {
        let ask = |at: &TopicPartition| {
            let (low, high) = self
                .0
                .fetch_watermarks(&at.topic, at.partition, WATERMARK_LIMIT)
                .doing(|| format!("cannot read the first and last offset of {at}"))?;
            Ok(Watermarks { low: NextOffset(low), high: NextOffset(high) })
        };
        let mut all = Vec::with_capacity(of.len());
        for some in of.chunks(WATERMARKS_AT_ONCE) {
            let found: Vec<Result<Watermarks, Error>> = std::thread::scope(|scope| {
                let asked: Vec<_> = some.iter().map(|at| scope.spawn(|| ask(at))).collect();
                // Holds because asking does not panic.
                asked.into_iter().map(|one| one.join().expect("asking panicked")).collect()
            });
            all.extend(found.into_iter().collect::<Result<Vec<_>, _>>()?);
        }
        Ok(all)
    }

    /// Which topics these names mean.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn describe(self, names: &[&str]) -> Result<Vec<Described>, Error> {
        describe(self.0.client(), names, TOPICS_LIMIT).doing(|| "cannot ask for topics")
    }

    /// Commits these offsets, outside of any transaction.
    ///
    /// # Errors
    /// When Kafka refuses it or does not answer.
    pub fn commit(self, offsets: &[(TopicPartition, NextOffset)]) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        self.0.commit(&list_at(offsets)?, CommitMode::Sync).doing(|| "cannot commit where partitions begin")
    }

    /// Takes partitions, each from this offset on; one without is assigned, but to be kept paused.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub(super) fn assign(self, partitions: &[(TopicPartition, Option<NextOffset>)]) -> Result<(), Error> {
        let mut assign = TopicPartitionList::new();
        for (at, from) in partitions {
            // The end is an offset that is never fetched.
            let offset = from.map_or(KafkaOffset::End, |from| KafkaOffset::Offset(from.0));
            assign
                .add_partition_offset(&at.topic, at.partition, offset)
                .doing(|| format!("no offset of {at}"))?;
        }
        match self.0.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.0.incremental_assign(&assign),
            RebalanceProtocol::None | RebalanceProtocol::Eager => self.0.assign(&assign),
        }
        .doing(|| "cannot take the partitions over")
    }

    /// Gives partitions up.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub(super) fn unassign(self, partitions: &[TopicPartition]) -> Result<(), Error> {
        match self.0.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.0.incremental_unassign(&list(partitions)),
            RebalanceProtocol::None | RebalanceProtocol::Eager => self.0.unassign(),
        }
        .doing(|| "cannot hand the partitions over")
    }

    /// Fetches nothing more of these. Drops what was prefetched, and outlives a reassignment.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub(super) fn pause(self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.0.pause(&list(partitions)).doing(|| "cannot pause the partitions")
    }

    /// Fetches these again.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub(super) fn resume(self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.0.resume(&list(partitions)).doing(|| "cannot resume the partitions")
    }

    /// Goes on with these at these offsets.
    ///
    /// # Errors
    /// When one cannot be moved there.
    pub(super) fn seek(self, to: &[(TopicPartition, NextOffset)]) -> Result<(), Error> {
        // librdkafka refuses a seek of nothing, which is what is left when every partition is stopped.
        if to.is_empty() {
            return Ok(());
        }
        for element in self.0.seek_partitions(list_at(to)?, SEEK_LIMIT).doing(|| "cannot seek")?.elements() {
            element.error().doing(|| format!("cannot seek {}[{}]", element.topic(), element.partition()))?;
        }
        Ok(())
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

/// A membership as it was at a moment: offsets that are sent under it are refused once it is another.
#[derive(Clone)]
pub struct MemberName {
    topics: Vec<Arc<str>>,
    metadata: Arc<ConsumerGroupMetadata>,
}

/// What one membership sends of a transaction's offsets.
pub(in crate::kafka) type Share<'a> = (&'a Arc<ConsumerGroupMetadata>, Vec<&'a (TopicPartition, NextOffset)>);

impl MemberName {
    /// A membership that owns partitions of one topic.
    #[must_use]
    pub fn of(topic: &str, metadata: ConsumerGroupMetadata) -> Self {
        Self { topics: vec![Arc::from(topic)], metadata: Arc::new(metadata) }
    }

    /// Its part of these offsets; `None` when it has none of them.
    pub(in crate::kafka) fn share<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, NextOffset)],
    ) -> Option<Share<'a>> {
        let share: Vec<_> = offsets.iter().filter(|(at, _)| self.topics.contains(&at.topic)).collect();
        (!share.is_empty()).then_some((&self.metadata, share))
    }
}
