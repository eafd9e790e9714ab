//! Each topic is shared evenly, whoever starts first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::support::kafka::order;
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::wait;

const PARTITIONS: i32 = 12;
/// Some rebalances, each of a heartbeat or two; and who waits for older instances' members waits up to 40 s.
const LONG: Duration = Duration::from_secs(120);

/// Waits until each of them reads as many partitions of each topic as the others, and each partition has one reader.
#[track_caller]
fn evenly(scene: &Scene, running: &[Verifier]) {
    let share = PARTITIONS as usize / running.len();
    let topics = [scene.orders(), scene.topic("adjustments")];
    let what = format!("{} instances read {share} partitions of each topic", running.len());
    let deadline = std::time::Instant::now() + LONG;
    loop {
        // Each log once: what is counted and what is joined must be of one moment.
        let read: Vec<_> =
            running.iter().map(|one| topics.each_ref().map(|topic| one.reads(topic))).collect();
        let evenly = read.iter().flatten().all(|partitions| partitions.len() == share);
        let each_once = (0..topics.len()).all(|topic| {
            let all: BTreeSet<i32> = read.iter().flat_map(|one| one[topic].iter().copied()).collect();
            all.len() == PARTITIONS as usize
        });
        if evenly && each_once {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}; it is {read:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One, two, three instances, then two again, then three that start at once.
fn shared(settings: &[&str]) {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    let mut running = Vec::new();
    for name in ["a", "b", "c"] {
        running.push(scene.start(name, settings));
        evenly(&scene, &running);
    }
    running.remove(0).stop();
    evenly(&scene, &running);
    scene.produce(&(0..500).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect::<Vec<_>>());
    scene.done(LONG);
    running.into_iter().for_each(Verifier::stop);

    let running: Vec<_> = ["c", "b", "a"].iter().map(|name| scene.start(name, settings)).collect();
    evenly(&scene, &running);
    running.into_iter().for_each(Verifier::stop);
    assert_eq!(scene.prove().accepted, 500);
}

#[test]
fn each_topic_is_shared_evenly() {
    shared(&[]);
}

#[test]
fn each_topic_is_shared_evenly_by_workers_too() {
    shared(&["--workers", "2"]);
}

#[test]
fn each_topic_is_shared_evenly_where_the_broker_decides() {
    shared(&["--group-protocol", "consumer"]);
}

/// A member as 0.1 was: one membership that is subscribed to both topics.
struct Old {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Old {
    fn join(scene: &Scene) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &scene.kafka.brokers)
            .set("group.id", scene.group())
            .set("client.id", "old")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .create()
            .expect("a consumer");
        consumer.subscribe(&[&scene.orders(), &scene.topic("adjustments")]).expect("subscribed");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let _ = consumer.poll(Duration::from_millis(50));
            }
            consumer.unsubscribe();
        });
        Self { stop, thread: Some(thread) }
    }

    fn leave(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it runs").join().expect("it left");
    }
}

#[test]
fn instances_of_the_last_version_share_the_work_with_those_of_this_until_the_last_of_them_is_gone() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    let old = [Old::join(&scene), Old::join(&scene)];
    wait::until("the old instances are members", LONG, || scene.kafka.members(scene.group()).len() == 2);
    let topics = [scene.orders(), scene.topic("adjustments")];
    let mut running = vec![scene.start("a", &[]), scene.start("b", &[])];
    // Were they to join once for each topic, librdkafka's assignor would end the process of the old ones, this one.
    wait::until("all four have the same of the sum", LONG, || {
        running.iter().all(|one| topics.iter().map(|topic| one.reads(topic).len()).sum::<usize>() == 6)
    });
    for one in &mut running {
        one.said("older instances share this group", LONG);
    }
    let [first, last] = old;
    first.leave();
    running.push(scene.start("c", &[]));
    wait::until("the remaining four too", LONG, || {
        running.iter().all(|one| topics.iter().map(|topic| one.reads(topic).len()).sum::<usize>() == 6)
    });
    last.leave();
    for one in &mut running {
        one.said("no older instance is left", LONG);
    }
    evenly(&scene, &running);
    scene.produce(&(0..500).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect::<Vec<_>>());
    scene.done(LONG);
    running.into_iter().for_each(Verifier::stop);
    assert_eq!(scene.prove().accepted, 500);
}
