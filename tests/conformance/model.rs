//! Every store against the pure rules with a ledger in memory, on random batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use stock_verifier::ledger::{
    CommandKey, CommandKind, Decision, HoldSeconds, Id, Item, Level, Map, NextOffset, OrderState, Outcome,
    Policy, Request, Seq, Sequenced, Sequences, Stamp, Terms, TopicPartition, View, decide,
};
use stock_verifier::store::{CommandBatch, Store};

use super::expect_no_findings;
use crate::on_every_store;
use crate::support::{
    TestDatabase, adjusted, advance, at, cancelled, confirmed, expired, extended, limits, order_on, received,
    released, returned, set, word,
};

on_every_store![random_batches_are_decided_as_the_model_decides_them];

/// The store's contract in memory: everything but durability.
#[derive(Default)]
pub(super) struct Model {
    pub(super) levels: Map<Item, Level>,
    decisions: Map<CommandKey, Arc<Decision>>,
    /// Every accepted order.
    orders: Map<Id, OrderState>,
    positions: HashMap<TopicPartition, NextOffset>,
    unannounced: BTreeSet<Item>,
}

impl Model {
    pub(super) fn apply(&mut self, batch: &CommandBatch) -> Vec<Outcome> {
        for advance in &batch.advances {
            self.positions.entry(advance.at.clone()).or_insert(advance.expected);
        }
        let below = |request: &Request| {
            request.source.as_ref().is_some_and(|source| self.positions[&source.at].covers(source.offset))
        };
        let changes = decide(
            self.view(batch),
            &batch.requests,
            below,
            Sequences::From(Sequenced { seq: Seq(1), at: Stamp(0) }),
        );
        self.levels.extend(changes.levels);
        for decision in changes.decisions {
            if decision.accepted && decision.key.kind == CommandKind::OrderCreated {
                let state = OrderState::of(&decision).expect("readable");
                self.orders.insert(decision.key.id.clone(), state);
            }
            self.decisions.insert(decision.key.clone(), decision);
        }
        self.orders.extend(changes.orders);
        let own = changes.movements.into_iter().filter(|movement| movement.source.is_none());
        self.unannounced.extend(own.map(|movement| movement.item));
        for advance in &batch.advances {
            let position = self.positions.get_mut(&advance.at).expect("just entered");
            *position = advance.next.max(*position);
        }
        changes.outcomes
    }

    /// All there is, but of orders only those the batch follows.
    fn view(&self, batch: &CommandBatch) -> View {
        let followed = batch.requests.iter().filter_map(|request| request.command.follows());
        let orders =
            followed.filter_map(|id| self.orders.get(id).map(|state| (id.clone(), state.clone()))).collect();
        View { levels: self.levels.clone(), decisions: self.decisions.clone(), orders }
    }
}

/// What was decided without the times in it, which come from clocks.
pub(super) fn timeless(detail: &str) -> String {
    const TIMES: [&str; 2] = ["\"expires_at\":\"", "\"expired_at\":\""];
    let mut text = detail.to_owned();
    for time in TIMES {
        if let Some(found) = text.find(time) {
            let from = found + time.len();
            let to = from + text[from..].find('"').expect("JSON");
            text.replace_range(from..to, "…");
        }
    }
    text
}

/// What two stores must agree on: all but ledger sequences and times.
pub(super) fn comparable(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Decided(d) | Outcome::Republished(d) => {
            format!("{} {} {:?} {} {:?}", word(outcome), d.key, d.digest, timeless(&d.detail), d.source)
        }
        other => format!("{other:?}"),
    }
}

async fn expect_the_models_state(store: &dyn Store, model: &mut Model) {
    let found = store.levels(None).await.unwrap();
    let levels: Map<Item, Level> = found.into_iter().map(|level| (level.item, level.level)).collect();
    assert_eq!(levels, model.levels);
    let taken: BTreeSet<Item> = store.take_unannounced(1_000).await.unwrap().into_iter().collect();
    assert_eq!(taken, std::mem::take(&mut model.unannounced));
    expect_no_findings(store).await;
}

async fn random_batches_are_decided_as_the_model_decides_them(database: Arc<TestDatabase>) {
    const SEED: u64 = 20_260_101;
    let store = database.ledger().await;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut model = Model::default();
    let mut partitions: Vec<Vec<Request>> = vec![Vec::new(); 3];
    let mut applied_to = [0_usize; 3];
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for round in 0..150 {
        for (number, partition) in (0_i32..).zip(&mut partitions) {
            for _ in 0..random.random_range(0..12) {
                let offset = i64::try_from(partition.len()).expect("few");
                partition.push(at(number, offset, random_request(&mut random, round)));
            }
        }
        let mut batch = CommandBatch::default();
        for number in 0..partitions.len() {
            // One time in five a crash: the batch starts some records back.
            let back = if random.random_ratio(1, 5) { random.random_range(0..20) } else { 0 };
            let from = applied_to[number].saturating_sub(back);
            let to = random.random_range(from..=partitions[number].len());
            applied_to[number] = to.max(applied_to[number]);
            let offset = |index: usize| i64::try_from(index).expect("few");
            batch.advances.push(advance(i32::try_from(number).expect("few"), offset(from), offset(to)));
            batch.requests.extend_from_slice(&partitions[number][from..to]);
        }
        if random.random_ratio(1, 4) {
            batch.requests.push(random_request(&mut random, round));
        }
        let expected: Vec<_> = model.apply(&batch).iter().map(comparable).collect();
        let outcomes = store.apply(&batch).await.unwrap().outcomes;
        let found: Vec<_> = outcomes.iter().map(comparable).collect();
        assert_eq!(found, expected, "round {round}, seed {SEED}");
        for (request, outcome) in batch.requests.iter().zip(&outcomes) {
            seen.insert(format!("{} {}", request.command.key.kind.name(), word(outcome)));
            if let Outcome::Decided(decision) = outcome
                && !decision.accepted
            {
                seen.extend(decision.reasons().unwrap().iter().map(|reason| reason.name().to_owned()));
            }
        }
        if round % 20 == 19 {
            expect_the_models_state(&*store, &mut model).await;
        }
    }
    expect_the_models_state(&*store, &mut model).await;
    let unseen: Vec<_> = MUST_SEE.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(unseen.is_empty(), "the commands are too tame, {unseen:?} never came up: {seen:?}");
}

