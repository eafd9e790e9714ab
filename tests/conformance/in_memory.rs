//! What is special to the ledger in memory: its time and its faults are the test's.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use stock_verifier::ledger::{NextOffset, Seq, Sequenced, Stamp};
use stock_verifier::store::memory::MemoryStore;
use stock_verifier::store::{
    CommandBatch, LedgerAdmin as _, LedgerReader as _, LedgerWriter as _, StoreError, WorkQueue as _,
};

use super::{expect_no_findings, published};
use crate::support::{
    batch, cancelled, expired, extended, hold, item, order, partition, records, set, words,
};

/// A ledger whose time stands still until the test moves it, in seconds.
fn ledger() -> (MemoryStore, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(1_000));
    let read = Arc::clone(&time);
    (MemoryStore::new(move || Stamp(read.load(Ordering::SeqCst) * 1_000_000)), time)
}

async fn available(store: &MemoryStore, name: &str) -> i64 {
    store.levels_of(&[item(name)]).await.unwrap()[0].level.available
}

/// A batch of one order for one mug, the first record of its partition.
fn one_mug(epoch: u64) -> CommandBatch {
    CommandBatch { epoch: Some(epoch), ..records(0, 0, vec![order("o-1", &[("MUG", 1)])]) }
}

#[tokio::test]
async fn the_same_calls_give_the_same_answers() {
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (store, time) = ledger();
        let first =
            store.apply(&batch(vec![set("a-1", "MUG", 9, None), hold("o-1", 5, &[("MUG", 2)])])).await;
        time.fetch_add(1, Ordering::SeqCst);
        let second = store.apply(&records(0, 0, vec![cancelled("o-1"), order("o-2", &[("MUG", 20)])])).await;
        answers.push((first.unwrap().outcomes, second.unwrap().outcomes));
    }
    assert_eq!(answers[0], answers[1], "sequences, times and all");
}

#[tokio::test]
async fn a_hold_is_over_when_the_time_that_was_given_says_so() {
    let (store, time) = ledger();
    let lease = Duration::from_secs(30);
    store.apply(&batch(vec![set("a-1", "MUG", 9, None)])).await.unwrap();
    store.apply(&records(3, 0, vec![hold("o-1", 60, &[("MUG", 2)])])).await.unwrap();
    time.fetch_add(59, Ordering::SeqCst);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap(), []);
    assert_eq!(words(&store.apply(&batch(vec![expired("o-1")])).await.unwrap().outcomes), ["not due"]);
    time.fetch_add(1, Ordering::SeqCst);
    let due = store.take_due_holds(9, lease).await.unwrap();
    assert_eq!((due.len(), &due[0].at), (1, &Some(partition(3))));
    // Another connection is told nothing while the lease lasts, and then what the first did not do.
    let other = store.connect();
    time.fetch_add(29, Ordering::SeqCst);
    assert_eq!(other.take_due_holds(9, lease).await.unwrap(), []);
    assert_eq!(other.overdue_holds(lease).await.unwrap(), None);
    time.fetch_add(1, Ordering::SeqCst);
    assert_eq!(other.take_due_holds(9, lease).await.unwrap(), due);
    assert_eq!(other.overdue_holds(Duration::from_secs(29)).await.unwrap().expect("one").count, 1);
    let late = batch(vec![extended("e-1", "o-1", 60), expired("o-1"), expired("o-1")]);
    assert_eq!(words(&other.apply(&late).await.unwrap().outcomes), ["rejected", "accepted", "repeated"]);
    assert_eq!(available(&store, "MUG").await, 9);
    time.fetch_add(100, Ordering::SeqCst);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap(), []);
}

