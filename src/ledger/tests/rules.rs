//! The rules one by one, with the very text that is told.

use super::*;

const MUG: Thing = ("MUG", "");
const HAT: Thing = ("HAT", "");
const MUG_NORTH: Thing = ("MUG", "north");

/// A ledger that is asked one command at a time, at a time of the test's choice.
struct Ledger {
    run: Run,
    now: Stamp,
    asked: i64,
}

impl Ledger {
    /// Levels as an operator set them, at second 0.
    fn with(levels: &[(Thing, i64)]) -> Self {
        let level = |available| Level { available, version: 1, limits: Limits::default() };
        let start = levels.iter().map(|(thing, pieces)| (*thing, level(*pieces))).collect();
        Self { run: run(&start, &[]), now: Stamp(0), asked: 0 }
    }

    fn at(&mut self, seconds: i64) -> &mut Self {
        self.now = Stamp(0).plus_seconds(seconds);
        self
    }

    /// What is told of a command that comes in a record of its own; or what became of it, where nothing is told.
    #[track_caller]
    fn ask(&mut self, id: &'static str, ask: Ask) -> String {
        self.asked += 1;
        let source = Source { at: TopicPartition::new("orders", 7), offset: Offset(self.asked) };
        self.record(Record { id, ask, source: Some(source), below: false })
    }

    #[track_caller]
    fn record(&mut self, record: Record) -> String {
        self.run.batch(self.now, &[record]);
        match self.run.outcomes.last().unwrap() {
            Outcome::Decided(decision) => {
                assert_eq!(decision.accepted, !decision.detail.contains(r#""reasons""#));
                decision.detail.clone()
            }
            other => format!("{other:?}"),
        }
    }

    fn available(&self, thing: Thing) -> i64 {
        self.run.levels[&item(thing)].available
    }
}

fn order(lines: &[(Thing, i64)]) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: false, hold: None }
}

fn partial(lines: &[(Thing, i64)]) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: true, hold: None }
}

fn hold(lines: &[(Thing, i64)], seconds: i64) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: false, hold: Some(seconds) }
}

fn back(order: &'static str, lines: &[(Thing, i64)]) -> Ask {
    Ask::Return { order, lines: lines.to_vec() }
}

fn confirm(order: &'static str) -> Ask {
    Ask::Confirm { order, lines: None }
}

fn confirm_only(order: &'static str, lines: &[(Thing, i64)]) -> Ask {
    Ask::Confirm { order, lines: Some(lines.to_vec()) }
}

fn limits(thing: Thing, backorder: i64, most: Option<i64>) -> Ask {
    Ask::Limit { thing, backorder, most }
}

const NOT_FOUND: &str = r#"{"reasons":[{"reason":"order_not_found"}]}"#;
const NOT_FOUND_OF_O: &str = r#"{"order_id":"o","reasons":[{"reason":"order_not_found"}]}"#;
const CANCELLED_O: &str = r#"{"order_id":"o","reasons":[{"reason":"already_cancelled"}]}"#;
const CONFIRMED: &str = r#"{"reasons":[{"reason":"already_confirmed"}]}"#;
const CONFIRMED_O: &str = r#"{"order_id":"o","reasons":[{"reason":"already_confirmed"}]}"#;
const EXPIRED: &str = r#"{"reasons":[{"reason":"hold_expired","expired_at":"1970-01-01T00:01:00.000000Z"}]}"#;
const EXPIRED_O: &str =
    r#"{"order_id":"o","reasons":[{"reason":"hold_expired","expired_at":"1970-01-01T00:01:00.000000Z"}]}"#;

#[test]
fn the_largest_cart_against_the_largest_level_does_not_overflow() {
    let mut ledger = Ledger::with(&[(MUG, MAX_QUANTITY)]);
    assert_eq!(
        ledger.ask("o", order(&vec![(MUG, MAX_QUANTITY); MAX_LINES])),
        r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":1000000000000000,"available":1000000000000}]}"#
    );
}

#[test]
fn a_partial_order_takes_what_there_is_and_says_what_is_short() {
    let mut ledger = Ledger::with(&[(MUG, 3), (HAT, 5)]);
    assert_eq!(
        ledger.ask("o", partial(&[(MUG, 4), (HAT, 5), (("CUP", ""), 1)])),
        r#"{"lines":[{"sku":"HAT","quantity":5,"balance":0},{"sku":"MUG","quantity":3,"balance":0}],"#
            .to_owned()
            + r#""short":[{"reason":"unknown_sku","sku":"CUP","requested":1},"#
            + r#"{"reason":"insufficient_stock","sku":"MUG","requested":4,"available":3}]}"#
    );
    assert_eq!(
        ledger.ask("p", partial(&[(HAT, 1)])),
        r#"{"reasons":[{"reason":"insufficient_stock","sku":"HAT","requested":1,"available":0}]}"#
    );
}

