//! The wire: commands in, results and dead letters out.
//!
//! [`read_command`] makes a [`Command`] of a [`Record`] or says by a
//! [`Fault`] why none can be made; [`result`] makes the event that publishes a
//! decision, [`level`] the one that says how much of an item there is,
//! [`dead_letter`] the record that keeps what could not be read; [`hold_due`]
//! is the one command the verifier asks itself.
//! The events' types are in [`types`], their published shapes in [`schema`].
//!
//! What a record is, is found in this order:
//!
//! 1. A value that a schema registry's schema made JSON of ([`Record::decoded`]) is that JSON. Of another, a registry's
//!    frame (0x00 and a 4-byte id, 0x01 and a GUID) is taken off, then a byte order mark.
//! 2. A `content-type` of `application/cloudevents+json` makes it a
//!    structured `CloudEvent`: its `type` is the type, its `data` or
//!    `data_base64` the payload.
//! 3. A `ce_type` header gives the type (`CloudEvents` binary mode).
//! 4. The payload's own top-level `type`.
//!
//! What is no command so is looked at for what it may be wrapped in: a JSON
//! string, an array of one, the envelopes of Kafka Connect, `CloudEvents` and
//! Debezium (`unwrap.rs`).
//!
//! Where its topic has a mapping, a record is unwrapped as far as it goes, and what the program gives is read instead
//! (`mapped.rs`).
//!
//! All of them that are there must agree: of two types one is wrong, and
//! stock is not taken on a guess. No field is needed twice, though: with a
//! type in the envelope the payload needs none.

use std::borrow::Cow;

use self::field::Reader;
use crate::ledger::{Action, Command, Decision, Source};

#[macro_use]
pub mod types;

mod adjustment;
mod connect;
mod envelope;
mod fault;
mod field;
mod framing;
mod json;
mod lines;
mod mapped;
mod order;
mod order_created;
mod order_followed;
mod outgoing;
mod read_level;
mod repair;
pub mod schema;
mod unwrap;

pub use connect::decimal_text;
pub use fault::{Fault, FaultCode};
pub(crate) use framing::write_guid;
pub use framing::{Decoded, Framed, SchemaId};
pub use json::Object;
pub use mapped::{Reading, read_and_show, read_mapped_as_decided, read_record};
pub use outgoing::{
    CE_GATE_SOURCE, CE_SOURCE, Channel, ERROR_HEADERS, OMITTED_HEADERS, OMITTED_VALUE_SHA256, Outgoing,
    OutgoingHeader, dead_letter, hold_due, level, result, sha256, submitted,
};
pub use read_level::{PublishedLevel, level_item, read_level};
pub use repair::Repair;

/// One header of a record. Kafka allows a name more than once, and a header without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<Vec<u8>>,
}

/// A record as it came, owned: a borrowed Kafka message would pin its whole fetch buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stood.
    pub source: Source,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<Header>,
    /// Its timestamp in milliseconds since 1970-01-01 UTC, where it has one. No rule reads it.
    pub timestamp_ms: Option<i64>,
    /// What a schema registry's schema made of its value; `None` where no registry was asked. It is no part of the record
    /// as it came, and is never passed on.
    pub decoded: Option<Box<Decoded>>,
}

/// Longest `traceparent` passed on. The W3C's has 55 bytes; later versions may be longer, but not by much.
const MAX_TRACEPARENT_BYTES: usize = 256;
/// Longest `tracestate` passed on: as long as the W3C asks everybody to pass on at least.
const MAX_TRACESTATE_BYTES: usize = 512;

/// The headers of a trace context, as the W3C names them.
pub const TRACEPARENT: &str = "traceparent";
/// The other one.
pub const TRACESTATE: &str = "tracestate";

/// A W3C trace context as the headers of a record bring it. It is passed on as it is, and read by those who trace alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// Which trace, and which span of it; `None` where no trace context came.
    pub traceparent: Option<&'a [u8]>,
    /// What tracing systems add for themselves; never without a `traceparent`.
    pub tracestate: Option<&'a [u8]>,
}

impl TraceContext<'_> {
    /// None came, or it is not known.
    pub const NONE: Self = Self { traceparent: None, tracestate: None };
}

/// Longest key of a record whose command is decided. Its result has the same key, whole, so that it goes to the partition
/// where it is looked for: a longer one could make a result that its topic does not take. An order's id has 128 bytes.
pub const MAX_KEY_BYTES: usize = 16_384;

