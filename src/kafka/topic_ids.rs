//! Which topic a name means now: Kafka's id of it, which a topic made anew under the same name does not have.
//!
//! librdkafka can ask (`rd_kafka_DescribeTopics`), rdkafka does not offer it; so this is one of the files of the
//! library with unsafe code. Nothing borrowed from the answer leaves `each`.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; each block says why it is sound")]

use std::ffi::CStr;
use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataBroker;

use super::admin_request::{Also, NoAnswer, Operations, Owned, Question, c_names, check};
use crate::ledger::TopicId;

/// What librdkafka calls a broker whose id it does not know yet.
const UNKNOWN_BROKER: i32 = -1;

/// What a name means to Kafka now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// A topic.
    There {
        /// Its id; `None` when the broker is too old to have one.
        id: Option<TopicId>,
        /// The number of its partitions.
        partitions: i32,
    },
    /// There is no topic of this name.
    Absent,
    /// This user may not know.
    NotPermitted,
}

impl Described {
    /// The topic's id, where it is known.
    #[must_use]
    pub fn id(&self) -> Option<&TopicId> {
        match self {
            Self::There { id, .. } => id.as_ref(),
            Self::Absent | Self::NotPermitted => None,
        }
    }

    /// Whether it can have this partition.
    #[must_use]
    pub fn has(&self, partition: i32) -> bool {
        match self {
            Self::There { partitions, .. } => partition < *partitions,
            Self::Absent => false,
            Self::NotPermitted => true,
        }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::There { id: Some(id), partitions } => write!(f, "topic {id}, {partitions} partitions"),
            Self::There { id: None, partitions } => write!(f, "a topic, {partitions} partitions"),
            Self::Absent => f.write_str("no topic"),
            Self::NotPermitted => f.write_str("this user may not see it"),
        }
    }
}

/// What each of these names means now, in their order. Each name once. Blocks for little longer than `limit`.
///
/// Any kind of client can ask; one that may create topics (`allow.auto.create.topics`, a producer's default) could
/// create what it asks for.
///
/// # Errors
/// `NoAnswer` when Kafka does not answer within `limit`, or refuses the question as a whole.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
) -> Result<Vec<Described>, NoAnswer> {
    // SAFETY: it is called with a description that lives as long as the call.
    each(client, names, limit, None, |name, topic| unsafe { read(name, topic) })
}

/// What this user may do with each of these topics, in their order; `None` where there is no such topic that this user
/// may know of, or the broker is too old to say. Each name once. Blocks for little longer than `limit`.
///
/// # Errors
/// As [`describe`].
pub fn allowed<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
) -> Result<Vec<Option<Operations>>, NoAnswer> {
    each(client, names, limit, Some(Also::Operations), |name, topic| {
        // SAFETY: the description lives as long as this call, and so does its list.
        unsafe {
            if !matches!(read(name, topic)?, Described::There { .. }) {
                return Ok(None);
            }
            let mut count = 0;
            let list = native::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
            Ok(Operations::read(list, count))
        }
    })
}

