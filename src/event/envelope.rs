//! From a record to its type and its payload.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::fault::visible_echo;
use super::json::{self, Field, NoFields, ValueKind};
use super::{Fault, FaultCode, Record, Text};

/// What a schema registry's serializers put before a value: a mark and a big-endian schema id.
const FRAME_MARK: u8 = 0;
const FRAME_BYTES: usize = 5;
/// The same of newer ones: a mark and a schema's GUID.
const GUID_FRAME_MARK: u8 = 1;
const GUID_FRAME_BYTES: usize = 17;
/// The header in which they put the frame instead.
const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// The schema that a value is framed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SchemaId {
    Number(u32),
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Guid(guid) => guid.iter().enumerate().try_for_each(|(at, byte)| {
                let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
                write!(f, "{dash}{byte:02x}")
            }),
        }
    }
}

/// A record's payload, and the type its envelope gives it.
pub(super) struct Envelope<'a> {
    /// The type from a header or from a structured `CloudEvent`.
    pub(super) kind: Option<Text<'a>>,
    /// The command's own text.
    pub(super) payload: Text<'a>,
    /// The schema the value was framed with.
    schema_id: Option<SchemaId>,
}

impl Envelope<'_> {
    /// Adds to a fault what a person would else have to find out.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        explain(self.schema_id, fault)
    }
}

fn explain(schema_id: Option<SchemaId>, fault: Fault) -> Fault {
    match schema_id {
        Some(id) if matches!(fault.code, FaultCode::NotJson | FaultCode::NotUtf8) => Fault::new(
            fault.code,
            format_args!("{} (it is framed with schema id {id}: only JSON is read)", fault.detail),
        ),
        _ => fault,
    }
}

/// Opens what a record says itself to be wrapped in. A strict reader knows the frames that versions up to 0.1 knew.
pub(super) fn open(record: &Record, is_strict: bool) -> Result<Envelope<'_>, Fault> {
    let value = match record.value.as_deref() {
        None => return Err(Fault::new(FaultCode::EmptyValue, "the record has no value (a tombstone)")),
        Some([]) => return Err(Fault::new(FaultCode::EmptyValue, "the record's value is empty")),
        Some(value) => value,
    };
    let (schema_id, value) = unframe(value, is_strict)?;
    let text = text(value).map_err(|fault| explain(schema_id.or_else(|| schema_id_of(record)), fault))?;
    let (media, header) = headers(record)?;
    match media {
        Media::Plain => {
            let schema_id = schema_id.or_else(|| schema_id_of(record));
            Ok(Envelope { kind: header.map(Cow::Borrowed), payload: Cow::Borrowed(text), schema_id })
        }
        Media::Structured => {
            let (kind, payload) = structured(text).map_err(|fault| explain(schema_id, fault))?;
            if let Some(header) = header.filter(|header| *header != kind) {
                return Err(conflict("the ce_type header", header, "the CloudEvent", &kind));
            }
            Ok(Envelope { kind: Some(kind), payload, schema_id })
        }
    }
}

/// A value's frame, empty where it has none, and its text: read as [`open`] reads it.
pub(super) fn frame_and_text(value: &[u8]) -> Result<(&[u8], &str), Fault> {
    let (schema_id, framed) = unframe(value, false)?;
    let text = text(framed).map_err(|fault| explain(schema_id, fault))?;
    Ok((&value[..value.len() - framed.len()], text))
}

/// Whether this is the name of the header that says how a value is to be read.
pub(super) fn is_content_type(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
}

/// Takes off a schema registry's frame. JSON never starts with a byte of 0 or 1, so a frame cannot be mistaken.
fn unframe(value: &[u8], is_strict: bool) -> Result<(Option<SchemaId>, &[u8]), Fault> {
    let length = match value.first() {
        Some(&FRAME_MARK) => FRAME_BYTES,
        Some(&GUID_FRAME_MARK) if !is_strict => GUID_FRAME_BYTES,
        _ => return Ok((None, value)),
    };
    let Some((frame, rest)) = value.split_at_checked(length) else {
        return Err(Fault::new(
            FaultCode::BadFraming,
            format_args!(
                "the value starts with 0x{:02x} as a schema registry's frame does, but is shorter than one ({length} bytes)",
                value[0]
            ),
        ));
    };
    if rest.is_empty() {
        return Err(Fault::new(FaultCode::EmptyValue, "there is nothing after the schema registry's frame"));
    }
    Ok((schema_id(frame), rest))
}

/// The schema that a frame names.
fn schema_id(frame: &[u8]) -> Option<SchemaId> {
    match frame.split_first()? {
        (&FRAME_MARK, id) => Some(SchemaId::Number(u32::from_be_bytes(id.try_into().ok()?))),
        (&GUID_FRAME_MARK, guid) => Some(SchemaId::Guid(guid.try_into().ok()?)),
        _ => None,
    }
}

/// The schema that a record's header names.
fn schema_id_of(record: &Record) -> Option<SchemaId> {
    let header = record.headers.iter().rfind(|header| header.name == SCHEMA_ID_HEADER)?;
    schema_id(header.value.as_deref()?)
}

