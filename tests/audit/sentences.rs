//! The audit of a SQLite file and that of a server: the same damage is said in the same sentences.

use super::orders::ledger;
use crate::support::TestDatabase;

/// Damages, each of a ledger of its own: what it is, and how it is done in SQLite and in PostgreSQL.
const DAMAGES: [(&str, &str, &str); 9] = [
    (
        "levels",
        "UPDATE levels SET available = 400 WHERE sku = 'MUG';
         UPDATE levels SET version = 40 WHERE sku = 'HAT' AND location = '';
         DELETE FROM levels WHERE location = 'BERLIN';
         INSERT INTO levels (sku, location, available, version, backorder_limit) VALUES ('NEW', '', 5, 1, 0)",
        "",
    ),
    (
        "levels and balances below zero",
        "PRAGMA ignore_check_constraints = ON;
         UPDATE levels SET available = -5 WHERE sku = 'MUG';
         UPDATE movements SET balance = -1 WHERE sku = 'HAT' AND location = '' AND version = 2;
         UPDATE movements SET balance = -2 WHERE sku = 'HAT' AND location = '' AND version = 3;
         UPDATE movements SET balance = -3 WHERE location = 'BERLIN' AND version = 2",
        "ALTER TABLE levels DROP CONSTRAINT levels_check;
         UPDATE levels SET available = -5 WHERE sku = 'MUG';
         UPDATE movements SET balance = -1 WHERE sku = 'HAT' AND location = '' AND version = 2;
         UPDATE movements SET balance = -2 WHERE sku = 'HAT' AND location = '' AND version = 3;
         UPDATE movements SET balance = -3 WHERE location = 'BERLIN' AND version = 2",
    ),
    (
        "movements",
        "UPDATE movements SET quantity = -1 WHERE id = 'cancelled' AND kind = 1;
         DELETE FROM movements WHERE id = 'plain' AND sku = 'HAT';
         UPDATE movements SET id = 'nobody' WHERE id = 'r-1';
         UPDATE movements SET partition = 3, \"offset\" = 7 WHERE id = 'r-2' AND sku = 'MUG';
         UPDATE movements SET balance = 9 WHERE location = 'BERLIN' AND version = 3",
        "",
    ),
    (
        "decisions",
        "DELETE FROM decisions WHERE id = 'plain';
         UPDATE decisions SET accepted = NOT accepted WHERE id = 'r-1';
         UPDATE decisions SET seq = seq + 40 WHERE id = 'r-2'",
        "",
    ),
    (
        "what decisions say",
        r#"UPDATE decisions SET detail = '{"lines":[{"sku":"MUG","quantity":3,"balance":12},
               {"sku":"MUG","quantity":3,"balance":12}]}' WHERE id = 'cancelled' AND kind = 1;
           UPDATE decisions SET detail = '{"lines":[{"sku":"HAT","quantity":2,"balance":8}]}' WHERE id = 'plain';
           UPDATE decisions SET detail = replace(detail, '"plain"', '"open"') WHERE id = 'r-1'"#,
        "",
    ),
    (
        "lines of orders",
        "UPDATE order_lines SET returned = returned + 1 WHERE order_id = 'plain' AND sku = 'HAT';
         UPDATE order_lines SET deducted = 6 WHERE order_id = 'plain' AND sku = 'MUG';
         DELETE FROM order_lines WHERE order_id = 'part';
         INSERT INTO order_lines (order_id, sku, location, deducted, returned)
             VALUES ('nobody', 'MUG', '', 2, 1), ('open', 'HAT', 'BERLIN', 4, 3)",
        "",
    ),
    (
        "lines that gave back too much",
        "PRAGMA ignore_check_constraints = ON;
         UPDATE order_lines SET returned = 6 WHERE order_id = 'plain' AND sku = 'MUG';
         UPDATE order_lines SET returned = -1 WHERE order_id = 'part'",
        "ALTER TABLE order_lines DROP CONSTRAINT order_lines_check;
         UPDATE order_lines SET returned = 6 WHERE order_id = 'plain' AND sku = 'MUG';
         UPDATE order_lines SET returned = -1 WHERE order_id = 'part'",
    ),
    (
        "holds",
        "UPDATE holds SET asked_until = 4102444800000000;
         INSERT INTO holds (order_id, expires_at) SELECT id, decided_at FROM decisions
             WHERE kind = 1 AND id IN ('part', 'plain');
         INSERT INTO holds (order_id, expires_at) SELECT 'nobody', decided_at FROM decisions
             WHERE kind = 1 AND id = 'plain'",
        "UPDATE holds SET asked_until = '2100-01-01T00:00:00Z';
         INSERT INTO holds (order_id, expires_at) SELECT id, decided_at FROM decisions
             WHERE kind = 1 AND id IN ('part', 'plain');
         INSERT INTO holds (order_id, expires_at) SELECT 'nobody', decided_at FROM decisions
             WHERE kind = 1 AND id = 'plain'",
    ),
    ("holds that are gone", "DELETE FROM holds", ""),
];

/// What an audit of a database says after the damage, sorted. Ledger sequences and times differ, and are made equal.
async fn said(database: TestDatabase, damage: &str) -> Vec<(u8, String)> {
    let store = ledger(&database).await;
    database.execute(damage).await;
    let findings = store.audit().await.unwrap().findings;
    store.close().await;
    database.remove().await;
    let mut found: Vec<_> =
        findings.into_iter().map(|found| (found.invariant, masked(&found.what.to_string()))).collect();
    found.sort();
    found
}

fn masked(what: &str) -> String {
    const SEQUENCE: &str = "ledger sequence ";
    // When a hold of the ledger ends.
    let what = what.split(",\"expires_at\"").next().unwrap_or_default();
    let Some((before, after)) = what.split_once(SEQUENCE) else { return what.to_owned() };
    let digits = |letter: char| letter.is_ascii_digit();
    format!("{before}{SEQUENCE}{}", after.replace(digits, "").replace(", its decision ", ", its decision"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_a_server_say_the_same_of_the_same_damage() {
    let mut apart = Vec::new();
    for (name, sqlite, postgres) in DAMAGES {
        let postgres = if postgres.is_empty() { sqlite } else { postgres };
        let of_file = said(TestDatabase::sqlite(), sqlite).await;
        let of_server = said(TestDatabase::postgres_migrated().await, postgres).await;
        assert!(!of_server.is_empty(), "{name}: nothing was found");
        if of_file != of_server {
            let file: Vec<_> = of_file.iter().filter(|found| !of_server.contains(found)).collect();
            let server: Vec<_> = of_server.iter().filter(|found| !of_file.contains(found)).collect();
            apart.push(format!("{name}: only the file: {file:#?}, only the server: {server:#?}"));
        }
    }
    assert!(apart.is_empty(), "{}", apart.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_a_server_say_the_same_of_a_decision_that_is_no_json() {
    let damage = "UPDATE decisions SET detail = '{\"lines\":[' WHERE id = 'plain'";
    let unreadable = |found: Vec<(u8, String)>| -> Vec<_> {
        found.into_iter().filter(|(_, what)| what.contains("not readable")).collect()
    };
    let of_file = unreadable(said(TestDatabase::sqlite(), damage).await);
    assert_eq!(of_file.len(), 1, "{of_file:?}");
    assert_eq!(of_file, unreadable(said(TestDatabase::postgres_migrated().await, damage).await));
}
