//! Orders on a cluster, while what it is made of fails.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use stock_verifier::ledger::{Command, Id, Request, Sku};
use stock_verifier::store::{CommandBatch, LedgerAdmin as _, LedgerWriter as _};

use crate::support::database::run_on;
use crate::support::scene::Scene;
use crate::support::servers::{heavy, wait_for};
use crate::support::{stream, wait};

const ORDERS: usize = 6_000;
const PARTITIONS: i32 = 4;

/// Small batches, so that whatever fails finds one under way.
const SETTINGS: [&str; 2] = ["--batch-max-orders", "100"];

/// Ends all sessions on a node, as a crash of it would.
fn end_sessions(node: &str) {
    run_on(
        node,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()",
    );
}

#[test]
#[ignore = "needs a Citus cluster: CITUS_URL=… tests/run --all"]
fn citus_loses_and_repeats_nothing_while_instances_are_killed_and_nodes_lose_their_sessions() {
    heavy();
    let seed = stream::seed();
    let scene = Scene::on_cluster(PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let mut nodes = scene.database.other_nodes();
    nodes.push(scene.database.url());

    let mut running = [scene.start("one", &SETTINGS), scene.start("two", &SETTINGS)];
    let mut applied = 0;
    for (turn, part) in stream.records.chunks(stream.records.len().div_ceil(6)).enumerate() {
        scene.produce(part);
        let moment = applied + part.len() as i64 / 3;
        wait::until("the work goes on", Duration::from_secs(60), || {
            scene
                .database
                .try_number("SELECT sum(next_offset)::bigint FROM positions")
                .is_ok_and(|now| now > moment)
        });
        if turn % 2 == 0 {
            end_sessions(&nodes[turn / 2 % nodes.len()]);
        } else {
            let victim = &mut running[turn / 2 % 2];
            victim.kill();
            let name = victim.name().to_owned();
            *victim = scene.start(&name, &SETTINGS);
        }
        applied += part.len() as i64;
    }
    scene.done(Duration::from_secs(120));
    for mut verifier in running {
        assert!(verifier.ended().is_none(), "{} did not live through it", verifier.name());
        verifier.stop();
    }
    // The program's own word, of the ledger where it is; then the proof, whose questions are a plain database's.
    scene.prove_again();
    scene.database.gather();
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    assert!(ends.accepted > 0 && ends.rejected > 0, "{ends:?}");
}

/// A batch of one order.
fn order(id: &str) -> CommandBatch {
    let line = (Sku::new("MUG").unwrap().into(), stock_verifier::ledger::Quantity::new(1).unwrap());
    let command =
        Command::order_created(Id::new(id).unwrap(), vec![line], stock_verifier::ledger::Terms::default());
    CommandBatch { advances: Vec::new(), requests: vec![Request { command, source: None }], epoch: None }
}

#[test]
#[ignore = "needs a Citus cluster: CITUS_URL=… tests/run --all"]
fn citus_decides_nothing_while_a_batch_is_in_doubt_on_a_node_and_goes_on_once_that_is_settled() {
    let scene = Scene::on_cluster(1);
    scene.stock(&[("MUG", 10)]);
    let node = scene.database.other_nodes().remove(1);
    // What a coordinator leaves that dies between preparing and committing: on the node nobody knows how it ended, and the
    // coordinator has no record of it, so that it is to be rolled back. It has the row that each batch writes.
    let shard = scene
        .database
        .number("SELECT shardid FROM pg_dist_shard WHERE logicalrelid = 'node_barrier'::regclass");
    wait_for(async {
        let mut session = PgConnection::connect(&node).await.unwrap();
        // Shards may be written by hand only where a session says so.
        session.execute("SET citus.enable_manual_changes_to_shards = on").await.unwrap();
        let prepare = format!(
            "BEGIN; UPDATE node_barrier_{shard} SET batches = batches; PREPARE TRANSACTION 'citus_0_1_1_1'"
        );
        session.execute(&*prepare).await.unwrap();
    });
    let prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    let on_node = || {
        wait_for(async {
            let mut session = PgConnection::connect(&node).await.unwrap();
            sqlx::query_scalar::<_, i64>(prepared).fetch_one(&mut session).await.unwrap()
        })
    };
    assert_eq!(on_node(), 1);
    // It waits in vain at first, asks for a settlement, and is then decided, by itself.
    let store = scene.database.store();
    let begun = std::time::Instant::now();
    let applied = wait_for(async {
        let applied = store.apply(&order("o-1")).await;
        store.close().await;
        applied
    });
    assert_eq!(applied.expect("it is decided in the end").outcomes.len(), 1);
    assert!(begun.elapsed() > Duration::from_secs(4), "it did not wait: {:?}", begun.elapsed());
    assert_eq!(on_node(), 0, "what was in doubt is settled");
    scene.audit();
}
