//! Orders for an item without a level, and the item's first level, at the same time: there is no row at which they could
//! meet, and yet each must have been decided as it had to be at its place in the ledger's order.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{Connection as _, Executor as _, PgConnection};
use stock_verifier::ledger::Request;
use stock_verifier::replay::Progress;
use stock_verifier::replay::decision_verifier::ledger_alone;
use stock_verifier::store::{Applied, CommandBatch, LedgerHistory, Store, StoreError};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use super::expect_no_findings;
use super::server::waiting;
use crate::support::{TestDatabase, batch, levels, order, received, records, set, words};

/// The number of the items' gate.
const ITEMS_GATE: i64 = 7_309_940_776_305_091_938;

/// A database with some of one item, and two sessions of the test's own: one holds up, one looks.
struct Scene {
    database: TestDatabase,
    store: Arc<dyn Store>,
    holder: PgConnection,
    looker: PgConnection,
}

impl Scene {
    async fn set_up() -> Self {
        let database = TestDatabase::postgres_migrated().await;
        let store = database.ledger().await;
        store.apply(&batch(vec![set("a-1", "OLD", 9, None)])).await.unwrap();
        // So that the partition has a position.
        store.apply(&records(0, 0, vec![order("o-1", &[("OLD", 1)])])).await.unwrap();
        let holder = PgConnection::connect(&database.url()).await.unwrap();
        let looker = PgConnection::connect(&database.url()).await.unwrap();
        Self { database, store, holder, looker }
    }

    /// Holds what this statement locks.
    async fn hold(&mut self, statement: &str) {
        self.holder.execute(&*format!("BEGIN; {statement}")).await.unwrap();
    }

    async fn let_go(&mut self) {
        self.holder.execute("ROLLBACK").await.unwrap();
    }

    /// Applies a batch by another instance, until it waits for a lock as the `number`th.
    async fn begin(&mut self, batch: CommandBatch, number: i64) -> JoinHandle<Result<Applied, StoreError>> {
        let instance = self.database.open().await;
        let applying = tokio::spawn(async move {
            let applied = instance.apply(&batch).await;
            instance.close().await;
            applied
        });
        waiting(&mut self.looker, number).await;
        applying
    }

    /// Nothing of it may be wrong, and nobody may have been in a deadlock.
    async fn end(self) {
        expect_justified(&*self.store).await;
        self.clear().await;
    }

    async fn clear(mut self) {
        // What sessions counted is known once they are over.
        self.store.close().await;
        let deadlocks: i64 =
            sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
                .fetch_one(&mut self.looker)
                .await
                .unwrap();
        assert_eq!(deadlocks, 0);
        drop((self.holder, self.looker));
        self.database.remove().await;
    }
}

/// Everything the audit of a ledger alone looks at: also that each rejection was justified, and each acceptance possible,
/// at its place in the ledger's order.
async fn expect_justified(ledger: &dyn LedgerHistory) {
    expect_no_findings(ledger).await;
    let again = ledger_alone(ledger, None, &Progress::default()).await.expect("decided again");
    assert_eq!(again.findings, []);
}

