//! What a command may be wrapped in, known by what it looks like. Looked for only where a record is no command as it is,
//! so that nothing that was one is read as another, and plain records pay nothing.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::envelope::{conflict, repeated, structured};
use super::json::{self, Field, NoFields, ValueKind};
use super::{Fault, FaultCode, connect};
use crate::ledger::{Command, are_digits};

/// Most wrappings in one another: an outbox row in Debezium's envelope in Connect's, as a string, are four.
const MAX_LAYERS: usize = 8;

/// One kind of wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrapping {
    JsonString,
    ArrayOfOne,
    Connect,
    CloudEvent,
    DebeziumRow,
    OutboxRow,
}

impl Wrapping {
    /// Its name in messages.
    fn name(self) -> &'static str {
        match self {
            Self::JsonString => "a JSON string",
            Self::ArrayOfOne => "an array of one",
            Self::Connect => "Kafka Connect's envelope",
            Self::CloudEvent => "a CloudEvent",
            Self::DebeziumRow => "Debezium's envelope of a row",
            Self::OutboxRow => "a row of an outbox",
        }
    }
}

/// What was in a wrapping: maybe its type, its text, and of a row of an outbox the id of the aggregate that it is about.
struct Inner {
    kind: Option<String>,
    aggregate_id: Option<String>,
    payload: String,
}

/// What is in all wrappings of a payload.
pub(super) struct Unwrapped<'p> {
    /// The innermost type, where one is known.
    pub(super) kind: Option<String>,
    /// The aggregate that a row of an outbox is about; empty where the row does not say, `None` where there is no such row.
    pub(super) aggregate_id: Option<String>,
    /// The text.
    pub(super) payload: Cow<'p, str>,
}

/// Reads what is wrapped in a payload of which `fault` says why it is no command itself. `read` reads a command of a type,
/// where one is known, and a text.
pub(super) fn read(
    declared: Option<&str>,
    payload: &str,
    fault: Fault,
    read: impl Fn(Option<&str>, &str) -> Result<Command, Fault>,
) -> Result<Command, Fault> {
    let mut kind = declared.map(str::to_owned);
    let mut payload = Cow::Borrowed(payload);
    let (mut steps, mut last) = (Vec::new(), fault);
    while steps.len() < MAX_LAYERS {
        let Some((wrapping, opened)) = open(&payload) else { break };
        steps.push(wrapping);
        let inner = opened.map_err(|fault| within(&steps, &fault))?;
        if let (Some(known), Some(given)) = (&kind, &inner.kind)
            && known != given
        {
            return Err(within(&steps, &conflict("the envelope", known, wrapping.name(), given)));
        }
        kind = kind.or(inner.kind);
        match read(kind.as_deref(), &inner.payload) {
            Ok(command) => return Ok(command),
            Err(fault) => last = fault,
        }
        payload = Cow::Owned(inner.payload);
    }
    Err(within(&steps, &last))
}

/// Takes off all wrappings of a payload, whatever is in them.
pub(super) fn all<'p>(declared: Option<&str>, payload: &'p str) -> Result<Unwrapped<'p>, Fault> {
    let mut kind = declared.map(str::to_owned);
    let mut aggregate_id = None;
    let mut payload = Cow::Borrowed(payload);
    let mut steps = Vec::new();
    while steps.len() < MAX_LAYERS
        && let Some((wrapping, opened)) = open(&payload)
    {
        steps.push(wrapping);
        let inner = opened.map_err(|fault| within(&steps, &fault))?;
        kind = inner.kind.or(kind);
        aggregate_id = inner.aggregate_id.or(aggregate_id);
        payload = Cow::Owned(inner.payload);
    }
    Ok(Unwrapped { kind, aggregate_id, payload })
}

/// A fault with the wrappings that were opened before it was met, the outermost first.
fn within(steps: &[Wrapping], fault: &Fault) -> Fault {
    if steps.is_empty() {
        return fault.clone();
    }
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    Fault::new(fault.code, format_args!("in {}: {}", names.join(", in "), fault.detail))
}

