//! Sharing the work: rebalance protocols, workers, members that come.

use std::time::Duration;

use crate::support::scene::Scene;
use crate::support::servers::alone;
use crate::support::{stream, wait};

const ORDERS: usize = 10_000;
const LONG: Duration = Duration::from_secs(90);

#[test]
fn the_consumer_protocol_shares_the_work_and_survives_a_kill() {
    let _alone = alone();
    let seed = stream::seed();
    let settings = ["--group-protocol", "consumer", "--batch-max-orders", "100"];
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    let mut first = scene.start("a", &settings);
    let second = scene.start("b", &settings);
    let (early, late) = stream.records.split_at(ORDERS / 2);
    scene.produce(early);
    wait::until("the work goes on", LONG, || scene.database.applied() > 1_000);
    first.kill();
    let first = scene.start("a", &settings);
    scene.produce(late);
    scene.done(LONG);
    first.stop();
    second.stop();
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
}

#[test]
fn members_that_come_and_go_under_load_lose_and_repeat_nothing() {
    let _alone = alone();
    let seed = stream::seed();
    let settings = ["--batch-max-orders", "100"];
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    scene.produce(&stream.records);
    let mut running = vec![scene.start("m-0", &settings)];
    for number in 1..4 {
        let reached = scene.database.applied() + 1_000;
        wait::until("the work goes on", LONG, || scene.database.applied() > reached || scene.is_done());
        running.push(scene.start(&format!("m-{number}"), &settings));
        if number % 2 == 0 {
            running.remove(0).stop_among_others();
        }
    }
    scene.done(LONG);
    for verifier in running {
        verifier.stop();
    }
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
}

#[test]
fn several_workers_of_one_process_are_several_members() {
    let seed = stream::seed();
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    let verifier = scene.start("a", &["--workers", "3", "--batch-max-orders", "200"]);
    wait::until("each worker is a member", LONG, || scene.kafka.members(scene.group()).len() == 3);
    scene.produce(&stream.records);
    scene.done(LONG);
    verifier.stop();
    scene.prove();
}
