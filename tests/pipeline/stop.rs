//! Stopping in good order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::kafka::{Sent, order};
use crate::support::scene::Scene;
use crate::support::{stream, wait};

const SOON: Duration = Duration::from_secs(60);
/// The session of a member that is not missed within it: far longer than anything takes here.
const PATIENT: [&str; 2] = ["-X", "session.timeout.ms=120000"];
/// By when another has the partitions of one that has left, on a slow machine too. Had it not left, they would be free only
/// when its session ends.
const BEFORE_ITS_SESSION_ENDS: Duration = Duration::from_secs(60);

fn mugs(prefix: &str, count: usize) -> Vec<Sent> {
    (0..count).map(|number| order(&format!("{prefix}-{number}"), &[("MUG", 1)])).collect()
}

#[test]
fn sigterm_finishes_the_batches_in_hand_and_leaves_the_group_at_once() {
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    // Only a member that leaves frees its partitions in time.
    let patient = [&PATIENT[..], &["--batch-max-orders", "200"]].concat();
    let mut first = scene.start("a", &patient);
    scene.joined(&first);
    scene.produce(&mugs("one", 20_000));
    wait::until("the work has begun", SOON, || scene.database.applied() > 2_000);
    first.signal("TERM");
    // And not 75, which would be the status of a stop that took longer than it may (`--stop-timeout`).
    assert_eq!(first.wait(SOON).code(), Some(0), "{}", first.log());
    let applied = scene.database.applied();
    // Kafka marks what is committed a moment after it has answered.
    wait::until("what it decided is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()).iter().flatten().sum::<i64>() == applied
    });
    assert_eq!(scene.database.applied(), applied);
    wait::until("it has left the group", SOON, || scene.kafka.all_members(scene.group()).is_empty());

    // Should it have been quick enough to leave nothing.
    scene.produce(&mugs("two", 200));
    let second = scene.start("b", &patient);
    wait::until("another takes over", BEFORE_ITS_SESSION_ENDS, || scene.database.applied() > applied);
    scene.done(Duration::from_secs(60));
    second.stop();
    assert_eq!(scene.prove().accepted, 20_200);
}

#[test]
fn a_stop_while_it_joins_the_group_does_not_wait() {
    let scene = Scene::new(1);
    let mut verifier = scene.start("a", &[]);
    verifier.said("verifying", SOON);
    verifier.signal("TERM");
    // And not 75, which would be the status of a stop that took as long as it may (`--stop-timeout`).
    assert_eq!(verifier.wait(SOON).code(), Some(0), "{}", verifier.log());
}

#[test]
fn a_stop_at_any_moment_of_joining_frees_the_partitions_at_once() {
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    let mut other = scene.start("b", &PATIENT);
    other.said("reading", SOON);
    for round in 0..10 {
        let mut verifier = scene.start("a", &PATIENT);
        verifier.said("verifying", SOON);
        // The moment itself: before, within or after the join.
        std::thread::sleep(Duration::from_millis(random.random_range(0..1_200)));
        verifier.signal("TERM");
        assert_eq!(verifier.wait(SOON).code(), Some(0), "round {round}");
        // Orders on each partition are published only once the other owns all of them again.
        scene.produce(&mugs(&format!("round-{round}"), 40));
        scene.done(BEFORE_ITS_SESSION_ENDS);
    }
    other.stop();
    scene.prove();
}

#[test]
fn ctrl_c_is_a_good_end_too() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let mut verifier = scene.start("a", &[]);
    scene.produce(&mugs("one", 10));
    scene.done(SOON);
    verifier.signal("INT");
    assert_eq!(verifier.wait(SOON).code(), Some(0));
    scene.prove();
}

#[test]
fn a_running_member_takes_the_partitions_of_one_that_stops() {
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    let mut first = scene.start("a", &PATIENT);
    let second = scene.start("b", &PATIENT);
    wait::until("both are members", SOON, || scene.kafka.members(scene.group()).len() == 2);
    first.signal("TERM");
    assert_eq!(first.wait(SOON).code(), Some(0));
    scene.produce(&mugs("one", 1_000));
    scene.done(BEFORE_ITS_SESSION_ENDS);
    second.stop();
    assert_eq!(scene.prove().accepted, 1_000);
}

#[test]
fn a_second_signal_aborts() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 1_000_000)]);
    let mut verifier = scene.start("a", &[]);
    scene.produce(&mugs("one", 10));
    scene.done(SOON);
    // A batch that cannot be finished: somebody else holds its level.
    scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
        scene.produce(&mugs("two", 10));
        wait::until("the batch waits for the lock", SOON, || {
            scene.database.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
        });
        verifier.signal("TERM");
        verifier.said("a second signal ends at once", SOON);
        verifier.signal("TERM");
        // And not 75, with which the first one ends after a while.
        assert_eq!(verifier.wait(SOON).code(), Some(130));
    });
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 20);
}
