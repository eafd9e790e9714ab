//! What is told: results and dead letters.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use super::wire::{ADJUSTMENT_ACCEPTED, ADJUSTMENT_REJECTED, ORDER_ACCEPTED, ORDER_REJECTED};
use super::{Fault, Record};
use crate::ledger::{CommandKind, Decision, Stamp};

/// Who tells the results: the `ce_source` of every event.
pub const CE_SOURCE: &str = "stock-verifier";

/// Which topic something is told on; which one that is, the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Accepted commands.
    Accepted,
    /// Rejected commands.
    Rejected,
    /// Records no command could be read from, or that conflict with one decided.
    DeadLetter,
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

/// The event that tells a decision.
///
/// Told from the stored decision alone, beside the key and trace context of
/// the record it was decided from: so telling it again gives the same bytes.
/// The key is that record's, else the command's id.
#[must_use]
pub fn result(decision: &Decision, record_key: Option<&[u8]>, traceparent: Option<&[u8]>) -> Outgoing {
    let channel = if decision.accepted { Channel::Accepted } else { Channel::Rejected };
    let shape = Shape::of(decision);
    let id = decision.key.id.as_str();
    let mut event_id = String::with_capacity(decision.key.kind.name().len() + 1 + id.len());
    // Writing to a string fails only when a Display does, and this one does not.
    let _ = write!(event_id, "{}", decision.key);
    let mut headers = Vec::with_capacity(7);
    headers.extend([
        OutgoingHeader::fixed("ce_specversion", "1.0"),
        OutgoingHeader::made("ce_id", event_id),
        OutgoingHeader::fixed("ce_source", CE_SOURCE),
        OutgoingHeader::fixed("ce_type", shape.kind),
        OutgoingHeader::made("ce_time", rfc3339(decision.decided_at)),
        OutgoingHeader::fixed("content-type", "application/json"),
    ]);
    headers.extend(traceparent.map(|value| OutgoingHeader::made("traceparent", value)));
    Outgoing {
        channel,
        key: Some(record_key.unwrap_or(id.as_bytes()).to_vec()),
        value: Some(value(decision, &shape)),
        headers,
    }
}

/// What differs between results.
struct Shape {
    /// The event's type.
    kind: &'static str,
    /// The field that holds the command's id.
    id: &'static str,
    /// The field that holds the decision's detail.
    detail: &'static str,
}

impl Shape {
    fn of(decision: &Decision) -> Self {
        let (accepted, rejected, id) = match decision.key.kind {
            CommandKind::OrderCreated => (ORDER_ACCEPTED, ORDER_REJECTED, "order_id"),
            CommandKind::Adjustment => (ADJUSTMENT_ACCEPTED, ADJUSTMENT_REJECTED, "adjustment_id"),
        };
        if decision.accepted {
            Self { kind: accepted, id, detail: "lines" }
        } else {
            Self { kind: rejected, id, detail: "reasons" }
        }
    }
}

/// The result's value, with the decision's detail as it is stored.
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
    value.extend_from_slice(b",\"");
    value.extend_from_slice(shape.detail.as_bytes());
    value.extend_from_slice(b"\":");
    value.extend_from_slice(decision.detail.as_bytes());
    if let Some(source) = &decision.source {
        value.extend_from_slice(b",\"source\":{\"topic\":");
        string(&mut value, &source.at.topic);
        // Writing to a Vec does not fail.
        let _ = write!(value, ",\"partition\":{},\"offset\":{}}}", source.at.partition, source.offset);
    }
    value.push(b'}');
    value
}

fn string(into: &mut Vec<u8>, text: &str) {
    // Holds because neither a str nor writing to a Vec has a way to fail.
    serde_json::to_writer(into, text).expect("text is always valid JSON");
}

/// The last microsecond RFC 3339 can write: 9999-12-31T23:59:59.999999Z.
const LAST_MICROS: u64 = 253_402_300_799_999_999;

fn rfc3339(stamp: Stamp) -> String {
    // humantime panics outside of 1970..=9999. No database clock is there, but a damaged ledger's might be.
    let micros = u64::try_from(stamp.0).unwrap_or(0).min(LAST_MICROS);
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + Duration::from_micros(micros)).to_string()
}

/// Names of the headers a dead letter adds: those of Kafka Connect, which tools know.
const ERROR_HEADERS: [&str; 6] = [
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
    let kept = record.headers.into_iter().filter(|header| !ERROR_HEADERS.contains(&header.name.as_str()));
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
