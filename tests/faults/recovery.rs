//! Each line of the recovery section of the design, made to happen.

use std::time::Duration;

use stock_verifier::event::read_command;
use stock_verifier::ledger::{NextOffset, Request};
use stock_verifier::store::{Advance, CommandBatch, LedgerAdmin as _, LedgerWriter as _};

use crate::support::database::Database;
use crate::support::kafka::{Sent, order};
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::{Servers, wait_for};
use crate::support::wait;

/// Longest wait for what takes seconds where the machine is not busy: lost connections, sessions and transactions are
/// waited for too, each for ten seconds or less.
const SOON: Duration = Duration::from_secs(60);

/// Orders for one mug each, by turns to each partition.
fn mugs(prefix: &str, count: usize, partitions: i32) -> Vec<Sent> {
    let to = |number: usize| i32::try_from(number).expect("few") % partitions;
    (0..count).map(|number| order(&format!("{prefix}-{number}"), &[("MUG", 1)]).to(to(number))).collect()
}

/// A scene whose verifier has published these orders and was stopped.
fn after(orders: &[Sent], partitions: i32) -> Scene {
    let scene = Scene::new(partitions);
    scene.stock(&[("MUG", 1_000_000)]);
    scene.produce(orders);
    run(&scene);
    scene
}

/// Runs a verifier until all is published, and stops it.
fn run(scene: &Scene) {
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    scene.joined(&verifier);
    verifier.stop();
}

/// Decides records of a partition and publishes nothing: what a process leaves behind that dies in between.
fn decide_only(scene: &Scene, partition: i32, from: i64, to: i64) {
    let records = scene.kafka.read(&scene.orders());
    let records: Vec<_> = records
        .iter()
        .filter(|record| {
            record.source.at.partition == partition && (from..to).contains(&record.source.offset.0)
        })
        .collect();
    let requests = records.iter().map(|record| Request {
        command: read_command(record).expect("a good order"),
        source: Some(record.source.clone()),
    });
    let at = records[0].source.at.clone();
    let advance =
        Advance { at, expected: NextOffset(from), next: NextOffset(to), applied: None, published: None };
    let batch = CommandBatch { advances: vec![advance], requests: requests.collect(), epoch: None };
    let store = scene.database.store();
    wait_for(async {
        store.apply(&batch).await.expect("decided");
        store.close().await;
    });
}

/// Ends by itself, saying why it refuses to go on.
#[track_caller]
fn refuses(mut verifier: Verifier, words: &[&str]) {
    let status = verifier.wait(SOON);
    let log = verifier.log();
    for word in words {
        assert!(log.contains(word), "{word:?} is not in\n{log}");
    }
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_was_decided_but_not_published_before_a_crash_is_published_from_the_ledger() {
    let scene = after(&mugs("published", 400, 2), 2);
    scene.produce(&mugs("crashed", 400, 2));
    decide_only(&scene, 0, 200, 400);
    decide_only(&scene, 1, 200, 300);
    let stored = "SELECT sum(hashtextextended(decisions::text, 0) % 1000000007)::bigint FROM decisions
                  WHERE partition = 0 OR \"offset\" < 300";
    let before = scene.database.number(stored);

    let mut verifier = scene.start("b", &[]);
    scene.done(SOON);
    scene.joined(&verifier);
    verifier.signal("TERM");
    assert_eq!(verifier.wait(SOON).code(), Some(0));
    // More where its other member joins in the middle of the first transaction: of the other 100 some were decided by then.
    let log = verifier.log();
    let again =
        log.split("republished=").filter_map(|said| said.split_whitespace().next()?.parse::<u32>().ok());
    let again: Vec<_> = again.collect();
    assert!(again.iter().any(|count| (300..=400).contains(count)), "{again:?}: {log}");

    assert_eq!(scene.database.number(stored), before, "decisions were made again");
    assert_eq!(scene.prove().accepted, 800);
}

#[test]
fn the_very_first_batch_decided_but_not_published_is_published_after_the_crash() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 1_000)]);
    // Killed while its first batch waits for a level: it has begun the partition and published nothing.
    scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
        scene.produce(&mugs("first", 100, 1));
        let mut verifier = scene.start("a", &[]);
        wait::until("the batch waits for the lock", SOON, || {
            scene.database.number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
        });
        verifier.kill();
    });
    // As if it had been killed a moment later: decided and not published.
    decide_only(&scene, 0, 0, 100);
    run(&scene);
    assert_eq!(scene.prove().accepted, 100);
}

