//! What an order can take, and what adjustments do to levels.

use super::*;

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
fn pieces_beyond_what_is_there_are_published_as_backordered_up_to_the_limit() {
    let mut ledger = Ledger::with(&[(MUG, 2)]);
    assert_eq!(
        ledger.ask("l", limits(MUG, 5, None)),
        r#"{"lines":[{"sku":"MUG","quantity":0,"balance":2,"version":2}],"limits":{"backorder_limit":5}}"#
    );
    for (id, pieces, published) in [
        ("o1", 1, r#"{"lines":[{"sku":"MUG","quantity":1,"balance":1}]}"#),
        ("o2", 3, r#"{"lines":[{"sku":"MUG","quantity":3,"balance":-2,"backordered":2}]}"#),
        ("o3", 2, r#"{"lines":[{"sku":"MUG","quantity":2,"balance":-4,"backordered":2}]}"#),
        ("o4", 2, r#"{"reasons":[{"reason":"insufficient_stock","sku":"MUG","requested":2,"available":1}]}"#),
        ("o5", 1, r#"{"lines":[{"sku":"MUG","quantity":1,"balance":-5,"backordered":1}]}"#),
    ] {
        assert_eq!(ledger.ask(id, order(&[(MUG, pieces)])), published);
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
