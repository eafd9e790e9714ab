//! A process that stands still past its session, while another takes over, and then goes on where it was.

use std::time::Duration;

use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::heavy;
use crate::support::{stream, wait};

const ORDERS: usize = 12_000;
const PARTITIONS: i32 = 6;
const ROUNDS: usize = 2;
const LONG: Duration = Duration::from_secs(90);

/// Small batches, so that the stop finds something under way; two workers, so that one process is several members.
const SETTINGS: [&str; 4] = ["--batch-max-orders", "100", "--workers", "2"];

/// How often it began to read a partition.
fn begun(verifier: &Verifier) -> usize {
    verifier.log().matches("reading partition").count()
}

#[test]
fn an_instance_stopped_past_its_session_loses_and_repeats_nothing_when_it_wakes() {
    heavy();
    let seed = stream::seed();
    let scene = Scene::new(PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let running = ["a", "b"].map(|instance| scene.start(instance, &SETTINGS));
    let mut before = 0;
    for (round, part) in stream.records.chunks(stream.records.len().div_ceil(ROUNDS)).enumerate() {
        let victim = &running[round % running.len()];
        let (early, late) = part.split_at(part.len() / 2);
        scene.produce(early);
        let moment = before + (early.len() / 4) as i64;
        wait::until("the work goes on", LONG, || scene.database.applied() > moment);
        victim.signal("STOP");
        // The other gets all of it, which takes the session's time, and whatever the victim left open is ended.
        let of_victim = format!("stock-verifier-{}-", victim.name());
        wait::until("the group has given it up", LONG, || {
            !scene.kafka.all_members(scene.group()).iter().any(|member| member.starts_with(&of_victim))
        });
        scene.done(LONG);
        let read = begun(victim);
        scene.produce(late);
        victim.signal("CONT");
        scene.done(LONG);
        wait::until("it reads again", LONG, || begun(victim) > read);
        before += part.len() as i64;
    }
    let ends = scene.finish(running, LONG);
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
}
