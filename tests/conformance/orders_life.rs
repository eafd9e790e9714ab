//! The life of an order's stock after it was taken: cancelled, returned, held.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stock_verifier::ledger::{Confirmed, Extended, GivenBack, Id, OrderTaken, Outcome, Reason, Request};
use stock_verifier::store::{DueHold, Store};

use super::{apply_one, back, expect_no_findings, positions, published, reasons};
use crate::support::{
    TestDatabase, batch, cancelled, confirmed, expired, extended, hold, levels, order, partition, received,
    records, released, returned, set, sku, word, words,
};
use crate::{on_every_database, on_every_store};

on_every_database![a_hold_asked_for_by_a_clock_that_was_ahead_is_asked_for_again];

on_every_store![
    a_cancelled_order_gives_back_everything_once,
    an_order_cancelled_before_it_was_created_takes_nothing,
    a_cancelled_order_that_was_rejected_gives_back_nothing,
    returns_add_up_and_never_exceed_what_was_taken,
    a_return_of_an_unknown_or_a_cancelled_order_is_rejected,
    a_cancelled_order_gives_back_what_was_not_returned_yet,
    the_same_return_twice_is_absorbed_and_with_other_content_conflicts,
    a_hold_is_confirmed_whole_and_is_final_then,
    a_hold_confirmed_in_part_gives_back_the_rest,
    a_released_hold_gives_back_everything_and_cannot_be_confirmed,
    a_cancelled_hold_is_open_no_more,
    an_extended_hold_ends_later_by_as_much,
    what_follows_an_order_that_is_no_hold_is_rejected,
    a_hold_that_is_not_due_does_not_end_then_or_when_read_again,
    an_expired_hold_gives_back_once_however_many_instances_ask,
    a_hold_that_is_over_is_final_by_nobody_even_before_it_is_given_back,
    a_due_hold_is_given_to_one_of_two_callers,
    a_due_hold_is_given_again_after_its_lease,
    holds_that_are_overdue_are_counted_and_the_oldest_is_named,
    an_order_and_its_cancellation_in_one_batch_are_decided_as_one_at_a_time,
    a_hold_and_its_end_in_one_batch_are_decided_as_one_at_a_time,
    a_restock_and_the_order_that_waited_in_one_batch_are_decided_as_one_at_a_time,
    eight_tasks_on_the_same_orders_give_back_no_more_than_was_taken,
];

/// A hold that ends in no test.
const LONG: i64 = 86_400;

/// Longer than any machine takes to see a hold of one second over.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Takes due holds until there are as many. By the database's clock, so asked again and again.
async fn due_holds(store: &dyn Store, wanted: usize, lease: Duration) -> Vec<DueHold> {
    let begun = Instant::now();
    let mut due = Vec::new();
    while due.len() < wanted {
        assert!(begun.elapsed() < WAIT_LIMIT, "of {wanted} holds only {due:?} are over");
        tokio::time::sleep(Duration::from_millis(20)).await;
        due.extend(store.take_due_holds(wanted, lease).await.unwrap());
    }
    due
}

/// When the hold of an accepted order ends, as published.
fn end(outcome: &Outcome) -> String {
    let taken: OrderTaken = serde_json::from_str(&published(outcome).detail).unwrap();
    taken.expires_at.expect("a hold says its end")
}

fn confirmation(outcome: &Outcome) -> Confirmed {
    assert!(published(outcome).accepted, "{outcome:?}");
    serde_json::from_str(&published(outcome).detail).unwrap()
}

