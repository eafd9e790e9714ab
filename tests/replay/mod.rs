//! `replay` and the audit with topics, on real servers.

mod damage;
mod docs;
mod earlier;
mod rebuild;
mod redo;
mod retained;

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use stock_verifier::ledger::{Command as Ask, Id, Item, Quantity, Request, Sku, Terms};
use stock_verifier::store::{CommandBatch, LedgerAdmin as _, LedgerWriter as _};

use crate::support::kafka::{Sent, order, sent};
use crate::support::scene::Scene;
use crate::support::servers::wait_for;
use crate::support::{stream, wait};

pub use rebuild::a_ledger_of_many_orders_is_rebuilt_after_a_kill;

const SOON: Duration = Duration::from_secs(60);

/// Runs a command to its end: exit status, stdout, stderr.
pub fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("it ended by itself"), text(stdout), text(stderr))
}

/// The JSON report of a command that ends with this status.
#[track_caller]
pub fn report(scene: &Scene, status: i32, words: &[&str]) -> Value {
    let mut command = scene.tool(words);
    command.arg("--json");
    let (ended, out, log) = run(command);
    assert_eq!(ended, status, "{words:?}\n{out}\n{log}");
    serde_json::from_str(&out).expect("JSON")
}

/// A record keyed by its order.
fn command(value: &Value) -> Sent {
    sent(value["order_id"].as_str().expect("an order id"), value.to_string())
}

/// A scene with a bad day behind it: orders of every kind and their whole lives, repeats, conflicts, garbage,
/// adjustments by records and by an operator; and the verifier stopped.
pub fn lived(orders: usize) -> Scene {
    let scene = Scene::new(3);
    let stream = stream::make(7, orders, 3);
    scene.stock(&stream.stock);
    scene.stock(&[("LIFE", 100)]);
    let adjust = |id: &str, kind: &str, more: Value| {
        let mut value = json!({"type": kind, "adjustment_id": id, "sku": "SKU-001"});
        for (name, field) in more.as_object().expect("an object") {
            value[name] = field.clone();
        }
        sent("SKU-001", value.to_string())
    };
    scene.kafka.produce(
        &scene.topic("adjustments"),
        &[
            adjust("a-1", "stock.received", json!({"quantity": 9})),
            adjust("a-2", "stock.adjusted", json!({"by": -3})),
            adjust("a-3", "stock.adjusted", json!({"by": -900_000_000})),
            adjust("a-4", "stock.set", json!({"available": 7, "expected_version": 1_000_000})),
            adjust("a-5", "stock.limits_set", json!({"backorder_limit": 5, "order_limit": 4})),
            adjust("a-6", "stock.limits_set", json!({"sku": "NO-SUCH", "backorder_limit": 5})),
            adjust("a-7", "stock.received", json!({"quantity": 1_000_000_000_000_i64})),
        ],
    );
    let mug = |quantity: i64| json!([{"sku": "LIFE", "quantity": quantity}]);
    let follow = |kind: &str, order_id: &str| json!({"type": kind, "order_id": order_id});
    let hold = |order_id: &str, seconds: i64| json!({"type": "order.created", "order_id": order_id, "hold_seconds": seconds, "lines": mug(1)});
    let life = [
        follow("order.cancelled", "o-1"),
        follow("order.cancelled", "early"),
        json!({"type": "order.created", "order_id": "early", "lines": mug(1)}),
        hold("h-1", 900),
        hold("h-2", 900),
        hold("h-3", 1),
        hold("h-4", 900),
        json!({"type": "order.hold_extended", "order_id": "h-1", "extension_id": "e-1", "hold_seconds": 60}),
        json!({"type": "order.hold_extended", "order_id": "h-1", "extension_id": "e-2", "hold_seconds": 60}),
        json!({"type": "order.confirmed", "order_id": "h-1"}),
        json!({"type": "order.confirmed", "order_id": "h-1", "confirmation_id": "c-2"}),
        follow("order.released", "h-2"),
        json!({"type": "order.returned", "order_id": "h-1", "return_id": "r-1", "lines": mug(1)}),
        json!({"type": "order.returned", "order_id": "h-1", "return_id": "r-2", "lines": mug(1)}),
        json!({"type": "order.returned", "order_id": "nobody", "return_id": "r-3", "lines": mug(1)}),
        json!({"type": "order.created", "order_id": "part", "policy": "partial",
               "lines": [{"sku": "LIFE", "quantity": 2}, {"sku": "NO-SUCH-SKU", "quantity": 1}]}),
    ];
    // Some of it before most orders, and some after; what cancels an order stands on its partition.
    let mut before: Vec<Sent> = life[..2].iter().map(command).collect();
    let cancelled = stream.records.iter().find(|record| record.key == before[0].key);
    before[0].partition = cancelled.expect("there is such an order").partition;
    scene.produce(&before);
    scene.produce(&stream.records);
    scene.produce(&life[2..].iter().map(command).collect::<Vec<_>>());
    let verifier = scene.start("a", &["--batch-max-orders", "200"]);
    scene.done(SOON);
    scene.adjusted(SOON);
    wait::until("the short hold has expired", SOON, || {
        scene.database.number("SELECT count(*) FROM decisions WHERE kind = 7") == 1
    });
    // An operator's own commands, which no topic holds.
    scene.stock(&[("SKU-001", 3), ("SKU-NEW", 4)]);
    // One after the other on one partition: the second finds what the first left.
    let late = order("late", &[("SKU-NEW", 1)]).to(0);
    let late = late.header("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    scene.produce(&[late, order("later", &[("SKU-NEW", 9)]).to(0)]);
    scene.done(SOON);
    verifier.stop();
    scene
}

#[test]
fn a_ledger_that_lived_is_the_same_when_decided_again_and_all_of_it_was_decided() {
    let scene = lived(800);
    let found = report(&scene, 0, &["replay", "diff"]);
    let published = scene.kafka.count(&scene.topic("accepted")) + scene.kafka.count(&scene.topic("rejected"));
    assert_eq!(found["decisions"], json!(published), "{found:#}");
    assert_eq!(found["published"], json!(published + scene.kafka.count(&scene.topic("dead"))), "{found:#}");
    assert_eq!(found["dead_letters"], json!(scene.kafka.count(&scene.topic("dead"))), "{found:#}");
    assert!(found["absorbed"].as_i64().expect("a number") > 0, "{found:#}");

    let (status, out, log) = run(scene.tool(&["audit", "--topics"]));
    assert_eq!(status, 0, "{out}\n{log}");
    for invariant in 1..=6 {
        assert!(out.contains(&format!("✓  {invariant}")), "{out}");
    }
    // And from the ledger alone, without Kafka.
    let (status, out, _) = run(scene.tool(&["audit"]));
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("✓  5") && out.contains("–  4"), "{out}");
}

