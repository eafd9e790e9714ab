//! Events as Kafka's records.

use rdkafka::IntoOpaque;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::config::TopicArgs;
use crate::event::{Channel, Outgoing, OutgoingHeader};

/// The topic of a channel.
pub(crate) fn topic(topics: &TopicArgs, channel: Channel) -> &str {
    match channel {
        Channel::Accepted => &topics.accepted_topic,
        Channel::Rejected => &topics.rejected_topic,
        Channel::DeadLetter => &topics.dead_letter_topic,
        Channel::Levels => &topics.levels_topic,
        Channel::Orders => &topics.orders_topic,
    }
}

/// The record that carries an event.
pub(crate) fn record<'a>(event: &'a Outgoing, topic: &'a str) -> BaseRecord<'a, [u8], [u8]> {
    marked(event, topic, ())
}

/// The same with a mark, which comes back with its delivery report.
pub(crate) fn marked<'a, M: IntoOpaque>(
    event: &'a Outgoing,
    topic: &'a str,
    mark: M,
) -> BaseRecord<'a, [u8], [u8], M> {
    let headers = event.headers.iter().fold(
        OwnedHeaders::new_with_capacity(event.headers.len()),
        |headers, OutgoingHeader { name, value }| {
            headers.insert(Header { key: name, value: value.as_deref() })
        },
    );
    let mut record = BaseRecord::with_opaque_to(topic, mark).headers(headers);
    record.key = event.key.as_deref();
    record.payload = event.value.as_deref();
    record
}
