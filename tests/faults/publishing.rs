//! Results and dead letters that Kafka does not take, for now or ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use stock_verifier::event::MAX_KEY_BYTES;

use crate::support::kafka::{Sent, header, order};
use crate::support::process::Verifier;
use crate::support::proxy::{Act, Proxy, Wire, api, api_key};
use crate::support::scene::Scene;
use crate::support::servers::{Private, heavy, heavy_behind_kafkas_proxy, setting};
use crate::support::wait;

/// Longest wait for what takes seconds where the machine is not busy; what a topic refuses is tried for ten seconds first.
const SOON: Duration = Duration::from_secs(90);
/// By when what was refused for a moment is published: sooner than after two of the longest pauses between two tries, ten seconds.
const MOMENTS: Duration = Duration::from_secs(20);
/// How long a stop may take.
const STOP: [&str; 2] = ["--stop-timeout", "10s"];
/// And by when the process has ended. No other limit of a stop is as
/// short: batches under way are waited for for 30 s.
const STOPPED_BY: Duration = Duration::from_secs(20);
/// Kafka's tool for ACLs.
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
/// Kafka's own `max.message.bytes`.
const USUAL_BYTES: &str = "1048588";

/// Bytes that no codec makes fewer.
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn mug(id: &str, partition: i32) -> Sent {
    order(id, &[("MUG", 1)]).to(partition)
}

/// An order that is rejected with so many reasons, each for a SKU that nobody knows.
fn unknown(id: &str, lines: usize) -> Sent {
    let mut random = StdRng::seed_from_u64(1);
    let skus: Vec<String> =
        (0..lines).map(|_| format!("{:x}-{:x}", random.random::<u128>(), random.random::<u128>())).collect();
    let lines: Vec<_> = skus.iter().map(|sku| (&**sku, 1)).collect();
    order(id, &lines)
}

fn scene(partitions: i32) -> Scene {
    let scene = Scene::new(partitions);
    scene.stock(&[("MUG", 1_000_000)]);
    scene
}

#[test]
fn a_dead_letter_too_large_for_its_topic_is_published_without_its_value() {
    let scene = scene(2);
    scene.kafka.set(&scene.topic("dead"), "max.message.bytes", USUAL_BYTES);
    let large = |seed, length| Sent {
        key: Some(b"large".to_vec()),
        value: Some(random(seed, length)),
        partition: Some(0),
        ..Sent::default()
    };
    // As large as a topic of Kafka's own setting takes; its dead letter is larger by its headers. And what such a topic
    // takes of neither key nor headers.
    let key = Sent { key: Some(random(4, 1_048_300)), ..mug("long-key", 0) };
    let headers = mug("of-headers", 0).header("note", &random(5, 1_048_300));
    let headers = Sent { value: Some(b"{}".to_vec()), ..headers };
    scene.produce(&[
        mug("before", 0),
        large(1, 1_048_400),
        mug("between", 0),
        large(2, 3_000_000),
        large(3, 1_000),
        key,
        headers,
        mug("after", 0),
        mug("beside", 1),
    ]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let ends = scene.prove();
    assert_eq!((ends.accepted, ends.dead), (4, 5));
    let letters = scene.kafka.read(&scene.topic("dead"));
    let whole = letters.iter().filter(|letter| letter.value.is_some()).count();
    assert_eq!(whole, 1, "what is small enough is kept whole");
    assert!(letters.iter().any(|letter| header(letter, "stock_verifier.omitted.headers.bytes").is_some()));
}

#[test]
fn a_key_that_no_result_could_have_makes_a_dead_letter() {
    let scene = scene(1);
    let with_key = |id: &str, length| Sent { key: Some(random(1, length)), ..mug(id, 0) };
    scene.produce(&[
        with_key("long", MAX_KEY_BYTES),
        with_key("too-long", MAX_KEY_BYTES + 1),
        with_key("far-too-long", 1_048_300),
        mug("after", 0),
    ]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let ends = scene.prove();
    assert_eq!((ends.accepted, ends.dead), (2, 2));
    assert_eq!(scene.database.decided(), 2, "what cannot be published is not decided");
}

#[test]
fn a_result_that_cannot_be_published_stops_its_partition_alone_until_it_can() {
    let scene = scene(2);
    scene.kafka.set(&scene.topic("rejected"), "max.message.bytes", "4000");
    // Many small ones, which are too large only when they are sent together; and one that is by itself.
    let small: Vec<Sent> = (0..100).map(|number| unknown(&format!("small-{number}"), 8).to(1)).collect();
    let mut records = vec![mug("before", 0), unknown("large", 200).to(0), mug("after", 0), mug("beside", 1)];
    records.extend(small);
    scene.produce(&records);
    let mut verifier = scene.start("a", &[]);
    verifier.said("cannot be published. It is decided", SOON);
    wait::until("the other partition is published to its end", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(1), Some(101)]
    });
    // It goes on there.
    scene.produce(&[mug("later", 1), mug("later-too", 0)]);
    wait::until("the other partition goes on", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(1), Some(102)]
    });
    verifier.signal("TERM");
    assert_eq!(verifier.wait(SOON).code(), Some(3), "{}", verifier.log());

    scene.kafka.set(&scene.topic("rejected"), "max.message.bytes", USUAL_BYTES);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let ends = scene.prove();
    assert_eq!((ends.accepted, ends.rejected), (5, 101));
}

