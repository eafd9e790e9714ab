//! What is published, byte by byte.

use serde::Serialize;

use super::*;
use crate::event::schema::{
    AdjustmentAccepted, AdjustmentRejected, CancellationAccepted, ConfirmationAccepted, ConfirmationRejected,
    ExtensionAccepted, ExtensionRejected, HoldDue, HoldExpired, OrderAccepted, OrderRejected, RecordSource,
    ReleaseAccepted, ReleaseRejected, ReturnAccepted, ReturnRejected, StockLevel,
};
use crate::ledger::{Adjusted, Confirmed, Extended, GivenBack, Level, Limits, OrderTaken, Rejected};

const TRACED: TraceContext<'_> =
    TraceContext { traceparent: Some(b"00-4bf9-00f0-01"), tracestate: Some(b"shop=1") };

#[test]
fn an_accepted_order_is_published_in_exactly_these_bytes() {
    let detail = r#"{"lines":[{"sku":"MUG","quantity":1,"balance":119},{"sku":"TSHIRT-M","quantity":2,"balance":55}]}"#;
    let published = result(&decision(true, detail), Some(b"k-1"), TRACED);
    assert_eq!(
        shown(&published),
        r#"Accepted
key: k-1
ce_specversion: 1.0
ce_id: order.created/o-1001
ce_source: stock-verifier
ce_type: order.accepted
ce_time: 2026-01-02T03:04:05.678901Z
content-type: application/json
traceparent: 00-4bf9-00f0-01
tracestate: shop=1
{"type":"order.accepted","order_id":"o-1001","lines":[{"sku":"MUG","quantity":1,"balance":119},{"sku":"TSHIRT-M","quantity":2,"balance":55}],"source":{"topic":"orders","partition":3,"offset":8841}}"#
    );
}

