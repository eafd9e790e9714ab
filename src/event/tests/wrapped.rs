//! Each step that was taken is named where it ends badly; the table of input is in `tests/bad_input`.

use super::*;

fn message(value: impl Into<Vec<u8>>) -> String {
    read_command(&record(value)).unwrap_err().to_string()
}

#[test]
fn a_fault_names_the_wrappings_that_were_opened() {
    let row = r#"{"op":"c","after":{"id":1,"aggregatetype":"order","aggregateid":1,"type":"order.created","payload":"{\"lines\":[]}"}}"#;
    let value = serde_json::Value::from(format!(r#"{{"schema":{{}},"payload":{row}}}"#)).to_string();
    assert_eq!(
        message(value),
        "missing_id: in a JSON string, in Kafka Connect's envelope, in Debezium's envelope of a row, in a row of an outbox: \
         \"order_id\" is missing"
    );
    assert_eq!(
        message("[7]"),
        "not_an_object: in an array of one: the value must be a JSON object, is a number"
    );
    assert_eq!(message("[7,8]"), "not_an_object: the value must be a JSON object, is an array");
}

#[test]
fn a_compressed_value_is_named_as_what_it_is() {
    for (value, name) in [
        (&b"\x1f\x8b\x08\0"[..], "gzip"),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (b"\x04\x22\x4d\x18", "LZ4"),
        (b"\xff\x06\0\0sNaPpY", "Snappy"),
        (b"\x82SNAPPY\0\x01", "Snappy"),
    ] {
        let said = message(value);
        assert!(said.contains(&format!("it begins as {name} does")), "{said}");
    }
    assert!(!message("order o-1").contains("begins as"));
}

#[test]
fn a_frames_schema_is_named_however_it_is_given() {
    let guid = b"\x01\x76\x44\xe1\x29\x10\x5a\x4c\x2b\x9b\x4b\x0f\x6c\x11\x33\x55\x77";
    let said = message([guid, &b"\x02avro"[..]].concat());
    assert!(said.contains("framed with schema id 7644e129-105a-4c2b-9b4b-0f6c11335577"), "{said}");
    let mut by_header = record(&b"\x02avro"[..]);
    by_header.headers.push(header("__value_schema_id", b"\0\0\0\x01\x02"));
    let said = read_command(&by_header).unwrap_err().to_string();
    assert!(said.contains("schema id 258"), "{said}");
}

#[test]
fn what_was_a_command_without_looking_into_it_stays_that_command() {
    // All the fields of wrappings beside those of a command.
    let value = r#"{"type":"order.cancelled","order_id":"o","specversion":"1.0","id":"e","source":"s","data":{"order_id":"p"},
        "schema":{},"payload":{"order_id":"p"},"op":"c","after":{"order_id":"p"},"aggregatetype":"order","aggregateid":"p"}"#;
    assert_eq!(read_command(&record(value)), Ok(Command::order_cancelled(id("o"))));
    assert_eq!(read_strictly(&record(value)), Ok(Command::order_cancelled(id("o"))));
}

#[test]
fn earlier_versions_opened_none_of_this() {
    let order = r#"{"type":"order.created","order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#;
    for (value, code) in [
        (format!("[{order}]"), FaultCode::NotAnObject),
        (serde_json::Value::from(order).to_string(), FaultCode::NotAnObject),
        (format!(r#"{{"schema":{{}},"payload":{order}}}"#), FaultCode::MissingType),
        (format!("\u{1}0123456789abcdef{order}"), FaultCode::NotJson),
    ] {
        let record = record(value);
        assert!(read_command(&record).is_ok(), "{record:?}");
        assert_eq!(read_strictly(&record).unwrap_err().code, code, "{record:?}");
    }
}
