//! Servers that are killed under a running verifier and come back.

use std::time::Duration;

use crate::support::scene::Scene;
use crate::support::servers::{Private, alone};
use crate::support::{stream, wait};

const ORDERS: usize = 20_000;
const PARTITIONS: i32 = 4;
const LONG: Duration = Duration::from_secs(120);

/// Kills a server again and again while orders are verified by two processes, which must live through it.
fn survives(server: &str, kills: usize) {
    let _alone = alone();
    let seed = stream::seed();
    let private = Private::start();
    let scene = Scene::on(&private.servers(), PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let mut running = ["a", "b"].map(|instance| scene.start(instance, &["--batch-max-orders", "100"]));
    let part = stream.records.len().div_ceil(kills + 1);
    for (number, records) in stream.records.chunks(part).enumerate() {
        scene.produce(records);
        if number == kills {
            break;
        }
        let moment = (number * part + records.len() / 4) as i64;
        wait::until("the work goes on", LONG, || {
            scene
                .database
                .try_number("SELECT sum(next_offset)::bigint FROM positions")
                .is_ok_and(|at| at > moment)
        });
        private.kill(server);
        private.restart();
    }
    scene.done(LONG);
    for verifier in &mut running {
        assert!(verifier.ended().is_none(), "{} did not live through it", verifier.name());
    }
    for verifier in running {
        verifier.stop();
    }
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    drop(scene);
}

#[test]
fn postgresql_killed_in_mid_run_loses_and_repeats_nothing() {
    survives("postgres", 3);
}

#[test]
fn kafka_killed_in_mid_run_loses_and_repeats_nothing() {
    survives("kafka", 2);
}