#[test]
fn a_partition_decided_ahead_by_several_batches_is_published_exactly_once() {
    let scene = after(&mugs("published", 10, 1), 1);
    scene.produce(&mugs("ahead", 5_000, 1));
    for from in (10..3_010).step_by(500) {
        decide_only(&scene, 0, from, from + 500);
    }
    let verifier = scene.start("b", &["--batch-max-orders", "70"]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 5_010);
}

#[test]
fn a_database_restored_from_a_backup_is_refused() {
    let mut scene = after(&mugs("before", 200, 2), 2);
    let backup = scene.database.backup();
    scene.produce(&mugs("after", 200, 2));
    run(&scene);
    let restored = std::mem::replace(&mut scene.database, backup);
    let published = scene.kafka.count(&scene.topic("accepted"));
    for more in [&[][..], &["--accept-data-loss"]] {
        refuses(scene.start("a", more), &["went back in time", "stock-verifier audit", "newer backup"]);
    }
    assert_eq!(scene.database.decided(), 200, "something was decided on the restored database");
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), published, "something was published from it");

    // With the right database again, all goes on.
    scene.database = restored;
    scene.produce(&mugs("later", 50, 2));
    run(&scene);
    assert_eq!(scene.prove().accepted, 450);
}

#[test]
fn an_empty_database_behind_a_group_that_committed_is_refused() {
    let mut scene = after(&mugs("before", 100, 1), 1);
    scene.database = Database::fresh(&Servers::shared().database_url);
    refuses(scene.start("a", &[]), &["no position at all", "stock-verifier replay rebuild"]);
    assert_eq!(scene.database.decided(), 0);
}

#[test]
fn a_database_that_goes_back_in_time_under_a_running_verifier_ends_it() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 1_000)]);
    scene.produce(&mugs("before", 100, 1));
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    scene.database.run("UPDATE positions SET next_offset = next_offset - 10 WHERE next_offset > 0");
    scene.produce(&mugs("after", 100, 1));
    refuses(verifier, &["went back in time"]);
    assert_eq!(scene.database.decided(), 100);
}

#[test]
fn a_group_that_forgot_its_offsets_goes_on_from_the_ledgers_position() {
    let scene = after(&mugs("before", 200, 2), 2);
    scene.kafka.delete_group(scene.group());
    assert_eq!(scene.kafka.committed(scene.group(), &scene.orders()), [None, None]);
    scene.produce(&mugs("after", 100, 2));
    run(&scene);
    assert_eq!(scene.prove().accepted, 300);
}

#[test]
fn without_any_position_the_earliest_record_is_the_first() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 1_000)]);
    scene.produce(&mugs("old", 50, 1));
    scene.kafka.delete_records(&scene.orders(), 0, 20);
    run(&scene);
    assert_eq!(scene.prove().accepted, 30);
}

#[test]
fn deleted_records_stop_their_partition_alone_until_their_loss_is_accepted() {
    let scene = after(&mugs("before", 200, 2), 2);
    scene.produce(&mugs("after", 200, 2));
    scene.kafka.delete_records(&scene.orders(), 0, 150);

    let mut verifier = scene.start("a", &[]);
    verifier.said("the next record to read is 100, but the topic holds 150 to 200", SOON);
    verifier.said("--accept-data-loss", SOON);
    wait::until("the other partition is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(100), Some(200)]
    });
    // It keeps going, and the stopped one stays stopped.
    scene.produce(&mugs("later", 20, 2));
    wait::until("the other partition goes on", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(100), Some(210)]
    });
    verifier.stop_with_stopped_partitions();
    assert_eq!(scene.database.decided(), 310);

    let verifier = scene.start("a", &["--accept-data-loss"]);
    scene.done(SOON);
    verifier.stop();
    scene.prove_levels();
    scene.prove_decisions();
    scene.prove_rest();
    assert_eq!(scene.database.decided(), 370);
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), 370);
}

