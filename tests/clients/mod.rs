//! Each client of examples/clients, as its page shows it, against real Kafka and a real verifier.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use stock_verifier::kafka::partitioner::{crc32_partition_of, partition_of};

use crate::support::postgres::with_lib;
use crate::support::scene::Scene;

const PAGE: &str = include_str!("../../examples/clients/README.md");
const PARTITIONS: i32 = 6;
/// Orders whose partition is another by librdkafka's own partitioner, and by a murmur2 whose sign is taken otherwise.
const ORDERS: [&str; 2] = ["o-2", "o-5"];
/// What the page has after the order's id, which is another for each client.
const SHOWN: &str = " MUG 2";

/// What the page shows under a heading: the lines that prepare the client, the one that runs it as far as the order's id, and
/// that id.
fn shown(heading: &str) -> (Vec<&'static str>, &'static str, &'static str) {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let mut lines: Vec<&str> = block.lines().collect();
    let run = lines.pop().expect("a line");
    let words = run.strip_suffix(SHOWN).and_then(|run| run.rsplit_once(' '));
    let (follow, id) = words.unwrap_or_else(|| panic!("{run}"));
    (lines, follow, id)
}

/// What `cargo tests` says besides, so that what is compiled for the tests serves for the client too.
const AS_TESTS: &str = "cargo run --config profile.release.package.stock-verifier.opt-level=1 ";

fn run(folder: &str, line: &str, scene: &Scene) -> Output {
    Command::new("sh")
        .args(["-c", &line.replace("cargo run ", AS_TESTS)])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .env("BROKERS", &scene.kafka.brokers)
        .env("ORDERS_TOPIC", scene.topic("orders"))
        .env("ACCEPTED_TOPIC", scene.topic("accepted"))
        .env("REJECTED_TOPIC", scene.topic("rejected"))
        .output()
        .expect("sh can be run")
}

/// The types of what a client printed.
fn types(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    events.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
}

/// The client does what the page says.
fn works(heading: &str, folder: &str) {
    let (prepare, follow, _) = shown(heading);
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 3)]);
    for line in prepare {
        let done = run(folder, line, &scene);
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let verifier = scene.start("a", &[]);
    let follows = |words: &str, status: i32, printed: &[&str]| {
        let done = run(folder, &format!("{follow} {words}"), &scene);
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(types(&done), printed, "{words}: {text}");
        assert_eq!(done.status.code(), Some(status), "{words}: {text}");
    };
    follows(&format!("{} MUG 2", ORDERS[0]), 0, &["order.accepted", "cancellation.accepted"]);
    // What the first took is there again.
    follows(&format!("{} MUG 3", ORDERS[1]), 0, &["order.accepted", "cancellation.accepted"]);
    follows("o-100 MUG 4", 1, &["order.rejected"]);
    verifier.stop();

    let records = scene.kafka.read(&scene.orders());
    assert_eq!(records.len(), 5);
    for record in records {
        let key = record.key.expect("a key");
        let partition = record.source.at.partition;
        assert_eq!(partition, partition_of(&key, PARTITIONS), "{}", String::from_utf8_lossy(&key));
    }
    scene.audit();
}

#[test]
fn the_orders_of_these_tests_tell_partitioners_apart() {
    for id in ORDERS {
        assert_ne!(partition_of(id.as_bytes(), PARTITIONS), crc32_partition_of(id.as_bytes(), PARTITIONS));
    }
}

#[test]
fn each_client_is_shown_with_an_order_of_its_own() {
    // A second one with the same would be absorbed, and have no verdict.
    let clients = ["Python", "Java", "Node", "Rust", "kcat"];
    let ids: BTreeSet<&str> = clients.map(|client| shown(client).2).into();
    assert_eq!(ids.len(), clients.len(), "{ids:?}");
}

#[test]
#[ignore = "needs Python: tests/run --all"]
fn the_client_in_python_follows_an_order_and_cancels_it() {
    with_lib("ensure python >&2");
    works("Python", "examples/clients/python");
}

#[test]
#[ignore = "needs Java and Maven: tests/run --all"]
fn the_client_in_java_follows_an_order_and_cancels_it() {
    with_lib("ensure maven >&2");
    works("Java", "examples/clients/java");
}

#[test]
#[ignore = "needs Node: tests/run --all"]
fn the_client_for_node_follows_an_order_and_cancels_it() {
    with_lib("ensure node >&2");
    works("Node", "examples/clients/node");
}

#[test]
#[ignore = "builds an example: tests/run --all"]
fn the_client_in_rust_follows_an_order_and_cancels_it() {
    works("Rust", ".");
}

#[test]
#[ignore = "needs kcat: tests/run --all"]
fn kcat_alone_follows_an_order_and_cancels_it() {
    with_lib("ensure kcat >&2");
    works("kcat", "examples/clients/kcat");
}
