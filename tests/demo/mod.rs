//! The demo: the whole program in one command, and a proof that is one.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use stock_verifier::config::BatchArgs;
use stock_verifier::demo::readback::Evidence;
use stock_verifier::demo::{Options, play, proof};
use stock_verifier::replay::Progress;
use stock_verifier::store::LedgerAdmin as _;
use stock_verifier::store::sqlite::SqliteStore;

use crate::http::client::Client;
use crate::support::process::{Verifier, program};
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Output {
    program().arg("demo").args(arguments).output().expect("the binary was built for this test")
}

#[test]
fn the_demo_runs_proves_and_exits_with_0() {
    let done = demo(&["--orders", "3000", "--seed", "5"]);
    let out = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{out}\n{}", String::from_utf8_lossy(&done.stderr));
    for expected in [
        "What became of 3,",
        "insufficient_stock",
        "unknown_sku",
        "invalid_order",
        "order_conflict",
        "records a second",
        "p50",
        "p99",
        "FLASH-CONSOLE",
        "sold out",
        "All six hold",
        "curl http://127.0.0.1:",
    ] {
        assert!(out.contains(expected), "no {expected:?} in:\n{out}");
    }
    assert_eq!(out.matches('✓').count(), 6, "{out}");
    assert!(!out.contains('✗'), "{out}");
}

/// How many commands of a kind are decided, by the metrics.
fn decided(client: &Client, kind: &str) -> u64 {
    let metrics = client.get("/metrics").text;
    let of_it = format!("stock_verifier_decisions_total{{type=\"{kind}\"");
    let counts = metrics.lines().filter(|line| line.starts_with(&of_it));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn the_demo_that_goes_on_names_its_page_first_and_proves_its_ledger_when_it_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["demo", "--serve"]);
    let mut demo = Verifier::start(command, "demo", directory.path().join("log"));
    demo.said("Orders flow", SOON);
    let log = demo.log();
    let address = log.lines().next().unwrap().strip_prefix("Watch it: http://").unwrap();
    let client = Client::new(address.trim_end_matches('/'));
    assert!(client.get("/").text.contains("<title>Stock verifier"));
    let kinds = [
        "order.returned",
        "order.confirmed",
        "order.released",
        "order.cancelled",
        "adjustment",
        "hold.expired",
    ];
    for kind in kinds {
        let before = decided(&client, "order.created");
        wait::until(&format!("{kind} is decided, and orders go on"), SOON, || {
            decided(&client, kind) > 0 && decided(&client, "order.created") > before
        });
    }
    demo.signal("INT");
    assert_eq!(demo.wait(SOON).code(), Some(0), "{}", demo.log());
    let out = demo.log();
    assert!(out.contains("All six hold"), "{out}");
    assert!(out.matches('✓').count() == 6 && !out.contains('✗'), "{out}");
    let ledger = out.lines().find_map(|line| line.strip_prefix("Ledger: ")).unwrap();
    assert!(!Path::new(ledger).exists(), "it cleans up");
}