#[test]
fn a_partial_order_gets_no_more_than_its_limit_and_no_more_than_there_is() {
    let mut ledger = Ledger::with(&[(MUG, 6)]);
    ledger.ask("l", limits(MUG, 0, Some(4)));
    let short = |balance, quantity| {
        format!(r#"{{"lines":[{{"sku":"MUG","quantity":{quantity},"balance":{balance}}}],"#)
            + r#""short":[{"reason":"limit_exceeded","sku":"MUG","requested":5,"limit":4}]}"#
    };
    assert_eq!(ledger.ask("o", partial(&[(MUG, 5)])), short(2, 4));
    // The limit is named, though here there is even less than it allows.
    assert_eq!(ledger.ask("p", partial(&[(MUG, 5)])), short(0, 2));
}

#[test]
fn an_order_limit_holds_for_all_lines_of_an_item_together() {
    let mut ledger = Ledger::with(&[(MUG, 9), (MUG_NORTH, 9)]);
    ledger.ask("l", limits(MUG, 0, Some(4)));
    assert_eq!(
        ledger.ask("o", order(&[(MUG, 3), (MUG_NORTH, 9), (MUG, 2)])),
        r#"{"reasons":[{"reason":"limit_exceeded","sku":"MUG","requested":5,"limit":4}]}"#
    );
    assert_eq!(
        ledger.ask("p", order(&[(MUG, 3), (MUG, 1)])),
        r#"{"lines":[{"sku":"MUG","quantity":4,"balance":5}]}"#
    );
}

#[test]
fn pieces_beyond_what_is_there_are_told_as_backordered_up_to_the_limit() {
    let mut ledger = Ledger::with(&[(MUG, 2)]);
    assert_eq!(
        ledger.ask("l", limits(MUG, 5, None)),
        r#"{"lines":[{"sku":"MUG","quantity":0,"balance":2,"version":2}],"limits":{"backorder_limit":5}}"#
    );
    for (id, pieces, told) in [
        ("o1", 1, r#"{"lines":[{"sku":"MUG","quantity":1,"balance":1}]}"#),
        ("o2", 3, r#"{"lines":[{"sku":"MUG","quantity":3,"balance":-2,"backordered":2}]}"#),
        ("o3", 2, r#"{"lines":[{"sku":"MUG","quantity":2,"balance":-4,"backordered":2}]}"#),
        ("o4", 2, r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":2,"available":1}]}"#),
        ("o5", 1, r#"{"lines":[{"sku":"MUG","quantity":1,"balance":-5,"backordered":1}]}"#),
    ] {
        assert_eq!(ledger.ask(id, order(&[(MUG, pieces)])), told);
    }
}

#[test]
fn an_order_that_takes_the_very_last_piece_backorders_none() {
    let mut ledger = Ledger::with(&[(MUG, 2)]);
    ledger.ask("l", limits(MUG, 5, None));
    assert_eq!(ledger.ask("o", order(&[(MUG, 2)])), r#"{"lines":[{"sku":"MUG","quantity":2,"balance":0}]}"#);
}

#[test]
fn what_is_promised_cannot_be_forbidden_nor_be_missing_but_can_be_counted_anew() {
    let mut ledger = Ledger::with(&[(MUG, 2)]);
    ledger.ask("l1", limits(MUG, 5, Some(7)));
    ledger.ask("o", order(&[(MUG, 6)]));
    assert_eq!(
        ledger.ask("l2", limits(MUG, 3, None)),
        r#"{"reasons":[{"reason":"limit_exceeded","sku":"MUG","requested":4,"limit":3}]}"#
    );
    assert_eq!(ledger.run.levels[&item(MUG)].limits, Limits { backorder: 5, order: Some(7) });
    assert_eq!(
        ledger.ask("a1", Ask::Adjust { thing: MUG, by: -1 }),
        r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":1,"available":0}]}"#
    );
    assert_eq!(
        ledger.ask("a2", Ask::Receive { thing: MUG, pieces: 3 }),
        r#"{"lines":[{"sku":"MUG","quantity":3,"balance":-1,"version":4}]}"#
    );
    assert_eq!(
        ledger.ask("a3", Ask::Set { thing: MUG, available: 8, expected: Some(4) }),
        r#"{"lines":[{"sku":"MUG","quantity":9,"balance":8,"version":5}]}"#
    );
    assert_eq!(
        ledger.ask("l3", limits(HAT, 1, None)),
        r#"{"reasons":[{"reason":"unknown_sku","sku":"HAT","requested":0}]}"#
    );
}

#[test]
fn each_location_has_a_level_of_its_own() {
    let mut ledger = Ledger::with(&[(MUG, 5), (MUG_NORTH, 5)]);
    assert_eq!(
        ledger.ask("o", order(&[(MUG_NORTH, 2), (MUG, 1)])),
        r#"{"lines":[{"sku":"MUG","quantity":1,"balance":4},"#.to_owned()
            + r#"{"sku":"MUG","location":"north","quantity":2,"balance":3}]}"#
    );
    assert_eq!(
        ledger.ask("p", order(&[(MUG_NORTH, 4), (("MUG", "south"), 1)])),
        r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","location":"north","requested":4,"available":3},"#
            .to_owned()
            + r#"{"reason":"unknown_sku","sku":"MUG","location":"south","requested":1}]}"#
    );
    assert_eq!(
        ledger.ask("r", back("o", &[(MUG, 2)])),
        r#"{"order_id":"o","reasons":[{"reason":"return_exceeds_deducted","sku":"MUG","requested":2,"left":1}]}"#
    );
}

#[test]
fn a_text_cut_in_other_places_is_other_content() {
    let digest = |thing| order(&[(thing, 1)]).command("o").digest;
    assert_ne!(digest(("AB", "C")), digest(("A", "BC")));
    assert_ne!(digest(("AB", "")), digest(("A", "B")));
}

#[test]
fn what_comes_back_fits_even_above_the_largest_level() {
    let mut ledger = Ledger::with(&[(MUG, 5)]);
    ledger.ask("o", order(&[(MUG, 5)]));
    ledger.ask("a1", Ask::Set { thing: MUG, available: MAX_QUANTITY, expected: None });
    assert_eq!(
        ledger.ask("o", Ask::Cancel),
        r#"{"returned":[{"sku":"MUG","quantity":5,"balance":1000000000005}]}"#
    );
    assert_eq!(
        ledger.ask("a2", Ask::Receive { thing: MUG, pieces: 1 }),
        r#"{"reasons":[{"reason":"limit_exceeded","sku":"MUG","requested":1,"limit":0}]}"#
    );
}

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