async fn a_cancelled_order_gives_back_everything_once(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 5, None)])).await.unwrap();
    store.apply(&records(0, 0, vec![order("o-1", &[("MUG", 2), ("HAT", 1)])])).await.unwrap();
    let first = records(0, 1, vec![cancelled("o-1")]);
    let applied = store.apply(&first).await.unwrap();
    assert_eq!(back(&applied.outcomes[0]), [("HAT".into(), 1, 5), ("MUG".into(), 2, 10)]);
    let moved: Vec<_> = applied
        .levels
        .iter()
        .map(|(item, level)| (item.to_string(), level.available, level.version))
        .collect();
    assert_eq!(moved, [("HAT".into(), 5, 3), ("MUG".into(), 10, 3)]);
    // By the instance that did it, and by one that starts after a crash.
    for (number, store) in [(1, store.clone()), (2, database.open().await)] {
        let again = store.apply(&first).await.unwrap();
        assert_eq!(again.outcomes, [Outcome::Republished(published(&applied.outcomes[0]))]);
        let other = store.apply(&records(number, 0, vec![cancelled("o-1")])).await.unwrap();
        assert_eq!(words(&other.outcomes), ["repeated"]);
        assert!(other.levels.is_empty());
    }
    assert_eq!(levels(&*store).await, [("HAT".into(), 5, 3), ("MUG".into(), 10, 3)]);
    expect_no_findings(&*store).await;
}

async fn an_order_cancelled_before_it_was_created_takes_nothing(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    let applied = store.apply(&records(0, 0, vec![cancelled("o-1")])).await.unwrap();
    assert_eq!(back(&applied.outcomes[0]), []);
    for store in [store.clone(), database.open().await] {
        let created = store.apply(&records(0, 1, vec![order("o-1", &[("MUG", 2)])])).await.unwrap();
        assert_eq!(reasons(&created.outcomes[0]), [Reason::OrderCancelled]);
    }
    let held = apply_one(&*store, hold("o-2", LONG, &[("MUG", 1)])).await;
    assert_eq!(word(&held), "accepted");
    assert_eq!(levels(&*store).await, [("MUG".into(), 9, 2)]);
    expect_no_findings(&*store).await;
}

async fn a_cancelled_order_that_was_rejected_gives_back_nothing(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 1, None)])).await.unwrap();
    assert_eq!(word(&apply_one(&*store, order("o-1", &[("MUG", 2)])).await), "rejected");
    assert_eq!(back(&apply_one(&*store, cancelled("o-1")).await), []);
    assert_eq!(levels(&*store).await, [("MUG".into(), 1, 1)]);
    expect_no_findings(&*store).await;
}

async fn returns_add_up_and_never_exceed_what_was_taken(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let stock = ["MUG", "HAT", "PEN"].map(|name| set(&format!("a-{name}"), name, 10, None));
    store.apply(&batch(stock.into())).await.unwrap();
    apply_one(&*store, order("o-1", &[("MUG", 5), ("HAT", 2)])).await;
    let first = apply_one(&*store, returned("r-1", "o-1", &[("MUG", 2)])).await;
    assert_eq!(back(&first), [("MUG".into(), 2, 7)]);
    let published_of: GivenBack = serde_json::from_str(&published(&first).detail).unwrap();
    assert_eq!(published_of.order_id, Some(Id::new("o-1").unwrap()));
    let second = apply_one(&*store, returned("r-2", "o-1", &[("HAT", 1), ("MUG", 1), ("MUG", 1)])).await;
    assert_eq!(back(&second), [("HAT".into(), 1, 9), ("MUG".into(), 2, 9)]);
    let before = levels(&*store).await;
    let too_much = apply_one(&*store, returned("r-3", "o-1", &[("MUG", 2), ("HAT", 1), ("PEN", 1)])).await;
    assert_eq!(
        reasons(&too_much),
        [
            Reason::ReturnExceedsDeducted { sku: sku("MUG"), location: None, requested: 2, left: 1 },
            Reason::ReturnExceedsDeducted { sku: sku("PEN"), location: None, requested: 1, left: 0 },
        ]
    );
    assert_eq!(levels(&*store).await, before);
    let rest = apply_one(&*store, returned("r-4", "o-1", &[("MUG", 1), ("HAT", 1)])).await;
    assert_eq!(back(&rest), [("HAT".into(), 1, 10), ("MUG".into(), 1, 10)]);
    let none_left = apply_one(&*store, returned("r-5", "o-1", &[("MUG", 1)])).await;
    assert_eq!(
        reasons(&none_left),
        [Reason::ReturnExceedsDeducted { sku: sku("MUG"), location: None, requested: 1, left: 0 }]
    );
    expect_no_findings(&*store).await;
}

