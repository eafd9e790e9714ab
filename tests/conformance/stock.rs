//! What bounds orders, where stock is, and what is published about levels.

use std::collections::HashSet;
use std::sync::Arc;

use stock_verifier::ledger::{Item, Level, Limits, OrderTaken, Outcome, Reason};
use stock_verifier::store::Store;

use super::{apply_one, back, expect_no_findings, published, reasons};
use crate::on_every_store;
use crate::support::{
    TestDatabase, adjusted, batch, cancelled, item, levels, limits, location, order, partial, received,
    records, set, sku, word, words,
};

on_every_store![
    a_partial_order_takes_what_there_is_and_says_what_was_short,
    backorders_go_below_zero_to_the_limit_and_not_further,
    an_order_limit_rejects_and_bounds_a_partial_order,
    limits_of_an_unknown_sku_are_rejected,
    limits_below_what_is_promised_are_rejected,
    a_ledger_whose_limits_were_lowered_has_no_findings,
    limits_stay_when_the_level_changes,
    locations_have_levels_of_their_own,
    an_operators_changes_are_unannounced_until_they_are_taken,
    an_unannounced_level_is_given_to_one_of_two_callers,
    levels_after_an_item_come_in_pages,
];

/// What an order took of an item: its name, pieces, the level after, pieces promised.
type Taken = (String, i64, i64, i64);

/// What an accepted order took, and what it was short of.
fn taken(outcome: &Outcome) -> (Vec<Taken>, Vec<Reason>) {
    assert!(published(outcome).accepted, "{outcome:?}");
    let taken: OrderTaken = serde_json::from_str(&published(outcome).detail).unwrap();
    let lines = taken.lines.into_iter().map(|line| {
        let item = Item { sku: line.sku, location: line.location };
        (item.to_string(), line.quantity, line.balance, line.backordered)
    });
    (lines.collect(), taken.short)
}

async fn level(store: &dyn Store, name: &str) -> Level {
    let found = store.levels_of(&[item(name)]).await.unwrap();
    assert_eq!((found.len(), &found[0].item), (1, &item(name)));
    found[0].level
}

async fn a_partial_order_takes_what_there_is_and_says_what_was_short(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let stock = vec![set("a-1", "MUG", 3, None), set("a-2", "HAT", 0, None), set("a-3", "PEN", 9, None)];
    store.apply(&batch(stock)).await.unwrap();
    let some = apply_one(&*store, partial("o-1", &[("MUG", 5), ("HAT", 1), ("PEN", 2), ("NO", 1)])).await;
    assert_eq!(
        taken(&some),
        (
            vec![("MUG".into(), 3, 0, 0), ("PEN".into(), 2, 7, 0)],
            vec![
                Reason::InsufficientStock { sku: sku("HAT"), location: None, requested: 1, available: 0 },
                Reason::InsufficientStock { sku: sku("MUG"), location: None, requested: 5, available: 3 },
                Reason::UnknownSku { sku: sku("NO"), location: None, requested: 1 },
            ]
        )
    );
    let nothing = apply_one(&*store, partial("o-2", &[("MUG", 1), ("HAT", 1)])).await;
    assert_eq!(reasons(&nothing).len(), 2);
    let all = apply_one(&*store, partial("o-3", &[("PEN", 7)])).await;
    assert_eq!(taken(&all), (vec![("PEN".into(), 7, 0, 0)], vec![]));
    assert_eq!(word(&apply_one(&*store, order("o-1", &[("MUG", 5)])).await), "conflict");
    // It gives back what it took, not what it asked for.
    assert_eq!(
        back(&apply_one(&*store, cancelled("o-1")).await),
        [("MUG".into(), 3, 3), ("PEN".into(), 2, 2)]
    );
    expect_no_findings(&*store).await;
}

