//! What becomes of what an order took.

use super::*;

const NOT_FOUND: &str = r#"{"reasons":[{"reason":"order_not_found"}]}"#;
const NOT_FOUND_OF_O: &str = r#"{"order_id":"o","reasons":[{"reason":"order_not_found"}]}"#;
const CANCELLED_O: &str = r#"{"order_id":"o","reasons":[{"reason":"already_cancelled"}]}"#;
const CONFIRMED: &str = r#"{"reasons":[{"reason":"already_confirmed"}]}"#;
const CONFIRMED_O: &str = r#"{"order_id":"o","reasons":[{"reason":"already_confirmed"}]}"#;
const EXPIRED: &str = r#"{"reasons":[{"reason":"hold_expired","expired_at":"1970-01-01T00:01:00.000000Z"}]}"#;
const EXPIRED_O: &str =
    r#"{"order_id":"o","reasons":[{"reason":"hold_expired","expired_at":"1970-01-01T00:01:00.000000Z"}]}"#;

#[test]
fn a_return_gives_back_all_its_lines_or_none_and_returns_add_up() {
    let mut ledger = Ledger::with(&[(MUG, 5), (HAT, 5)]);
    ledger.ask("o", order(&[(MUG, 3), (HAT, 1)]));
    assert_eq!(
        ledger.ask("r1", back("o", &[(HAT, 1), (MUG, 4), (("CUP", ""), 1)])),
        r#"{"order_id":"o","reasons":[{"reason":"return_exceeds_deducted","sku":"CUP","requested":1,"left":0},"#
            .to_owned()
            + r#"{"reason":"return_exceeds_deducted","sku":"MUG","requested":4,"left":3}]}"#
    );
    assert_eq!(
        ledger.ask("r2", back("o", &[(MUG, 1), (MUG, 1)])),
        r#"{"order_id":"o","returned":[{"sku":"MUG","quantity":2,"balance":4}]}"#
    );
    assert_eq!(
        ledger.ask("r3", back("o", &[(MUG, 2)])),
        r#"{"order_id":"o","reasons":[{"reason":"return_exceeds_deducted","sku":"MUG","requested":2,"left":1}]}"#
    );
    assert_eq!(
        ledger.ask("o", Ask::Cancel),
        r#"{"returned":[{"sku":"HAT","quantity":1,"balance":5},{"sku":"MUG","quantity":1,"balance":5}]}"#
    );
    assert_eq!(ledger.ask("r4", back("o", &[(MUG, 1)])), CANCELLED_O);
}

#[test]
fn a_follow_up_of_no_accepted_order_finds_none() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", order(&[(MUG, 6)]));
    assert_eq!(ledger.ask("r", back("o", &[(MUG, 1)])), NOT_FOUND_OF_O);
    assert_eq!(ledger.ask("c", confirm("o")), NOT_FOUND_OF_O);
    assert_eq!(ledger.ask("e", Ask::Extend { order: "o", by: 1 }), NOT_FOUND_OF_O);
    assert_eq!(ledger.ask("o", Ask::Release), NOT_FOUND);
    assert_eq!(ledger.ask("o", Ask::Due), "NotDue");
    // Whoever cancels wants it to have nothing, and so it has.
    assert_eq!(ledger.ask("o", Ask::Cancel), r#"{"returned":[]}"#);
}

