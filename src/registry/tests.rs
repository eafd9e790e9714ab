//! What schemas make of values, without a registry: the schemas are put into the cache.

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::DynamicMessage;

use super::client::Source;
use super::*;
use crate::event::Header;
use crate::ledger::{self, Offset, TopicPartition};

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"type","type":"string"},
    {"name":"order_id","type":"long"},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},
        {"name":"location","type":["null","string"],"default":null},
        {"name":"quantity","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}}]}}}]}"#;

const PROTO: &str = r#"syntax = "proto3"; package shop;
    import "google/protobuf/timestamp.proto"; import "confluent/type/decimal.proto"; import "lines.proto";
    message Other { string note = 1; message Within { string type = 1; string order_id = 2; } map<string, int32> m = 2; }
    message Order {
      string type = 1; uint64 order_id = 2; repeated Line lines = 3; google.protobuf.Timestamp at = 4;
      confluent.type.Decimal total = 5; map<string, int64> counts = 6; Kind kind = 7; double ratio = 8; bytes raw = 9;
      Order again = 10; optional string note = 11;
      enum Kind { NONE = 0; SALE = 1; }
    }"#;
const PROTO_LINES: &str = r#"syntax = "proto3"; package shop; message Line { string sku = 1; string location = 2; int32 quantity = 3; }"#;

fn source(format: &str, text: &str, references: &[(&str, &str)]) -> Source {
    let references = references.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Source { format: format.to_owned(), text: text.to_owned(), references }
}

fn avro(schema: &str) -> avro::Schema {
    avro::Schema::parse(&source("AVRO", schema, &[])).unwrap()
}

fn written(schema: &str, value: impl Into<Avro>) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn proto() -> protobuf::Schema {
    protobuf::Schema::parse(&source("PROTOBUF", PROTO, &[("lines.proto", PROTO_LINES)])).unwrap()
}

/// A registry that knows these schemas by their numbers.
fn registry(schemas: Vec<(u32, Schema)>) -> Registry {
    let args = RegistryArgs::default();
    let url = url::Url::parse("http://127.0.0.1:9/").unwrap();
    let registry = Registry { client: Client::new(url, args).unwrap(), cache: Cache::default() };
    for (id, schema) in schemas {
        registry.cache.put(SchemaId::Number(id), Known::Schema(Arc::new(schema)));
    }
    registry
}

fn record(value: &[u8]) -> Record {
    Record {
        source: ledger::Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: None,
        value: Some(value.to_vec()),
        headers: Vec::new(),
        timestamp_ms: None,
        decoded: None,
    }
}

fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], value].concat()
}

/// What a value of one field is as JSON.
fn one(kind: &str, value: Avro) -> String {
    let schema = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"v","type":{kind}}}]}}"#);
    let bytes = written(&schema, Avro::Record(vec![("v".to_owned(), value)]));
    let json = avro(&schema).json(&bytes).unwrap();
    json.strip_prefix(r#"{"v":"#).unwrap().strip_suffix('}').unwrap().to_owned()
}

