//! The scripts on a real Redis do what the rule says, step by step.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stock_verifier::gate::cache::{LevelRead, RedisCache};
use stock_verifier::gate::rule::{
    Admission, Asked, BuyerLimit, CachedStock, MOST_PENDING, Millis, Sale, Standing, Unsettled,
};
use stock_verifier::ledger::{
    Action, Command, Id, Item, Level, Limits, Location, NextOffset, Quantity, Sku, Terms, TopicId,
    TopicPartition,
};

use crate::support::redis::Redis;
use crate::support::servers::wait_for;

const ORDERS: u8 = 12;
const ITEMS: u8 = 4;
/// Longer than a test: what is younger is young, and what is in the future stays there.
const LONG: Duration = Duration::from_secs(3_600);
/// In the year 2096.
const FUTURE: Millis = 4_000_000_000_000;

fn item(number: u8) -> Item {
    let sku = Sku::new(&format!("SKU \"{}\" é", number / 2)).unwrap();
    Item { sku, location: (number % 2 == 1).then(|| Location::new("berlin").unwrap()) }
}

fn id(number: u8) -> Id {
    Id::new(&format!("o-{number}")).unwrap()
}

/// What is done to both.
#[derive(Debug, Clone)]
enum Step {
    Admit { number: u8, lines: Vec<(u8, i64)>, all_or_none: bool, buyer: Option<u8>, is_old: bool },
    Sent { number: u8 },
    Settle { back: i64, many: i64, results: Vec<(u8, bool)> },
    SettleFound { number: u8, accepted: bool },
    GiveBack { number: u8, is_stale: bool },
    BeginRead { item: u8 },
    StoreLevel { which: usize, level: Option<Level> },
    Unsettled,
    SetSale { item: u8, sale: Sale },
    Forget { number: u8 },
}

fn level() -> impl Strategy<Value = Level> {
    let limits = (0..4_i64, proptest::option::weighted(0.3, 1..3_i64))
        .prop_map(|(backorder, order)| Limits { backorder: (backorder - 2).max(0), order });
    // Large ones too: what is added up keeps each piece.
    let available = prop_oneof![5 => -2..9_i64, 1 => Just(1_000_000_000_000_000_i64)];
    (available, 1..9_i64, limits).prop_map(|(available, version, limits)| Level {
        available,
        version,
        limits,
    })
}

