//! A schema registry's frame: by which schema a value is written, and what its schema made of it.

use std::fmt;

use super::{Fault, FaultCode, Record};

/// What a schema registry's serializers put before a value: a mark and a big-endian schema id.
const FRAME_MARK: u8 = 0;
const FRAME_BYTES: usize = 5;
/// The same of newer ones: a mark and a schema's GUID.
const GUID_FRAME_MARK: u8 = 1;
const GUID_FRAME_BYTES: usize = 17;
/// The header in which they put the frame instead.
const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// The schema that a value is written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// Its number in the registry.
    Number(u32),
    /// Its GUID, which is the same in every registry.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Guid(guid) => write_guid(f, guid),
        }
    }
}

/// Writes a GUID as everybody writes one.
pub(crate) fn write_guid(to: &mut impl fmt::Write, guid: &[u8; 16]) -> fmt::Result {
    guid.iter().enumerate().try_for_each(|(at, byte)| {
        let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
        write!(to, "{dash}{byte:02x}")
    })
}

/// What became of a value that is written by a schema of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// It is this JSON.
    Json {
        /// What it was written in, for people: `Avro`.
        format: &'static str,
        /// The text.
        text: String,
    },
    /// It does not fit its schema, or the schema cannot be used.
    Undecodable(Fault),
    /// The registry does not know its schema: it is read as it stands.
    UnknownSchema,
}

/// A value and the frame that says its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Its schema.
    pub id: SchemaId,
    /// The value without its frame.
    pub value: &'a [u8],
    /// What stands after the schema's id where that is in a header: which of a Protobuf schema's messages it is. In a
    /// frame, that is the value's own beginning.
    pub in_header: Option<&'a [u8]>,
}

impl Record {
    /// The schema that the record says its value to be written by: the header first, as the registry's deserializers look;
    /// then the value's frame. `None` where neither is there, or is whole.
    #[must_use]
    pub fn framed(&self) -> Option<Framed<'_>> {
        let value = self.value.as_deref()?;
        if let Some(frame) = frame_header(self) {
            let (id, rest) = split(frame)?;
            return Some(Framed { id, value, in_header: Some(rest) });
        }
        let (id, value) = split(value)?;
        Some(Framed { id, value, in_header: None })
    }
}

fn frame_header(record: &Record) -> Option<&[u8]> {
    // Nearly every record has few headers or none, and then nothing is compared.
    let header = record.headers.iter().rfind(|header| header.name == SCHEMA_ID_HEADER)?;
    header.value.as_deref()
}

/// The schema that a record's header names.
pub(super) fn schema_id_of(record: &Record) -> Option<SchemaId> {
    Some(split(frame_header(record)?)?.0)
}

/// A frame, and what is after it.
fn split(framed: &[u8]) -> Option<(SchemaId, &[u8])> {
    match framed.split_first()? {
        (&FRAME_MARK, rest) => {
            let (id, rest) = rest.split_first_chunk()?;
            Some((SchemaId::Number(u32::from_be_bytes(*id)), rest))
        }
        (&GUID_FRAME_MARK, rest) => {
            let (guid, rest) = rest.split_first_chunk()?;
            Some((SchemaId::Guid(*guid), rest))
        }
        _ => None,
    }
}

/// Takes off a schema registry's frame. JSON never starts with a byte of 0 or 1, so a frame cannot be mistaken. A strict
/// reader knows the frames that versions up to 0.1 knew.
pub(super) fn unframe(value: &[u8], is_strict: bool) -> Result<(Option<SchemaId>, &[u8]), Fault> {
    let length = match value.first() {
        Some(&FRAME_MARK) => FRAME_BYTES,
        Some(&GUID_FRAME_MARK) if !is_strict => GUID_FRAME_BYTES,
        _ => return Ok((None, value)),
    };
    let Some((id, rest)) = split(value) else {
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
    Ok((Some(id), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Header;
    use crate::ledger::{Offset, Source, TopicPartition};

    fn record(value: &[u8], header: Option<&[u8]>) -> Record {
        Record {
            source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
            key: None,
            value: Some(value.to_vec()),
            headers: header
                .map(|value| Header { name: SCHEMA_ID_HEADER.to_owned(), value: Some(value.to_vec()) })
                .into_iter()
                .collect(),
            timestamp_ms: None,
            decoded: None,
        }
    }

    #[test]
    fn a_schema_is_named_by_a_header_or_a_frame() {
        let guid: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let in_guid_frame = [&[1][..], &guid, b"v"].concat();
        for (value, header, expected) in [
            (&b"\0\0\0\x01\x02v"[..], None, Some((SchemaId::Number(258), &b"v"[..], None))),
            (&in_guid_frame, None, Some((SchemaId::Guid(guid), b"v", None))),
            (b"v", Some(&in_guid_frame[..17]), Some((SchemaId::Guid(guid), b"v", Some(&b""[..])))),
            // A value that happens to begin as a frame does: the header says how it is read.
            (b"\0\0\0\0\x07", Some(b"\0\0\0\0\x09\x02\x00"), {
                Some((SchemaId::Number(9), b"\0\0\0\0\x07", Some(b"\x02\x00")))
            }),
            (b"{}", None, None),
            (b"\0\0\0", None, None),
            (b"\x01\0\0\0\x07", None, None),
            (b"v", Some(b"\x02\0\0\0\x07"), None),
        ] {
            let record = record(value, header);
            let framed = record.framed().map(|framed| (framed.id, framed.value, framed.in_header));
            assert_eq!(framed, expected, "{value:?} {header:?}");
        }
    }
}
