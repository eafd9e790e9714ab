//! The life of an order's stock on real servers: cancelled, returned, held, confirmed, released, expired.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kafka::{Sent, header, sent};
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(90);

/// A record keyed by its order.
fn command(value: &Value) -> Sent {
    sent(value["order_id"].as_str().expect("an order id"), value.to_string())
}

fn created(order_id: &str, lines: &Value, more: &Value) -> Value {
    let mut value = json!({"type": "order.created", "order_id": order_id, "lines": lines});
    for (name, field) in more.as_object().expect("an object") {
        value[name] = field.clone();
    }
    value
}

/// What was published on a topic, without sources and times: for comparing.
fn published(scene: &Scene, which: &str) -> Vec<Value> {
    let mut published = scene.published(which);
    for event in &mut published {
        let event = event.as_object_mut().expect("an object");
        event.remove("source");
        for time in ["expires_at", "expired_at"] {
            if let Some(text) = event.get_mut(time) {
                assert!(text.as_str().expect("text").ends_with('Z'), "{text} is a time in UTC");
                *text = json!("then");
            }
        }
    }
    published
}

#[test]
fn an_order_lives_its_whole_life_and_every_step_of_it_is_published() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10), ("HAT", 4)]);
    let follow = |kind: &str, order_id: &str| json!({"type": kind, "order_id": order_id});
    let mug = |quantity: i64| json!([{"sku": "MUG", "quantity": quantity}]);
    let returned = |order_id: &str, return_id: &str, lines: &Value| json!({"type": "order.returned", "order_id": order_id, "return_id": return_id, "lines": lines});
    let commands = [
        created("o-1", &json!([{"sku": "MUG", "quantity": 3}, {"sku": "HAT", "quantity": 1}]), &json!({})),
        returned("o-1", "r-1", &mug(1)),
        returned("o-1", "r-1", &mug(1)),
        returned(
            "o-1",
            "r-2",
            &json!([{"sku": "MUG", "quantity": 3}, {"sku": "HAT", "quantity": 1}, {"sku": "PEN", "quantity": 1}]),
        ),
        follow("order.cancelled", "o-1"),
        returned("o-1", "r-3", &mug(1)),
        follow("order.cancelled", "o-2"),
        created("o-2", &mug(1), &json!({})),
        created("o-3", &mug(4), &json!({"hold_seconds": 900})),
        json!({"type": "order.hold_extended", "order_id": "o-3", "extension_id": "e-1", "hold_seconds": 60}),
        json!({"type": "order.confirmed", "order_id": "o-3", "lines": mug(3)}),
        follow("order.released", "o-3"),
        created("o-4", &mug(2), &json!({"hold_seconds": 900})),
        follow("order.released", "o-4"),
        follow("order.hold_due", "o-4"),
        follow("order.confirmed", "o-5"),
        created(
            "o-6",
            &json!([{"sku": "MUG", "quantity": 1}, {"sku": "HAT", "quantity": 9}, {"sku": "PEN", "quantity": 1}]),
            &json!({"policy": "partial"}),
        ),
        created("o-7", &mug(1), &json!({"hold_seconds": 0})),
    ];
    scene.produce(&commands.iter().map(command).collect::<Vec<_>>());
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();

    assert_eq!(
        published(&scene, "accepted"),
        [
            json!({"type": "order.accepted", "order_id": "o-1", "lines": [
                {"sku": "HAT", "quantity": 1, "balance": 3}, {"sku": "MUG", "quantity": 3, "balance": 7}]}),
            json!({"type": "return.accepted", "return_id": "r-1", "order_id": "o-1", "returned": [
                {"sku": "MUG", "quantity": 1, "balance": 8}]}),
            json!({"type": "cancellation.accepted", "order_id": "o-1", "returned": [
                {"sku": "HAT", "quantity": 1, "balance": 4}, {"sku": "MUG", "quantity": 2, "balance": 10}]}),
            json!({"type": "cancellation.accepted", "order_id": "o-2", "returned": []}),
            json!({"type": "order.accepted", "order_id": "o-3", "lines": [{"sku": "MUG", "quantity": 4, "balance": 6}],
                "expires_at": "then"}),
            json!({"type": "extension.accepted", "extension_id": "e-1", "order_id": "o-3", "expires_at": "then"}),
            json!({"type": "confirmation.accepted", "confirmation_id": "o-3", "order_id": "o-3",
                "lines": [{"sku": "MUG", "quantity": 3}], "returned": [{"sku": "MUG", "quantity": 1, "balance": 7}]}),
            json!({"type": "order.accepted", "order_id": "o-4", "lines": [{"sku": "MUG", "quantity": 2, "balance": 5}],
                "expires_at": "then"}),
            json!({"type": "release.accepted", "order_id": "o-4", "returned": [{"sku": "MUG", "quantity": 2, "balance": 7}]}),
            json!({"type": "order.accepted", "order_id": "o-6", "lines": [
                {"sku": "HAT", "quantity": 4, "balance": 0}, {"sku": "MUG", "quantity": 1, "balance": 6}], "short": [
                {"reason": "insufficient_stock", "sku": "HAT", "requested": 9, "available": 4},
                {"reason": "unknown_sku", "sku": "PEN", "requested": 1}]}),
        ]
    );
    let hold = "hold_seconds must be between 1 and 2678400, is 0";
    assert_eq!(
        published(&scene, "rejected"),
        [
            json!({"type": "return.rejected", "return_id": "r-2", "order_id": "o-1", "reasons": [
                {"reason": "return_exceeds_deducted", "sku": "MUG", "requested": 3, "left": 2},
                {"reason": "return_exceeds_deducted", "sku": "PEN", "requested": 1, "left": 0}]}),
            json!({"type": "return.rejected", "return_id": "r-3", "order_id": "o-1", "reasons": [{"reason": "already_cancelled"}]}),
            json!({"type": "order.rejected", "order_id": "o-2", "reasons": [{"reason": "order_cancelled"}]}),
            json!({"type": "release.rejected", "order_id": "o-3", "reasons": [{"reason": "already_confirmed"}]}),
            json!({"type": "confirmation.rejected", "confirmation_id": "o-5", "order_id": "o-5", "reasons": [{"reason": "order_not_found"}]}),
            json!({"type": "order.rejected", "order_id": "o-7", "reasons": [{"reason": "invalid_order", "detail": hold}]}),
        ]
    );
    assert_eq!(scene.kafka.read(&scene.topic("dead")).len(), 0);
    scene.prove_levels();
    scene.audit();
}