fn logical(base: &str, name: &str) -> String {
    format!(r#"{{"type":"{base}","logicalType":"{name}"}}"#)
}

#[test]
fn each_kind_of_avro_is_exactly_its_json() {
    let fixed = |name: &str, size: usize, more: &str| {
        format!(r#"{{"type":"fixed","name":"F","size":{size},"logicalType":"{name}"{more}}}"#)
    };
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":30,"scale":2}"#;
    for (kind, value, json) in [
        ("\"null\"".to_owned(), Avro::Null, "null"),
        ("\"boolean\"".to_owned(), Avro::Boolean(true), "true"),
        ("\"int\"".to_owned(), Avro::Int(i32::MIN), "-2147483648"),
        ("\"long\"".to_owned(), Avro::Long(9_007_199_254_740_993), "9007199254740993"),
        ("\"long\"".to_owned(), Avro::Long(i64::MIN), "-9223372036854775808"),
        ("\"float\"".to_owned(), Avro::Float(0.1), "0.1"),
        ("\"double\"".to_owned(), Avro::Double(2.0), "2.0"),
        ("\"double\"".to_owned(), Avro::Double(f64::NAN), "\"NaN\""),
        ("\"bytes\"".to_owned(), Avro::Bytes(vec![0, 255]), "\"AP8=\""),
        ("\"string\"".to_owned(), Avro::String("a\"\u{1}ö".to_owned()), "\"a\\\"\\u0001ö\""),
        (
            r#"{"type":"array","items":"int"}"#.to_owned(),
            Avro::Array(vec![Avro::Int(1), Avro::Int(2)]),
            "[1,2]",
        ),
        (r#"["null","string"]"#.to_owned(), Avro::Union(1, Box::new(Avro::String("s".to_owned()))), "\"s\""),
        (
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#.to_owned(),
            Avro::Enum(1, "B".to_owned()),
            "\"B\"",
        ),
        (r#"{"type":"fixed","name":"F","size":2}"#.to_owned(), Avro::Fixed(2, vec![1, 2]), "\"AQI=\""),
        // 12345678901234567890.12, which no float holds.
        (
            decimal.to_owned(),
            Avro::Decimal(1_234_567_890_123_456_789_012_i128.to_be_bytes().to_vec().into()),
            "12345678901234567890.12",
        ),
        (
            fixed("decimal", 4, r#","precision":9,"scale":0"#),
            Avro::Decimal((-7_i32).to_be_bytes().to_vec().into()),
            "-7",
        ),
        (logical("int", "date"), Avro::Date(20_785), "\"2026-11-28\""),
        (logical("int", "date"), Avro::Date(-1), "\"1969-12-31\""),
        (logical("int", "time-millis"), Avro::TimeMillis(49_500_120), "\"13:45:00.12\""),
        (logical("long", "time-micros"), Avro::TimeMicros(1), "\"00:00:00.000001\""),
        (
            logical("long", "timestamp-millis"),
            Avro::TimestampMillis(1_795_869_900_123),
            "\"2026-11-28T12:45:00.123Z\"",
        ),
        (logical("long", "timestamp-millis"), Avro::TimestampMillis(-1), "\"1969-12-31T23:59:59.999Z\""),
        (logical("long", "timestamp-micros"), Avro::TimestampMicros(1), "\"1970-01-01T00:00:00.000001Z\""),
        (logical("long", "timestamp-nanos"), Avro::TimestampNanos(1), "\"1970-01-01T00:00:00.000000001Z\""),
        (logical("long", "local-timestamp-millis"), Avro::LocalTimestampMillis(0), "\"1970-01-01T00:00:00\""),
        (
            logical("string", "uuid"),
            Avro::Uuid("7644e129-105a-4c2b-9b4b-0f6c11335577".parse().unwrap()),
            "\"7644e129-105a-4c2b-9b4b-0f6c11335577\"",
        ),
        (
            fixed("uuid", 16, ""),
            Avro::Uuid("7644e129-105a-4c2b-9b4b-0f6c11335577".parse().unwrap()),
            "\"7644e129-105a-4c2b-9b4b-0f6c11335577\"",
        ),
    ] {
        assert_eq!(one(&kind, value), json, "{kind}");
    }
    let map = r#"{"type":"map","values":"long"}"#;
    assert_eq!(one(map, Avro::Map([("k".to_owned(), Avro::Long(1))].into())), r#"{"k":1}"#);
    let big =
        written("\"bytes\"", Avro::Bytes([written("\"bytes\"", Avro::Bytes(vec![123])), vec![4]].concat()));
    assert_eq!(avro(&logical("bytes", "big-decimal")).json(&big).unwrap(), "1.23");
}

#[test]
fn avros_names_are_found_where_they_are_meant() {
    // Line in the namespace around it, itself within itself, and a type of another schema that refers to a third.
    let schema = r#"{"type":"record","name":"a.Order","fields":[
        {"name":"first","type":{"type":"record","name":"Line","fields":[{"name":"next","type":["null","Line"]}]}},
        {"name":"second","type":"a.Line"},{"name":"money","type":"b.Money"}]}"#;
    let money = r#"{"type":"record","name":"b.Money","fields":[{"name":"in","type":"b.Currency"}]}"#;
    let currency = r#"{"type":"enum","name":"b.Currency","symbols":["EUR","USD"]}"#;
    let schema =
        avro::Schema::parse(&source("AVRO", schema, &[("b.Currency", currency), ("b.Money", money)]))
            .unwrap();
    let json = schema.json(&[2, 0, 0, 2]).unwrap();
    assert_eq!(json, r#"{"first":{"next":{"next":null}},"second":{"next":null},"money":{"in":"USD"}}"#);
}

#[test]
fn avro_that_is_none_is_named_and_costs_little() {
    let order = avro(ORDER);
    let good = written(
        ORDER,
        Avro::Record(vec![
            ("type".to_owned(), "order.created".into()),
            ("order_id".to_owned(), Avro::Long(1)),
            (
                "lines".to_owned(),
                Avro::Array(vec![Avro::Record(vec![
                    ("sku".to_owned(), "MUG".into()),
                    ("location".to_owned(), Avro::Union(0, Box::new(Avro::Null))),
                    ("quantity".to_owned(), Avro::Decimal(vec![0x4e, 0x20].into())),
                ])]),
            ),
        ]),
    );
    assert_eq!(
        order.json(&good).unwrap(),
        r#"{"type":"order.created","order_id":1,"lines":[{"sku":"MUG","location":null,"quantity":2.0000}]}"#
    );
    for cut in 0..good.len() {
        assert!(order.json(&good[..cut]).is_err(), "{cut} of its bytes");
    }
    let node = r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#;
    let empty = r#"{"type":"array","items":{"type":"record","name":"Nothing","fields":[]}}"#;
    let very_large = [&[0xfe][..], &[0xff; 8], &[0x01]].concat();
    for (schema, value, says) in [
        (ORDER, [&good[..], b"\0"].concat(), "1 bytes are left"),
        (ORDER, b"\x06\xff\xff\xff".to_vec(), "type: a string is not UTF-8"),
        (ORDER, b"\x01".to_vec(), "type: it has -1 bytes"),
        (
            ORDER,
            b"\x02a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(),
            "order_id: a number has more than 64",
        ),
        (ORDER, b"\x02a\x02\x02\x02a\x08".to_vec(), "lines: location: it is number 4 of a union of 2"),
        (ORDER, b"\x02a\x02\x02\x02a\0\0".to_vec(), "lines: quantity: a Decimal has 0 bytes"),
        (ORDER, very_large.clone(), "type: it ends too early"),
        ("\"boolean\"", b"\x02".to_vec(), "neither 0 nor 1"),
        ("\"int\"", b"\x80\x80\x80\x80\x20".to_vec(), "is no int"),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, b"\x02".to_vec(), "number 1 of 1 symbols"),
        (
            r#"{"type":"int","logicalType":"time-millis"}"#,
            b"\xff\xff\xff\xff\x0f".to_vec(),
            "is no time of a day",
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            very_large.clone(),
            "out of the range of times",
        ),
        (node, vec![2; 1_000_000], "nested deeper"),
        (empty, very_large, "longer than"),
    ] {
        let said = avro(schema).json(&value).unwrap_err();
        assert!(said.contains(says), "{schema} {value:?}: {said}");
    }
    // Not of the value but of the schema.
    for (schema, says) in [
        ("{", "parse schema"),
        (r#"{"type":"record","name":"R","fields":[{"name":"v","type":"shop.Nowhere"}]}"#, "shop.Nowhere"),
    ] {
        let said = avro::Schema::parse(&source("AVRO", schema, &[])).err().unwrap();
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{schema}: {said}");
    }
}

/// A message of PROTO by its full name, from JSON.
fn message(name: &str, json: &str) -> Vec<u8> {
    let pool = protobuf::compiled(&source("PROTOBUF", PROTO, &[("lines.proto", PROTO_LINES)])).unwrap();
    let descriptor = pool.get_message_by_name(name).unwrap();
    let mut reader = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(descriptor, &mut reader).unwrap().encode_to_vec()
}

#[test]
fn a_protobuf_message_is_its_json_by_the_schemas_own_names() {
    let json = r#"{"type":"order.created","order_id":18446744073709551615,"lines":[{"sku":"MUG","quantity":2}],"at":"2026-11-28T12:45:00.123Z","total":{"value":"TiA=","precision":9,"scale":4},"counts":{"b":"2","a":"1"},"kind":"SALE","ratio":0.1,"raw":"AP8=","again":{"note":""}}"#;
    let value = message("shop.Order", json);
    let expected = r#"{"type":"order.created","order_id":18446744073709551615,"lines":[{"sku":"MUG","quantity":2}],"at":"2026-11-28T12:45:00.123Z","total":2.0000,"counts":{"a":1,"b":2},"kind":"SALE","ratio":0.1,"raw":"AP8=","again":{"note":""}}"#;
    // By its index: the second message of the schema. In a frame, and in a header.
    assert_eq!(proto().json(&[&[2, 2], &value[..]].concat(), None).unwrap(), expected);
    assert_eq!(proto().json(&value, Some(&[2, 2])).unwrap(), expected);
    let within = message("shop.Other.Within", r#"{"type":"t","order_id":"o"}"#);
    let expected = r#"{"type":"t","order_id":"o"}"#;
    assert_eq!(proto().json(&[&[4, 0, 0], &within[..]].concat(), None).unwrap(), expected);
    // A single zero is the first message.
    let other = message("shop.Other", r#"{"note":"n","m":{"x":1}}"#);
    assert_eq!(proto().json(&[&[0], &other[..]].concat(), None).unwrap(), r#"{"note":"n","m":{"x":1}}"#);
}

#[test]
fn protobuf_that_is_none_is_named() {
    let good = message("shop.Order", r#"{"type":"order.created","order_id":"7"}"#);
    let mut nested = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![10 << 3 | 2];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(nested);
        nested = outer;
    }
    for (indexes, value, says) in [
        (&[][..], &b""[..], "does not say which message"),
        (&[2, 4], &good, "message 2, which the schema does not have"),
        (&[2, 1], &good, "message -1"),
        (&[1], &good, "message -1"),
        (&[4, 2, 0], &good, "message 0, which the schema does not have"),
        (&[0x80, 0x80], b"", "does not say which message"),
        (&[100, 0], &good, "nested 50 levels"),
        (&[2, 2], &good[..good.len() - 1], ""),
        (&[2, 2], b"\x0a\xff", ""),
        (&[2, 2], b"\x0a\x02\xff\xfe", "UTF-8"),
        (&[2, 2], b"\x07", "wire type"),
        (&[2, 2], &nested, "recursion"),
        // A decimal without its bytes.
        (&[2, 2], b"\x2a\x02\x18\x04", "total: a Decimal has 0 bytes"),
    ] {
        let said = proto().json(&[indexes, value].concat(), None).unwrap_err();
        assert!(said.contains(says), "{indexes:?} {value:?}: {said}");
    }
    for (schema, says) in [
        ("message {", "expected an identifier"),
        ("syntax = \"proto3\"; import \"nowhere.proto\"; message A {}", "nowhere.proto"),
        ("syntax = \"proto3\";", "no message"),
        ("syntax = \"proto3\"; message A { Nothing n = 1; }", "Nothing"),
    ] {
        let said = protobuf::Schema::parse(&source("PROTOBUF", schema, &[])).err().unwrap();
        assert!(said.contains(says), "{schema}: {said}");
    }
}

#[test]
fn a_message_beside_a_map_is_taken_where_no_other_can_be_meant() {
    let (first, second) =
        ("message Created { string created = 1; }", "message Cancelled { string cancelled = 1; }");
    let (map, other_map) = ("map<string, string> h = 1;", "map<string, string> i = 2;");
    // As Confluent's registry prints what a serializer registered.
    let written = "repeated .shop.Events.HEntry h = 1;";
    let entry = "message HEntry { option map_entry = true; string key = 1; string value = 2; }";
    let (created, cancelled) = (Ok(r#"{"created":"x"}"#), Ok(r#"{"cancelled":"x"}"#));
    let (either, none) = (Err("may be Created or Cancelled"), Err("which the schema does not have"));
    for (within, expected) in [
        // The place of a map's field says nothing.
        ([map, first, second, ""], [created, either, cancelled, none]),
        ([first, map, second, ""], [created, either, cancelled, none]),
        ([first, second, map, ""], [created, either, cancelled, none]),
        ([map, other_map, first, second], [created, either, either, cancelled]),
        ([first, second, "", ""], [created, cancelled, none, none]),
        // That of an entry that is written out does.
        ([written, entry, first, second], [none, created, cancelled, none]),
        ([written, first, entry, second], [created, none, cancelled, none]),
        ([written, first, second, entry], [created, cancelled, none, none]),
    ] {
        let text = format!("syntax = \"proto3\"; package shop; message Events {{ {} }}", within.join(" "));
        let schema = protobuf::Schema::parse(&source("PROTOBUF", &text, &[])).unwrap();
        for (index, expected) in (0_u8..).zip(expected) {
            let said = schema.json(&[4, 0, 2 * index, 0x0a, 1, b'x'], None);
            match (&said, expected) {
                (Ok(json), Ok(expected)) => assert_eq!(json, expected, "{index} of {text}"),
                (Err(why), Err(says)) => assert!(why.contains(says), "{index} of {text}: {why}"),
                _ => panic!("{index} of {text}: {said:?}"),
            }
        }
        // A map is one, however it is written.
        let map = b"\x00\x0a\x06\x0a\x01k\x12\x01v";
        let json = if text.contains("h = 1") { r#"{"h":{"k":"v"}}"# } else { "{}" };
        assert_eq!(schema.json(map, None).unwrap(), json, "{text}");
    }
}

#[test]
fn a_record_is_decoded_by_what_its_frame_or_its_header_names() {
    let registry = registry(vec![
        (7, Schema::Avro(avro("\"string\""))),
        (8, Schema::Json),
        (9, Schema::Unusable("it is torn".to_owned())),
    ]);
    registry.cache.put(SchemaId::Number(10), Known::Absent);
    let decoded = |value: &[u8], header: Option<&[u8]>| {
        let mut record = record(value);
        record.headers.extend(
            header.map(|value| Header { name: "__value_schema_id".to_owned(), value: Some(value.to_vec()) }),
        );
        registry.decode(&mut record).map(|()| record.decoded.map(|decoded| *decoded))
    };
    let abc = Ok(Some(Decoded::Json { format: "Avro", text: "\"abc\"".to_owned() }));
    assert_eq!(decoded(&framed(7, b"\x06abc"), None), abc);
    assert_eq!(decoded(b"\x06abc", Some(b"\0\0\0\0\x07")), abc);
    assert_eq!(decoded(&framed(8, b"{}"), None), Ok(None));
    assert_eq!(decoded(b"{}", None), Ok(None));
    assert_eq!(decoded(&framed(10, b"\x06abc"), None), Ok(Some(Decoded::UnknownSchema)));
    assert_eq!(decoded(&framed(11, b"\x06abc"), None), Err(SchemaId::Number(11)));
    // No registry has a larger one, so none is asked.
    assert_eq!(decoded(&framed(0x7fff_ffff, b"\x06abc"), None), Err(SchemaId::Number(0x7fff_ffff)));
    for header in [None, Some(&b"\0\x80\0\0\0"[..])] {
        let value = framed(0x8000_0000, b"\x06abc");
        assert_eq!(decoded(&value, header), Ok(Some(Decoded::UnknownSchema)), "{header:?}");
    }
    for (id, value, says) in [
        (7, &b"\x06ab"[..], "not the Avro of schema 7: it ends"),
        (9, b"x", "schema 9, which the value is written by, cannot be used: it is torn"),
    ] {
        let Ok(Some(Decoded::Undecodable(fault))) = decoded(&framed(id, value), None) else {
            panic!("{id} is decoded")
        };
        assert!(fault.code == FaultCode::BadEnvelope && fault.detail.contains(says), "{fault}");
    }
}

/// Any value of a schema that has a bit of everything, with what its JSON must be.
fn any_value() -> impl Strategy<Value = (Avro, serde_json::Value)> {
    (any::<String>(), any::<i64>(), any::<Option<i32>>(), proptest::collection::vec(any::<bool>(), 0..4))
        .prop_map(|(text, long, maybe, flags)| {
            let union = match maybe {
                None => Avro::Union(0, Box::new(Avro::Null)),
                Some(int) => Avro::Union(1, Box::new(Avro::Int(int))),
            };
            let json = serde_json::json!({"text": text, "long": long, "maybe": maybe, "flags": flags});
            let fields = vec![
                ("text".to_owned(), Avro::String(text)),
                ("long".to_owned(), Avro::Long(long)),
                ("maybe".to_owned(), union),
                ("flags".to_owned(), Avro::Array(flags.into_iter().map(Avro::Boolean).collect())),
            ];
            (Avro::Record(fields), json)
        })
}

const ANY: &str = r#"{"type":"record","name":"Any","fields":[{"name":"text","type":"string"},{"name":"long","type":"long"},
    {"name":"maybe","type":["null","int"]},{"name":"flags","type":{"type":"array","items":"boolean"}}]}"#;

proptest! {
    #[test]
    fn what_avros_own_crate_wrote_is_read((value, expected) in any_value()) {
        let json = avro(ANY).json(&written(ANY, value)).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
    }

    #[test]
    fn no_bytes_are_too_much_and_what_is_read_is_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for text in [avro(ORDER).json(&bytes), avro(ANY).json(&bytes), proto().json(&bytes, None)].into_iter().flatten() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
