//! The audit against ledgers damaged by hand: every damage is named.

mod large_carts;
mod orders;
mod sentences;
mod without_lines;

use std::collections::HashMap;
use std::sync::Arc;

use stock_verifier::cli::audit::{AuditOutcome, AuditStatus, report};
use stock_verifier::ledger::{CommandKey, CommandKind, Id, NextOffset, Offset};
use stock_verifier::replay::Progress;
use stock_verifier::replay::compare::standing;
use stock_verifier::replay::decision_verifier::ledger_alone;
use stock_verifier::replay::finding::{AuditReport, Finding};
use stock_verifier::store::{Audit, CommandBatch, Store};

use crate::support::{TestDatabase, advance, batch, hold, order, partition, records, set};
use crate::{on_every_database, on_every_store};

on_every_store![
    a_healthy_ledger_has_no_findings_and_is_counted,
    positions_are_compared_with_committed_offsets,
];

// Damaged by SQL. What is in memory is damaged where it is seen, in src/store/memory/audit/tests.rs.
on_every_database![
    a_level_changed_by_hand_is_named,
    a_level_below_zero_is_named,
    a_missing_level_and_one_from_nowhere_are_named,
    a_missing_movement_is_named,
    a_movement_changed_by_hand_is_named,
    a_newest_movement_with_another_balance_is_named,
    a_missing_decision_is_named,
    a_rejection_with_movements_is_named,
    a_decision_that_says_another_quantity_is_named,
    a_decision_that_says_a_line_twice_or_not_at_all_is_named,
    a_decision_that_is_no_json_is_named,
    a_movement_from_nowhere_is_named,
    a_movement_of_another_record_than_its_decision_is_named,
    a_hold_whose_end_is_asked_for_until_far_ahead_is_named,
    a_level_whose_version_is_off_is_named,
    a_decision_that_was_moved_or_taken_out_of_its_batch_is_named,
    a_hold_of_another_partition_than_its_order_is_named,
    findings_are_bounded_and_say_that_there_are_more,
];

/// A small ledger: two SKUs, three accepted carts and a rejected one.
async fn ledger(database: &TestDatabase) -> Arc<dyn Store> {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 10, None)])).await.unwrap();
    let orders = vec![
        order("o-1", &[("MUG", 2), ("HAT", 1)]),
        order("o-2", &[("MUG", 3)]),
        order("o-3", &[("HAT", 99)]),
        order("o-4", &[("HAT", 4), ("MUG", 1)]),
    ];
    store.apply(&records(0, 0, orders)).await.unwrap();
    store
}

/// What an audit of the ledger alone comes to.
fn outcome(audit: &Audit) -> AuditOutcome {
    AuditOutcome { ledger: audit.clone(), ..AuditOutcome::default() }
}

/// Damages that ledger, audits it, and expects each text in a finding of its invariant.
async fn expect_named(database: &TestDatabase, damage: &str, named: &[(u8, &str)]) {
    expect_named_in(ledger(database).await, database, damage, named).await;
}

/// The same with any ledger in that database.
async fn expect_named_in(store: Arc<dyn Store>, database: &TestDatabase, damage: &str, named: &[(u8, &str)]) {
    database.execute(damage).await;
    let audit = store.audit().await.unwrap();
    for (invariant, text) in named {
        assert!(
            audit
                .findings
                .iter()
                .any(|found| found.invariant == *invariant && found.what.to_string().contains(text)),
            "{text:?} of invariant {invariant} is not in {:#?}",
            audit.findings
        );
    }
    let mut text = Vec::new();
    assert_eq!(report(&mut text, &outcome(&audit)).unwrap(), AuditStatus::Broken);
    store.close().await;
}

