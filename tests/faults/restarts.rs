//! Instances that are killed and come back soon, under the id they had.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::kafka::{Sent, order};
use crate::support::scene::Scene;
use crate::support::servers::alone;
use crate::support::{stream, wait};

const LONG: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 6;

/// An order for each partition.
fn one_each(prefix: &str) -> Vec<Sent> {
    let partitions = 0..PARTITIONS;
    partitions.map(|partition| order(&format!("{prefix}-{partition}"), &[("MUG", 1)]).to(partition)).collect()
}

#[test]
fn an_instance_that_comes_back_soon_goes_on_without_waiting_for_its_session() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    // The longest that goes unnoticed; a member that is not static would have to be waited for until it is over.
    let patient = ["-X", "session.timeout.ms=60000"];
    let mut first = scene.start("a", &patient);
    let mut second = scene.start("b", &patient);
    for one in [&mut first, &mut second] {
        one.said("reading", LONG);
    }
    scene.produce(&one_each("before"));
    scene.done(LONG);
    first.kill();
    let begun = Instant::now();
    let first = scene.start("a", &patient);
    scene.produce(&one_each("after"));
    scene.done(LONG);
    println!("everything was published {:?} after the kill", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    first.stop();
    second.stop();
    assert_eq!(scene.prove().accepted, 2 * PARTITIONS as usize);
}

#[test]
fn an_instance_killed_more_often_than_its_session_does_not_stall_the_group() {
    let _alone = alone();
    let mut random = StdRng::seed_from_u64(stream::seed());
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    // So long that a member that is not static is waited for until the test is over: then it is silent for 20 s and more.
    let patient = ["-X", "session.timeout.ms=20000"];
    let stays = scene.start("stays", &patient);
    let mut dies = scene.start("dies", &patient);
    dies.said("reading", LONG);
    let over = AtomicBool::new(false);
    let (produced, silence) = std::thread::scope(|threads| {
        let producing = threads.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::SeqCst) {
                number += 1;
                scene.produce(&one_each(&format!("o-{number}")));
            }
            number * PARTITIONS as usize
        });
        let watching = threads.spawn(|| {
            let (mut applied, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
            while !over.load(Ordering::SeqCst) {
                let now = scene.database.applied();
                if now > applied {
                    (applied, since) = (now, Instant::now());
                }
                longest = longest.max(since.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(25) {
            // How long it lives is what is tested: not long enough for the group to have given it up.
            std::thread::sleep(Duration::from_millis(random.random_range(2_000..4_000)));
            dies.kill();
            dies = scene.start("dies", &patient);
        }
        over.store(true, Ordering::SeqCst);
        (producing.join().expect("produced"), watching.join().expect("watched"))
    });
    println!("the longest silence was {silence:?}");
    assert!(silence < Duration::from_secs(10), "nothing was decided for {silence:?}");
    scene.done(LONG);
    // The other may have done it all while this one was only just started, and not yet there to hear a signal.
    dies.said("verifying", LONG);
    dies.stop();
    stays.stop();
    assert_eq!(scene.prove().accepted, produced);
}

#[test]
fn an_id_for_static_members_given_by_hand_is_taken_for_each_membership_of_each_worker() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    let by_hand = ["-X", "group.instance.id=mine", "--workers", "2", "-X", "client.id=my-client"];
    let mut verifier = scene.start("a", &by_hand);
    wait::until("each worker is two members", LONG, || {
        let mut members = scene.kafka.all_members(scene.group());
        members.sort();
        assert!(verifier.ended().is_none(), "it ended, and the group had {members:?}");
        members == ["my-client-adjustments", "my-client-adjustments", "my-client-orders", "my-client-orders"]
    });
    verifier.said("reading", LONG);
    scene.produce(&one_each("one"));
    scene.done(LONG);
    verifier.stop();
    assert!(scene.kafka.all_members(scene.group()).is_empty(), "it has not left the group");
    assert_eq!(scene.prove().accepted, PARTITIONS as usize);
}
