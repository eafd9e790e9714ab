use proptest::prelude::*;

use super::wire::{OrderAccepted, OrderCreated, OrderRejected};
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
    let told = result(&decision(true, detail), Some(b"k-1"), Some(b"00-4bf9-00f0-01")).unwrap();
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
    let told = result(&decision(false, detail), None, None).unwrap();
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