/// Asks about topics, and reads the answer about each. What `read` is called with lives as long as that call.
fn each<C: ClientContext, T>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
    also: Option<Also>,
    read: impl Fn(&str, *const native::rd_kafka_TopicDescription_t) -> Result<T, NoAnswer>,
) -> Result<Vec<T>, NoAnswer> {
    let Some(first) = names.first() else { return Ok(Vec::new()) };
    let owned_names = c_names(names)?;
    let deadline = Instant::now() + limit;
    // librdkafka would ask the controller, which not every broker has: librdkafka's own test broker has none, and then
    // there would be no answer. So any broker that is up.
    let metadata = client.fetch_metadata(Some(first), limit).map_err(|error| NoAnswer::new(&error))?;
    let some = metadata.brokers().first().map_or(UNKNOWN_BROKER, MetadataBroker::id);
    let broker = Some(metadata.orig_broker_id()).filter(|id| *id > UNKNOWN_BROKER).unwrap_or(some);
    drop(metadata);

    let mut name_pointers: Vec<_> = owned_names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the array has as many pointers as is said, each to a string with its NUL; librdkafka copies the strings.
    // The collection is ours to free.
    let topics = unsafe {
        Owned::new(
            native::rd_kafka_TopicCollection_of_topic_names(name_pointers.as_mut_ptr(), name_pointers.len()),
            native::rd_kafka_TopicCollection_destroy,
        )
    };
    let topics = topics.ok_or_else(|| NoAnswer::new(&"the question cannot be asked"))?;
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let question = Question { kind, broker: Some(broker), also };
    let left = deadline.saturating_duration_since(Instant::now());
    let event = question.ask(client, left, |rk, options, queue| {
        // SAFETY: all four live. librdkafka copies the names and the options, and keeps a count of its own on the queue.
        unsafe { native::rd_kafka_DescribeTopics(rk, topics.ptr(), options, queue) }
    })?;
    // SAFETY: the event lives. Null when it is an event of another kind, which is checked.
    let result = unsafe { native::rd_kafka_event_DescribeTopics_result(event.ptr()) };
    if result.is_null() {
        return Err(NoAnswer::new(&"the answer is to another question"));
    }
    let mut count = 0;
    // SAFETY: the result is the event's and lives as long; `count` says how many pointers there are.
    let found = unsafe { native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if count != names.len() || found.is_null() {
        return Err(NoAnswer::new(&"the answer leaves topics out"));
    }
    // SAFETY: librdkafka says that there are so many. They are not changed while the event lives, which is until the
    // end of this function.
    let found = unsafe { std::slice::from_raw_parts(found.cast_const(), count) };
    let described = names.iter().zip(found).map(|(name, topic)| {
        if topic.is_null() {
            return Err(NoAnswer::new(&format_args!("the answer leaves {name} out")));
        }
        // Not null, and the event's, so it lives until the end of this function.
        read(name, *topic)
    });
    described.collect()
}

/// Reads what the broker says of a topic.
///
/// # Safety
/// `topic` is a description in a result that lives as long as this call.
unsafe fn read(name: &str, topic: *const native::rd_kafka_TopicDescription_t) -> Result<Described, NoAnswer> {
    // SAFETY: the description lives, and so does its name, which ends with NUL.
    let described = unsafe { CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic)) };
    if described.to_bytes() != name.as_bytes() {
        return Err(NoAnswer(format!("the answer is about {described:?} and not about {name}")));
    }
    // SAFETY: the description lives, and so does its error; `rd_kafka_error_code` takes null for no error.
    let code = unsafe { native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(topic)) };
    match check(code) {
        Ok(()) => {}
        Err(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId,
        ) => return Ok(Described::Absent),
        Err(RDKafkaErrorCode::TopicAuthorizationFailed) => return Ok(Described::NotPermitted),
        Err(error) => return Err(NoAnswer(format!("{name}: {error}"))),
    }
    let mut partitions = 0;
    // SAFETY: the description lives. Only the number is looked at.
    unsafe { native::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions) };
    // SAFETY: the description lives, and its id is a part of it.
    let bits = unsafe {
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        [native::rd_kafka_Uuid_most_significant_bits(id), native::rd_kafka_Uuid_least_significant_bits(id)]
    };
    Ok(Described::There { id: id_of(bits), partitions: i32::try_from(partitions).unwrap_or(i32::MAX) })
}

/// A topic id as Kafka's own tools print it; `None` for zero, which is a broker's that has none (before Kafka 2.8).
fn id_of([high, low]: [i64; 2]) -> Option<TopicId> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    (bytes != [0; 16]).then(|| TopicId::new(URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Long enough for a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn an_id_is_written_as_kafkas_tools_write_it() {
        let id = id_of([-0x10_0000_0000, 0x3f]);
        assert_eq!(id, Some(TopicId::new("____8AAAAAAAAAAAAAAAPw")));
        assert_eq!(id_of([0, 0]), None);
    }

    #[test]
    fn the_demos_broker_answers_at_once() {
        let mock = MockCluster::new(1).expect("a broker in this process");
        mock.create_topic("orders", 6, 1).expect("a topic");
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .create()
            .expect("a client");
        let begun = Instant::now();
        let described = describe(consumer.client(), &["orders", "nothing"], LIMIT).expect("an answer");
        assert!(begun.elapsed() < LIMIT / 2, "it took {:?}", begun.elapsed());
        assert!(matches!(described[0], Described::There { partitions: 6, .. }), "{described:?}");
        assert_eq!(described[1], Described::Absent);
        describe(consumer.client(), &["orders", "orders"], LIMIT).expect_err("each name once");
    }

    #[test]
    fn a_broker_that_is_away_is_no_answer_within_the_limit() {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().expect("a client");
        let begun = Instant::now();
        let limit = Duration::from_millis(300);
        describe(consumer.client(), &["orders"], limit).expect_err("nobody is there");
        assert!(begun.elapsed() < LIMIT / 2, "it took {:?}", begun.elapsed());
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().expect("a client");
        describe(consumer.client(), &["or\0ders"], LIMIT).expect_err("no topic has this name");
    }
}