/// The value as text. A leading byte order mark is dropped, as RFC 8259 allows: some platforms write one.
fn text(value: &[u8]) -> Result<&str, Fault> {
    let text = str::from_utf8(value).map_err(|error| {
        Fault::new(
            FaultCode::NotUtf8,
            format_args!("the value is not UTF-8: byte {} is wrong", error.valid_up_to() + 1),
        )
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

enum Media {
    Plain,
    Structured,
}

/// What the headers say: how the value is to be read, and its type.
fn headers(record: &Record) -> Result<(Media, Option<&str>), Fault> {
    let mut media = Media::Plain;
    let mut kind: Option<&str> = None;
    for header in &record.headers {
        if header.name == "ce_type" {
            let text = header.value.as_deref().and_then(|value| str::from_utf8(value).ok());
            let Some(text) = text else {
                return Err(Fault::new(FaultCode::BadEnvelope, "the ce_type header is not UTF-8 text"));
            };
            if let Some(first) = kind.filter(|first| *first != text) {
                return Err(conflict("a ce_type header", first, "another", text));
            }
            kind = Some(text);
        } else if is_content_type(&header.name) {
            media = media_of(header.value.as_deref().unwrap_or_default())?;
        }
    }
    Ok((media, kind))
}

/// Any other content type is no envelope: what counts is whether the value is JSON.
fn media_of(content_type: &[u8]) -> Result<Media, Fault> {
    let bare = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let event = b"application/cloudevents";
    if bare.eq_ignore_ascii_case(b"application/cloudevents+json") {
        Ok(Media::Structured)
    } else if bare.get(..event.len()).is_some_and(|start| start.eq_ignore_ascii_case(event)) {
        Err(Fault::new(
            FaultCode::BadEnvelope,
            format_args!(
                "CloudEvents come one a record and as JSON (application/cloudevents+json); content-type is {}",
                visible_echo(&String::from_utf8_lossy(bare.get(..256).unwrap_or(bare))),
            ),
        ))
    } else {
        Ok(Media::Plain)
    }
}

/// The type and the data of a structured `CloudEvent`.
pub(super) fn structured(text: &str) -> Result<(Text<'_>, Text<'_>), Fault> {
    let found = json::fields(text, ["type", "data", "data_base64"]).map_err(no_fields)?;
    if let Some(field) = found.iter().find(|field| field.repeated) {
        return Err(repeated(field));
    }
    let bad = |detail: &str| Err(Fault::new(FaultCode::BadEnvelope, detail));
    let [kind, data, base64] = found;
    let kind = match kind.kind() {
        Some(ValueKind::String(Some(kind))) => kind,
        Some(_) => return bad("the CloudEvent's type is not a string"),
        None => return bad("the CloudEvent has no type"),
    };
    let payload = match (data.value, base64.kind()) {
        (Some(_), Some(_)) => return bad("the CloudEvent has both data and data_base64"),
        (None, None) => return bad("the CloudEvent has no data"),
        (Some(data), None) => Cow::Borrowed(data.get()),
        (None, Some(ValueKind::String(Some(encoded)))) => {
            let Ok(decoded) = BASE64_STANDARD.decode(encoded.as_bytes()) else {
                return bad("the CloudEvent's data_base64 is not base64");
            };
            Cow::Owned(self::text(&decoded)?.to_owned())
        }
        (None, Some(_)) => return bad("the CloudEvent's data_base64 is not a string"),
    };
    Ok((kind, payload))
}

/// The type of a payload, from its envelope or from itself.
pub(super) fn kind_of<'a>(declared: Option<&'a str>, payload: &'a str) -> Result<Text<'a>, Fault> {
    let [kind] = json::fields(payload, ["type"]).map_err(no_fields)?;
    if kind.repeated {
        return Err(repeated(&kind));
    }
    match (declared, kind.kind()) {
        (None, Some(ValueKind::String(Some(own)))) => Ok(own),
        (None, None) => Err(Fault::new(
            FaultCode::MissingType,
            "nothing says what this is: no ce_type header, no structured CloudEvent, no \"type\" in the value",
        )),
        (None, Some(other)) => Err(Fault::new(
            FaultCode::UnknownType,
            format_args!("\"type\" must be a string, is {}", other.name()),
        )),
        (Some(declared), None) => Ok(Cow::Borrowed(declared)),
        (Some(declared), Some(ValueKind::String(Some(own)))) if own == declared => Ok(own),
        (Some(declared), Some(other)) => {
            let own = if let ValueKind::String(Some(own)) = &other { own } else { other.name() };
            Err(conflict("the envelope", declared, "the value", own))
        }
    }
}

/// The fault of two types of one command.
pub(super) fn conflict(here: &str, one: &str, there: &str, other: &str) -> Fault {
    let (one, other) = (visible_echo(one), visible_echo(other));
    Fault::new(
        FaultCode::TypeConflict,
        format_args!("{here} gives the type as \"{one}\", {there} as \"{other}\""),
    )
}

/// The fault of a field that says which command this is and comes more than once.
pub(super) fn repeated(field: &Field<'_>) -> Fault {
    Fault::new(FaultCode::DuplicateField, format_args!("\"{}\" comes more than once", field.name))
}

/// The fault of a text that is no JSON object.
pub(super) fn no_fields(why: NoFields) -> Fault {
    match why {
        NoFields::NotJson(error) => {
            Fault::new(FaultCode::NotJson, format_args!("the value is not JSON: {error}"))
        }
        NoFields::NotAnObject(what) => {
            Fault::new(FaultCode::NotAnObject, format_args!("the value must be a JSON object, is {what}"))
        }
    }
}