#[test]
fn a_ledger_that_exists_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kept.db");
    std::fs::write(&file, "precious").unwrap();
    let done = demo(&["--orders", "10", "--ledger", file.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("exists already"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

async fn damage(file: &Path, sql: &'static str) {
    let mut connection: SqliteConnection =
        SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let done = sqlx::query(sql).execute(&mut connection).await.unwrap();
    assert!(done.rows_affected() > 0, "{sql} changed nothing");
    connection.close().await.unwrap();
}

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(&format!("sqlite://{}", file.display())).await.unwrap()
}

/// The invariants that do not hold for a ledger and what the topics held.
async fn broken(file: &Path, evidence: &Evidence) -> Vec<u8> {
    let store = open(file).await;
    let proof = proof::prove(&store, evidence).await.unwrap();
    store.close().await;
    proof.verdicts.iter().filter(|verdict| !verdict.holds()).map(|verdict| verdict.number).collect()
}

/// A play of 1,500 orders; the ledger stays in `file`.
async fn played(file: &Path) -> Evidence {
    let batch = BatchArgs {
        batch_max_orders: 200,
        batch_max_bytes: bytesize::ByteSize::mib(1),
        batch_max_age: std::time::Duration::from_millis(5),
    };
    let http_listen = "127.0.0.1:0".parse().unwrap();
    let options = Options { orders: 1_500, seed: 9, ledger: None, http_listen, batch };
    let played = play(&options, file, || (Progress::default(), ())).await.unwrap();
    played.store.close().await;
    played.evidence
}

/// Each damage, and the first invariant that must show it.
const DAMAGES: &[(&str, u8)] = &[
    ("UPDATE levels SET available = available + 1 WHERE sku = 'FLASH-CONSOLE'", 2),
    ("UPDATE positions SET next_offset = next_offset - 1 WHERE partition = 3", 6),
    ("UPDATE movements SET balance = balance - 1 WHERE seq = (SELECT max(seq) FROM movements)", 2),
    ("DELETE FROM movements WHERE seq = (SELECT max(seq) FROM movements)", 2),
    ("DELETE FROM decisions WHERE seq = (SELECT max(seq) FROM decisions WHERE accepted)", 3),
    (
        "UPDATE decisions SET accepted = 0, detail = '[]' WHERE seq = (SELECT max(seq) FROM decisions WHERE accepted)",
        3,
    ),
    (
        "UPDATE decisions SET detail = replace(detail, '\"available\":', '\"available\":1')
         WHERE seq = (SELECT max(seq) FROM decisions WHERE detail LIKE '%\"available\":%')",
        4,
    ),
    ("UPDATE decisions SET \"offset\" = \"offset\" + 1 WHERE seq = (SELECT max(seq) FROM decisions)", 3),
    ("DELETE FROM decisions WHERE seq = (SELECT min(seq) FROM decisions WHERE kind = 10)", 3),
    ("UPDATE levels SET available = -1, backorder_limit = 5 WHERE sku = 'FLASH-CONSOLE'", 1),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_ledger_fails_the_proof() {
    let directory = tempfile::tempdir().unwrap();
    let (sound, damaged) = (directory.path().join("sound.db"), directory.path().join("damaged.db"));
    let evidence = played(&sound).await;
    assert!(broken(&sound, &evidence).await.is_empty());
    for (sql, invariant) in DAMAGES {
        std::fs::copy(&sound, &damaged).unwrap();
        damage(&damaged, sql).await;
        let broken = broken(&damaged, &evidence).await;
        assert_eq!(broken.first(), Some(invariant), "{sql} breaks {broken:?}");
        std::fs::remove_file(&damaged).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_repeated_and_forged_events_fail_the_proof() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sound.db");
    let mut evidence = played(&file).await;
    let published = evidence.results.keys().next().unwrap().clone();

    let result = evidence.results.remove(&published).unwrap();
    assert_eq!(broken(&file, &evidence).await, [4], "a lost result");
    evidence.results.insert(published.clone(), vec![result[0], result[0]]);
    assert_eq!(broken(&file, &evidence).await, [4], "a result published twice");
    evidence.results.insert(published.clone(), vec![[7; 16]]);
    assert_eq!(broken(&file, &evidence).await, [4], "a result with other bytes");
    evidence.results.insert(published, result.clone());
    evidence.results.insert("order.created/nobody".to_owned(), result);
    assert_eq!(broken(&file, &evidence).await, [4], "a result of nothing");
    evidence.results.remove("order.created/nobody");

    let (of, letters) = evidence.letters.iter().next().map(|(of, all)| (of.clone(), all.clone())).unwrap();
    evidence.letters.remove(&of);
    assert_eq!(broken(&file, &evidence).await, [4], "a lost dead letter");
    evidence.letters.insert(of, letters);
    assert!(broken(&file, &evidence).await.is_empty(), "all as it was");
}
