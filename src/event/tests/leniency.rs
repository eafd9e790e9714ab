//! What is exactly so counts as so, and what earlier versions decided of it stands.

use super::*;
use crate::ledger::{HoldSeconds, Limits};

/// What is read from a value, whatever earlier versions made of it.
fn said(value: &str) -> Command {
    Command { refused_as: None, ..read_command(&record(value)).unwrap() }
}

/// The decision that versions up to 0.1 made of a value that they refused.
fn refusal(value: &str) -> Decision {
    let command = read_strictly(&record(value)).unwrap();
    let Action::Refuse(reasons) = command.action else { panic!("{value} was not refused") };
    let detail = serde_json::to_string(&crate::ledger::Rejected { order_id: None, reasons }).unwrap();
    Decision { key: command.key, digest: command.digest, ..decision(false, &detail) }
}

#[test]
fn every_number_of_every_command_is_read_by_its_value() {
    let quantity = |pieces: i64| Quantity::new(pieces).unwrap();
    for three in ["3", "3.0", "30e-1", "0.3e1", "\"3\"", "\"3.000\"", "\"3e0\""] {
        let with = |start: &str| said(&format!("{{{start}{three}}}"));
        let order = format!(
            r#"{{"type":"order.created","order_id":"o","hold_seconds":{three},"lines":[{{"sku":"MUG","quantity":{three}}}]}}"#
        );
        let hold = HoldSeconds::new(3).unwrap();
        assert_eq!(
            said(&order),
            Command::order_created(
                id("o"),
                lines(&[("MUG", 3)]),
                Terms { hold: Some(hold), ..Terms::default() }
            )
        );
        assert_eq!(
            with(r#""type":"order.hold_extended","extension_id":"e","order_id":"o","hold_seconds":"#),
            Command::hold_extended(id("e"), id("o"), hold)
        );
        assert_eq!(
            with(r#""type":"stock.received","adjustment_id":"a","sku":"MUG","quantity":"#),
            Command::stock_received(id("a"), item("MUG"), quantity(3))
        );
        assert_eq!(
            with(&format!(
                r#""type":"stock.set","adjustment_id":"a","sku":"MUG","expected_version":{three},"available":"#
            )),
            Command::stock_set(id("a"), item("MUG"), 3, Some(3))
        );
        assert_eq!(
            with(&format!(
                r#""type":"stock.limits_set","adjustment_id":"a","sku":"MUG","order_limit":{three},"backorder_limit":"#
            )),
            Command::limits_set(id("a"), item("MUG"), Limits { backorder: 3, order: Some(3) })
        );
    }
    assert_eq!(
        said(r#"{"type":"stock.adjusted","adjustment_id":"a","sku":"MUG","quantity":"-2.0"}"#),
        Command::stock_adjusted(id("a"), item("MUG"), -2)
    );
}

#[test]
fn an_id_may_be_a_number_and_keeps_every_digit() {
    for number in ["7", "-7", "0", "9007199254740993", "123456789012345678901234567890"] {
        let with = |fields: &str| said(&format!("{{{fields}}}").replace('#', number));
        assert_eq!(with(r#""type":"order.cancelled","order_id":#"#), Command::order_cancelled(id(number)));
        assert_eq!(
            with(r#""type":"order.confirmed","order_id":#"#),
            Command::order_confirmed(id(number), id(number), None)
        );
        assert_eq!(
            with(
                r#""type":"order.returned","return_id":#,"order_id":#,"lines":[{"sku":"MUG","quantity":1}]"#
            ),
            Command::order_returned(id(number), id(number), lines(&[("MUG", 1)]))
        );
        assert_eq!(
            with(r#""type":"stock.received","adjustment_id":#,"sku":"MUG","quantity":1"#),
            Command::stock_received(id(number), item("MUG"), Quantity::new(1).unwrap())
        );
    }
    // A SKU's zeros would be lost before it gets here.
    assert_eq!(
        read(r#"{"type":"order.created","order_id":1,"lines":[{"sku":7,"quantity":"1"}]}"#),
        "order.created/1 refused: line 1: sku must be a string, is a number"
    );
}

#[test]
fn what_is_equal_after_reading_is_the_same_command() {
    let order = |order_id: &str, quantity: &str| {
        said(&format!(
            r#"{{"type":"order.created","order_id":{order_id},"lines":[{{"sku":"MUG","quantity":{quantity}}}]}}"#
        ))
    };
    let plain = order("\"7\"", "2");
    for (order_id, quantity) in [("7", "2"), ("\"7\"", "\"2\""), ("7", "2.0"), ("7", "\"2e0\"")] {
        assert_eq!(order(order_id, quantity), plain, "{order_id} {quantity}");
    }
}

#[test]
fn a_refusal_of_an_earlier_version_stands_when_that_very_value_comes_again() {
    let of = |quantity: &str| {
        format!(
            r#"{{"type":"order.created","order_id":"o","lines":[{{"sku":"MUG","quantity":{quantity}}}]}}"#
        )
    };
    let refused = refusal(&of("\"2\""));
    assert!(refused.detail.contains("quantity must be a whole number, is a string"), "{}", refused.detail);
    assert!(refused.is_of(&read_command(&record(of("\"2\""))).unwrap()));
    for other in ["2", "2.0", "\"2.0\"", "\"3\""] {
        assert!(!refused.is_of(&read_command(&record(of(other))).unwrap()), "{other}");
    }
    let again = read_as_decided(&record(of("\"2\"")), &refused).unwrap();
    assert_eq!(again, read_strictly(&record(of("\"2\""))).unwrap());
    // What this version decided of it is read as this version reads.
    let command = read_command(&record(of("\"2\""))).unwrap();
    let accepted = Decision { digest: command.digest, ..decision(true, r#"{"lines":[]}"#) };
    assert_eq!(read_as_decided(&record(of("\"2\"")), &accepted), Ok(command));
}

#[test]
fn a_refusal_for_other_reasons_too_is_decided_again_in_the_words_it_was_decided_in() {
    let value = r#"{"type":"order.created","order_id":"o","lines":[{"sku":"MUG","quantity":"2"},{"sku":"MUG","quantity":1.5}]}"#;
    let was = refusal(value);
    assert!(was.detail.contains("written without fraction or exponent, is 1.5"), "{}", was.detail);
    let now = read_command(&record(value)).unwrap();
    assert!(was.is_of(&now), "the digest of a refused value is the value's");
    assert_eq!(read(value), "order.created/o refused: line 2: quantity must be a whole number, is 1.5");
    assert_eq!(read_as_decided(&record(value), &was), read_strictly(&record(value)));
    let Action::Refuse(reasons) = now.action.clone() else { panic!("not refused") };
    let detail = serde_json::to_string(&crate::ledger::Rejected { order_id: None, reasons }).unwrap();
    let is = Decision { digest: now.digest, ..decision(false, &detail) };
    assert_eq!(read_as_decided(&record(value), &is), Ok(now));
}