/// Denies things to the SASL user by an ACL.
fn deny(private: &Private, operation: &str, of: [&str; 2]) {
    let acl = ["--add", "--deny-principal", "User:stock", "--operation", operation, of[0], of[1]];
    private.kafka_tool(ACLS, &acl);
}

/// Starts a verifier that is the SASL user.
fn start_as_user(private: &Private, scene: &Scene, instance: &str) -> Verifier {
    let given = format!("sasl.password={}", private.setting("KAFKA_SASL_PASSWORD"));
    let mut arguments = vec!["--brokers", private.setting("KAFKA_SASL_BROKERS"), "-X", &given];
    arguments.extend(["-X", "security.protocol=sasl_plaintext", "-X", "sasl.mechanism=PLAIN"]);
    arguments.extend(["-X", "sasl.username=stock"]);
    scene.launch(scene.command_without_brokers(instance, &arguments), instance)
}

#[test]
fn a_topic_that_may_not_be_written_stops_who_needs_it_and_no_other() {
    heavy();
    let private = Private::start();
    let scene = Scene::on(&private.servers(), 2);
    scene.stock(&[("MUG", 1_000_000)]);
    let rejected = scene.topic("rejected");
    deny(&private, "Write", ["--topic", &rejected]);
    // What is denied to one by an ACL is from then on allowed to others by one.
    let describe =
        ["--add", "--allow-principal", "User:stock", "--operation", "Describe", "--topic", &rejected];
    private.kafka_tool(ACLS, &describe);
    scene.produce(&[mug("before", 0), unknown("none", 1).to(0), mug("after", 0), mug("beside", 1)]);
    let mut verifier = start_as_user(&private, &scene, "denied");
    verifier.said("cannot be published. It is decided", SOON);
    wait::until("the other partition is published to its end", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(1), Some(1)]
    });
    verifier.signal("TERM");
    assert_eq!(verifier.wait(SOON).code(), Some(3), "{}", verifier.log());
    // Who may, publishes the rest.
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let ends = scene.prove();
    assert_eq!((ends.accepted, ends.rejected), (3, 1));

    // And transactional ids that are taken away end the process, which says so.
    let mut verifier = start_as_user(&private, &scene, "b");
    scene.produce(&[mug("later", 0)]);
    wait::until("it is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(4), Some(1)]
    });
    deny(&private, "Write", ["--transactional-id", "*"]);
    scene.produce(&[mug("last", 0)]);
    assert_eq!(verifier.wait(SOON).code(), Some(1), "{}", verifier.log());
    let log = verifier.log();
    assert!(log.contains("allow this user to use their transactional ids"), "{log}");
    assert!(log.matches("could not be made anew").count() < 5, "it tries in vain: {log}");
    drop(scene);
}

