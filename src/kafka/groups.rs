//! Consumer groups as Kafka describes them: who is in them, what they read, what this user may do with them, and which of
//! their offsets an open transaction has.
//!
//! librdkafka can ask (`rd_kafka_DescribeConsumerGroups`, of both kinds of groups, and `rd_kafka_ListConsumerGroupOffsets`),
//! rdkafka does not offer it.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; each block says why it is sound")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::admin_request::{Also, NoAnswer, Operations, Owned, Question, c_names, check, entries, text};
use super::offsets::list;
use crate::ledger::TopicPartition;

/// A group, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// What Kafka calls its state.
    pub state: String,
    /// Who is in it.
    pub members: Vec<MemberDescription>,
    /// What this user may do with it; `None` where Kafka does not say.
    pub operations: Option<Operations>,
}

/// Who is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// What it calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub host: String,
    /// The partitions that it was given, by topic.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
}

/// These groups, in no order; why not, where Kafka does not describe one. Each name once. Blocks for little longer than
/// `limit`.
///
/// # Errors
/// `NoAnswer` when Kafka does not answer within `limit`, or refuses the question as a whole.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
) -> Result<Vec<Result<GroupDescription, String>>, NoAnswer> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let owned_names = c_names(names)?;
    let mut name_pointers: Vec<_> = owned_names.iter().map(|name| name.as_ptr()).collect();
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let question = Question { kind, broker: None, also: Some(Also::Operations) };
    let event = question.ask(client, limit, |rk, options, queue| {
        // SAFETY: all live, and the array has as many strings as is said. librdkafka copies them and the options, and keeps
        // a count of its own on the queue.
        unsafe {
            native::rd_kafka_DescribeConsumerGroups(
                rk,
                name_pointers.as_mut_ptr(),
                name_pointers.len(),
                options,
                queue,
            );
        }
    })?;
    // SAFETY: the event lives. Null when it is an event of another kind, which is checked.
    let result = unsafe { native::rd_kafka_event_DescribeConsumerGroups_result(event.ptr()) };
    if result.is_null() {
        return Err(NoAnswer::new(&"the answer is to another question"));
    }
    let mut count = 0;
    // SAFETY: the result is the event's and lives as long; `count` says how many pointers there are.
    let found = unsafe { native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count) };
    if found.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: librdkafka says that there are so many; they live as long as the event, which is until the end of this
    // function, and are not changed.
    let found = unsafe { std::slice::from_raw_parts(found.cast_const(), count) };
    // SAFETY: not null, and the event's, so it lives until the end of this function.
    Ok(found.iter().filter(|group| !group.is_null()).map(|group| unsafe { read(*group) }).collect())
}

/// Those of these partitions whose offsets of a group an open transaction has now. Each partition once. Blocks for little
/// longer than `limit`.
///
/// A reader of committed offsets knows it too, but only from an answer that does not come, which has other causes.
///
/// # Errors
/// `NoAnswer` when Kafka does not answer within `limit`, or not for each partition.
pub fn in_open_transactions<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    partitions: &[TopicPartition],
    limit: Duration,
) -> Result<Vec<TopicPartition>, NoAnswer> {
    // None would mean all that there are.
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let name = CString::new(group).map_err(|error| NoAnswer::new(&error))?;
    let wanted = list(partitions);
    // SAFETY: both live, and librdkafka copies them. What it gives is ours to free.
    let offsets = unsafe {
        Owned::new(
            native::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), wanted.ptr()),
            native::rd_kafka_ListConsumerGroupOffsets_destroy,
        )
    };
    let offsets = offsets.ok_or_else(|| NoAnswer::new(&"the question cannot be asked"))?;
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let question = Question { kind, broker: None, also: Some(Also::OpenTransactions) };
    let event = question.ask(client, limit, |rk, options, queue| {
        // SAFETY: all live, and the array has one entry, as is said. librdkafka copies it and the options, and keeps a count
        // of its own on the queue.
        unsafe {
            native::rd_kafka_ListConsumerGroupOffsets(rk, [offsets.ptr()].as_mut_ptr(), 1, options, queue);
        }
    })?;
    // SAFETY: the event lives. Null when it is an event of another kind, which is checked.
    let result = unsafe { native::rd_kafka_event_ListConsumerGroupOffsets_result(event.ptr()) };
    if result.is_null() {
        return Err(NoAnswer::new(&"the answer is to another question"));
    }
    let mut count = 0;
    // SAFETY: the result is the event's, and lives as long, which is until the end of this function; `count` says how many
    // groups it has. A group, its error and its list are parts of it; `rd_kafka_error_code` takes null for no error.
    let answered = unsafe {
        let groups = native::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
        if groups.is_null() || count != 1 {
            return Err(NoAnswer::new(&"the answer leaves the group out"));
        }
        let error = native::rd_kafka_group_result_error(*groups);
        check(native::rd_kafka_error_code(error)).map_err(|error| NoAnswer::new(&error))?;
        entries(native::rd_kafka_group_result_partitions(*groups))
    };
    let mut open = Vec::new();
    for partition in answered {
        // SAFETY: the entry is the result's, and so is its topic's name.
        let at = TopicPartition::new(unsafe { text(partition.topic) }, partition.partition);
        match check(partition.err) {
            Ok(()) => {}
            Err(RDKafkaErrorCode::UnstableOffsetCommit) => open.push(at),
            Err(error) => return Err(NoAnswer::new(&format_args!("{at}: {error}"))),
        }
    }
    Ok(open)
}