#[test]
fn an_order_cancelled_before_it_came_takes_nothing() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    assert_eq!(ledger.ask("o", Ask::Cancel), r#"{"returned":[]}"#);
    assert_eq!(ledger.ask("o", hold(&[(MUG, 1)], 60)), r#"{"reasons":[{"reason":"order_cancelled"}]}"#);
    assert_eq!(ledger.available(MUG), 5);
}

#[test]
fn a_cancellation_that_was_refused_cancels_nothing() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", Ask::Invalid { kind: CommandKind::OrderCancelled, faults: 1 });
    assert_eq!(ledger.ask("o", order(&[(MUG, 1)])), r#"{"lines":[{"sku":"MUG","quantity":1,"balance":4}]}"#);
}

#[test]
fn a_plain_order_is_final_at_once() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", order(&[(MUG, 1)]));
    assert_eq!(ledger.ask("o", Ask::Release), CONFIRMED);
    assert_eq!(ledger.ask("c", confirm("o")), CONFIRMED_O);
    assert_eq!(ledger.ask("e", Ask::Extend { order: "o", by: 1 }), CONFIRMED_O);
    assert_eq!(ledger.at(100).ask("o", Ask::Due), "NotDue");
    assert_eq!(ledger.available(MUG), 4);
}

#[test]
fn a_confirmed_hold_keeps_what_is_left_and_never_ends() {
    let mut ledger = Ledger::with(&[(MUG, 5), (HAT, 5)]);
    assert_eq!(
        ledger.ask("o", hold(&[(MUG, 3), (HAT, 1)], 60)),
        r#"{"lines":[{"sku":"HAT","quantity":1,"balance":4},{"sku":"MUG","quantity":3,"balance":2}],"#
            .to_owned()
            + r#""expires_at":"1970-01-01T00:01:00.000000Z"}"#
    );
    ledger.ask("r", back("o", &[(MUG, 2), (HAT, 1)]));
    assert_eq!(
        ledger.at(59).ask("c1", confirm("o")),
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":1}],"returned":[]}"#
    );
    assert_eq!(ledger.at(60).ask("o", Ask::Due), "NotDue");
    assert_eq!(ledger.ask("c2", confirm("o")), CONFIRMED_O);
    assert_eq!(ledger.ask("o", Ask::Release), CONFIRMED);
    assert_eq!(ledger.ask("o", Ask::Cancel), r#"{"returned":[{"sku":"MUG","quantity":1,"balance":5}]}"#);
    assert_eq!(ledger.ask("c3", confirm("o")), CANCELLED_O);
}

#[test]
fn a_confirmation_of_named_lines_gives_back_the_rest() {
    let mut ledger = Ledger::with(&[(MUG, 5), (HAT, 5), (MUG_NORTH, 5)]);
    ledger.ask("o", hold(&[(MUG, 3), (HAT, 2), (MUG_NORTH, 1)], 60));
    assert_eq!(
        ledger.ask("c1", confirm_only("o", &[(MUG, 4), (("CUP", ""), 1), (HAT, 1)])),
        r#"{"order_id":"o","reasons":[{"reason":"limit_exceeded","sku":"CUP","requested":1,"limit":0},"#
            .to_owned()
            + r#"{"reason":"limit_exceeded","sku":"MUG","requested":4,"limit":3}]}"#
    );
    assert_eq!(
        ledger.ask("c2", confirm_only("o", &[(MUG, 1), (MUG_NORTH, 1), (MUG, 1)])),
        r#"{"order_id":"o","lines":[{"sku":"MUG","quantity":2},{"sku":"MUG","location":"north","quantity":1}],"#
            .to_owned()
            + r#""returned":[{"sku":"HAT","quantity":2,"balance":5},{"sku":"MUG","quantity":1,"balance":3}]}"#
    );
    assert_eq!(
        ledger.ask("r", back("o", &[(HAT, 1)])),
        r#"{"order_id":"o","reasons":[{"reason":"return_exceeds_deducted","sku":"HAT","requested":1,"left":0}]}"#
    );
}

#[test]
fn a_released_hold_has_nothing_left() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 3)], 60));
    assert_eq!(ledger.ask("o", Ask::Release), r#"{"returned":[{"sku":"MUG","quantity":3,"balance":5}]}"#);
    assert_eq!(ledger.ask("o", Ask::Release), "Repeated");
    assert_eq!(ledger.ask("c", confirm("o")), CANCELLED_O);
    assert_eq!(ledger.ask("r", back("o", &[(MUG, 1)])), CANCELLED_O);
    assert_eq!(ledger.at(60).ask("o", Ask::Due), "NotDue");
    assert_eq!(ledger.ask("o", Ask::Cancel), r#"{"returned":[]}"#);
}

#[test]
fn a_hold_is_over_at_its_end_whether_or_not_it_was_given_back_yet() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 3)], 60));
    ledger.now = Stamp(59_999_999);
    assert_eq!(ledger.ask("o", Ask::Due), "NotDue");
    for swept in [false, true] {
        ledger.at(60);
        if swept {
            assert_eq!(
                ledger.ask("o", Ask::Due),
                r#"{"expired_at":"1970-01-01T00:01:00.000000Z","returned":[{"sku":"MUG","quantity":3,"balance":5}]}"#
            );
            assert_eq!(ledger.ask("o", Ask::Due), "Repeated");
        }
        let [confirmation, extension] = if swept { ["c2", "e2"] } else { ["c1", "e1"] };
        assert_eq!(ledger.ask(confirmation, confirm("o")), EXPIRED_O);
        assert_eq!(ledger.ask(extension, Ask::Extend { order: "o", by: 60 }), EXPIRED_O);
        assert_eq!(ledger.ask("o", Ask::Release), if swept { "Repeated" } else { EXPIRED });
    }
    assert_eq!(ledger.ask("o", Ask::Cancel), r#"{"returned":[]}"#);
}

