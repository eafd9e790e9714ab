//! The compacted topic of levels: who follows it ends with exactly the ledger's levels.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sqlx::Row as _;

use crate::support::kafka::{Sent, order, sent};
use crate::support::scene::Scene;
use crate::support::servers::heavy;
use crate::support::{stream, wait};

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(90);

/// Level and version by the key its records have.
type Levels = BTreeMap<String, (i64, i64)>;

/// What a reader knows who follows the topic from its start: the last record of each key.
fn followed(scene: &Scene) -> Levels {
    let mut levels = Levels::new();
    for record in scene.kafka.read(&scene.topic("levels")) {
        let key = String::from_utf8(record.key.expect("a key")).expect("UTF-8");
        let value: serde_json::Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
        let number = |field: &str| value[field].as_i64().expect("a number");
        levels.insert(key, (number("available"), number("version")));
    }
    levels
}

fn in_ledger(scene: &Scene) -> Levels {
    let rows = scene.database.rows("SELECT sku, location, available, version FROM levels");
    rows.into_iter()
        .map(|row| {
            let (sku, location): (String, String) = (row.get(0), row.get(1));
            let key = if location.is_empty() { sku } else { format!("{sku}\u{1f}{location}") };
            (key, (row.get(2), row.get(3)))
        })
        .collect()
}

#[track_caller]
fn followers_know_all(scene: &Scene, limit: Duration) {
    wait::until("who follows the levels knows the ledger's", limit, || followed(scene) == in_ledger(scene));
}

fn received(id: &str, sku: &str, location: Option<&str>, quantity: i64) -> Sent {
    let mut value = json!({"type": "stock.received", "adjustment_id": id, "sku": sku, "quantity": quantity});
    if let Some(location) = location {
        value["location"] = json!(location);
    }
    sent(sku, value.to_string())
}

#[test]
fn every_cause_of_a_change_is_published_an_operators_too() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 10), ("HAT", 5), ("STILL", 1)]);
    let verifier = scene.start("a", &["--levels-delay", "50ms"]);
    followers_know_all(&scene, SOON);
    scene.kafka.produce(
        &scene.topic("adjustments"),
        &[
            received("a-1", "MUG", None, 5),
            received("a-2", "MUG", Some("BERLIN"), 7),
            received("a-3", "NEW", None, 1),
        ],
    );
    scene.produce(&[order("o-1", &[("MUG", 3), ("HAT", 1)])]);
    scene.done(SOON);
    scene.adjusted(SOON);
    followers_know_all(&scene, SOON);
    scene.stock(&[("MUG", 100), ("ANOTHER", 2)]);
    followers_know_all(&scene, SOON);
    verifier.stop();
    let known = followed(&scene);
    assert_eq!(known["MUG"], (100, 4));
    assert_eq!(known["MUG\u{1f}BERLIN"], (7, 1));
    assert_eq!(known["ANOTHER"], (2, 1));
}

#[test]
fn a_hot_level_is_published_once_in_a_while_and_not_for_every_order() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100_000)]);
    let orders: Vec<_> = (0..20_000).map(|n| order(&format!("o-{n}"), &[("MUG", 1)])).collect();
    scene.produce(&orders);
    let begun = Instant::now();
    let verifier = scene.start("a", &["--batch-max-orders", "100"]);
    scene.done(LONG);
    // What is still to be published is published when stopping.
    verifier.stop();
    assert_eq!(followed(&scene), in_ledger(&scene));
    let records = scene.kafka.count(&scene.topic("levels"));
    // One in half a second (`--levels-delay`), however long it took, and some at its start and end.
    let most = 40 + 2 * begun.elapsed().as_secs() as usize;
    assert!(records < most, "{records} records for 200 batches on one SKU");
}

#[test]
fn what_a_killed_instance_left_unpublished_is_published_by_the_next_with_nothing_new_to_decide() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 10), ("HAT", 5)]);
    let first = scene.start("a", &["--levels-delay", "50ms"]);
    followers_know_all(&scene, SOON);
    first.stop();
    // One that never comes to publishing what it moved.
    let mut killed = scene.start("a", &["--no-levels"]);
    scene.produce(&[order("o-1", &[("MUG", 3), ("HAT", 1)])]);
    scene.done(SOON);
    killed.kill();
    assert_ne!(followed(&scene), in_ledger(&scene), "the order's levels were not published yet");
    let next = scene.start("b", &["--levels-delay", "50ms"]);
    followers_know_all(&scene, SOON);
    next.stop();
}

#[test]
fn an_older_level_that_an_instance_published_last_before_it_was_killed_does_not_stay_the_last() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 20)]);
    scene.stock(&[("MUG", 10)]);
    // Neither looks again by itself in this test.
    let settings = ["--levels-delay", "1h"];
    let survivor = scene.start("a", &settings);
    let mut other = scene.start("b", &settings);
    let topics = [scene.orders(), scene.topic("adjustments")];
    wait::until("each has a partition of each topic", LONG, || {
        [&survivor, &other].iter().all(|one| topics.iter().all(|topic| one.reads(topic).len() == 1))
    });
    followers_know_all(&scene, SOON);
    // What the other would have published, had it read the level before the last change and been slow to publish it. Until
    // the rounds that each makes when it is given partitions are over, it does not stay the last.
    let late = json!({"type": "stock.level", "sku": "MUG", "available": 20, "version": 1});
    wait::until("an older level is the last", SOON, || {
        scene.kafka.produce(&scene.topic("levels"), &[sent("MUG", late.to_string())]);
        followed(&scene)["MUG"] == (20, 1)
    });
    other.kill();
    followers_know_all(&scene, LONG);
    survivor.stop();
}

#[test]
fn without_levels_the_topic_is_not_needed() {
    let scene = Scene::new(1);
    scene.kafka.delete(&scene.topic("levels"));
    scene.stock(&[("MUG", 10)]);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    let verifier = scene.start("a", &["--no-levels"]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.kafka.partitions(&scene.topic("levels")), 0);
}

#[test]
fn who_follows_the_levels_ends_with_the_ledgers_whoever_is_killed_and_whenever() {
    const ORDERS: usize = 10_000;
    heavy();
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    let settings = ["--batch-max-orders", "100", "--levels-delay", "100ms"];
    let mut running: Vec<_> = (0..3).map(|n| scene.start(&format!("i-{n}"), &settings)).collect();
    let mut applied = 0;
    for part in stream.records.chunks(stream.records.len().div_ceil(5)) {
        scene.produce(part);
        let moment = applied + random.random_range(0..part.len() as i64 / 2);
        wait::until("the work goes on", LONG, || scene.database.applied() > moment);
        // The moment itself: anywhere between deciding and publishing levels.
        std::thread::sleep(Duration::from_micros(random.random_range(0..150_000)));
        let victim = random.random_range(0..running.len());
        running[victim].kill();
        // Now and then nobody takes its place but those that run already.
        if random.random_ratio(2, 3) || running.len() == 1 {
            let name = running[victim].name().to_owned();
            running[victim] = scene.start(&name, &settings);
        } else {
            running.remove(victim);
        }
        applied += part.len() as i64;
    }
    scene.done(LONG);
    followers_know_all(&scene, LONG);
    for verifier in running {
        verifier.stop();
    }
    assert_eq!(followed(&scene), in_ledger(&scene), "stopping publishes no old level");
    scene.prove();
}
