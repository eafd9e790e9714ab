//! A consumer that is a member of the group: its polling, its rebalances, and under which name it sends offsets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::error::{Doing as _, Error};
use super::member_id::member_id;
use super::offsets::{CommittedOffsets, list, list_at, partitions};
use super::topic_ids::{Described, describe};
use crate::config::{GroupArgs, GroupProtocol, KafkaArgs, TopicArgs};
use crate::event::{Header, Record};
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};

/// Longest wait for committed offsets. Those of a transaction that a killed instance left open stay unreadable until
/// Kafka ends it (`transaction.timeout.ms`, 10 s), and meanwhile the group wants its member to poll: so a part of that
/// at a time, and again.
const COMMITTED_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a partition's first and last offset.
const WATERMARK_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for Kafka to say which topics there are.
const TOPICS_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a seek.
const SEEK_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for an answer about the group when leaving it.
const LEAVE_ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Records prefetched at most, and KiB of them: what bounds memory while a backlog drains.
const PREFETCH_RECORDS: &str = "20000";
const PREFETCH_KIB: &str = "16384";
/// The same of adjustments: few as a rule, and a pipeline's memory is for its orders.
const PREFETCH_ADJUSTMENTS: &str = "2000";
const PREFETCH_ADJUSTMENTS_KIB: &str = "1024";
/// Largest fetch, in bytes. A fetch is compressed: orders grow to some ten times of it when it is opened, all at once,
/// so 8 MiB made for 160 MB resident and 1 MiB makes for 60, and no slower. A larger record comes all the same, alone.
const FETCH_MAX_BYTES: &str = "1048576";
/// The property that makes a member static.
const STATIC_ID: &str = "group.instance.id";
/// The length of a UUID as text.
const UUID: usize = 36;

/// What a membership of the group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The orders' topic.
    Orders,
    /// The adjustments' topic.
    Adjustments,
    /// Both, as up to 0.1.
    Both,
}

impl Role {
    /// Its name in ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Adjustments => "adjustments",
            Self::Both => "both",
        }
    }

    fn topics(self, topics: &TopicArgs) -> Vec<&str> {
        match self {
            Self::Orders => vec![&topics.orders_topic],
            Self::Adjustments => vec![&topics.adjustments_topic],
            Self::Both => vec![&topics.orders_topic, &topics.adjustments_topic],
        }
    }
}

/// What a client of a group calls itself. A member's role is in it: others see it in the group.
#[must_use]
pub fn client_id(group: &GroupArgs, role: Option<Role>) -> String {
    let role = role.map_or_else(String::new, |role| format!("-{}", role.name()));
    format!("stock-verifier-{}{role}", group.instance_id)
}