#[test]
fn records_deleted_under_a_running_verifier_stop_their_partition_alone() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 10_000)]);
    scene.produce(&mugs("before", 200, 2));
    // Its session outlasts its sleep: else what it has fetched could be decided, and published by nobody.
    let mut verifier = scene.start("a", &["-X", "session.timeout.ms=60000"]);
    scene.done(SOON);
    // Asleep, so that the records are gone before it asks for them. The first ones answer the fetch it has open.
    verifier.signal("STOP");
    scene.produce(&mugs("fetched", 20, 2));
    scene.produce(&mugs("lost", 200, 2));
    scene.kafka.delete_records(&scene.orders(), 0, 170);
    verifier.signal("CONT");
    verifier.said("but the topic holds 170 to 210", SOON);
    wait::until("the other partition is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders())[1] == Some(210)
    });
    verifier.stop_with_stopped_partitions();
    let verifier = scene.start("a", &["--accept-data-loss"]);
    scene.done(SOON);
    verifier.stop();
    scene.prove_levels();
    scene.prove_decisions();
    scene.prove_rest();
    let published = scene.kafka.count(&scene.topic("accepted"));
    assert_eq!(i64::try_from(published), Ok(scene.database.decided()));
}

#[test]
fn deleted_records_that_were_decided_lose_only_their_results() {
    let scene = after(&mugs("before", 100, 1), 1);
    scene.produce(&mugs("decided", 100, 1));
    decide_only(&scene, 0, 100, 200);
    scene.kafka.delete_records(&scene.orders(), 0, 150);
    let mut verifier = scene.start("a", &[]);
    verifier.said("the next record to read is 100, but the topic holds 150 to 200", SOON);
    verifier.stop_with_stopped_partitions();
    let verifier = scene.start("a", &["--accept-data-loss"]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.database.decided(), 200);
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), 150);
}

#[test]
fn a_topic_made_anew_is_read_only_when_the_loss_is_accepted() {
    let scene = after(&mugs("before", 100, 1), 1);
    scene.kafka.delete(&scene.orders());
    scene.kafka.create(&scene.orders(), 1);
    scene.produce(&mugs("after", 30, 1));
    let mut verifier = scene.start("a", &[]);
    verifier.said("the topic was made anew", SOON);
    verifier.stop_with_stopped_partitions();
    assert_eq!(scene.database.decided(), 100);

    let verifier = scene.start("a", &["--accept-data-loss"]);
    scene.done(SOON);
    verifier.stop();
    scene.prove_levels();
    scene.prove_decisions();
    scene.prove_rest();
    assert_eq!(scene.database.decided(), 130);
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), 130);
}

#[test]
fn what_was_decided_and_not_published_is_published_though_the_group_forgot_its_offsets() {
    let scene = after(&mugs("published", 200, 2), 2);
    scene.produce(&mugs("crashed", 200, 2));
    decide_only(&scene, 0, 100, 150);
    scene.kafka.delete_group(scene.group());
    let mut verifier = scene.start("a", &[]);
    verifier.said("what was decided from here on is republished", SOON);
    scene.done(SOON);
    verifier.stop();
    // A stop in good order noted how far all was published: nothing is published twice.
    assert_eq!(scene.prove().accepted, 400);
}

#[test]
fn a_ledger_of_an_earlier_version_goes_on_from_its_position_when_the_group_forgot_its_offsets() {
    let scene = after(&mugs("before", 200, 2), 2);
    scene.database.run("UPDATE positions SET published_offset = NULL");
    scene.kafka.delete_group(scene.group());
    scene.produce(&mugs("after", 100, 2));
    run(&scene);
    assert_eq!(scene.prove().accepted, 300);
}

#[test]
fn a_failover_that_lost_commits_is_noticed_before_anything_is_sold_twice() {
    let scene = Scene::new(6);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&mugs("first", 1, 1));
    let mut verifier = scene.start("a", &[]);
    scene.done(SOON);
    let copy = scene.database.backup();
    scene.produce(&mugs("sold", 99, 1));
    scene.done(SOON);
    let published = scene.kafka.count(&scene.topic("accepted"));
    assert_eq!(published, 100, "all is sold");

    // Nothing of partition 0 comes any more: its position alone would show it.
    scene.database.swap(&copy);
    let again: Vec<Sent> =
        (0..100).map(|number| order(&format!("again-{number}"), &[("MUG", 1)]).to(1 + number % 5)).collect();
    scene.produce(&again);
    let status = verifier.wait(SOON);
    let log = verifier.log();
    assert!(log.contains("went back in time"), "{log}");
    assert_eq!(status.code(), Some(1));
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), published, "sold twice");
    assert_eq!(scene.database.decided(), 1, "nothing was decided on the copy");

    // An instance that knows nothing of it is warned by what the group committed.
    refuses(scene.start("b", &[]), &["went back in time"]);
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), published, "sold twice");
    scene.database.swap(&copy);
    run(&scene);
    assert_eq!(scene.prove().rejected, 100);
}