async fn backorders_go_below_zero_to_the_limit_and_not_further(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 2, None)).await;
    assert_eq!(word(&apply_one(&*store, order("o-0", &[("MUG", 3)])).await), "rejected");
    assert_eq!(word(&apply_one(&*store, limits("l-1", "MUG", 5, None)).await), "accepted");
    let first = apply_one(&*store, order("o-1", &[("MUG", 4)])).await;
    assert_eq!(taken(&first), (vec![("MUG".into(), 4, -2, 2)], vec![]));
    let too_much = apply_one(&*store, order("o-2", &[("MUG", 4)])).await;
    assert_eq!(
        reasons(&too_much),
        [Reason::InsufficientStock { sku: sku("MUG"), location: None, requested: 4, available: 3 }]
    );
    let rest = apply_one(&*store, order("o-3", &[("MUG", 3)])).await;
    assert_eq!(taken(&rest), (vec![("MUG".into(), 3, -5, 3)], vec![]));
    let nothing = apply_one(&*store, partial("o-4", &[("MUG", 1)])).await;
    assert_eq!(word(&nothing), "rejected");
    expect_no_findings(&*store).await;
    // What was promised cannot be missing too.
    let missing = apply_one(&*store, adjusted("a-2", "MUG", -1)).await;
    assert_eq!(
        reasons(&missing),
        [Reason::InsufficientStock { sku: sku("MUG"), location: None, requested: 1, available: 0 }]
    );
    apply_one(&*store, received("a-3", "MUG", 10)).await;
    assert_eq!(level(&*store, "MUG").await.available, 5);
    expect_no_findings(&*store).await;
}

async fn an_order_limit_rejects_and_bounds_a_partial_order(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    apply_one(&*store, limits("l-1", "MUG", 0, Some(3))).await;
    let exceeded = Reason::LimitExceeded { sku: sku("MUG"), location: None, requested: 4, limit: 3 };
    assert_eq!(
        reasons(&apply_one(&*store, order("o-1", &[("MUG", 2), ("MUG", 2)])).await),
        std::slice::from_ref(&exceeded)
    );
    let bounded = apply_one(&*store, partial("o-2", &[("MUG", 4)])).await;
    assert_eq!(taken(&bounded), (vec![("MUG".into(), 3, 7, 0)], vec![exceeded]));
    assert_eq!(word(&apply_one(&*store, order("o-3", &[("MUG", 3)])).await), "accepted");
    apply_one(&*store, limits("l-2", "MUG", 0, None)).await;
    assert_eq!(word(&apply_one(&*store, order("o-4", &[("MUG", 4)])).await), "accepted");
    assert_eq!(levels(&*store).await, [("MUG".into(), 0, 6)]);
    expect_no_findings(&*store).await;
}

async fn limits_of_an_unknown_sku_are_rejected(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 1, None)).await;
    for (n, name) in ["NO", "MUG@BERLIN"].into_iter().enumerate() {
        let Item { sku, location } = item(name);
        let outcome = apply_one(&*store, limits(&format!("l-{n}"), name, 5, None)).await;
        assert_eq!(reasons(&outcome), [Reason::UnknownSku { sku, location, requested: 0 }]);
    }
    assert_eq!(levels(&*store).await, [("MUG".into(), 1, 1)]);
    expect_no_findings(&*store).await;
}

async fn limits_below_what_is_promised_are_rejected(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let commands = vec![
        set("a-1", "MUG", 0, None),
        limits("l-1", "MUG", 5, None),
        order("o-1", &[("MUG", 2)]),
        limits("l-2", "MUG", 1, Some(9)),
        limits("l-3", "MUG", 2, None),
        order("o-2", &[("MUG", 1)]),
    ];
    let outcomes = store.apply(&batch(commands)).await.unwrap().outcomes;
    assert_eq!(words(&outcomes), ["accepted", "accepted", "accepted", "rejected", "accepted", "rejected"]);
    assert_eq!(
        reasons(&outcomes[3]),
        [Reason::LimitExceeded { sku: sku("MUG"), location: None, requested: 2, limit: 1 }]
    );
    let level = level(&*store, "MUG").await;
    let expected = Level { available: -2, version: 4, limits: Limits { backorder: 2, order: None } };
    assert_eq!(level, expected);
    expect_no_findings(&*store).await;
}