async fn a_healthy_ledger_has_no_findings_and_is_counted(database: Arc<TestDatabase>) {
    let store = ledger(&database).await;
    let audit = store.audit().await.unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!((audit.skus, audit.movements, audit.decisions), (2, 7, 6));
    assert_eq!(audit.positions, HashMap::from([(partition(0), NextOffset(4))]));
    let mut text = Vec::new();
    assert_eq!(report(&mut text, &outcome(&audit)).unwrap(), AuditStatus::Holds);
    assert!(String::from_utf8(text).unwrap().contains("2 SKUs, 7 movements, 6 decisions"));
}

async fn a_level_changed_by_hand_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE levels SET available = 400 WHERE sku = 'MUG'",
        &[(2, "SKU MUG: its level is 400, its movements add up to 4")],
    )
    .await;
}

async fn a_level_below_zero_is_named(database: Arc<TestDatabase>) {
    let unchecked = database.by_dialect(
        "PRAGMA ignore_check_constraints = ON",
        "ALTER TABLE levels DROP CONSTRAINT levels_check",
    );
    expect_named(
        &database,
        &format!(
            "{unchecked}; UPDATE levels SET available = -5 WHERE sku = 'MUG';
             UPDATE movements SET balance = -1 WHERE sku = 'HAT' AND version = 2"
        ),
        &[(1, "SKU MUG: its level is -5, below zero"), (1, "SKU HAT: movement 2 left -1, below zero")],
    )
    .await;
}

async fn a_missing_level_and_one_from_nowhere_are_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM levels WHERE sku = 'MUG'; 
         INSERT INTO levels (sku, location, available, version, backorder_limit) VALUES ('NEW', '', 5, 1, 0)",
        &[(2, "SKU MUG: 4 movements, but no level"), (2, "SKU NEW: a level of 5, but no movements")],
    )
    .await;
}

async fn a_missing_movement_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM movements WHERE sku = 'MUG' AND version = 2",
        &[(2, "SKU MUG: movement 3 comes after movement 1"), (3, "command o-1")],
    )
    .await;
}

async fn a_movement_changed_by_hand_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE movements SET quantity = -1 WHERE sku = 'MUG' AND version = 3",
        &[
            (2, "SKU MUG: movement 3 moved -1 and left 5, but 8 was there before"),
            (2, "SKU MUG: its level is 4, its movements add up to 6"),
            (3, "command o-2: movement 3 of SKU MUG (-1, leaving 5) is not what its decision says"),
        ],
    )
    .await;
}

async fn a_newest_movement_with_another_balance_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE movements SET balance = 9 WHERE sku = 'HAT' AND version = 3",
        &[(2, "SKU HAT: its level is 5, its newest movement left 9"), (3, "command o-4")],
    )
    .await;
}

async fn a_missing_decision_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "DELETE FROM decisions WHERE id = 'o-2'",
        &[(3, "SKU MUG: movement 3 is of command o-2, which has no decision")],
    )
    .await;
}

async fn a_rejection_with_movements_is_named(database: Arc<TestDatabase>) {
    let no = database.by_dialect("0", "false");
    expect_named(
        &database,
        &format!("UPDATE decisions SET accepted = {no} WHERE id = 'o-2'"),
        &[(3, "command o-2 was rejected, yet movement 3 of SKU MUG took effect")],
    )
    .await;
}

async fn a_decision_that_says_another_quantity_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE decisions SET detail = replace(detail, '\"quantity\":3', '\"quantity\":2') WHERE id = 'o-2'",
        &[(3, "command o-2: movement 3 of SKU MUG (-3, leaving 5) is not what its decision says")],
    )
    .await;
}

async fn a_decision_that_says_a_line_twice_or_not_at_all_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        r#"UPDATE decisions SET detail = '{"lines":[{"sku":"MUG","quantity":3,"balance":5},
               {"sku":"MUG","quantity":3,"balance":5}]}' WHERE id = 'o-2';
           UPDATE decisions SET detail = '{"lines":[{"sku":"HAT","quantity":1,"balance":9}]}' WHERE id = 'o-1'"#,
        &[(3, "command o-2"), (3, "command o-1")],
    )
    .await;
}

