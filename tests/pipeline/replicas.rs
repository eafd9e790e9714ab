//! Reads on a real streaming standby that is slowed, stopped and promoted.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use stock_verifier::ledger::{Sku, Stamp};
use stock_verifier::store::postgres::{Connections, PostgresStore, Replicas};
use stock_verifier::store::{LedgerAdmin as _, LedgerQueries as _};

use crate::support::database::run_on;
use crate::support::postgres::{Postgres, with_mugs};
use crate::support::servers::wait_for;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
/// Above what a busy machine needs to look at a replica again, below what a test can wait for.
const MAX_LAG: Duration = Duration::from_secs(5);

struct Scene {
    primary: Postgres,
    standby: Postgres,
    replicas: Replicas,
}

/// Whether a standby replays nothing.
fn is_paused(url: &str) -> bool {
    wait_for(async {
        let mut connection = PgConnection::connect(url).await.expect("it is reached");
        let paused = sqlx::query_scalar("SELECT pg_get_wal_replay_pause_state() = 'paused'");
        paused.fetch_one(&mut connection).await.expect("it says so")
    })
}

/// Who answered.
#[derive(Debug, PartialEq, Eq)]
enum By {
    Primary,
    Replica,
}

impl Scene {
    /// A ledger with seven mugs, and a standby of it.
    fn new() -> Self {
        let primary = with_mugs();
        let standby = Postgres::standby_of(&primary);
        let (url, replica) = (primary.url(), standby.url());
        let replicas =
            wait_for(Replicas::open(&url, &[replica], None, MAX_LAG)).expect("the primary is reached");
        Self { primary, standby, replicas }
    }

    /// How many mugs there are, of which moment that is, and who says so.
    fn mugs(&self) -> (i64, Stamp, By) {
        let answered = self.replicas.answered();
        let before = answered.replicas.load(Ordering::Relaxed);
        let mug = Sku::new("MUG").expect("a SKU");
        let answer = wait_for(self.replicas.stock(&mug, 10)).expect("somebody answers");
        let by = if answered.replicas.load(Ordering::Relaxed) > before { By::Replica } else { By::Primary };
        (answer.value[0].level.available, answer.at, by)
    }

    #[track_caller]
    fn until_by(&self, by: &By) {
        wait::until(&format!("{by:?} answers"), SOON, || self.mugs().2 == *by);
    }

    /// States how many mugs there are, on the primary.
    fn set(&self, mugs: i64) {
        run_on(&self.primary.url(), &format!("UPDATE levels SET available = {mugs}, version = version + 1"));
    }

    fn now(&self) -> Stamp {
        wait_for(self.replicas.moment()).expect("the primary answers")
    }
}

#[test]
fn a_replica_answers_with_its_age_however_long_nothing_is_written_and_is_left_while_it_is_slow() {
    let scene = Scene::new();
    scene.until_by(&By::Replica);
    // Nothing is written for longer than a replica may be behind.
    let idle_since = scene.now();
    std::thread::sleep(MAX_LAG + Duration::from_secs(1));
    wait::until("an idle primary makes no replica old", SOON, || {
        let (mugs, at, by) = scene.mugs();
        assert_eq!(mugs, 7);
        // Not where it was too slow for once, on a busy machine.
        by == By::Replica && u128::try_from(at.0 - idle_since.0).is_ok_and(|age| age > MAX_LAG.as_micros())
    });
    // Slowed: it answers with what it has, and with a moment before the change.
    run_on(&scene.standby.url(), "SELECT pg_wal_replay_pause()");
    wait::until("it is paused", SOON, || is_paused(&scene.standby.url()));
    scene.set(8);
    let changed = scene.now();
    let mut by_replica = 0;
    wait::until("it is too far behind", SOON, || match scene.mugs() {
        (mugs, _, By::Primary) => {
            assert_eq!(mugs, 8);
            true
        }
        (mugs, at, By::Replica) => {
            by_replica += 1;
            assert_eq!(mugs, 7);
            assert!(at < changed, "it says that it is of {at:?}, but lacks a change before {changed:?}");
            false
        }
    });
    assert!(by_replica > 0, "it is left only when it is too far behind");
    // It comes back by itself.
    run_on(&scene.standby.url(), "SELECT pg_wal_replay_resume()");
    scene.until_by(&By::Replica);
    assert_eq!(scene.mugs().0, 8, "it is back with all that was written");
}

#[test]
fn a_replica_that_is_stopped_is_left_at_once_and_comes_back_and_a_promoted_one_is_none() {
    let mut scene = Scene::new();
    scene.until_by(&By::Replica);
    scene.standby.kill();
    let since = Instant::now();
    assert_eq!((scene.mugs().0, scene.mugs().2), (7, By::Primary));
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    scene.set(6);
    scene.standby.start_again();
    scene.until_by(&By::Replica);
    wait::until("it has what was written meanwhile", SOON, || scene.mugs().0 == 6);
    run_on(&scene.standby.url(), "SELECT pg_promote()");
    scene.until_by(&By::Primary);
    run_on(&scene.standby.url(), "UPDATE levels SET available = 1000");
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert_eq!(
            (scene.mugs().0, scene.mugs().2),
            (6, By::Primary),
            "a promoted standby is another database"
        );
    }
}

#[test]
fn a_replica_of_another_database_is_never_read() {
    let primary = Postgres::start("stock");
    let other = Postgres::start("stock");
    for (server, mugs) in [(&primary, 7), (&other, 1000)] {
        let few = Connections { batches: 1, readers: 1, others: 1 };
        wait_for(async {
            let store = PostgresStore::open(&server.url(), few).await.expect("it is reached");
            store.migrate().await.expect("migrated");
            store.close().await;
        });
        run_on(
            &server.url(),
            &format!(
                "INSERT INTO levels (sku, location, available, version, backorder_limit) VALUES ('MUG', '', {mugs}, 1, 0)"
            ),
        );
    }
    let standby = Postgres::standby_of(&other);
    let url = primary.url();
    let replicas = wait_for(Replicas::open(&url, &[standby.url()], None, MAX_LAG)).expect("reached");
    let scene = Scene { primary, standby, replicas };
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        assert_eq!((scene.mugs().0, scene.mugs().2), (7, By::Primary));
        std::thread::sleep(Duration::from_millis(50));
    }
}