async fn a_ledger_whose_limits_were_lowered_has_no_findings(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let commands = vec![
        set("a-1", "MUG@BERLIN", 0, None),
        limits("l-1", "MUG@BERLIN", 5, None),
        order("o-1", &[("MUG@BERLIN", 4)]),
        received("a-2", "MUG@BERLIN", 6),
        limits("l-2", "MUG@BERLIN", 0, None),
    ];
    let outcomes = store.apply(&batch(commands)).await.unwrap().outcomes;
    assert!(outcomes.iter().all(|outcome| word(outcome) == "accepted"), "{outcomes:?}");
    assert_eq!(levels(&*store).await, [("MUG at BERLIN".into(), 2, 5)]);
    expect_no_findings(&*store).await;
}

async fn limits_stay_when_the_level_changes(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 9, None)).await;
    apply_one(&*store, limits("l-1", "MUG", 5, Some(4))).await;
    store.apply(&records(0, 0, vec![order("o-1", &[("MUG", 4)])])).await.unwrap();
    apply_one(&*store, set("a-2", "MUG", 7, None)).await;
    let limits = Limits { backorder: 5, order: Some(4) };
    for store in [store.clone(), database.open().await] {
        assert_eq!(level(&*store, "MUG").await, Level { available: 7, version: 4, limits });
    }
    expect_no_findings(&*store).await;
}

async fn locations_have_levels_of_their_own(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let stock = vec![
        set("a-1", "MUG", 5, None),
        set("a-2", "MUG@BERLIN", 3, Some(0)),
        set("a-3", "MUG@PARIS", 4, Some(0)),
        set("a-4", "HAT@PARIS", 1, Some(0)),
        set("a-5", "MUGS", 8, None),
    ];
    store.apply(&batch(stock)).await.unwrap();
    let lines = [("MUG@PARIS", 2), ("MUG", 1), ("MUG@BERLIN", 2), ("MUG@PARIS", 1)];
    let outcomes = store
        .apply(&records(0, 0, vec![order("o-1", &lines), order("o-2", &[("MUG@BERLIN", 2), ("HAT", 1)])]))
        .await
        .unwrap()
        .outcomes;
    let expected =
        vec![("MUG".into(), 1, 4, 0), ("MUG at BERLIN".into(), 2, 1, 0), ("MUG at PARIS".into(), 3, 1, 0)];
    assert_eq!(taken(&outcomes[0]), (expected, vec![]));
    let berlin = Some(location("BERLIN"));
    assert_eq!(
        reasons(&outcomes[1]),
        [
            Reason::UnknownSku { sku: sku("HAT"), location: None, requested: 1 },
            Reason::InsufficientStock { sku: sku("MUG"), location: berlin, requested: 2, available: 1 },
        ]
    );
    assert_eq!(
        levels(&*store).await,
        [
            ("HAT at PARIS".into(), 1, 1),
            ("MUG".into(), 4, 2),
            ("MUG at BERLIN".into(), 1, 2),
            ("MUG at PARIS".into(), 1, 2),
            ("MUGS".into(), 8, 1),
        ]
    );
    let found = store.levels(Some(&[sku("MUG"), sku("NO"), sku("HAT"), sku("MUG")])).await.unwrap();
    let names: Vec<_> = found.iter().map(|level| level.item.to_string()).collect();
    assert_eq!(names, ["HAT at PARIS", "MUG", "MUG at BERLIN", "MUG at PARIS"]);
    let of = ["MUG@PARIS", "HAT", "MUG", "MUG@ROME", "MUG@PARIS"].map(item);
    let mut found: Vec<_> =
        store.levels_of(&of).await.unwrap().into_iter().map(|level| level.item.to_string()).collect();
    found.sort_unstable();
    assert_eq!(found, ["MUG", "MUG at PARIS"]);
    assert!(store.levels_of(&[]).await.unwrap().is_empty());
    let back = back(&apply_one(&*store, cancelled("o-1")).await);
    assert_eq!(back, [("MUG".into(), 1, 5), ("MUG at BERLIN".into(), 2, 3), ("MUG at PARIS".into(), 3, 4)]);
    expect_no_findings(&*store).await;
}

