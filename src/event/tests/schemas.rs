//! The published schemas: what is read and what is published keeps to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::event::schema::{OrderAccepted, OrderRejected};
use crate::ledger::{
    Changes, Level, OrderTaken, Outcome, Rejected, Request, Sequenced, Sequences, View, decide,
};

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
fn every_type_has_its_schema_and_every_result_its_place_in_the_headers() {
    let names: BTreeSet<_> = schema::documents().iter().map(|document| document.name).collect();
    for kind in types::COMMAND_TYPES.into_iter().chain(types::RESULT_TYPES).chain([types::STOCK_LEVEL]) {
        assert!(names.contains(kind), "{kind} has no schema");
    }
    let files: BTreeSet<_> = schema::documents().iter().map(|document| document.file).collect();
    assert_eq!(files.len(), schema::documents().len());
    for document in schema::documents().iter().filter(|document| document.name != "asyncapi") {
        assert_eq!(document.file, format!("{}.schema.json", document.name));
    }
}

#[test]
fn what_is_published_is_valid_by_the_schemas() {
    let accepted = OrderTaken { lines: OrderAccepted::example().lines, short: Vec::new(), expires_at: None };
    let rejected = Rejected { order_id: None, reasons: OrderRejected::example().reasons };
    for (schema, decision) in [
        ("order.accepted", decision(true, &serde_json::to_string(&accepted).unwrap())),
        ("order.rejected", decision(false, &serde_json::to_string(&rejected).unwrap())),
    ] {
        let traceparent = Some(&b"00-4bf9-00f0-01"[..]);
        let traced = TraceContext { traceparent, tracestate: Some(b"shop=1") };
        for trace in [TraceContext::NONE, TraceContext { tracestate: None, ..traced }, traced] {
            let published = result(&decision, None, trace);
            let value = serde_json::from_slice(published.value.as_deref().unwrap()).unwrap();
            assert_valid(&validator(schema), &value);
            assert_valid(&validator("result.headers"), &headers_as_json(&published));
        }
    }
    for name in ["MUG", "MUG@berlin"] {
        let published = level(&item(name), &Level { available: -1, version: 2, ..Level::default() });
        assert_valid(
            &validator("stock.level"),
            &serde_json::from_slice(published.value.as_deref().unwrap()).unwrap(),
        );
        assert_valid(&validator("level.headers"), &headers_as_json(&published));
    }
    let bad = record("{");
    let fault = read_command(&bad).unwrap_err();
    assert_valid(&validator("dead-letter.headers"), &headers_as_json(&dead_letter(bad, &fault, "read")));
}

/// Values decided one after the other, each a batch of its own at its time in seconds; what is published about each, as its
/// type and whether it was published on the accepted channel.
fn lives(values: &[(i64, &str)]) -> Vec<String> {
    let mut view = View::default();
    let mut published = Vec::new();
    for (offset, (seconds, value)) in (0..).zip(values) {
        let source = Source { at: TopicPartition::new("orders", 0), offset: Offset(offset) };
        let mut command = record(*value);
        command.source = source.clone();
        let command = read_command(&command).unwrap();
        let request = Request { command, source: Some(source) };
        let now = Stamp(1_767_323_045_678_901 + seconds * 1_000_000);
        let Changes { outcomes, decisions, levels, orders, .. } = decide(
            view.clone(),
            &[request],
            |_| false,
            Sequences::From(Sequenced { seq: Seq(offset), at: now }),
        );
        view.decisions.extend(decisions.into_iter().map(|decision| (decision.key.clone(), decision)));
        view.levels.extend(levels);
        view.orders.extend(orders);
        published.push(match &outcomes[0] {
            Outcome::Decided(decision) => published_well(decision),
            other => format!("{other:?}"),
        });
    }
    published
}