/// Reads what Kafka says of a group.
///
/// # Safety
/// `group` is a description in a result that lives as long as this call.
unsafe fn read(
    group: *const native::rd_kafka_ConsumerGroupDescription_t,
) -> Result<GroupDescription, String> {
    // SAFETY: the description lives, and with it all that it has; `rd_kafka_error_code` takes null for no error, and a
    // count says how long the list is. A member's index is below the count of them.
    unsafe {
        let error = native::rd_kafka_ConsumerGroupDescription_error(group);
        check(native::rd_kafka_error_code(error)).map_err(|error| error.to_string())?;
        let mut count = 0;
        let list = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut count);
        let state = native::rd_kafka_ConsumerGroupDescription_state(group);
        let members = 0..native::rd_kafka_ConsumerGroupDescription_member_count(group);
        Ok(GroupDescription {
            name: text(native::rd_kafka_ConsumerGroupDescription_group_id(group)),
            state: text(native::rd_kafka_consumer_group_state_name(state)),
            members: members
                .map(|index| native::rd_kafka_ConsumerGroupDescription_member(group, index))
                .filter(|member| !member.is_null())
                .map(|member| read_member(member))
                .collect(),
            operations: Operations::read(list, count),
        })
    }
}

/// Reads what Kafka says of a member.
///
/// # Safety
/// `member` is a description in a result that lives as long as this call.
unsafe fn read_member(member: *const native::rd_kafka_MemberDescription_t) -> MemberDescription {
    // SAFETY: the description lives, and with it its texts, its assignment and that one's list.
    unsafe {
        let mut given: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        let assignment = native::rd_kafka_MemberDescription_assignment(member);
        if !assignment.is_null() {
            for partition in entries(native::rd_kafka_MemberAssignment_partitions(assignment)) {
                given.entry(text(partition.topic)).or_default().insert(partition.partition);
            }
        }
        MemberDescription {
            client_id: text(native::rd_kafka_MemberDescription_client_id(member)),
            host: text(native::rd_kafka_MemberDescription_host(member)),
            partitions: given,
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// Long enough for a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn only_an_answer_says_that_a_transaction_is_open() {
        let mock = MockCluster::new(1).expect("a broker in this process");
        mock.create_topic("orders", 2, 1).expect("a topic");
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("group.id", "g")
            .create()
            .expect("a client");
        let partitions = [TopicPartition::new("orders", 0), TopicPartition::new("orders", 1)];
        let open = |partitions: &[TopicPartition], limit| {
            in_open_transactions(consumer.client(), "g", partitions, limit)
        };
        assert_eq!(open(&partitions, LIMIT), Ok(Vec::new()));
        assert_eq!(open(&[], LIMIT), Ok(Vec::new()), "none are not all");
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 1];
        mock.request_errors(RDKafkaApiKey::OffsetFetch, &refused);
        open(&partitions, LIMIT).expect_err("Kafka does not say");
        open(&[partitions[0].clone(), partitions[0].clone()], LIMIT).expect_err("each once");
        drop(mock);
        open(&partitions, Duration::from_millis(300)).expect_err("nobody is there");
    }
}