#[test]
fn a_hold_nobody_confirms_expires_once_whoever_runs_and_whoever_is_killed() {
    const HOLDS: usize = 600;
    let scene = Scene::new(3);
    scene.stock(&[("MUG", 1_000_000)]);
    let settings = ["--batch-max-orders", "50"];
    let mut running = vec![scene.start("a", &settings), scene.start("b", &settings)];
    let holds: Vec<_> = (0..HOLDS)
        .map(|n| {
            let lines = json!([{"sku": "MUG", "quantity": 10}]);
            command(&created(&format!("o-{n}"), &lines, &json!({"hold_seconds": 2})))
        })
        .collect();
    scene.produce(&holds);
    // Every third is confirmed in part: in time or not, as it comes.
    let confirmations: Vec<_> = (0..HOLDS)
        .step_by(3)
        .map(|n| {
            let lines = json!([{"sku": "MUG", "quantity": 4}]);
            command(&json!({"type": "order.confirmed", "order_id": format!("o-{n}"), "lines": lines}))
        })
        .collect();
    scene.produce(&confirmations);
    let ended = "SELECT count(*) FROM decisions WHERE kind = 7";
    wait::until("holds end", LONG, || scene.database.number(ended) > 0);
    running[0].kill();
    running.push(scene.start("c", &settings));
    // Every order is decided before it is asked whether holds are left.
    scene.done(LONG);
    wait::until("no hold is open", LONG, || scene.database.number("SELECT count(*) FROM holds") == 0);
    scene.done(LONG);
    running.remove(0);
    running.into_iter().for_each(crate::support::process::Verifier::stop);

    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in scene.kafka.read(&scene.topic("accepted")) {
        let kind = header(&record, "ce_type").expect("a type").to_owned();
        let event: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
        if kind != "order.accepted" {
            let order = event["order_id"].as_str().expect("an order id").to_owned();
            ends.entry(order).or_default().push(kind);
        }
    }
    assert_eq!(ends.len(), HOLDS, "each ended");
    let mut kept = 0;
    for (order, kinds) in &ends {
        match kinds.as_slice() {
            [one] if one == "confirmation.accepted" => kept += 4,
            [one] if one == "hold.expired" => {}
            other => panic!("{order} ended as {other:?}"),
        }
    }
    let late = scene.published("rejected");
    assert!(late.iter().all(|event| event["reasons"][0]["reason"] == "hold_expired"), "{late:?}");
    assert_eq!(usize::try_from(kept / 4).expect("few") + late.len(), HOLDS.div_ceil(3));
    assert_eq!(scene.database.number("SELECT available FROM levels"), 1_000_000 - kept);
    assert_eq!(scene.kafka.read(&scene.topic("dead")).len(), 0);
    scene.prove_levels();
    scene.audit();
}

