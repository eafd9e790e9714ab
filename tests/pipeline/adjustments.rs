//! Stock that changes without an order, through its own topic.

use std::time::Duration;

use serde_json::json;

use crate::support::kafka::{Sent, header, order, sent};
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

fn received(id: &str, sku: &str, quantity: i64) -> Sent {
    let value = json!({"type": "stock.received", "adjustment_id": id, "sku": sku, "quantity": quantity});
    sent(sku, value.to_string())
}

fn adjusted(id: &str, sku: &str, quantity: i64) -> Sent {
    let value = json!({"type": "stock.adjusted", "adjustment_id": id, "sku": sku, "quantity": quantity});
    sent(sku, value.to_string())
}

fn set(id: &str, sku: &str, available: i64, expected: Option<i64>) -> Sent {
    let value = json!({
        "type": "stock.set", "adjustment_id": id, "sku": sku, "available": available, "expected_version": expected,
    });
    sent(sku, value.to_string())
}

#[test]
fn stock_is_received_adjusted_and_set_once_each_and_every_adjustment_is_published() {
    let scene = Scene::new(1);
    scene.kafka.produce(
        &scene.topic("adjustments"),
        &[
            received("a-1", "MUG", 100),
            received("a-1", "MUG", 100),
            adjusted("a-2", "MUG", -30),
            adjusted("a-3", "MUG", -71),
            set("a-4", "MUG", 50, Some(2)),
            set("a-5", "MUG", 60, Some(2)),
            adjusted("a-6", "HAT", 1),
            set("a-7", "HAT", 5, Some(0)),
            received("a-8", "HAT", 0),
            adjusted("a-2", "MUG", -31),
        ],
    );
    let verifier = scene.start("a", &[]);
    scene.adjusted(SOON);
    verifier.stop();

    let source = |offset| json!({"topic": scene.topic("adjustments"), "partition": 0, "offset": offset});
    let accepted = |id: &str, sku: &str, quantity: i64, balance: i64, version: i64, offset: i64| {
        json!({"type": "adjustment.accepted", "adjustment_id": id, "lines": [
            {"sku": sku, "quantity": quantity, "balance": balance, "version": version}], "source": source(offset)})
    };
    assert_eq!(
        scene.published("accepted"),
        [
            accepted("a-1", "MUG", 100, 100, 1, 0),
            accepted("a-2", "MUG", -30, 70, 2, 2),
            accepted("a-4", "MUG", -20, 50, 3, 4),
            accepted("a-7", "HAT", 5, 5, 1, 7),
        ]
    );
    let rejected = |id: &str, reason: serde_json::Value, offset: i64| json!({"type": "adjustment.rejected", "adjustment_id": id, "reasons": [reason], "source": source(offset)});
    let too_few = "quantity must be between 1 and 1000000000000, is 0";
    assert_eq!(
        scene.published("rejected"),
        [
            rejected(
                "a-3",
                json!({"reason": "insufficient_stock", "sku": "MUG", "requested": 71, "available": 70}),
                3
            ),
            rejected(
                "a-5",
                json!({"reason": "version_mismatch", "sku": "MUG", "expected": 2, "actual": 3}),
                5
            ),
            rejected("a-6", json!({"reason": "unknown_sku", "sku": "HAT", "requested": 1}), 6),
            rejected("a-8", json!({"reason": "invalid_order", "detail": too_few}), 8),
        ]
    );
    let letters = scene.kafka.read(&scene.topic("dead"));
    assert_eq!(letters.len(), 1);
    assert_eq!(header(&letters[0], "__connect.errors.exception.class.name"), Some("order_conflict"));
    assert_eq!(header(&letters[0], "__connect.errors.topic"), Some(&*scene.topic("adjustments")));
    scene.prove_levels();
    scene.audit();
}

#[test]
fn orders_and_adjustments_share_the_stock_and_a_killed_verifier_loses_and_repeats_none_of_them() {
    let scene = Scene::new(3);
    let skus: Vec<String> = (0..8).map(|number| format!("SKU-{number}")).collect();
    let deliveries: Vec<_> =
        (0..2_000).map(|n| received(&format!("a-{n}"), &skus[n % skus.len()], 2)).collect();
    let orders: Vec<_> =
        (0..4_000).map(|n| order(&format!("o-{n}"), &[(&skus[n % skus.len()], 1)])).collect();
    scene.kafka.produce(&scene.topic("adjustments"), &deliveries);
    scene.produce(&orders);
    let mut first = scene.start("a", &["--batch-max-orders", "100"]);
    wait::until("the work is under way", SOON, || scene.database.applied() > 500);
    first.kill();
    let second = scene.start("a", &["--batch-max-orders", "100"]);
    scene.adjusted(SOON);
    scene.done(SOON);
    second.stop();

    let published: Vec<_> =
        ["accepted", "rejected"].iter().flat_map(|which| scene.published(which)).collect();
    let of = |name: &str| published.iter().filter(|event| event["type"] == name).count();
    assert_eq!(of("adjustment.accepted"), 2_000);
    assert_eq!(of("order.accepted") + of("order.rejected"), 4_000);
    let left = scene.database.number("SELECT sum(available)::bigint FROM levels");
    assert_eq!(left + i64::try_from(of("order.accepted")).expect("few"), 4_000);
    scene.prove_levels();
    scene.audit();
}
