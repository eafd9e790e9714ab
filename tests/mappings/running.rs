//! A verifier that reads a shop's records by a mapping, on real servers.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::running::{LISTEN, client};
use crate::replay::{report, run};
use crate::support::database::Database;
use crate::support::kafka::{Sent, header, order, sent};
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

/// Orders of a shop that has shapes of its own.
const SHOP: &str = r#"
    def line: {sku: .article, quantity: .pieces};
    if .kind == "sale" then {type: "order.created", order_id: "s-\(.no)", lines: [.items[] | line]}
    elif .kind == "note" then empty
    else error("a \(.kind) is neither a sale nor a note") end
"#;

/// The same, after the shop renamed its fields.
const SHOP_LATER: &str = r#"
    if .kind == "sale" then {type: "order.created", order_id: "s-\(.no)", lines: [.items[] | {sku: .sku, quantity: .n}]}
    else empty end
"#;

fn sale(no: i64, article: &str, pieces: &Value) -> Sent {
    let value =
        json!({"kind": "sale", "no": no, "items": [{"article": article, "pieces": pieces}], "at": "now"});
    sent(&no.to_string(), value.to_string())
}

fn sale_later(no: i64, sku: &str, n: i64) -> Sent {
    let value = json!({"kind": "sale", "no": no, "items": [{"sku": sku, "n": n}]});
    sent(&no.to_string(), value.to_string())
}

fn other(kind: &str) -> Sent {
    sent(kind, json!({"kind": kind}).to_string())
}

/// Writes a program, and says how it is given for the orders.
fn given(scene: &Scene, name: &str, program: &str) -> String {
    let file = scene.file(name);
    fs::write(&file, program).expect("a file");
    format!("{}={}", scene.orders(), file.display())
}

/// How many decisions there are that begin so.
fn decided(scene: &Scene, what: &str) -> i64 {
    scene.database.number(&format!("SELECT count(*) FROM decisions WHERE {what}"))
}

#[test]
fn what_a_shop_sends_becomes_orders_dead_letters_and_nothing() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 100), ("HAT", 1)]);
    let mapping = given(&scene, "shop.jq", SHOP);
    let mut records = vec![
        sale(1, "MUG", &json!("2.0000")).to(0),
        sale(9_007_199_254_740_993, "MUG", &json!(3)).to(1),
        sale(2, "HAT", &json!(5)).to(0),
        // The same again, with another time.
        sent(
            "1",
            json!({"kind": "sale", "no": 1, "items": [{"article": "MUG", "pieces": 2}], "at": "later"})
                .to_string(),
        )
        .to(0),
        sale(3, "MUG", &json!(1.5)).to(1),
        other("return").to(0),
        other("note").to(1),
        order("o-own", &[("MUG", 1)]).to(1),
        sent("x", "no JSON").to(0),
    ];
    // A tombstone, and a hold that ends: what the verifier writes to the topic itself is no shop's.
    records.push(Sent { key: Some(b"gone".to_vec()), value: None, partition: Some(1), ..Sent::default() });
    scene.produce(&records);
    let mut command = scene.command("a", &LISTEN);
    command.env("STOCK_VERIFIER_MAPPING", &mapping);
    let mut verifier = scene.launch(command, "a");
    let client = client(&mut verifier);
    scene.done(SOON);
    let metrics = client.get("/metrics").text;
    assert!(metrics.contains("stock_verifier_records_ignored_total 2"), "{metrics}");
    verifier.stop();

    assert_eq!(decided(&scene, "accepted AND id IN ('s-1', 's-9007199254740993')"), 2);
    assert_eq!(decided(&scene, "NOT accepted AND id IN ('s-2', 's-3')"), 2);
    assert_eq!(decided(&scene, "id LIKE 'o-%'"), 0);
    let letters = scene.kafka.read(&scene.topic("dead"));
    let mut said: Vec<(&str, &str)> = letters
        .iter()
        .map(|letter| {
            let part = |name: &str| header(letter, &format!("__connect.errors.{name}")).expect("a header");
            (part("exception.class.name"), part("exception.message"))
        })
        .collect();
    said.sort_unstable();
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0], ("mapping_failed", "a null is neither a sale nor a note"));
    assert_eq!(said[1], ("mapping_failed", "a return is neither a sale nor a note"));
    assert_eq!(said[2].0, "not_json");
    assert!(said[2].1.contains("not JSON"), "{said:?}");

    let (status, out, log) = run(scene.tool(&["audit", "--topics", "--offsets"]));
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("2 records were ignored"), "{out}");
}

