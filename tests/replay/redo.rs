//! Publishing again, asking again, trying with other levels.

use std::collections::HashMap;

use serde_json::json;
use stock_verifier::event::Record;

use super::{SOON, lived, report, run};
use crate::support::kafka::{header, sent};
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
fn a_dead_letter_mended_by_a_patch_is_decided_and_keeps_its_origin() {
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