fn sale() -> impl Strategy<Value = Sale> {
    let buyer = proptest::option::of((1..4_i64).prop_map(|pieces| {
        let window_ms = u64::try_from(LONG.as_millis()).unwrap();
        BuyerLimit { pieces, window_ms }
    }));
    let opens_at = prop_oneof![2 => Just(None), 2 => Just(Some(1)), 1 => Just(Some(FUTURE))];
    (opens_at, prop::bool::weighted(0.1), buyer).prop_map(|(opens_at, closed, buyer)| Sale {
        opens_at,
        closed,
        buyer,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let order = 0..ORDERS;
    let results = proptest::collection::vec((0..ORDERS, any::<bool>()), 0..4);
    let pieces = prop_oneof![8 => 1..4_i64, 1 => Just(1_000_000_000_000_i64)];
    let lines = proptest::collection::vec((0..ITEMS, pieces), 1..4);
    prop_oneof![
        8 => (order.clone(), lines, prop::bool::weighted(0.9), proptest::option::of(0..2_u8), any::<bool>())
            .prop_map(|(number, lines, all_or_none, buyer, is_old)| Step::Admit {
                number, lines, all_or_none, buyer, is_old,
            }),
        3 => order.clone().prop_map(|number| Step::Sent { number }),
        4 => (-2..3_i64, 1..4_i64, results).prop_map(|(back, many, results)| Step::Settle { back, many, results }),
        1 => (order.clone(), any::<bool>()).prop_map(|(number, accepted)| Step::SettleFound { number, accepted }),
        1 => order.clone().prop_map(|number| Step::Forget { number }),
        2 => (order, any::<bool>()).prop_map(|(number, is_stale)| Step::GiveBack { number, is_stale }),
        3 => (0..ITEMS).prop_map(|item| Step::BeginRead { item }),
        4 => (0..4_usize, proptest::option::weighted(0.8, level()))
            .prop_map(|(which, level)| Step::StoreLevel { which, level }),
        1 => Just(Step::Unsettled),
        1 => (0..ITEMS, sale()).prop_map(|(item, sale)| Step::SetSale { item, sale }),
    ]
}

fn ask(number: u8, lines: &[(u8, i64)], all_or_none: bool, buyer: Option<u8>) -> Asked {
    let lines = lines.iter().map(|(number, pieces)| (item(*number), Quantity::new(*pieces).unwrap()));
    let command = Command::order_created(id(number), lines.collect(), Terms::default());
    let Action::Take { lines, .. } = command.action else { unreachable!("an order takes") };
    let buyer = buyer.map(|buyer| format!("buyer {buyer}"));
    Asked { id: command.key.id, digest: command.digest, lines, all_or_none, buyer }
}

/// The rule and Redis, side by side.
struct Both<'r> {
    rule: CachedStock,
    redis: RedisCache,
    server: &'r Redis,
    prefix: String,
    now: Millis,
    asked: HashMap<Id, Asked>,
    /// The moments of new entries, of the rule and of Redis.
    moments: HashMap<Id, (Millis, Millis)>,
    reads: Vec<(Item, BTreeSet<Id>)>,
}

fn partition() -> TopicPartition {
    TopicPartition::new("stock.accepted", 3)
}

impl<'r> Both<'r> {
    fn new(server: &'r Redis) -> Self {
        let (redis, prefix) = server.cache();
        let mut both = Self {
            rule: CachedStock::default(),
            redis,
            server,
            prefix,
            now: 1_000_000,
            asked: HashMap::new(),
            moments: HashMap::new(),
            reads: Vec::new(),
        };
        // The last item stays unknown until a level of it is stored.
        for number in 0..ITEMS - 1 {
            both.reads.push((item(number), BTreeSet::new()));
            let level = Level { available: 5, version: 1, limits: Limits::default() };
            both.step(&Step::StoreLevel { which: 0, level: Some(level) });
        }
        let early = ask(0, &[(0, 1)], true, None);
        both.admit(&early, Duration::ZERO);
        assert_eq!(both.rule.entries().count(), 0, "nothing is let in before it is filled");
        both.rule.begin_offset(&partition(), NextOffset(10));
        wait_for(both.redis.begin_offsets(&[(partition(), NextOffset(10))])).unwrap();
        both.rule.set_filled();
        let filling = wait_for(both.redis.begin_filling()).unwrap();
        assert!(wait_for(both.redis.set_filled(filling)).unwrap());
        both
    }

    fn admit(&mut self, asked: &Asked, resend_after: Duration) {
        let resend_ms = u64::try_from(resend_after.as_millis()).unwrap();
        let of_rule = self.rule.admit(asked, self.now, resend_ms);
        let of_redis = wait_for(self.redis.admit(asked, resend_after)).unwrap();
        if let (
            Admission::Admitted { undecided, at },
            Admission::Admitted { undecided: redis_undecided, at: redis_at },
        ) = (&of_rule, &of_redis)
        {
            assert_eq!(undecided, redis_undecided);
            self.moments.insert(asked.id.clone(), (*at, *redis_at));
            self.asked.insert(asked.id.clone(), asked.clone());
        } else {
            assert_eq!(of_rule, of_redis);
        }
        if matches!(of_rule, Admission::Resend { .. }) {
            // No longer the entry's moment, for either.
            self.moments.insert(asked.id.clone(), (0, 0));
        }
    }

    fn step(&mut self, step: &Step) {
        self.now += 1;
        match step {
            Step::Admit { number, lines, all_or_none, buyer, is_old } => {
                let asked = ask(*number, lines, *all_or_none, *buyer);
                // As often as not the same again.
                let known = self.asked.get(&asked.id).filter(|_| lines.len() % 2 == 0).cloned();
                self.admit(&known.unwrap_or(asked), if *is_old { Duration::ZERO } else { LONG });
            }
            Step::Sent { number } => {
                if let Some(asked) = self.asked.get(&id(*number)) {
                    self.rule.sent(&asked.id, &asked.digest);
                    wait_for(self.redis.sent(&[(asked.id.clone(), asked.digest)])).unwrap();
                }
            }
            Step::Settle { back, many, results } => {
                let stored = self.rule.offset(&partition()).unwrap().0;
                let (from, next) = (NextOffset(stored - back), NextOffset(stored - back + many));
                let results: Vec<(Id, bool)> =
                    results.iter().map(|(number, accepted)| (id(*number), *accepted)).collect();
                let of_rule = self.rule.settle(&partition(), from, next, &results);
                let of_redis = wait_for(self.redis.settle(&partition(), from, next, &results)).unwrap();
                assert_eq!(of_rule, of_redis);
            }
            Step::SettleFound { number, accepted } => {
                if let Some(asked) = self.asked.get(&id(*number)) {
                    self.rule.settle_found(&asked.id, &asked.digest, *accepted);
                    wait_for(self.redis.settle_found(&asked.id, asked.digest, *accepted)).unwrap();
                }
            }
            Step::GiveBack { number, is_stale } => {
                let Some((of_rule, of_redis)) = self.moments.get(&id(*number)) else { return };
                let earlier = u64::from(*is_stale);
                let given = self.rule.give_back(&id(*number), of_rule.saturating_sub(earlier));
                let at = of_redis.saturating_sub(earlier);
                assert_eq!(given, wait_for(self.redis.give_back(&id(*number), at)).unwrap());
            }
            Step::BeginRead { item: number } => {
                let item = item(*number);
                let closes = self.rule.waiting(&item);
                let begun = wait_for(self.redis.begin_read(std::slice::from_ref(&item), 0, 1_000)).unwrap();
                assert_eq!(begun, [(item.clone(), closes.clone())]);
                self.reads.push((item, closes));
            }
            Step::StoreLevel { which, level } => {
                if self.reads.is_empty() {
                    return;
                }
                let (item, closes) = self.reads.remove(which % self.reads.len());
                self.rule.store_level(&item, *level, &closes);
                let read = LevelRead { item, level: *level, closes };
                wait_for(self.redis.store_levels(&[read])).unwrap();
            }
            Step::Unsettled => {
                let ids = |entry: Unsettled| (entry.id, entry.digest.0);
                let of_rule: BTreeSet<_> = self.rule.unsettled(self.now).into_iter().map(ids).collect();
                let of_redis = wait_for(self.redis.unsettled(Duration::ZERO, 0, 1_000)).unwrap();
                let later = wait_for(self.redis.unsettled(Duration::ZERO, 1, 1_000)).unwrap();
                assert_eq!(later, of_redis.iter().skip(1).cloned().collect::<Vec<_>>());
                assert_eq!(of_rule, of_redis.into_iter().map(ids).collect());
            }
            Step::SetSale { item: number, sale } => {
                let sku = item(*number).sku;
                self.rule.set_sale(sku.clone(), *sale);
                wait_for(self.redis.set_sale(&sku, sale)).unwrap();
                assert_eq!(wait_for(self.redis.sale(&sku)).unwrap(), *sale);
            }
            Step::Forget { number } => {
                // As when its time is over.
                if self.rule.forget(&id(*number)) {
                    let key = format!("{}order:{}", self.prefix, id(*number));
                    assert_eq!(self.server.command(&["DEL", &key]).as_deref(), Some("1"));
                }
            }
        }
    }

    /// All that is kept is the same.
    fn compare(&self) {
        for number in 0..ITEMS {
            let item = item(number);
            let of_rule = (self.rule.level(&item), self.rule.pending(&item));
            assert_eq!(of_rule, wait_for(self.redis.amount(&item)).unwrap(), "{item:?}");
        }
        let (mut unsettled, mut accepted) = (0, 0);
        for number in 0..ORDERS {
            let standing = self.rule.entry(&id(number)).map(|entry| entry.standing);
            assert_eq!(standing, wait_for(self.redis.standing(&id(number))).unwrap(), "{number}");
            unsettled += u64::from(standing.is_some_and(Standing::is_unsettled));
            accepted += u64::from(standing == Some(Standing::Accepted));
        }
        let status = wait_for(self.redis.status()).unwrap();
        assert_eq!((status.unsettled, status.accepted), (unsettled, accepted));
        assert_eq!(status.oldest.is_some(), unsettled + accepted > 0);
        let waiting: BTreeSet<Item> =
            (0..ITEMS).map(item).filter(|item| !self.rule.waiting(item).is_empty()).collect();
        let begun = wait_for(self.redis.begin_read(&[], 100, 1_000)).unwrap();
        assert_eq!(waiting, begun.into_iter().map(|(item, _)| item).collect());
        let stored = wait_for(self.redis.offsets(&[partition()])).unwrap();
        assert_eq!(stored, [self.rule.offset(&partition())]);
        let items: Vec<Item> = (0..ITEMS).map(item).collect();
        let miscounted = wait_for(self.redis.recount(&items, false)).unwrap();
        assert!(miscounted.is_empty(), "{miscounted:?}");
    }
}

#[test]
fn the_scripts_do_what_the_rule_says() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let config = Config { cases: 250, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..70), |steps| {
        let mut both = Both::new(&redis);
        for step in &steps {
            both.step(step);
        }
        both.compare();
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}

#[test]
fn what_ended_is_forgotten_after_its_time_and_leaves_nothing_behind() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    let prefix = both.prefix.clone();
    for (number, is_accepted) in [(1, true), (2, false)] {
        both.step(&Step::Admit {
            number,
            lines: vec![(0, 1)],
            all_or_none: true,
            buyer: Some(1),
            is_old: false,
        });
        both.step(&Step::SettleFound { number, accepted: is_accepted });
    }
    // An order for what nobody knows passes, and is rejected.
    both.step(&Step::Admit {
        number: 3,
        lines: vec![(ITEMS - 1, 1)],
        all_or_none: true,
        buyer: None,
        is_old: false,
    });
    both.step(&Step::SettleFound { number: 3, accepted: false });
    both.step(&Step::BeginRead { item: 0 });
    let level = Level { available: 4, version: 2, limits: Limits::default() };
    both.step(&Step::StoreLevel { which: 0, level: Some(level) });
    both.compare();
    let keys = redis.command(&["--raw", "KEYS", &format!("{prefix}*")]).unwrap();
    let mut kept: Vec<&str> = keys.lines().map(|key| key.strip_prefix(&*prefix).unwrap()).collect();
    kept.sort_unstable();
    let items: Vec<String> = (0..ITEMS - 1)
        .map(|number| {
            let item = item(number);
            let location = item.location.map_or(String::new(), |location| format!("\u{1f}{location}"));
            format!("item:{}{location}", item.sku)
        })
        .collect();
    let mut expected = vec!["cache", "offset:stock.accepted:3", "order:o-1", "order:o-2", "order:o-3"];
    expected.extend(items.iter().map(String::as_str));
    expected.sort_unstable();
    assert_eq!(kept, expected);
    for order in ["o-1", "o-2", "o-3"] {
        let left = redis.command(&["PTTL", &format!("{prefix}order:{order}")]).unwrap();
        assert!((1..=600_000).contains(&left.parse::<i64>().unwrap()), "{order}: {left}");
    }
}

