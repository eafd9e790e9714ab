//! What an operator does to a ledger at rest: makes it again, and repairs it.

use std::sync::Arc;

use stock_verifier::ledger::{Outcome, Seq, Sequenced};
use stock_verifier::store::{CommandBatch, Store};

use super::reading::Contents;
use super::{apply_one, expect_no_findings, published};
use crate::on_every_store;
use crate::support::{
    TestDatabase, at, batch, cancelled, confirmed, extended, hold, levels, limits, order, partial, records,
    returned, set, words,
};

on_every_store![
    a_ledger_restored_at_its_sequences_is_the_same_and_goes_on_after_them,
    restoring_what_is_there_changes_nothing,
    repairing_a_whole_ledger_does_no_more_than_applying_the_batch,
];

/// Batches of all kinds of commands, each of which is decided.
fn life() -> Vec<CommandBatch> {
    let stock =
        vec![set("a-1", "MUG", 20, None), set("a-2", "PEN@PARIS", 5, None), set("a-3", "HAT", 0, None)];
    let orders = vec![
        order("o-1", &[("MUG", 4), ("PEN@PARIS", 1)]),
        partial("o-2", &[("MUG", 99), ("HAT", 1)]),
        hold("o-3", 86_400, &[("PEN@PARIS", 1)]),
        hold("o-4", 86_400, &[("PEN@PARIS", 2)]),
        order("o-5", &[("HAT", 3)]),
    ];
    let mut after = records(
        0,
        5,
        vec![
            returned("r-1", "o-1", &[("MUG", 3)]),
            extended("x-1", "o-3", 60),
            confirmed("c-1", "o-4", Some(&[("PEN@PARIS", 1)])),
            cancelled("o-2"),
            cancelled("o-6"),
        ],
    );
    after.requests.push(limits("l-1", "HAT", 5, Some(4)));
    after.requests.push(order("o-6", &[("MUG", 1)]));
    vec![batch(stock), records(0, 0, orders), after]
}

/// Applies it, and says at which ledger sequences it was decided.
async fn lived(store: &dyn Store) -> Vec<(CommandBatch, Vec<Sequenced>)> {
    let mut lived = Vec::new();
    for batch in life() {
        let outcomes = store.apply(&batch).await.unwrap().outcomes;
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Outcome::Decided(_))),
            "{:?}",
            words(&outcomes)
        );
        let sequences =
            outcomes.iter().map(published).map(|made| Sequenced { seq: made.seq, at: made.decided_at });
        lived.push((batch, sequences.collect()));
    }
    lived
}

async fn a_ledger_restored_at_its_sequences_is_the_same_and_goes_on_after_them(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let lived = lived(&*store).await;
    let empty = database.another().await;
    let again = empty.ledger().await;
    for (batch, sequences) in &lived {
        again.restore(batch, sequences).await.unwrap();
    }
    let restored = Contents::of(&*again, 100).await;
    assert_eq!(restored, Contents::of(&*store, 100).await);
    assert_eq!((restored.lines.len(), restored.holds.len()), (3, 1));
    expect_no_findings(&*again).await;

    let last = again.snapshot().await.unwrap().last_seq().await.unwrap().expect("decisions");
    assert_eq!(last, lived.last().expect("batches").1.last().expect("decisions").seq);
    let next = again.apply(&records(0, 10, vec![cancelled("o-3")])).await.unwrap();
    assert!(published(&next.outcomes[0]).seq > last);
    expect_no_findings(&*again).await;
    again.close().await;
    empty.remove().await;
}

async fn restoring_what_is_there_changes_nothing(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let lived = lived(&*store).await;
    let before = Contents::of(&*store, 100).await;
    for (batch, sequences) in &lived {
        let outcomes = store.restore(batch, sequences).await.unwrap().outcomes;
        for (request, outcome) in batch.requests.iter().zip(&outcomes) {
            let expected = if request.source.is_some() { "republished" } else { "repeated" };
            assert_eq!(words(std::slice::from_ref(outcome)), [expected]);
        }
    }
    assert_eq!(Contents::of(&*store, 100).await, before);
}

async fn repairing_a_whole_ledger_does_no_more_than_applying_the_batch(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    lived(&*store).await;
    assert_eq!(store.repairable_levels().await.unwrap(), []);
    let before = levels(&*store).await;
    let [_, (mug, pieces, version), _] = &before[..] else { panic!("{before:?}") };
    let restated = batch(vec![
        set("repair-1", mug, *pieces, Some(*version)),
        set("repair-2", "NEW", 3, Some(0)),
        order("o-9", &[("MUG", 1), ("NEW", 1)]),
        at(0, 2, hold("o-3", 86_400, &[("PEN@PARIS", 1)])),
    ]);
    let repaired = store.repair(&restated).await.unwrap();
    assert_eq!(words(&repaired.outcomes), ["accepted", "accepted", "accepted", "republished"]);
    let after = levels(&*store).await;
    assert_eq!(after[1], (mug.clone(), pieces - 1, version + 2));
    assert_eq!((&after[0], &after[2], &after[3]), (&before[0], &("NEW".to_owned(), 2, 2), &before[2]));
    assert_eq!(store.repairable_levels().await.unwrap(), []);
    assert!(published(&apply_one(&*store, cancelled("o-9")).await).seq > Seq::START);
    expect_no_findings(&*store).await;
}