async fn a_decision_that_is_no_json_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE decisions SET detail = '{\"lines\":[' WHERE id = 'o-4'",
        &[(3, "command o-4: its decision is not readable JSON")],
    )
    .await;
}

async fn a_movement_from_nowhere_is_named(database: Arc<TestDatabase>) {
    // One that keeps chain and level whole: only the decision betrays it.
    expect_named(
        &database,
        "INSERT INTO movements (sku, location, version, quantity, balance, seq, kind, id)
             SELECT 'MUG', '', 5, -4, 0, seq, kind, id FROM decisions WHERE id = 'o-3';
         UPDATE levels SET available = 0, version = 5 WHERE sku = 'MUG'",
        &[(3, "command o-3 was rejected, yet movement 5 of SKU MUG took effect")],
    )
    .await;
}

async fn a_movement_of_another_record_than_its_decision_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE movements SET \"offset\" = 7 WHERE id = 'o-2';
         UPDATE movements SET partition = NULL, \"offset\" = NULL WHERE id = 'o-1' AND sku = 'HAT'",
        &[
            (3, "command o-2: movement 3 of SKU MUG says that it came by record 0@7, its decision 0@1"),
            (3, "command o-1: movement 2 of SKU HAT says that it came by record none, its decision 0@0"),
        ],
    )
    .await;
}

