//! Protobuf: a schema compiled, and a message of it as JSON.
//!
//! As Protobuf's own JSON, with two differences: fields have the names that the schema gives them (`order_id`), as our
//! contract has its own; and 64-bit numbers are numbers, not text. `confluent.type.Decimal` is a number with every digit.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    SerializeOptions, Value,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::client::Source;
use super::text::Json;
use crate::event::decimal_text;

/// What the schema itself is called; its registry gives it no name.
const OWN_FILE: &str = "value.proto";
/// Deepest nesting of types that a value can name. Types are nested by people.
const MOST_INDEXES: usize = 16;
/// How a registry writes out a map's entry where it makes a text of a descriptor. No person does: protoc refuses it.
const WRITTEN_ENTRY: &str = "option map_entry = true";

/// What Confluent's serializers take for known without a reference.
const KNOWN_FILES: [(&str, &str); 3] = [
    (
        "confluent/meta.proto",
        r#"syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }"#,
    ),
    (
        "confluent/type/decimal.proto",
        r#"syntax = "proto3"; package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"#,
    ),
    (
        "google/type/decimal.proto",
        r#"syntax = "proto3"; package google.type; message Decimal { string value = 1; }"#,
    ),
];

/// A schema, ready to decode by.
pub(super) struct Schema {
    /// The messages at its top, each with those within.
    top: Level,
}

/// The messages of one level, as an index counts them.
#[derive(Default)]
struct Level {
    /// `None` stands for a map's entry that is written out, where it stands.
    messages: Vec<Option<Message>>,
    /// How many entries of maps there are besides. Nobody knows where among the messages.
    adrift: usize,
}

struct Message {
    own: MessageDescriptor,
    within: Level,
}

impl Schema {
    /// Compiles a schema with those it refers to.
    pub(super) fn parse(source: &Source) -> Result<Self, String> {
        let pool = compiled(source)?;
        let file = pool.get_file_by_name(OWN_FILE).ok_or("it was not compiled")?;
        let top = Level::of(file.messages(), source.text.contains(WRITTEN_ENTRY));
        if top.messages.is_empty() { Err("it has no message".to_owned()) } else { Ok(Self { top }) }
    }

    /// What a value says, as JSON. Which message it is stands before it, or in the header.
    pub(super) fn json(&self, value: &[u8], in_header: Option<&[u8]>) -> Result<String, String> {
        let (message, value) = match in_header {
            // Written by who knew of one message only.
            Some([]) => (self.top.meant(0)?, value),
            Some(indexes) => (self.message(indexes)?.0, value),
            None => self.message(value)?,
        };
        let message =
            DynamicMessage::decode(message.own.clone(), value).map_err(|error| error.to_string())?;
        let mut json = Json::default();
        write_message(&mut json, &message)?;
        Ok(json.into_text())
    }

    /// The message that indexes name, and what is after them. A single 0 stands for the first one.
    fn message<'v>(&self, indexed: &'v [u8]) -> Result<(&Message, &'v [u8]), String> {
        let mut rest = indexed;
        let count = index(&mut rest)?;
        if count == 0 {
            return Ok((self.top.meant(0)?, rest));
        }
        if count > MOST_INDEXES {
            return Err(format!("it is of a message nested {count} levels deep"));
        }
        let (mut among, mut found) = (&self.top, None);
        for _ in 0..count {
            let message = among.meant(index(&mut rest)?)?;
            (among, found) = (&message.within, Some(message));
        }
        found.map(|message| (message, rest)).ok_or_else(|| "it is of no message".to_owned())
    }
}

/// A schema compiled, with all that it refers to.
pub(super) fn compiled(source: &Source) -> Result<DescriptorPool, String> {
    let mut files = ChainFileResolver::new();
    files.add(Files(source.references.clone()));
    files.add(Files(vec![(OWN_FILE.to_owned(), source.text.clone())]));
    files.add(GoogleFileResolver::new());
    files.add(Files(KNOWN_FILES.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec()));
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true).open_file(OWN_FILE).map_err(|error| error.to_string())?;
    Ok(compiler.descriptor_pool())
}

impl Level {
    fn of(messages: impl Iterator<Item = MessageDescriptor>, are_entries_written: bool) -> Self {
        let mut level = Self::default();
        for own in messages {
            match (own.is_map_entry(), are_entries_written) {
                (false, _) => {
                    let within = Self::of(own.child_messages(), are_entries_written);
                    level.messages.push(Some(Message { own, within }));
                }
                (true, true) => level.messages.push(None),
                (true, false) => level.adrift += 1,
            }
        }
        level
    }