#[test]
fn a_new_connection_to_the_same_database_is_compared_and_all_goes_on() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 10_000)]);
    let verifier = scene.start("a", &["--batch-max-orders", "50"]);
    for round in 0..5 {
        scene.produce(&mugs(&format!("round-{round}"), 400, 2));
        wait::until("the work goes on", SOON, || scene.database.decided() > 400 * round + 50);
        scene.database.disconnect_all();
    }
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 2_000);
}

#[test]
fn a_database_that_lets_nobody_in_for_a_while_is_waited_for() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10)]);
    let mut verifier = scene.start("a", &[]);
    scene.produce(&mugs("before", 1, 1));
    scene.done(SOON);
    // All that it is given: what it cannot take over it says otherwise, and decides nothing meanwhile.
    verifier.said(&format!("{}[0] from", scene.topic("adjustments")), SOON);
    scene.database.let_in(false);
    scene.database.disconnect_all();
    scene.produce(&mugs("after", 1, 1));
    verifier.said("the database is away", SOON);
    // With the reason, and that once: what the driver says repeats its cause.
    let log = verifier.log();
    let line = log.lines().find(|line| line.contains("the database is away")).expect("the line");
    let (_, why) = line.rsplit_once(": ").expect("a reason");
    assert!(why.contains("connection") && line.matches(why).count() == 1, "{line}");
    scene.database.let_in(true);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 2);
}

#[test]
fn a_second_group_on_the_same_ledger_is_refused_until_it_is_to_take_over() {
    let scene = after(&mugs("before", 100, 2), 2);
    let second = |more: &[&str]| {
        let mut command = scene.command("a", more);
        command.args(["--group", &format!("{}-second", scene.group())]);
        scene.launch(command, "second")
    };
    refuses(second(&[]), &["this ledger is of consumer group", scene.group(), "--take-over-ledger"]);
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), 100);

    scene.produce(&mugs("after", 100, 2));
    let mut verifier = second(&["--take-over-ledger"]);
    verifier.said("this ledger was taken over", SOON);
    wait::until("the second group decides the rest", SOON, || scene.database.decided() == 200);
    wait::until("and publishes it", SOON, || scene.kafka.count(&scene.topic("accepted")) == 200);
    verifier.stop();
    refuses(scene.start("a", &[]), &["this ledger is of consumer group"]);
}

#[test]
fn data_loss_accepted_under_load_loses_only_what_kafka_deleted() {
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    let settings = ["--accept-data-loss", "--batch-max-orders", "50"];
    let mut running = vec![scene.start("a", &settings), scene.start("b", &settings)];
    for round in 0..3 {
        let end = scene.kafka.ends(&scene.orders(), "read_uncommitted")[0];
        scene.produce(&mugs(&format!("round-{round}"), 2_000, 4));
        let reached = scene.database.applied();
        wait::until("the work goes on", SOON, || {
            scene.database.applied() > reached.min(2_000 * round + 1_000)
        });
        // Wherever they are, and whoever is killed in the middle of it.
        for verifier in &running {
            verifier.signal("STOP");
        }
        scene.kafka.delete_records(&scene.orders(), 0, end + 450);
        let mut killed = running.remove(0);
        killed.kill();
        for verifier in &running {
            verifier.signal("CONT");
        }
        running.push(scene.start(killed.name(), &settings));
    }
    scene.done(Duration::from_secs(90));
    for mut verifier in running {
        // The other may have done it all while this one was only just started, and not yet there to hear a signal.
        verifier.said("verifying", SOON);
        verifier.stop();
    }
    scene.prove_levels();
    scene.prove_decisions();
    scene.prove_rest();
    let others = scene.database.number("SELECT count(*) FROM decisions WHERE kind = 1 AND partition <> 0");
    assert_eq!(others, 3 * 1_500, "of the other partitions all is decided");
    let published = scene.kafka.read(&scene.topic("accepted"));
    let ids: std::collections::HashSet<_> = published.iter().map(|record| record.key.clone()).collect();
    assert_eq!(ids.len(), published.len(), "something was published twice");
    assert!(published.len() as i64 <= scene.database.decided() && published.len() >= 3 * 1_500);
}
