//! Processes that end without warning.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::support::kafka::order;
use crate::support::scene::Scene;
use crate::support::servers::heavy;
use crate::support::{stream, wait};

const ORDERS: usize = 12_000;
const PARTITIONS: i32 = 6;
const PROCESSES: usize = 3;
const KILLS: usize = 12;

/// Small batches, so that a kill finds something under way whenever it comes.
const SETTINGS: [&str; 2] = ["--batch-max-orders", "100"];

#[test]
fn a_dozen_kills_at_random_moments_lose_and_repeat_nothing() {
    heavy();
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new(PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);

    let mut started = 0;
    let mut start = |instance: &str| {
        started += 1;
        scene.start(instance, &SETTINGS)
    };
    let mut running: Vec<_> = (0..PROCESSES).map(|number| start(&format!("instance-{number}"))).collect();

    // The orders come in as many parts as there are kills, so that there is work left until the last.
    let begun = Instant::now();
    let mut applied = 0;
    for (kill, part) in stream.records.chunks(stream.records.len().div_ceil(KILLS)).enumerate() {
        scene.produce(part);
        let moment = applied + random.random_range(0..part.len() as i64 / 2);
        let delay = Duration::from_micros(random.random_range(0..30_000));
        wait::until("the work goes on", Duration::from_secs(60), || scene.database.applied() > moment);
        // The moment itself: anywhere between reading, deciding and publishing.
        std::thread::sleep(delay);
        let victim = random.random_range(0..PROCESSES);
        running[victim].kill();
        // Mostly the same instance comes back; at times another takes its place and the old one never returns.
        let name = match random.random_range(0..4) {
            0 => format!("instance-{victim}-{kill}"),
            _ => running[victim].name().to_owned(),
        };
        println!("{:>6.1?}: killed {} at {moment}+, {name} starts", begun.elapsed(), running[victim].name());
        running[victim] = start(&name);
        applied += part.len() as i64;
    }
    scene.done(Duration::from_secs(90));
    println!("{:>6.1?}: everything is published", begun.elapsed());
    for mut verifier in running {
        // The others may have done it all while this one was only just started, and not yet there to hear a signal.
        verifier.said("verifying", Duration::from_secs(60));
        verifier.stop();
    }
    println!("{:>6.1?}: all have stopped", begun.elapsed());
    assert_eq!(started, PROCESSES + KILLS);

    let ends = scene.prove();
    println!("{:>6.1?}: proved: {ends:?}", begun.elapsed());
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    assert_eq!(ends.accepted + ends.rejected + ends.dead + ends.absorbed, stream.records.len());
    assert!(ends.accepted > 0 && ends.rejected > 0 && ends.dead > 0 && ends.absorbed > 0, "{ends:?}");
}

#[test]
fn what_a_killed_member_was_to_let_go_of_is_read_though_it_is_back_under_its_name_at_once() {
    const SOON: Duration = Duration::from_secs(90);
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 10)]);
    // Stands for another instance. It is killed where nobody polls it any more: it lets go of nothing then.
    let joined = || scene.kafka.static_member(scene.group(), "stock-verifier-z-orders", &scene.orders());
    let has = |member: &BaseConsumer, count: usize| {
        let _ = member.poll(Duration::from_millis(10));
        member.assignment().is_ok_and(|given| given.count() == count)
    };
    let killed = joined();
    wait::until("it reads all orders", SOON, || has(&killed, 4));
    let verifier = scene.start("a", &[]);
    let asker = scene.kafka.asker();
    wait::until("it is to let go of half of them", SOON, || {
        let members = asker.group(scene.group()).map_or(Vec::new(), |group| group.members);
        members.iter().any(|member| {
            member.client_id == "stock-verifier-z-orders"
                && member.partitions.values().map(BTreeSet::len).sum::<usize>() == 2
        })
    });
    let back = joined();
    wait::until("it is back, with the other half", SOON, || has(&back, 2));
    scene.produce(&[0, 1, 2, 3].map(|at| order(&format!("o-{at}"), &[("MUG", 1)]).to(at)));
    // What it has itself it never decides.
    wait::until("the verifier reads what nobody read", SOON, || {
        let _ = back.poll(Duration::from_millis(10));
        scene.database.applied() == 2
    });
    assert!(verifier.log().contains("no member of the group reads"), "{}", verifier.log());
    verifier.stop();
    // Who is killed closes nothing.
    std::mem::forget(killed);
}