    /// The message that an index means.
    ///
    /// protoc makes a message of each map's entry, which stands where the map's field stands among the messages. Clients that
    /// take the index from protoc's descriptor count those entries. Where the text has them written out, each has its place
    /// in it. Else their places are lost: Confluent's registry prints all fields of a message before the messages within,
    /// Redpanda's after them. And who takes the index from such a text, or normalizes schemas, counts none. So any number of
    /// them may be counted, and a message is taken where no other can be meant.
    fn meant(&self, index: usize) -> Result<&Message, String> {
        let mut meant =
            (0..=self.adrift).filter_map(|counted| self.messages.get(index.checked_sub(counted)?)?.as_ref());
        match (meant.next(), meant.next()) {
            (None, _) => Err(format!("it is of message {index}, which the schema does not have")),
            (Some(message), None) => Ok(message),
            (Some(one), Some(other)) => Err(format!(
                "it is of message {index}, which may be {} or {}: some clients count the entries of maps as messages, others \
                 do not",
                other.own.name(),
                one.own.name()
            )),
        }
    }
}

/// A number as Avro has it: that is how indexes are written.
fn index(rest: &mut &[u8]) -> Result<usize, String> {
    let bits = prost::encoding::decode_varint(rest).map_err(|_| "it does not say which message it is")?;
    let number = (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed();
    usize::try_from(number).map_err(|_| format!("it is of message {number}"))
}

/// Files by their names.
struct Files(Vec<(String, String)>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((name, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Nested no deeper than the decoder goes, which is a hundred levels.
fn write_message(json: &mut Json, message: &DynamicMessage) -> Result<(), String> {
    let descriptor = message.descriptor();
    let field = |name| message.get_field_by_name(name);
    match descriptor.full_name() {
        "confluent.type.Decimal" => {
            let value = field("value").and_then(|value| Some(value.as_bytes()?.to_vec()));
            let scale = field("scale").and_then(|scale| scale.as_i32());
            let digits = decimal_text(value.unwrap_or_default(), scale.unwrap_or_default());
            json.raw(&digits.map_err(|fault| fault.detail)?)
        }
        "google.type.Decimal" => {
            json.value(field("value").as_deref().and_then(Value::as_str).unwrap_or_default())
        }
        name if name.starts_with("google.protobuf.") => {
            let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
            let mut text = Vec::new();
            let mut writer = serde_json::Serializer::new(&mut text);
            message.serialize_with_options(&mut writer, &options).map_err(|error| error.to_string())?;
            json.raw(&String::from_utf8_lossy(&text))
        }
        _ => {
            json.raw("{")?;
            for (number, (field, value)) in message.fields().enumerate() {
                json.raw(if number == 0 { "" } else { "," })?;
                json.value(field.name())?;
                json.raw(":")?;
                write_field(json, &field, value).map_err(|why| format!("{}: {why}", field.name()))?;
            }
            json.raw("}")
        }
    }
}

fn write_field(json: &mut Json, field: &FieldDescriptor, value: &Value) -> Result<(), String> {
    match (value, field.kind()) {
        (Value::List(values), kind) => {
            json.raw("[")?;
            for (number, value) in values.iter().enumerate() {
                json.raw(if number == 0 { "" } else { "," })?;
                write_value(json, &kind, value)?;
            }
            json.raw("]")
        }
        (Value::Map(entries), Kind::Message(entry)) => {
            let kind = entry.map_entry_value_field().kind();
            let mut entries: Vec<(String, &Value)> =
                entries.iter().map(|(key, value)| (key_text(key), value)).collect();
            // A map has no order, and one value has one JSON.
            entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            json.raw("{")?;
            for (number, (key, value)) in entries.into_iter().enumerate() {
                json.raw(if number == 0 { "" } else { "," })?;
                json.value(&key)?;
                json.raw(":")?;
                write_value(json, &kind, value)?;
            }
            json.raw("}")
        }
        (value, kind) => write_value(json, &kind, value),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn write_value(json: &mut Json, kind: &Kind, value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(value) => json.value(value),
        Value::I32(value) => json.value(value),
        Value::I64(value) => json.value(value),
        Value::U32(value) => json.value(value),
        Value::U64(value) => json.value(value),
        // By its own shortest digits, which those of the double are not.
        Value::F32(value) if value.is_finite() => json.value(value),
        Value::F32(value) => json.float((*value).into()),
        Value::F64(value) => json.float(*value),
        Value::String(value) => json.value(value.as_str()),
        Value::Bytes(value) => json.value(&BASE64_STANDARD.encode(value)),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(names) if names.full_name() == "google.protobuf.NullValue" => json.raw("null"),
            Kind::Enum(names) => match names.get_value(*number) {
                Some(known) => json.value(known.name()),
                // Of a later version of the schema.
                None => json.value(number),
            },
            _ => json.value(number),
        },
        Value::Message(message) => write_message(json, message),
        Value::List(_) | Value::Map(_) => Err("a list or a map is where none can be".to_owned()),
    }
}