/// The type of a decision's result, once value and headers are found to be valid.
fn published_well(decision: &Arc<Decision>) -> String {
    let published = result(decision, None, TraceContext::NONE);
    let value: serde_json::Value = serde_json::from_slice(published.value.as_deref().unwrap()).unwrap();
    let kind = value["type"].as_str().unwrap().to_owned();
    assert_valid(&validator(&kind), &value);
    assert_valid(&validator("result.headers"), &headers_as_json(&published));
    kind
}

#[test]
fn what_the_ledger_decides_of_an_orders_life_is_published_as_the_schemas_say() {
    let received =
        r#"{"type":"stock.received","adjustment_id":"a-1","sku":"MUG","location":"berlin","quantity":10}"#;
    let hold = r#"{"type":"order.created","order_id":"h","hold_seconds":60,"policy":"partial","lines":[{"sku":"MUG","location":"berlin","quantity":12},{"sku":"CUP","quantity":1}]}"#;
    let plain =
        r#"{"type":"order.created","order_id":"p","lines":[{"sku":"MUG","location":"berlin","quantity":4}]}"#;
    assert_eq!(
        lives(&[
            (0, received),
            (
                1,
                r#"{"type":"stock.limits_set","adjustment_id":"a-2","sku":"MUG","location":"berlin","backorder_limit":2}"#
            ),
            (2, r#"{"type":"stock.limits_set","adjustment_id":"a-3","sku":"CUP"}"#),
            (3, hold),
            (4, r#"{"type":"order.hold_due","order_id":"h"}"#),
            (5, r#"{"type":"order.hold_extended","extension_id":"e-1","order_id":"h","hold_seconds":60}"#),
            (
                6,
                r#"{"type":"order.returned","return_id":"r-1","order_id":"h","lines":[{"sku":"MUG","quantity":1}]}"#
            ),
            (
                7,
                r#"{"type":"order.returned","return_id":"r-2","order_id":"h","lines":[{"sku":"MUG","location":"berlin","quantity":1}]}"#
            ),
            (8, r#"{"type":"order.returned","return_id":"r-3"}"#),
            (
                9,
                r#"{"type":"order.confirmed","order_id":"h","lines":[{"sku":"MUG","location":"berlin","quantity":5}]}"#
            ),
            (10, r#"{"type":"order.confirmed","confirmation_id":"c-2","order_id":"h"}"#),
            (11, r#"{"type":"order.released","order_id":"h"}"#),
            (12, plain),
            (13, r#"{"type":"order.cancelled","order_id":"p"}"#),
            (14, r#"{"type":"order.hold_extended","extension_id":"e-2","order_id":"p","hold_seconds":60}"#),
            (15, r#"{"type":"order.cancelled","order_id":"never"}"#),
            (
                16,
                r#"{"type":"order.created","order_id":"never","lines":[{"sku":"MUG","location":"berlin","quantity":1}]}"#
            ),
        ]),
        [
            "adjustment.accepted",
            "adjustment.accepted",
            "adjustment.rejected",
            "order.accepted",
            "NotDue",
            "extension.accepted",
            "return.rejected",
            "return.accepted",
            "return.rejected",
            "confirmation.accepted",
            "confirmation.rejected",
            "release.rejected",
            "order.accepted",
            "cancellation.accepted",
            "extension.rejected",
            "cancellation.accepted",
            "order.rejected",
        ]
    );
    let hold = |id: &str| {
        format!(
            r#"{{"type":"order.created","order_id":"{id}","hold_seconds":60,"lines":[{{"sku":"MUG","location":"berlin","quantity":3}}]}}"#
        )
    };
    assert_eq!(
        lives(&[
            (0, received),
            (0, &hold("h")),
            (0, &hold("i")),
            (60, r#"{"type":"order.confirmed","order_id":"h"}"#),
            (60, r#"{"type":"order.hold_due","order_id":"h"}"#),
            (61, r#"{"type":"order.hold_extended","extension_id":"e","order_id":"h","hold_seconds":60}"#),
            (59, r#"{"type":"order.released","order_id":"i"}"#),
        ]),
        [
            "adjustment.accepted",
            "order.accepted",
            "order.accepted",
            "confirmation.rejected",
            "hold.expired",
            "extension.rejected",
            "release.accepted",
        ]
    );
}

#[test]
fn the_schemas_of_what_follows_refuse_what_the_reader_refuses() {
    for (name, bad) in [
        ("order.created", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}],"policy":"some"}"#),
        ("order.created", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}],"hold_seconds":0}"#),
        ("order.created", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}],"hold_seconds":2678401}"#),
        ("order.created", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1,"location":""}]}"#),
        ("order.created", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1,"location":"a\u0000"}]}"#),
        ("order.cancelled", r#"{"order_id":""}"#),
        ("order.released", "{}"),
        ("order.hold_due", r#"{"order_id":7.5}"#),
        ("order.returned", r#"{"order_id":"o","return_id":"r"}"#),
        ("order.returned", r#"{"order_id":"o","return_id":"r","lines":[]}"#),
        ("order.returned", r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#),
        ("order.returned", r#"{"return_id":"r","lines":[{"sku":"MUG","quantity":1}]}"#),
        ("order.confirmed", r#"{"confirmation_id":"c"}"#),
        ("order.confirmed", r#"{"order_id":"o","confirmation_id":""}"#),
        ("order.confirmed", r#"{"order_id":"o","lines":[]}"#),
        ("order.hold_extended", r#"{"order_id":"o","extension_id":"e"}"#),
        ("order.hold_extended", r#"{"order_id":"o","extension_id":"e","hold_seconds":0}"#),
        ("stock.limits_set", r#"{"adjustment_id":"a","sku":"MUG","backorder_limit":-1}"#),
        ("stock.limits_set", r#"{"adjustment_id":"a","sku":"MUG","order_limit":0}"#),
        ("stock.limits_set", r#"{"adjustment_id":"a","order_limit":1}"#),
    ] {
        assert!(!validator(name).is_valid(&serde_json::from_str(bad).unwrap()), "{name} {bad}");
        let mut typed = record(bad);
        typed.headers.push(header("ce_type", name.as_bytes()));
        let refused = !matches!(read_command(&typed), Ok(Command { ref action, .. }) if !matches!(action, Action::Refuse(_)));
        assert!(refused, "{name} {bad}");
    }
}

#[test]
fn the_order_schema_refuses_what_the_reader_refuses() {
    let validator = validator("order.created");
    for bad in [
        r#"{"order_id":"","lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":"a\u0000b","lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":[7],"lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"order_id":"o","lines":[]}"#,
        r#"{"order_id":"o"}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":0}]}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1000000000001}]}"#,
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":"2 pieces"}]}"#,
        r#"{"order_id":"o","lines":[{"quantity":1}]}"#,
        r#"{"type":"order.cancelled","order_id":"o","lines":[{"sku":"MUG","quantity":1}]}"#,
    ] {
        assert!(!validator.is_valid(&serde_json::from_str(bad).unwrap()), "{bad}");
        let mut typed = record(bad);
        typed.headers.push(header("ce_type", b"order.created"));
        let read = read_command(&typed);
        assert!(!matches!(read, Ok(Command { action: Action::Take { .. }, .. })), "{bad}");
    }
}

#[test]
fn the_reader_takes_some_of_what_the_schemas_do_not() {
    let validator = validator("order.created");
    for tolerated in [
        r#"{"type":"order.created","order_id":7,"lines":[{"sku":"MUG","quantity":1}]}"#,
        r#"{"type":"order.created","order_id":"o","lines":[{"sku":"MUG","quantity":"2"}]}"#,
    ] {
        assert!(!validator.is_valid(&serde_json::from_str(tolerated).unwrap()), "{tolerated}");
        let read = read_command(&record(tolerated));
        assert!(matches!(read, Ok(Command { action: Action::Take { .. }, .. })), "{tolerated}");
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