async fn a_return_of_an_unknown_or_a_cancelled_order_is_rejected(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 1, None)).await;
    apply_one(&*store, order("o-1", &[("MUG", 2)])).await;
    apply_one(&*store, order("o-2", &[("MUG", 1)])).await;
    apply_one(&*store, cancelled("o-2")).await;
    for (n, (order_id, reason)) in
        [("o-0", Reason::OrderNotFound), ("o-1", Reason::OrderNotFound), ("o-2", Reason::AlreadyCancelled)]
            .into_iter()
            .enumerate()
    {
        let outcome = apply_one(&*store, returned(&format!("r-{n}"), order_id, &[("MUG", 1)])).await;
        assert_eq!(reasons(&outcome), [reason], "{order_id}");
    }
    assert_eq!(levels(&*store).await, [("MUG".into(), 1, 3)]);
    expect_no_findings(&*store).await;
}

async fn a_cancelled_order_gives_back_what_was_not_returned_yet(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 5, None)])).await.unwrap();
    apply_one(&*store, order("o-1", &[("MUG", 5), ("HAT", 2)])).await;
    apply_one(&*store, returned("r-1", "o-1", &[("MUG", 2), ("HAT", 2)])).await;
    assert_eq!(back(&apply_one(&*store, cancelled("o-1")).await), [("MUG".into(), 3, 10)]);
    assert_eq!(levels(&*store).await, [("HAT".into(), 5, 3), ("MUG".into(), 10, 4)]);
    expect_no_findings(&*store).await;
}

async fn the_same_return_twice_is_absorbed_and_with_other_content_conflicts(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    store.apply(&batch(vec![order("o-1", &[("MUG", 5)]), order("o-2", &[("MUG", 5)])])).await.unwrap();
    let first = records(0, 0, vec![returned("r-1", "o-1", &[("MUG", 1)])]);
    assert_eq!(words(&store.apply(&first).await.unwrap().outcomes), ["accepted"]);
    let later = vec![
        returned("r-1", "o-1", &[("MUG", 1)]),
        returned("r-1", "o-1", &[("MUG", 2)]),
        returned("r-1", "o-2", &[("MUG", 1)]),
        // Another command altogether: ids are told apart by what they are about.
        cancelled("r-1"),
    ];
    let applied = store.apply(&records(0, 1, later)).await.unwrap();
    assert_eq!(words(&applied.outcomes), ["repeated", "conflict", "conflict", "accepted"]);
    assert_eq!(levels(&*store).await, [("MUG".into(), 1, 4)]);
    expect_no_findings(&*store).await;
}

async fn a_hold_is_confirmed_whole_and_is_final_then(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 5, None)])).await.unwrap();
    apply_one(&*store, hold("o-1", LONG, &[("MUG", 2), ("HAT", 1)])).await;
    assert_eq!(levels(&*store).await, [("HAT".into(), 4, 2), ("MUG".into(), 8, 2)]);
    let kept = confirmation(&apply_one(&*store, confirmed("o-1", "o-1", None)).await);
    let lines: Vec<_> = kept.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
    assert_eq!(lines, [("HAT", 1), ("MUG", 2)]);
    assert_eq!(kept.returned, []);
    assert_eq!(word(&apply_one(&*store, confirmed("o-1", "o-1", None)).await), "repeated");
    for late in [confirmed("c-2", "o-1", None), released("o-1"), extended("e-1", "o-1", 60)] {
        assert_eq!(reasons(&apply_one(&*store, late).await), [Reason::AlreadyConfirmed]);
    }
    assert_eq!(word(&apply_one(&*store, expired("o-1")).await), "not due");
    assert_eq!(levels(&*store).await, [("HAT".into(), 4, 2), ("MUG".into(), 8, 2)]);
    // Like any other order's, its pieces can come back.
    assert_eq!(
        back(&apply_one(&*store, returned("r-1", "o-1", &[("MUG", 1)])).await),
        [("MUG".into(), 1, 9)]
    );
    expect_no_findings(&*store).await;
}

