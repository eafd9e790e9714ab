//! Memory does not grow with what waits.

use std::time::{Duration, Instant};

use crate::support::kafka::sent;
use crate::support::scene::Scene;
use crate::support::servers::heavy;

/// Some 100 bytes each, of which reading all of them ahead would take several times as much: it would show in either test.
const ORDERS: usize = 200_000;
const MANY_ORDERS: usize = 1_000_000;
const SKUS: usize = 10_000;
/// Orders that are in the test's own memory at once.
const PART: usize = 100_000;
const MOST_BYTES: u64 = 150_000_000;

#[test]
fn a_backlog_drains_in_steady_memory() {
    drains_in_steady_memory(ORDERS);
}

#[test]
#[ignore = "takes minutes: tests/run --all"]
fn a_backlog_of_a_million_orders_drains_in_steady_memory() {
    drains_in_steady_memory(MANY_ORDERS);
}

fn drains_in_steady_memory(orders: usize) {
    heavy();
    let scene = Scene::new(6);
    let stock: Vec<_> = (0..SKUS).map(|number| (format!("SKU-{number}"), 1_000_000)).collect();
    scene.stock(&stock);
    let begun = Instant::now();
    for part in (0..orders).step_by(PART) {
        let records: Vec<_> = (part..part + PART)
            .map(|number| {
                let id = format!("o-{number}");
                let sku = number.wrapping_mul(7919) % SKUS;
                let value = format!(
                    r#"{{"type":"order.created","order_id":"{id}","lines":[{{"sku":"SKU-{sku}","quantity":1}}]}}"#
                );
                sent(&id, value)
            })
            .collect();
        scene.produce(&records);
    }
    println!("produced in {:.1?}", begun.elapsed());

    let begun = Instant::now();
    let verifier = scene.start("a", &[]);
    // What is tested is memory.
    scene.done(Duration::from_secs(900));
    let took = begun.elapsed();
    let most = verifier.most_memory();
    println!("drained in {took:.1?}, {:.0} orders/s", orders as f64 / took.as_secs_f64());
    println!("{:.0} MB resident at most", most as f64 / 1e6);
    verifier.stop();
    assert!(most < MOST_BYTES, "{most} bytes were resident");
    assert_eq!(scene.database.decided(), i64::try_from(orders).expect("some"));
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), orders);
    scene.prove_levels();
    scene.prove_rest();
    crate::replay::a_ledger_of_many_orders_is_rebuilt_after_a_kill(&scene);
}
