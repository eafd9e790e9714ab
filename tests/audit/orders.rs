//! Damaged by hand: what is kept of orders beside their decisions, and the decisions that gave back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stock_verifier::store::Store;

use crate::support::{
    TestDatabase, batch, cancelled, confirmed, expired, hold, order, released, returned, set, word, words,
};
use crate::{on_every_database, on_every_store};

on_every_store![a_healthy_ledger_of_orders_that_gave_back_has_no_findings];

// Damaged by SQL. What is in memory is damaged where it is seen, in src/store/memory/audit/tests.rs.
on_every_database![
    a_line_that_notes_more_given_back_is_named,
    a_line_that_notes_less_given_back_is_named,
    a_line_that_gave_back_more_than_it_took_or_less_than_nothing_is_named,
    a_missing_line_is_named,
    a_line_that_notes_other_pieces_taken_is_named,
    a_line_from_nowhere_is_named,
    a_missing_hold_is_named,
    a_hold_that_no_order_asked_for_is_named,
    a_hold_that_ended_and_is_open_again_is_named,
    an_expired_hold_that_is_open_again_or_whose_line_is_missing_is_named,
    a_missing_decision_of_an_order_is_named,
    a_missing_decision_of_a_return_is_named,
    a_missing_decision_of_a_confirmation_is_named,
    a_rejected_return_that_gave_back_is_named,
    a_return_that_says_another_order_is_named,
    a_cancellation_that_says_fewer_pieces_is_named,
];

/// A hold that ends in no test.
const LONG: i64 = 86_400;

/// Longer than any machine takes to see a hold of one second over.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// An order for each way to give back and each way a hold goes but by its time, named after it.
pub(super) async fn ledger(database: &TestDatabase) -> Arc<dyn Store> {
    let store = database.ledger().await;
    let taken = vec![
        set("a-1", "MUG", 20, None),
        set("a-2", "HAT", 10, None),
        set("a-3", "HAT@BERLIN", 10, None),
        order("plain", &[("MUG", 5), ("HAT", 2)]),
        order("cancelled", &[("MUG", 3)]),
        hold("open", LONG, &[("MUG", 1)]),
        hold("part", LONG, &[("HAT@BERLIN", 4), ("MUG", 1)]),
        hold("whole", LONG, &[("MUG", 1)]),
        hold("released", LONG, &[("HAT", 1)]),
    ];
    let given_back = vec![
        returned("r-1", "plain", &[("MUG", 2)]),
        returned("r-2", "plain", &[("MUG", 1), ("HAT", 1)]),
        cancelled("cancelled"),
        confirmed("c-1", "part", Some(&[("HAT@BERLIN", 1), ("MUG", 1)])),
        confirmed("whole", "whole", None),
        released("released"),
    ];
    for requests in [taken, given_back] {
        let outcomes = store.apply(&batch(requests)).await.unwrap().outcomes;
        assert!(outcomes.iter().all(|outcome| word(outcome) == "accepted"), "{:?}", words(&outcomes));
    }
    store
}

/// Damages that ledger, audits it, and expects each text in a finding of invariant 3.
async fn expect_named(database: &TestDatabase, damage: &str, named: &[&str]) {
    let named: Vec<(u8, &str)> = named.iter().map(|text| (3, *text)).collect();
    super::expect_named_in(ledger(database).await, database, damage, &named).await;
}

async fn a_healthy_ledger_of_orders_that_gave_back_has_no_findings(database: Arc<TestDatabase>) {
    let store = ledger(&database).await;
    let audit = store.audit().await.unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!((audit.skus, audit.movements, audit.decisions), (3, 17, 15));
}

async fn a_line_that_notes_more_given_back_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE order_lines SET returned = returned + 1 WHERE order_id = 'plain' AND sku = 'MUG'",
        &["order plain, SKU MUG: 4 pieces are noted as given back, its decisions gave back 3"],
    )
    .await;
}

async fn a_line_that_notes_less_given_back_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE order_lines SET returned = returned - 1 WHERE order_id IN ('part', 'released')",
        &[
            "order part, SKU HAT at BERLIN: 2 pieces are noted as given back, its decisions gave back 3",
            "order released, SKU HAT: 0 pieces are noted as given back, its decisions gave back 1",
        ],
    )
    .await;
}

async fn a_line_that_gave_back_more_than_it_took_or_less_than_nothing_is_named(database: Arc<TestDatabase>) {
    let unchecked = database.by_dialect(
        "PRAGMA ignore_check_constraints = ON",
        "ALTER TABLE order_lines DROP CONSTRAINT order_lines_check",
    );
    expect_named(
        &database,
        &format!(
            "{unchecked};
             UPDATE order_lines SET returned = 6 WHERE order_id = 'plain' AND sku = 'MUG';
             UPDATE order_lines SET returned = -1 WHERE order_id = 'part'"
        ),
        &[
            "order plain: 6 of 5 pieces of SKU MUG came back",
            "order part: -1 of 4 pieces of SKU HAT at BERLIN came back",
        ],
    )
    .await;
}

async fn a_missing_line_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM order_lines WHERE order_id IN ('cancelled', 'part')",
        &[
            "order cancelled, SKU MUG: 0 pieces are noted as given back, its decisions gave back 3",
            "order part, SKU HAT at BERLIN: 0 pieces are noted as given back, its decisions gave back 3",
        ],
    )
    .await;
}

