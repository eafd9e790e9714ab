//! Sharing the work: rebalance protocols, workers, members that come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stock_verifier::config::{GroupArgs, GroupProtocol, KafkaArgs, Property, TopicArgs};
use stock_verifier::kafka::consumer::{Incoming, Memberships, Notice, Role, Watermarks};
use stock_verifier::ledger::NextOffset;

use crate::support::scene::Scene;
use crate::support::servers::{Servers, heavy, wait_for};
use crate::support::{stream, wait};

const ORDERS: usize = 6_000;
const LONG: Duration = Duration::from_secs(90);

#[test]
fn the_consumer_protocol_shares_the_work_and_survives_a_kill() {
    heavy();
    let seed = stream::seed();
    let settings = ["--group-protocol", "consumer", "--batch-max-orders", "100"];
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    let mut first = scene.start("a", &settings);
    let second = scene.start("b", &settings);
    let (early, late) = stream.records.split_at(ORDERS / 2);
    scene.produce(early);
    wait::until("the work goes on", LONG, || scene.database.applied() > 1_000);
    first.kill();
    let first = scene.start("a", &settings);
    scene.produce(late);
    scene.done(LONG);
    first.stop();
    second.stop();
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
}

#[test]
fn a_member_with_nothing_to_read_is_told_soon_where_its_partitions_begin_and_end() {
    const PARTITIONS: i32 = 12;
    // As long as one fetch waits, or some; not one for each partition, a minute, which made a rewind take seconds.
    const SOON: Duration = Duration::from_secs(20);
    /// Longest wait for the group.
    const JOINS: Duration = Duration::from_secs(60);
    let scene = Scene::new(PARTITIONS);
    let kafka = KafkaArgs {
        brokers: Servers::shared().brokers,
        kafka_password_file: None,
        properties: vec![Property::new("fetch.wait.max.ms", "5000")],
    };
    let group = GroupArgs {
        group: scene.group().to_owned(),
        instance_id: Some("a".to_owned()),
        transactional_id: None,
        group_protocol: GroupProtocol::Classic,
    };
    let topics = TopicArgs {
        orders_topic: scene.orders(),
        adjustments_topic: scene.topic("adjustments"),
        accepted_topic: scene.topic("accepted"),
        rejected_topic: scene.topic("rejected"),
        levels_topic: scene.topic("levels"),
        dead_letter_topic: scene.topic("dead"),
    };
    wait_for(async {
        let mut memberships =
            Memberships::join(&kafka, &group, &topics, 0, &[Role::Adjustments]).expect("it joins");
        let joins = async {
            loop {
                if let Incoming::Notice(_, Notice::Assigned(assigned)) = memberships.next(true).await {
                    let partitions = assigned.partitions.clone();
                    assigned.read(partitions.iter().map(|at| (at.clone(), NextOffset(0))).collect());
                    return partitions;
                }
            }
        };
        let partitions = tokio::time::timeout(JOINS, joins).await.expect("it joins");
        assert_eq!(partitions.len(), usize::try_from(PARTITIONS).unwrap());
        // Until it fetches: then there always is a fetch that waits at the broker.
        let _ = tokio::time::timeout(Duration::from_secs(2), memberships.next(true)).await;
        let member = Arc::clone(&memberships.members()[0]);
        let begun = Instant::now();
        let found = member.member().watermarks(&partitions).expect("Kafka answers");
        let took = begun.elapsed();
        let none = Watermarks { low: NextOffset(0), high: NextOffset(0) };
        assert_eq!(found, vec![none; partitions.len()]);
        assert!(took < SOON, "{took:?}");
        drop(member);
        memberships.close();
    });
}

#[test]
fn members_that_come_and_go_under_load_lose_and_repeat_nothing() {
    heavy();
    let seed = stream::seed();
    let settings = ["--batch-max-orders", "100"];
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    scene.produce(&stream.records);
    let mut running = vec![scene.start("m-0", &settings)];
    for number in 1..4 {
        let reached = scene.database.applied() + 1_000;
        wait::until("the work goes on", LONG, || scene.database.applied() > reached || scene.is_done());
        running.push(scene.start(&format!("m-{number}"), &settings));
        if number % 2 == 0 {
            running.remove(0).stop_among_others();
        }
    }
    scene.done(LONG);
    for verifier in running {
        verifier.stop();
    }
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
}

#[test]
fn several_workers_of_one_process_are_several_members() {
    let seed = stream::seed();
    let scene = Scene::new(6);
    let stream = stream::make(seed, ORDERS, 6);
    scene.stock(&stream.stock);
    let verifier = scene.start("a", &["--workers", "3", "--batch-max-orders", "200"]);
    wait::until("each worker is a member", LONG, || scene.kafka.members(scene.group()).len() == 3);
    scene.produce(&stream.records);
    scene.done(LONG);
    verifier.stop();
    scene.prove();
}
