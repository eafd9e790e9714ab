//! Batches decided on remembered levels: that they are, that nothing else shows it, and that nothing stale counts.
//!
//! The rest of the suite runs on them too (`remembering`). Whether a guard held is told by `on_remembered`: what was
//! forgotten is read anew, and then it holds; what should have been forgotten and was not makes it fail.

mod interleaved;
mod lost;

use std::sync::Arc;

use stock_verifier::ledger::{Outcome, Reason, Request};
use stock_verifier::replay::Progress;
use stock_verifier::replay::decision_verifier::ledger_alone;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{LedgerAdmin as _, LedgerHistory, LedgerWriter, Store};

use super::{expect_no_findings, reasons};
use crate::support::{
    TestDatabase, adjusted, batch, cancelled, hold, item, levels, limits, order, partial, received, records,
    returned, set, sku, words,
};

/// Longer than a guard that did not hold keeps batches from being decided on remembered levels.
const A_WHILE: usize = 101;

/// Everything the audit of a ledger alone looks at: also that each rejection was justified, and each acceptance possible,
/// at its place in the ledger's order.
async fn expect_justified(ledger: &dyn LedgerHistory) {
    expect_no_findings(ledger).await;
    let again = ledger_alone(ledger, None, &Progress::default()).await.expect("decided again");
    assert_eq!(again.findings, []);
}

/// Lets the store see the levels of these items, and remember them: by an order for more than there is.
async fn warmed(store: &dyn LedgerWriter, order_id: &str, names: &[&str]) {
    let lines: Vec<_> = names.iter().map(|name| (*name, 1_000_000)).collect();
    let applied = store.apply(&batch(vec![order(order_id, &lines)])).await.unwrap();
    assert_eq!((words(&applied.outcomes), applied.on_remembered), (vec!["rejected"], true));
}

/// A ledger with ten mugs and ten hats, and a store that remembers them.
async fn ledger(database: &TestDatabase) -> Arc<dyn Store> {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT@BERLIN", 10, None)])).await.unwrap();
    warmed(&*store, "warm", &["MUG", "HAT@BERLIN"]).await;
    store
}

/// Applies a batch, and says what became of it and whether it was decided on remembered levels.
async fn apply(store: &dyn Store, requests: Vec<Request>) -> (Vec<Outcome>, bool) {
    let applied = store.apply(&batch(requests)).await.unwrap();
    (applied.outcomes, applied.on_remembered)
}