async fn a_hold_whose_end_is_asked_for_until_far_ahead_is_named(database: Arc<TestDatabase>) {
    let store = ledger(&database).await;
    store.apply(&records(0, 4, vec![hold("h-1", 60, &[("MUG", 1)])])).await.unwrap();
    let far = match *database {
        TestDatabase::Postgres { .. } | TestDatabase::Citus { .. } => "now() + interval '1 year'",
        TestDatabase::Sqlite { .. } | TestDatabase::Memory(_) => "4102444800000000",
    };
    expect_named_in(
        store,
        &database,
        &format!("UPDATE holds SET asked_until = {far}"),
        &[(3, "order h-1: the end of its hold is somebody's to ask for until 2")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_was_set_back_is_named() {
    let database = Arc::new(TestDatabase::postgres_migrated().await);
    expect_named(
        &database,
        "SELECT setval('ledger_seq', 100000, false)",
        &[(3, "ledger_seq is at 100000, but a decision has ledger sequence 200003")],
    )
    .await;
    database.remove().await;
}

async fn a_level_whose_version_is_off_is_named(database: Arc<TestDatabase>) {
    expect_named(
        &database,
        "UPDATE levels SET version = 40 WHERE sku = 'HAT'",
        &[(2, "SKU HAT: its level has version 40, its newest movement 3")],
    )
    .await;
}

/// What deciding the ledger again finds, from what it says itself.
async fn again(store: &Arc<dyn Store>) -> Vec<Finding> {
    ledger_alone(&**store, None, &Progress::default()).await.unwrap().findings
}

async fn a_decision_that_was_moved_or_taken_out_of_its_batch_is_named(database: Arc<TestDatabase>) {
    let store = ledger(&database).await;
    // At no whole millisecond, as records have.
    let time = database.by_dialect("1767225600000001", "'2026-01-01T00:00:00.000001Z'");
    database.execute(&format!("UPDATE decisions SET decided_at = {time} WHERE kind = 1")).await;
    assert_eq!(again(&store).await, []);
    let key = |id: &str| CommandKey { id: Id::new(id).unwrap(), kind: CommandKind::OrderCreated };
    let torn = |found: &Finding, id: &str| matches!(found, Finding::TornBatch { key: torn, seq, after } if *torn == key(id) && seq.0 - after.0 > 1);
    // It was rejected and moved nothing: only the gap betrays it.
    database.execute("UPDATE decisions SET seq = seq + 40 WHERE id = 'o-3'").await;
    let found = again(&store).await;
    assert!(found.iter().any(|found| torn(found, "o-4")), "{found:?}");
    let out_of_order = |found: &Finding| {
        matches!(found, Finding::OutOfOrder { key: moved, record, after }
            if *moved == key("o-3") && (record.offset, *after) == (Offset(2), Offset(3)))
    };
    assert!(found.iter().any(out_of_order), "{found:?}");
    database.execute("DELETE FROM decisions WHERE id = 'o-3'").await;
    let found = again(&store).await;
    assert!(found.len() == 1 && torn(&found[0], "o-4"), "{found:?}");
    store.close().await;
}

async fn a_hold_of_another_partition_than_its_order_is_named(database: Arc<TestDatabase>) {
    let store = ledger(&database).await;
    store.apply(&records(0, 4, vec![hold("h-1", 60, &[("MUG", 1)])])).await.unwrap();
    assert_eq!(again(&store).await, []);
    database.execute("UPDATE holds SET partition = 5").await;
    let found = again(&store).await;
    let [Finding::OpenHold { order_id, now, decided }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((order_id.as_str(), now.expires_at), ("h-1", decided.expires_at));
    assert_eq!((&now.at, &decided.at), (&Some(partition(5)), &Some(partition(0))));
    store.close().await;
}

async fn findings_are_bounded_and_say_that_there_are_more(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let many = (0..200).map(|n| set(&format!("a-{n}"), &format!("SKU-{n:03}"), 10, None)).collect();
    store.apply(&batch(many)).await.unwrap();
    database.execute("UPDATE levels SET available = 11").await;
    let audit = store.audit().await.unwrap();
    assert_eq!(audit.findings.len(), 21);
    assert_eq!(audit.findings[20].what.to_string(), "… and more of this kind");
}

async fn positions_are_compared_with_committed_offsets(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let advances = vec![advance(0, 0, 4), advance(1, 0, 9), advance(2, 0, 3)];
    store.apply(&CommandBatch { advances, requests: Vec::new(), epoch: None }).await.unwrap();
    let audit = store.audit().await.unwrap();
    let verdict = |committed: &[(i32, i64)]| {
        let committed =
            committed.iter().map(|(number, next)| (partition(*number), NextOffset(*next))).collect();
        let mut text = Vec::new();
        let apart = Some(standing(&audit.positions, &committed, false));
        let verdict = report(&mut text, &AuditOutcome { apart, ..outcome(&audit) }).unwrap();
        (verdict, String::from_utf8(text).unwrap())
    };
    assert_eq!(verdict(&[(0, 4), (1, 9), (2, 3)]).0, AuditStatus::Holds);
    let (broken, text) = verdict(&[(0, 4), (1, 8), (3, 1)]);
    assert_eq!(broken, AuditStatus::Broken);
    assert!(text.contains("orders[1]: the ledger is at 9, Kafka's committed offset is 8"), "{text}");
    assert!(text.contains("orders[2]: the ledger is at 3, Kafka has no committed offset"), "{text}");
    assert!(text.contains("orders[3]: the ledger was never here, Kafka's committed offset is 1"), "{text}");
}

#[test]
fn what_was_published_and_is_all_deleted_is_said_not_to_be_compared() {
    let again = AuditReport { unretained: 3, ..AuditReport::default() };
    let outcome = AuditOutcome { again, with_topics: true, ..AuditOutcome::default() };
    let mut text = Vec::new();
    assert_eq!(report(&mut text, &outcome).unwrap(), AuditStatus::Holds);
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("–  4  ") && text.contains("not compared; all that was published is deleted"),
        "{text}"
    );
}

#[test]
fn the_report_marks_each_invariant_and_says_what_was_not_compared() {
    let mut text = Vec::new();
    report(&mut text, &AuditOutcome::default()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches('✓').count(), 4, "{text}");
    assert!(text.contains("not compared"), "{text}");
}
