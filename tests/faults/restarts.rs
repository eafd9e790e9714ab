//! Instances that are killed and come back soon, under the id they had.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crate::support::kafka::{Sent, order};
use crate::support::proxy::{Act, Proxy, Wire, api, api_key};
use crate::support::scene::Scene;
use crate::support::servers::{heavy, heavy_behind_kafkas_proxy, setting};
use crate::support::{stream, wait};

const LONG: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 6;
/// Seconds by which a request to join again is late: more than the session of a [`Scene`]'s verifiers.
const LATE_JOIN: u64 = 9;
/// Seconds by which records are late: more than joining anew takes after that.
const LATE_FETCH: u64 = 14;

/// An order for each partition.
fn one_each(prefix: &str) -> Vec<Sent> {
    let partitions = 0..PARTITIONS;
    partitions.map(|partition| order(&format!("{prefix}-{partition}"), &[("MUG", 1)]).to(partition)).collect()
}

#[test]
fn an_instance_that_comes_back_soon_goes_on_without_waiting_for_its_session() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    // Longer than anything is waited for here: a member that is not static would have to be waited for until it is over.
    let patient = ["-X", "session.timeout.ms=120000"];
    let mut first = scene.start("a", &patient);
    let second = scene.start("b", &patient);
    // The group is at rest before one is killed.
    let topics = [scene.orders(), scene.topic("adjustments")];
    let half = PARTITIONS as usize / 2;
    wait::until("each has half of both topics", LONG, || {
        [&first, &second].iter().all(|one| topics.iter().all(|topic| one.reads(topic).len() == half))
    });
    scene.produce(&one_each("before"));
    scene.done(LONG);
    first.kill();
    let begun = Instant::now();
    let first = scene.start("a", &patient);
    scene.produce(&one_each("after"));
    scene.done(LONG);
    println!("everything was published {:?} after the kill", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    first.stop();
    second.stop();
    assert_eq!(scene.prove().accepted, 2 * PARTITIONS as usize);
}

#[test]
fn an_instance_killed_more_often_than_its_session_does_not_stall_the_group() {
    heavy();
    let mut random = StdRng::seed_from_u64(stream::seed());
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    // So long that a member that is not static is waited for until the test is over: then it is silent for 20 s and more.
    let patient = ["-X", "session.timeout.ms=60000"];
    let stays = scene.start("stays", &patient);
    let mut dies = scene.start("dies", &patient);
    dies.said("reading", LONG);
    let over = CancellationToken::new();
    let (produced, silence) = std::thread::scope(|threads| {
        // A failure ends it too.
        let end = over.clone().drop_guard();
        let producing = threads.spawn(|| {
            let mut number = 0;
            while !over.is_cancelled() {
                number += 1;
                scene.produce(&one_each(&format!("o-{number}")));
            }
            number * PARTITIONS as usize
        });
        let watching = threads.spawn(|| {
            let (mut applied, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
            while !over.is_cancelled() {
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
            // From when it joins, or a busy machine could leave it no time for that.
            dies.said("verifying", LONG);
            // How long it lives is what is tested: not long enough for the group to have given it up.
            std::thread::sleep(Duration::from_millis(random.random_range(2_000..4_000)));
            dies.kill();
            dies = scene.start("dies", &patient);
        }
        drop(end);
        (producing.join().expect("produced"), watching.join().expect("watched"))
    });
    println!("the longest silence was {silence:?}");
    assert!(silence < Duration::from_secs(18), "nothing was decided for {silence:?}");
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

#[test]
fn an_instance_whose_joining_again_comes_too_late_publishes_nothing_that_another_published_meanwhile() {
    let _address = heavy_behind_kafkas_proxy();
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000_000)]);
    let (brokers, upstream) = (setting("KAFKA_PROXY_BROKERS"), setting("KAFKA_PROXY_UPSTREAM"));
    let is_slow = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::start(Wire::Kafka, &brokers, &upstream, {
        let is_slow = Arc::clone(&is_slow);
        move |request| match api_key(request) {
            api::JOIN_GROUP if is_slow.load(Ordering::SeqCst) => Act::Hold(LATE_JOIN),
            api::FETCH if is_slow.load(Ordering::SeqCst) => Act::Hold(LATE_FETCH),
            _ => Act::Pass,
        }
    });
    let two_each = |prefix: &str| {
        let to = |partition: i32| order(&format!("{prefix}-{partition}"), &[("MUG", 1)]).to(partition);
        [to(0), to(1)]
    };
    let slow = scene.command_without_brokers("slow", &["--brokers", &brokers]);
    let mut slow = scene.launch(slow, "slow");
    scene.produce(&two_each("before"));
    scene.done(LONG);
    // The other one's coming asks the slow one to join again. The group gives it up before it hears of it, gives the other
    // all of its partitions, and these are decided and published there. What the slow one would read is on its way too.
    is_slow.store(true, Ordering::SeqCst);
    let other = scene.start("other", &[]);
    wait::until("the group is asked to join again", LONG, || proxy.acted() > 0);
    wait::until("the other has everything", LONG, || {
        scene.kafka.all_members(scene.group()).iter().all(|member| member.contains("other"))
    });
    scene.produce(&two_each("meanwhile"));
    scene.done(LONG);
    other.stop();
    is_slow.store(false, Ordering::SeqCst);
    // Now it joins as somebody new, and the group gives it what it once had.
    scene.produce(&two_each("after"));
    scene.done(LONG);
    assert!(slow.ended().is_none(), "it did not live through it");
    slow.stop();
    assert_eq!(scene.prove().accepted, 6);
}
