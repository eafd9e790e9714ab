//! From a record to its type and its payload.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::fault::visible_echo;
use super::framing::{Decoded, SchemaId, schema_id_of, unframe};
use super::json::{self, Field, NoFields, ValueKind};
use super::{Fault, FaultCode, Record, Text};

/// A record's payload, and the type its envelope gives it.
pub(super) struct Envelope<'a> {
    /// The type from a header or from a structured `CloudEvent`.
    pub(super) kind: Option<Text<'a>>,
    /// The command's own text.
    pub(super) payload: Text<'a>,
    /// What its schema is, if it has one.
    written_by: WrittenBy,
}

/// How a value's schema is said in a fault.
#[derive(Debug, Clone, Copy)]
enum WrittenBy {
    /// It has none.
    Nothing,
    /// Nobody looked its schema up.
    Unread(SchemaId),
    /// The registry does not know it.
    Unknown(SchemaId),
    /// It was decoded by it.
    Decoded(&'static str, SchemaId),
}

impl WrittenBy {
    fn of(record: &Record, decoded: Option<&Decoded>, framed: Option<SchemaId>) -> Self {
        let id = match decoded {
            Some(_) => record.framed().map(|framed| framed.id),
            None => framed.or_else(|| schema_id_of(record)),
        };
        match (id, decoded) {
            (None, _) => Self::Nothing,
            (Some(id), Some(Decoded::Json { format, .. })) => Self::Decoded(format, id),
            (Some(id), Some(Decoded::UnknownSchema)) => Self::Unknown(id),
            (Some(id), _) => Self::Unread(id),
        }
    }

    /// Adds to a fault what a person would else have to find out.
    fn explain(self, fault: Fault) -> Fault {
        let is_unreadable = matches!(fault.code, FaultCode::NotJson | FaultCode::NotUtf8);
        match self {
            Self::Decoded(format, id) => {
                Fault::new(fault.code, format_args!("in {format} by schema {id}: {}", fault.detail))
            }
            Self::Unread(id) if is_unreadable => Fault::new(
                fault.code,
                format_args!(
                    "{} (it is framed with schema id {id}: only JSON is read without --schema-registry-url)",
                    fault.detail
                ),
            ),
            Self::Unknown(id) if is_unreadable => Fault::new(
                fault.code,
                format_args!(
                    "{} (it is framed with schema id {id}, which the schema registry does not know)",
                    fault.detail
                ),
            ),
            Self::Nothing | Self::Unread(_) | Self::Unknown(_) => fault,
        }
    }
}

impl Envelope<'_> {
    /// Adds to a fault what a person would else have to find out.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        self.written_by.explain(fault)
    }
}

/// Opens what a record says itself to be wrapped in. A strict reader reads as versions up to 0.1 did: those knew no schema.
pub(super) fn open(record: &Record, is_strict: bool) -> Result<Envelope<'_>, Fault> {
    let value = match record.value.as_deref() {
        None => return Err(Fault::new(FaultCode::EmptyValue, "the record has no value (a tombstone)")),
        Some([]) => return Err(Fault::new(FaultCode::EmptyValue, "the record's value is empty")),
        Some(value) => value,
    };
    let decoded = record.decoded.as_deref().filter(|_| !is_strict);
    let (written_by, text) = match decoded {
        Some(Decoded::Json { text, .. }) => (WrittenBy::of(record, decoded, None), &**text),
        Some(Decoded::Undecodable(fault)) => return Err(fault.clone()),
        Some(Decoded::UnknownSchema) | None => {
            let (framed, value) = unframe(value, is_strict)?;
            let written_by = WrittenBy::of(record, decoded, framed);
            (written_by, text(value).map_err(|fault| written_by.explain(fault))?)
        }
    };
    let (media, header) = headers(record)?;
    match media {
        Media::Plain => {
            Ok(Envelope { kind: header.map(Cow::Borrowed), payload: Cow::Borrowed(text), written_by })
        }
        Media::Structured => {
            let (kind, payload) = structured(text).map_err(|fault| written_by.explain(fault))?;
            if let Some(header) = header.filter(|header| *header != kind) {
                return Err(conflict("the ce_type header", header, "the CloudEvent", &kind));
            }
            Ok(Envelope { kind: Some(kind), payload, written_by })
        }
    }
}

/// A value's frame, empty where it has none, and its text: read as [`open`] reads it.
pub(super) fn frame_and_text(value: &[u8]) -> Result<(&[u8], &str), Fault> {
    let (schema_id, framed) = unframe(value, false)?;
    let written_by = schema_id.map_or(WrittenBy::Nothing, WrittenBy::Unread);
    let text = text(framed).map_err(|fault| written_by.explain(fault))?;
    Ok((&value[..value.len() - framed.len()], text))
}

/// Whether this is the name of the header that says how a value is to be read.
pub(super) fn is_content_type(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
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
