//! Topics that are deleted and made anew: their offsets are not those the ledger knows.

use std::process::Output;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use stock_verifier::kafka::topic_ids::{Described, describe};

use crate::support::kafka::{Sent, order};
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

/// Longest wait for what takes seconds where the machine is not busy.
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
    run(&scene, &[]);
    scene
}

/// Runs a verifier until all is published, and stops it.
fn run(scene: &Scene, more: &[&str]) {
    let verifier = scene.start("a", more);
    scene.done(SOON);
    verifier.stop();
}

/// Deletes the orders' topic and makes it again.
fn make_anew(scene: &Scene, partitions: i32) {
    scene.kafka.delete(&scene.orders());
    scene.kafka.create(&scene.orders(), partitions);
}

/// Another command of the program, for this scene.
fn ask(scene: &Scene, arguments: &[&str]) -> Output {
    scene.tool(arguments).output().expect("the program runs")
}

/// What it said, both to read and for the log.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr)
}

/// What an audit against the topics says, and its exit status.
fn audit(scene: &Scene) -> (Option<i32>, String) {
    let output = ask(scene, &["audit", "--topics"]);
    (output.status.code(), words(&output))
}

fn published(scene: &Scene) -> usize {
    scene.kafka.count(&scene.topic("accepted"))
}

/// Says that the topic was made anew, decides nothing of it, and does not end as if all were well.
#[track_caller]
fn refuses(scene: &Scene, mut verifier: Verifier, decided: i64) {
    verifier.said("this topic was made anew", SOON);
    verifier.said("--accept-data-loss", SOON);
    verifier.stop_with_stopped_partitions();
    assert_eq!(scene.database.decided(), decided, "something of the new topic was decided");
}

#[test]
fn the_id_of_a_topic_is_asked_of_a_real_broker() {
    let scene = Scene::new(3);
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &Servers::shared().brokers).create().expect("a client");
    let (orders, nothing) = (scene.orders(), scene.topic("nothing"));
    let ask = || describe(client.client(), &[&orders, &nothing], SOON).expect("an answer");
    let first = ask();
    assert!(matches!(first[0], Described::There { id: Some(_), partitions: 3 }), "{first:?}");
    assert_eq!(first[1], Described::Absent);
    assert_eq!(ask(), first, "it stays");
    make_anew(&scene, 2);
    let then = wait::value("the new topic is known", SOON, || {
        let then = ask();
        matches!(then[0], Described::There { partitions: 2, .. }).then_some(then)
    });
    assert_ne!(then[0].id(), first[0].id());
    assert_eq!(first[0].id().expect("an id").as_str().len(), 22);
}

#[test]
fn a_topic_made_anew_that_is_longer_than_the_one_it_was_is_refused() {
    let scene = after(&mugs("before", 3, 1), 1);
    make_anew(&scene, 1);
    scene.produce(&mugs("after", 5, 1));
    refuses(&scene, scene.start("a", &[]), 3);

    // The audit and the comparison say so too.
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("it was made anew") && !said.contains("All hold"), "{said}");
    let diff = ask(&scene, &["replay", "diff"]);
    assert_eq!(diff.status.code(), Some(1), "{}", words(&diff));
    assert!(words(&diff).contains("it was made anew"), "{}", words(&diff));
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}", directory.path().join("rebuilt.db").display());
    for refused in
        [&["replay", "republish"][..], &["replay", "reprocess"], &["replay", "rebuild", "--into", &url]]
    {
        let output = ask(&scene, refused);
        assert_eq!(output.status.code(), Some(2), "{refused:?}: {}", words(&output));
        assert!(words(&output).contains("it was made anew"), "{refused:?}: {}", words(&output));
    }
    assert_eq!(scene.database.decided(), 3);

    // And when the loss is accepted, all of the new topic is decided, and nothing is said against it any more.
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (8, 8));
    scene.produce(&mugs("later", 2, 1));
    run(&scene, &[]);
    assert_eq!((scene.database.decided(), published(&scene)), (10, 10));
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("3 decisions, of offsets 0 to 2, are of an earlier topic"), "{said}");
    let diff = ask(&scene, &["replay", "diff"]);
    assert_eq!(diff.status.code(), Some(0), "{}", words(&diff));
    let output = ask(&scene, &["replay", "republish", "--json"]);
    assert!(words(&output).contains("\"accepted\": 7"), "only what is of this topic: {}", words(&output));
    let output = ask(&scene, &["replay", "rebuild", "--into", &url, "--execute"]);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("was in an earlier topic of this name"), "{}", words(&output));
}

#[test]
fn with_the_groups_offsets_gone_too_it_is_refused_by_its_id() {
    let scene = after(&mugs("before", 60, 2), 2);
    make_anew(&scene, 2);
    scene.kafka.delete_group(scene.group());
    scene.produce(&mugs("after", 90, 2));
    refuses(&scene, scene.start("a", &[]), 60);
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (150, 150));
    assert_eq!(audit(&scene).0, Some(0));
}