async fn a_hold_confirmed_in_part_gives_back_the_rest(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let stock = ["MUG", "HAT", "PEN"].map(|name| set(&format!("a-{name}"), name, 10, None));
    store.apply(&batch(stock.into())).await.unwrap();
    apply_one(&*store, hold("o-1", LONG, &[("MUG", 5), ("HAT", 2), ("PEN", 3)])).await;
    apply_one(&*store, returned("r-1", "o-1", &[("PEN", 1)])).await;
    let beyond = confirmed("c-1", "o-1", Some(&[("MUG", 6), ("HAT", 1), ("PEN", 3)]));
    assert_eq!(
        reasons(&apply_one(&*store, beyond).await),
        [
            Reason::LimitExceeded { sku: sku("MUG"), location: None, requested: 6, limit: 5 },
            Reason::LimitExceeded { sku: sku("PEN"), location: None, requested: 3, limit: 2 },
        ]
    );
    let part = confirmed("c-2", "o-1", Some(&[("MUG", 3), ("PEN", 2)]));
    let outcome = apply_one(&*store, part).await;
    let lines: Vec<_> =
        confirmation(&outcome).lines.iter().map(|line| (line.sku.to_string(), line.quantity)).collect();
    assert_eq!(lines, [("MUG".into(), 3), ("PEN".into(), 2)]);
    assert_eq!(back(&outcome), [("HAT".into(), 2, 10), ("MUG".into(), 2, 7)]);
    assert_eq!(levels(&*store).await, [("HAT".into(), 10, 3), ("MUG".into(), 7, 3), ("PEN".into(), 8, 3)]);
    // Of what it kept, and of no more, pieces can come back.
    let rest = apply_one(&*store, returned("r-2", "o-1", &[("HAT", 1)])).await;
    assert_eq!(
        reasons(&rest),
        [Reason::ReturnExceedsDeducted { sku: sku("HAT"), location: None, requested: 1, left: 0 }]
    );
    assert_eq!(
        back(&apply_one(&*store, cancelled("o-1")).await),
        [("MUG".into(), 3, 10), ("PEN".into(), 2, 10)]
    );
    expect_no_findings(&*store).await;
}

async fn a_released_hold_gives_back_everything_and_cannot_be_confirmed(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    apply_one(&*store, hold("o-1", LONG, &[("MUG", 2)])).await;
    assert_eq!(back(&apply_one(&*store, released("o-1")).await), [("MUG".into(), 2, 10)]);
    assert_eq!(word(&apply_one(&*store, released("o-1")).await), "repeated");
    for late in
        [confirmed("o-1", "o-1", None), extended("e-1", "o-1", 60), returned("r-1", "o-1", &[("MUG", 1)])]
    {
        assert_eq!(reasons(&apply_one(&*store, late).await), [Reason::AlreadyCancelled]);
    }
    assert_eq!(word(&apply_one(&*store, expired("o-1")).await), "not due");
    assert_eq!(back(&apply_one(&*store, cancelled("o-1")).await), []);
    assert_eq!(levels(&*store).await, [("MUG".into(), 10, 3)]);
    expect_no_findings(&*store).await;
}

async fn a_cancelled_hold_is_open_no_more(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    apply_one(&*store, hold("o-1", LONG, &[("MUG", 2)])).await;
    apply_one(&*store, returned("r-1", "o-1", &[("MUG", 1)])).await;
    assert_eq!(back(&apply_one(&*store, cancelled("o-1")).await), [("MUG".into(), 1, 10)]);
    for late in [confirmed("o-1", "o-1", None), released("o-1"), extended("e-1", "o-1", 60)] {
        assert_eq!(reasons(&apply_one(&*store, late).await), [Reason::AlreadyCancelled]);
    }
    assert_eq!(word(&apply_one(&*store, expired("o-1")).await), "not due");
    expect_no_findings(&*store).await;
}

