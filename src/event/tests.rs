use proptest::prelude::*;

use super::wire::{
    AdjustmentAccepted, AdjustmentRejected, OrderAccepted, OrderCreated, OrderRejected, RecordSource,
    StockAdjusted, StockReceived, StockSet,
};
use super::*;
use crate::ledger::{
    Action, CommandKey, CommandKind, Decision, Digest, Id, Offset, Quantity, Reason, Seq, Sku, Stamp,
    TopicPartition,
};

fn record(value: impl Into<Vec<u8>>) -> Record {
    Record {
        source: Source { at: TopicPartition::new("orders", 3), offset: Offset(8841) },
        key: Some(b"k-1".to_vec()),
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn header(name: &str, value: &[u8]) -> Header {
    Header { name: name.to_owned(), value: Some(value.to_vec()) }
}

fn order(id: &str, lines: &[(&str, i64)]) -> Command {
    let lines = lines
        .iter()
        .map(|(sku, quantity)| (Sku::new(sku).unwrap(), Quantity::new(*quantity).unwrap()))
        .collect();
    Command::order_created(Id::new(id).unwrap(), lines)
}

fn decision(accepted: bool, detail: &str) -> Decision {
    Decision {
        key: CommandKey { id: Id::new("o-1001").unwrap(), kind: CommandKind::OrderCreated },
        seq: Seq(7),
        digest: Digest([0; 16]),
        accepted,
        detail: detail.to_owned(),
        source: Some(Source { at: TopicPartition::new("orders", 3), offset: Offset(8841) }),
        decided_at: Stamp(1_767_323_045_678_901),
    }
}

fn shown(outgoing: &Outgoing) -> String {
    use std::fmt::Write as _;
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or("(none)".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let mut shown = format!("{:?}\nkey: {}\n", outgoing.channel, text(outgoing.key.as_deref()));
    for header in &outgoing.headers {
        writeln!(shown, "{}: {}", header.name, text(header.value.as_deref())).unwrap();
    }
    shown + &text(outgoing.value.as_deref())
}

#[test]
fn the_contracts_order_is_read() {
    let value = r#"{"type":"order.created","order_id":"o-1001","lines":[{"sku":"TSHIRT-M","quantity":2},{"sku":"MUG","quantity":1}]}"#;
    assert_eq!(read_command(&record(value)), Ok(order("o-1001", &[("MUG", 1), ("TSHIRT-M", 2)])));
    assert_eq!(value, serde_json::to_string(&OrderCreated::example()).unwrap());
}

#[test]
fn an_accepted_order_is_told_in_exactly_these_bytes() {
    let detail = r#"[{"sku":"MUG","quantity":1,"balance":119},{"sku":"TSHIRT-M","quantity":2,"balance":55}]"#;
    let told = result(&decision(true, detail), Some(b"k-1"), Some(b"00-4bf9-00f0-01"));
    assert_eq!(
        shown(&told),
        r#"Accepted
key: k-1
ce_specversion: 1.0
ce_id: order.created/o-1001
ce_source: stock-verifier
ce_type: order.accepted
ce_time: 2026-01-02T03:04:05.678901Z
content-type: application/json
traceparent: 00-4bf9-00f0-01
{"type":"order.accepted","order_id":"o-1001","lines":[{"sku":"MUG","quantity":1,"balance":119},{"sku":"TSHIRT-M","quantity":2,"balance":55}],"source":{"topic":"orders","partition":3,"offset":8841}}"#
    );
}

#[test]
fn a_rejected_order_is_told_in_exactly_these_bytes() {
    let detail = r#"[{"reason":"insufficient_stock","sku":"MUG","requested":500,"available":119},{"reason":"unknown_sku","sku":"MUGG","requested":1}]"#;
    let told = result(&decision(false, detail), None, None);
    assert_eq!(
        shown(&told),
        r#"Rejected
key: o-1001
ce_specversion: 1.0
ce_id: order.created/o-1001
ce_source: stock-verifier
ce_type: order.rejected
ce_time: 2026-01-02T03:04:05.678901Z
content-type: application/json
{"type":"order.rejected","order_id":"o-1001","reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":500,"available":119},{"reason":"unknown_sku","sku":"MUGG","requested":1}],"source":{"topic":"orders","partition":3,"offset":8841}}"#
    );
}

#[test]
fn a_dead_letter_keeps_its_record_and_says_where_and_why() {
    let mut bad = record("{");
    bad.headers = vec![header("app", b"shop"), Header { name: "empty".to_owned(), value: None }];
    let fault = read_command(&bad).unwrap_err();
    assert_eq!(
        shown(&dead_letter(bad, &fault, "read")),
        "DeadLetter
key: k-1
app: shop
empty: (none)
__connect.errors.topic: orders
__connect.errors.partition: 3
__connect.errors.offset: 8841
__connect.errors.stage: read
__connect.errors.exception.class.name: not_json
__connect.errors.exception.message: the value is not JSON: EOF while parsing an object at line 1 column 1
{"
    );
}

#[test]
fn an_orders_result_names_no_source_when_it_came_from_no_record() {
    let operators = Decision { source: None, ..decision(true, "[]") };
    let value = result(&operators, None, None).value.unwrap();
    assert_eq!(value, br#"{"type":"order.accepted","order_id":"o-1001","lines":[]}"#);
}

#[test]
fn a_decisions_time_cannot_sink_its_result() {
    for (micros, shown) in [
        (i64::MIN, "1970-01-01T00:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (i64::MAX, "9999-12-31T23:59:59.999999Z"),
    ] {
        let odd = Decision { decided_at: Stamp(micros), ..decision(true, "[]") };
        let told = result(&odd, None, None);
        let time = told.headers.iter().find(|header| header.name == "ce_time").unwrap();
        assert_eq!(time.value.as_deref(), Some(shown.as_bytes()));
    }
}

#[test]
fn a_dead_letter_sent_again_tells_of_its_newest_failure_only() {
    let mut again = record("{");
    again.headers = vec![
        header("__connect.errors.topic", b"older"),
        header("__connect.errors.task.id", b"0"),
        header("__connect.errors.exception.message", b"older"),
    ];
    let fault = read_command(&again).unwrap_err();
    let letter = dead_letter(again, &fault, "read");
    let of = |name: &str| letter.headers.iter().filter(|header| header.name == name).collect::<Vec<_>>();
    assert_eq!(of("__connect.errors.topic").len(), 1);
    assert_eq!(of("__connect.errors.topic")[0].value.as_deref(), Some(&b"orders"[..]));
    assert_eq!(of("__connect.errors.exception.message").len(), 1);
    assert_eq!(of("__connect.errors.task.id").len(), 1);
}

#[test]
fn a_trace_context_is_passed_on_unless_it_is_none() {
    let mut traced = record("{}");
    assert_eq!(traced.traceparent(), None);
    traced.headers.push(header("ce_traceparent", b"extension"));
    assert_eq!(traced.traceparent(), Some(&b"extension"[..]));
    traced.headers.push(header("traceparent", b"00-1-2-01"));
    assert_eq!(traced.traceparent(), Some(&b"00-1-2-01"[..]));
    traced.headers.push(header("traceparent", &vec![b'x'; 1_000_000]));
    assert_eq!(traced.traceparent(), None);
}

/// What is read from a value on the adjustments topic, in short.
fn adjustment(value: &str) -> String {
    match read_command(&record(value)) {
        Ok(Command { key, action, .. }) => match action {
            Action::Refuse(reasons) => {
                let details = reasons.into_iter().map(|reason| match reason {
                    Reason::InvalidOrder { line: None, detail } => detail,
                    other => panic!("{other:?}"),
                });
                format!("{key} refused: {}", details.collect::<Vec<_>>().join(" | "))
            }
            action => format!("{key} {action:?}"),
        },
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn adjustments_are_read_or_refused_for_all_that_is_wrong_with_them() {
    for (value, read) in [
        (
            r#"{"type":"stock.received","adjustment_id":"a-3","sku":"MUG","quantity":500}"#,
            r#"adjustment/a-3 Receive { sku: "MUG", quantity: Quantity(500) }"#,
        ),
        (
            r#"{"type":"stock.adjusted","adjustment_id":"a-5","sku":"MUG","quantity":-2}"#,
            r#"adjustment/a-5 Adjust { sku: "MUG", by: -2 }"#,
        ),
        (
            r#"{"type":"stock.set","adjustment_id":"a-4","sku":"MUG","available":120,"expected_version":17}"#,
            r#"adjustment/a-4 Set { sku: "MUG", available: 120, expected_version: Some(17) }"#,
        ),
        (
            r#"{"type":"stock.set","adjustment_id":"a-4","sku":"MUG","available":0,"expected_version":null}"#,
            r#"adjustment/a-4 Set { sku: "MUG", available: 0, expected_version: None }"#,
        ),
        (
            r#"{"type":"stock.received","adjustment_id":"a","quantity":0}"#,
            "adjustment/a refused: sku is missing | quantity must be between 1 and 1000000000000, is 0",
        ),
        (
            r#"{"type":"stock.adjusted","adjustment_id":"a","sku":"MUG","quantity":0}"#,
            "adjustment/a refused: quantity must not be 0",
        ),
        (
            r#"{"type":"stock.adjusted","adjustment_id":"a","sku":"MUG","quantity":-1000000000001}"#,
            "adjustment/a refused: quantity must be between -1000000000000 and 1000000000000, is -1000000000001",
        ),
        (
            r#"{"type":"stock.set","adjustment_id":"a","sku":7,"available":1.5,"expected_version":-1}"#,
            "adjustment/a refused: sku must be a string, is a number | available must be a whole number written \
             without fraction or exponent, is 1.5; expected_version must be between 0 and 9223372036854775807, is -1",
        ),
        (r#"{"type":"stock.set","sku":"MUG","available":1}"#, r#"missing_id: "adjustment_id" is missing"#),
        (
            r#"{"type":"stock.moved","adjustment_id":"a"}"#,
            r#"unknown_type: the type "stock.moved" is unknown; known are "order.created", "stock.received", "stock.adjusted", "stock.set""#,
        ),
    ] {
        assert_eq!(adjustment(value), read, "{value}");
    }
}

#[test]
fn the_contracts_adjustments_are_read_and_their_results_read_back_as_they_were_written() {
    let read = |value: String| read_command(&record(value)).unwrap();
    let received = read(serde_json::to_string(&StockReceived::example()).unwrap());
    assert!(matches!(received.action, Action::Receive { .. }));
    assert!(matches!(
        read(serde_json::to_string(&StockAdjusted::example()).unwrap()).action,
        Action::Adjust { .. }
    ));
    assert!(matches!(read(serde_json::to_string(&StockSet::example()).unwrap()).action, Action::Set { .. }));

    let written = |accepted, id: &Id, detail: String, source: &Option<RecordSource>| {
        let mut told = decision(accepted, &detail);
        told.key = CommandKey { id: id.clone(), kind: CommandKind::Adjustment };
        let source = source.as_ref().unwrap();
        told.source =
            Some(Source { at: TopicPartition::new(&*source.topic, source.partition), offset: source.offset });
        result(&told, None, None)
    };
    let accepted = AdjustmentAccepted::example();
    let detail = serde_json::to_string(&accepted.lines).unwrap();
    let told = written(true, &accepted.adjustment_id, detail, &accepted.source);
    assert_eq!(
        (told.channel, told.value.unwrap()),
        (Channel::Accepted, serde_json::to_vec(&accepted).unwrap())
    );
    let rejected = AdjustmentRejected::example();
    let detail = serde_json::to_string(&rejected.reasons).unwrap();
    let told = written(false, &rejected.adjustment_id, detail, &rejected.source);
    assert_eq!(
        (told.channel, told.value.unwrap()),
        (Channel::Rejected, serde_json::to_vec(&rejected).unwrap())
    );
}

#[test]
fn the_contracts_results_are_read_back_as_they_were_written() {
    let accepted = OrderAccepted::example();
    let told = decision(true, &serde_json::to_string(&accepted.lines).unwrap());
    assert_eq!(result(&told, None, None).value.unwrap(), serde_json::to_vec(&accepted).unwrap());

    for rejected in [OrderRejected::example(), OrderRejected::invalid_example()] {
        let mut told = decision(false, &serde_json::to_string(&rejected.reasons).unwrap());
        told.key.id = rejected.order_id.clone();
        told.source.as_mut().unwrap().offset = rejected.source.as_ref().unwrap().offset;
        assert_eq!(result(&told, None, None).value.unwrap(), serde_json::to_vec(&rejected).unwrap());
    }
}

/// The schema of this name, ready to validate.
fn validator(name: &str) -> jsonschema::Validator {
    let document = schema::documents().into_iter().find(|document| document.name == name).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&document.text).unwrap()).unwrap()
}

fn assert_valid(validator: &jsonschema::Validator, value: &serde_json::Value) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{value}: {errors:?}");
}

fn headers_as_json(outgoing: &Outgoing) -> serde_json::Value {
    let text =
        |header: &OutgoingHeader| String::from_utf8(header.value.clone().unwrap().into_owned()).unwrap();
    outgoing.headers.iter().map(|header| (header.name.to_string(), text(header))).collect()
}

#[test]
fn every_example_in_a_schema_is_valid_by_it() {
    for document in schema::documents().iter().filter(|document| document.name != "asyncapi") {
        let schema: serde_json::Value = serde_json::from_str(&document.text).unwrap();
        let examples = schema["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{} has no example", document.name);
        for example in examples {
            assert_valid(&validator(document.name), example);
        }
    }
}

#[test]
fn what_is_told_is_valid_by_the_schemas() {
    let (accepted, rejected) = (OrderAccepted::example(), OrderRejected::example());
    for (schema, decision) in [
        ("order.accepted", decision(true, &serde_json::to_string(&accepted.lines).unwrap())),
        ("order.rejected", decision(false, &serde_json::to_string(&rejected.reasons).unwrap())),
    ] {
        for traceparent in [None, Some(&b"00-4bf9-00f0-01"[..])] {
            let told = result(&decision, None, traceparent);
            let value = serde_json::from_slice(told.value.as_deref().unwrap()).unwrap();
            assert_valid(&validator(schema), &value);
            assert_valid(&validator("result.headers"), &headers_as_json(&told));
        }
    }
    let bad = record("{");
    let fault = read_command(&bad).unwrap_err();
    assert_valid(&validator("dead-letter.headers"), &headers_as_json(&dead_letter(bad, &fault, "read")));
}

#[test]
fn the_order_schema_refuses_what_the_reader_refuses() {
    let validator = validator("order.created");
    for bad in [
        r#"{"order_id":"","lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":"a\u0000b","lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":7,"lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":"o","lines":[]}"#,
        r#"{"order_id":"o"}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":0}]}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1000000000001}]}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":"2"}]}"#,
        r#"{"order_id":"o","lines":[{"quantity":1}]}"#,
        r#"{"type":"order.cancelled","order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#,
    ] {
        assert!(!validator.is_valid(&serde_json::from_str(bad).unwrap()), "{bad}");
        let mut typed = record(bad);
        typed.headers.push(header("ce_type", b"order.created"));
        let read = read_command(&typed);
        assert!(!matches!(read, Ok(Command { action: Action::Take(_), .. })), "{bad}");
    }
}

#[test]
fn the_asyncapi_document_points_only_at_what_it_has() {
    let documents = schema::documents();
    let text = &documents.iter().find(|document| document.name == "asyncapi").unwrap().text;
    for target in text.lines().filter_map(|line| line.split_once("$ref: ").map(|(_, target)| target)) {
        let last = target.trim_matches('"').rsplit('/').next().unwrap();
        assert!(text.lines().any(|line| line.trim() == format!("{last}:")), "{target} points at nothing");
    }
}

/// An order's JSON, its content in the ledger's words.
fn good_order() -> impl Strategy<Value = (String, Command)> {
    let id = "[a-zA-Z0-9 äß\"\\\\/-]{1,20}";
    let line = ("[a-zA-Z0-9é\"-]{1,12}", 1..=crate::ledger::MAX_QUANTITY);
    (id, prop::collection::vec(line, 1..8)).prop_map(|(id, lines)| {
        let value = OrderCreated {
            kind: Some(wire::OrderCreatedType::OrderCreated),
            order_id: Cow::Borrowed(&id),
            lines: lines
                .iter()
                .map(|(sku, quantity)| wire::OrderCreatedLine {
                    sku: Cow::Borrowed(sku),
                    quantity: *quantity,
                })
                .collect(),
        };
        let lines: Vec<_> = lines.iter().map(|(sku, quantity)| (sku.as_str(), *quantity)).collect();
        (serde_json::to_string(&value).unwrap(), order(&id, &lines))
    })
}

/// Whatever came out can be told.
fn tell(record: &Record) {
    match read_command(record) {
        Err(fault) => {
            let letter = dead_letter(record.clone(), &fault, "read");
            assert_eq!((letter.key, letter.value), (record.key.clone(), record.value.clone()));
        }
        Ok(Command { key, digest, action }) => {
            if let Action::Refuse(reasons) = &action {
                assert!(!reasons.is_empty());
            }
            let told = Decision { key, digest, ..decision(false, "[]") };
            let value = result(&told, None, None).value.unwrap();
            serde_json::from_slice::<serde_json::Value>(&value).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_good_order_is_read_alike_by_the_quick_and_the_careful_reader((text, command) in good_order()) {
        prop_assert_eq!(order_created::read(&text, false), Some(command.clone()));
        prop_assert_eq!(order_created::read_faulty(&text), Ok(command.clone()));
        prop_assert_eq!(read_command(&record(text)), Ok(command));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4) {
        let mut any = record(bytes);
        match kind {
            1 => any.headers.push(header("ce_type", b"order.created")),
            2 => any.headers.push(header("content-type", b"application/cloudevents+json")),
            3 => any.headers.push(Header { name: "ce_type".to_owned(), value: None }),
            _ => {}
        }
        tell(&any);
    }

    #[test]
    fn no_damage_to_a_good_order_makes_it_panic(
        (text, _) in good_order(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..6),
        framed in any::<bool>(),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        if framed {
            bytes.splice(0..0, [0, 0, 0, 0, 1]);
        }
        tell(&record(bytes));
    }

    #[test]
    fn json_of_any_shape_does_not_make_it_panic(
        text in r#"\{("(type|order_id|lines|sku|quantity)":(null|1|-1|1.5|"order.created"|"x"|\[\]|\[\{"sku":"x","quantity":1\},\{"sku":2\}\]|\{\}),){0,5}"type":"order.created"\}"#,
    ) {
        tell(&record(text));
    }
}
