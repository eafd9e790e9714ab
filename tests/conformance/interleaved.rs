//! Two instances whose statements come in every order.
//!
//! A batch has four parts: it begins; its levels are locked; it reads its positions and is given its place in the ledger's
//! order; it is written and committed. Two batches' parts come in 70 orders; each is tried, on items of its own, and must
//! end as if the batches had come one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use stock_verifier::ledger::{Item, Level, Request};
use stock_verifier::replay::Progress;
use stock_verifier::replay::decision_verifier::ledger_alone;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{Applied, CommandBatch, LedgerAdmin as _, LedgerWriter as _, Store, StoreError};
use tokio::task::JoinHandle;

use super::expect_no_findings;
use super::model::{Model, comparable};
use crate::support::turns::Turns;
use crate::support::{TestDatabase, batch, item, order, received, records, returned, set, sku};

/// Longest wait for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// Statements of each part, but of the last, which has all that are left.
type Parts = [usize; 3];
/// Begin; lock; positions, and the place.
const SELLING: Parts = [1, 1, 2];
/// The same, but levels are locked, repaired, and locked again.
const REPAIRING: Parts = [1, 3, 2];
/// The same, but where an item has no level the items' gate is passed, and the levels are looked for again.
const MEETING: Parts = [1, 1, 4];

/// The same, but the order is looked up before; and there is nothing to lock where it is not accepted.
const FOLLOWING: Parts = [2, 1, 1];

/// An instance whose statements take turns.
struct Instance {
    store: Arc<PostgresStore>,
    turns: Turns,
}

type Applying = JoinHandle<Result<Applied, StoreError>>;

/// An instance's batch under way.
struct Player<'i> {
    instance: &'i Instance,
    parts: Parts,
    /// Which part comes next.
    next: usize,
    applying: Applying,
}

impl Instance {
    async fn on(database: &TestDatabase) -> Self {
        let turns = Turns::before(&database.url());
        let one = Connections { batches: 1, readers: 1, others: 1 };
        let store = PostgresStore::open(&turns.url(&database.url()), one).await.expect("opens");
        // What is asked once only comes before the turns.
        store.apply(&CommandBatch::default()).await.expect("applied");
        Self { store: Arc::new(store), turns }
    }

    /// Applies a batch, whose statements wait to be allowed.
    fn play(&self, parts: Parts, applying: impl FnOnce(Arc<PostgresStore>) -> Applying) -> Player<'_> {
        self.turns.gate();
        Player { instance: self, parts, next: 0, applying: applying(Arc::clone(&self.store)) }
    }
}

impl Player<'_> {
    fn is_under_way(&self) -> bool {
        !self.applying.is_finished() && !self.instance.turns.is_waiting()
    }
}

