//! Commands read well and badly.

use super::*;
use crate::event::schema::{
    HoldDue, HoldExtended, LimitsSet, OrderCancelled, OrderConfirmed, OrderCreated, OrderReleased,
    OrderReturned, StockAdjusted, StockReceived, StockSet,
};
use crate::ledger::{HoldSeconds, Limits, MAX_HOLD_SECONDS, MAX_LINES, Policy};

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// What is read from a value that must be good.
fn good(value: &str) -> Command {
    read_command(&record(value)).unwrap()
}

fn hold(seconds: i64) -> HoldSeconds {
    HoldSeconds::new(seconds).unwrap()
}

/// Each value, and what is read from it.
fn assert_reads<const N: usize>(cases: [(&str, &str); N]) {
    for (value, expected) in cases {
        assert_eq!(read(value), expected, "{value}");
    }
}

#[test]
fn the_contracts_order_is_read() {
    let value = r#"{"type":"order.created","order_id":"o-1001","lines":[{"sku":"TSHIRT-M","quantity":2},{"sku":"MUG","quantity":1}]}"#;
    assert_eq!(read_command(&record(value)), Ok(order("o-1001", &[("MUG", 1), ("TSHIRT-M", 2)])));
    assert_eq!(value, serde_json::to_string(&OrderCreated::example()).unwrap());
}

#[test]
fn the_contracts_examples_are_read_as_what_they_say() {
    let hold_terms = Terms { policy: Policy::Partial, hold: Some(hold(900)) };
    for (value, command) in [
        (json(&OrderCreated::example()), order("o-1001", &[("TSHIRT-M", 2), ("MUG", 1)])),
        (
            json(&OrderCreated::hold_example()),
            Command::order_created(
                id("o-1004"),
                lines(&[("MUG@berlin", 6), ("TSHIRT-M@berlin", 1)]),
                hold_terms,
            ),
        ),
        (json(&OrderCancelled::example()), Command::order_cancelled(id("o-1001"))),
        (
            json(&OrderReturned::example()),
            Command::order_returned(id("r-12"), id("o-1001"), lines(&[("TSHIRT-M", 1)])),
        ),
        (json(&OrderConfirmed::example()), Command::order_confirmed(id("o-1004"), id("o-1004"), None)),
        (
            json(&OrderConfirmed::lines_example()),
            Command::order_confirmed(id("c-7"), id("o-1004"), Some(lines(&[("MUG@berlin", 3)]))),
        ),
        (json(&OrderReleased::example()), Command::order_released(id("o-1004"))),
        (json(&HoldExtended::example()), Command::hold_extended(id("e-2"), id("o-1004"), hold(600))),
        (json(&HoldDue::example()), Command::hold_expired(id("o-1004"))),
        (
            json(&StockReceived::example()),
            Command::stock_received(id("a-3"), item("MUG"), Quantity::new(500).unwrap()),
        ),
        (
            json(&StockReceived::location_example()),
            Command::stock_received(id("a-6"), item("MUG@berlin"), Quantity::new(5).unwrap()),
        ),
        (json(&StockAdjusted::example()), Command::stock_adjusted(id("a-5"), item("MUG"), -2)),
        (json(&StockSet::example()), Command::stock_set(id("a-4"), item("MUG"), 120, Some(17))),
        (
            json(&LimitsSet::example()),
            Command::limits_set(id("a-7"), item("MUG"), Limits { backorder: 50, order: Some(10) }),
        ),
    ] {
        assert_eq!(good(&value), command, "{value}");
    }
}

#[test]
fn the_published_shapes_read_what_the_reader_reads() {
    fn back<'a, T: serde::Deserialize<'a> + serde::Serialize>(value: &'a str) {
        assert_eq!(json(&serde_json::from_str::<T>(value).unwrap()), value);
    }
    back::<OrderCreated<'_>>(&json(&OrderCreated::hold_example()));
    back::<OrderCancelled>(&json(&OrderCancelled::example()));
    back::<OrderReturned<'_>>(&json(&OrderReturned::example()));
    back::<OrderConfirmed<'_>>(&json(&OrderConfirmed::example()));
    back::<OrderConfirmed<'_>>(&json(&OrderConfirmed::lines_example()));
    back::<OrderReleased>(&json(&OrderReleased::example()));
    back::<HoldExtended>(&json(&HoldExtended::example()));
    back::<HoldDue>(&json(&HoldDue::example()));
    back::<LimitsSet>(&json(&LimitsSet::example()));
}