async fn an_extended_hold_ends_later_by_as_much(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    let held = apply_one(&*store, hold("o-1", LONG, &[("MUG", 2)])).await;
    let mut ends = vec![humantime::parse_rfc3339(&end(&held)).unwrap()];
    for (id, by) in [("e-1", 60), ("e-2", 3_600)] {
        let outcome = apply_one(&*store, extended(id, "o-1", by)).await;
        assert_eq!(word(&outcome), "accepted");
        let published: Extended = serde_json::from_str(&published(&outcome).detail).unwrap();
        assert_eq!(published.order_id.as_str(), "o-1");
        ends.push(humantime::parse_rfc3339(&published.expires_at).unwrap());
    }
    assert_eq!(word(&apply_one(&*store, extended("e-1", "o-1", 60)).await), "repeated");
    assert_eq!(word(&apply_one(&*store, extended("e-1", "o-1", 61)).await), "conflict");
    let later: Vec<_> = ends.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap()).collect();
    assert_eq!(later, [Duration::from_secs(60), Duration::from_secs(3_600)]);
    assert_eq!(levels(&*store).await, [("MUG".into(), 8, 2)]);
    expect_no_findings(&*store).await;
}

async fn what_follows_an_order_that_is_no_hold_is_rejected(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 2, None)).await;
    apply_one(&*store, order("plain", &[("MUG", 1)])).await;
    apply_one(&*store, hold("short", LONG, &[("MUG", 2)])).await;
    apply_one(&*store, cancelled("early")).await;
    for (order_id, reason) in [
        ("plain", Reason::AlreadyConfirmed),
        ("short", Reason::OrderNotFound),
        ("early", Reason::AlreadyCancelled),
        ("none", Reason::OrderNotFound),
    ] {
        for request in
            [confirmed(order_id, order_id, None), released(order_id), extended(order_id, order_id, 60)]
        {
            let kind = request.command.key.kind;
            assert_eq!(
                reasons(&apply_one(&*store, request).await),
                std::slice::from_ref(&reason),
                "{kind:?} {order_id}"
            );
        }
        assert_eq!(word(&apply_one(&*store, expired(order_id)).await), "not due", "{order_id}");
    }
    assert_eq!(levels(&*store).await, [("MUG".into(), 1, 2)]);
    expect_no_findings(&*store).await;
}

async fn a_hold_that_is_not_due_does_not_end_then_or_when_read_again(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    apply_one(&*store, hold("o-1", LONG, &[("MUG", 2)])).await;
    let asked = records(0, 0, vec![expired("o-1"), expired("o-unknown")]);
    // By the instance that did it, and by one that starts after a crash: below the position now.
    for store in [store.clone(), store.clone(), database.open().await] {
        let applied = store.apply(&asked).await.unwrap();
        assert_eq!(applied.outcomes, [Outcome::NotDue, Outcome::NotDue]);
        assert_eq!(positions(&*store, &[0]).await, [Some(2)]);
    }
    assert_eq!(store.take_due_holds(10, Duration::ZERO).await.unwrap(), []);
    assert_eq!(levels(&*store).await, [("MUG".into(), 8, 2)]);
    expect_no_findings(&*store).await;
}

async fn an_expired_hold_gives_back_once_however_many_instances_ask(database: Arc<TestDatabase>) {
    let (one, two) = (database.ledger().await, database.open().await);
    one.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 5, None)])).await.unwrap();
    let held = records(0, 0, vec![hold("o-1", 1, &[("MUG", 2), ("HAT", 1)])]);
    let end = end(&one.apply(&held).await.unwrap().outcomes[0]);
    let due = due_holds(&*one, 1, Duration::from_secs(300)).await;
    assert_eq!(due, [DueHold { order_id: Id::new("o-1").unwrap(), at: Some(partition(0)) }]);
    let mut tasks = Vec::new();
    for number in 1..=8 {
        let store = if number % 2 == 0 { one.clone() } else { two.clone() };
        tasks.push(tokio::spawn(async move {
            store.apply(&records(number, 0, vec![expired("o-1")])).await.unwrap().outcomes
        }));
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await.unwrap());
    }
    let decided: Vec<_> = outcomes.iter().filter(|outcome| word(outcome) != "repeated").collect();
    assert_eq!(decided.len(), 1, "{outcomes:?}");
    assert_eq!(back(decided[0]), [("HAT".into(), 1, 5), ("MUG".into(), 2, 10)]);
    let published_of: GivenBack = serde_json::from_str(&published(decided[0]).detail).unwrap();
    assert_eq!(published_of.expired_at.as_ref(), Some(&end));
    assert_eq!(levels(&*one).await, [("HAT".into(), 5, 3), ("MUG".into(), 10, 3)]);
    for late in [confirmed("o-1", "o-1", None), released("o-1"), extended("e-1", "o-1", 60)] {
        assert_eq!(reasons(&apply_one(&*two, late).await), [Reason::HoldExpired { expired_at: end.clone() }]);
    }
    assert_eq!(back(&apply_one(&*two, cancelled("o-1")).await), []);
    assert_eq!(two.take_due_holds(10, Duration::ZERO).await.unwrap(), []);
    expect_no_findings(&*one).await;
}