#[tokio::test]
async fn a_hold_asked_for_by_a_clock_that_was_ahead_is_asked_for_again_when_it_is_over() {
    let (store, time) = ledger();
    let lease = Duration::from_secs(30);
    store.apply(&batch(vec![set("a-1", "MUG", 9, None), hold("o-1", 60, &[("MUG", 2)])])).await.unwrap();
    time.fetch_add(3_600, Ordering::SeqCst);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap().len(), 1);
    time.fetch_sub(3_580, Ordering::SeqCst);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap(), [], "it is not over yet");
    time.fetch_add(40, Ordering::SeqCst);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_connection_asks_for_a_comparison_and_no_other_one_does() {
    let (store, _) = ledger();
    let other = store.connect();
    store.apply(&batch(vec![set("a-1", "MUG", 9, None)])).await.unwrap();
    let compared = store.connection_epoch();
    store.lose_connection();
    let refused = store.apply(&one_mug(compared)).await;
    assert!(matches!(refused, Err(StoreError::Reconnected)), "{refused:?}");
    assert_eq!(available(&store, "MUG").await, 9);
    assert_eq!(words(&other.apply(&one_mug(other.connection_epoch())).await.unwrap().outcomes), ["accepted"]);
    let (epoch, positions) = store.applying_positions().await.unwrap();
    assert_eq!(positions[&partition(0)].next, NextOffset(1));
    assert_eq!(words(&store.apply(&one_mug(epoch)).await.unwrap().outcomes), ["republished"]);
    assert_eq!(available(&store, "MUG").await, 8);
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_loses_the_batch_whole() {
    // Lost while the batch asks what time it is: after it began, and before it commits.
    let losing: Arc<std::sync::Mutex<Option<MemoryStore>>> = Arc::default();
    let then = Arc::clone(&losing);
    let store = MemoryStore::new(move || {
        if let Some(store) = then.lock().expect("no panic").take() {
            store.lose_connection();
        }
        Stamp(0)
    });
    store.apply(&batch(vec![set("a-1", "MUG", 9, None)])).await.unwrap();
    let epoch = store.connection_epoch();
    *losing.lock().expect("no panic") = Some(store.clone());
    let lost = store.apply(&one_mug(epoch)).await;
    assert!(matches!(&lost, Err(error @ StoreError::Database { .. }) if error.is_transient()), "{lost:?}");
    assert_eq!((available(&store, "MUG").await, store.all_positions().await.unwrap().len()), (9, 0));
    assert!(matches!(store.apply(&one_mug(epoch)).await, Err(StoreError::Reconnected)));
    assert_eq!(words(&store.apply(&one_mug(epoch + 1)).await.unwrap().outcomes), ["accepted"]);
}

#[tokio::test]
async fn a_batch_that_is_dropped_while_it_waits_leaves_its_turn_to_the_next() {
    // Another comes while a batch asks what time it is: it has to wait, and is dropped.
    let coming: Arc<std::sync::Mutex<Option<MemoryStore>>> = Arc::default();
    let waited = Arc::new(AtomicI64::new(0));
    let (then, counted) = (Arc::clone(&coming), Arc::clone(&waited));
    let stock = || batch(vec![set("a-1", "MUG", 9, None)]);
    let store = MemoryStore::new(move || {
        let coming = then.lock().expect("no panic").take();
        if let Some(store) = coming {
            let stock = stock();
            let mut dropped = pin!(store.apply(&stock));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            counted.fetch_add(i64::from(dropped.as_mut().poll(&mut context).is_pending()), Ordering::SeqCst);
        }
        Stamp(0)
    });
    *coming.lock().expect("no panic") = Some(store.connect());
    assert_eq!(words(&store.apply(&stock()).await.unwrap().outcomes), ["accepted"]);
    assert_eq!(waited.load(Ordering::SeqCst), 1, "it waited");
    assert_eq!(words(&store.connect().apply(&stock()).await.unwrap().outcomes), ["repeated"]);
    assert_eq!(available(&store, "MUG").await, 9);
}

#[tokio::test]
async fn a_ledger_sequence_that_is_taken_is_not_given_to_another_decision() {
    let (store, _) = ledger();
    let first = store.apply(&batch(vec![set("a-1", "MUG", 9, None)])).await.unwrap();
    let taken = published(&first.outcomes[0]).seq;
    let again = |seq| [Sequenced { seq, at: Stamp(0) }];
    let refused = store.restore(&batch(vec![set("a-2", "MUG", 1, None)]), &again(taken)).await;
    assert!(matches!(&refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(available(&store, "MUG").await, 9);
    store.restore(&batch(vec![set("a-2", "MUG", 1, None)]), &again(Seq(taken.0 + 1))).await.unwrap();
    expect_no_findings(&store).await;
}