async fn became(applying: JoinHandle<Result<Applied, StoreError>>) -> Vec<&'static str> {
    words(&applying.await.unwrap().unwrap().outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_states_an_items_first_level_waits_for_who_found_none() {
    let mut scene = Scene::set_up().await;
    // The order found no level, and has no place in the ledger's order yet.
    scene.hold("SELECT 1 FROM positions FOR UPDATE").await;
    let ordering = scene.begin(records(0, 1, vec![order("o-2", &[("NEW", 1)])]), 1).await;
    let stating = scene.begin(batch(vec![set("a-2", "NEW", 5, None)]), 2).await;
    // Nor for anybody else: who knows all its items passes.
    scene.store.apply(&batch(vec![set("a-3", "OLD", 5, None)])).await.unwrap();
    scene.let_go().await;
    assert_eq!(became(ordering).await, ["rejected"]);
    assert_eq!(became(stating).await, ["accepted"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_level_waits_for_who_is_about_to_state_it() {
    let mut scene = Scene::set_up().await;
    // The level has its place in the ledger's order, and is written; its batch waits to note what is to be announced.
    scene.hold("SELECT 1 FROM unannounced_levels WHERE sku = 'OLD' FOR UPDATE").await;
    let stating = batch(vec![set("a-2", "NEW", 5, None), received("a-3", "OLD", 1)]);
    let stating = scene.begin(stating, 1).await;
    let ordering = scene.begin(batch(vec![order("o-2", &[("NEW", 2)])]), 2).await;
    let receiving = scene.begin(batch(vec![received("a-4", "NEW", 1)]), 3).await;
    scene.let_go().await;
    for applying in [stating, ordering, receiving] {
        assert!(became(applying).await.iter().all(|word| *word == "accepted"));
    }
    assert_eq!(levels(&*scene.store).await, [("NEW".into(), 4, 3), ("OLD".into(), 9, 3)]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_is_found_behind_the_gate_counts_and_is_not_waited_for_there() {
    let mut scene = Scene::set_up().await;
    scene.hold(&format!("SELECT pg_advisory_xact_lock({ITEMS_GATE})")).await;
    let first = scene.begin(batch(vec![order("o-2", &[("NEW", 2), ("OLD", 1)])]), 1).await;
    // As another instance would.
    scene.database.execute("INSERT INTO levels VALUES ('NEW', '', 5, 1, 0)").await;
    scene.let_go().await;
    assert_eq!(became(first).await, ["accepted"]);
    assert_eq!(levels(&*scene.store).await, [("NEW".into(), 3, 2), ("OLD".into(), 7, 3)]);

    scene.hold(&format!("SELECT pg_advisory_xact_lock({ITEMS_GATE})")).await;
    let second = scene.begin(batch(vec![order("o-3", &[("NEWER", 2), ("OLD", 1)])]), 1).await;
    scene.database.execute("INSERT INTO levels VALUES ('NEWER', '', 5, 1, 0)").await;
    let mut other = PgConnection::connect(&scene.database.url()).await.unwrap();
    other.execute("BEGIN; SELECT 1 FROM levels WHERE sku = 'NEWER' FOR UPDATE").await.unwrap();
    scene.let_go().await;
    // It begins again, and waits for the level before the gate: who has the level comes through.
    waiting(&mut scene.looker, 1).await;
    other
        .execute(&*format!("SET lock_timeout = '5s'; SELECT pg_advisory_xact_lock({ITEMS_GATE}); COMMIT"))
        .await
        .unwrap();
    assert_eq!(became(second).await, ["accepted"]);
    assert_eq!(levels(&*scene.store).await[1], ("NEWER".into(), 3, 2));
    drop(other);
    // What the test itself wrote is in no ledger line.
    scene.clear().await;
}

/// What an instance does about new items: some of them, in any order.
fn crossing(random: &mut StdRng, round: i64, instance: i32) -> Vec<Request> {
    let names: Vec<String> = (0..4).map(|number| format!("NEW-{round}-{number}")).collect();
    (0..4)
        .map(|number| {
            let id = format!("{round}-{instance}-{number}");
            let [one, other] = [0; 2].map(|_| names.choose(random).expect("four").as_str());
            match random.random_range(0..6) {
                0 => set(&id, one, 5, None),
                1 => received(&id, one, 5),
                2 => order(&id, &[("OLD", 1)]),
                _ if one == other => order(&id, &[(one, 1)]),
                _ => order(&id, &[(one, 1), (other, 1)]),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_state_and_order_the_same_new_items_never_wait_in_a_circle() {
    const INSTANCES: i32 = 4;
    const ROUNDS: i64 = 60;
    let scene = Scene::set_up().await;
    let together = Arc::new(Barrier::new(4));
    let mut instances = Vec::new();
    for instance in 0..INSTANCES {
        let (store, together) = (scene.database.open().await, Arc::clone(&together));
        instances.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(u64::try_from(instance).expect("few"));
            let mut all = Vec::new();
            for round in 0..ROUNDS {
                let requests = crossing(&mut random, round, instance);
                // Two of them are operators.
                let batch =
                    if instance < 2 { records(instance + 1, round * 4, requests) } else { batch(requests) };
                together.wait().await;
                all.extend(words(&store.apply(&batch).await.expect("applied").outcomes));
            }
            store.close().await;
            all
        }));
    }
    let mut all = Vec::new();
    for instance in instances {
        all.extend(instance.await.expect("no panic"));
    }
    for word in ["accepted", "rejected"] {
        let found = all.iter().filter(|found| **found == word).count();
        assert!(found > 100, "too tame: {found} {word}");
    }
    scene.end().await;
}