async fn a_hold_that_is_over_is_final_by_nobody_even_before_it_is_given_back(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    let held = apply_one(&*store, hold("o-1", 1, &[("MUG", 2)])).await;
    due_holds(&*store, 1, Duration::from_secs(300)).await;
    for late in [confirmed("o-1", "o-1", None), released("o-1"), extended("e-1", "o-1", 60)] {
        assert_eq!(
            reasons(&apply_one(&*store, late).await),
            [Reason::HoldExpired { expired_at: end(&held) }]
        );
    }
    assert_eq!(levels(&*store).await, [("MUG".into(), 8, 2)]);
    assert_eq!(back(&apply_one(&*store, expired("o-1")).await), [("MUG".into(), 2, 10)]);
    expect_no_findings(&*store).await;
}

async fn holds_that_are_overdue_are_counted_and_the_oldest_is_named(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    assert_eq!(store.overdue_holds(Duration::ZERO).await.unwrap(), None);
    let first = apply_one(&*store, hold("o-1", 1, &[("MUG", 1)])).await;
    let later = vec![hold("o-2", 1, &[("MUG", 1)]), hold("o-3", LONG, &[("MUG", 1)])];
    store.apply(&records(0, 0, later)).await.unwrap();
    // Asked for or not.
    due_holds(&*store, 2, Duration::from_secs(300)).await;
    let overdue = store.overdue_holds(Duration::ZERO).await.unwrap().expect("two are");
    assert_eq!((overdue.count, overdue.oldest.as_str()), (2, "o-1"));
    assert_eq!(overdue.since.rfc3339(), end(&first));
    assert_eq!(store.overdue_holds(Duration::from_secs(3_600)).await.unwrap(), None);
}

async fn a_due_hold_is_given_to_one_of_two_callers(database: Arc<TestDatabase>) {
    const HOLDS: usize = 40;
    let (one, two) = (database.ledger().await, database.open().await);
    apply_one(&*one, set("a-1", "MUG", 1_000, None)).await;
    let held = |first: usize, count: usize| {
        (first..first + count).map(|n| hold(&format!("o-{n:02}"), 1, &[("MUG", 1)])).collect::<Vec<Request>>()
    };
    one.apply(&records(3, 0, held(0, HOLDS / 2))).await.unwrap();
    one.apply(&batch(held(HOLDS / 2, HOLDS / 2))).await.unwrap();
    // Not over, and so given to nobody.
    apply_one(&*one, hold("o-long", LONG, &[("MUG", 1)])).await;
    let begun = Instant::now();
    let (mut due, lease) = (Vec::new(), Duration::from_secs(300));
    while due.len() < HOLDS {
        assert!(begun.elapsed() < WAIT_LIMIT, "{due:?}");
        let (mine, other) = tokio::join!(one.take_due_holds(3, lease), two.take_due_holds(3, lease));
        for taken in [mine.unwrap(), other.unwrap()] {
            assert!(taken.len() <= 3);
            due.extend(taken);
        }
    }
    let orders: BTreeSet<&str> = due.iter().map(|hold| hold.order_id.as_str()).collect();
    assert_eq!((orders.len(), due.len()), (HOLDS, HOLDS), "one was given twice: {due:?}");
    let by_record: HashSet<String> = (0..HOLDS / 2).map(|n| format!("o-{n:02}")).collect();
    for hold in &due {
        let at = by_record.contains(hold.order_id.as_str()).then(|| partition(3));
        assert_eq!(hold.at, at, "{}", hold.order_id);
    }
    assert_eq!(one.take_due_holds(10, lease).await.unwrap(), []);
}

