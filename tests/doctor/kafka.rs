//! Faults of Kafka, and of what the ledger and Kafka say of each other.

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;

use super::{Report, SOON, doctor, healthy};
use crate::support::brokers::Broker;
use crate::support::database::{Database, unique};
use crate::support::kafka::{Cluster, order, sent};
use crate::support::proxy::{Act, Proxy, Wire, api_key};
use crate::support::scene::Scene;
use crate::support::servers::{Private, Servers, heavy, heavy_behind_kafkas_proxy, setting};
use crate::support::wait;

/// Orders that keep a verifier at work for some seconds, with small batches.
const BACKLOG: usize = 6_000;
/// The number of Kafka's request for offsets.
const LIST_OFFSETS: u16 = 2;

#[test]
fn topics_that_are_not_as_they_should_be_are_named_with_what_to_do() {
    let scene = healthy();
    let [orders, levels, accepted] = ["orders", "levels", "accepted"].map(|which| scene.topic(which));
    scene.kafka.set(&levels, "cleanup.policy", "delete");
    doctor(&scene).finds("warning", "kafka.compaction", &[&levels, "cleanup.policy=compact"]);
    scene.kafka.set(&levels, "cleanup.policy", "compact");
    scene.kafka.set(&orders, "cleanup.policy", "compact");
    doctor(&scene).finds("error", "kafka.compaction", &[&orders, "--accept-compacted-topics"]);
    scene.kafka.set(&orders, "cleanup.policy", "delete");

    // One broker, so one copy.
    scene.kafka.set(&accepted, "min.insync.replicas", "2");
    doctor(&scene).finds("error", "kafka.replication", &[&accepted, "nothing can be written", "to 1"]);
    scene.kafka.set(&accepted, "max.message.bytes", "1000");
    doctor(&scene).finds("warning", "kafka.sizes", &[&accepted, "1000 bytes", "max.message.bytes"]);

    scene.kafka.delete(&accepted);
    scene.kafka.create_with(&accepted, 3, &[]);
    doctor(&scene).is_well().finds("note", "kafka.partitions", &[&accepted, "3 partitions", "Give"]);
    let many = Report::answered(|| scene.tool(&["doctor", "--workers", "2"]));
    many.finds("warning", "kafka.partitions", &["2 workers", "--workers"]);

    scene.kafka.delete(&levels);
    doctor(&scene).finds("error", "kafka.topics", &[&levels, "topics create"]);
    Report::answered(|| scene.tool(&["doctor", "--no-levels"])).is_well();
}

#[test]
fn a_command_on_another_partition_than_its_order_is_named_whatever_the_database() {
    let about = |kind: &str, order: &str, more: serde_json::Value| {
        let mut value = json!({"type": kind, "order_id": order});
        value.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        sent(order, value.to_string())
    };
    for is_file in [false, true] {
        let scene = Scene::new(2);
        scene.set_topics_as_created();
        let url = if is_file {
            format!("sqlite://{}", scene.file("ledger.db").display())
        } else {
            scene.database.url()
        };
        let mut command = scene.command_without_database("a", &["--migrate"]);
        command.args(["--database-url", &url]);
        let verifier = scene.launch(command, "a");
        let mug = json!({"type": "stock.received", "adjustment_id": "a-1", "sku": "MUG", "quantity": 9});
        scene.kafka.produce(&scene.topic("adjustments"), &[sent("MUG", mug.to_string())]);
        let published = |count: usize| {
            wait::until("it is published", SOON, || {
                scene.kafka.count(&scene.topic("accepted")) + scene.kafka.count(&scene.topic("rejected"))
                    == count
            });
        };
        published(1);
        scene.produce(&[order("o-1", &[("MUG", 1)]).to(0), order("o-2", &[("MUG", 1)]).to(1)]);
        published(3);
        let line = json!([{"sku": "MUG", "quantity": 1}]);
        let returned = json!({"return_id": "r-1", "lines": line});
        scene.produce(&[about("order.returned", "o-1", returned.clone()).to(0)]);
        published(4);
        let doctor = || Report::answered(|| scene.tool_on(&["doctor"], &url));
        doctor().finds("ok", "kafka.partitioner", &["the last 1 commands"]);
        // One whose id is its order's, and one with an id of its own.
        scene.produce(&[about("order.cancelled", "o-2", json!({})).to(0)]);
        published(5);
        let apart = ["1 of the last 2", "order.cancelled of o-2 on partition 0", "[1]", "murmur2_random"];
        doctor().finds("warning", "kafka.partitioner", &apart);
        let mut second = returned;
        second["return_id"] = json!("r-2");
        scene.produce(&[about("order.returned", "o-1", second).to(1)]);
        published(6);
        doctor().finds(
            "warning",
            "kafka.partitioner",
            &["2 of the last 3", "order.returned of o-1 on partition 1"],
        );
        verifier.stop();
    }
}

