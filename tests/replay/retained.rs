//! Results that retention deleted from their topics, and what is compared all the same.

use serde_json::{Value, json};
use stock_verifier::event::Record;

use super::damage::{copy, names};
use super::{SOON, report, run};
use crate::support::kafka::{Sent, header, order};
use crate::support::scene::Scene;

/// Orders of a scene; every second one is rejected.
const ORDERS: usize = 60;

/// A scene with results on every partition of both topics, and the verifier stopped.
fn decided() -> Scene {
    let scene = Scene::new(3);
    scene.stock(&[("MUG", 1_000)]);
    let sku = |number: usize| if number.is_multiple_of(2) { "MUG" } else { "NO-SUCH" };
    let orders: Vec<Sent> =
        (0..ORDERS).map(|number| order(&format!("o-{number}"), &[(sku(number), 1)])).collect();
    let verifier = scene.start("a", &["--no-levels"]);
    scene.produce(&orders);
    scene.done(SOON);
    verifier.stop();
    scene
}

/// Deletes all records of a partition, as retention does where nothing comes any more.
fn empty(scene: &Scene, topic: &str, partition: i32) {
    let ends = scene.kafka.ends(topic, "read_committed");
    let end = ends[usize::try_from(partition).expect("a partition")];
    assert!(end > 0, "{topic}[{partition}] had records");
    scene.kafka.delete_records(topic, partition, end);
}

/// Whether one of the notes of a report has this text.
fn notes(report: &Value, text: &str) -> bool {
    let notes = report["notes"].as_array().expect("a list");
    notes.iter().any(|note| note.as_str().expect("a text").contains(text))
}

#[test]
fn an_emptied_partition_of_results_hides_nothing_of_the_others() {
    let scene = decided();
    let rejected = scene.topic("rejected");
    let results = scene.kafka.read(&rejected);
    let emptied = results.first().expect("a result").source.at.partition;
    // The last one elsewhere, so that what is left of its partition is older.
    let decided_at = |result: &&Record| header(result, "ce_time").expect("a time").to_owned();
    let lost = results
        .iter()
        .filter(|result| result.source.at.partition != emptied)
        .max_by_key(decided_at)
        .expect("a result elsewhere");
    let missing = copy(&scene, "rejected", "missing", |mut records| {
        records.retain(|record| record.key != lost.key);
        records
    });
    empty(&scene, &missing, emptied);
    empty(&scene, &rejected, emptied);

    // All is well, and all is decided again.
    let found = report(&scene, 0, &["audit", "--topics"]);
    let again = &found["again"];
    assert_eq!(again["decisions"], json!(ORDERS), "{found:#}");
    assert!(again["published"].as_u64().expect("a number") > ORDERS as u64 / 2, "{found:#}");
    let says =
        format!("results were deleted from {rejected} (retention?): nothing is left of partition {emptied}");
    assert!(notes(again, &says), "{found:#}");
    assert!(notes(again, " results are not compared: they are as old as"), "{found:#}");

    // What needs no result, and what is not as old as what was deleted.
    let ledger = scene.database.backup();
    ledger.run(&format!("UPDATE decisions SET seq = 1 WHERE id = 'o-{}'", ORDERS - 1));
    names(&scene, &ledger, &[], &[(5, "has a later ledger sequence than the one at offset")]);
    let id = String::from_utf8(lost.key.clone().expect("a key")).expect("UTF-8");
    let never = format!("order.created/{id}: it was never published");
    names(&scene, &scene.database, &["--rejected-topic", &missing], &[(4, &never)]);

    let mut repair = scene.tool(&["audit", "--topics", "--repair"]);
    repair.args(["--rejected-topic", &missing]);
    let (status, out, log) = run(repair);
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("Repaired: 1 results that were never published are published now"), "{out}");
    let published = scene.kafka.read(&missing);
    assert_eq!(published.iter().filter(|record| record.key == lost.key).count(), 1);
    scene.kafka.delete_if_there(&[&missing]);
}

#[test]
fn results_that_are_all_deleted_are_said_not_to_be_compared() {
    let scene = decided();
    for which in ["accepted", "rejected"] {
        for partition in 0..3 {
            empty(&scene, &scene.topic(which), partition);
        }
    }
    let found = report(&scene, 0, &["audit", "--topics"]);
    let again = &found["again"];
    assert_eq!((&again["decisions"], &again["published"]), (&json!(ORDERS), &json!(0)), "{found:#}");
    let says = format!("what was published is not compared: all {ORDERS} results");
    assert!(notes(again, &says), "{found:#}");
    assert!(notes(again, "nothing is left of partitions 0, 1, 2"), "{found:#}");
}
