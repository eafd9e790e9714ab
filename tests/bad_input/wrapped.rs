//! Commands in wrappings that are known by what they look like: ten kinds of input at least for each.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stock_verifier::event::FaultCode::{
    BadEnvelope, BadFraming, DuplicateField, EmptyValue, InvalidId, MissingId, MissingType, NotAnObject,
    NotJson, NotUtf8, TypeConflict, UnknownType,
};

use super::{Case, Expected, GOOD, UNTYPED, bytes, dead, good, invalid, text};

/// Every kind of wrapped input.
pub fn cases() -> Vec<Case> {
    [
        compressed(),
        framed_by_guid(),
        strings(),
        arrays(),
        connect(),
        cloud_events(),
        rows(),
        outbox_rows(),
        layers(),
    ]
    .concat()
}

/// An order whose line is at fault.
const FAULTY: &str = r#"{"type":"order.created","order_id":"ID","lines":[{"sku":"MUG","quantity":0}]}"#;

fn faulty() -> Expected {
    invalid(&[(Some(1), "between")])
}

/// A JSON string that holds this.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn compressed() -> Vec<Case> {
    let begins = |name, magic: &[u8], code| bytes(name, [magic, b"\0\x01\x02\x03"].concat(), dead(code));
    vec![
        begins("gzip by mistake", b"\x1f\x8b\x08", NotUtf8),
        begins("zstd by mistake", b"\x28\xb5\x2f\xfd", NotUtf8),
        begins("LZ4 by mistake", b"\x04\x22\x4d\x18", NotJson),
        begins("LZ4 by mistake and no text", b"\x04\x22\x4d\x18\xff", NotUtf8),
        begins("Snappy by mistake", b"\xff\x06\0\0sNaPpY", NotUtf8),
        begins("Snappy of Java by mistake", b"\x82SNAPPY\0", NotUtf8),
        begins("xz by mistake", b"\xfd7zXZ\0", NotUtf8),
        begins("bzip2 by mistake", b"BZh91AY&SY", NotJson),
        begins("zip by mistake", b"PK\x03\x04", NotJson),
        begins("zlib by mistake", b"\x78\x9c", NotUtf8),
    ]
}

fn framed_by_guid() -> Vec<Case> {
    const GUID: &[u8; 17] = b"\x01\x76\x44\xe1\x29\x10\x5a\x4c\x2b\x9b\x4b\x0f\x6c\x11\x33\x55\x77";
    let framed = |name, value: &[u8], expected| bytes(name, [GUID, value].concat(), expected);
    let of = |value: &str, id: &str| value.replace("ID", id).into_bytes();
    vec![
        framed("an order framed by a GUID", &of(GOOD, "an-order-framed-by-a-GUID"), good()),
        framed("a faulty order framed by a GUID", &of(FAULTY, "a-faulty-order-framed-by-a-GUID"), faulty()),
        framed(
            "an order with a byte order mark framed by a GUID",
            &[b"\xef\xbb\xbf", &*of(GOOD, "an-order-with-a-byte-order-mark-framed-by-a-GUID")].concat(),
            good(),
        ),
        framed(
            "a JSON string framed by a GUID",
            quoted(&GOOD.replace("ID", "a-JSON-string-framed-by-a-GUID")).as_bytes(),
            good(),
        ),
        framed("a GUID with nothing after it", b"", dead(EmptyValue)),
        framed("Avro framed by a GUID", b"\x0co-1001\x02\xfe\xff", dead(NotUtf8)),
        framed("Protobuf framed by a GUID", b"\0\x0a\x03o-1", dead(NotJson)),
        framed("a GUID's frame in another", &[GUID, GOOD.as_bytes()].concat(), dead(NotUtf8)),
        framed("an untyped order framed by a GUID", UNTYPED.as_bytes(), dead(MissingType)),
        framed("an array framed by a GUID", b"[]", dead(NotAnObject)),
        bytes("a GUID cut off", &GUID[..12], dead(BadFraming)),
        bytes("a byte of one", b"\x01", dead(BadFraming)),
        text("an order whose header names its schema", GOOD, good()).header("__value_schema_id", GUID),
        bytes("Avro whose header names its schema", b"\x0co-1001\x02\xfe\xff", dead(NotUtf8))
            .header("__value_schema_id", b"\0\0\0\0\x07"),
    ]
}