#[test]
fn what_is_subtracted_for_an_order_that_takes_what_there_is_stays_whole_numbers_to_its_end() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    // Of more than fourteen digits.
    let most = 999_999_999_999;
    both.reads.push((item(0), BTreeSet::new()));
    let limits = Limits { order: Some(most), ..Limits::default() };
    let level = Level { available: most, version: 2, limits };
    both.step(&Step::StoreLevel { which: 0, level: Some(level) });
    let greedy = vec![(0, 1_000_000_000_000); 1_000];
    both.admit(&ask(1, &greedy, false, None), LONG);
    assert_eq!(wait_for(both.redis.amount(&item(0))).unwrap(), (Some(level), most));
    both.compare();
    both.step(&Step::SettleFound { number: 1, accepted: false });
    assert_eq!(wait_for(both.redis.amount(&item(0))).unwrap(), (Some(level), 0));
    both.compare();
}

#[test]
fn no_more_is_subtracted_than_numbers_hold_and_what_is_refused_for_that_changes_nothing() {
    const MOST: i64 = 1_000_000_000_000;
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    let unknown = ITEMS - 1;
    let large = vec![(unknown, MOST); 1_000];
    // The tenth is refused, with another item that there is enough of.
    for number in 0..10 {
        let mut lines = large.clone();
        lines.push((0, 1));
        both.admit(&ask(number, &lines, false, None), LONG);
    }
    assert_eq!((both.rule.entries().count(), both.rule.pending(&item(0))), (9, 9));
    both.compare();
    let left = MOST_PENDING - both.rule.pending(&item(unknown));
    let mut last: Vec<_> = (0..left / MOST).map(|_| (unknown, MOST)).collect();
    last.push((unknown, left % MOST));
    both.admit(&ask(10, &last, false, None), LONG);
    both.admit(&ask(11, &[(unknown, 1)], false, None), LONG);
    assert_eq!(wait_for(both.redis.amount(&item(unknown))).unwrap(), (None, MOST_PENDING));
    both.compare();
    for number in 0..=10 {
        both.step(&Step::SettleFound { number, accepted: false });
    }
    assert_eq!(wait_for(both.redis.amount(&item(unknown))).unwrap(), (None, 0));
    both.compare();
}

