//! Publishing again, asking again, trying with other levels.

use std::collections::HashMap;

use serde_json::json;
use stock_verifier::event::{Header, Record};

use super::{SOON, lived, report, run};
use crate::support::kafka::{header, order, sent};
use crate::support::process::program;
use crate::support::scene::Scene;

/// What a reader sees of results: key, value and headers by event id; trace contexts as well.
fn results(scene: &Scene, topics: &[&str]) -> HashMap<String, Record> {
    let mut found = HashMap::new();
    for topic in topics {
        for mut record in scene.kafka.read(topic) {
            let id = header(&record, "ce_id").expect("an id").to_owned();
            record.source = stock_verifier::ledger::Source {
                at: stock_verifier::ledger::TopicPartition::new("anywhere", 0),
                offset: stock_verifier::ledger::Offset(0),
            };
            record.timestamp_ms = None;
            assert!(found.insert(id, record).is_none(), "published once");
        }
    }
    found
}

#[test]
fn decisions_republished_are_the_same_events_byte_for_byte() {
    let scene = lived(300);
    let again = scene.topic("again");
    scene.kafka.create(&again, 3);
    let published = results(&scene, &[&scene.topic("accepted"), &scene.topic("rejected")]);

    let looked = report(&scene, 0, &["replay", "republish", "--to-topic", &again]);
    assert_eq!(looked["executed"], json!(false));
    assert_eq!(scene.kafka.count(&again), 0, "nothing changes without --execute");

    let done = report(&scene, 0, &["replay", "republish", "--to-topic", &again, "--execute"]);
    assert_eq!(done["accepted"], looked["accepted"]);
    assert_eq!(
        done["accepted"].as_u64().unwrap() + done["rejected"].as_u64().unwrap(),
        published.len() as u64,
        "{done:#}"
    );
    assert_eq!(results(&scene, &[&again]), published);
    scene.kafka.delete_if_there(&[&again]);
}