impl Record {
    /// Why its command is not to be decided, whatever it is: its key is too long for a result. What an earlier version
    /// decided all the same is published all the same.
    ///
    /// # Errors
    /// [`Fault`] when it is.
    pub fn check_key(&self) -> Result<(), Fault> {
        match self.key.as_ref().map_or(0, Vec::len) {
            long if long > MAX_KEY_BYTES => Err(Fault::new(
                FaultCode::BadEnvelope,
                format_args!(
                    "the record's key has {long} bytes; its result would need the same key, and no more than \
                     {MAX_KEY_BYTES} bytes are taken"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The record's trace context, to be passed on to its result: its headers `traceparent` and `tracestate`, else those of
    /// the `CloudEvents` extension for distributed tracing (`ce_traceparent`, `ce_tracestate`). The last of a name counts;
    /// one that is too long is left out, and a `tracestate` without a `traceparent` says nothing.
    #[must_use]
    pub fn trace(&self) -> TraceContext<'_> {
        // Nearly every record has few headers or none, and then nothing is compared.
        let last = |name: &str| {
            self.headers.iter().rfind(|header| header.name == name).and_then(|header| header.value.as_deref())
        };
        let (traceparent, tracestate) = match last(TRACEPARENT) {
            Some(traceparent) => (Some(traceparent), TRACESTATE),
            None => (last("ce_traceparent"), "ce_tracestate"),
        };
        match traceparent.filter(|value| value.len() <= MAX_TRACEPARENT_BYTES) {
            None => TraceContext::NONE,
            traceparent => TraceContext {
                traceparent,
                tracestate: last(tracestate).filter(|value| value.len() <= MAX_TRACESTATE_BYTES),
            },
        }
    }
}

/// Reads the command a record asks for.
///
/// What has an id that can be read is a command even when the rest of it is
/// wrong: it then asks for nothing and carries a reason for every field and
/// line at fault, so that it gets a result. Only a record that cannot be published
/// by an id is a fault.
///
/// What is exactly a whole number counts as one, as a number or in a string, and an id may be a whole number. A command
/// that says so what earlier versions refused knows that, see [`Decision::is_of`].
///
/// Time and memory are bounded by a small multiple of the value's length, and
/// nesting of any depth is passed over without recursion.
///
/// # Errors
/// [`Fault`] when no command, or no one command, can be read.
pub fn read_command(record: &Record) -> Result<Command, Fault> {
    let value = record.value.as_deref().unwrap_or_default();
    let envelope = envelope::open(record, false).map_err(|fault| unwrap::name_compression(value, fault))?;
    let (declared, payload) = (envelope.kind.as_deref(), envelope.payload.as_ref());
    read_payload(declared, payload).or_else(|fault| {
        let read = unwrap::read(declared, payload, fault, read_payload);
        read.map_err(|fault| unwrap::name_compression(value, envelope.explain(fault)))
    })
}

/// Reads what is in a record's envelope, if anything is known of its type there.
fn read_payload(declared: Option<&str>, payload: &str) -> Result<Command, Fault> {
    // Nearly every record is a good order, so it is read as one before anything else is asked.
    if declared.is_none_or(|kind| kind == types::ORDER_CREATED)
        && let Some(command) = order_created::read(payload, declared.is_some())
    {
        return Ok(command);
    }
    let reader = Reader::lenient();
    let command = read_fields(declared, payload, &reader)?;
    let is_refused = matches!(command.action, Action::Refuse(_));
    Ok(if reader.was_lenient() && !is_refused { command.refused_before(payload.as_bytes()) } else { command })
}

/// Reads a record as it was read when this was decided of it: earlier versions refused some of what is a command now, or
/// refused it with other words.
///
/// # Errors
/// As [`read_command`].
pub fn read_as_decided(record: &Record, decision: &Decision) -> Result<Command, Fault> {
    let read = read_command(record);
    if read.as_ref().is_ok_and(|command| says(command, decision)) {
        return read;
    }
    // Decided before a registry was named, or while it did not know the schema.
    let undecoded = || {
        record.decoded.as_ref()?;
        read_command(&Record { decoded: None, ..record.clone() }).ok()
    };
    let earlier = read_strictly(record).ok().into_iter().chain(undecoded());
    earlier.into_iter().find(|earlier| says(earlier, decision)).map_or(read, Ok)
}

/// The schema without which a record cannot be read, though something was decided of it: a registry was named then, and none
/// is now.
#[must_use]
pub fn missing_schema(record: &Record) -> Option<SchemaId> {
    let framed = record.framed().filter(|_| record.decoded.is_none())?;
    let fault = read_command(record).err()?;
    matches!(fault.code, FaultCode::NotJson | FaultCode::NotUtf8 | FaultCode::NotAnObject)
        .then_some(framed.id)
}

/// Whether a command, decided again, says what was decided: its content, and where it was refused the words too.
fn says(command: &Command, decision: &Decision) -> bool {
    command.digest == decision.digest
        && match &command.action {
            Action::Refuse(reasons) => decision.reasons().is_ok_and(|stored| stored == *reasons),
            _ => true,
        }
}

/// Reads a record as versions up to 0.1 did.
///
/// # Errors
/// As [`read_command`] did then: a record that is a command now may have been a dead letter.
pub fn read_strictly(record: &Record) -> Result<Command, Fault> {
    let envelope = envelope::open(record, true)?;
    read_fields(envelope.kind.as_deref(), envelope.payload.as_ref(), &Reader::strict())
}

fn read_fields(declared: Option<&str>, payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let kind = envelope::kind_of(declared, payload)?;
    if kind == types::ORDER_CREATED {
        order_created::read_fields(payload, reader)
    } else if let Some(kind) = order_followed::FollowUpKind::of(&kind) {
        order_followed::read(kind, payload, reader)
    } else if let Some(kind) = adjustment::AdjustmentKind::of(&kind) {
        adjustment::read(kind, payload, reader)
    } else {
        Err(Fault::new(
            FaultCode::UnknownType,
            format_args!(
                "the type \"{}\" is unknown; known are {}",
                fault::visible_echo(&kind),
                types::COMMAND_TYPES.map(|known| format!("\"{known}\"")).join(", "),
            ),
        ))
    }
}

/// Text of a record, borrowed where it could be.
type Text<'a> = Cow<'a, str>;

#[cfg(test)]
mod tests;