#[test]
fn an_order_that_was_forgotten_is_no_second_purchase_of_its_buyer_when_it_is_sent_again() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    let window_ms = u64::try_from(LONG.as_millis()).unwrap();
    let sale = Sale { buyer: Some(BuyerLimit { pieces: 2, window_ms }), ..Sale::default() };
    both.step(&Step::SetSale { item: 0, sale });
    let bought = ask(1, &[(0, 2)], true, Some(1));
    both.admit(&bought, LONG);
    both.step(&Step::SettleFound { number: 1, accepted: true });
    both.step(&Step::BeginRead { item: 0 });
    let level = Level { available: 3, version: 2, limits: Limits::default() };
    both.step(&Step::StoreLevel { which: 0, level: Some(level) });
    both.step(&Step::Forget { number: 1 });
    assert_eq!(both.rule.entry(&id(1)), None);
    // The same again; and with less, which counts instead.
    both.admit(&bought, LONG);
    assert!(both.rule.entry(&id(1)).is_some(), "it is let in");
    both.step(&Step::SettleFound { number: 1, accepted: true });
    both.step(&Step::BeginRead { item: 0 });
    both.step(&Step::StoreLevel { which: 0, level: Some(level) });
    both.step(&Step::Forget { number: 1 });
    both.admit(&ask(1, &[(0, 1)], true, Some(1)), LONG);
    both.admit(&ask(2, &[(0, 2)], true, Some(1)), LONG);
    both.admit(&ask(3, &[(0, 1)], true, Some(1)), LONG);
    assert_eq!((both.rule.entry(&id(2)), both.rule.entry(&id(3)).is_some()), (None, true));
    both.compare();
}