#[test]
fn what_is_chosen_is_compared_and_nothing_else() {
    let scene = lived(300);
    let compared = |words: &[&str]| {
        let all: Vec<&str> = ["replay", "diff"].iter().chain(words).copied().collect();
        report(&scene, 0, &all)["decisions"].as_u64().expect("a number")
    };
    let everything = compared(&[]);
    assert_eq!(
        compared(&["--order-id", "h-1"]),
        7,
        "the hold, two extensions, two confirmations, two returns"
    );
    assert_eq!(compared(&["--sku", "SKU-NEW"]), 2);
    assert_eq!(compared(&["--order-id", "h-1", "--order-id", "late"]), 8);
    assert_eq!((0..3).map(|n| compared(&["--partition", &n.to_string()])).sum::<u64>(), everything);
    assert_eq!(compared(&["--from", "latest"]), 0);
    assert_eq!(compared(&["--from", "1h"]), everything);
    assert_eq!(compared(&["--to", "1h"]), 0);
    let ids = scene.file("ids");
    std::fs::write(&ids, "late\n\nlater\n").expect("a file");
    assert_eq!(compared(&["--order-ids-file", ids.to_str().expect("a path")]), 2);
    let positions = scene.file("positions");
    let ends = scene.kafka.ends(&scene.orders(), "read_committed");
    std::fs::write(&positions, format!("{} 1 {}\n", scene.orders(), ends[1] - 5)).expect("a file");
    assert!(compared(&["--positions-file", positions.to_str().expect("a path")]) <= 5);
}