#[test]
fn every_type_comes_by_each_kind_of_envelope() {
    for kind in types::COMMAND_TYPES {
        let payload = r#"{"order_id":"o","return_id":"r","extension_id":"e","adjustment_id":"a"}"#;
        let typed = payload.replacen('{', &format!(r#"{{"type":"{kind}","#), 1);
        let plain = read_command(&record(typed)).unwrap();
        let mut binary = record(payload);
        binary.headers.push(header("ce_type", kind.as_bytes()));
        assert_eq!(read_command(&binary).unwrap().key, plain.key, "{kind}");
        let mut structured = record(format!(r#"{{"type":"{kind}","data":{payload}}}"#));
        structured.headers.push(header("content-type", b"application/cloudevents+json"));
        assert_eq!(read_command(&structured).unwrap().key, plain.key, "{kind}");
    }
}

#[test]
fn a_type_written_as_an_object_is_none() {
    let value = r#"{"type":{"order.created":null},"order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#;
    assert_eq!(read(value), r#"unknown_type: "type" must be a string, is an object"#);
}

#[test]
fn an_unknown_types_fault_names_every_known_one() {
    let long = "x".repeat(1_000);
    let fault = read(&format!(r#"{{"type":"{long}","order_id":"o"}}"#));
    for known in types::COMMAND_TYPES {
        assert!(fault.contains(&format!("\"{known}\"")), "{known} is not in {fault}");
    }
}

#[test]
fn the_quick_reader_takes_terms_and_locations() {
    let value = r#"{"type":"order.created","order_id":"o","policy":"all_or_none","hold_seconds":2678400,
        "lines":[{"sku":"MUG","location":"b\u00e4r","quantity":1},{"sku":"MUG","location":null,"quantity":2}]}"#;
    let terms = Terms { policy: Policy::AllOrNone, hold: Some(hold(MAX_HOLD_SECONDS)) };
    let expected = Command::order_created(id("o"), lines(&[("MUG@bär", 1), ("MUG", 2)]), terms);
    assert_eq!(order_created::read(value, false).as_ref(), Some(&expected));
    assert_eq!(order_created::read_fields(value, &Reader::strict()), Ok(expected));
}

#[test]
fn terms_that_are_null_are_left_out() {
    let value = r#"{"type":"order.created","order_id":"o","policy":null,"hold_seconds":null,"lines":[{"sku":"MUG","quantity":1}]}"#;
    assert_eq!(order_created::read(value, false), Some(order("o", &[("MUG", 1)])));
    assert_eq!(order_created::read_fields(value, &Reader::strict()), Ok(order("o", &[("MUG", 1)])));
}

#[test]
fn an_order_is_refused_for_every_term_that_is_wrong() {
    let lines = r#""lines":[{"sku":"MUG","quantity":1}]"#;
    for (terms, wrong) in [
        (r#""hold_seconds":0"#, "hold_seconds must be between 1 and 2678400, is 0"),
        (r#""hold_seconds":2678401"#, "hold_seconds must be between 1 and 2678400, is 2678401"),
        (r#""hold_seconds":1e-3"#, "hold_seconds must be a whole number, is 1e-3"),
        (r#""hold_seconds":1e7"#, "hold_seconds must be between 1 and 2678400, is 1e7"),
        (r#""hold_seconds":"900s""#, "hold_seconds must be a whole number, is a string"),
        (r#""hold_seconds":1,"hold_seconds":1"#, "hold_seconds comes more than once"),
        (r#""policy":"some""#, r#"policy must be "all_or_none" or "partial", is "some""#),
        (r#""policy":"Partial""#, r#"policy must be "all_or_none" or "partial", is "Partial""#),
        (r#""policy":true"#, "policy must be a string, is a boolean"),
        (r#""policy":{"partial":null}"#, "policy must be a string, is an object"),
        (r#""policy":"\ud800""#, "policy is not text: it escapes half of a surrogate pair"),
        (r#""policy":null,"policy":"partial""#, "policy comes more than once"),
    ] {
        let value = format!(r#"{{"type":"order.created","order_id":"o",{terms},{lines}}}"#);
        assert_eq!(read(&value), format!("order.created/o refused: {wrong}"), "{value}");
    }
    assert_eq!(
        read(r#"{"type":"order.created","order_id":"o","lines":[],"policy":1,"hold_seconds":-1}"#),
        "order.created/o refused: policy must be a string, is a number | hold_seconds must be between 1 and 2678400, \
         is -1 | lines must not be empty"
    );
}

#[test]
fn a_line_is_refused_for_a_location_that_is_wrong() {
    let long = "x".repeat(129);
    for (location, wrong) in [
        (r#""""#, "location must not be empty"),
        (r#""a\u0000b""#, "location must not contain control characters"),
        ("7", "location must be a string, is a number"),
        (r#""a","location":"a""#, "location comes more than once"),
        (&format!(r#""{long}""#), "location is 129 bytes long, at most 128 are allowed"),
    ] {
        let line = format!(r#"{{"sku":"MUG","location":{location},"quantity":1}}"#);
        let value = format!(
            r#"{{"type":"order.created","order_id":"o","lines":[{{"sku":"A","quantity":1}},{line}]}}"#
        );
        assert_eq!(read(&value), format!("order.created/o refused: line 2: {wrong}"), "{value}");
        let value = format!(r#"{{"type":"stock.received","adjustment_id":"a","quantity":1,{}"#, &line[1..]);
        let value = value.replace(r#","quantity":1}"#, "}");
        assert_eq!(read(&value), format!("adjustment/a refused: {wrong}"), "{value}");
    }
    assert_eq!(
        read(r#"{"type":"order.created","order_id":"o","lines":[{"location":"","quantity":0}]}"#),
        "order.created/o refused: line 1: sku is missing; location must not be empty; quantity must be between 1 and \
         1000000000000, is 0"
    );
}

#[test]
fn commands_of_an_order_alone_have_no_content_to_be_wrong() {
    for (kind, name) in [
        ("order.cancelled", "order.cancelled"),
        ("order.released", "order.released"),
        ("order.hold_due", "hold.expired"),
    ] {
        let with = |rest: &str| read(&format!(r#"{{"type":"{kind}"{rest}}}"#));
        let well = with(r#","order_id":"o","lines":7,"reason":{"any":["thing"]}"#);
        assert!(well.starts_with(&format!("{name}/o ")) && !well.contains("refused"), "{well}");
        for (rest, fault) in [
            ("", r#"missing_id: "order_id" is missing"#),
            (r#","order_id":null"#, r#"missing_id: "order_id" is missing"#),
            (r#","order_id":"""#, "invalid_id: order_id must not be empty"),
            (r#","order_id":true"#, "invalid_id: order_id must be a string, is a boolean"),
            (
                r#","order_id":7.0"#,
                "invalid_id: order_id must be a string or a whole number written as its digits, is 7.0",
            ),
            (r#","order_id":"o","order_id":"o""#, r#"duplicate_field: "order_id" comes more than once"#),
        ] {
            assert_eq!(with(rest), fault, "{kind}{rest}");
        }
    }
}

#[test]
fn returns_are_read_or_refused_for_all_that_is_wrong_with_them() {
    assert_reads([
        (
            r#"{"type":"order.returned","return_id":"r","order_id":"o","lines":[{"sku":"MUG","quantity":1},{"sku":"MUG","quantity":2}]}"#,
            r#"order.returned/r Return { order_id: "o", lines: [OrderLine { item: Item { sku: "MUG", location: None }, quantity: 3 }] }"#,
        ),
        (
            r#"{"type":"order.returned","order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#,
            r#"missing_id: "return_id" is missing"#,
        ),
        (
            r#"{"type":"order.returned","return_id":{},"order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#,
            "invalid_id: return_id must be a string, is an object",
        ),
        (
            r#"{"type":"order.returned","return_id":"r","return_id":"r","order_id":"o","lines":[]}"#,
            r#"duplicate_field: "return_id" comes more than once"#,
        ),
        (
            r#"{"type":"order.returned","return_id":"r"}"#,
            r#"order.returned/r refused: order_id is missing | "lines" is missing"#,
        ),
        (
            r#"{"type":"order.returned","return_id":"r","order_id":"","lines":{}}"#,
            "order.returned/r refused: order_id must not be empty | lines must be an array, is an object",
        ),
        (
            r#"{"type":"order.returned","return_id":"r","order_id":["o"],"lines":[]}"#,
            "order.returned/r refused: order_id must be a string, is an array | lines must not be empty",
        ),
        (
            r#"{"type":"order.returned","return_id":"r","order_id":"o","order_id":"o","lines":[],"lines":[]}"#,
            r#"order.returned/r refused: order_id comes more than once | "lines" comes more than once"#,
        ),
        (
            r#"{"type":"order.returned","return_id":"r","order_id":"o","lines":[7,{"sku":"MUG","quantity":1},{"sku":"MUG","quantity":0}]}"#,
            "order.returned/r refused: line 1: must be an object with sku and quantity, is a number | line 3: quantity must \
             be between 1 and 1000000000000, is 0",
        ),
    ]);
    let many = vec![r#"{"sku":"MUG","quantity":1}"#; MAX_LINES + 1].join(",");
    assert_eq!(
        read(&format!(r#"{{"type":"order.returned","return_id":"r","order_id":"o","lines":[{many}]}}"#)),
        "order.returned/r refused: has 1001 lines, at most 1000 are allowed"
    );
}

#[test]
fn confirmations_are_read_or_refused_for_all_that_is_wrong_with_them() {
    assert_reads([
        (
            r#"{"type":"order.confirmed","order_id":"o"}"#,
            r#"order.confirmed/o Confirm { order_id: "o", lines: None }"#,
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","confirmation_id":null,"lines":null}"#,
            r#"order.confirmed/o Confirm { order_id: "o", lines: None }"#,
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","confirmation_id":"c","lines":[{"sku":"MUG","location":"berlin","quantity":1}]}"#,
            r#"order.confirmed/c Confirm { order_id: "o", lines: Some([OrderLine { item: Item { sku: "MUG", location: Some("berlin") }, quantity: 1 }]) }"#,
        ),
        (r#"{"type":"order.confirmed"}"#, r#"missing_id: "order_id" is missing"#),
        (
            r#"{"type":"order.confirmed","order_id":"o","order_id":"o"}"#,
            r#"duplicate_field: "order_id" comes more than once"#,
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","confirmation_id":""}"#,
            "invalid_id: confirmation_id must not be empty",
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","confirmation_id":null,"confirmation_id":null}"#,
            r#"duplicate_field: "confirmation_id" comes more than once"#,
        ),
        (
            r#"{"type":"order.confirmed","confirmation_id":"c"}"#,
            "order.confirmed/c refused: order_id is missing",
        ),
        (
            r#"{"type":"order.confirmed","confirmation_id":"c","order_id":7.5,"lines":[]}"#,
            "order.confirmed/c refused: order_id must be a string or a whole number written as its digits, is 7.5 | lines \
             must not be empty",
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","lines":"all"}"#,
            "order.confirmed/o refused: lines must be an array, is a string",
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","lines":null,"lines":null}"#,
            r#"order.confirmed/o refused: "lines" comes more than once"#,
        ),
        (
            r#"{"type":"order.confirmed","order_id":"o","lines":[{"sku":"MUG"}]}"#,
            "order.confirmed/o refused: line 1: quantity is missing",
        ),
    ]);
}

#[test]
fn extensions_are_read_or_refused_for_all_that_is_wrong_with_them() {
    assert_reads([
        (
            r#"{"type":"order.hold_extended","extension_id":"e","order_id":"o","hold_seconds":2678400}"#,
            r#"order.hold_extended/e Extend { order_id: "o", by: HoldSeconds(2678400) }"#,
        ),
        (
            r#"{"type":"order.hold_extended","order_id":"o","hold_seconds":1}"#,
            r#"missing_id: "extension_id" is missing"#,
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":{},"order_id":"o","hold_seconds":1}"#,
            "invalid_id: extension_id must be a string, is an object",
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e","extension_id":"f","order_id":"o","hold_seconds":1}"#,
            r#"duplicate_field: "extension_id" comes more than once"#,
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e"}"#,
            "order.hold_extended/e refused: order_id is missing | hold_seconds is missing",
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e","order_id":"o","hold_seconds":0}"#,
            "order.hold_extended/e refused: hold_seconds must be between 1 and 2678400, is 0",
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e","order_id":"o","hold_seconds":99999999999999999999}"#,
            "order.hold_extended/e refused: hold_seconds must be between 1 and 2678400, is 99999999999999999999",
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e","order_id":"o","hold_seconds":[1]}"#,
            "order.hold_extended/e refused: hold_seconds must be a whole number, is an array",
        ),
        (
            r#"{"type":"order.hold_extended","extension_id":"e","order_id":"o","order_id":"o","hold_seconds":1,"hold_seconds":1}"#,
            "order.hold_extended/e refused: order_id comes more than once | hold_seconds comes more than once",
        ),
    ]);
}

#[test]
fn adjustments_are_read_or_refused_for_all_that_is_wrong_with_them() {
    assert_reads([
        (
            r#"{"type":"stock.received","adjustment_id":"a-3","sku":"MUG","quantity":500}"#,
            r#"adjustment/a-3 Receive { item: Item { sku: "MUG", location: None }, quantity: Quantity(500) }"#,
        ),
        (
            r#"{"type":"stock.adjusted","adjustment_id":"a-5","sku":"MUG","quantity":-2}"#,
            r#"adjustment/a-5 Adjust { item: Item { sku: "MUG", location: None }, by: -2 }"#,
        ),
        (
            r#"{"type":"stock.set","adjustment_id":"a-4","sku":"MUG","available":120,"expected_version":17}"#,
            r#"adjustment/a-4 Set { item: Item { sku: "MUG", location: None }, available: 120, expected_version: Some(17) }"#,
        ),
        (
            r#"{"type":"stock.set","adjustment_id":"a-4","sku":"MUG","available":0,"expected_version":null}"#,
            r#"adjustment/a-4 Set { item: Item { sku: "MUG", location: None }, available: 0, expected_version: None }"#,
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
            "adjustment/a refused: sku must be a string, is a number | available must be a whole number, is 1.5 | \
             expected_version must be between 0 and 9223372036854775807, is -1",
        ),
        (r#"{"type":"stock.set","sku":"MUG","available":1}"#, r#"missing_id: "adjustment_id" is missing"#),
        (
            r#"{"type":"stock.set","adjustment_id":"a","sku":"MUG","location":"berlin","available":1}"#,
            r#"adjustment/a Set { item: Item { sku: "MUG", location: Some("berlin") }, available: 1, expected_version: None }"#,
        ),
        (
            r#"{"type":"stock.adjusted","adjustment_id":"a","sku":"","location":[],"quantity":null}"#,
            "adjustment/a refused: sku must not be empty; location must be a string, is an array | quantity is missing",
        ),
        (
            r#"{"type":"stock.moved","adjustment_id":"a"}"#,
            "unknown_type: the type \"stock.moved\" is unknown; known are \"order.created\", \"order.cancelled\", \
             \"order.returned\", \"order.confirmed\", \"order.released\", \"order.hold_extended\", \"order.hold_due\", \
             \"stock.received\", \"stock.adjusted\", \"stock.set\", \"stock.limits_set\"",
        ),
    ]);
}

#[test]
fn limits_are_read_or_refused_for_all_that_is_wrong_with_them() {
    assert_reads([
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","sku":"MUG","location":"berlin","backorder_limit":1000000000000,"order_limit":1}"#,
            r#"adjustment/a Limit { item: Item { sku: "MUG", location: Some("berlin") }, limits: Limits { backorder: 1000000000000, order: Some(1) } }"#,
        ),
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","sku":"MUG"}"#,
            r#"adjustment/a Limit { item: Item { sku: "MUG", location: None }, limits: Limits { backorder: 0, order: None } }"#,
        ),
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","sku":"MUG","backorder_limit":0,"order_limit":null}"#,
            r#"adjustment/a Limit { item: Item { sku: "MUG", location: None }, limits: Limits { backorder: 0, order: None } }"#,
        ),
        (
            r#"{"type":"stock.limits_set","sku":"MUG","order_limit":1}"#,
            r#"missing_id: "adjustment_id" is missing"#,
        ),
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","backorder_limit":-1,"order_limit":0}"#,
            "adjustment/a refused: sku is missing | backorder_limit must be between 0 and 1000000000000, is -1 | \
             order_limit must be between 1 and 1000000000000, is 0",
        ),
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","sku":"MUG","backorder_limit":1000000000001,"order_limit":"ten"}"#,
            "adjustment/a refused: backorder_limit must be between 0 and 1000000000000, is 1000000000001 | order_limit \
             must be a whole number, is a string",
        ),
        (
            r#"{"type":"stock.limits_set","adjustment_id":"a","sku":"MUG","sku":"MUG","order_limit":1,"order_limit":1}"#,
            "adjustment/a refused: sku comes more than once | order_limit comes more than once",
        ),
    ]);
}

#[test]
fn wrong_content_is_the_same_command_only_when_its_bytes_are_the_same() {
    let bad = |quantity: &str| {
        good(&format!(
            r#"{{"type":"order.returned","return_id":"r","order_id":"o","lines":[{{"quantity":{quantity}}}]}}"#
        ))
    };
    assert_eq!(bad("0"), bad("0"));
    assert_ne!(bad("0").digest, bad("-1").digest);
    assert_eq!(bad("0").key, CommandKey { id: id("r"), kind: CommandKind::OrderReturned });
    assert_eq!(bad("0").follows(), None);
}