#[test]
fn a_mapping_changed_in_mid_topic_leaves_the_past_as_it_was_read() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    // First without a mapping, then with one, then with another, and again without.
    scene.produce(&[order("o-1", &[("MUG", 1)]), other("note")]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(
        scene.database.number("SELECT count(*) FROM mapping_programs"),
        0,
        "plain orders note nothing"
    );

    scene.produce(&[
        sale(1, "MUG", &json!(1)),
        sale(2, "MUG", &json!(2)),
        other("note"),
        other("return"),
        sale(1, "MUG", &json!(1)),
    ]);
    let first = given(&scene, "first.jq", SHOP);
    let verifier = scene.start("a", &["--mapping", &first]);
    scene.done(SOON);
    verifier.stop();
    // Started again with the same: nothing more is noted.
    let verifier = scene.start("a", &["--mapping", &first]);
    wait::until("it reads", SOON, || verifier.reads(&scene.orders()).len() == 1);
    verifier.stop();

    scene.produce(&[sale_later(3, "MUG", 3), other("return"), sale(4, "MUG", &json!(1))]);
    let second = given(&scene, "second.jq", SHOP_LATER);
    let verifier = scene.start("a", &["--mapping", &second]);
    scene.done(SOON);
    verifier.stop();

    scene.produce(&[order("o-2", &[("MUG", 1)]), sale(5, "MUG", &json!(1))]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.database.number("SELECT count(*) FROM mapping_programs"), 3);
    assert_eq!(
        scene.database.number("SELECT max(from_offset) FROM mapping_programs WHERE program IS NULL"),
        10
    );
    assert_eq!(decided(&scene, "accepted AND id IN ('o-1', 's-1', 's-2', 's-3', 'o-2')"), 5);

    let (status, out, log) = run(scene.tool(&["audit", "--topics", "--offsets"]));
    assert_eq!(status, 0, "{out}\n{log}");
    let (status, out, log) = run(scene.tool(&["replay", "diff"]));
    assert_eq!(status, 0, "{out}\n{log}");
    let new = Database::empty(&Servers::shared().database_url);
    let done = report(&scene, 0, &["replay", "rebuild", "--into", &new.url(), "--execute"]);
    assert_eq!(done["differences"], json!([]), "{done:#}");
    assert_eq!(new.number("SELECT count(*) FROM mapping_programs"), 3);
    let (status, out, log) = run(scene.tool_on(&["audit", "--topics"], &new.url()));
    assert_eq!(status, 0, "{out}\n{log}");

    // Where the ledger says another program, the audit sees it.
    scene.database.run("UPDATE mapping_programs SET program = 'empty' WHERE from_offset = 2");
    let (status, out, _) = run(scene.tool(&["audit", "--topics"]));
    assert_eq!(status, 1, "{out}");
    scene.database.run("UPDATE mapping_programs SET program = '{' WHERE from_offset = 2");
    let (status, _, log) = run(scene.tool(&["audit", "--topics"]));
    assert_eq!(status, 2, "{log}");
    assert!(log.contains("from offset 2 on:1:1: "), "{log}");
}

#[test]
fn dead_letters_are_asked_again_by_a_mapping_that_reads_them() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[sale(1, "MUG", &json!(1)), sale(2, "MUG", &json!(2)), other("return")]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let words = ["replay", "reprocess", "--dead-letters"];
    let looked = report(&scene, 0, &words);
    assert_eq!((&looked["sent"], &looked["faulty"]), (&json!(0), &json!(3)), "{looked:#}");
    let mapping = given(&scene, "shop.jq", SHOP);
    let words = [&words[..], &["--mapping", &mapping, "--execute"]].concat();
    let done = report(&scene, 0, &words);
    assert_eq!((&done["sent"], &done["faulty"]), (&json!(2), &json!(1)), "{done:#}");
    let verifier = scene.start("a", &["--mapping", &mapping]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(decided(&scene, "accepted AND id IN ('s-1', 's-2')"), 2);
    let again = report(&scene, 0, &words);
    assert_eq!((&again["sent"], &again["decided"]), (&json!(0), &json!(2)), "{again:#}");
}

