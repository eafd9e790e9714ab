//! Connections, answers and databases that are lost while levels are remembered.

use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{LedgerAdmin as _, LedgerWriter as _, StoreError};

use super::{expect_justified, ledger, said, warmed};
use crate::support::database::Database;
use crate::support::servers::{setting, wait_for};
use crate::support::turns::Turns;
use crate::support::{TestDatabase, batch, levels, order, received, records, set, words};

const ONE: Connections = Connections { batches: 1, readers: 1, others: 1 };

/// Ends every other session of this database.
const END_OTHERS: &str = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                          WHERE datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test(flavor = "multi_thread")]
async fn of_a_connection_that_is_replaced_nothing_is_remembered() {
    let database = TestDatabase::remembering().await;
    let (store, other) = (ledger(&database).await, database.open().await);
    let epoch = store.connection_epoch();
    other.apply(&batch(vec![received("b-1", "MUG", 5)])).await.unwrap();
    database.execute(END_OTHERS).await;
    // As a pipeline does, which compares the ledger before it applies: no batch meets the broken connection.
    while store.applying_positions().await.is_err() {}
    assert!(store.connection_epoch() > epoch);
    assert_eq!(said(&*store, vec![order("o-1", &[("MUG", 15)])]).await, (vec!["accepted"], true));
    // The others were ended too.
    let fresh = database.open().await;
    expect_justified(&*fresh).await;
    fresh.close().await;
    store.close().await;
    other.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_leaves_nothing_remembered_and_is_met_again() {
    let database = TestDatabase::postgres().await;
    let plain = database.ledger().await;
    let turns = Turns::before(&database.url());
    let store = PostgresStore::open(&turns.url(&database.url()), ONE).await.unwrap();
    store.remember_levels(true);
    plain.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    warmed(&store, "warm", &["MUG"]).await;
    let mut orders = records(0, 0, vec![order("o-1", &[("MUG", 1)]), order("o-2", &[("MUG", 20)])]);
    orders.epoch = Some(store.connection_epoch());
    turns.lose_next_commit();
    let lost = store.apply(&orders).await.unwrap_err();
    assert!(matches!(lost, StoreError::Database { doing: "committing a batch", .. }), "{lost:?}");
    orders.epoch = None;
    let again = store.apply(&orders).await.unwrap();
    assert_eq!((words(&again.outcomes), again.on_remembered), (vec!["republished"; 2], false));
    assert_eq!(said(&store, vec![order("o-3", &[("MUG", 9)])]).await, (vec!["accepted"], true));
    expect_justified(&store).await;
    store.close().await;
    plain.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_leaves_nothing_remembered() {
    let database = TestDatabase::remembering().await;
    let store = ledger(&database).await;
    let mug = |id: &str| vec![order(id, &[("MUG", 1)])];
    assert_eq!(said(&*store, mug("o-1")).await, (vec!["accepted"], true));
    // Looked at by the commit, which fails then and costs no connection.
    database
        .execute("ALTER TABLE decisions ADD CONSTRAINT once UNIQUE (digest) DEFERRABLE INITIALLY DEFERRED")
        .await;
    let epoch = store.connection_epoch();
    let refused = store.apply(&batch(mug("o-2"))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Database { doing: "committing a batch", .. }), "{refused:?}");
    database.execute("ALTER TABLE decisions DROP CONSTRAINT once").await;
    assert_eq!(said(&*store, mug("o-2")).await, (vec!["accepted"], true));
    assert_eq!(store.connection_epoch(), epoch);
    assert_eq!(levels(&*store).await, [("HAT at BERLIN".into(), 10, 1), ("MUG".into(), 8, 3)]);
    expect_justified(&*store).await;
    store.close().await;
    database.remove().await;
}

#[test]
fn a_restored_database_that_comes_to_a_remembered_version_again_is_seen() {
    let database = Database::fresh(&setting("DATABASE_URL"));
    let url = database.url();
    let store = wait_for(async { PostgresStore::open(&url, ONE).await }).expect("opens");
    store.remember_levels(true);
    let apply = |requests| wait_for(said(&store, requests));
    apply(vec![set("a-1", "MUG", 10, None)]);
    let backup = database.backup();
    assert_eq!(apply(vec![order("o-1", &[("MUG", 3)])]), (vec!["accepted"], true));
    // As many movements, and others.
    let other = backup.store();
    wait_for(async {
        other.apply(&batch(vec![order("o-2", &[("MUG", 6)])])).await.expect("applied");
        other.close().await;
    });
    database.swap(&backup);
    assert_eq!(apply(vec![order("o-3", &[("MUG", 5)])]), (vec!["rejected"], true));
    assert_eq!(apply(vec![order("o-4", &[("MUG", 4)])]), (vec!["accepted"], true));
    // The swap ended the connections of all others.
    let fresh = database.store();
    wait_for(async {
        expect_justified(&fresh).await;
        fresh.close().await;
        store.close().await;
    });
}
