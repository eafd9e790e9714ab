//! What was written reads back as it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stock_verifier::ledger::{
    CommandKey, CommandKind, Decision, Hold, Id, Item, NextOffset, OrderStock, Seq, TopicId, TopicPartition,
};
use stock_verifier::store::{
    Incarnation, ItemLevel, Position, Snapshot, Store, StoreError, StoredMovement, StoredOrder,
};

use super::{expect_no_findings, published};
use crate::on_every_store;
use crate::support::{
    TestDatabase, batch, cancelled, extended, hold, item, levels, order, partition, records, returned, set,
    sku, word, words,
};

on_every_store![
    odd_texts_come_back_as_they_went_in,
    levels_are_sorted_and_named_ones_are_found,
    the_ledger_reads_the_same_in_pages_of_any_size,
    a_snapshot_stays_what_it_was_in_every_part,
    a_decision_and_an_order_are_found_by_their_id,
];

/// All that a snapshot says.
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    decisions: Vec<Decision>,
    movements: Vec<StoredMovement>,
    levels: Vec<ItemLevel>,
    pub(super) lines: Vec<(Id, OrderStock)>,
    pub(super) holds: Vec<(Id, Hold)>,
    positions: HashMap<TopicPartition, NextOffset>,
    incarnations: Vec<Incarnation>,
    count: u64,
    last: Option<Seq>,
}

impl Contents {
    /// What there is now, read in pages of this size.
    pub(super) async fn of(store: &dyn Store, size: usize) -> Self {
        Self::read(&mut *store.snapshot().await.unwrap(), size).await
    }

    async fn read(snapshot: &mut dyn Snapshot, size: usize) -> Self {
        let decisions = all(size, async |last: Option<&Decision>| {
            snapshot.decisions_after(last.map_or(Seq::START, |last| last.seq), size).await
        });
        let decisions = decisions.await;
        let levels = all(size, async |last: Option<&ItemLevel>| {
            snapshot.levels_after(last.map(|last| &last.item), size).await
        });
        let levels = levels.await;
        let lines = all(size, async |last: Option<&(Id, OrderStock)>| {
            snapshot.order_lines_after(last.map(|(id, line)| (id, &line.item)), size).await
        });
        let lines = lines.await;
        let holds = all(size, async |last: Option<&(Id, Hold)>| {
            snapshot.holds_after(last.map(|(id, _)| id), size).await
        });
        let holds = holds.await;
        Self {
            movements: snapshot.movements_between(Seq::START, Seq::END).await.unwrap(),
            positions: snapshot.positions().await.unwrap(),
            incarnations: snapshot.incarnations().await.unwrap(),
            count: snapshot.count().await.unwrap(),
            last: snapshot.last_seq().await.unwrap(),
            decisions,
            levels,
            lines,
            holds,
        }
    }
}