fn strings() -> Vec<Case> {
    let string = |name, inner: &str, expected| text(name, &quoted(inner), expected);
    vec![
        string("a JSON string that holds an order", GOOD, good()),
        string("a JSON string that holds an order at fault", FAULTY, faulty()),
        string("a JSON string that holds an order with white space", &format!("\n {GOOD}\t"), good()),
        text("a JSON string in a JSON string", &quoted(&quoted(GOOD)), good()),
        string("a JSON string with a type in a header", UNTYPED, good()).header("ce_type", b"order.created"),
        string("a JSON string whose type contradicts its header", GOOD, dead(TypeConflict))
            .header("ce_type", b"order.cancelled"),
        string("a JSON string that holds half an order", &GOOD[..40], dead(NotJson)),
        string("a JSON string that holds nothing", "", dead(NotAnObject)),
        string("a JSON string that holds a word", "order", dead(NotAnObject)),
        string("a JSON string that holds a number", "42", dead(NotAnObject)),
        string("a JSON string that holds no type", UNTYPED, dead(MissingType)),
        string("a JSON string that holds an empty array", "[]", dead(NotAnObject)),
        text("a JSON string with half a surrogate pair", r#""{\ud800""#, dead(NotAnObject)),
        text("a JSON string that is not closed", "\"{", dead(NotJson)),
        text("a JSON string and more", &format!("{} x", quoted(GOOD)), dead(NotJson)),
    ]
}

fn arrays() -> Vec<Case> {
    vec![
        text("an array of one order", &format!("[{GOOD}]"), good()),
        text("an array of one order at fault", &format!(" [ {FAULTY} ] "), faulty()),
        text("an array of one order with a type in a header", &format!("[{UNTYPED}]"), good())
            .header("ce_type", b"order.created"),
        text("an array of one JSON string", &format!("[{}]", quoted(GOOD)), good()),
        text("an array of an array of one", &format!("[[{GOOD}]]"), good()),
        text("an array of none", "[]", dead(NotAnObject)),
        text("an array of two orders", &format!("[{GOOD},{GOOD}]"), dead(NotAnObject)),
        text("an array of an order and null", &format!("[{GOOD},null]"), dead(NotAnObject)),
        text("an array of null", "[null]", dead(NotAnObject)),
        text("an array of a number", "[7]", dead(NotAnObject)),
        text("an array of one without a type", &format!("[{UNTYPED}]"), dead(MissingType)),
        text("an array of one of an unknown type", r#"[{"type":"order.shipped"}]"#, dead(UnknownType)),
        text("an array that is not closed", &format!("[{GOOD}"), dead(NotJson)),
    ]
}

fn connect() -> Vec<Case> {
    let wrapped = |name, schema: &str, payload: &str, expected| {
        text(name, &format!(r#"{{"schema":{schema},"payload":{payload}}}"#), expected)
    };
    let quantity = r#"{"field":"quantity","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"4"}}"#;
    let schema = format!(
        r#"{{"type":"struct","fields":[{{"field":"lines","type":"array","items":{{"type":"struct","fields":[{quantity}]}}}}]}}"#
    );
    let decimal = |unscaled: i32| {
        let pieces = BASE64_STANDARD.encode(unscaled.to_be_bytes());
        GOOD.replace("\"quantity\":1", &format!("\"quantity\":\"{pieces}\""))
    };
    vec![
        wrapped("Connect's envelope", r#"{"type":"struct","fields":[]}"#, GOOD, good()),
        wrapped("Connect's envelope without a schema", "null", GOOD, good()),
        wrapped("Connect's envelope with a faulty order", "{}", FAULTY, faulty()),
        wrapped("Connect's envelope with a decimal", &schema, &decimal(10_000), good()),
        wrapped(
            "Connect's envelope with a decimal that is not whole",
            &schema,
            &decimal(15_000),
            invalid(&[(Some(1), "must be a whole number, is 1.5000")]),
        ),
        wrapped(
            "Connect's envelope with a decimal below zero",
            &schema,
            &decimal(-10_000),
            invalid(&[(Some(1), "is -1.0000")]),
        ),
        wrapped(
            "Connect's envelope with a decimal as text",
            &schema,
            &GOOD.replace(":1", ":\"1!\""),
            dead(BadEnvelope),
        ),
        wrapped(
            "Connect's envelope with a decimal without a scale",
            &schema.replace("scale", "scales"),
            &decimal(10_000),
            dead(BadEnvelope),
        ),
        wrapped("Connect's envelope of a JSON string", r#"{"type":"string"}"#, &quoted(GOOD), good()),
        wrapped("Connect's envelope with a type in a header", "{}", UNTYPED, good())
            .header("ce_type", b"order.created"),
        wrapped("Connect's envelope with nothing in it", "{}", "null", dead(EmptyValue)),
        wrapped("Connect's envelope of a number", "{}", "7", dead(NotAnObject)),
        wrapped(
            "Connect's envelope of an order without an id",
            "{}",
            r#"{"type":"order.created"}"#,
            dead(MissingId),
        ),
        wrapped("Connect's envelope with two payloads", "{},\"payload\":{}", GOOD, dead(DuplicateField)),
        text("Connect's envelope without a payload", r#"{"schema":{}}"#, dead(MissingType)),
        text("a payload without Connect's schema", &format!(r#"{{"payload":{GOOD}}}"#), dead(MissingType)),
    ]
}

fn cloud_events() -> Vec<Case> {
    let event = |name, kind: &str, rest: &str, expected| {
        text(
            name,
            &format!(r#"{{"specversion":"1.0","id":"e-1","source":"/shop","type":{kind}{rest}}}"#),
            expected,
        )
    };
    let created = "\"order.created\"";
    let encoded = BASE64_STANDARD.encode(UNTYPED.replace("ID", "a-CloudEvent-by-its-fields-in-base64"));
    vec![
        event("a CloudEvent by its fields", created, &format!(",\"data\":{UNTYPED}"), good()),
        event(
            "a CloudEvent by its fields that repeats its type",
            created,
            &format!(",\"data\":{GOOD}"),
            good(),
        ),
        event(
            "a CloudEvent by its fields in base64",
            created,
            &format!(",\"data_base64\":\"{encoded}\""),
            good(),
        ),
        event(
            "a CloudEvent by its fields with data in a string",
            created,
            &format!(",\"data\":{}", quoted(UNTYPED)),
            good(),
        ),
        event(
            "a CloudEvent by its fields with an order at fault",
            created,
            &format!(",\"data\":{FAULTY}"),
            faulty(),
        ),
        event(
            "a CloudEvent by its fields of an unknown type",
            "\"com.shop.order\"",
            &format!(",\"data\":{UNTYPED}"),
            dead(UnknownType),
        ),
        event(
            "a CloudEvent by its fields of another type than its data",
            "\"order.cancelled\"",
            &format!(",\"data\":{GOOD}"),
            dead(TypeConflict),
        ),
        event(
            "a CloudEvent by its fields of another type than its header",
            created,
            &format!(",\"data\":{UNTYPED}"),
            dead(TypeConflict),
        )
        .header("ce_type", b"order.cancelled"),
        event("a CloudEvent by its fields with null data", created, ",\"data\":null", dead(BadEnvelope)),
        event(
            "a CloudEvent by its fields with data twice over",
            created,
            ",\"data\":{},\"data_base64\":\"e30=\"",
            dead(BadEnvelope),
        ),
        event(
            "a CloudEvent by its fields with bad base64",
            created,
            ",\"data_base64\":\"!\"",
            dead(BadEnvelope),
        ),
        event("a CloudEvent by its fields without data", created, "", dead(MissingId)),
        event(
            "a CloudEvent by its fields whose type is a number",
            "7",
            &format!(",\"data\":{GOOD}"),
            dead(UnknownType),
        ),
        event(
            "a CloudEvent by its fields with a field of an order beside",
            created,
            &format!(",\"order_id\":7.5,\"data\":{UNTYPED}"),
            good(),
        ),
    ]
}

fn rows() -> Vec<Case> {
    let row = |name, op: &str, after: &str, expected| {
        let value =
            format!(r#"{{"before":null,"after":{after},"source":{{"table":"orders"}},"op":{op},"ts_ms":1}}"#);
        text(name, &value, expected)
    };
    vec![
        row("a row that was made", "\"c\"", GOOD, good()),
        row("a row that was read", "\"r\"", GOOD, good()),
        row("a row that was changed", "\"u\"", GOOD, good()),
        row("a row at fault", "\"c\"", FAULTY, faulty()),
        row("a row with a type in a header", "\"c\"", UNTYPED, good()).header("ce_type", b"order.created"),
        row("a row of a JSON string", "\"c\"", &quoted(GOOD), good()),
        row("a row that was deleted", "\"d\"", "null", dead(EmptyValue)),
        row("a table that was emptied", "\"t\"", "null", dead(EmptyValue)),
        row("a row without what it is after", "\"c\"", "null", dead(BadEnvelope)),
        row("a row with an unknown op", "\"x\"", GOOD, dead(BadEnvelope)),
        row("a row whose op is a number", "1", GOOD, dead(MissingType)),
        row("a row with two ops", "\"c\",\"op\":\"d\"", GOOD, dead(DuplicateField)),
        row("a row that is no order", "\"c\"", r#"{"id":1,"name":"Ann"}"#, dead(MissingType)),
        text("a message about the source's schema", r#"{"op":"c","ddl":"CREATE TABLE"}"#, dead(MissingType)),
    ]
}

fn outbox_rows() -> Vec<Case> {
    let row = |name, kind: &str, payload: &str, expected| {
        let value = format!(
            r#"{{"id":"7","aggregatetype":"order","aggregateid":"o-1","type":{kind},"payload":{payload}}}"#
        );
        text(name, &value, expected)
    };
    let created = "\"order.created\"";
    vec![
        row("an outbox's row", created, &quoted(UNTYPED), good()),
        row("an outbox's row that repeats its type", created, &quoted(GOOD), good()),
        row("an outbox's row with its payload as JSON", created, UNTYPED, good()),
        row("an outbox's row with an order at fault", created, &quoted(FAULTY), faulty()),
        row("an outbox's row of an unknown type", "\"OrderPlaced\"", &quoted(UNTYPED), dead(UnknownType)),
        row(
            "an outbox's row of another type than its payload",
            "\"order.cancelled\"",
            &quoted(GOOD),
            dead(TypeConflict),
        ),
        row("an outbox's row whose type is a number", "7", &quoted(GOOD), dead(UnknownType)),
        row("an outbox's row without a payload", created, "null", dead(EmptyValue)),
        row("an outbox's row whose payload is a word", created, "\"none\"", dead(NotJson)),
        row("an outbox's row whose payload is a number", created, "7", dead(NotAnObject)),
        row("an outbox's row with two payloads", created, "{},\"payload\":{}", dead(DuplicateField)),
        row("an outbox's row of an order without an id", created, r#"{"lines":[]}"#, dead(MissingId)),
        row("an outbox's row of an order with a wrong id", created, r#"{"order_id":""}"#, dead(InvalidId)),
    ]
}

fn layers() -> Vec<Case> {
    let outbox = |payload: &str| {
        format!(
            r#"{{"id":"7","aggregatetype":"order","aggregateid":"1","type":"order.created","payload":{payload}}}"#
        )
    };
    let row = |after: &str| format!(r#"{{"before":null,"after":{after},"op":"c"}}"#);
    let connect = |payload: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#);
    let nested = |times: usize| (0..times).fold(GOOD.to_owned(), |inner, _| format!("[{inner}]"));
    vec![
        text(
            "an outbox's row in Debezium's envelope in Connect's in a string",
            &quoted(&connect(&row(&outbox(&quoted(UNTYPED))))),
            good(),
        ),
        text("eight wrappings", &nested(8), good()),
        text("nine wrappings", &nested(9), dead(NotAnObject)),
        text("a fault deep in wrappings", &connect(&row(&outbox("[1,2]"))), dead(NotAnObject)),
    ]
}
