//! What is published: results, levels, dead letters; and what the verifier asks itself.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use super::types::{
    ADJUSTMENT_ACCEPTED, ADJUSTMENT_REJECTED, CANCELLATION_ACCEPTED, CONFIRMATION_ACCEPTED,
    CONFIRMATION_REJECTED, EXTENSION_ACCEPTED, EXTENSION_REJECTED, HOLD_EXPIRED, ORDER_ACCEPTED,
    ORDER_CREATED, ORDER_HOLD_DUE, ORDER_REJECTED, RELEASE_ACCEPTED, RELEASE_REJECTED, RETURN_ACCEPTED,
    RETURN_REJECTED, STOCK_LEVEL,
};
use sha2::{Digest as _, Sha256};

use super::{Fault, Record, TRACEPARENT, TRACESTATE, TraceContext};
use crate::ledger::{CommandKind, Decision, Id, Item, Level, Location};

/// Who publishes the results: the `ce_source` of every event.
pub const CE_SOURCE: &str = "stock-verifier";
/// Who hands orders in that came by the gate: their `ce_source`.
pub const CE_GATE_SOURCE: &str = "stock-verifier/gate";

/// Which topic something is published on; which one that is, the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Accepted commands.
    Accepted,
    /// Rejected commands.
    Rejected,
    /// Records no command could be read from, or that conflict with one decided.
    DeadLetter,
    /// How much of each item there is: compacted, so that the last level of each is kept.
    Levels,
    /// Orders: what the verifier asks itself.
    Orders,
}

/// One header of a record to be produced. What is the same in every record is borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingHeader {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its value; `None` only where the header of a dead letter's record had none.
    pub value: Option<Cow<'static, [u8]>>,
}

impl OutgoingHeader {
    fn fixed(name: &'static str, value: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), value: Some(Cow::Borrowed(value.as_bytes())) }
    }