/// Reads the next page after the last thing read, until there is none.
async fn all<T>(size: usize, mut next: impl AsyncFnMut(Option<&T>) -> Result<Vec<T>, StoreError>) -> Vec<T> {
    let mut found = Vec::new();
    loop {
        let page = next(found.last()).await.unwrap();
        assert!(page.len() <= size);
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

async fn odd_texts_come_back_as_they_went_in(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let odd = [
        "it's",
        "say \"hi\"",
        "back\\slash",
        "{}",
        "{a,b}",
        "[1]",
        "null",
        "NULL",
        "123",
        "1e5",
        "%s",
        "a,b",
        "Größe 42 / 红",
        "\u{1F9E2}",
        "e\u{301}",
        "é",
        " lead and trail ",
        "\u{2028}",
        "'; DROP TABLE levels; --",
        "\u{FFFD}",
        "\\N",
        "$1",
        "?1",
        "true",
        "MUG",
        "mug",
        "\u{10FFFF}",
    ];
    let stock = odd.iter().flat_map(|name| {
        let there = format!("PLACE@{name}");
        [set(&format!("set {name}"), name, 5, None), set(&format!("place {name}"), &there, 5, None)]
    });
    let stock = stock.collect();
    assert!(store.apply(&batch(stock)).await.unwrap().outcomes.iter().all(|o| word(o) == "accepted"));
    let orders = records(
        0,
        0,
        odd.iter().map(|name| order(name, &[(name, 2), ("nothing \"like\" it\\", 1)])).collect(),
    );
    let rejected = store.apply(&orders).await.unwrap();
    assert!(rejected.outcomes.iter().all(|o| word(o) == "rejected"));
    let takes = odd.iter().map(|name| order(&format!("take {name}"), &[(name, 2)])).collect();
    let applied = store.apply(&records(0, 27, takes)).await.unwrap();
    for (name, outcome) in odd.iter().zip(&applied.outcomes) {
        let lines = published(outcome).accepted_lines().unwrap();
        assert_eq!((lines[0].sku.as_str(), lines[0].quantity, lines[0].balance), (*name, 2, 3));
    }
    let again = store.apply(&orders).await.unwrap();
    for (first, again) in rejected.outcomes.iter().zip(&again.outcomes) {
        assert_eq!(published(first), published(again));
    }
    let found: HashSet<String> = levels(&*store).await.into_iter().map(|(name, ..)| name).collect();
    let meant = odd.iter().flat_map(|name| [name.to_string(), format!("PLACE@{name}")]);
    let meant = meant.map(|name| item(&name).to_string());
    assert_eq!(found, meant.collect());
    expect_no_findings(&*store).await;
}

async fn levels_are_sorted_and_named_ones_are_found(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let names = ["b", "a", "Z", "é", "aa", "10", "9"];
    store
        .apply(&batch(names.iter().map(|name| set(&format!("a-{name}"), name, 1, None)).collect()))
        .await
        .unwrap();
    let all: Vec<_> = levels(&*store).await.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(all, ["10", "9", "Z", "a", "aa", "b", "é"]);
    let some = store.levels(Some(&[sku("b"), sku("nothing"), sku("Z"), sku("b")])).await.unwrap();
    assert_eq!(some.iter().map(|level| level.item.to_string()).collect::<Vec<_>>(), ["Z", "b"]);
    assert!(store.levels(Some(&[])).await.unwrap().is_empty());
}

async fn the_ledger_reads_the_same_in_pages_of_any_size(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let mut empty = store.snapshot().await.unwrap();
    assert_eq!(empty.decisions_after(Seq::START, 10).await.unwrap(), []);
    let stock = batch(vec![
        set("a-1", "MUG", 40, None),
        set("a-2", "PEN@PARIS", 100, None),
        set("a-3", "PEN", 100, None),
    ]);
    let mut decided = store.apply(&stock).await.unwrap().outcomes;
    // Batches that decide nothing leave wide gaps in the order; reading must find its way over them.
    for _ in 0..25 {
        store.apply(&stock).await.unwrap();
    }
    for n in 0..5 {
        let mut life: Vec<_> = (0..10)
            .map(|m| order(&format!("o-{n}-{m}"), &[("PEN", 2), ("MUG", 1 + m % 2), ("PEN@PARIS", 3)]))
            .collect();
        life.push(cancelled(&format!("o-{n}-0")));
        life.push(returned(&format!("r-{n}"), &format!("o-{n}-1"), &[("PEN", 1), ("PEN@PARIS", 2)]));
        life.push(hold(&format!("h-{n}"), 86_400, &[("PEN", 1)]));
        life.push(extended(&format!("e-{n}"), &format!("h-{n}"), 60));
        decided.extend(store.apply(&records(0, n * 14, life)).await.unwrap().outcomes);
    }
    let decided: Vec<Decision> = decided.iter().map(|outcome| Decision::clone(&published(outcome))).collect();
    // A snapshot sees what was there when it was taken.
    assert_eq!(empty.movements_between(Seq::START, Seq::END).await.unwrap(), []);
    assert_eq!(empty.decisions_after(Seq::START, 10).await.unwrap(), []);
    let mut snapshot = store.snapshot().await.unwrap();
    let movements = snapshot.movements_between(Seq::START, Seq::END).await.unwrap();
    assert!(movements.is_sorted_by(|a, b| (a.seq, &a.item) < (b.seq, &b.item)));
    for decision in decided.iter().filter(|decision| decision.accepted) {
        let moved: Vec<_> = movements.iter().filter(|movement| movement.seq == decision.seq).collect();
        let found: Vec<_> = moved
            .iter()
            .map(|movement| (movement.item.clone(), movement.quantity, movement.balance))
            .collect();
        assert_eq!(found, moved_lines(decision));
        for movement in moved {
            assert_eq!(movement.cause, decision.key);
            let record = decision.source.as_ref().map(|source| (source.at.partition, source.offset));
            assert_eq!(movement.record, record);
        }
    }
    for size in [1, 7, 1_000] {
        let (mut after, mut pages, mut moved) = (Seq::START, Vec::new(), Vec::new());
        loop {
            let page = snapshot.decisions_after(after, size).await.unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last().map(|decision| decision.seq) else { break };
            moved.extend(snapshot.movements_between(after, last).await.unwrap());
            pages.extend(page);
            after = last;
        }
        assert_eq!(pages, decided);
        assert_eq!(moved, movements);
    }
}

async fn a_snapshot_stays_what_it_was_in_every_part(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let of_topic = |id: &str, next: i64| {
        let topic_id = Some(TopicId::new(id));
        Position { next: NextOffset(next), published: None, topic_id }
    };
    store.set_position(&partition(0), None, &of_topic("first", 0)).await.unwrap();
    let life = vec![
        set("a-1", "MUG", 40, None),
        set("a-2", "PEN", 40, None),
        order("o-1", &[("MUG", 4), ("PEN", 4)]),
        order("o-2", &[("MUG", 4)]),
        hold("h-1", 86_400, &[("PEN", 1)]),
        hold("h-2", 86_400, &[("PEN", 1)]),
        returned("r-1", "o-1", &[("MUG", 1), ("PEN", 1)]),
        returned("r-2", "o-2", &[("MUG", 1)]),
    ];
    store.apply(&records(0, 0, life)).await.unwrap();
    let before = Contents::of(&*store, 100).await;
    assert_eq!((before.lines.len(), before.holds.len(), before.count), (3, 2, 8));
    assert_eq!(Contents::of(&*store, 1).await, before, "in pages of any size");

    let mut snapshot = store.snapshot().await.unwrap();
    // A database takes it with the first thing that is read.
    assert_eq!(snapshot.count().await.unwrap(), 8);
    let more = vec![cancelled("o-2"), extended("e-1", "h-1", 60), set("a-3", "CUP", 1, None)];
    store.apply(&records(0, 8, more)).await.unwrap();
    let was = store.all_positions().await.unwrap().remove(&partition(0));
    store.set_position(&partition(0), was.as_ref(), &of_topic("second", 0)).await.unwrap();
    assert_eq!(Contents::read(&mut *snapshot, 2).await, before);

    let after = Contents::of(&*store, 100).await;
    assert_eq!((after.count, after.levels.len(), after.incarnations.len()), (11, 3, 2));
    assert!(
        after.lines != before.lines && after.holds != before.holds && after.positions != before.positions
    );
    assert!(after.last > before.last);
}

/// What an accepted decision says it moved: item, pieces, and the level after.
fn moved_lines(decision: &Decision) -> Vec<(Item, i64, i64)> {
    let taken = |sign: i64| -> Vec<_> {
        let lines = decision.accepted_lines().unwrap().into_iter();
        lines
            .map(|line| (Item { sku: line.sku, location: line.location }, sign * line.quantity, line.balance))
            .collect()
    };
    match decision.key.kind {
        CommandKind::OrderCreated => taken(-1),
        CommandKind::Adjustment => taken(1),
        CommandKind::HoldExtended => Vec::new(),
        CommandKind::OrderCancelled
        | CommandKind::OrderReturned
        | CommandKind::OrderConfirmed
        | CommandKind::OrderReleased
        | CommandKind::HoldExpired => {
            let lines = decision.returned_lines().unwrap().into_iter();
            lines
                .map(|line| (Item { sku: line.sku, location: line.location }, line.quantity, line.balance))
                .collect()
        }
    }
}

async fn a_decision_and_an_order_are_found_by_their_id(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let stock = vec![set("o-1", "MUG", 10, None), set("a-2", "SHIRT", 5, None)];
    store.apply(&batch(stock)).await.unwrap();
    let life = vec![
        hold("o-1", 600, &[("SHIRT", 1), ("MUG", 4)]),
        order("o-2", &[("MUG", 7)]),
        order("o-3", &[("MUG", 1)]),
        // The same text may be the id of a return of another order, and that of an extension of this one.
        returned("o-1", "o-3", &[("MUG", 1)]),
        extended("x-1", "o-1", 60),
        cancelled("o-4"),
    ];
    let outcomes = store.apply(&records(0, 0, life)).await.unwrap().outcomes;
    assert_eq!(words(&outcomes), ["accepted", "rejected", "accepted", "accepted", "accepted", "accepted"]);

    for outcome in &outcomes {
        let decided = published(outcome);
        assert_eq!(store.decision(&decided.key).await.unwrap().as_ref(), Some(&*decided));
    }
    let other = CommandKey { id: Id::new("o-2").unwrap(), kind: CommandKind::OrderCancelled };
    assert_eq!(store.decision(&other).await.unwrap(), None, "an id is of its kind");

    let find = async |id: &str| store.order(&Id::new(id).unwrap()).await.unwrap();
    assert_eq!(find("nobody").await, None);
    assert_eq!(find("x-1").await, None, "the id of an extension is no order's");
    let held = find("o-1").await.expect("held");
    assert_eq!(held.decisions, [published(&outcomes[0])]);
    let state = held.state.expect("accepted");
    let lines: Vec<_> =
        state.lines.iter().map(|line| (line.item.to_string(), line.deducted, line.returned)).collect();
    assert_eq!(lines, [("MUG".into(), 4, 0), ("SHIRT".into(), 1, 0)]);
    let expires_at = held.decisions[0].decided_at.plus_seconds(660);
    assert_eq!(state.hold, Some(Hold { expires_at, at: Some(partition(0)) }));
    let moved = |order: &StoredOrder| -> Vec<_> {
        order
            .movements
            .iter()
            .map(|row| (row.item.to_string(), row.quantity, row.balance, row.version))
            .collect()
    };
    assert_eq!(
        find("o-1").await.as_ref().map(moved),
        Some(vec![("MUG".into(), -4, 6, 2), ("SHIRT".into(), -1, 4, 2)])
    );

    let rejected = find("o-2").await.expect("decided");
    assert_eq!((rejected.decisions.len(), rejected.state, rejected.movements.len()), (1, None, 0));
    let returned = find("o-3").await.expect("decided");
    assert_eq!(returned.decisions, [published(&outcomes[2])], "its return has an id of its own");
    assert_eq!(returned.state.expect("accepted").lines[0].returned, 1);
    let early = find("o-4").await.expect("cancelled before it came");
    assert_eq!((early.decisions, early.state), (vec![published(&outcomes[5])], None));

    let end = store.apply(&records(0, 6, vec![cancelled("o-1")])).await.unwrap().outcomes;
    let over = find("o-1").await.expect("decided");
    assert_eq!(over.decisions, [published(&outcomes[0]), published(&end[0])], "in the ledger's order");
    assert_eq!(
        moved(&over)[2..],
        [("MUG".into(), 4, 10, 5), ("SHIRT".into(), 1, 5, 3)],
        "and what came back"
    );
    let state = over.state.expect("accepted");
    assert!(state.hold.is_none() && state.lines.iter().all(|line| line.returned == line.deducted));
}
