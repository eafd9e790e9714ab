//! Records as mappings read them.

use super::*;
use crate::event::{Reading, read_mapped_as_decided, read_record};
use crate::mapping::Mapping;

fn mapping(program: &str) -> Mapping {
    Mapping::compile("test.jq", program).unwrap()
}

const SHOP: &str = r#"if .kind == "order" then {type: "order.created", order_id: .no, lines: [{sku: .what, quantity: .n}]}
    elif .kind == "note" then empty else error("neither an order nor a note: \(.kind)") end"#;

#[test]
fn what_a_mapping_gives_is_read_as_a_command_is() {
    let shop = mapping(SHOP);
    let bought = |value: &str| read_record(&record(value), Some(&shop));
    assert_eq!(
        bought(r#"{"kind":"order","no":9007199254740993,"what":"MUG","n":"2.0000","at":"now"}"#),
        Reading::Command(order("9007199254740993", &[("MUG", 2)]))
    );
    assert_eq!(bought(r#"{"kind":"note"}"#), Reading::Ignored);
    let Reading::Faulty(fault) = bought(r#"{"kind":"return"}"#) else { panic!("no fault") };
    assert_eq!(fault.to_string(), "mapping_failed: neither an order nor a note: return");
    let Reading::Faulty(fault) = bought(r#"{"kind":"order","what":"MUG","n":1}"#) else { panic!("no fault") };
    assert_eq!(fault.code, FaultCode::MissingId);
    assert!(fault.detail.starts_with("what its mapping gives: "), "{fault}");
    // What is exactly no whole number is refused, as of a record that is a command itself.
    let Reading::Command(command) = bought(r#"{"kind":"order","no":1,"what":"MUG","n":1.5}"#) else {
        panic!("none")
    };
    assert!(matches!(command.action, Action::Refuse(_)), "{command:?}");
}

#[test]
fn what_a_mapping_is_given_is_unwrapped() {
    let shop = mapping(SHOP);
    let plain = r#"{"kind":"order","no":"7","what":"MUG","n":1}"#;
    let as_text = serde_json::to_string(plain).unwrap();
    for wrapped in [
        as_text.clone(),
        format!("[{plain}]"),
        format!(r#"{{"schema":null,"payload":{plain}}}"#),
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/","type":"com.dapr.event.sent","data":{plain}}}"#
        ),
        format!(r#"{{"before":null,"after":{plain},"op":"c"}}"#),
        format!(r#"{{"aggregatetype":"o","aggregateid":"7","type":"t","payload":{as_text}}}"#),
        format!(
            r#"{{"schema":null,"payload":{{"op":"c","after":{{"aggregatetype":"o","aggregateid":"7","type":"t","payload":{as_text}}}}}}}"#
        ),
    ] {
        assert_eq!(
            read_record(&record(&*wrapped), Some(&shop)),
            Reading::Command(order("7", &[("MUG", 1)])),
            "{wrapped}"
        );
    }
    let kind = mapping("{type: \"order.cancelled\", order_id: ($type // \"none\")}");
    let cloud = r#"{"specversion":"1.0","id":"1","source":"/","type":"t-1","data":{}}"#;
    assert_eq!(
        read_record(&record(cloud), Some(&kind)),
        Reading::Command(Command::order_cancelled(id("t-1")))
    );
    assert_eq!(
        read_record(&record("{}"), Some(&kind)),
        Reading::Command(Command::order_cancelled(id("none")))
    );
}

#[test]
fn of_an_outboxs_row_a_mapping_is_given_what_the_row_is_about() {
    let about = mapping("{type: \"order.cancelled\", order_id: ($aggregateid // \"none\")}");
    let cancelled = |value: &str| read_record(&record(value), Some(&about));
    let row = |aggregate: &str| {
        format!(
            r#"{{"id":"5","aggregatetype":"order","aggregateid":{aggregate},"type":"t","payload":"{{}}"}}"#
        )
    };
    for (aggregate, order_id) in [("\"o-1\"", "o-1"), ("9007199254740993", "9007199254740993"), ("-7", "-7")]
    {
        let row = row(aggregate);
        for value in [row.clone(), format!(r#"{{"before":null,"after":{row},"op":"c"}}"#)] {
            let command = Command::order_cancelled(id(order_id));
            assert_eq!(cancelled(&value), Reading::Command(command), "{value}");
        }
    }
    assert_eq!(cancelled("{}"), Reading::Command(Command::order_cancelled(id("none"))));
    // Empty, which is no id, and not missing: the record's key is the row's own then, and no order's.
    for aggregate in ["null", "1.5", "true", "\"o-1\",\"aggregateid\":\"o-2\""] {
        let Reading::Faulty(fault) = cancelled(&row(aggregate)) else { panic!("no fault") };
        assert_eq!(fault.code, FaultCode::InvalidId, "{aggregate}");
    }
}

#[test]
fn a_field_that_comes_more_than_once_is_named_and_nothing_is_read_on_a_guess() {
    let shop = mapping(SHOP);
    let twice = r#"{"kind":"order","no":1,"what":"MUG","n":1,"\u006eo":2}"#;
    let as_text = serde_json::to_string(twice).unwrap();
    for value in [twice.to_owned(), as_text, format!(r#"{{"schema":null,"payload":{twice}}}"#)] {
        let Reading::Faulty(fault) = read_record(&record(&*value), Some(&shop)) else { panic!("no fault") };
        assert_eq!(fault.to_string(), "duplicate_field: \"no\" comes more than once", "{value}");
    }
}

#[test]
fn a_tombstone_and_a_deleted_row_ask_for_nothing_where_there_is_a_mapping() {
    let shop = mapping(SHOP);
    let tombstone = Record { value: None, ..record("") };
    let deleted = record(r#"{"before":{},"after":null,"op":"d"}"#);
    for record in [&tombstone, &deleted] {
        assert_eq!(read_record(record, Some(&shop)), Reading::Ignored);
        let Reading::Faulty(fault) = read_record(record, None) else { panic!("no fault") };
        assert_eq!(fault.code, FaultCode::EmptyValue);
    }
    let Reading::Faulty(fault) = read_record(&record(""), Some(&shop)) else { panic!("no fault") };
    assert_eq!(fault.code, FaultCode::EmptyValue);
    let Reading::Faulty(fault) = read_record(&record(b"\x1f\x8bxx\xff".to_vec()), Some(&shop)) else {
        panic!("no fault")
    };
    assert!(fault.detail.contains("gzip"), "{fault}");
}

#[test]
fn what_this_program_wrote_to_the_topic_itself_is_not_mapped() {
    let nothing = mapping("empty");
    let due = Record { value: hold_due(&id("o-1")).value, ..record("") };
    assert_eq!(read_record(&due, Some(&nothing)), Reading::Command(Command::hold_expired(id("o-1"))));
    let payload = br#"{"type":"order.created","order_id":"o-2","lines":[{"sku":"MUG","quantity":1}]}"#;
    let by_gate = submitted(&id("o-2"), payload, TraceContext::NONE);
    let headers = by_gate.headers.iter().map(|header| Header {
        name: header.name.to_string(),
        value: header.value.as_deref().map(<[u8]>::to_vec),
    });
    let by_gate = Record { headers: headers.collect(), ..record(by_gate.value.unwrap()) };
    assert_eq!(read_record(&by_gate, Some(&nothing)), Reading::Command(order("o-2", &[("MUG", 1)])));
    assert_eq!(read_record(&record(payload.to_vec()), Some(&nothing)), Reading::Ignored);
}

#[test]
fn without_a_mapping_all_is_read_as_before() {
    let value = r#"{"type":"order.created","order_id":"o","lines":[{"sku":"MUG","quantity":"2"}]}"#;
    assert_eq!(read_record(&record(value), None), Reading::from(read_command(&record(value))));
    let decided = decision(true, "{}");
    let as_decided = Reading::from(read_as_decided(&record(value), &decided));
    assert_eq!(read_mapped_as_decided(&record(value), &decided, None), as_decided);
}