/// A member's configuration.
///
/// # Errors
/// When a password file cannot be read.
pub fn consumer_config(kafka: &KafkaArgs, group: &GroupArgs, role: Role) -> Result<ClientConfig> {
    let mut config = kafka.client()?;
    let (records, kib) = match role {
        Role::Orders | Role::Both => (PREFETCH_RECORDS, PREFETCH_KIB),
        Role::Adjustments => (PREFETCH_ADJUSTMENTS, PREFETCH_ADJUSTMENTS_KIB),
    };
    config
        .set("client.id", client_id(group, Some(role)))
        .set("group.id", &group.group)
        // Offsets travel in the producer's transactions only.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is never answered by silently jumping.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("queued.min.messages", records)
        .set("queued.max.messages.kbytes", kib)
        .set("fetch.max.bytes", FETCH_MAX_BYTES)
        // The default of a second would be a pause in every drain of a backlog.
        .set("fetch.queue.backoff.ms", "5");
    match group.group_protocol {
        GroupProtocol::Classic => {
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", "10000")
                .set("heartbeat.interval.ms", "2000");
        }
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    kafka.overlay(&mut config);
    if kafka.sets("client.id") {
        // The role stays in it, or others could not tell what this member is.
        let by_hand = config.get("client.id").unwrap_or_default().to_owned();
        config.set("client.id", format!("{by_hand}-{}", role.name()));
    }
    Ok(config)
}

/// Makes a membership static, so that whoever comes back within the session finds its partitions as they were and nobody
/// has to wait for the one that is gone. Returns what the group is to call it.
///
/// Not with the consumer protocol, where Kafka refuses the successor of a member that was killed for as long as the
/// session lasts, and librdkafka takes that refusal for final. Who sets an id by hand has it, for each membership.
fn make_static(config: &mut ClientConfig, group: &GroupArgs, worker: usize, role: Role) -> Option<String> {
    let id = match config.get(STATIC_ID) {
        Some(by_hand) => by_hand.to_owned(),
        None if group.group_protocol == GroupProtocol::Classic => group.instance_id.clone(),
        None => String::new(),
    };
    if id.is_empty() {
        config.remove(STATIC_ID);
        return None;
    }
    let id = format!("{id}-{worker}-{}", role.name());
    config.set(STATIC_ID, &id);
    Some(id)
}

/// What is to be done when the group moves partitions. Called from within [`Consumer::poll`], on the polling thread, so
/// it may block that thread, within bounds; nothing that it waits for may need that thread.
pub trait Rebalance: Send + Sync + 'static {
    /// These are the member's from here on: it must [`Member::assign`] them before it returns.
    fn assigned(&self, member: Member<'_>, partitions: &[TopicPartition]);

    /// These are not the member's any more: it must [`Member::unassign`] them before it returns. When they are lost,
    /// another member may have them already.
    fn revoked(&self, member: Member<'_>, partitions: &[TopicPartition], are_lost: bool);
}

/// The context of a member's client.
struct Context {
    rebalance: Arc<dyn Rebalance>,
    topics: Vec<Arc<str>>,
    settled: AtomicBool,
    /// What the group called this member when it took over the partitions that it has.
    taken_as: Mutex<String>,
}

impl Context {
    fn taken_as(&self) -> MutexGuard<'_, String> {
        // One comparison or assignment at a time: a panic elsewhere leaves nothing half done.
        self.taken_as.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let (member, partitions) = (Member(consumer), partitions(list));
        if event == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.settled.store(true, Ordering::SeqCst);
            self.rebalance.assigned(member, &partitions);
        } else {
            self.rebalance.revoked(member, &partitions, consumer.assignment_lost());
        }
    }
}

/// The group gave this member up, and it joined anew. librdkafka (2.12, `JoinGroup` answered by `UNKNOWN_MEMBER_ID`) keeps
/// the partitions it had, and so may the group; but another instance had them in between.
#[derive(Debug, thiserror::Error)]
#[error(
    "the group had given this member up, and has it as another now: its partitions may have been another's meanwhile"
)]
pub struct JoinedAnew;

/// What a poll came to.
pub enum Polled<'a> {
    /// Nothing came in time.
    Nothing,
    /// A record.
    Record(Message<'a>),
    /// An error that is not about one record.
    Failed(ConsumerError),
}

/// What went wrong with a consumer.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A position is outside its partition: retention overtook the reading, or the topic was made anew.
    #[error("{0}")]
    OutOfRange(KafkaError),
    /// A topic does not exist.
    #[error("{0}")]
    UnknownTopic(KafkaError),
    /// This user may not read.
    #[error("{0}")]
    NotPermitted(KafkaError),
    /// Somebody else is the static member now.
    #[error("{0}")]
    Fenced(KafkaError),
    /// The static member that was is still there.
    #[error("{0}")]
    Unreleased(KafkaError),
    /// The group has nothing to do with this member any more, for this reason.
    #[error("{0}")]
    Fatal(String),
    /// librdkafka goes on by itself: brokers down, timeouts, a poll that came late.
    #[error("{0}")]
    Passing(KafkaError),
}