#[test]
fn an_extension_moves_the_end_and_a_notice_of_the_old_end_is_not_due() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 3)], 60));
    assert_eq!(
        ledger.at(59).ask("e1", Ask::Extend { order: "o", by: 30 }),
        r#"{"order_id":"o","expires_at":"1970-01-01T00:01:30.000000Z"}"#
    );
    assert_eq!(ledger.at(60).ask("o", Ask::Due), "NotDue");
    assert_eq!(ledger.at(89).ask("o", Ask::Due), "NotDue");
    assert_eq!(
        ledger.at(95).ask("o", Ask::Due),
        r#"{"expired_at":"1970-01-01T00:01:30.000000Z","returned":[{"sku":"MUG","quantity":3,"balance":5}]}"#
    );
}

#[test]
fn a_cancelled_hold_is_closed() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 3)], 60));
    // Over, and not given back yet: a cancellation gives back what is there to give.
    assert_eq!(
        ledger.at(61).ask("o", Ask::Cancel),
        r#"{"returned":[{"sku":"MUG","quantity":3,"balance":5}]}"#
    );
    assert_eq!(ledger.ask("o", Ask::Due), "NotDue");
    assert_eq!(ledger.ask("c", confirm("o")), CANCELLED_O);
    assert_eq!(ledger.ask("e", Ask::Extend { order: "o", by: 1 }), CANCELLED_O);
    assert_eq!(ledger.run.orders[&id("o")].hold, None);
}

#[test]
fn a_notice_below_the_position_that_ended_nothing_is_not_due() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 3)], 60));
    let source = Some(Source { at: TopicPartition::new("orders", 7), offset: Offset(0) });
    let record = |ask| Record { id: "o", ask, source: source.clone(), below: true };
    assert_eq!(ledger.at(61).record(record(Ask::Due)), "NotDue");
    assert_eq!(ledger.record(record(Ask::Release)), "Undecided");
    assert_eq!(ledger.available(MUG), 2);
}

#[test]
fn a_hold_knows_the_partition_it_came_by() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", hold(&[(MUG, 1)], 60));
    ledger.record(Record { id: "p", ask: hold(&[(MUG, 1)], 60), source: None, below: false });
    let hold = |order| ledger.run.orders[&id(order)].hold.clone().map(|hold| (hold.expires_at, hold.at));
    assert_eq!(hold("o"), Some((Stamp(60_000_000), Some(TopicPartition::new("orders", 7)))));
    assert_eq!(hold("p"), Some((Stamp(60_000_000), None)));
}
