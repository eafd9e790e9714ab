//! Consumer groups as Kafka describes them: who is in them, what they read, and what this user may do with them.
//!
//! librdkafka can ask (`rd_kafka_DescribeConsumerGroups`, of both kinds of groups), rdkafka does not offer it.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; each block says why it is sound")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};

use super::admin_request::{NoAnswer, Operations, Question, c_names, check};

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
    let question = Question { kind, broker: None, operations: true };
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
    // SAFETY: the description lives, and with it its texts and its assignment, whose list has as many elements as it says.
    unsafe {
        let mut given: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        let assignment = native::rd_kafka_MemberDescription_assignment(member);
        if !assignment.is_null() {
            let list = native::rd_kafka_MemberAssignment_partitions(assignment);
            if !list.is_null() && !(*list).elems.is_null() {
                let count = usize::try_from((*list).cnt).unwrap_or(0);
                let partitions = std::slice::from_raw_parts((*list).elems.cast_const(), count);
                for partition in partitions {
                    given.entry(text(partition.topic)).or_default().insert(partition.partition);
                }
            }
        }
        MemberDescription {
            client_id: text(native::rd_kafka_MemberDescription_client_id(member)),
            host: text(native::rd_kafka_MemberDescription_host(member)),
            partitions: given,
        }
    }
}

/// A text of librdkafka's; empty where there is none.
///
/// # Safety
/// `text` is null, or ends with a zero and lives as long as this call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
