//! Replicas and primaries that are one of several servers, and a failover that leaves a replica behind.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stock_verifier::ledger::Sku;
use stock_verifier::store::LedgerQueries as _;
use stock_verifier::store::postgres::Replicas;

use crate::support::database::{boolean_on, run_on};
use crate::support::postgres::{Postgres, with_mugs};
use crate::support::servers::{heavy, wait_for};
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Above what a busy machine needs to look at a replica again, below what a test can wait for.
const MAX_LAG: Duration = Duration::from_secs(5);

/// The URL of a server with another one before it, which is tried first.
fn after(port: u16, server: &Postgres) -> String {
    server.url().replace("@127.0.0.1:", &format!("@127.0.0.1:{port},127.0.0.1:"))
}

fn read(primary: &str, replicas: &[String]) -> Replicas {
    wait_for(Replicas::open(primary, replicas, None, MAX_LAG)).expect("the primary is reached")
}

/// The numbers of the replicas that are read.
fn numbers(replicas: &Replicas) -> Vec<u32> {
    replicas.ages().into_iter().map(|(number, _)| number).collect()
}

/// How many mugs there are, and whether a replica says so; `None` when nobody answers.
fn mugs(replicas: &Replicas) -> Option<(i64, bool)> {
    let by_replicas = || replicas.answered().replicas.load(Ordering::Relaxed);
    let before = by_replicas();
    let mug = Sku::new("MUG").expect("a SKU");
    let answer = wait_for(replicas.stock(&mug, 10)).ok()?;
    Some((answer.value[0].level.available, by_replicas() > before))
}

#[test]
fn a_server_that_says_nothing_before_the_one_that_does_keeps_no_replica_from_being_read() {
    let primary = with_mugs();
    let standby = Postgres::standby_of(&primary);
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let primaries = format!("{}?target_session_attrs=read-write", after(port, &primary));
    let replicas = read(&primaries, &[after(port, &standby)]);
    wait::until("the second server of the URL is read", SOON, || numbers(&replicas) == [2]);
    wait::until("it answers", SOON, || mugs(&replicas) == Some((7, true)));
}

#[test]
fn a_replica_that_a_failover_left_in_another_history_is_not_read() {
    heavy();
    let mut primary = with_mugs();
    let mut heir = Postgres::standby_of(&primary);
    let ahead = Postgres::standby_of(&primary);
    let primaries = format!("{}?target_session_attrs=read-write", after(primary.port(), &heir));
    let replicas = read(&primaries, &[ahead.url()]);
    wait::until("it is read", SOON, || numbers(&replicas) == [1]);
    // The heir misses what comes now; the other one has it. It is so much that the heir's own log stays below it.
    heir.kill();
    run_on(&primary.url(), "UPDATE levels SET available = 1000, version = version + 1");
    run_on(&primary.url(), "CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)");
    wait::until("the other one has all of it", SOON, || {
        boolean_on(&ahead.url(), "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'filler')")
    });
    primary.kill();
    let killed = Instant::now();
    heir.start_again();
    run_on(&heir.url(), "SELECT pg_promote()");
    // Until what the old primary said is too old, the replica may answer by that.
    wait::until("the new primary answers", SOON, || {
        killed.elapsed() > MAX_LAG && mugs(&replicas) == Some((7, false))
    });
    let since = Instant::now();
    while since.elapsed() < 2 * MAX_LAG {
        // Nobody may answer for a moment, on a connection to the old primary.
        if let Some(found) = mugs(&replicas) {
            assert_eq!(found, (7, false), "the ledger lost what the replica has");
        }
        assert!(numbers(&replicas).is_empty(), "{:?}", replicas.ages());
        std::thread::sleep(Duration::from_millis(50));
    }
    // One that is made anew is read again.
    let anew = Postgres::standby_of(&heir);
    let replicas = read(&heir.url(), &[ahead.url(), anew.url()]);
    wait::until("it is read", SOON, || numbers(&replicas) == [2]);
    assert_eq!(mugs(&replicas).map(|(mugs, _)| mugs), Some(7));
}