    fn made(name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        Self { name: Cow::Borrowed(name), value: Some(Cow::Owned(value.into())) }
    }
}

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub channel: Channel,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` only for the dead letter of a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<OutgoingHeader>,
}

/// The event that publishes a decision.
///
/// Published from the stored decision alone, beside the key and trace context of
/// the record it was decided from: so publishing it again gives the same bytes.
/// The key is that record's, else the command's id. The trace context is passed on as it came, tracing or not: a span of
/// the publisher's own would be another one each time.
#[must_use]
pub fn result(decision: &Decision, record_key: Option<&[u8]>, trace: TraceContext<'_>) -> Outgoing {
    let channel = if decision.accepted { Channel::Accepted } else { Channel::Rejected };
    let shape = Shape::of(decision);
    let id = decision.key.id.as_str();
    let mut event_id = String::with_capacity(decision.key.kind.name().len() + 1 + id.len());
    // Writing to a string fails only when a Display does, and this one does not.
    let _ = write!(event_id, "{}", decision.key);
    let mut headers = Vec::with_capacity(8);
    headers.extend([
        OutgoingHeader::fixed("ce_specversion", "1.0"),
        OutgoingHeader::made("ce_id", event_id),
        OutgoingHeader::fixed("ce_source", CE_SOURCE),
        OutgoingHeader::fixed("ce_type", shape.kind),
        OutgoingHeader::made("ce_time", decision.decided_at.rfc3339()),
        OutgoingHeader::fixed("content-type", "application/json"),
    ]);
    headers.extend(trace.traceparent.map(|value| OutgoingHeader::made(TRACEPARENT, value)));
    headers.extend(trace.tracestate.map(|value| OutgoingHeader::made(TRACESTATE, value)));
    Outgoing {
        channel,
        key: Some(record_key.unwrap_or(id.as_bytes()).to_vec()),
        value: Some(value(decision, &shape)),
        headers,
    }
}

/// What a cancellation is published as that was rejected: none is, since nothing of its content but the id can be wrong and
/// the ledger accepts every one. So it is not in the published contract.
const CANCELLATION_REJECTED: &str = "cancellation.rejected";

/// What differs between results.
struct Shape {
    /// The event's type.
    kind: &'static str,
    /// The field that holds the command's id.
    id: &'static str,
}

impl Shape {
    fn of(decision: &Decision) -> Self {
        let (accepted, rejected, id) = match decision.key.kind {
            CommandKind::OrderCreated => (ORDER_ACCEPTED, ORDER_REJECTED, "order_id"),
            CommandKind::OrderCancelled => (CANCELLATION_ACCEPTED, CANCELLATION_REJECTED, "order_id"),
            CommandKind::OrderReturned => (RETURN_ACCEPTED, RETURN_REJECTED, "return_id"),
            CommandKind::OrderConfirmed => (CONFIRMATION_ACCEPTED, CONFIRMATION_REJECTED, "confirmation_id"),
            CommandKind::OrderReleased => (RELEASE_ACCEPTED, RELEASE_REJECTED, "order_id"),
            CommandKind::HoldExtended => (EXTENSION_ACCEPTED, EXTENSION_REJECTED, "extension_id"),
            // Never rejected: a hold that does not end is not decided.
            CommandKind::HoldExpired => (HOLD_EXPIRED, HOLD_EXPIRED, "order_id"),
            CommandKind::Adjustment => (ADJUSTMENT_ACCEPTED, ADJUSTMENT_REJECTED, "adjustment_id"),
        };
        Self { kind: if decision.accepted { accepted } else { rejected }, id }
    }
}

/// The result's value, with the members of the decision's detail as they are stored.
///
/// By hand, since serde takes raw JSON only after reading it once more; the
/// tests hold it equal to what serde writes for the published types.
fn value(decision: &Decision, shape: &Shape) -> Vec<u8> {
    const AROUND: usize = 192; // The field names, the numbers and a topic of usual length.
    let id = decision.key.id.as_str();
    let mut value = Vec::with_capacity(AROUND + id.len() + decision.detail.len());
    value.extend_from_slice(b"{\"type\":\"");
    value.extend_from_slice(shape.kind.as_bytes());
    value.extend_from_slice(b"\",\"");
    value.extend_from_slice(shape.id.as_bytes());
    value.extend_from_slice(b"\":");
    string(&mut value, id);
    let members = members(&decision.detail);
    if !members.is_empty() {
        value.push(b',');
        value.extend_from_slice(members.as_bytes());
    }
    if let Some(source) = &decision.source {
        value.extend_from_slice(b",\"source\":{\"topic\":");
        string(&mut value, &source.at.topic);
        // Writing to a Vec does not fail.
        let _ = write!(value, ",\"partition\":{},\"offset\":{}}}", source.at.partition, source.offset);
    }
    value.push(b'}');
    value
}

/// What stands between the braces of an object this program wrote.
fn members(object: &str) -> &str {
    object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default()
}

fn string(into: &mut Vec<u8>, text: &str) {
    // Holds because neither a str nor writing to a Vec has a way to fail.
    serde_json::to_writer(into, text).expect("text is always valid JSON");
}

/// Between the SKU and the location in a level's key: a control character (unit separator), which no id holds.
pub(super) const KEY_SEPARATOR: u8 = 0x1f;

/// The event that publishes an item's level.
///
/// Keyed by the SKU, and a U+001F and the location unless it is the default
/// one, so that a compacted topic keeps the last level of each item. Without
/// a time and a trace context: it says what is, not what happened.
#[must_use]
pub fn level(item: &Item, level: &Level) -> Outgoing {
    const AROUND: usize = 112; // The field names and the longest numbers.
    let sku = item.sku.as_str();
    let location = item.location.as_ref().map(Location::as_str);
    let length = sku.len() + location.map_or(0, |location| 1 + location.len());

    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(sku.as_bytes());
    let mut event_id = Vec::with_capacity(STOCK_LEVEL.len() + length + 22);
    event_id.extend_from_slice(STOCK_LEVEL.as_bytes());
    event_id.push(b'/');
    event_id.extend_from_slice(sku.as_bytes());
    let mut value = Vec::with_capacity(AROUND + length);
    value.extend_from_slice(b"{\"type\":\"");
    value.extend_from_slice(STOCK_LEVEL.as_bytes());
    value.extend_from_slice(b"\",\"sku\":");
    string(&mut value, sku);
    if let Some(location) = location {
        key.push(KEY_SEPARATOR);
        key.extend_from_slice(location.as_bytes());
        event_id.push(KEY_SEPARATOR);
        event_id.extend_from_slice(location.as_bytes());
        value.extend_from_slice(b",\"location\":");
        string(&mut value, location);
    }
    // Writing to a Vec does not fail.
    let _ = write!(event_id, "/{}", level.version);
    let _ = write!(value, ",\"available\":{},\"version\":{}}}", level.available, level.version);

    let headers = vec![
        OutgoingHeader::fixed("ce_specversion", "1.0"),
        OutgoingHeader::made("ce_id", event_id),
        OutgoingHeader::fixed("ce_source", CE_SOURCE),
        OutgoingHeader::fixed("ce_type", STOCK_LEVEL),
        OutgoingHeader::fixed("content-type", "application/json"),
    ];
    Outgoing { channel: Channel::Levels, key: Some(key), value: Some(value), headers }
}

/// The command that asks whether a hold's time is over, keyed as its order is.
#[must_use]
pub fn hold_due(order_id: &Id) -> Outgoing {
    let id = order_id.as_str();
    let mut value = format!("{{\"type\":\"{ORDER_HOLD_DUE}\",\"order_id\":").into_bytes();
    string(&mut value, id);
    value.push(b'}');
    Outgoing {
        channel: Channel::Orders,
        key: Some(id.as_bytes().to_vec()),
        value: Some(value),
        headers: Vec::new(),
    }
}

/// An order as it was handed in: its payload as it is, keyed by its id.
#[must_use]
pub fn submitted(order_id: &Id, payload: &[u8], trace: TraceContext<'_>) -> Outgoing {
    let id = order_id.as_str();
    let mut headers = vec![
        OutgoingHeader::fixed("ce_specversion", "1.0"),
        OutgoingHeader::made("ce_id", format!("{ORDER_CREATED}/{id}")),
        OutgoingHeader::fixed("ce_source", CE_GATE_SOURCE),
        OutgoingHeader::fixed("ce_type", ORDER_CREATED),
        OutgoingHeader::fixed("content-type", "application/json"),
    ];
    headers.extend(trace.traceparent.map(|value| OutgoingHeader::made(TRACEPARENT, value)));
    headers.extend(trace.tracestate.map(|value| OutgoingHeader::made(TRACESTATE, value)));
    Outgoing {
        channel: Channel::Orders,
        key: Some(id.as_bytes().to_vec()),
        value: Some(payload.to_vec()),
        headers,
    }
}

/// Names of the headers a dead letter adds: those of Kafka Connect, which tools know.
pub const ERROR_HEADERS: [&str; 6] = [
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.stage",
    "__connect.errors.exception.class.name",
    "__connect.errors.exception.message",
];

/// The dead letter of a record: its key, value and headers as they were, and headers that say where it stood and why.
///
/// `stage` is what was being done: `read` or `decide`. A record that was a
/// dead letter before and was sent again has such headers already: they are
/// replaced, so that one name has one value and a letter does not grow with
/// each round. Headers of that family this program does not write are kept.
#[must_use]
pub fn dead_letter(record: Record, fault: &Fault, stage: &'static str) -> Outgoing {
    let source = record.source;
    let values: [Cow<'static, [u8]>; 6] = [
        Cow::Owned(source.at.topic.as_bytes().to_vec()),
        Cow::Owned(source.at.partition.to_string().into_bytes()),
        Cow::Owned(source.offset.to_string().into_bytes()),
        Cow::Borrowed(stage.as_bytes()),
        Cow::Borrowed(fault.code.name().as_bytes()),
        Cow::Owned(fault.detail.as_bytes().to_vec()),
    ];
    let is_ours = |name: &str| ERROR_HEADERS.contains(&name) || OMITTED_HEADERS.contains(&name);
    let kept = record.headers.into_iter().filter(|header| !is_ours(&header.name));
    let mut headers: Vec<_> = kept
        .map(|header| OutgoingHeader { name: Cow::Owned(header.name), value: header.value.map(Cow::Owned) })
        .collect();
    headers.extend(
        ERROR_HEADERS
            .into_iter()
            .zip(values)
            .map(|(name, value)| OutgoingHeader { name: Cow::Borrowed(name), value: Some(value) }),
    );
    Outgoing { channel: Channel::DeadLetter, key: record.key, value: record.value, headers }
}

/// Names of the headers that say what was left out of a dead letter that is too large for its topic: how many bytes, and
/// their SHA-256 in hexadecimal digits.
pub const OMITTED_HEADERS: [&str; 5] = [
    "stock_verifier.omitted.value.bytes",
    OMITTED_VALUE_SHA256,
    "stock_verifier.omitted.key.bytes",
    "stock_verifier.omitted.key.sha256",
    "stock_verifier.omitted.headers.bytes",
];
/// The one of the value's digest.
pub const OMITTED_VALUE_SHA256: &str = "stock_verifier.omitted.value.sha256";
/// Largest key that is kept where the value is left out, and most bytes of the record's own headers, in bytes: together
/// with what this program adds it fits into any topic one can think of.
const KEPT_MAX: usize = 4096;

impl Outgoing {
    /// How many bytes its key, value and headers have.
    #[must_use]
    pub fn size(&self) -> usize {
        let of_headers = self.headers.iter().map(header_size).sum::<usize>();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + of_headers
    }

    /// Makes a dead letter small whatever its record was: without its value, and without its key or the record's own
    /// headers where those are large too. The record itself is where the headers say, as long as its topic keeps it.
    ///
    /// Returns whether there was anything to leave out; there is not a second time.
    pub fn shorten(&mut self) -> bool {
        if self.channel != Channel::DeadLetter
            || self.headers.iter().any(|header| header.name == OMITTED_HEADERS[0])
        {
            return false;
        }
        let [value_bytes, value_digest, key_bytes, key_digest, headers_bytes] = OMITTED_HEADERS;
        let mut more = Vec::new();
        let value = self.value.take().unwrap_or_default();
        more.push(OutgoingHeader::made(value_bytes, value.len().to_string()));
        more.push(OutgoingHeader::made(value_digest, sha256(&value)));
        if let Some(key) = self.key.take_if(|key| key.len() > KEPT_MAX) {
            more.push(OutgoingHeader::made(key_bytes, key.len().to_string()));
            more.push(OutgoingHeader::made(key_digest, sha256(&key)));
        }
        let is_ours = |header: &OutgoingHeader| ERROR_HEADERS.contains(&&*header.name);
        let own = self.headers.iter().filter(|header| !is_ours(header)).map(header_size).sum::<usize>();
        if own > KEPT_MAX {
            self.headers.retain(is_ours);
            more.push(OutgoingHeader::made(headers_bytes, own.to_string()));
        }
        self.headers.extend(more);
        true
    }
}

fn header_size(header: &OutgoingHeader) -> usize {
    header.name.len() + header.value.as_ref().map_or(0, |value| value.len())
}

/// The SHA-256 of some bytes, in hexadecimal digits: what `sha256sum` says of them.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