#[test]
fn that_an_order_without_an_entry_was_decided_is_remembered_for_minutes() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    both.admit(&ask(1, &[(0, 1)], true, None), LONG);
    // Only the first was let in by a gate.
    let results = vec![(1, false), (2, true), (3, false)];
    both.step(&Step::Settle { back: 0, many: 3, results });
    both.compare();
    let left = |number| {
        let key = format!("{}order:{}", both.prefix, id(number));
        redis.command(&["PTTL", &key]).unwrap().parse::<i64>().unwrap()
    };
    // The cache of a test remembers entries for ten.
    assert!((300_001..=600_000).contains(&left(1)), "{}", left(1));
    assert!((1..=300_000).contains(&left(2)), "{}", left(2));
    assert_eq!(left(3), -2, "nothing is kept");
}

#[test]
fn nothing_is_asked_of_redis_about_no_partitions() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let (cache, _) = redis.cache();
    assert!(wait_for(cache.offsets(&[])).unwrap().is_empty());
    wait_for(cache.begin_offsets(&[])).unwrap();
}

#[test]
fn a_redis_that_is_emptied_while_it_is_filled_is_not_filled() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let (cache, _) = redis.cache();
    let [first, second] = [(), ()].map(|()| wait_for(cache.begin_filling()).unwrap());
    let is_filled = || wait_for(cache.status()).unwrap().filled;
    assert!(wait_for(cache.set_filled(first)).unwrap() && is_filled());
    assert_eq!(redis.command(&["FLUSHALL"]).as_deref(), Some("OK"));
    assert!(!wait_for(cache.set_filled(second)).unwrap() && !is_filled());
}

