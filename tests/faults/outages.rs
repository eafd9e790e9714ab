//! Servers that are killed under a running verifier and come back.

use std::time::{Duration, Instant};

use crate::support::brokers::Broker;
use crate::support::kafka::{Cluster, order};
use crate::support::scene::Scene;
use crate::support::servers::{Private, heavy};
use crate::support::{stream, wait};

const ORDERS: usize = 5_000;
const PARTITIONS: i32 = 4;
const LONG: Duration = Duration::from_secs(120);
/// Orders at once while results may not be written.
const PORTION: usize = 200;
/// How long they may not: no limit of ours is as short, so that nothing is given up for its age.
const UNWRITABLE: Duration = Duration::from_secs(2);
/// By when all is published after. Mostly in three seconds; but a record that hung while there were too few replicas can hang on,
/// until Kafka ends its transaction after ten, and looks for such once a second. A new producer is there in moments.
const TOLD_AGAIN: Duration = Duration::from_secs(40);

/// The same where the group's coordinator is gone: sending offsets to it hangs, and is given up after twelve seconds; the next
/// producers ask who it is now. That it does not hang twice is told by the log; this is for a busy machine.
const HUNG_ONCE: Duration = Duration::from_secs(60);

/// Kills a server again and again while orders are verified by two processes, which must live through it.
fn survives(server: &str, kills: usize, properties: impl Fn(&Private) -> Vec<String>) {
    heavy();
    let seed = stream::seed();
    let private = Private::start();
    let scene = Scene::on(&private.servers(), PARTITIONS);
    let more = properties(&private);
    let more: Vec<&str> =
        ["--batch-max-orders", "100"].into_iter().chain(more.iter().map(String::as_str)).collect();
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let brokers = ["--brokers", &scene.kafka.brokers];
    let own = if more.contains(&"--brokers") { &[][..] } else { &brokers[..] };
    let running = ["a", "b"].map(|instance| {
        let arguments: Vec<&str> = own.iter().chain(&more).copied().collect();
        scene.launch(scene.command_without_brokers(instance, &arguments), instance)
    });
    let begun = Instant::now();
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
        println!("{:>6.1?}: {server} is killed", begun.elapsed());
        private.restart();
        println!("{:>6.1?}: {server} is back", begun.elapsed());
    }
    scene.done(LONG);
    println!("{:>6.1?}: everything is published", begun.elapsed());
    let ends = scene.finish(running, LONG);
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    drop(scene);
}

#[test]
fn postgresql_killed_in_mid_run_loses_and_repeats_nothing() {
    survives("postgres", 2, |_| Vec::new());
}

#[test]
fn kafka_killed_in_mid_run_loses_and_repeats_nothing() {
    survives("kafka", 1, |_| Vec::new());
}

/// Three replicas of everything, two of which must have what is acknowledged.
const REPLICATED: &str = "default.replication.factor=3\nmin.insync.replicas=2\n\
    offsets.topic.replication.factor=3\noffsets.topic.num.partitions=8\n\
    transaction.state.log.replication.factor=3\ntransaction.state.log.min.isr=2\n\
    transaction.state.log.num.partitions=8\ntransaction.abort.timed.out.transaction.cleanup.interval.ms=1000";

/// Clusters that are tried until the groups of one have several coordinators.
const CLUSTERS: usize = 5;

/// Groups that are tried until one has a coordinator that fits. Two of three brokers do.
const GROUPS: usize = 30;

/// Three brokers, of which not the first alone coordinates groups.
fn cluster() -> (Private, [Broker; 2]) {
    for _ in 0..CLUSTERS {
        let private = Private::start_with(REPLICATED);
        let others = [2, 3].map(|node| Broker::start(&private, node, REPLICATED));
        let kafka = Cluster::new(&private.servers().brokers);
        wait::until("the cluster is complete", LONG, || kafka.brokers_there() == 3);
        // Asked for a coordinator, Kafka makes the topic. A broker that was too slow to say that it lives, on a busy machine,
        // leads no partition of it then, and never will.
        let _ = Scene::on(&private.servers(), PARTITIONS).coordinator();
        let coordinators = kafka.coordinators();
        if coordinators.iter().any(|broker| *broker > 1) {
            return (private, others);
        }
        println!("all groups of this cluster have one coordinator: {coordinators:?}");
    }
    panic!("in {CLUSTERS} clusters only the first broker coordinates groups");
}

