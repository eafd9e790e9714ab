//! Carts of a thousand lines: what an audit takes grows with the lines of the ledger, and not with those of each cart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stock_verifier::ledger::MAX_LINES;
use stock_verifier::store::Store;

use crate::support::{TestDatabase, batch, cancelled, on, order, set, word};

// A ledger in memory has no text to take apart again. A distributed one still takes what was given back apart for each line.
#[tokio::test(flavor = "multi_thread")]
async fn sqlites_audit_of_large_carts_takes_about_as_long_as_one_of_small_carts() {
    on(large_carts_take_about_as_long_as_small_ones, TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresqls_audit_of_large_carts_takes_about_as_long_as_one_of_small_carts() {
    on(large_carts_take_about_as_long_as_small_ones, TestDatabase::postgres_migrated().await).await;
}

/// Lines of all carts together.
const LINES: usize = 5 * MAX_LINES;
/// Lines of a small cart.
const FEW_LINES: usize = 10;
/// Audits of each ledger, of which the quickest counts: the others show what else runs here.
const TRIES: usize = 3;
/// How much longer large carts may take: it was hundreds of times, while each line was looked for in all of its cart.
const MOST_TIMES: u32 = 10;
/// What other processes may cost every one of the tries.
const PAUSE: Duration = Duration::from_secs(1);

/// A ledger of carts of so many lines each, all of them cancelled, so that what they took and gave back is compared.
async fn ledger(database: &TestDatabase, lines: usize) -> Arc<dyn Store> {
    let store = database.ledger().await;
    let name = |number: usize| format!("SKU-{number:04}");
    let stock =
        (0..lines).map(|number| set(&format!("a-{number}"), &name(number), 1_000_000, None)).collect();
    store.apply(&batch(stock)).await.unwrap();
    let names: Vec<String> = (0..lines).map(name).collect();
    let cart: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let ids: Vec<String> = (0..LINES / lines).map(|number| format!("o-{number}")).collect();
    let taken: Vec<_> = ids.iter().map(|id| order(id, &cart)).collect();
    let given_back: Vec<_> = ids.iter().map(|id| cancelled(id)).collect();
    for requests in [taken, given_back] {
        let outcomes = store.apply(&batch(requests)).await.unwrap().outcomes;
        assert!(outcomes.iter().all(|outcome| word(outcome) == "accepted"));
    }
    store
}

/// How long an audit takes at best.
async fn audited(store: &dyn Store) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        assert_eq!(store.audit().await.unwrap().findings, []);
        best = best.min(begun.elapsed());
    }
    best
}

async fn large_carts_take_about_as_long_as_small_ones(database: Arc<TestDatabase>) {
    let small = database.another().await;
    let store = ledger(&small, FEW_LINES).await;
    let small_carts = audited(&*store).await;
    store.close().await;
    small.remove().await;
    let store = ledger(&database, MAX_LINES).await;
    let large_carts = audited(&*store).await;
    store.close().await;
    assert!(
        large_carts < small_carts * MOST_TIMES + PAUSE,
        "{large_carts:?} of large carts, {small_carts:?} of as many lines in small ones"
    );
}