#[test]
fn a_dead_letter_repaired_by_a_patch_is_decided_and_keeps_its_origin() {
    let scene = lived(100);
    let broken = json!({"type": "order.craeted", "order_id": "repaired", "lines": [{"sku": "SKU-NEW", "quantity": 1}]});
    scene.produce(&[sent("repaired", broken.to_string()).header("shop", b"7")]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    let patch = scene.file("patch.json");
    std::fs::write(&patch, r#"{"type": "order.created"}"#).expect("a file");
    let patch = patch.to_str().expect("a path");
    let words = ["replay", "reprocess", "--dead-letters", "--error", "unknown_type", "--patch", patch];

    let looked = report(&scene, 0, &words);
    assert_eq!((&looked["sent"], &looked["executed"]), (&json!(1), &json!(false)), "{looked:#}");
    assert_eq!(scene.database.number("SELECT count(*) FROM decisions WHERE id = 'repaired'"), 0);

    let done = report(&scene, 0, &[&words[..], &["--execute"]].concat());
    assert_eq!(done["sent"], json!(1), "{done:#}");
    scene.done(SOON);
    assert_eq!(scene.database.number("SELECT count(*) FROM decisions WHERE id = 'repaired' AND accepted"), 1);
    let records = scene.kafka.read(&scene.orders());
    let again = records
        .iter()
        .find(|record| header(record, "stock_verifier.replay.topic").is_some())
        .expect("it was sent again");
    assert_eq!(header(again, "shop"), Some("7"));
    assert_eq!(header(again, "__connect.errors.topic"), None);
    let letters = scene.kafka.read(&scene.topic("dead"));
    let letter =
        letters.iter().find(|letter| letter.key.as_deref() == Some(b"repaired")).expect("the letter");
    for (replay, error) in [
        ("stock_verifier.replay.topic", "__connect.errors.topic"),
        ("stock_verifier.replay.partition", "__connect.errors.partition"),
        ("stock_verifier.replay.offset", "__connect.errors.offset"),
    ] {
        assert_eq!(header(again, replay), header(letter, error));
    }

    // Once more changes nothing: it is decided.
    // The verifier is still running, and nothing is wrong with that.
    report(&scene, 0, &["audit", "--topics"]);
    let more = report(&scene, 0, &[&words[..], &["--execute"]].concat());
    assert_eq!((&more["sent"], &more["decided"]), (&json!(0), &json!(1)), "{more:#}");
    // Without the patch it would be a dead letter again, which is said and not done.
    let unpatched =
        report(&scene, 0, &["replay", "reprocess", "--dead-letters", "--error", "unknown_type", "--execute"]);
    assert_eq!((&unpatched["sent"], &unpatched["faulty"]), (&json!(0), &json!(1)), "{unpatched:#}");
    verifier.stop();
    report(&scene, 0, &["replay", "diff"]);
}

#[test]
fn dead_letters_are_repaired_as_they_are_read_by_their_headers_and_each_by_its_own_patch() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10)]);
    let value = |kind: Option<&str>, order_id: Option<&str>| {
        let mut value = json!({"lines": [{"sku": "MUG", "quantity": 1}]});
        for (name, text) in [("type", kind), ("order_id", order_id)] {
            if let Some(text) = text {
                value[name] = json!(text);
            }
        }
        value.to_string()
    };
    // A schema registry's frame and a byte order mark before it.
    let framed =
        [&b"\0\0\0\0\x07\xef\xbb\xbf"[..], value(Some("order.craeted"), Some("framed")).as_bytes()].concat();
    let mut untyped = sent("untyped", value(None, Some("untyped")));
    untyped.headers.push(Header { name: "ce_type".to_owned(), value: None });
    scene.produce(&[
        sent("framed", framed),
        sent("mistyped", value(None, Some("mistyped"))).header("ce_type", b"order.craeted"),
        untyped,
        sent("unnamed", value(Some("order.created"), None)),
        sent("no-json", "one MUG, please"),
    ]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.done(SOON);
    let file = |name: &str, text: &str| {
        let path = scene.file(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let patch = file("patch.json", r#"{"type": "order.created"}"#);
    let headers = file("headers.json", r#"{"ce_type": "order.created", "shop": "7", "none": null}"#);
    let letters = ["replay", "reprocess", "--dead-letters"];
    let counts = |status: i32, words: &[&str]| {
        let found = report(&scene, status, &[&letters[..], words].concat());
        let count = |name: &str| found[name].as_i64().expect("a number");
        (count("sent"), count("faulty"), found["unknown"].clone())
    };
    let of_type = ["--error", "unknown_type", "--error", "bad_envelope"];
    // Of each, what the other repairs is still wrong.
    let looked = counts(0, &[&of_type[..], &["--patch", &patch]].concat());
    assert_eq!((looked.0, looked.1), (1, 2));
    let looked = counts(0, &[&of_type[..], &["--patch-headers", &headers]].concat());
    assert_eq!((looked.0, looked.1), (2, 1));
    let both = [&of_type[..], &["--patch", &patch, "--patch-headers", &headers, "--execute"]].concat();
    let done = counts(0, &both);
    assert_eq!((done.0, done.1), (3, 0));

    // By where the dead letter stands, and by where its record stood.
    let dead = scene.kafka.read(&scene.topic("dead"));
    let unnamed =
        dead.iter().find(|letter| letter.key.as_deref() == Some(b"unnamed")).expect("a dead letter");
    let lines = [
        json!({"record": unnamed.source.to_string(), "patch": {"order_id": "named"}}),
        json!({"topic": scene.orders(), "partition": 0, "offset": 4, "headers": {"ce_type": "order.created"},
               "value": {"order_id": "replaced", "lines": [{"sku": "MUG", "quantity": 1}]}}),
        json!({"record": format!("{}[0]@99", scene.orders()), "patch": {"order_id": "nowhere"}}),
    ];
    let lines = lines.map(|line| line.to_string());
    let looked = counts(1, &["--patch-file", &file("all", &lines.join("\n"))]);
    assert_eq!(looked, (2, 0, json!([format!("record {}[0]@99", scene.orders())])));
    let done = counts(0, &["--patch-file", &file("those", &lines[..2].join("\n")), "--execute"]);
    assert_eq!((done.0, done.1), (2, 0));
    let (status, _, log) = run(scene.tool(
        &[&letters[..], &["--patch-file", &file("bad", r#"{"record": "orders-0-4", "patch": {}}"#)]].concat(),
    ));
    assert_eq!(status, 2, "{log}");
    assert!(log.contains("line 1: \"orders-0-4\" names no record"), "{log}");

    scene.done(SOON);
    verifier.stop();
    let accepted = "SELECT count(*) FROM decisions WHERE accepted AND id IN
                        ('framed', 'mistyped', 'untyped', 'named', 'replaced')";
    assert_eq!(scene.database.number(accepted), 5);
    let records = scene.kafka.read(&scene.orders());
    let again = records.iter().rfind(|record| record.key.as_deref() == Some(b"framed")).expect("sent again");
    assert!(again.value.as_deref().expect("a value").starts_with(b"\0\0\0\0\x07{"), "{again:?}");
    assert_eq!((header(again, "ce_type"), header(again, "shop")), (Some("order.created"), Some("7")));
    report(&scene, 0, &["audit", "--topics"]);
}

#[test]
fn asking_everything_again_changes_nothing() {
    let scene = lived(300);
    let before = scene.database.number("SELECT count(*) FROM decisions");
    let done = report(&scene, 0, &["replay", "reprocess", "--execute"]);
    assert_eq!(done["sent"], json!(0), "{done:#}");
    assert!(done["decided"].as_i64().unwrap() > 300, "{done:#}");
    assert_eq!(scene.database.number("SELECT count(*) FROM decisions"), before);
}

#[test]
fn with_other_levels_it_is_said_what_would_have_been_sold() {
    let scene = lived(400);
    let levels = scene.file("levels.csv");
    std::fs::write(&levels, "sku,available\nSKU-001,1000000\nSKU-002,0\n").expect("a file");
    let found = report(&scene, 0, &["replay", "simulate", "--levels", levels.to_str().expect("a path")]);
    let sold = |sku: &str| {
        let all = found["sold"].as_array().expect("a list");
        let one = all.iter().find(|sold| sold["sku"] == json!(sku)).expect("it is named");
        (one["then"].as_i64().unwrap(), one["now"].as_i64().unwrap())
    };
    let taken = "SELECT -sum(quantity)::bigint FROM movements WHERE kind = 1 AND sku = 'SKU-001'";
    assert_eq!(sold("SKU-001").0, scene.database.number(taken));
    assert!(sold("SKU-001").1 > sold("SKU-001").0, "{found:#}");
    assert_eq!(sold("SKU-002").1, 0);
    let accepted = "SELECT count(*) FROM decisions WHERE kind = 1 AND accepted";
    assert_eq!(found["accepted_then"], json!(scene.database.number(accepted)));
    let rejected = "SELECT count(*) FROM decisions WHERE kind = 1 AND NOT accepted";
    assert_eq!(found["rejected_then"], json!(scene.database.number(rejected)));
    let now = |name: &str| found[format!("{name}_now")].as_u64().unwrap();
    assert_eq!(now("accepted") + now("rejected"), found["orders"].as_u64().unwrap());
    assert!(found["gained"].as_i64().unwrap() > 0 && found["lost"].as_i64().unwrap() > 0, "{found:#}");

    // With the levels there were, the same comes out.
    std::fs::write(&levels, "sku,available\nSKU-NEW,4\n").expect("a file");
    let same = report(&scene, 0, &["replay", "simulate", "--levels", levels.to_str().expect("a path")]);
    assert_eq!((&same["gained"], &same["lost"]), (&json!(0), &json!(0)), "{same:#}");
    assert_eq!(same["accepted_now"], same["accepted_then"]);
    let (status, out, _) =
        run(scene.tool(&["replay", "simulate", "--levels", levels.to_str().expect("a path")]));
    assert_eq!(status, 0);
    assert!(out.contains("would have sold"), "{out}");
}

#[test]
fn a_simulation_says_what_it_left_out() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10), ("HAT", 10)]);
    let mug = |id: &str| order(id, &[("MUG", 1)]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.produce(&[mug("o-1"), sent("broken", "{"), mug("o-2")]);
    scene.done(SOON);
    let received = json!({"type": "stock.received", "adjustment_id": "a-1", "sku": "HAT", "quantity": 1});
    scene.kafka.produce(&scene.topic("adjustments"), &[sent("HAT", received.to_string())]);
    scene.adjusted(SOON);
    scene.stock(&[("MUG", 9)]);
    scene.produce(&[mug("o-3")]);
    scene.done(SOON);
    verifier.stop();
    let mut adjust = program();
    adjust.args(["stock", "--database-url", &scene.database.url(), "adjust", "NO-SUCH", "1"]);
    assert_eq!(run(adjust).0, 1, "it is rejected");
    let levels = scene.file("levels.csv");
    std::fs::write(&levels, "sku,available\nMUG,5\n").expect("a file");
    let words = ["replay", "simulate", "--levels", levels.to_str().expect("a path")];

    let found = report(&scene, 0, &words);
    let left_out = json!({"unreadable": 0, "faults": [], "stated": 1, "not_chosen": 0, "rejected_own": 1});
    assert_eq!((&found["orders"], &found["left_out"]), (&json!(3), &left_out), "{found:#}");

    // The hats came in by a record before the chosen ones, and between these.
    let found = report(&scene, 0, &[&words[..], &["--from", "1"]].concat());
    let left_out = json!({"unreadable": 0, "faults": [], "stated": 1, "not_chosen": 1, "rejected_own": 1});
    assert_eq!((&found["orders"], &found["left_out"]), (&json!(2), &left_out), "{found:#}");

    // Of a record that nobody can read.
    scene.database.run(r#"UPDATE decisions SET "offset" = 1 WHERE id = 'o-2'"#);
    let found = report(&scene, 1, &words);
    assert_eq!((&found["orders"], &found["left_out"]["unreadable"]), (&json!(2), &json!(1)), "{found:#}");
    let (status, out, _) = run(scene.tool(&words));
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("Left out: 1 stock commands for SKUs in the file."), "{out}");
    let unreadable = "Left out: 1 chosen commands that cannot be read any more.\n  order.created/o-2, ";
    assert!(out.contains(unreadable), "{out}");
}

#[test]
fn what_was_stated_for_one_version_ends_in_a_simulation_as_it_did_then() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10), ("HAT", 10)]);
    // Two movements, for which a simulation has one.
    scene.stock(&[("HAT", 20)]);
    let set = |id: &str, available: i64| {
        let value = json!({"type": "stock.set", "adjustment_id": id, "sku": "HAT", "available": available,
                           "expected_version": 2});
        sent("HAT", value.to_string())
    };
    // The second one comes too late; in a simulation the level has that version then.
    scene.kafka.produce(&scene.topic("adjustments"), &[set("a-1", 50), set("a-2", 0)]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.adjusted(SOON);
    scene.produce(&[order("o-1", &[("HAT", 40)])]);
    scene.done(SOON);
    verifier.stop();
    let accepted = "SELECT count(*) FROM decisions WHERE accepted AND id IN ('a-1', 'o-1')";
    assert_eq!(scene.database.number(accepted), 2);
    assert_eq!(scene.database.number("SELECT count(*) FROM decisions WHERE NOT accepted AND id = 'a-2'"), 1);
    let levels = scene.file("levels.csv");
    std::fs::write(&levels, "sku,available\nMUG,5\n").expect("a file");
    let found = report(&scene, 0, &["replay", "simulate", "--levels", levels.to_str().expect("a path")]);
    assert_eq!((&found["accepted_now"], &found["lost"]), (&json!(1), &json!(0)), "{found:#}");
}

#[test]
fn a_record_that_its_mapping_takes_too_long_for_now_is_named_and_not_passed_over() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10)]);
    let plain = scene.file("plain.jq");
    std::fs::write(&plain, ".").expect("a file");
    let mapping = format!("{}={}", scene.orders(), plain.display());
    let verifier = scene.start("a", &["--no-levels", "--mapping", &mapping]);
    scene.produce(&[order("o-0", &[("MUG", 1)]), order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    verifier.stop();
    // As on a machine that is much slower.
    scene.database.run(
        r#"UPDATE mapping_programs SET program = 'if .order_id == "o-1" then def f: f; f else . end'
           WHERE program IS NOT NULL"#,
    );
    let (status, out, log) = run(scene.tool(&["replay", "republish"]));
    assert_eq!(status, 2, "{out}\n{log}");
    let says = format!("{}[0]@1: its mapping takes longer than 5s, so nobody can say", scene.orders());
    assert!(log.contains(&says), "{log}");
}

#[test]
fn a_dead_letter_is_not_sent_to_a_topic_that_is_read_no_more() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10)]);
    let value = r#"{"type":"order.create","order_id":"odd","lines":[{"sku":"MUG","quantity":1}]}"#;
    scene.produce(&[sent("odd", value)]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.done(SOON);
    verifier.stop();
    let patch = scene.file("patch.json");
    std::fs::write(&patch, r#"{"type": "order.created"}"#).expect("a file");
    let words =
        ["replay", "reprocess", "--dead-letters", "--patch", patch.to_str().expect("a path"), "--execute"];
    let mut elsewhere = scene.tool(&words);
    // The last one given counts.
    elsewhere.args(["--json", "--orders-topic", &scene.topic("next")]);
    let (status, out, log) = run(elsewhere);
    assert_eq!(status, 0, "{out}\n{log}");
    let done: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&done["sent"], &done["faulty"]), (&json!(0), &json!(1)), "{done:#}");
    assert!(done["faults"][0].as_str().expect("text").contains("a topic that is not read"), "{done:#}");
    assert_eq!(scene.kafka.ends(&scene.orders(), "read_committed"), [1]);
    let done = report(&scene, 0, &words);
    assert_eq!((&done["sent"], &done["faulty"]), (&json!(1), &json!(0)), "{done:#}");
}