async fn a_due_hold_is_given_again_after_its_lease(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    apply_one(&*store, set("a-1", "MUG", 10, None)).await;
    apply_one(&*store, hold("o-1", 1, &[("MUG", 1)])).await;
    let short = Duration::from_millis(200);
    let first = due_holds(&*store, 1, short).await;
    // Who was given it went away; then it is given to who asks next, again and again until it is decided.
    assert_eq!(due_holds(&*store, 1, short).await, first);
    assert_eq!(due_holds(&*store, 1, Duration::from_secs(300)).await, first);
    assert_eq!(store.take_due_holds(1, short).await.unwrap(), []);
    assert_eq!(word(&apply_one(&*store, expired("o-1")).await), "accepted");
    assert_eq!(store.take_due_holds(1, short).await.unwrap(), []);
    expect_no_findings(&*store).await;
}

/// The same commands under other names: their outcomes, with the names taken out.
fn republished(outcomes: &[Outcome], name: &str) -> Vec<String> {
    let line = |outcome: &Outcome| match outcome {
        Outcome::Decided(decision) => {
            format!("{} {}", word(outcome), super::model::timeless(&decision.detail))
        }
        other => word(other).to_owned(),
    };
    outcomes.iter().map(|outcome| line(outcome).replace(name, "")).collect()
}

/// Applies commands in one batch, and under other names one command at a time: with the same outcomes, these.
async fn expect_as_one_at_a_time(
    database: &TestDatabase,
    commands: impl Fn(&str) -> Vec<Request>,
    expected: &[&str],
) {
    let store = database.ledger().await;
    let whole = store.apply(&records(0, 0, commands("whole-"))).await.unwrap().outcomes;
    assert_eq!(words(&whole), expected);
    let mut singly = Vec::new();
    for (offset, request) in (0..).zip(commands("singly-")) {
        singly.extend(store.apply(&records(1, offset, vec![request])).await.unwrap().outcomes);
    }
    assert_eq!(republished(&whole, "whole-"), republished(&singly, "singly-"));
    let levels = levels(&*store).await;
    let under = |name: &str| -> Vec<(String, i64, i64)> {
        let mine = levels.iter().filter(|(item, ..)| item.starts_with(name));
        mine.map(|(item, pieces, version)| (item.replace(name, ""), *pieces, *version)).collect()
    };
    assert_eq!(under("whole-"), under("singly-"));
    expect_no_findings(&*store).await;
}

async fn an_order_and_its_cancellation_in_one_batch_are_decided_as_one_at_a_time(
    database: Arc<TestDatabase>,
) {
    let commands = |name: &str| {
        let [mug, hat, one, two, three, back] =
            ["MUG", "HAT", "o-1", "o-2", "o-3", "r-1"].map(|text| format!("{name}{text}"));
        vec![
            set(&format!("{name}a-1"), &mug, 5, None),
            set(&format!("{name}a-2"), &hat, 5, None),
            order(&one, &[(&mug, 4), (&hat, 1)]),
            order(&two, &[(&mug, 3)]),
            returned(&back, &one, &[(&mug, 1)]),
            cancelled(&one),
            // What was given back can be taken at once; what was rejected stays so.
            order(&two, &[(&mug, 3)]),
            order(&three, &[(&mug, 5)]),
            order(&one, &[(&mug, 4), (&hat, 1)]),
            cancelled(&one),
            cancelled(&format!("{name}o-4")),
            order(&format!("{name}o-4"), &[(&hat, 1)]),
        ]
    };
    let expected = [
        "accepted", "accepted", "accepted", "rejected", "accepted", "accepted", "repeated", "accepted",
        "repeated", "repeated", "accepted", "rejected",
    ];
    expect_as_one_at_a_time(&database, commands, &expected).await;
}