/// Waits until nothing moves any more: each batch is done, waits to be allowed, or waits for a lock.
async fn settle(looker: &mut PgConnection, players: &[Player<'_>; 2]) {
    let begun = Instant::now();
    loop {
        let under_way = players.iter().filter(|player| player.is_under_way()).count();
        if under_way == 0 {
            return;
        }
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *looker)
        .await
        .expect("activity");
        // Looked at once more: it may have gone on before that was counted.
        let still = players.iter().filter(|player| player.is_under_way()).count();
        if still == under_way && usize::try_from(waiting) == Ok(under_way) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{under_way} are under way, {waiting} wait for locks");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets a batch do its next part, as far as it comes.
async fn do_part(looker: &mut PgConnection, players: &mut [Player<'_>; 2], whose: usize) {
    let statements = players[whose].parts.get(players[whose].next).copied().unwrap_or(usize::MAX);
    players[whose].next += 1;
    for _ in 0..statements {
        settle(looker, players).await;
        if !players[whose].instance.turns.is_waiting() {
            return;
        }
        players[whose].instance.turns.allow_one();
    }
    settle(looker, players).await;
}

/// Plays both to their ends in this order of their parts, and says what they answer.
async fn play(looker: &mut PgConnection, mut players: [Player<'_>; 2], order: &[usize]) -> [Applied; 2] {
    for whose in order {
        do_part(looker, &mut players, *whose).await;
    }
    // Where one waited for the other it has parts left.
    let begun = Instant::now();
    while players.iter().any(|player| !player.applying.is_finished()) {
        for whose in [0, 1] {
            do_part(looker, &mut players, whose).await;
        }
        assert!(begun.elapsed() < SOON, "they never end");
    }
    let [one, other] = players;
    one.instance.turns.open();
    other.instance.turns.open();
    let applied = [one.applying.await, other.applying.await];
    applied.map(|applied| applied.expect("no panic").expect("applied"))
}

/// Every order of four parts each.
fn orders() -> Vec<Vec<usize>> {
    (0_u32..256)
        .filter(|of_other| of_other.count_ones() == 4)
        .map(|of_other| (0..8).map(|at| usize::from(of_other & (1 << at) != 0)).collect())
        .collect()
}

/// What the other instance does about an item.
#[derive(Clone, Copy, PartialEq)]
enum Other {
    /// It brings pieces.
    Restocks,
    /// It does so, and repairs the level, which is as it should be: it is written, and stays what it was.
    Repairs,
    /// It brings the first pieces there are.
    Begins,
    /// It sells too: there is enough for one of them.
    Sells,
    /// It takes back what the first sells, from another partition.
    TakesBack,
}

/// One order of parts, on items of its own.
struct Round {
    mug: String,
    hat: String,
    number: i64,
}

/// What a round leaves: what each instance answers, and the levels.
#[derive(Debug, PartialEq)]
struct Left {
    answers: [Vec<String>; 2],
    levels: Vec<(Item, Level)>,
}

impl Round {
    fn of(number: usize) -> Self {
        let mug = format!("MUG-{number}");
        Self { mug, hat: format!("HAT-{number}"), number: i64::try_from(number).expect("few") }
    }

    fn records(&self, partition: i32, requests: Vec<Request>) -> CommandBatch {
        let each = i64::try_from(requests.len()).expect("few");
        records(partition, self.number * each, requests)
    }

    /// What is there before: no mugs where the other brings the first.
    fn stock(&self, other: Other) -> CommandBatch {
        let pieces = |name: &str| set(&format!("stock-{name}"), name, 3, None);
        let mut stock = vec![pieces(&self.hat)];
        if other != Other::Begins {
            stock.push(pieces(&self.mug));
        }
        batch(stock)
    }

    /// What the first sells: more mugs than there are unless they are restocked before, some of them, and a hat.
    fn sales(&self) -> CommandBatch {
        let id = |what: &str| format!("{what}-{}", self.number);
        self.records(
            0,
            vec![
                order(&id("o"), &[(&self.mug, 5)]),
                order(&id("p"), &[(&self.mug, 2)]),
                order(&id("q"), &[(&self.hat, 1)]),
            ],
        )
    }

    /// What the other does.
    fn others(&self, other: Other) -> CommandBatch {
        let id = |what: &str| format!("{what}-{}", self.number);
        self.records(
            1,
            match other {
                Other::Restocks | Other::Repairs | Other::Begins => vec![received(&id("a"), &self.mug, 10)],
                Other::TakesBack => vec![returned(&id("b"), &id("q"), &[(&self.hat, 1)])],
                Other::Sells => {
                    vec![order(&id("r"), &[(&self.mug, 2)]), order(&id("s"), &[(&self.hat, 100)])]
                }
            },
        )
    }

    /// What both would leave one after the other.
    fn one_after_the_other(&self, other: Other, batches: [&CommandBatch; 2], sells_first: bool) -> Left {
        let [sales, others] = batches;
        let mut model = Model::default();
        model.apply(&self.stock(other));
        let mut apply =
            |batch: &CommandBatch| -> Vec<String> { model.apply(batch).iter().map(comparable).collect() };
        let answers = if sells_first {
            [apply(sales), apply(others)]
        } else {
            let others = apply(others);
            [apply(sales), others]
        };
        let level = |name: &str| (item(name), model.levels[&item(name)]);
        Left { answers, levels: vec![level(&self.hat), level(&self.mug)] }
    }

    /// What they left.
    async fn left(&self, store: &dyn Store, applied: &[Applied; 2]) -> Left {
        let answers = applied.each_ref().map(|applied| applied.outcomes.iter().map(comparable).collect());
        let found = store.levels(Some(&[sku(&self.hat), sku(&self.mug)])).await.expect("levels");
        Left { answers, levels: found.into_iter().map(|level| (level.item, level.level)).collect() }
    }
}

async fn in_every_order(other: Other) {
    let database = TestDatabase::postgres_migrated().await;
    let plain = database.ledger().await;
    let one = Instance::on(&database).await;
    let two = Instance::on(&database).await;
    let mut looker = PgConnection::connect(&database.url()).await.unwrap();
    let (mut sold_first, mut sold_last) = (0, 0);
    for (number, order_of_parts) in orders().iter().enumerate() {
        let round = Round::of(number);
        plain.apply(&round.stock(other)).await.unwrap();
        let (sales, others) = (round.sales(), round.others(other));
        let [first, last] =
            [true, false].map(|first| round.one_after_the_other(other, [&sales, &others], first));
        assert_ne!(first, last, "too tame");
        let parts = match other {
            Other::Restocks | Other::Sells => SELLING,
            Other::TakesBack => FOLLOWING,
            Other::Repairs => REPAIRING,
            Other::Begins => MEETING,
        };
        let selling = if other == Other::Begins { MEETING } else { SELLING };
        let players = [
            one.play(selling, |store| tokio::spawn(async move { store.apply(&sales).await })),
            two.play(parts, |store| {
                tokio::spawn(async move {
                    if other == Other::Repairs {
                        store.repair(&others).await
                    } else {
                        store.apply(&others).await
                    }
                })
            }),
        ];
        let applied = play(&mut looker, players, order_of_parts).await;
        let left = round.left(&*plain, &applied).await;
        if left == first {
            sold_first += 1;
        } else {
            assert_eq!(left, last, "in the order {order_of_parts:?}, which is not {first:?} either");
            sold_last += 1;
        }
    }
    assert!(sold_first > 10 && sold_last > 10, "too tame: {sold_first} and {sold_last}");
    expect_no_findings(&*plain).await;
    // Each rejection was justified, and each acceptance possible, at its place in the ledger's order.
    let again = ledger_alone(&*plain, None, &Progress::default()).await.expect("decided again");
    assert_eq!(again.findings, []);
    // What sessions counted is known once they are over.
    one.store.close().await;
    two.store.close().await;
    plain.close().await;
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&mut looker)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
    drop(looker);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sells_while_one_restocks_in_every_order() {
    in_every_order(Other::Restocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sells_while_one_repairs_in_every_order() {
    in_every_order(Other::Repairs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sells_while_one_brings_the_first_pieces_in_every_order() {
    in_every_order(Other::Begins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sell_what_is_enough_for_one_in_every_order() {
    in_every_order(Other::Sells).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sells_while_one_takes_it_back_from_another_partition_in_every_order() {
    in_every_order(Other::TakesBack).await;
}