#[test]
fn a_rejected_order_is_published_in_exactly_these_bytes() {
    let detail = r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":500,"available":119},{"reason":"unknown_sku","sku":"MUGG","requested":1}]}"#;
    let published = result(&decision(false, detail), None, TraceContext::NONE);
    assert_eq!(
        shown(&published),
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
    let operators = Decision { source: None, ..decision(true, r#"{"lines":[]}"#) };
    let value = result(&operators, None, TraceContext::NONE).value.unwrap();
    assert_eq!(value, br#"{"type":"order.accepted","order_id":"o-1001","lines":[]}"#);
}

#[test]
fn a_decisions_time_cannot_sink_its_result() {
    for (micros, shown) in [
        (i64::MIN, "1970-01-01T00:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (i64::MAX, "9999-12-30T22:00:00.999999Z"),
    ] {
        let odd = Decision { decided_at: Stamp(micros), ..decision(true, r#"{"lines":[]}"#) };
        let published = result(&odd, None, TraceContext::NONE);
        let time = published.headers.iter().find(|header| header.name == "ce_time").unwrap();
        assert_eq!(time.value.as_deref(), Some(shown.as_bytes()));
    }
}

#[test]
fn a_dead_letter_sent_again_names_its_newest_failure_only() {
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
fn a_detail_without_members_does_not_make_bad_json() {
    for (detail, published) in [
        ("{}", r#"{"type":"order.accepted","order_id":"o-1001"}"#),
        (r#"{"lines":[]}"#, r#"{"type":"order.accepted","order_id":"o-1001","lines":[]}"#),
    ] {
        let bare = Decision { source: None, ..decision(true, detail) };
        assert_eq!(
            String::from_utf8(result(&bare, None, TraceContext::NONE).value.unwrap()).unwrap(),
            published
        );
    }
}

#[test]
fn a_trace_context_is_passed_on_unless_it_is_none() {
    let mut traced = record("{}");
    assert_eq!(traced.trace(), TraceContext::NONE);
    traced.headers.push(header("tracestate", b"shop=1"));
    assert_eq!(traced.trace(), TraceContext::NONE, "a state without a trace says nothing");
    traced.headers.push(header("ce_traceparent", b"extension"));
    let of = |traceparent, tracestate| TraceContext { traceparent: Some(traceparent), tracestate };
    assert_eq!(traced.trace(), of(&b"extension"[..], None), "the state of another trace is not its own");
    traced.headers.push(header("ce_tracestate", b"shop=2"));
    assert_eq!(traced.trace(), of(b"extension", Some(&b"shop=2"[..])));
    traced.headers.push(header("traceparent", b"00-1-2-01"));
    assert_eq!(traced.trace(), of(b"00-1-2-01", Some(b"shop=1")));
    traced.headers.push(header("tracestate", &[b'x'; 513]));
    assert_eq!(traced.trace(), of(b"00-1-2-01", None));
    traced.headers.push(header("traceparent", &vec![b'x'; 1_000_000]));
    assert_eq!(traced.trace(), TraceContext::NONE);
}

/// The detail is stored by the ledger's types and its event published in the schema's shapes: they must agree in every byte.
fn assert_published(
    kind: CommandKind,
    command_id: &Id,
    accepted: bool,
    detail: &impl Serialize,
    source: Option<&RecordSource>,
    event: &impl Serialize,
) {
    let stored = Decision {
        source: source.map(|source| Source {
            at: TopicPartition::new(&*source.topic, source.partition),
            offset: source.offset,
        }),
        ..decision_of(kind, command_id.as_str(), accepted, &serde_json::to_string(detail).unwrap())
    };
    let published = result(&stored, None, TraceContext::NONE);
    let expected = serde_json::to_value(event).unwrap();
    let text = String::from_utf8(published.value.unwrap()).unwrap();
    assert_eq!(text, serde_json::to_string(event).unwrap());
    assert_eq!(published.channel, if accepted { Channel::Accepted } else { Channel::Rejected });
    assert_eq!(published.key.as_deref(), Some(command_id.as_str().as_bytes()));
    let kind = published.headers.iter().find(|header| header.name == "ce_type").unwrap();
    assert_eq!(kind.value.as_deref(), expected["type"].as_str().map(str::as_bytes));
}

fn given_back(
    order_id: Option<&Id>,
    expired_at: Option<&str>,
    returned: &[crate::ledger::ReturnedLine],
) -> GivenBack {
    GivenBack {
        order_id: order_id.cloned(),
        expired_at: expired_at.map(ToOwned::to_owned),
        returned: returned.to_vec(),
    }
}

#[test]
fn accepted_commands_are_published_as_the_published_shapes_are_written() {
    use CommandKind as Kind;
    for e in [OrderAccepted::example(), OrderAccepted::hold_example(), OrderAccepted::backorder_example()] {
        let detail =
            OrderTaken { lines: e.lines.clone(), short: e.short.clone(), expires_at: e.expires_at.clone() };
        assert_published(Kind::OrderCreated, &e.order_id, true, &detail, e.source.as_ref(), &e);
    }
    let e = CancellationAccepted::example();
    let detail = given_back(None, None, &e.returned);
    assert_published(Kind::OrderCancelled, &e.order_id, true, &detail, e.source.as_ref(), &e);
    let e = ReturnAccepted::example();
    let detail = given_back(Some(&e.order_id), None, &e.returned);
    assert_published(Kind::OrderReturned, &e.return_id, true, &detail, e.source.as_ref(), &e);
    let e = ConfirmationAccepted::example();
    let detail =
        Confirmed { order_id: e.order_id.clone(), lines: e.lines.clone(), returned: e.returned.clone() };
    assert_published(Kind::OrderConfirmed, &e.confirmation_id, true, &detail, e.source.as_ref(), &e);
    let e = ReleaseAccepted::example();
    let detail = given_back(None, None, &e.returned);
    assert_published(Kind::OrderReleased, &e.order_id, true, &detail, e.source.as_ref(), &e);
    let e = ExtensionAccepted::example();
    let detail = Extended { order_id: e.order_id.clone(), expires_at: e.expires_at.clone() };
    assert_published(Kind::HoldExtended, &e.extension_id, true, &detail, e.source.as_ref(), &e);
    let e = HoldExpired::example();
    let detail = given_back(None, Some(&e.expired_at), &e.returned);
    assert_published(Kind::HoldExpired, &e.order_id, true, &detail, e.source.as_ref(), &e);
    for e in [AdjustmentAccepted::example(), AdjustmentAccepted::limits_example()] {
        let detail = Adjusted { lines: e.lines.clone(), limits: e.limits };
        assert_published(Kind::Adjustment, &e.adjustment_id, true, &detail, e.source.as_ref(), &e);
    }
}

#[test]
fn rejected_commands_are_published_as_the_published_shapes_are_written() {
    use CommandKind as Kind;
    let rejected = |order_id: Option<&Id>, reasons: &[Reason]| Rejected {
        order_id: order_id.cloned(),
        reasons: reasons.to_vec(),
    };
    for e in [OrderRejected::example(), OrderRejected::invalid_example()] {
        let detail = rejected(None, &e.reasons);
        assert_published(Kind::OrderCreated, &e.order_id, false, &detail, e.source.as_ref(), &e);
    }
    for e in [ReturnRejected::example(), ReturnRejected::invalid_example()] {
        let detail = rejected(e.order_id.as_ref(), &e.reasons);
        assert_published(Kind::OrderReturned, &e.return_id, false, &detail, e.source.as_ref(), &e);
    }
    let e = ConfirmationRejected::example();
    let detail = rejected(e.order_id.as_ref(), &e.reasons);
    assert_published(Kind::OrderConfirmed, &e.confirmation_id, false, &detail, e.source.as_ref(), &e);
    let e = ReleaseRejected::example();
    let detail = rejected(None, &e.reasons);
    assert_published(Kind::OrderReleased, &e.order_id, false, &detail, e.source.as_ref(), &e);
    let e = ExtensionRejected::example();
    let detail = rejected(e.order_id.as_ref(), &e.reasons);
    assert_published(Kind::HoldExtended, &e.extension_id, false, &detail, e.source.as_ref(), &e);
    let e = AdjustmentRejected::example();
    let detail = rejected(None, &e.reasons);
    assert_published(Kind::Adjustment, &e.adjustment_id, false, &detail, e.source.as_ref(), &e);
}

#[test]
fn a_level_is_published_in_exactly_these_bytes() {
    let known = Level { available: -3, version: 18, limits: Limits { backorder: 5, order: None } };
    assert_eq!(
        shown(&level(&item("MUG"), &known)),
        r#"Levels
key: MUG
ce_specversion: 1.0
ce_id: stock.level/MUG/18
ce_source: stock-verifier
ce_type: stock.level
content-type: application/json
{"type":"stock.level","sku":"MUG","available":-3,"version":18}"#
    );
    assert_eq!(
        shown(&level(&item("MUG@berlin"), &known)),
        "Levels
key: MUG\u{1f}berlin
ce_specversion: 1.0
ce_id: stock.level/MUG\u{1f}berlin/18
ce_source: stock-verifier
ce_type: stock.level
content-type: application/json
{\"type\":\"stock.level\",\"sku\":\"MUG\",\"location\":\"berlin\",\"available\":-3,\"version\":18}"
    );
}

#[test]
fn a_level_is_published_as_its_published_shape_is_written() {
    let odd = StockLevel {
        sku: Sku::new("Größe \"42\" \\ 红").unwrap(),
        location: Some(Location::new("a/b").unwrap()),
        available: i64::MIN,
        version: i64::MAX,
        ..StockLevel::example()
    };
    for event in [StockLevel::example(), StockLevel::location_example(), odd] {
        let published = level(
            &Item { sku: event.sku.clone(), location: event.location.clone() },
            &Level { available: event.available, version: event.version, ..Level::default() },
        );
        let value = published.value.unwrap();
        assert_eq!(value, serde_json::to_vec(&event).unwrap());
        assert_eq!(serde_json::from_slice::<StockLevel>(&value).unwrap(), event);
    }
}

#[test]
fn no_two_items_share_a_levels_key() {
    let key = |sku: &str, location: Option<&str>| {
        let (sku, location) =
            (Sku::new(sku).unwrap(), location.map(|location| Location::new(location).unwrap()));
        level(&Item { sku, location }, &Level::default()).key.unwrap()
    };
    let keys = [
        key("MUG", None),
        key("MUG", Some("a")),
        key("MUGa", None),
        key("MU", Some("Ga")),
        key("MUG/a", None),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
}

#[test]
fn what_the_verifier_asks_itself_is_read_back_as_it_was_meant() {
    let question = hold_due(&id("o-1004"));
    assert_eq!((question.channel, question.key.as_deref()), (Channel::Orders, Some(&b"o-1004"[..])));
    assert!(question.headers.is_empty());
    let value = question.value.unwrap();
    assert_eq!(value, serde_json::to_vec(&HoldDue::example()).unwrap());
    assert_eq!(read_command(&record(value)), Ok(Command::hold_expired(id("o-1004"))));
    let odd = id("o \"1\" \\");
    assert_eq!(read_command(&record(hold_due(&odd).value.unwrap())), Ok(Command::hold_expired(odd)));
}

#[test]
fn a_shortened_letter_is_small_whatever_its_record_was_and_says_what_is_missing() {
    let mut record = record(b"{}");
    record.key = Some(vec![b'k'; 900_000]);
    record.value = Some(b"hello".to_vec());
    record.headers.push(Header { name: "note".to_owned(), value: Some(vec![b'n'; 900_000]) });
    let mut letter = dead_letter(record, &Fault::new(FaultCode::NotJson, "no JSON"), "read");
    let whole = letter.headers.clone();
    assert!(letter.shorten());
    assert!(letter.size() < 2_000, "{} bytes", letter.size());
    let header = |name: &str| {
        let found = letter.headers.iter().find(|header| header.name == name).expect("a header");
        String::from_utf8(found.value.as_deref().expect("a value").to_vec()).unwrap()
    };
    assert_eq!(header("stock_verifier.omitted.value.bytes"), "5");
    // What `printf hello | sha256sum` says.
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(header("stock_verifier.omitted.value.sha256"), digest);
    assert_eq!(header("stock_verifier.omitted.key.bytes"), "900000");
    assert_eq!(header("stock_verifier.omitted.headers.bytes"), "900004");
    for named in ERROR_HEADERS {
        assert!(whole.iter().find(|h| h.name == named) == letter.headers.iter().find(|h| h.name == named));
    }
    assert!(!letter.shorten(), "there is nothing more to leave out");
}