/// What a text is wrapped in, and what is in it; `None` where it is not wrapped in anything known.
fn open(text: &str) -> Option<(Wrapping, Result<Inner, Fault>)> {
    let names = [
        "schema",
        "payload",
        "specversion",
        "id",
        "source",
        "type",
        "data",
        "data_base64",
        "op",
        "before",
        "after",
        "aggregatetype",
        "aggregateid",
    ];
    let found = match json::fields(text, names) {
        Ok(found) => found,
        Err(NoFields::NotJson(_)) => return None,
        Err(NoFields::NotAnObject(_)) => return open_other(text),
    };
    let [
        schema,
        payload,
        specversion,
        id,
        source,
        kind,
        data,
        data_base64,
        op,
        before,
        after,
        aggregate_type,
        aggregate_id,
    ] = found;
    let is_there = |field: &Field<'_>| field.value.is_some() || field.is_null;
    let is_text = |field: &Field<'_>| matches!(field.kind(), Some(ValueKind::String(_)));
    if is_there(&schema) && is_there(&payload) && !is_there(&kind) {
        let inner = once(&[schema, payload]).and_then(|()| {
            let payload = payload.value.ok_or_else(|| empty("its payload is null (a tombstone)"))?;
            connect::payload(schema.value, payload)
        });
        Some((Wrapping::Connect, inner.map(untyped)))
    } else if [specversion, id, source, kind].iter().all(is_text)
        && (is_there(&data) || is_there(&data_base64))
    {
        let inner = structured(text)
            .map(|(kind, payload)| Inner { kind: Some(kind.into_owned()), ..untyped(payload.into_owned()) });
        Some((Wrapping::CloudEvent, inner))
    } else if is_text(&op) && (is_there(&after) || is_there(&before)) {
        Some((Wrapping::DebeziumRow, once(&[op, after]).and_then(|()| row(&op, &after)).map(untyped)))
    } else if [aggregate_type, kind].iter().all(is_text) && is_there(&aggregate_id) && is_there(&payload) {
        let inner = once(&[kind, payload]).and_then(|()| outbox(&kind, &aggregate_id, &payload));
        Some((Wrapping::OutboxRow, inner))
    } else {
        None
    }
}

/// What a JSON string or an array holds.
fn open_other(text: &str) -> Option<(Wrapping, Result<Inner, Fault>)> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    match ValueKind::of(value) {
        ValueKind::String(Some(inner)) if inner.trim_start().starts_with(['{', '[', '"']) => {
            Some((Wrapping::JsonString, Ok(untyped(inner.into_owned()))))
        }
        ValueKind::Array => match &serde_json::from_str::<Vec<&RawValue>>(text).ok()?[..] {
            [only] => Some((Wrapping::ArrayOfOne, Ok(untyped(only.get().to_owned())))),
            _ => None,
        },
        _ => None,
    }
}

fn untyped(payload: String) -> Inner {
    Inner { kind: None, aggregate_id: None, payload }
}

fn empty(detail: &str) -> Fault {
    Fault::new(FaultCode::EmptyValue, detail)
}

/// Refuses fields that come more than once: of two one is wrong.
fn once(fields: &[Field<'_>]) -> Result<(), Fault> {
    fields.iter().find(|field| field.repeated).map_or(Ok(()), |field| Err(repeated(field)))
}

/// What a row is after a change that made it or left it there.
fn row(op: &Field<'_>, after: &Field<'_>) -> Result<String, Fault> {
    let op = op.value.map_or("", RawValue::get).trim_matches('"');
    match (op, after.value) {
        ("c" | "r" | "u", Some(after)) => Ok(after.get().to_owned()),
        ("c" | "r" | "u", None) => Err(Fault::new(FaultCode::BadEnvelope, "it has no row after the change")),
        ("d" | "t", _) => Err(empty("a row was deleted, which asks for nothing")),
        _ => Err(Fault::new(FaultCode::BadEnvelope, "its op is none of c, r, u, d, t")),
    }
}

/// What an outbox's row is to publish: JSON, or text that holds it.
fn outbox(kind: &Field<'_>, aggregate_id: &Field<'_>, payload: &Field<'_>) -> Result<Inner, Fault> {
    let Some(ValueKind::String(Some(kind))) = kind.kind() else {
        return Err(Fault::new(FaultCode::BadEnvelope, "its type is not text"));
    };
    let payload = match payload.kind() {
        None => return Err(empty("its payload is null")),
        Some(ValueKind::String(Some(text))) => text.into_owned(),
        Some(_) => payload.value.map_or("", RawValue::get).to_owned(),
    };
    Ok(Inner { kind: Some(kind.into_owned()), aggregate_id: Some(id_text(aggregate_id)), payload })
}

/// A field that is an id: text, or a whole number with every digit. Empty where it is neither, or comes more than once:
/// most commands have their id in the payload, and need none of it.
fn id_text(field: &Field<'_>) -> String {
    match field.kind().filter(|_| !field.repeated) {
        Some(ValueKind::String(Some(text))) => text.into_owned(),
        Some(ValueKind::Number(written)) if are_digits(written.strip_prefix('-').unwrap_or(written)) => {
            written.to_owned()
        }
        _ => String::new(),
    }
}

/// What compresses values by itself, beside Kafka, by how its output begins.
const COMPRESSIONS: [(&[u8], &str); 9] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"\xff\x06\0\0sNaPpY", "Snappy"),
    (b"\x82SNAPPY\0", "Snappy"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"\x78\x9c", "zlib"),
];

/// Names the compression of a value that is no text or no JSON.
pub(super) fn name_compression(value: &[u8], fault: Fault) -> Fault {
    let is_readable = !matches!(fault.code, FaultCode::NotUtf8 | FaultCode::NotJson);
    match COMPRESSIONS.iter().find(|(magic, _)| value.starts_with(magic)) {
        Some((_, name)) if !is_readable => Fault::new(
            fault.code,
            format_args!(
                "{} (it begins as {name} does: values are not decompressed, set the producer's compression.type instead)",
                fault.detail
            ),
        ),
        _ => fault,
    }
}
