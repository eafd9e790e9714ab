//! What fuzzing begins with.

use std::fs;
use std::path::Path;

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use stock_verifier::event::SchemaId;

use crate::registry::Registry;

const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// A record, as far as reading looks at it.
#[derive(Debug, Clone)]
pub struct Input {
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Input {
    pub fn plain(value: impl Into<Vec<u8>>) -> Self {
        Self { value: value.into(), headers: Vec::new() }
    }

    pub fn len(&self) -> u64 {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        (self.value.len() + headers.sum::<usize>()) as u64
    }

    /// Whether a schema may be named for it.
    pub fn is_framed(&self) -> bool {
        matches!(self.value.first(), Some(0 | 1))
            || self.headers.iter().any(|(name, _)| name == SCHEMA_ID_HEADER)
    }

    /// In a way that it can be taken from a log.
    pub fn shown(&self) -> String {
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
        format!("base64 {} headers [{}]", BASE64_STANDARD.encode(&self.value), headers.join(", "))
    }
}

/// The schemas that are known.
pub const SCHEMAS: [SchemaId; 4] =
    [SchemaId::Number(1), SchemaId::Number(2), SchemaId::Number(3), SchemaId::Number(4)];

/// A bit of everything, and a list that may be as deep as the value says.
const AVRO: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"type","type":"string"},{"name":"order_id","type":["long","string"]},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},{"name":"location","type":["null","string"]},
        {"name":"quantity","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":4}}]}}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"more","type":{"type":"map","values":["null","double",{"type":"array","items":"null"}]}},
    {"name":"next","type":["null","Order"]}]}"#;
const PROTO: &str = r#"syntax = "proto3"; import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto";
    message Order { string type = 1; string order_id = 2; repeated Line lines = 3; Order next = 4;
      google.protobuf.Struct more = 5; google.protobuf.Timestamp at = 6; map<int64, bytes> map = 7; repeated sint32 packed = 8; }
    message Line { string sku = 1; string location = 2; int64 quantity = 3; }"#;

pub fn register(registry: &Registry) {
    registry.add(1, "avro", "AVRO", AVRO, &[]);
    registry.add(2, "proto", "PROTOBUF", PROTO, &[]);
    registry.add(3, "json", "JSON", "{}", &[]);
    registry.add(4, "torn", "AVRO", "{", &[]);
}

fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], value].concat()
}

fn in_avro() -> Vec<u8> {
    let line = vec![
        ("sku".to_owned(), "MUG".into()),
        ("location".to_owned(), Avro::Union(1, Box::new("BERLIN".into()))),
        ("quantity".to_owned(), Avro::Decimal(vec![0x4e, 0x20].into())),
    ];
    let order = Avro::Record(vec![
        ("type".to_owned(), "order.created".into()),
        ("order_id".to_owned(), Avro::Union(0, Box::new(Avro::Long(7)))),
        ("lines".to_owned(), Avro::Array(vec![Avro::Record(line)])),
        ("at".to_owned(), Avro::TimestampMicros(1_795_869_900_123_456)),
        (
            "more".to_owned(),
            Avro::Map([("k".to_owned(), Avro::Union(1, Box::new(Avro::Double(0.1))))].into()),
        ),
        ("next".to_owned(), Avro::Union(0, Box::new(Avro::Null))),
    ]);
    let schema = apache_avro::Schema::parse_str(AVRO).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(order).unwrap()
}

fn in_protobuf() -> Vec<u8> {
    let field =
        |number: u8, value: &[u8]| [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat();
    let line = [field(1, b"MUG"), field(2, b"BERLIN"), vec![3 << 3, 2]].concat();
    let text = [field(1, b"k"), field(2, &field(3, b"v"))].concat();
    let more = field(1, &text);
    [
        vec![0],
        field(1, b"order.created"),
        field(2, b"p-1"),
        field(3, &line),
        field(5, &more),
        field(8, &[2, 4]),
    ]
    .concat()
}

/// All of them.
pub fn all() -> Vec<Input> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for document in ["docs/contract.md", "docs/formats.md", "docs/gate.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for block in text.split("```json").skip(1).filter_map(|rest| rest.split("```").next()) {
            texts.push(block.trim().to_owned());
            texts.extend(block.lines().filter(|line| line.starts_with(['{', '[', '"'])).map(str::to_owned));
        }
    }
    for entry in fs::read_dir(root.join("schemas")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        texts.extend(schema["examples"].as_array().into_iter().flatten().map(Value::to_string));
    }
    // What shops send, where their mappings are tested by it.
    let mut folders = vec![root.join("tests/mappings")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "json" || end == "jsonl") {
                texts.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
            }
        }
    }
    let mut inputs: Vec<Input> = texts.iter().map(|text| Input::plain(text.as_str())).collect();
    inputs.extend(texts.iter().take(10).map(|text| Input::plain(framed(3, text.as_bytes()))));
    inputs.extend(texts.iter().take(10).map(|text| Input::plain(wrapped(text))));
    let (avro, proto) = (in_avro(), in_protobuf());
    inputs
        .extend([framed(1, &avro), framed(2, &proto), framed(4, &avro), framed(5, &avro)].map(Input::plain));
    for (id, value) in [(1, &avro), (2, &proto)] {
        let header = (SCHEMA_ID_HEADER.to_owned(), framed(id, b""));
        inputs.push(Input { value: value.clone(), headers: vec![header] });
    }
    let event = json!({"specversion":"1.0","id":"e","source":"/s","type":"order.created","data_base64":BASE64_STANDARD.encode("{}")});
    let header = ("content-type".to_owned(), b"application/cloudevents+json".to_vec());
    inputs.push(Input { value: event.to_string().into_bytes(), headers: vec![header] });
    inputs.push(Input {
        value: br#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#.to_vec(),
        headers: vec![("ce_type".to_owned(), b"order.created".to_vec())],
    });
    inputs.push(Input::plain(Vec::new()));
    inputs
}

/// In Debezium's envelope in Connect's, with a decimal.
fn wrapped(text: &str) -> String {
    let text = if serde_json::from_str::<Value>(text).is_ok() { text } else { "null" };
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"field":"n","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{{"scale":"2"}}}}]}},"payload":{{"op":"c","n":"AQ==","before":null,"after":{text}}}}}"#
    )
}