#[test]
fn what_the_group_committed_of_the_topic_that_was_is_not_a_database_gone_back_in_time() {
    let scene = after(&mugs("before", 100, 1), 1);
    make_anew(&scene, 1);
    // Kafka forgets offsets with their topic, but not those that were on their way.
    scene.kafka.commit(scene.group(), &scene.orders(), 0, 100);
    scene.produce(&mugs("after", 30, 1));
    refuses(&scene, scene.start("a", &[]), 100);
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (130, 130));
    assert_eq!(audit(&scene).0, Some(0));
}

#[test]
fn ids_decided_before_are_absorbed_conflict_or_are_republished_at_their_old_place() {
    let scene = after(&mugs("same", 4, 1), 1);
    make_anew(&scene, 1);
    // At its old offset; at another; with other content; new.
    let mut orders = mugs("same", 1, 1);
    orders.extend(mugs("same", 4, 1).split_off(3));
    orders.push(order("same-1", &[("MUG", 2)]).to(0));
    orders.push(order("new", &[("MUG", 1)]).to(0));
    scene.produce(&orders);
    let mut verifier = scene.start("a", &["--accept-data-loss"]);
    // The new topic is as long as the old one was: before that, all of it may look decided and published.
    verifier.said("going on after accepted data loss", SOON);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.database.decided(), 5);
    assert_eq!(scene.kafka.count(&scene.topic("dead")), 1);
    assert_eq!(published(&scene), 6, "the first is republished, with the same id");
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_topic_made_anew_under_a_running_verifier_is_noticed() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000_000)]);
    scene.produce(&mugs("before", 40, 2));
    let mut verifier = scene.start("a", &[]);
    scene.done(SOON);
    make_anew(&scene, 2);
    // It stops the partitions and stays, or ends; whichever it meets first. No loop, and nothing of the new topic.
    wait::until("it says so", SOON, || {
        let log = verifier.log();
        log.contains("this topic was made anew: the ledger is at 20") || log.contains("does not exist")
    });
    scene.produce(&mugs("after", 200, 2));
    let lines = verifier.log().lines().count();
    // Long enough for some looks at the topics.
    let since = std::time::Instant::now();
    wait::until("some time passes", SOON, || since.elapsed() > Duration::from_secs(4));
    let more = verifier.log().lines().count() - lines;
    assert!(more < 20, "it says too much:\n{}", verifier.log());
    // It may have stopped the partitions while it was ending already: why it ends it says last.
    if verifier.ended().is_none() {
        verifier.signal("TERM");
    }
    let status = verifier.wait(SOON);
    if verifier.log().contains("does not exist") {
        assert_eq!(status.code(), Some(1));
        refuses(&scene, scene.start("a", &[]), 40);
    } else {
        assert_eq!(status.code(), Some(3), "partitions are stopped");
    }
    assert_eq!((scene.database.decided(), published(&scene)), (40, 40));
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (240, 240));
    assert_eq!(audit(&scene).0, Some(0));
}

#[test]
fn a_longer_topic_under_a_running_verifier_is_noticed_and_nothing_is_decided_twice() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000_000)]);
    scene.produce(&mugs("before", 40, 2));
    let mut verifier = scene.start("a", &[]);
    scene.done(SOON);
    // Asleep, so that it meets the new topic whole: it goes on at the old offset until it looks.
    verifier.signal("STOP");
    make_anew(&scene, 2);
    scene.produce(&mugs("after", 2_000, 2));
    verifier.signal("CONT");
    verifier.said("--accept-data-loss", SOON);
    let _ = verifier.ended().is_none().then(|| verifier.stop_with_stopped_partitions());
    // Only now: another partition may have been noticed later.
    let at_once = scene.database.decided() - 40;
    println!("{at_once} orders were decided before it was noticed");
    assert!(scene.database.decided() < 2_040, "all of it was decided, nothing was noticed");
    run(&scene, &["--accept-data-loss"]);
    assert_eq!(scene.database.decided(), 2_040);
    let published = i64::try_from(published(&scene)).expect("few");
    assert!(
        (2_040..=2_040 + at_once).contains(&published),
        "{published} published, {at_once} decided at once"
    );
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_topic_deleted_under_a_running_verifier_ends_it() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000_000)]);
    scene.produce(&mugs("before", 40, 2));
    let mut verifier = scene.start("a", &[]);
    scene.done(SOON);
    scene.kafka.delete(&scene.orders());
    assert_eq!(verifier.wait(SOON).code(), Some(1));
    assert!(verifier.log().contains("does not exist"), "{}", verifier.log());
    assert_eq!(scene.database.decided(), 40);
}