#[test]
fn results_that_may_not_be_written_for_a_moment_are_published_moments_later() {
    heavy();
    let private = Private::start();
    let scene = Scene::on(&private.servers(), 1);
    scene.stock(&[("MUG", 1_000_000)]);
    let accepted = scene.topic("accepted");
    let all = ["--add", "--allow-principal", "User:stock", "--operation", "All", "--topic", &accepted];
    private.kafka_tool(ACLS, &all);
    let mut verifier = start_as_user(&private, &scene, "a");
    scene.produce(&[mug("before", 0)]);
    scene.done(SOON);
    deny(&private, "Write", ["--topic", &accepted]);
    scene.produce(&(0..500).map(|number| mug(&format!("o-{number}"), 0)).collect::<Vec<_>>());
    wait::until("a batch could not be published", SOON, || {
        verifier.log().contains("a batch could not be published")
    });
    let allow = ["--remove", "--force", "--deny-principal", "User:stock", "--operation", "Write"];
    private.kafka_tool(ACLS, &[&allow[..], &["--topic", &accepted]].concat());
    let again = Instant::now();
    scene.done(SOON);
    let took = again.elapsed();
    println!("published {took:?} after the topic took results again");
    assert!(took < MOMENTS, "it took {took:?}:\n{}", verifier.log());
    assert!(verifier.ended().is_none());
    verifier.stop();
    assert_eq!(scene.prove().accepted, 501);
    drop(scene);
}

#[test]
fn what_takes_longer_than_a_transaction_may_is_published_in_parts() {
    let _address = heavy_behind_kafkas_proxy();
    let scene = scene(2);
    let (brokers, upstream) = (setting("KAFKA_PROXY_BROKERS"), setting("KAFKA_PROXY_UPSTREAM"));
    // A second for each request, and requests of 10 kB one after another: what fills a transaction's ten seconds is some
    // hundred kilobytes.
    let _slow = Proxy::start(Wire::Kafka, &brokers, &upstream, |request| {
        if api_key(request) == api::PRODUCE { Act::Delay(1) } else { Act::Pass }
    });
    let to = |number: usize| i32::try_from(number % 2).expect("few");
    let orders: Vec<Sent> = (0..600).map(|number| mug(&format!("o-{number}"), to(number))).collect();
    scene.produce(&orders);
    let mut command = scene.command_without_brokers("a", &["--batch-max-age", "1s", "--no-levels"]);
    command.args(["--brokers", &brokers, "-X", "batch.size=10000", "-X", "max.in.flight=1"]);
    command.args(["-X", "compression.type=none", "-X", "linger.ms=50"]);
    let mut verifier = scene.launch(command, "slow");
    scene.done(Duration::from_secs(240));
    assert!(verifier.log().contains("fewer records are published at once"), "{}", verifier.log());
    assert!(verifier.ended().is_none());
    verifier.stop();
    assert_eq!(scene.prove().accepted, 600);
}

#[test]
fn a_stop_while_kafka_is_away_ends_soon_and_says_that_something_is_left() {
    let _address = heavy_behind_kafkas_proxy();
    let scene = scene(1);
    let (brokers, upstream) = (setting("KAFKA_PROXY_BROKERS"), setting("KAFKA_PROXY_UPSTREAM"));
    let is_away = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::start(Wire::Kafka, &brokers, &upstream, {
        let is_away = Arc::clone(&is_away);
        move |_| if is_away.load(Ordering::SeqCst) { Act::Silence } else { Act::Pass }
    });
    let mut verifier = scene.launch(
        scene.command_without_brokers("a", &["--brokers", &brokers, STOP[0], STOP[1]]),
        "behind-a-proxy",
    );
    scene.produce(&[mug("before", 0)]);
    scene.done(SOON);
    // It reads these, and then Kafka says no more.
    scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
        scene.produce(&[mug("in-hand", 0)]);
        wait::until("the batch waits for the lock", SOON, || {
            scene.database.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
        });
        is_away.store(true, Ordering::SeqCst);
    });
    wait::until("it is decided", SOON, || scene.database.decided() == 2);
    ends_unfinished(&mut verifier);
    drop(proxy);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 2);
}

#[test]
fn a_stop_while_the_database_does_not_answer_ends_soon_and_says_that_something_is_left() {
    let scene = scene(1);
    let mut verifier = scene.start("a", &STOP);
    scene.produce(&[mug("before", 0)]);
    scene.done(SOON);
    scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
        scene.produce(&[mug("in-hand", 0)]);
        wait::until("the batch waits for the lock", SOON, || {
            scene.database.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
        });
        ends_unfinished(&mut verifier);
    });
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 2);
}

/// Stops it: it ends within the time it has, and its status says that the next start has something to do.
#[track_caller]
fn ends_unfinished(verifier: &mut Verifier) {
    verifier.signal("TERM");
    let asked = Instant::now();
    assert_eq!(verifier.wait(SOON).code(), Some(75), "{}", verifier.log());
    assert!(asked.elapsed() < STOPPED_BY, "it took {:?} to stop", asked.elapsed());
}