#[test]
fn a_kafka_that_is_away_or_says_nothing_is_an_error_in_time() {
    let scene = healthy();
    let with = |brokers: &str| {
        let mut command = scene.tool(&["doctor"]);
        command.args(["--brokers", brokers]);
        Report::of(command)
    };
    let report = wait::value("it is refused in time", SOON, || {
        let report = with("127.0.0.1:1");
        report.finds("error", "kafka.connection", &["127.0.0.1:1", "--brokers"]);
        report.has("error", "kafka.connection", &["refused"]).then_some(report)
    });
    report.finds("ok", "database.connection", &[]);
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    with(&address).finds("error", "kafka.connection", &[&address, "--brokers"]);
    // Neither of the two says anything.
    let mut both = scene.tool_on(&["doctor"], &format!("postgres://stock@{address}/stock"));
    both.args(["--brokers", &address]);
    let report = Report::of(both);
    report.finds("error", "kafka.connection", &[]).finds("error", "database.connection", &[]);
}

#[test]
fn looking_disturbs_no_verifier_and_finds_nothing_wrong_with_one() {
    let scene = healthy();
    scene.stock(&[("MUG", 1_000)]);
    // Small batches, so that it is at work for as long as is looked, one transaction after the other.
    let mut verifier = scene.start("a", &["--batch-max-orders", "20", "-X", "session.timeout.ms=30000"]);
    scene.joined(&verifier);
    let orders: Vec<_> = (0..BACKLOG).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
    let look = || {
        // Under the same instance's name, as a person does who looks.
        let report = Report::answered(|| {
            let mut command = scene.tool(&["doctor"]);
            command.args(["--instance-id", "a"]);
            command
        });
        report.is_well();
        report.finds("ok", "kafka.group", &["2 members"]).finds("ok", "kafka.transactional_id", &[]);
        report
    };
    scene.produce(&orders);
    wait::until("it is at work", SOON, || scene.database.decided() > 0);
    while (scene.database.decided() as usize) < BACKLOG {
        look();
    }
    scene.done(SOON);
    look().finds("ok", "ledger.positions", &["are the group's offsets"]);
    scene.produce(&[order("o-last", &[("MUG", 1)])]);
    scene.done(SOON);
    assert!(!verifier.log().contains("fenced") && verifier.ended().is_none(), "{}", verifier.log());
    verifier.stop();
}

#[test]
fn a_second_group_of_verifiers_is_an_error_whatever_its_protocol() {
    let scene = healthy();
    for protocol in ["classic", "consumer"] {
        let other = unique("other");
        let ledger = Database::fresh(&Servers::shared().database_url);
        let more = ["--group", &other, "--group-protocol", protocol];
        let mut command = scene.command_without_database("b", &more);
        command.args(["--database-url", &ledger.url()]);
        let mut verifier = scene.launch(command, "b");
        verifier.said("reading", SOON);
        wait::until("its partitions are known", SOON, || {
            let words = [&*other, "stock-verifier-b", "Stop one of the two"];
            doctor(&scene).has("error", "kafka.second_group", &words)
        });
        verifier.stop();
        doctor(&scene).is_well();
    }
}

#[test]
fn records_that_were_deleted_before_they_were_read_are_named() {
    let scene = healthy();
    scene.produce(&[order("o-1", &[]), order("o-2", &[]), order("o-3", &[])]);
    scene.kafka.commit(scene.group(), &scene.orders(), 0, 0);
    scene.kafka.delete_records(&scene.orders(), 0, 2);
    let orders = scene.orders();
    doctor(&scene).finds("error", "kafka.retention", &[&format!("{orders}[0]"), "--accept-data-loss"]);
}

#[test]
fn a_ledger_and_offsets_that_do_not_fit_are_named() {
    let scene = healthy();
    let orders = scene.orders();
    scene.produce(&[order("o-1", &[]), order("o-2", &[])]);
    let state = |topic_id: &str| {
        scene.database.run(&format!(
            "INSERT INTO positions (topic, partition, next_offset, topic_id) VALUES ('{orders}', 0, 1, {topic_id})
             ON CONFLICT (topic, partition) DO UPDATE SET topic_id = excluded.topic_id"
        ));
    };
    state("NULL");
    doctor(&scene).finds("warning", "ledger.positions", &["offsets are gone", "--group"]);
    scene.kafka.commit(scene.group(), &orders, 0, 0);
    doctor(&scene).is_well().finds("note", "ledger.positions", &["1 records", "next start"]);
    state("'AAAAAAAAAAAAAAAAAAAAAA'");
    doctor(&scene).finds("error", "ledger.topics", &[&orders, "made anew", "docs/replay.md"]);
    state("NULL");
    scene.kafka.commit(scene.group(), &orders, 0, 2);
    doctor(&scene).finds(
        "error",
        "ledger.positions",
        &["went back in time", &format!("{orders}[0]"), "backup"],
    );
}