#[test]
fn a_topic_with_fewer_partitions_than_the_ledger_knows_is_refused_until_that_is_accepted() {
    let scene = after(&mugs("before", 40, 4), 4);
    make_anew(&scene, 2);
    scene.produce(&mugs("after", 50, 2));
    let mut verifier = scene.start("a", &[]);
    assert_eq!(verifier.wait(SOON).code(), Some(1));
    let log = verifier.log();
    assert!(log.contains(&format!("{}[2] at 10, {0}[3] at 10", scene.orders())), "{log}");
    assert!(log.contains("--accept-data-loss"), "{log}");
    assert_eq!(scene.database.decided(), 40);
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the ledger has positions on partitions 2, 3"), "{said}");

    // Accepted once, it is not asked again.
    run(&scene, &["--accept-data-loss"]);
    scene.produce(&mugs("later", 10, 2));
    run(&scene, &[]);
    assert_eq!((scene.database.decided(), published(&scene)), (100, 100));
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn an_instance_that_was_killed_reads_the_partitions_there_are_when_it_comes_back_to_fewer() {
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    scene.produce(&mugs("before", 40, 4));
    let mut killed = scene.start("a", &[]);
    scene.done(SOON);
    killed.kill();
    // Within its session: the group gives it what it had.
    make_anew(&scene, 2);
    scene.produce(&mugs("after", 50, 2));
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (90, 90));
}

#[test]
fn more_partitions_of_a_topic_made_anew_are_refused_with_the_others() {
    let scene = after(&mugs("before", 20, 1), 1);
    make_anew(&scene, 2);
    scene.produce(&mugs("after", 50, 2));
    let mut verifier = scene.start("a", &[]);
    verifier.said("is at no position at all of another topic of this name", SOON);
    refuses(&scene, verifier, 20);
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (70, 70));
}

#[test]
fn a_topic_that_stays_is_no_other_and_an_unknown_id_is_adopted() {
    let scene = after(&mugs("before", 40, 2), 2);
    let ids = format!("SELECT count(DISTINCT topic_id) FROM positions WHERE topic = '{}'", scene.orders());
    assert_eq!(scene.database.number(&ids), 1);
    // As an upgrade from the last version leaves it.
    scene.database.run("UPDATE positions SET topic_id = NULL, published_offset = NULL");
    scene.database.run("DELETE FROM topic_incarnations");
    assert_eq!(scene.database.number(&ids), 0);
    scene.produce(&mugs("after", 40, 2));
    run(&scene, &[]);
    assert_eq!(scene.database.number(&ids), 1);
    assert_eq!((scene.database.decided(), published(&scene)), (80, 80));
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("earlier topic"), "{said}");

    make_anew(&scene, 2);
    scene.produce(&mugs("anew", 100, 2));
    refuses(&scene, scene.start("a", &[]), 80);
}

#[test]
fn without_an_id_the_audit_still_sees_that_the_records_are_others() {
    let scene = after(&mugs("before", 3, 1), 1);
    make_anew(&scene, 1);
    scene.produce(&mugs("after", 5, 1));
    scene.kafka.commit(scene.group(), &scene.orders(), 0, 3);
    scene.database.run("UPDATE positions SET topic_id = NULL");
    scene.database.run("DELETE FROM topic_incarnations");
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("where the topic has the record of another command"), "{said}");
    assert!(said.contains("after-0"), "{said}");
    let diff = ask(&scene, &["replay", "diff"]);
    assert_eq!(diff.status.code(), Some(1), "{}", words(&diff));
}

#[test]
fn a_shorter_topic_whose_predecessor_had_no_known_id_is_another_in_the_ledger_too() {
    let scene = after(&mugs("before", 60, 1), 1);
    make_anew(&scene, 1);
    scene.produce(&mugs("after", 20, 1));
    scene.database.run("UPDATE positions SET topic_id = NULL");
    scene.database.run("DELETE FROM topic_incarnations");
    run(&scene, &["--accept-data-loss"]);
    assert_eq!((scene.database.decided(), published(&scene)), (80, 80));
    let (status, said) = audit(&scene);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("60 decisions, of offsets 0 to 59, are of an earlier topic"), "{said}");
}

#[test]
fn a_rebuilt_ledger_knows_the_ids_of_its_topics() {
    let scene = after(&mugs("before", 40, 2), 2);
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}", directory.path().join("rebuilt.db").display());
    let output = ask(&scene, &["replay", "rebuild", "--into", &url, "--execute"]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    make_anew(&scene, 2);
    scene.produce(&mugs("after", 100, 2));
    // The last of a flag given twice counts.
    let mut verifier = scene.start("a", &["--database-url", &url]);
    verifier.said("this topic was made anew", SOON);
    verifier.stop_with_stopped_partitions();
}
