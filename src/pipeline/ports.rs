//! What a pipeline needs of the world besides its ledger: where records come from, and where results go.
//!
//! Nothing here knows Kafka's client, and all of it waits instead of blocking: so a pipeline also runs in one thread on
//! a simulated Kafka, whose every answer can be met by a crash. Its clock is tokio's, which a simulation stops. What
//! these are in the program is in `on_kafka.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Portion;
use crate::background::LevelChanges;
use crate::kafka;
use crate::kafka::consumer::{Incoming, NotSpeaking, StartOffsets, Watermarks};
use crate::kafka::offsets::CommittedOffsets;
use crate::kafka::topic_ids::Described;
use crate::kafka::transactional::{InitError, PublishError};
use crate::ledger::{NextOffset, TopicId, TopicPartition};

/// Where a pipeline's records come from: its memberships of the group.
pub trait RecordSource: Send + 'static {
    /// One of them.
    type Member: GroupMember;

    /// The memberships. Their place is their number.
    fn members(&self) -> Vec<Self::Member>;

    /// Waits for what comes next: without `records`, only for what is no record. What the group says of partitions comes
    /// before the records that are fetched after it. A wait that is cut short loses nothing.
    fn next(&mut self, records: bool) -> impl Future<Output = Incoming> + Send;

    /// Ends it. Nobody has one of the memberships any more.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A membership of the group.
pub trait GroupMember: Clone + Send + Sync + 'static {
    /// The name under which it sends offsets at a moment.
    type Name: Send + Sync;

    /// The topics it reads.
    fn topics(&self) -> &[Arc<str>];

    /// Whether a partition can be one of this membership's.
    fn may_own(&self, at: &TopicPartition) -> bool {
        self.topics().contains(&at.topic)
    }

    /// The id under which the group knows it now.
    fn id(&self) -> String;

    /// Notes that all its partitions were taken over as this member.
    fn set_taken_as(&self, id: String);

    /// Whether it was this member that took its partitions over.
    fn was_taken_as(&self, id: &str) -> bool;

    /// Under which name it sends offsets now. Taken before a transaction's records are chosen and used for its offsets: if
    /// partitions change hands in between, Kafka refuses the offsets and the transaction is aborted.
    ///
    /// # Errors
    /// [`NotSpeaking`] when it is no member, or another than it was when it took its partitions over.
    fn name(&self) -> Result<Self::Name, NotSpeaking>;

    /// Whether the group has given it partitions once, or told it that there are none for it.
    fn is_settled(&self) -> bool;

    /// Whether it is a static member, which leaves only by saying so.
    fn is_static(&self) -> bool;

    /// Whether nothing comes of it any more.
    fn is_dead(&self) -> bool;

    /// Begins to leave the group.
    fn unsubscribe(&self);

    /// Whether the group knows this static member no more.
    fn has_left(&self) -> impl Future<Output = bool> + Send;

    /// What the group committed for these.
    ///
    /// # Errors
    /// When Kafka does not answer.
    fn committed(
        &self,
        of: &[TopicPartition],
    ) -> impl Future<Output = Result<CommittedOffsets, kafka::Error>> + Send;

    /// Of each of these, the first offset that the log still holds, and its end.
    ///
    /// # Errors
    /// When Kafka does not answer.
    fn watermarks(
        &self,
        of: &[TopicPartition],
    ) -> impl Future<Output = Result<Vec<Watermarks>, kafka::Error>> + Send;

    /// Which topics these names mean.
    ///
    /// # Errors
    /// When Kafka does not answer.
    fn describe(&self, names: &[&str]) -> impl Future<Output = Result<Vec<Described>, kafka::Error>> + Send;

    /// Commits these offsets, outside of any transaction.
    ///
    /// # Errors
    /// When Kafka refuses it or does not answer.
    fn commit(
        &self,
        offsets: &[(TopicPartition, NextOffset)],
    ) -> impl Future<Output = Result<(), kafka::Error>> + Send;

    /// Reads these partitions from these offsets on, and no others that it has; returns the least epoch of their records.
    ///
    /// # Errors
    /// When one cannot be read from there.
    fn read_only(&self, from: StartOffsets) -> impl Future<Output = Result<u64, kafka::Error>> + Send;
}

/// Where results go, in transactions.
pub trait ResultSink: Send + 'static {
    /// The name under which a membership sends offsets.
    type Name: Send + Sync;

    /// Makes what is missing to publish, and ends whatever a predecessor left open.
    ///
    /// # Errors
    /// [`InitError`] says whether the next try would meet the same. A stop ends it too.
    fn init_transactions(
        &mut self,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), InitError>> + Send;

    /// Publishes a portion's results and dead letters in one transaction, with how far each partition is published by
    /// them, sent under the names of the memberships that own them.
    ///
    /// # Errors
    /// [`PublishError`] says what must be done before publishing again.
    fn publish(
        &mut self,
        portion: &Portion<'_>,
        names: &[Self::Name],
    ) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// What the group committed for each partition of the topics, and which topic it is of.
pub type GroupCommitted = HashMap<TopicPartition, (Option<TopicId>, NextOffset)>;

/// Asks what the group committed, without being a member of it.
#[async_trait]
pub trait GroupOffsets: Send + Sync {
    /// Of all partitions that are read.
    ///
    /// # Errors
    /// When Kafka does not answer.
    async fn committed(&self) -> Result<GroupCommitted, kafka::Error>;
}

/// Who watches pipelines at work: wraps what they work with. Every call is passed on, and answered as it is.
pub trait Observer: Clone + Send + Sync + 'static {
    /// A source that is watched.
    fn source<S: RecordSource>(
        &self,
        source: S,
    ) -> impl RecordSource<Member: GroupMember<Name = <S::Member as GroupMember>::Name>>;

    /// A sink that is watched.
    fn sink<K: ResultSink>(&self, sink: K) -> impl ResultSink<Name = K::Name>;

    /// Looks, whenever it likes, how many levels wait to be published.
    fn level_changes(&self, changes: &LevelChanges);
}
