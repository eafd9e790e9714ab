//! A consumer that is a member of the group: its polling, its rebalances, and under which name it sends offsets.

mod config;
mod context;
mod member;
mod polling;
mod rebalance;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use self::config::make_static;
pub use self::config::{Role, client_id, consumer_config};
use self::context::Context;
pub use self::context::{Assigned, LogEnd, Notice, Revoked, StartOffsets};
pub use self::member::{Member, MemberName, NotSpeaking, Watermarks};
pub use self::polling::{FetchedRecord, Incoming, Memberships};
use super::closing::BoundedClose;
use super::password::WithPassword;
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::event::{Header, Record};
use crate::ledger::{Offset, Source, TopicPartition};

/// Longest wait for an answer about the group when leaving it.
const LEAVE_ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The length of a UUID as text.
const UUID: usize = 36;

/// What a poll came to.
enum Polled<'a> {
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
    OutOfRange(String),
    /// A topic does not exist.
    #[error("{0}")]
    UnknownTopic(String),
    /// This user may not read.
    #[error("{0}")]
    NotPermitted(String),
    /// Somebody else is the static member now.
    #[error("{0}")]
    Fenced(String),
    /// The static member that was is still there.
    #[error("{0}")]
    Unreleased(String),
    /// The group has nothing to do with this member any more, for this reason.
    #[error("{0}")]
    Fatal(String),
    /// librdkafka goes on by itself: brokers down, timeouts, a poll that came late.
    #[error("{0}")]
    Passing(String),
}

impl ConsumerError {
    fn of(consumer: &BaseConsumer<Context>, error: &KafkaError) -> Self {
        let why = error.to_string();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Self::OutOfRange(why)
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Self::UnknownTopic(why)
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Self::NotPermitted(why)
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                match consumer.client().fatal_error() {
                    Some((RDKafkaErrorCode::FencedInstanceId, _)) => Self::Fenced(why),
                    Some((RDKafkaErrorCode::UnreleasedInstanceId, _)) => Self::Unreleased(why),
                    Some((_, why)) => Self::Fatal(why),
                    None => Self::Fatal(why),
                }
            }
            _ => Self::Passing(why),
        }
    }
}

/// A record as librdkafka has it: it pins the whole fetch it came in, so it must not be kept.
struct Message<'a>(BorrowedMessage<'a>);

impl Message<'_> {
    /// An owned copy, and its size in bytes. The topic's name is shared where it is one of these.
    fn own(&self, topics: &[Arc<str>]) -> (Record, usize) {
        let name = self.0.topic();
        let topic = topics.iter().find(|topic| ***topic == *name).map_or_else(|| Arc::from(name), Arc::clone);
        let at = TopicPartition { topic, partition: self.0.partition() };
        own(&self.0, Source { at, offset: Offset(self.0.offset()) })
    }
}

/// An owned copy of a message, and its size in bytes.
pub(in crate::kafka) fn own(message: &BorrowedMessage<'_>, source: Source) -> (Record, usize) {
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
    let record =
        Record { source, key, value, headers, timestamp_ms: message.timestamp().to_millis(), decoded: None };
    (record, bytes)
}

/// One membership of the group.
pub struct Consumer {
    inner: BoundedClose<WithPassword<BaseConsumer<Context>>>,
    group: String,
    /// What the group calls it, when it is a static member.
    static_id: Option<String>,
}

impl Consumer {
    /// Makes the client; it joins the group when it has subscribed. `context` is made of the topics that it reads.
    fn new(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        worker: usize,
        role: Role,
        context: impl FnOnce(Vec<Arc<str>>) -> Context,
    ) -> Result<Self> {
        let mut config = consumer_config(kafka, group, role)?;
        let static_id = make_static(&mut config, group, worker, role);
        let context = context(role.topics(topics).into_iter().map(Arc::from).collect());
        let inner = config.create_with_context(context).context("the consumer's configuration is refused")?;
        let inner = BoundedClose::new(WithPassword::consumer(inner));
        Ok(Self { inner, group: group.group.clone(), static_id })
    }

    /// Begins to join the group. Partitions are assigned while it polls.
    fn subscribe(&self) -> Result<()> {
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
    fn poll(&self, wait: Duration) -> Polled<'_> {
        match self.inner.poll(wait) {
            None => Polled::Nothing,
            Some(Ok(message)) => Polled::Record(Message(message)),
            Some(Err(error)) => Polled::Failed(ConsumerError::of(&self.inner, &error)),
        }
    }

    fn context(&self) -> &Context {
        self.inner.context()
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