/// What the random commands must have met, or they prove too little.
const MUST_SEE: &[&str] = &[
    "order.created accepted",
    "order.created rejected",
    "order.created repeated",
    "order.created conflict",
    "order.created republished",
    "order.cancelled accepted",
    "order.cancelled repeated",
    "order.cancelled republished",
    "order.returned accepted",
    "order.returned rejected",
    "order.returned conflict",
    "order.confirmed accepted",
    "order.confirmed rejected",
    "order.confirmed republished",
    "order.released accepted",
    "order.released rejected",
    "order.hold_extended accepted",
    "order.hold_extended rejected",
    "hold.expired not due",
    "adjustment accepted",
    "adjustment rejected",
    "adjustment conflict",
    "insufficient_stock",
    "unknown_sku",
    "order_cancelled",
    "order_not_found",
    "already_cancelled",
    "return_exceeds_deducted",
    "already_confirmed",
    "version_mismatch",
    "limit_exceeded",
];

/// One of few items.
fn random_item(random: &mut StdRng) -> String {
    let place = ["", "@BERLIN"].choose(random).expect("two");
    format!("SKU-{}{place}", random.random_range(0..4))
}

/// What an order asks for: the first that is drawn of its content.
fn order_lines(content: &mut StdRng) -> Vec<(String, i64)> {
    (0..content.random_range(1..=3)).map(|_| (random_item(content), content.random_range(1..6))).collect()
}

/// A command about one of few ids, so that they meet again; mostly with the same content.
fn random_request(random: &mut StdRng, round: i64) -> Request {
    let number = round * 2 + random.random_range(0..16);
    let order_id = format!("o-{number}");
    let seed = |random: &mut StdRng| number.unsigned_abs() + 10_000 * u64::from(random.random_ratio(1, 10));
    match random.random_range(0..24) {
        0..8 => random_order(&order_id, &mut StdRng::seed_from_u64(seed(random))),
        8..10 => cancelled(&order_id),
        10..14 => {
            let return_id = format!("r-{number}-{}", random.random_range(0..4));
            let lines = some_lines(random, number);
            returned(&return_id, &order_id, &short(&lines))
        }
        14..16 => {
            let id = if random.random() { order_id.clone() } else { format!("c-{number}") };
            let lines = random.random_ratio(1, 3).then(|| some_lines(random, number));
            confirmed(&id, &order_id, lines.as_ref().map(|lines| short(lines)).as_deref())
        }
        16 => released(&order_id),
        17..19 => {
            extended(&format!("e-{number}-{}", random.random_range(0..3)), &order_id, 60 * (number % 7 + 1))
        }
        19 => expired(&order_id),
        _ => random_adjustment(&format!("a-{number}"), random),
    }
}

fn short(lines: &[(String, i64)]) -> Vec<(&str, i64)> {
    lines.iter().map(|(name, pieces)| (name.as_str(), *pieces)).collect()
}

/// Some of the lines of this order, mostly fewer pieces, and now and then one that is not its.
fn some_lines(random: &mut StdRng, number: i64) -> Vec<(String, i64)> {
    let mut lines = order_lines(&mut StdRng::seed_from_u64(number.unsigned_abs()));
    lines.shuffle(random);
    lines.truncate(random.random_range(1..=lines.len()));
    for (_, pieces) in &mut lines {
        *pieces = random.random_range(1..=*pieces);
    }
    if random.random_ratio(1, 8) {
        lines.push((random_item(random), 1));
    }
    lines
}

/// An order on any terms. A hold lasts for days, so that it ends in no test.
fn random_order(order_id: &str, content: &mut StdRng) -> Request {
    let lines = order_lines(content);
    let policy = if content.random_ratio(1, 3) { Policy::Partial } else { Policy::AllOrNone };
    let days = content.random_range(1..30);
    let hold = content.random::<bool>().then(|| HoldSeconds::new(days * 86_400).expect("a month at most"));
    order_on(order_id, &short(&lines), Terms { policy, hold })
}

fn random_adjustment(id: &str, random: &mut StdRng) -> Request {
    let name = random_item(random);
    match random.random_range(0..5) {
        0 => received(id, &name, random.random_range(1..40)),
        1 => adjusted(id, &name, random.random_range(1..40) * if random.random() { 1 } else { -1 }),
        2 => {
            let order = random.random_ratio(1, 3).then(|| random.random_range(3..9));
            limits(id, &name, random.random_range(0..20), order)
        }
        _ => {
            let expected = random.random_ratio(1, 3).then(|| random.random_range(0..20));
            set(id, &name, random.random_range(0..60), expected)
        }
    }
}