/// Orders that hold one of a hundred mugs each, on every partition, decided by an instance that is gone then; and the
/// time of all is over.
fn leave_holds(scene: &Scene, partitions: i32) {
    scene.stock(&[("MUG", 100)]);
    let first = scene.start("a", &["--no-levels"]);
    let held = |n| {
        let lines = json!([{"sku": "MUG", "quantity": 1}]);
        command(&created(&format!("o-{n}"), &lines, &json!({"hold_seconds": 900}))).to(n % partitions)
    };
    scene.produce(&(0..20).map(held).collect::<Vec<_>>());
    scene.done(SOON);
    first.stop();
    assert_eq!(scene.database.number("SELECT count(*) FROM holds"), 20);
    scene.database.run("UPDATE holds SET expires_at = now() - interval '1 second'");
}

#[track_caller]
fn all_holds_end(scene: &Scene) {
    wait::until("no hold is open", SOON, || scene.database.number("SELECT count(*) FROM holds") == 0);
    assert_eq!(scene.database.number("SELECT available FROM levels"), 100);
}

#[test]
fn a_hold_ends_also_when_its_orders_topic_is_read_no_more() {
    let scene = Scene::new(3);
    leave_holds(&scene, 3);
    let before = scene.kafka.ends(&scene.orders(), "read_committed");
    let other = scene.topic("dead-orders");
    scene.kafka.create(&other, 2);
    let mut next = scene.command("a", &["--no-levels"]);
    next.args(["--orders-topic", &other]);
    let next = scene.launch(next, "a");
    all_holds_end(&scene);
    // Its other member may be joining.
    next.stop_among_others();
    assert_eq!(
        scene.kafka.ends(&scene.orders(), "read_committed"),
        before,
        "nothing is sent where nobody reads"
    );
    scene.kafka.delete(&other);
}

#[test]
fn a_hold_ends_also_when_its_partition_is_no_more() {
    let scene = Scene::new(6);
    leave_holds(&scene, 6);
    scene.kafka.delete(&scene.orders());
    scene.kafka.create(&scene.orders(), 2);
    let next = scene.start("a", &["--no-levels", "--accept-data-loss"]);
    all_holds_end(&scene);
    // Its other member may be joining.
    next.stop_among_others();
}

#[test]
fn a_hold_that_stays_open_long_after_its_end_is_named_by_the_log_and_the_audit() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let mut verifier = scene.start("a", &["--no-levels"]);
    let lines = json!([{"sku": "MUG", "quantity": 1}]);
    let held = |id: &str| command(&created(id, &lines, &json!({"hold_seconds": 900})));
    scene.produce(&[held("o-1"), held("o-2"), held("o-3")]);
    scene.done(SOON);
    // Long over, and as if someone had it to himself who does not ask.
    scene.database.run(
        "UPDATE holds SET expires_at = now() - interval '1 hour', asked_until = now() + interval '9 minutes'
         WHERE order_id <> 'o-3'; UPDATE holds SET expires_at = now() - interval '2 hours' WHERE order_id = 'o-2'",
    );
    verifier.said("holds are over since more than 120s", SOON);
    let log = verifier.log();
    assert!(log.contains("holds=2") && log.contains("order_id=o-2"), "{log}");
    verifier.stop();
    let audit = scene.tool(&["audit"]).output().expect("it runs");
    let text = String::from_utf8(audit.stdout).expect("UTF-8");
    assert!(text.contains("Note: 2 holds are over since more than 120s"), "{text}");
    assert!(text.contains("the oldest of order o-2"), "{text}");
}
