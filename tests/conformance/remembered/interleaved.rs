//! Two instances whose statements come in every order.
//!
//! A batch has four parts: it begins; its levels are locked; it reads its positions and is given its place in the ledger's
//! order; it is written and committed. Two batches' parts come in 70 orders; each is tried, on an item of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection};
use stock_verifier::ledger::Request;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{Applied, CommandBatch, LedgerAdmin as _, LedgerWriter as _, StoreError};
use tokio::task::JoinHandle;

use super::super::server::waiting;
use super::{expect_justified, warmed};
use crate::support::turns::Turns;
use crate::support::{TestDatabase, batch, order, received, records, set, word};

/// Longest wait for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// Statements of each part, but of the last, which has all that are left.
type Parts = [usize; 3];
/// Begin; the guard; positions, and the place.
const REMEMBERING: Parts = [1, 1, 2];
/// Look whether an item begins, and begin; lock; positions, and the place.
const USUAL: Parts = [2, 1, 2];
/// The same, but levels are locked, repaired, and locked again.
const REPAIRING: Parts = [2, 3, 2];

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
    async fn on(database: &TestDatabase, remembers: bool) -> Self {
        let turns = Turns::before(&database.url());
        let one = Connections { batches: 1, readers: 1, others: 1 };
        let store = PostgresStore::open(&turns.url(&database.url()), one).await.expect("opens");
        store.remember_levels(remembers);
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
    /// It sells, on remembered levels too, and rejects for one of the items that the first sells.
    Remembers,
}

/// One order of parts, on items of its own.
struct Round {
    mug: String,
    hat: String,
    number: i64,
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

    /// What the first sells: more mugs than there are, and a hat.
    fn sales(&self) -> CommandBatch {
        let id = |what: &str| format!("{what}-{}", self.number);
        self.records(0, vec![order(&id("o"), &[(&self.mug, 5)]), order(&id("p"), &[(&self.hat, 1)])])
    }

    /// What the other does.
    fn others(&self, other: Other) -> CommandBatch {
        let id = |what: &str| format!("{what}-{}", self.number);
        self.records(
            1,
            match other {
                Other::Restocks | Other::Repairs => vec![received(&id("a"), &self.mug, 10)],
                Other::Remembers => {
                    vec![order(&id("q"), &[(&self.mug, 2)]), order(&id("r"), &[(&self.hat, 100)])]
                }
            },
        )
    }
}

async fn expect_no_deadlock(looker: &mut PgConnection) {
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(looker)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

async fn in_every_order(other: Other) {
    let database = TestDatabase::postgres().await;
    let plain = database.ledger().await;
    let one = Instance::on(&database, true).await;
    let two = Instance::on(&database, other == Other::Remembers).await;
    let mut looker = PgConnection::connect(&database.url()).await.unwrap();
    let (mut accepted, mut rejected, mut on_remembered, mut usual) = (0, 0, 0, 0);
    for (number, order_of_parts) in orders().iter().enumerate() {
        let round = Round::of(number);
        let stock = [(&round.mug, 3), (&round.hat, 3)]
            .map(|(name, pieces)| set(&format!("stock-{name}"), name, pieces, None));
        plain.apply(&batch(stock.to_vec())).await.unwrap();
        // Whatever the last order led to.
        one.store.remember_levels(true);
        two.store.remember_levels(other == Other::Remembers);
        let names = [round.mug.as_str(), round.hat.as_str()];
        warmed(&*one.store, &format!("warm-{number}"), &names).await;
        if other == Other::Remembers {
            warmed(&*two.store, &format!("warm-too-{number}"), &names).await;
        }
        let (sales, others) = (round.sales(), round.others(other));
        let parts = match other {
            Other::Restocks => USUAL,
            Other::Repairs => REPAIRING,
            Other::Remembers => REMEMBERING,
        };
        let players = [
            one.play(REMEMBERING, |store| tokio::spawn(async move { store.apply(&sales).await })),
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
        for applied in play(&mut looker, players, order_of_parts).await {
            on_remembered += usize::from(applied.on_remembered);
            usual += usize::from(!applied.on_remembered);
            for outcome in &applied.outcomes {
                match word(outcome) {
                    "accepted" => accepted += 1,
                    "rejected" => rejected += 1,
                    other => panic!("{other}"),
                }
            }
        }
    }
    assert!(accepted > 70 && rejected > 10, "too tame: {accepted} accepted, {rejected} rejected");
    assert!(on_remembered > 10 && usual > 10, "too tame: {on_remembered} on remembered levels, {usual} not");
    expect_justified(&*plain).await;
    // What sessions counted is known once they are over.
    one.store.close().await;
    two.store.close().await;
    plain.close().await;
    expect_no_deadlock(&mut looker).await;
    drop(looker);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_restocks_while_one_rejects_on_what_it_remembers_in_every_order() {
    in_every_order(Other::Restocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repairs_while_one_rejects_on_what_it_remembers_in_every_order() {
    in_every_order(Other::Repairs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_decide_on_what_they_remember_and_one_fails_its_guard_in_every_order() {
    in_every_order(Other::Remembers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_and_the_usual_way_lock_in_one_order() {
    let database = TestDatabase::remembering().await;
    let store = database.ledger().await;
    let usual = database.open().await;
    usual.remember_levels(false);
    usual.apply(&batch(vec![set("a-1", "MUG", 9, None), set("a-2", "HAT", 9, None)])).await.unwrap();
    warmed(&*store, "warm", &["MUG", "HAT"]).await;
    let mut looker = PgConnection::connect(&database.url()).await.unwrap();
    let mut holder = PgConnection::connect(&database.url()).await.unwrap();
    holder.execute("BEGIN; SELECT 1 FROM levels WHERE sku = 'HAT' FOR UPDATE").await.unwrap();
    let both = |id: &str| batch(vec![order(id, &[("MUG", 1), ("HAT", 1)])]);
    let (one, other) = (both("o-1"), both("o-2"));
    // Who comes second would have the mugs already, were it the other way round, while the first is given the hats.
    let locking = tokio::spawn(async move {
        usual.apply(&one).await.expect("applied");
        usual.close().await;
    });
    waiting(&mut looker, 1).await;
    let guarding = tokio::spawn(async move {
        let applied = store.apply(&other).await.expect("applied");
        store.close().await;
        applied.on_remembered
    });
    waiting(&mut looker, 2).await;
    holder.execute("ROLLBACK").await.unwrap();
    locking.await.unwrap();
    assert!(!guarding.await.unwrap(), "the other moved what it remembers");
    expect_no_deadlock(&mut looker).await;
    drop((looker, holder));
    database.remove().await;
}
