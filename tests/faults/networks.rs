//! Connections that break at the worst moments: a request was carried out, and its answer is lost.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::kafka::order;
use crate::support::process::Verifier;
use crate::support::proxy::{Act, Proxy, Wire, api, api_key};
use crate::support::scene::Scene;
use crate::support::servers::{heavy_behind_kafkas_proxy, setting};
use crate::support::stream;

const LONG: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 2;

fn scene_of(seed: u64, orders: usize) -> (Scene, usize) {
    let scene = Scene::new(PARTITIONS);
    let stream = stream::make(seed, orders, PARTITIONS);
    scene.stock(&stream.stock);
    scene.produce(&stream.records);
    (scene, stream.records.len())
}

/// All is published, the verifier lived, and every invariant holds.
fn ends_well(scene: &Scene, verifier: Verifier, records: usize) {
    let ends = scene.finish([verifier], LONG);
    assert_eq!(ends.accepted + ends.rejected + ends.dead + ends.absorbed, records);
}

/// Runs with PostgreSQL behind a proxy that acts on the nth, 2nth, … request holding these bytes.
fn with_postgres_behind(bytes: &'static [u8], every: u64, act: Act) {
    let (scene, records) = scene_of(7, 4_000);
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    let upstream = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5432));
    let seen = Mutex::new(0_u64);
    let proxy = Proxy::start(Wire::Postgres, "127.0.0.1:0", &upstream, move |request| {
        if !request.windows(bytes.len()).any(|window| window == bytes) {
            return Act::Pass;
        }
        let mut seen = seen.lock().expect("no panic before");
        *seen += 1;
        if (*seen).is_multiple_of(every) { act } else { Act::Pass }
    });
    url.set_port(Some(proxy.address.port())).expect("a port");
    url.set_host(Some("127.0.0.1")).expect("a host");
    // The later --database-url would be refused as a repetition, so by the environment.
    let mut command = scene.command_without_database("a", &["--batch-max-orders", "50"]);
    command.env("STOCK_VERIFIER_DATABASE_URL", url.as_str());
    let verifier = scene.launch(command, "behind-a-proxy");
    scene.done(LONG);
    assert!(proxy.acted() > 5, "the proxy acted only {} times", proxy.acted());
    ends_well(&scene, verifier, records);
}

#[test]
fn a_commit_whose_answer_is_lost_is_run_again_and_changes_nothing() {
    with_postgres_behind(b"COMMIT\0", 5, Act::LoseAnswer);
}

#[test]
fn a_commit_that_never_arrived_is_run_again_and_done_once() {
    with_postgres_behind(b"COMMIT\0", 5, Act::Cut);
}

#[test]
fn a_connection_that_breaks_within_a_batch_is_replaced() {
    with_postgres_behind(b"COPY movements", 7, Act::Cut);
}

/// Starts a verifier whose Kafka is behind a proxy.
fn with_kafka_behind(
    scene: &Scene,
    rule: impl Fn(&[u8]) -> Act + Send + Sync + 'static,
) -> (Proxy, Verifier) {
    let (brokers, upstream) = (setting("KAFKA_PROXY_BROKERS"), setting("KAFKA_PROXY_UPSTREAM"));
    let proxy = Proxy::start(Wire::Kafka, &brokers, &upstream, rule);
    let mut command = scene.command_without_brokers("a", &["--batch-max-orders", "50"]);
    command.args(["--brokers", &brokers]);
    // So many broken connections would make librdkafka wait for up to ten seconds before each new one.
    command.args(["-X", "reconnect.backoff.ms=20", "-X", "reconnect.backoff.max.ms=200"]);
    (proxy, scene.launch(command, "behind-a-proxy"))
}

/// Every nth request of each of these kinds is acted on.
fn every(nth: u64, kinds: &'static [u16], act: Act) -> impl Fn(&[u8]) -> Act + Send + Sync {
    let seen: Mutex<HashMap<u16, u64>> = Mutex::default();
    move |request| {
        let kind = api_key(request);
        let mut seen = seen.lock().expect("no panic before");
        let count = seen.entry(kind).or_default();
        *count += 1;
        if kinds.contains(&kind) && count.is_multiple_of(nth) { act } else { Act::Pass }
    }
}

#[test]
fn a_transaction_whose_end_was_not_answered_is_published_once() {
    let _address = heavy_behind_kafkas_proxy();
    let (scene, records) = scene_of(11, 4_000);
    let (proxy, verifier) = with_kafka_behind(&scene, every(5, &[api::END], Act::LoseAnswer));
    scene.done(LONG);
    assert!(proxy.acted() > 5, "the proxy acted only {} times", proxy.acted());
    ends_well(&scene, verifier, records);
}

#[test]
fn a_transaction_whose_end_is_answered_too_late_is_published_once() {
    let _address = heavy_behind_kafkas_proxy();
    let (scene, records) = scene_of(13, 1_000);
    // Longer than the verifier waits for one call, once.
    let once = Mutex::new(0);
    let (proxy, verifier) = with_kafka_behind(&scene, move |request| {
        if api_key(request) != api::END {
            return Act::Pass;
        }
        let mut seen = once.lock().expect("no panic before");
        *seen += 1;
        if *seen == 4 { Act::Delay(45) } else { Act::Pass }
    });
    scene.done(LONG);
    assert_eq!(proxy.acted(), 1);
    ends_well(&scene, verifier, records);
}

#[test]
fn connections_cut_anywhere_in_a_transaction_lose_and_repeat_nothing() {
    let _address = heavy_behind_kafkas_proxy();
    let seed = stream::seed();
    let (scene, records) = scene_of(seed, 4_000);
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    let (proxy, verifier) = with_kafka_behind(&scene, move |request| {
        const KINDS: [u16; 5] =
            [api::PRODUCE, api::ADD_PARTITIONS, api::ADD_OFFSETS, api::END, api::OFFSET_COMMIT];
        if !KINDS.contains(&api_key(request)) {
            return Act::Pass;
        }
        match random.lock().expect("no panic before").random_range(0..100) {
            0..3 => Act::Cut,
            3..6 => Act::LoseAnswer,
            _ => Act::Pass,
        }
    });
    scene.done(LONG);
    assert!(proxy.acted() > 5, "the proxy acted only {} times", proxy.acted());
    ends_well(&scene, verifier, records);
}

#[test]
fn kafka_silent_for_a_while_is_waited_for() {
    let _address = heavy_behind_kafkas_proxy();
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 10_000)]);
    // Every request of a kind is silent for a second: a bad network rather than a broken one.
    let (_proxy, verifier) = with_kafka_behind(&scene, every(3, &[api::PRODUCE, api::END], Act::Delay(1)));
    let orders: Vec<_> = (0..500).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
    scene.produce(&orders);
    ends_well(&scene, verifier, orders.len());
}