#[test]
fn brokers_of_a_cluster_killed_one_after_the_other_lose_and_repeat_nothing() {
    heavy();
    let seed = stream::seed();
    let (private, mut others) = cluster();
    let scene = Scene::on(&private.servers(), PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let running = ["a", "b"].map(|instance| scene.start(instance, &["--batch-max-orders", "100"]));
    let part = stream.records.len().div_ceil(others.len() + 1);
    for (number, records) in stream.records.chunks(part).enumerate() {
        scene.produce(records);
        let Some(broker) = others.get_mut(number) else { break };
        let moment = (number * part + records.len() / 4) as i64;
        wait::until("the work goes on", LONG, || scene.database.applied() > moment);
        broker.kill();
        // Two replicas are enough to go on, with other leaders and other coordinators.
        scene.done(LONG);
        broker.restart();
        let replicas = 3 * usize::try_from(PARTITIONS).expect("few");
        let follows = |which: &str| scene.kafka.in_sync(&scene.topic(which)) == replicas;
        wait::until("all replicas follow again", LONG, || follows("orders") && follows("accepted"));
    }
    let ends = scene.finish(running, LONG);
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    drop(scene);
}

#[test]
fn results_that_too_few_replicas_take_for_a_moment_are_published_moments_later() {
    too_few_replicas(false, TOLD_AGAIN);
}

#[test]
fn a_groups_coordinator_that_dies_holds_up_its_results_once() {
    too_few_replicas(true, HUNG_ONCE);
}

/// Kills one of three brokers where each result must be on all three: the group's coordinator, or not. Results are published
/// `within` this time after two are enough.
fn too_few_replicas(kill_coordinator: bool, within: Duration) {
    heavy();
    let (private, mut others) = cluster();
    // A broker that can be killed: the first has the cluster's controller.
    let fits = |scene: &Scene| !kill_coordinator || scene.coordinator() != 1;
    let mut groups = std::iter::repeat_with(|| Scene::on(&private.servers(), PARTITIONS)).take(GROUPS);
    let scene = groups.find(fits);
    let scene = scene.expect("a group in three has another coordinator than the first broker");
    scene.stock(&[("MUG", 1_000_000)]);
    let accepted = scene.topic("accepted");
    let replicas = usize::try_from(PARTITIONS).expect("few");
    wait::until("all replicas follow", LONG, || scene.kafka.in_sync(&accepted) == 3 * replicas);
    scene.kafka.set(&accepted, "min.insync.replicas", "3");
    let mut verifier = scene.start("a", &["--batch-max-orders", "100"]);
    let orders = |round: usize| {
        let to = |number: usize| i32::try_from(number).expect("few") % PARTITIONS;
        let mug = |number| order(&format!("o-{round}-{number}"), &[("MUG", 1)]).to(to(number));
        scene.produce(&(0..PORTION).map(mug).collect::<Vec<_>>());
    };
    orders(0);
    scene.done(LONG);
    let coordinator = scene.coordinator();
    let killed = (2..).zip(&mut others).find(|(node, _)| (*node == coordinator) == kill_coordinator);
    let (_, broker) = killed.expect("one of the two");
    broker.kill();
    let mut rounds = 1;
    let mut unwritable: Option<Instant> = None;
    wait::until("the topic was not written for a while", LONG, || {
        orders(rounds);
        rounds += 1;
        if unwritable.is_none() && scene.kafka.in_sync(&accepted) == 2 * replicas {
            unwritable = Some(Instant::now());
        }
        unwritable.is_some_and(|since| since.elapsed() > UNWRITABLE)
    });
    scene.kafka.set(&accepted, "min.insync.replicas", "2");
    let again = Instant::now();
    // By the committed offsets, which travel with the results: a client of the tests may still ask for the broker that is
    // gone.
    wait::until("everything is published", LONG, || {
        let committed = scene.kafka.try_committed(scene.group(), &scene.orders());
        committed.is_ok_and(|at| at.iter().flatten().sum::<i64>() == (rounds * PORTION) as i64)
    });
    let took = again.elapsed();
    scene.done(LONG);
    println!("published {took:?} after the topic took results again");
    assert!(took < within, "it took {took:?}:\n{}", verifier.log());
    let hung = verifier.log().matches("sending offsets hangs").count();
    assert!(hung <= 1, "the second producer remembered the same coordinator:\n{}", verifier.log());
    assert!(verifier.ended().is_none());
    verifier.stop();
    assert_eq!(scene.prove().accepted, rounds * PORTION);
    drop(scene);
}

#[test]
fn kafka_over_tls_killed_under_several_workers_loses_and_repeats_nothing() {
    survives("kafka", 1, |private| {
        let authority = format!("ssl.ca.location={}", private.setting("KAFKA_SSL_CA"));
        let brokers = private.setting("KAFKA_SSL_BROKERS");
        ["--workers", "2", "--brokers", brokers, "-X", "security.protocol=ssl", "-X", &authority]
            .map(str::to_owned)
            .to_vec()
    });
}
