//! Sides that are there and do nothing: a server that vanished without a word, an instance that was stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::kafka::order;
use crate::support::process::{self, Verifier};
use crate::support::proxy::{Act, Proxy, Wire};
use crate::support::scene::Scene;
use crate::support::wait;

/// Above all that the store waits for: 40 s of silence, then for a lock until the session of before is ended.
const LONG: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

/// A proxy to the scene's PostgreSQL, and the database's URL through it.
fn proxy(scene: &Scene, rule: impl Fn(&[u8]) -> Act + Send + Sync + 'static) -> (Proxy, String) {
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    let upstream = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5432));
    let proxy = Proxy::start(Wire::Postgres, "127.0.0.1:0", &upstream, rule);
    url.set_port(Some(proxy.address.port())).expect("a port");
    url.set_host(Some("127.0.0.1")).expect("a host");
    (proxy, url.into())
}

/// Whether a request begins to write decisions.
fn copies(request: &[u8]) -> bool {
    const COPY: &[u8] = b"COPY decisions";
    request.windows(COPY.len()).any(|window| window == COPY)
}

fn orders(scene: &Scene, prefix: &str, count: usize) {
    let to = |number: usize| i32::try_from(number).expect("few") % PARTITIONS;
    let records: Vec<_> =
        (0..count).map(|number| order(&format!("{prefix}-{number}"), &[("MUG", 1)]).to(to(number))).collect();
    scene.produce(&records);
}

/// Sessions of the program that wait for their client inside `COPY`.
fn in_copy(scene: &Scene) -> i64 {
    scene.database.number(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name = 'stock-verifier' AND query LIKE 'COPY %' AND wait_event = 'ClientRead'
         AND state = 'active'",
    )
}

#[test]
fn a_server_that_vanishes_in_mid_batch_is_given_up_and_its_locks_are_ended() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 10_000)]);
    let seen = AtomicU64::new(0);
    // The third batch: its COPY arrives, and nothing after it, neither way. The connections that follow are good.
    let (proxy, url) = proxy(&scene, move |request| {
        if copies(request) && seen.fetch_add(1, Ordering::SeqCst) == 2 { Act::Silence } else { Act::Pass }
    });
    let mut command = scene.command_without_database("a", &["--batch-max-orders", "50"]);
    command.env("STOCK_VERIFIER_DATABASE_URL", &url);
    let mut verifier = scene.launch(command, "cut-off");
    orders(&scene, "o", 400);
    wait::until("a session is left in mid-COPY", SOON, || proxy.acted() == 1 && in_copy(&scene) == 1);
    scene.done(LONG);
    assert_eq!(proxy.acted(), 1);
    assert!(verifier.ended().is_none(), "it did not live through it");
    for words in ["said nothing for", "ended the session of an instance"] {
        assert!(verifier.log().contains(words), "{words:?} is not in\n{}", verifier.log());
    }
    verifier.stop();
    assert_eq!(scene.prove().accepted, 400);
}

#[test]
fn an_instance_stopped_in_mid_copy_holds_up_the_others_for_a_bounded_time() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 10_000)]);
    // Stopped by the proxy that sees its COPY pass: the server waits for rows, and nothing is there to send them.
    let (seen, id) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(0)));
    let (_proxy, url) = proxy(&scene, {
        let (seen, id) = (Arc::clone(&seen), Arc::clone(&id));
        move |request| {
            if copies(request) && seen.fetch_add(1, Ordering::SeqCst) == 2 {
                process::freeze(id.load(Ordering::SeqCst));
            }
            Act::Pass
        }
    });
    let mut command = scene.command_without_database("a", &["--batch-max-orders", "50"]);
    command.env("STOCK_VERIFIER_DATABASE_URL", &url);
    let mut frozen = scene.launch(command, "frozen");
    id.store(frozen.id(), Ordering::SeqCst);
    orders(&scene, "o", 400);
    // Not in one of the two before, which pass.
    let third = || seen.load(Ordering::SeqCst) > 2;
    wait::until("it is stopped in mid-COPY", SOON, || third() && in_copy(&scene) == 1);

    let other = scene.start("b", &["--batch-max-orders", "50"]);
    orders(&scene, "p", 100);
    scene.done(LONG);
    let log = other.log();
    assert!(log.contains("ended the session of an instance that was silent in mid-COPY"), "{log}");

    // Awake again, it finds its session ended and its partitions gone, and is a member like any other.
    let begun = |frozen: &Verifier| frozen.log().matches("reading partition").count();
    let before = begun(&frozen);
    frozen.signal("CONT");
    orders(&scene, "q", 100);
    scene.done(LONG);
    wait::until("it is back in the group", LONG, || begun(&frozen) > before);
    orders(&scene, "r", 100);
    scene.done(LONG);
    assert!(frozen.ended().is_none(), "it did not live through it");
    frozen.stop();
    other.stop();
    assert_eq!(scene.prove().accepted, 700);
}