impl ConsumerError {
    fn of(consumer: &BaseConsumer<Context>, error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Self::OutOfRange(error)
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Self::UnknownTopic(error)
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Self::NotPermitted(error)
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                match consumer.client().fatal_error() {
                    Some((RDKafkaErrorCode::FencedInstanceId, _)) => Self::Fenced(error),
                    Some((RDKafkaErrorCode::UnreleasedInstanceId, _)) => Self::Unreleased(error),
                    Some((_, why)) => Self::Fatal(why),
                    None => Self::Fatal(error.to_string()),
                }
            }
            _ => Self::Passing(error),
        }
    }
}

/// A record as librdkafka has it: it pins the whole fetch it came in, so it must not be kept.
pub struct Message<'a>(BorrowedMessage<'a>);

impl Message<'_> {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.0.topic()
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.0.offset())
    }

    /// An owned copy, and its size in bytes.
    #[must_use]
    pub fn own(&self, source: Source) -> (Record, usize) {
        own(&self.0, source)
    }
}

/// An owned copy of a message, and its size in bytes.
pub(super) fn own(message: &BorrowedMessage<'_>, source: Source) -> (Record, usize) {
    let key = message.key().map(<[u8]>::to_vec);
    let value = message.payload().map(<[u8]>::to_vec);
    let mut bytes = key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
                Header { name: header.key.to_owned(), value: header.value.map(<[u8]>::to_vec) }
            })
            .collect()
    });
    let record = Record { source, key, value, headers, timestamp_ms: message.timestamp().to_millis() };
    (record, bytes)
}

/// One membership of the group.
pub struct Consumer {
    inner: BaseConsumer<Context>,
    group: String,
    /// What the group calls it, when it is a static member.
    static_id: Option<String>,
}

impl Consumer {
    /// Makes the client; it joins the group when it has subscribed.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        worker: usize,
        role: Role,
        rebalance: Arc<dyn Rebalance>,
    ) -> Result<Self> {
        let mut config = consumer_config(kafka, group, role)?;
        let static_id = make_static(&mut config, group, worker, role);
        let topics = role.topics(topics).into_iter().map(Arc::from).collect();
        let context =
            Context { rebalance, topics, settled: AtomicBool::new(false), taken_as: Mutex::default() };
        let inner = config.create_with_context(context).context("the consumer's configuration is refused")?;
        Ok(Self { inner, group: group.group.clone(), static_id })
    }

    /// Begins to join the group. Partitions are assigned while it polls.
    ///
    /// # Errors
    /// When librdkafka refuses the subscription.
    pub fn subscribe(&self) -> Result<()> {
        let topics: Vec<&str> = self.member().topics().iter().map(|topic| &**topic).collect();
        self.inner.subscribe(&topics).with_context(|| format!("cannot subscribe to {}", topics.join(" and ")))
    }

    /// Leaves the group, while it polls. Closing alone does not make a cooperative member leave that has no partitions yet
    /// (librdkafka 2.12 skips it when terminating); a rebalance under way would then wait until this member's session ends.
    /// Nor does it make a static member leave, which it does on an unsubscribe that is done before the close.
    pub fn unsubscribe(&self) {
        self.inner.unsubscribe();
    }

    /// Takes in what comes, and serves rebalances.
    #[must_use]
    pub fn poll(&self, wait: Duration) -> Polled<'_> {
        match self.inner.poll(wait) {
            None => Polled::Nothing,
            Some(Ok(message)) => Polled::Record(Message(message)),
            Some(Err(error)) => Polled::Failed(ConsumerError::of(&self.inner, error)),
        }
    }

    /// The member that it is.
    #[must_use]
    pub fn member(&self) -> Member<'_> {
        Member(&self.inner)
    }

    /// Whether it is a static member, which leaves only by saying so.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.static_id.is_some()
    }

    /// Whether nothing comes of polling any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.inner.client().fatal_error().is_some()
    }

    /// Whether the group knows this static member no more: Kafka makes member ids of the static ones and a UUID.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let Some(id) = &self.static_id else { return true };
        let is_ours = |member: &str| {
            member
                .strip_prefix(&**id)
                .is_some_and(|rest| rest.starts_with('-') && rest.len() == "-".len() + UUID)
        };
        self.inner.fetch_group_list(Some(&self.group), LEAVE_ANSWER_LIMIT).is_ok_and(|groups| {
            groups.groups().iter().flat_map(GroupInfo::members).all(|member| !is_ours(member.id()))
        })
    }
}