/// Begins a transaction on a topic with a record of so many seconds ago.
fn old_transaction(scene: &Scene, topic: &str, seconds: i64) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &scene.kafka.brokers)
        .set("transactional.id", unique("hangs"))
        .set("transaction.timeout.ms", "600000")
        .create()
        .expect("a producer");
    producer.init_transactions(SOON).expect("Kafka answers");
    producer.begin_transaction().expect("it begins");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let record =
        BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(b"x").timestamp(now - seconds * 1000);
    producer.send(record).map_err(|(error, _)| error).expect("sent");
    producer.flush(SOON).expect("it arrives");
    producer
}

#[test]
fn a_transaction_that_hangs_is_named_with_how_to_find_and_end_it() {
    let scene = healthy();
    let accepted = scene.topic("accepted");
    let young = old_transaction(&scene, &accepted, 1);
    // Where its first record could not be read in time, since when it is open is not known.
    wait::until("it is young", SOON, || doctor(&scene).is_well().has("ok", "kafka.transactions", &[]));
    young.abort_transaction(SOON).expect("aborted");
    let hanging = old_transaction(&scene, &accepted, 60);
    let partition = format!("{accepted}[0]");
    let words = [&*partition, "describe-producers", "kafka-transactions.sh abort"];
    wait::until("the first is over everywhere, and the second is named", SOON, || {
        doctor(&scene).has("error", "kafka.transactions", &words)
    });
    hanging.abort_transaction(SOON).expect("aborted");
    wait::until("it is over", SOON, || doctor(&scene).has("ok", "kafka.transactions", &[]));
}

#[test]
fn offsets_in_a_transaction_that_stays_open_are_named() {
    let scene = healthy();
    let orders = scene.orders();
    scene.produce(&[order("o-1", &[])]);
    scene.kafka.commit(scene.group(), &orders, 0, 0);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &scene.kafka.brokers)
        .set("group.id", scene.group())
        .create()
        .expect("a consumer");
    let hanging = old_transaction(&scene, &scene.topic("accepted"), 0);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&orders, 0, Offset::Offset(1)).expect("an offset");
    let member = consumer.group_metadata().expect("a group");
    hanging.send_offsets_to_transaction(&offsets, &member, SOON).expect("sent");
    let partition = format!("{orders}[0]");
    doctor(&scene).finds("warning", "kafka.offsets", &[&partition, "find-hanging"]);
    hanging.abort_transaction(SOON).expect("aborted");
    wait::until("it is over", SOON, || doctor(&scene).has("ok", "kafka.offsets", &[]));
}

#[test]
fn a_kafka_that_falls_silent_is_waited_for_within_the_time() {
    let _address = heavy_behind_kafkas_proxy();
    let scene = healthy();
    // Listing offsets is asked in the middle.
    let proxy = Proxy::start(
        Wire::Kafka,
        &setting("KAFKA_PROXY_BROKERS"),
        &setting("KAFKA_PROXY_UPSTREAM"),
        |request| if api_key(request) == LIST_OFFSETS { Act::Silence } else { Act::Pass },
    );
    let mut command = scene.tool(&["doctor"]);
    command.args(["--brokers", &setting("KAFKA_PROXY_BROKERS")]);
    let report = Report::of(command);
    assert!(proxy.acted() > 0, "nothing was asked");
    report.finds("ok", "kafka.connection", &[]).finds("ok", "database.connection", &[]);
    report.finds("note", "kafka.transactions", &["cannot look", "find-hanging"]);
    report.finds("note", "kafka.retention", &["cannot look"]);
}

#[test]
fn a_broker_that_is_away_is_named_by_what_has_no_copy_any_more() {
    heavy();
    let private = Private::start_with("default.replication.factor=2");
    let mut second = Broker::start(&private, 2, "default.replication.factor=2");
    let kafka = Cluster::new(&private.servers().brokers);
    wait::until("both are there", SOON, || kafka.brokers_there() == 2);
    let scene = Scene::on(&private.servers(), 1);
    scene.set_topics_as_created();
    let accepted = scene.topic("accepted");
    wait::until("it is copied", SOON, || scene.kafka.in_sync(&accepted) == 2);
    // The tests' servers keep transactions on one broker, which is right where there is one.
    let words = ["transaction.state.log.replication.factor is 1", "on 2 brokers", "Set both to 3"];
    wait::until("it says where transactions are kept", SOON, || {
        let report = Report::of(scene.tool(&["doctor"]));
        report.has("warning", "kafka.brokers", &words)
    });
    second.kill();
    wait::until("its copy is missed", SOON, || {
        // What only the one that is away knows stays without an answer.
        let report = Report::of(scene.tool(&["doctor"]));
        report.has("warning", "kafka.replication", &[&accepted, "not in sync", "Bring the brokers back"])
    });
}
