//! A ledger made again.

use std::time::{Duration, Instant};

use serde_json::json;
use stock_verifier::event::MAX_KEY_BYTES;

use super::{SOON, lived, report, run};
use crate::support::database::Database;
use crate::support::kafka::{Sent, order, sent};
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

#[test]
fn a_ledger_that_lived_is_rebuilt_equal_to_the_row() {
    let scene = lived(700);
    let new = Database::empty(&Servers::shared().database_url);
    let words = ["replay", "rebuild", "--into", &new.url()];
    let looked = report(&scene, 0, &words);
    assert_eq!(looked["executed"], json!(false));
    assert_eq!(new.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);
    let done = report(&scene, 0, &[&words[..], &["--execute"]].concat());
    assert_eq!(done["differences"], json!([]), "{done:#}");
    assert_eq!(done["restored"], json!(scene.database.number("SELECT count(*) FROM decisions")), "{done:#}");

    // Into a SQLite file as well; and a ledger that is not the beginning of this one is refused.
    let file = format!("sqlite://{}", scene.file("new.db").display());
    let done = report(&scene, 0, &["replay", "rebuild", "--into", &file, "--execute"]);
    assert_eq!(done["differences"], json!([]), "{done:#}");
    let other = Database::fresh(&Servers::shared().database_url);
    other.run(
        "INSERT INTO decisions VALUES (1, now(), null, null, 10, false, 'x', null, '\\x00000000000000000000000000000000', '{\"reasons\":[]}')",
    );
    let (status, _, log) =
        super::run(scene.tool(&["replay", "rebuild", "--into", &other.url(), "--execute"]));
    assert_eq!(status, 2);
    assert!(log.contains("is not empty, and is not the beginning of this one"), "{log}");

    // The very ledger under another URL, or any that has a verifier, is not written to.
    let alias = format!("{}?application_name=alias", scene.database.url());
    for more in [&[][..], &["--from-topics-alone"]] {
        let words = ["replay", "rebuild", "--into", &alias, "--execute"];
        let (status, _, log) = super::run(scene.tool(&[&words[..], more].concat()));
        assert_eq!(status, 2, "{log}");
        assert!(log.contains(&format!("is in use, by consumer group {}", scene.group())), "{log}");
    }

    // The comparison would have seen a difference in any table.
    for (change, back, says) in [
        (
            "levels SET available = available + 1 WHERE sku = 'LIFE'",
            "levels SET available = available - 1 WHERE sku = 'LIFE'",
            "level of SKU LIFE",
        ),
        (
            "movements SET balance = balance + 1 WHERE sku = 'LIFE' AND version = 5",
            "movements SET balance = balance - 1 WHERE sku = 'LIFE' AND version = 5",
            "movement 5 of LIFE",
        ),
        (
            "decisions SET accepted = NOT accepted WHERE id = 'h-1' AND kind = 1",
            "decisions SET accepted = NOT accepted WHERE id = 'h-1' AND kind = 1",
            "decision at ledger sequence",
        ),
        (
            "order_lines SET returned = 0 WHERE order_id = 'h-2'",
            "order_lines SET returned = 1 WHERE order_id = 'h-2'",
            "returned line of order h-2 (LIFE)",
        ),
        (
            "holds SET expires_at = expires_at + interval '1 s'",
            "holds SET expires_at = expires_at - interval '1 s'",
            "hold of order h-4",
        ),
    ] {
        new.run(&format!("UPDATE {change}"));
        let found = report(&scene, 1, &[&words[..], &["--execute"]].concat());
        new.run(&format!("UPDATE {back}"));
        let differences = found["differences"].as_array().expect("a list");
        assert_eq!(differences.len(), 1, "{change}: {found:#}");
        let text = differences[0].as_str().expect("text");
        assert!(text.starts_with(says) && text.contains("in the old ledger"), "{found:#}");
        assert!(!text.contains(" { ") && !text.contains("Some("), "for people: {text}");
    }

    // A verifier can go on with it as if nothing had happened.
    let (status, out, log) = super::run({
        let mut command = scene.tool(&["audit", "--topics"]);
        command.args(["--database-url", &new.url()]);
        command
    });
    assert_eq!(status, 0, "{out}\n{log}");
    scene.produce(&[order("goes-on", &[("SKU-NEW", 1)])]);
    let mut command = scene.command("a", &[]);
    command.args(["--database-url", &new.url()]);
    let verifier = scene.launch(command, "on-the-new-ledger");
    wait::until("the new ledger decides", SOON, || {
        new.number("SELECT count(*) FROM decisions WHERE id = 'goes-on' AND accepted") == 1
    });
    verifier.stop();
}