async fn unannounced(store: &dyn Store, limit: usize) -> Vec<String> {
    let taken = store.take_unannounced(limit).await.unwrap();
    assert!(taken.len() <= limit);
    let mut names: Vec<_> = taken.into_iter().map(|item| item.to_string()).collect();
    names.sort_unstable();
    names
}

async fn an_operators_changes_are_unannounced_until_they_are_taken(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    assert!(unannounced(&*store, 10).await.is_empty());
    let stock = vec![set("a-1", "MUG", 5, None), set("a-2", "MUG@BERLIN", 3, None)];
    store.apply(&batch(stock)).await.unwrap();
    apply_one(&*store, received("a-3", "MUG", 2)).await;
    // What came by a record is published with that record's result.
    store.apply(&records(0, 0, vec![set("a-4", "HAT", 1, None), order("o-1", &[("MUG", 1)])])).await.unwrap();
    // What changed nothing is not published.
    apply_one(&*store, order("o-2", &[("PEN", 1)])).await;
    assert_eq!(unannounced(&*store, 10).await, ["MUG", "MUG at BERLIN"]);
    assert!(unannounced(&*store, 10).await.is_empty());
    apply_one(&*store, cancelled("o-1")).await;
    apply_one(&*store, limits("l-1", "HAT", 5, None)).await;
    let mut one_by_one = unannounced(&*store, 1).await;
    one_by_one.extend(unannounced(&*store, 1).await);
    one_by_one.sort_unstable();
    assert_eq!(one_by_one, ["HAT", "MUG"]);
    assert!(unannounced(&*store, 1).await.is_empty());
    expect_no_findings(&*store).await;
}

async fn an_unannounced_level_is_given_to_one_of_two_callers(database: Arc<TestDatabase>) {
    let (one, two) = (database.ledger().await, database.open().await);
    let stock = (0..100).map(|n| set(&format!("a-{n}"), &format!("SKU-{n:03}"), 1, None)).collect();
    one.apply(&batch(stock)).await.unwrap();
    let mut taken: Vec<String> = Vec::new();
    loop {
        let (mine, other) = tokio::join!(unannounced(&*one, 7), unannounced(&*two, 7));
        if mine.is_empty() && other.is_empty() {
            break;
        }
        taken.extend(mine);
        taken.extend(other);
    }
    let each: HashSet<&String> = taken.iter().collect();
    assert_eq!((each.len(), taken.len()), (100, 100), "{taken:?}");
}

async fn levels_after_an_item_come_in_pages(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    assert!(store.levels_after(None, 10).await.unwrap().is_empty());
    let names = ["b", "a@Z", "Z", "a@é", "é", "a", "aa", "a@B", "10@9", "9"];
    let stock =
        (1..).zip(names).map(|(pieces, name)| set(&format!("a-{name}"), name, pieces, None)).collect();
    store.apply(&batch(stock)).await.unwrap();
    let all = store.levels(None).await.unwrap();
    let sorted: Vec<_> = all.iter().map(|level| level.item.to_string()).collect();
    assert_eq!(sorted, ["10 at 9", "9", "Z", "a", "a at B", "a at Z", "a at é", "aa", "b", "é"]);
    for size in [1, 3, 10, 100] {
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = store.levels_after(after.as_ref(), size).await.unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            after = Some(last.item.clone());
            pages.extend(page);
        }
        assert_eq!(pages, all);
    }
    // After an item that is not there, too.
    let rest = store.levels_after(Some(&item("a@C")), 2).await.unwrap();
    let rest: Vec<_> = rest.iter().map(|level| level.item.to_string()).collect();
    assert_eq!(rest, ["a at Z", "a at é"]);
}