async fn a_line_that_notes_other_pieces_taken_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE order_lines SET deducted = 6 WHERE order_id = 'plain' AND sku = 'MUG'",
        &["order plain, SKU MUG: 6 pieces are noted as taken, its decision took 5"],
    )
    .await;
}

async fn a_line_from_nowhere_is_named(database: Arc<TestDatabase>) {
    // Of an order that never was, and of a SKU that the order never took.
    expect_named(
        &database,
        "INSERT INTO order_lines (order_id, sku, location, deducted, returned)
         VALUES ('nobody', 'MUG', '', 2, 1), ('open', 'HAT', '', 4, 3)",
        &[
            "order nobody, SKU MUG: 1 pieces are noted as given back, its decisions gave back 0",
            "order nobody, SKU MUG: 2 pieces are noted as taken, its decision took 0",
            "order open, SKU HAT: 3 pieces are noted as given back, its decisions gave back 0",
            "order open, SKU HAT: 4 pieces are noted as taken, its decision took 0",
        ],
    )
    .await;
}

async fn a_missing_hold_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM holds",
        &["order open: its hold is neither open, nor confirmed, nor given back"],
    )
    .await;
}

async fn a_hold_that_no_order_asked_for_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "INSERT INTO holds (order_id, expires_at)
             SELECT 'plain', expires_at FROM holds WHERE order_id = 'open';
         INSERT INTO holds (order_id, expires_at)
             SELECT 'nobody', expires_at FROM holds WHERE order_id = 'open'",
        &[
            "order plain: a hold is open that no order asked for",
            "order nobody: a hold is open that no order asked for",
        ],
    )
    .await;
}

async fn a_hold_that_ended_and_is_open_again_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "INSERT INTO holds (order_id, expires_at) SELECT id, decided_at FROM decisions
         WHERE kind = 1 AND id IN ('part', 'whole', 'released')",
        &[
            "order part: its hold is open, yet it was confirmed or given back",
            "order whole: its hold is open, yet it was confirmed or given back",
            "order released: its hold is open, yet it was confirmed or given back",
        ],
    )
    .await;
}

async fn an_expired_hold_that_is_open_again_or_whose_line_is_missing_is_named(database: Arc<TestDatabase>) {
    // The one test that waits for a hold to end: by the database's clock, so it asks again and again.
    let store = ledger(&database).await;
    store.apply(&batch(vec![hold("over", 1, &[("HAT", 2)])])).await.unwrap();
    let begun = Instant::now();
    while word(&store.apply(&batch(vec![expired("over")])).await.unwrap().outcomes[0]) != "accepted" {
        assert!(begun.elapsed() < WAIT_LIMIT, "a hold of one second does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.audit().await.unwrap().findings, []);
    super::expect_named_in(
        store,
        &database,
        "INSERT INTO holds (order_id, expires_at)
             SELECT id, decided_at FROM decisions WHERE kind = 1 AND id = 'over';
         DELETE FROM order_lines WHERE order_id = 'over'",
        &[
            (3, "order over: its hold is open, yet it was confirmed or given back"),
            (3, "order over, SKU HAT: 0 pieces are noted as given back, its decisions gave back 2"),
        ],
    )
    .await;
}

async fn a_missing_decision_of_an_order_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM decisions WHERE id IN ('plain', 'open')",
        &[
            "SKU MUG: movement 2 is of command plain, which has no decision",
            "order plain, SKU MUG: 5 pieces are noted as taken, its decision took 0",
            "order open: a hold is open that no order asked for",
        ],
    )
    .await;
}

async fn a_missing_decision_of_a_return_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM decisions WHERE id = 'r-1'",
        &[
            "SKU MUG: movement 7 is of command r-1, which has no decision",
            "order plain, SKU MUG: 3 pieces are noted as given back, its decisions gave back 1",
        ],
    )
    .await;
}

async fn a_missing_decision_of_a_confirmation_is_named(database: Arc<TestDatabase>) {
    // It moved nothing: only the hold that is open no more betrays it.
    expect_named(
        &database,
        "DELETE FROM decisions WHERE id = 'whole' AND kind = 4",
        &["order whole: its hold is neither open, nor confirmed, nor given back"],
    )
    .await;
}

async fn a_rejected_return_that_gave_back_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE decisions SET accepted = NOT accepted WHERE id = 'r-1'",
        &[
            "command r-1 was rejected, yet movement 7 of SKU MUG took effect",
            "order plain, SKU MUG: 3 pieces are noted as given back, its decisions gave back 1",
        ],
    )
    .await;
}

async fn a_return_that_says_another_order_is_named(database: Arc<TestDatabase>) {
    // Its movement is still what it says: only the orders' lines betray it.
    expect_named(
        &database,
        "UPDATE decisions SET detail = replace(detail, '\"plain\"', '\"open\"') WHERE id = 'r-1'",
        &[
            "order plain, SKU MUG: 3 pieces are noted as given back, its decisions gave back 1",
            "order open, SKU MUG: 0 pieces are noted as given back, its decisions gave back 2",
        ],
    )
    .await;
}

async fn a_cancellation_that_says_fewer_pieces_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE decisions SET detail = replace(detail, '\"quantity\":3', '\"quantity\":2')
         WHERE id = 'cancelled' AND kind = 2",
        &[
            "command cancelled: movement 9 of SKU MUG (3, leaving 15) is not what its decision says",
            "order cancelled, SKU MUG: 3 pieces are noted as given back, its decisions gave back 2",
        ],
    )
    .await;
}