async fn a_hold_and_its_end_in_one_batch_are_decided_as_one_at_a_time(database: Arc<TestDatabase>) {
    let commands = |name: &str| {
        let [mug, one, two, three] = ["MUG", "h-1", "h-2", "h-3"].map(|text| format!("{name}{text}"));
        vec![
            set(&format!("{name}a-1"), &mug, 9, None),
            hold(&one, LONG, &[(&mug, 4)]),
            hold(&two, LONG, &[(&mug, 4)]),
            hold(&three, LONG, &[(&mug, 1)]),
            expired(&one),
            extended(&format!("{name}e-1"), &one, 60),
            confirmed(&one, &one, Some(&[(&mug, 3)])),
            expired(&one),
            confirmed(&format!("{name}c-2"), &one, None),
            released(&two),
            confirmed(&two, &two, None),
            expired(&two),
            order(&format!("{name}o-1"), &[(&mug, 5)]),
        ]
    };
    let expected = [
        "accepted", "accepted", "accepted", "accepted", "not due", "accepted", "accepted", "not due",
        "rejected", "accepted", "rejected", "not due", "accepted",
    ];
    expect_as_one_at_a_time(&database, commands, &expected).await;
}

async fn a_restock_and_the_order_that_waited_in_one_batch_are_decided_as_one_at_a_time(
    database: Arc<TestDatabase>,
) {
    let commands = |name: &str| {
        let [mug, new] = ["MUG", "NEW"].map(|text| format!("{name}{text}"));
        let id = |text: &str| format!("{name}{text}");
        vec![
            set(&id("a-1"), &mug, 0, None),
            order(&id("o-1"), &[(&mug, 2)]),
            order(&id("o-2"), &[(&new, 1)]),
            received(&id("a-2"), &mug, 2),
            received(&id("a-3"), &new, 1),
            order(&id("o-3"), &[(&mug, 2), (&new, 1)]),
            order(&id("o-4"), &[(&mug, 1)]),
        ]
    };
    let expected = ["accepted", "rejected", "rejected", "accepted", "accepted", "accepted", "rejected"];
    expect_as_one_at_a_time(&database, commands, &expected).await;
}

async fn eight_tasks_on_the_same_orders_give_back_no_more_than_was_taken(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let names = ["MUG", "HAT", "PEN", "CUP", "CAP"];
    let stock = names.map(|name| set(&format!("a-{name}"), name, 1_000_000, None));
    store.apply(&batch(stock.into())).await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..8_i32 {
        // Half of the tasks share one instance, half another: two processes of four workers.
        let store = if task % 2 == 0 { store.clone() } else { database.open().await };
        tasks.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(u64::try_from(task).expect("positive"));
            for round in 0..20 {
                let requests: Vec<Request> = (0..10)
                    .map(|n| {
                        // The orders of this round and the one before: of each command some task is the first.
                        let number: usize = random.random_range(round * 10..(round + 2) * 10);
                        let id = format!("o-{number}");
                        let lines = [(names[number % 5], 4), (names[(number + 2) % 5], 3)];
                        match random.random_range(0..8) {
                            0..3 if number.is_multiple_of(2) => order(&id, &lines),
                            0..3 => hold(&id, LONG, &lines),
                            3 => cancelled(&id),
                            4 => confirmed(&id, &id, Some(&lines[..1])),
                            5 => released(&id),
                            _ => returned(&format!("r-{task}-{round}-{n}"), &id, &[(lines[0].0, 1)]),
                        }
                    })
                    .collect();
                let offset = i64::try_from(round * 10).expect("few");
                store.apply(&records(task, offset, requests)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let left = levels(&*store).await;
    assert!(left.iter().all(|(_, available, _)| *available <= 1_000_000), "{left:?}");
    // Each order's returns against what it took are the audit's to compare.
    expect_no_findings(&*store).await;
}

async fn a_hold_asked_for_by_a_clock_that_was_ahead_is_asked_for_again(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 9, None), hold("o-1", 60, &[("MUG", 2)])])).await.unwrap();
    let now = match *database {
        TestDatabase::Postgres { .. } | TestDatabase::Citus { .. } => {
            "expires_at = now(), asked_until = now() + interval '1 year'"
        }
        TestDatabase::Sqlite { .. } | TestDatabase::Memory(_) => {
            "expires_at = 0, asked_until = 4102444800000000"
        }
    };
    database.execute(&format!("UPDATE holds SET {now}")).await;
    let lease = Duration::from_secs(30);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap().len(), 1);
    assert_eq!(store.take_due_holds(9, lease).await.unwrap(), [], "it is somebody's for as long as usual");
    store.close().await;
}