#[test]
fn an_id_of_which_nothing_is_known_is_named_and_what_is_known_of_another_is_said() {
    let scene = Scene::new(1);
    let berlin = json!({"type": "stock.received", "adjustment_id": "a-1", "sku": "MUG", "location": "BERLIN", "quantity": 5});
    scene.kafka.produce(&scene.topic("adjustments"), &[sent("MUG", berlin.to_string())]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.adjusted(SOON);
    let at_berlin = json!([{"sku": "MUG", "location": "BERLIN", "quantity": 2}]);
    scene.produce(&[
        command(&json!({"type": "order.created", "order_id": "o-1", "lines": at_berlin})),
        command(&json!({"type": "order.returned", "order_id": "o-1", "return_id": "r-1",
                        "lines": [{"sku": "MUG", "quantity": 1}]})),
        sent("o-bad", "{"),
    ]);
    scene.done(SOON);
    verifier.stop();

    let found = report(&scene, 0, &["replay", "diff", "--order-id", "o-1"]);
    let says = "order.returned/r-1 names MUG at the default location, of which order o-1 took nothing; it took 2 of MUG at \
                BERLIN";
    assert_eq!(found["notes"], json!([says]), "{found:#}");
    assert_eq!(found["unknown"], json!(null), "{found:#}");
    let found = report(&scene, 0, &["replay", "diff", "--order-id", "o-bad"]);
    let note = found["notes"][0].as_str().expect("a note");
    assert!(note.contains("[0]@2, whose key is o-bad, is a dead letter: not_json"), "{note}");

    // One mistyped beside one that is right.
    let words = ["--order-id", "o-1", "--order-id", "o-1\u{a0}", "--sku", "MUGG", "--sku", "MUG"];
    for replay in ["diff", "republish", "reprocess"] {
        let found = report(&scene, 1, &[&["replay", replay][..], &words].concat());
        assert_eq!(found["unknown"], json!(["SKU MUGG", "id o-1<U+00A0>"]), "{replay}: {found:#}");
        let (status, out, log) = run(scene.tool(&[&["replay", replay][..], &words].concat()));
        assert_eq!(status, 1, "{out}\n{log}");
        assert!(out.contains("Nothing is known of id o-1<U+00A0>: check how it is written"), "{out}");
    }
    let (status, _, log) =
        run(scene.tool(&["replay", "reprocess", "--dead-letters", "--error", "unknown_typ"]));
    assert_eq!(status, 2, "{log}");
    assert!(
        log.contains("unknown_typ") && log.contains("order_conflict") && log.contains("not_json"),
        "{log}"
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_reason() {
    let scene = lived(100);
    let refused = |words: &[&str], says: &[&str]| {
        let (status, out, log) = run(scene.tool(words));
        assert_eq!(status, 2, "{words:?}\n{out}\n{log}");
        for text in says {
            assert!(log.contains(text), "{text:?} is not in:\n{log}");
        }
    };
    refused(
        &["replay", "diff", "--from", "yesterday"],
        &["earliest, latest, an offset", "2026-11-22T18:00:00Z"],
    );
    refused(&["replay", "diff", "--from", "99999999"], &["there is no offset 99999999 yet"]);
    scene.kafka.delete_records(&scene.orders(), 0, 5);
    refused(
        &["replay", "diff", "--from", "0"],
        &["records before offset 5 were deleted", "first that is left is 5, which is of 20"],
    );
    let into = format!("sqlite://{}", scene.file("new.db").display());
    refused(
        &["replay", "rebuild", "--into", &into],
        &["records before offset 5 were deleted", "restore a backup"],
    );
    assert!(!scene.file("new.db").exists(), "nothing is made without --execute");
    // What is left can be compared all the same.
    report(&scene, 0, &["replay", "diff"]);
    // The database goes back in time.
    scene.database.run(&format!("UPDATE positions SET next_offset = 6 WHERE topic = '{}'", scene.orders()));
    refused(&["replay", "republish"], &["the database is behind"]);
    scene
        .database
        .run(&format!("UPDATE positions SET next_offset = 60000 WHERE topic = '{}'", scene.orders()));
    refused(&["replay", "republish"], &["the database is ahead"]);
}

#[test]
fn an_order_that_meets_the_first_receipt_of_its_sku_finds_it_or_comes_before_it() {
    let scene = Scene::new(1);
    let apply = |command: Ask| {
        let store = scene.database.store();
        let batch = CommandBatch {
            advances: Vec::new(),
            requests: vec![Request { command, source: None }],
            epoch: None,
        };
        std::thread::spawn(move || {
            wait_for(async {
                store.apply(&batch).await.expect("applied");
                store.close().await;
            });
        })
    };
    let id = |text: &str| Id::new(text).expect("an id");
    let item = || Item::from(Sku::new("NEW").expect("a SKU"));
    let one = Quantity::new(1).expect("a quantity");
    let waiting = || {
        scene.database.number(
            "SELECT count(*) FROM pg_locks WHERE NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
    };
    let mut both = Vec::new();
    // The receipt has drawn its ledger sequence and cannot write its movement yet, when the order comes.
    scene.database.holding("LOCK TABLE movements IN SHARE MODE", || {
        both.push(apply(Ask::stock_received(id("r-1"), item(), one)));
        wait::until("the receipt waits", SOON, || waiting() == 1);
        both.push(apply(Ask::order_created(id("o-1"), vec![(item(), one)], Terms::default())));
        wait::until("the order is decided or waits", SOON, || both[1].is_finished() || waiting() == 2);
    });
    for decided in both {
        decided.join().expect("decided");
    }
    let (status, out, log) = run(scene.tool(&["audit"]));
    assert_eq!(status, 0, "{out}\n{log}");
}
