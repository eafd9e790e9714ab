//! The contract with producers and consumers, end to end, once for each rule.

use std::time::Duration;

use serde_json::json;

use crate::support::kafka::{Sent, header, order, sent};
use crate::support::proof::Ends;
use crate::support::scene::Scene;

const SOON: Duration = Duration::from_secs(60);

/// One partition, so that what comes first is known.
fn after(stock: &[(&str, i64)], records: &[Sent]) -> (Scene, Ends) {
    let scene = Scene::new(1);
    scene.stock(stock);
    scene.produce(records);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let ends = scene.prove();
    (scene, ends)
}

#[test]
fn an_order_takes_all_its_lines_or_none_and_a_rejection_names_every_line_at_fault() {
    let (scene, _) = after(
        &[("MUG", 120), ("TSHIRT-M", 57)],
        &[
            order("o-1001", &[("TSHIRT-M", 2), ("MUG", 1)]),
            order("o-1002", &[("TSHIRT-M", 1), ("MUG", 500), ("MUGG", 1)]),
            order("o-1003", &[("MUG", 100), ("MUG", 19)]),
        ],
    );
    let source = |offset| json!({"topic": scene.orders(), "partition": 0, "offset": offset});
    assert_eq!(
        scene.published("accepted"),
        [
            json!({"type": "order.accepted", "order_id": "o-1001", "lines": [
                {"sku": "MUG", "quantity": 1, "balance": 119}, {"sku": "TSHIRT-M", "quantity": 2, "balance": 55}],
                "source": source(0)}),
            json!({"type": "order.accepted", "order_id": "o-1003", "lines": [
                {"sku": "MUG", "quantity": 119, "balance": 0}], "source": source(2)}),
        ]
    );
    assert_eq!(
        scene.published("rejected"),
        [json!({"type": "order.rejected", "order_id": "o-1002", "reasons": [
            {"reason": "insufficient_stock", "sku": "MUG", "requested": 500, "available": 119},
            {"reason": "unknown_sku", "sku": "MUGG", "requested": 1}], "source": source(1)})]
    );
}

#[test]
fn a_repetition_is_absorbed_whatever_its_dress_and_a_conflict_is_a_dead_letter() {
    let again = r#" {"lines":[{"quantity":1,"sku":"MUG"}], "order_id":"o-1", "note":"again"} "#;
    let (scene, ends) = after(
        &[("MUG", 10)],
        &[
            order("o-1", &[("MUG", 1)]),
            order("o-1", &[("MUG", 1)]),
            sent("other key", again).header("ce_type", b"order.created"),
            order("o-1", &[("MUG", 2)]).header("shop", b"berlin"),
            order("o-2", &[("MUG", 11)]),
            order("o-2", &[("MUG", 11)]),
        ],
    );
    assert_eq!(ends, Ends { accepted: 1, rejected: 1, dead: 1, absorbed: 3 });
    let letters = scene.kafka.read(&scene.topic("dead"));
    let letter = &letters[0];
    assert_eq!(header(letter, "shop"), Some("berlin"));
    let orders = scene.orders();
    for (name, value) in [
        ("topic", orders.as_str()),
        ("partition", "0"),
        ("offset", "3"),
        ("stage", "decide"),
        ("exception.class.name", "order_conflict"),
    ] {
        assert_eq!(header(letter, &format!("__connect.errors.{name}")), Some(value));
    }
    let message = header(letter, "__connect.errors.exception.message").expect("a message");
    assert!(message.contains(&format!("{orders}[0]@0")), "{message}");
}

#[test]
fn a_rejected_order_stays_rejected_after_a_restock() {
    let (scene, _) = after(&[("MUG", 1)], &[order("o-1", &[("MUG", 5)])]);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[order("o-1", &[("MUG", 5)]), order("o-2", &[("MUG", 5)])]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove(), Ends { accepted: 1, rejected: 1, dead: 0, absorbed: 1 });
}

#[test]
fn orders_come_as_plain_json_as_cloudevents_of_both_modes_and_framed_and_keep_their_trace() {
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = b"shop=1,other=2";
    let body = |id: &str| format!(r#"{{"order_id":"{id}","lines":[{{"sku":"MUG","quantity":1}}]}}"#);
    let structured = format!(
        r#"{{"specversion":"1.0","id":"e","source":"shop","type":"order.created","data":{}}}"#,
        body("structured")
    );
    let plain = order("framed", &[("MUG", 1)]);
    let framed = [b"\0\0\0\0\x07".as_slice(), plain.value.as_deref().expect("a value")].concat();
    let keyless = Sent { key: None, ..order("keyless", &[("MUG", 1)]) };
    let (scene, ends) = after(
        &[("MUG", 10)],
        &[
            order("plain", &[("MUG", 1)]).header("traceparent", trace).header("tracestate", state),
            sent("k", body("binary")).header("ce_type", b"order.created").header("ce_traceparent", trace),
            sent("k", structured).header("content-type", b"application/cloudevents+json"),
            sent("k", framed),
            keyless,
            sent("k", "no JSON").header("traceparent", trace).header("tracestate", state),
        ],
    );
    assert_eq!((ends.accepted, ends.dead), (5, 1));
    let published = scene.kafka.read(&scene.topic("accepted"));
    let traces: Vec<_> =
        published.iter().map(|record| header(record, "traceparent").map(str::as_bytes)).collect();
    assert_eq!(traces, [Some(&trace[..]), Some(&trace[..]), None, None, None]);
    let states: Vec<_> =
        published.iter().map(|record| header(record, "tracestate").map(str::as_bytes)).collect();
    assert_eq!(states, [Some(&state[..]), None, None, None, None]);
    let letter = &scene.kafka.read(&scene.topic("dead"))[0];
    for (name, value) in [("traceparent", &trace[..]), ("tracestate", state)] {
        assert_eq!(header(letter, name).map(str::as_bytes), Some(value), "{name}");
    }
    let keys: Vec<_> = published.iter().map(|record| record.key.as_deref().expect("a key")).collect();
    assert_eq!(keys, [&b"plain"[..], b"k", b"k", b"k", b"keyless"]);
    assert_eq!(header(&published[0], "ce_id"), Some("order.created/plain"));
}
