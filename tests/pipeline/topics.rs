//! Topics as they must not be: compacted, kept for too short a time, or given two roles.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::support::kafka::order;
use crate::support::process::program;
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

/// The command ends with a status that is no success, and its log says these words.
#[track_caller]
fn refused(scene: &Scene, command: Command, words: &[&str]) {
    let mut ended = scene.launch(command, "refused");
    let status = ended.wait(SOON);
    let log = ended.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in {log}");
    }
}

/// A scene whose topic of this name has this setting.
fn with(which: &str, name: &str, value: &str) -> Scene {
    let scene = Scene::new(1);
    scene.kafka.delete(&scene.topic(which));
    scene.kafka.create_with(&scene.topic(which), 1, &[(name, value)]);
    scene
}

#[test]
fn a_compacted_topic_of_commands_is_refused_unless_it_is_accepted() {
    for (which, policy) in [("orders", "compact"), ("adjustments", "compact,delete")] {
        let scene = with(which, "cleanup.policy", policy);
        let topic = scene.topic(which);
        refused(&scene, scene.command("a", &[]), &[&topic, "compacted", "--accept-compacted-topics"]);
        let mut verifier = scene.start("a", &["--accept-compacted-topics"]);
        verifier.said("verifying", SOON);
        assert!(verifier.log().contains("this topic is compacted"), "{}", verifier.log());
        verifier.stop();
    }
}

/// `topics check`: its exit status, and what it prints.
fn checked(scene: &Scene, more: &[&str]) -> (Option<i32>, String) {
    let mut command = scene.topics(&["topics", "check"]);
    let output = command.args(more).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn what_is_wrong_with_topics_is_said_without_starting() {
    // Topics made by hand have no more room for a dead letter than for its record.
    let mut scene = with("orders", "cleanup.policy", "compact");
    let (status, said) = checked(&scene, &[]);
    assert_eq!(status, Some(1), "{said}");
    let orders = scene.orders();
    for line in [
        format!("there     {orders}, 1 partitions"),
        format!("wrong     topic {orders} is compacted"),
        format!("wrong     a record of {orders} may be too large to be kept whole"),
    ] {
        assert!(said.contains(&line), "{line:?} is not in {said}");
    }
    let (_, accepted) = checked(&scene, &["--accept-compacted-topics"]);
    assert!(accepted.contains("this topic is compacted"), "{accepted}");

    scene.kafka.delete(&scene.topic("levels"));
    let (status, said) = checked(&scene, &[]);
    assert!(status == Some(1) && said.contains(&format!("missing   {}", scene.topic("levels"))), "{said}");

    // As `topics create` makes them all is well.
    scene = Scene::new(1);
    scene.kafka.delete(&scene.topic("dead"));
    wait::until("all is well", SOON, || {
        assert!(scene.topics(&["topics", "create"]).status().expect("it runs").success());
        let (status, said) = checked(&scene, &[]);
        assert!(status == Some(0) || said.contains("missing"), "{said}");
        status == Some(0)
    });
    scene.kafka.delete(&scene.topic("levels"));
    let (status, said) = checked(&scene, &["--no-levels"]);
    assert!(status == Some(0) && !said.contains("wrong"), "{said}");

    let mut nowhere = program();
    let output = nowhere.args(["topics", "check", "--brokers", "127.0.0.1:1"]).output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("no answer from Kafka at 127.0.0.1:1"), "{log}");
}

#[test]
fn a_lag_that_is_old_for_its_topics_retention_is_warned_of() {
    let hour = 3_600_000;
    for (age, warned) in [(hour * 3 / 4, true), (hour / 4, false)] {
        let scene = with("orders", "retention.ms", &hour.to_string());
        scene.stock(&[("MUG", 1_000)]);
        scene.kafka.commit(scene.group(), &scene.orders(), 0, 0);
        produce_old(&scene, age);
        // A batch that cannot be finished, so that the lag stays.
        scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
            let mut command = scene.command("a", &[]);
            command.env("RUST_LOG", "info,stock_verifier=debug");
            let mut verifier = scene.launch(command, "a");
            verifier.said("looked at retention", SOON);
            let said = verifier.log().contains("older than half of retention.ms");
            assert_eq!(said, warned, "{}", verifier.log());
            verifier.kill();
        });
    }
}

/// An order that was produced so many milliseconds ago.
fn produce_old(scene: &Scene, age: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &scene.kafka.brokers).create().expect("a producer");
    let sent = order("o-old", &[("MUG", 1)]);
    let (topic, key, value) = (scene.orders(), sent.key.expect("a key"), sent.value.expect("a value"));
    let record = BaseRecord::to(&topic).key(&key).payload(&value).timestamp(now - age);
    producer.send(record).map_err(|(error, _)| error).expect("sent");
    producer.flush(SOON).expect("arrived");
}

#[test]
fn a_topic_given_two_roles_is_refused_by_every_command_and_both_flags_are_named() {
    let scene = Scene::new(1);
    let orders = scene.orders();
    let twice = ["--orders-topic", "--dead-letter-topic"];
    let again = ["--dead-letter-topic", &orders];
    refused(&scene, scene.command("a", &again), &twice);
    for words in [&["audit"][..], &["replay", "diff"], &["replay", "republish"], &["replay", "reprocess"]] {
        let mut command = scene.tool(words);
        command.args(again);
        refused(&scene, command, &twice);
    }
    let mut create = program();
    create.args(["topics", "create", "--brokers", &scene.kafka.brokers]).args(again);
    create.args(["--orders-topic", &orders]);
    refused(&scene, create, &twice);
    let republish = ["replay", "republish", "--to-topic", &orders];
    refused(&scene, scene.tool(&republish), &["--orders-topic", "--to-topic"]);
}

#[test]
fn a_dead_letter_topic_has_room_for_the_largest_record_or_is_warned_of() {
    let scene = Scene::new(1);
    let dead = scene.topic("dead");
    scene.kafka.delete(&dead);
    let mut create = program();
    create.args(["topics", "create", "--brokers", &scene.kafka.brokers, "--partitions", "1"]);
    create.args(["--orders-topic", &scene.orders(), "--dead-letter-topic", &dead]);
    create.args([
        "--adjustments-topic",
        &scene.topic("adjustments"),
        "--levels-topic",
        &scene.topic("levels"),
    ]);
    create.args(["--accepted-topic", &scene.topic("accepted"), "--rejected-topic", &scene.topic("rejected")]);
    assert_eq!(scene.launch(create, "create").wait(SOON).code(), Some(0));
    // The broker may know it a moment after the controller has made it.
    wait::until("the topic is known", SOON, || scene.kafka.partitions(&dead) == 1);
    let largest: u64 = scene.kafka.config(&scene.orders(), "max.message.bytes").parse().expect("a number");
    let room: u64 = scene.kafka.config(&dead, "max.message.bytes").parse().expect("a number");
    assert!(room > largest, "{room} is not more than {largest}");

    let warning = "may be too large to be kept whole as a dead letter";
    let mut verifier = scene.start("a", &[]);
    // Then everything was checked.
    verifier.said("reading", SOON);
    assert!(!verifier.log().contains(warning), "{}", verifier.log());
    verifier.stop();
    scene.kafka.set(&dead, "max.message.bytes", &largest.to_string());
    let mut verifier = scene.start("a", &[]);
    verifier.said(warning, SOON);
    verifier.said("reading", SOON);
    verifier.stop();
}