/// A member of the group, for whoever decides what becomes of its partitions.
#[derive(Clone, Copy)]
pub struct Member<'a>(&'a BaseConsumer<Context>);

impl<'a> Member<'a> {
    /// The topics it reads.
    #[must_use]
    pub fn topics(self) -> &'a [Arc<str>] {
        &self.0.context().topics
    }

    /// Whether a partition can be one of this membership's.
    #[must_use]
    pub fn may_own(self, at: &TopicPartition) -> bool {
        self.topics().contains(&at.topic)
    }

    /// Whether the group has given it partitions once, or told it that there are none for it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self.0.context().settled.load(Ordering::SeqCst)
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
    pub fn speaking(self) -> Result<GroupMember, NotSpeaking> {
        let metadata = self.0.group_metadata().ok_or(NotSpeaking::NoMember)?;
        // After it: should it have joined anew in between, Kafka refuses what is sent as the member that it was.
        if !self.was_taken_as(&self.id()) {
            return Err(JoinedAnew.into());
        }
        Ok(GroupMember { topics: self.topics().to_vec(), metadata: Arc::new(metadata) })
    }

    /// What it is assigned.
    ///
    /// # Errors
    /// When librdkafka does not say.
    pub fn assigned(self) -> Result<Vec<TopicPartition>, Error> {
        Ok(partitions(&self.0.assignment().doing(|| "cannot read the assignment")?))
    }

    /// What the group committed for these.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(self, of: &[TopicPartition]) -> Result<CommittedOffsets, Error> {
        let answer = self.0.committed_offsets(list(of), COMMITTED_LIMIT);
        Ok(CommittedOffsets::new(answer.doing(|| "cannot read the committed offsets")?))
    }

    /// The first offset that the log still holds, and its end.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn watermarks(self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), Error> {
        let (low, high) = self
            .0
            .fetch_watermarks(&at.topic, at.partition, WATERMARK_LIMIT)
            .doing(|| format!("cannot read the first and last offset of {at}"))?;
        Ok((NextOffset(low), NextOffset(high)))
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
    pub fn assign(self, partitions: &[(TopicPartition, Option<NextOffset>)]) -> Result<(), Error> {
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
    pub fn unassign(self, partitions: &[TopicPartition]) -> Result<(), Error> {
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
    pub fn pause(self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.0.pause(&list(partitions)).doing(|| "cannot pause the partitions")
    }

    /// Fetches these again.
    ///
    /// # Errors
    /// When librdkafka refuses it.
    pub fn resume(self, partitions: &[TopicPartition]) -> Result<(), Error> {
        self.0.resume(&list(partitions)).doing(|| "cannot resume the partitions")
    }

    /// Goes on with these at these offsets.
    ///
    /// # Errors
    /// When one cannot be moved there.
    pub fn seek(self, to: &[(TopicPartition, NextOffset)]) -> Result<(), Error> {
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
pub struct GroupMember {
    topics: Vec<Arc<str>>,
    metadata: Arc<ConsumerGroupMetadata>,
}

/// What one membership sends of a transaction's offsets.
pub(super) type Share<'a> = (&'a Arc<ConsumerGroupMetadata>, Vec<&'a (TopicPartition, NextOffset)>);

impl GroupMember {
    /// A membership that owns partitions of one topic.
    #[must_use]
    pub fn of(topic: &str, metadata: ConsumerGroupMetadata) -> Self {
        Self { topics: vec![Arc::from(topic)], metadata: Arc::new(metadata) }
    }

    /// Its part of these offsets; `None` when it has none of them.
    pub(super) fn share<'a>(&'a self, offsets: &'a [(TopicPartition, NextOffset)]) -> Option<Share<'a>> {
        let share: Vec<_> = offsets.iter().filter(|(at, _)| self.topics.contains(&at.topic)).collect();
        (!share.is_empty()).then_some((&self.metadata, share))
    }
}