#[test]
fn offsets_are_of_one_topic_and_forgotten_with_it() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let (cache, _) = redis.cache();
    let partitions = [0, 1, 10].map(|number| TopicPartition::new("stock.accepted", number));
    let begin = || {
        let offsets: Vec<_> = partitions.iter().map(|at| (at.clone(), NextOffset(7))).collect();
        wait_for(cache.begin_offsets(&offsets)).unwrap();
    };
    let meet = |name: &str, id: &str, partitions: i32| {
        wait_for(cache.meet_topic(name, &TopicId::new(id), partitions)).unwrap()
    };
    let known = || wait_for(cache.offsets(&partitions)).unwrap();
    begin();
    assert!(!meet("stock.accepted", "first", 11), "it is met for the first time");
    assert!(!meet("stock.accepted", "first", 11), "and it is the same");
    assert!(!meet("stock.rejected", "other", 11), "another name says nothing of it");
    assert_eq!(known(), [Some(NextOffset(7)); 3]);
    assert!(meet("stock.accepted", "second", 2));
    assert_eq!(known(), [None; 3], "those of partitions that are no more, too");
    begin();
    assert!(!meet("stock.accepted", "second", 2), "only once");
    assert_eq!(known(), [Some(NextOffset(7)); 3]);
}

#[test]
fn when_memory_is_full_nothing_new_is_let_in_and_what_is_there_comes_to_its_end() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let mut both = Both::new(&redis);
    both.step(&Step::Admit {
        number: 1,
        lines: vec![(0, 1), (1, 1)],
        all_or_none: true,
        buyer: None,
        is_old: false,
    });
    assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory", "1"]).as_deref(), Some("OK"));
    let refused = wait_for(both.redis.admit(&ask(2, &[(0, 1)], true, None), LONG));
    assert!(refused.is_err(), "{refused:?}");
    both.step(&Step::SettleFound { number: 1, accepted: true });
    for item in [0, 1] {
        both.step(&Step::BeginRead { item });
        let level = Level { available: 4, version: 2, limits: Limits::default() };
        both.step(&Step::StoreLevel { which: 0, level: Some(level) });
    }
    assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory", "0"]).as_deref(), Some("OK"));
    both.compare();
}