/// The same, in words.
async fn said(store: &dyn Store, requests: Vec<Request>) -> (Vec<&'static str>, bool) {
    let (outcomes, on_remembered) = apply(store, requests).await;
    (words(&outcomes), on_remembered)
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_decided_on_the_levels_that_those_before_them_left() {
    let database = TestDatabase::remembering().await;
    let store = ledger(&database).await;
    for (number, (most, became)) in
        [(1, "accepted"), (1, "accepted"), (1, "accepted"), (50, "rejected")].into_iter().enumerate()
    {
        let requests = vec![
            order(&format!("o-{number}"), &[("MUG", 2), ("HAT@BERLIN", 1)]),
            partial(&format!("p-{number}"), &[("HAT@BERLIN", 1), ("MUG", most)]),
            order(&format!("q-{number}"), &[("MUG", 50)]),
            received(&format!("a-{number}-1"), "HAT@BERLIN", 1),
            adjusted(&format!("a-{number}-2"), "HAT@BERLIN", -1),
        ];
        let expected = vec![became, "accepted", "rejected", "accepted", "accepted"];
        assert_eq!(said(&*store, requests).await, (expected, true), "{number}");
    }
    assert_eq!(levels(&*store).await, [("HAT at BERLIN".into(), 3, 16), ("MUG".into(), 0, 8)]);
    expect_justified(&*store).await;
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_did_is_seen_by_who_takes_and_by_who_only_looks() {
    let database = TestDatabase::remembering().await;
    let (store, other) = (ledger(&database).await, database.open().await);
    other.apply(&batch(vec![received("b-1", "MUG", 10)])).await.unwrap();
    // What it remembers would reject it.
    assert_eq!(said(&*store, vec![order("o-1", &[("MUG", 15)])]).await, (vec!["accepted"], false));

    store.remember_levels(true);
    warmed(&*store, "warm-2", &["MUG"]).await;
    other.apply(&batch(vec![order("o-2", &[("MUG", 4)])])).await.unwrap();
    // What it remembers would accept it.
    assert_eq!(said(&*store, vec![order("o-3", &[("MUG", 3)])]).await, (vec!["rejected"], false));

    store.remember_levels(true);
    warmed(&*store, "warm-3", &["MUG", "HAT@BERLIN"]).await;
    other.apply(&batch(vec![limits("b-2", "HAT@BERLIN", 0, Some(2))])).await.unwrap();
    // Beside one that is as remembered, and written before it is known that the other is not.
    let asked = vec![order("o-4", &[("MUG", 1)]), order("o-5", &[("HAT@BERLIN", 3)])];
    assert_eq!(said(&*store, asked).await, (vec!["accepted", "rejected"], false));
    assert_eq!(levels(&*store).await, [("HAT at BERLIN".into(), 10, 2), ("MUG".into(), 0, 5)]);
    expect_justified(&*store).await;
    store.close().await;
    other.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_of_a_level_is_not_as_remembered_is_seen_even_at_the_same_version() {
    for (change, asked, became) in [
        ("available = 2", 3, "rejected"),
        ("available = 20", 15, "accepted"),
        ("backorder_limit = 5", 15, "accepted"),
        ("order_limit = 2", 3, "rejected"),
        ("version = 7", 3, "accepted"),
    ] {
        let database = TestDatabase::remembering().await;
        let store = database.ledger().await;
        for name in ["MUG", "HAT@BERLIN"] {
            let id = |what: &str| format!("{what}-{name}");
            store.apply(&batch(vec![set(&id("a"), name, 10, None)])).await.unwrap();
            store.remember_levels(true);
            warmed(&*store, &id("warm"), &[name]).await;
            // As in a database that was restored, and came to the same version again.
            database.execute(&format!("UPDATE levels SET {change}")).await;
            let found = said(&*store, vec![order(&id("o"), &[(name, asked)])]).await;
            assert_eq!(found, (vec![became], false), "{change}");
        }
        store.close().await;
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_guard_that_did_not_hold_a_hundred_batches_go_the_usual_way_at_once() {
    let database = TestDatabase::remembering().await;
    let (store, other) = (ledger(&database).await, database.open().await);
    other.apply(&batch(vec![received("b-1", "MUG", 1_000)])).await.unwrap();
    for number in 0..A_WHILE {
        let found = said(&*store, vec![order(&format!("o-{number}"), &[("MUG", 1)])]).await;
        assert_eq!(found, (vec!["accepted"], false), "{number}");
    }
    // Whatever happened meanwhile.
    other.apply(&batch(vec![received("b-2", "MUG", 1_000)])).await.unwrap();
    assert_eq!(said(&*store, vec![order("o-last", &[("MUG", 1)])]).await, (vec!["accepted"], true));
    expect_justified(&*store).await;
    store.close().await;
    other.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_on_more_than_levels_goes_the_usual_way_and_what_is_remembered_follows() {
    let database = TestDatabase::remembering().await;
    let store = ledger(&database).await;
    let plain = |number: usize| vec![order(&format!("plain-{number}"), &[("MUG", 1)])];
    let others = [
        (hold("o-1", 86_400, &[("MUG", 1)]), "accepted"),
        (cancelled("o-1"), "accepted"),
        (returned("r-1", "plain-0", &[("MUG", 1)]), "accepted"),
        (cancelled("o-2"), "accepted"),
        (limits("l-1", "MUG", 3, Some(4)), "accepted"),
        (order("o-3", &[("NO-SUCH", 1)]), "rejected"),
        (set("a-3", "PEN", 1, None), "accepted"),
    ];
    assert_eq!(said(&*store, plain(0)).await, (vec!["accepted"], true));
    for (number, (command, became)) in (1..).zip(others) {
        let about = format!("{command:?}");
        assert_eq!(said(&*store, vec![command]).await, (vec![became], false), "{about}");
        assert_eq!(said(&*store, plain(number)).await, (vec!["accepted"], true), "after {about}");
    }
    // The limits are remembered too.
    let (outcomes, on_remembered) = apply(&*store, vec![order("o-4", &[("MUG", 5)])]).await;
    let over = Reason::LimitExceeded { sku: sku("MUG"), location: None, requested: 5, limit: 4 };
    assert_eq!((reasons(&outcomes[0]), on_remembered), (vec![over], true));
    expect_justified(&*store).await;
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_before_it_came_and_an_id_decided_before_are_met_all_the_same() {
    let database = TestDatabase::remembering().await;
    let (store, other) = (ledger(&database).await, database.open().await);
    other.apply(&batch(vec![cancelled("o-1")])).await.unwrap();
    let (outcomes, on_remembered) =
        apply(&*store, vec![order("o-1", &[("MUG", 1)]), order("o-2", &[("MUG", 1)])]).await;
    assert_eq!((words(&outcomes), on_remembered), (vec!["rejected", "accepted"], false));
    assert_eq!(reasons(&outcomes[0]), [Reason::OrderCancelled]);
    assert_eq!(said(&*store, vec![order("o-3", &[("MUG", 1)])]).await, (vec!["accepted"], true));
    let again = vec![order("o-2", &[("MUG", 1)]), order("o-3", &[("MUG", 2)]), order("o-4", &[("MUG", 1)])];
    assert_eq!(said(&*store, again).await, (vec!["repeated", "conflict", "accepted"], false));
    // Ids are looked up for a while.
    for number in 0..A_WHILE {
        said(&*store, vec![order(&format!("p-{number}"), &[("HAT@BERLIN", 1)])]).await;
    }
    let twice = vec![order("o-5", &[("MUG", 1)]), order("o-5", &[("MUG", 1)]), order("o-5", &[("MUG", 2)])];
    assert_eq!(said(&*store, twice).await, (vec!["accepted", "repeated", "conflict"], true), "met in memory");
    expect_justified(&*store).await;
    store.close().await;
    other.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_another_instance_applied_are_republished_and_all_is_forgotten() {
    let database = TestDatabase::remembering().await;
    let (store, other) = (ledger(&database).await, database.open().await);
    let large = |from: i64| -> Vec<Request> {
        (from..from + 2).map(|number| order(&format!("o-{number}"), &[("MUG", 99)])).collect()
    };
    assert!(store.apply(&records(0, 0, large(0))).await.unwrap().on_remembered);
    // It took the partition over, moved nothing by these records, and something by others.
    other.apply(&records(0, 2, large(2))).await.unwrap();
    other.apply(&batch(vec![received("b-1", "HAT@BERLIN", 5)])).await.unwrap();
    let found = store.apply(&records(0, 2, large(2))).await.unwrap();
    assert_eq!((words(&found.outcomes), found.on_remembered), (vec!["republished"; 2], false));
    // Its guard would not hold, were it remembered.
    let asked = vec![order("p-1", &[("HAT@BERLIN", 15)])];
    assert_eq!(said(&*store, asked).await, (vec!["accepted"], true));
    expect_justified(&*store).await;
    store.close().await;
    other.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_two_connections_that_apply_batches_remembers_nothing() {
    let database = TestDatabase::postgres().await;
    database.ledger().await.close().await;
    let two = Connections { batches: 2, readers: 1, others: 1 };
    let store = PostgresStore::open(&database.url(), two).await.unwrap();
    store.remember_levels(true);
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    for number in 0..3 {
        assert!(!said(&store, vec![order(&format!("o-{number}"), &[("MUG", 1)])]).await.1);
    }
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_leaves_nothing_remembered_of_what_it_repairs() {
    let database = TestDatabase::remembering().await;
    let store = ledger(&database).await;
    database.execute("UPDATE levels SET available = 12 WHERE sku = 'MUG'").await;
    store.remember_levels(true);
    warmed(&*store, "warm-2", &["MUG"]).await;
    let [damaged] = &store.repairable_levels().await.unwrap()[..] else { panic!("one is damaged") };
    assert_eq!((&damaged.item, damaged.level.available), (&item("MUG"), 10));
    store.repair(&batch(vec![received("b-1", "MUG", 1)])).await.unwrap();
    assert_eq!(said(&*store, vec![order("o-1", &[("MUG", 12)])]).await, (vec!["rejected"], true));
    assert_eq!(said(&*store, vec![order("o-2", &[("MUG", 11)])]).await, (vec!["accepted"], true));
    store.close().await;
    database.remove().await;
}