#[test]
fn a_ledger_made_of_the_topics_alone_holds_every_rule() {
    let scene = Scene::new(3);
    let received = |sku: &str, quantity: i64| {
        let value = json!({"type": "stock.received", "adjustment_id": format!("r-{sku}"), "sku": sku, "quantity": quantity});
        crate::support::kafka::sent(sku, value.to_string())
    };
    scene.kafka.produce(&scene.topic("adjustments"), &[received("MUG", 50), received("HAT", 1_000)]);
    let verifier = scene.start("a", &[]);
    scene.adjusted(SOON);
    let orders: Vec<_> =
        (0..300).map(|n| order(&format!("o-{n}"), &[("MUG", 1), ("HAT", 1)]).to(n % 3)).collect();
    scene.produce(&orders);
    scene.done(SOON);
    verifier.stop();
    let file = format!("sqlite://{}", scene.file("new.db").display());
    let done = report(&scene, 0, &["replay", "rebuild", "--into", &file, "--execute", "--from-topics-alone"]);
    assert_eq!(done["restored"], json!(302), "{done:#}");
    let (status, out, log) = super::run({
        let mut command = scene.tool(&["audit", "--offsets"]);
        command.args(["--database-url", &file]);
        command
    });
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("302 decisions"), "{out}");
}

#[test]
fn of_the_topics_alone_nothing_is_decided_that_the_verifier_does_not_decide() {
    let scene = Scene::new(1);
    let received = json!({"type": "stock.received", "adjustment_id": "r-1", "sku": "MUG", "quantity": 50});
    scene.kafka.produce(&scene.topic("adjustments"), &[sent("MUG", received.to_string())]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.adjusted(SOON);
    // A dead letter for its key alone.
    let record = Sent { key: Some(vec![b'k'; MAX_KEY_BYTES + 1]), ..order("long", &[("MUG", 7)]) };
    scene.produce(&[record, order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    verifier.stop();
    let decisions = scene.database.number("SELECT count(*) FROM decisions");
    assert_eq!((decisions, scene.kafka.count(&scene.topic("dead"))), (2, 1));
    let alone = |file: &str, more: &[&str]| {
        let url = format!("sqlite://{}", scene.file(file).display());
        let mut rebuild =
            scene.tool(&["replay", "rebuild", "--into", &url, "--execute", "--from-topics-alone"]);
        rebuild.args(more).arg("--json");
        run(rebuild)
    };
    let (status, out, log) = alone("new.db", &[]);
    assert_eq!(status, 0, "{out}\n{log}");
    let done: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(done["restored"], json!(2), "{done:#}");

    // What its mapping takes too long for is not passed over: no verifier gets past it.
    let slow = scene.file("slow.jq");
    std::fs::write(&slow, r#"if .order_id == "o-1" then def f: f; f else . end"#).expect("a file");
    let mapping = format!("{}={}", scene.orders(), slow.display());
    let (status, out, log) = alone("slow.db", &["--mapping", &mapping]);
    assert_eq!(status, 2, "{out}\n{log}");
    let says = format!("{}[0]@1: its mapping takes longer than 5s, so nobody can say", scene.orders());
    assert!(log.contains(&says), "{log}");
}

/// Rebuilds the ledger of a scene that is at rest, stops that and kills it in the middle, goes on, and expects the same
/// to the row; and audits it, with its topics and without.
pub fn a_ledger_of_many_orders_is_rebuilt_after_a_kill(scene: &Scene) {
    let new = Database::fresh(&Servers::shared().database_url);
    let decisions = scene.database.number("SELECT count(*) FROM decisions");
    let begun = Instant::now();
    let start = || {
        Verifier::start(
            scene.tool(&["replay", "rebuild", "--into", &new.url(), "--execute"]),
            "rebuild",
            scene.file("rebuild.log"),
        )
    };
    let rebuilt = |part: i64| {
        wait::until("a part is rebuilt", Duration::from_secs(120), || {
            new.number("SELECT count(*) FROM decisions") > decisions / part
        });
    };
    let mut stopped = start();
    rebuilt(6);
    stopped.signal("INT");
    assert_eq!(stopped.wait(SOON).code(), Some(130), "{}", stopped.log());
    let mut killed = start();
    rebuilt(3);
    killed.kill();
    let done = report(scene, 0, &["replay", "rebuild", "--into", &new.url(), "--execute"]);
    println!("rebuilt and compared in {:.1?}, once stopped and once killed", begun.elapsed());
    assert_eq!(done["differences"], json!([]), "{done:#}");
    let (found, restored) = (done["found"].as_i64().unwrap(), done["restored"].as_i64().unwrap());
    assert!(found > decisions / 3, "{done:#}");
    assert_eq!(found + restored, decisions, "{done:#}");
    for words in [&["audit"][..], &["audit", "--topics"]] {
        let begun = Instant::now();
        report(scene, 0, words);
        let took = begun.elapsed();
        println!("{words:?} in {took:.1?}, {:.0} orders/s", decisions as f64 / took.as_secs_f64());
    }
}