#[test]
fn a_record_that_its_mapping_takes_too_long_for_stops_its_partition_alone_and_is_named() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 100)]);
    let slow = given(&scene, "slow.jq", &format!("if .kind == \"slow\" then def f: f; f else {SHOP} end"));
    scene.produce(&[
        sale(1, "MUG", &json!(1)).to(0),
        other("slow").to(0),
        sale(2, "MUG", &json!(1)).to(0),
        sale(3, "MUG", &json!(1)).to(1),
    ]);
    let mut verifier = scene.start("a", &["--mapping", &slow]);
    let begun = Instant::now();
    verifier.said("stopped before this record", SOON);
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    let log = verifier.log();
    for part in ["longer than 5s", &format!("partition={}[0]", scene.orders()), "offset=1", "slow.jq"] {
        assert!(log.contains(part), "{part} is not in the log:\n{log}");
    }
    // What came before it, and what is on the other partition, is decided and published; what comes after it waits.
    wait::until("the others are published", SOON, || scene.published("accepted").len() == 2);
    scene.produce(&[sale(4, "MUG", &json!(1)).to(1), sale(5, "MUG", &json!(1)).to(0)]);
    wait::until("the other partition goes on", SOON, || scene.published("accepted").len() == 3);
    assert_eq!(decided(&scene, "id IN ('s-2', 's-5')"), 0);
    verifier.stop_with_stopped_partitions();

    // A better one goes on there.
    let good = given(&scene, "good.jq", &format!("if .kind == \"slow\" then empty else {SHOP} end"));
    let verifier = scene.start("a", &["--mapping", &good]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(decided(&scene, "accepted AND id LIKE 's-%'"), 5);
    let (status, out, log) = run(scene.tool(&["audit", "--topics", "--offsets"]));
    assert_eq!(status, 0, "{out}\n{log}");
}

#[test]
fn a_hold_ends_by_itself_on_a_topic_that_has_a_mapping() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10)]);
    let mapping = given(
        &scene,
        "hold.jq",
        "{type: \"order.created\", order_id: .no, hold_seconds: 1, lines: [{sku: .what, quantity: 1}]}",
    );
    scene.produce(&[sent("h", r#"{"no":"h","what":"MUG"}"#)]);
    let verifier = scene.start("a", &["--mapping", &mapping]);
    wait::until("the hold has ended", SOON, || decided(&scene, "kind = 7 AND id = 'h'") == 1);
    scene.done(SOON);
    verifier.stop();
}

#[test]
fn a_topic_is_tested_before_it_is_read_and_settings_that_are_wrong_are_named() {
    let scene = Scene::new(1);
    scene.produce(&[sale(1, "MUG", &json!(1)), other("note"), other("return")]);
    let file = scene.file("shop.jq");
    fs::write(&file, SHOP).expect("a file");
    let file = file.to_str().expect("a path");
    let mut command = crate::support::process::program();
    command.args([
        "mapping",
        "test",
        "--mapping",
        file,
        "--from",
        &scene.orders(),
        "--brokers",
        &scene.kafka.brokers,
    ]);
    let (status, out, log) = run(command);
    assert_eq!(status, 1, "{out}\n{log}");
    assert!(
        out.contains("order.created/s-1") && out.contains("1 commands, 1 ignored, 1 that are no good"),
        "{out}"
    );

    fs::write(scene.file("bad.jq"), "{\n  type: kind }").expect("a file");
    let bad = scene.file("bad.jq").display().to_string();
    let settings = scene.file("settings.toml");
    fs::write(&settings, format!("mapping = ['{}={bad}']", scene.orders())).expect("a file");
    let by_file = ["--config", settings.to_str().expect("a path")];
    let orders = scene.orders();
    for (words, says) in [
        (vec!["--mapping".to_owned(), format!("nobody={file}")], "\"nobody\", which is not read"),
        (vec!["--mapping".to_owned(), format!("{orders}=/no/such.jq")], "cannot read /no/such.jq"),
        (
            vec!["--mapping".to_owned(), format!("{orders}=preset:shopfy")],
            "there is no built-in mapping \"shopfy\"",
        ),
        (by_file.map(str::to_owned).to_vec(), "bad.jq:2:9: undefined filter kind"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (status, _, log) = run(scene.command("a", &words));
        assert_eq!(status, 1, "{words:?}: {log}");
        assert!(log.contains(says), "{says} is not in {log}");
    }
}
