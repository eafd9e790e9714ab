//! Decisions against a model that is too plain to be wrong: one order at a
//! time, loops and ordered maps, content compared as content, not by digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a generated record asks for.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    Order { id: String, lines: Vec<(String, i64)> },
    Invalid { id: String, faults: u32 },
    Receive { id: String, sku: String, pieces: i64 },
    Adjust { id: String, sku: String, by: i64 },
    Set { id: String, sku: String, available: i64, expected: Option<i64> },
}

impl Ask {
    fn command(&self) -> Command {
        let id = |id: &str| Id::new(id).unwrap();
        match self {
            Self::Order { id: order, lines } => {
                let lines = lines.iter().map(|(sku, pieces)| (sku_of(sku), Quantity::new(*pieces).unwrap()));
                Command::order_created(id(order), lines.collect())
            }
            Self::Invalid { id: order, faults } => Command::invalid_order(
                id(order),
                invalid_reasons(*faults),
                format!("raw {faults}").as_bytes(),
            ),
            Self::Receive { id: adjustment, sku, pieces } => {
                Command::stock_received(id(adjustment), sku_of(sku), Quantity::new(*pieces).unwrap())
            }
            Self::Adjust { id: adjustment, sku, by } => {
                Command::stock_adjusted(id(adjustment), sku_of(sku), *by)
            }
            Self::Set { id: adjustment, sku, available, expected } => {
                Command::stock_set(id(adjustment), sku_of(sku), *available, *expected)
            }
        }
    }
}

fn sku_of(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn invalid_reasons(faults: u32) -> Vec<Reason> {
    (1..=faults)
        .map(|line| Reason::InvalidOrder { line: Some(line), detail: "is wrong".to_owned() })
        .collect()
}

/// A record: what it asks, where it stands, and whether the ledger's position is beyond it.
#[derive(Debug, Clone)]
struct Item {
    ask: Ask,
    source: Option<Source>,
    below: bool,
}

/// An outcome as the model knows it.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Accepted(Vec<(String, i64, i64)>),
    Rejected(Vec<Reason>),
    ToldAgain,
    Repeated,
    Conflict(Option<Source>),
    Undecided,
}

/// SKU, version, quantity, balance, and the id that caused it.
type Line = (String, i64, i64, i64, String);

/// The content of a decided command: what must be equal for it to be the same again.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Sums(BTreeMap<String, i64>),
    Raw(u32),
    Receive(String, i64),
    Adjust(String, i64),
    Set(String, i64, Option<i64>),
}

#[derive(Default)]
struct Model {
    /// Level and version.
    levels: BTreeMap<String, (i64, i64)>,
    /// By kind (whether it is an adjustment) and id.
    decided: BTreeMap<(bool, String), (Content, Option<Source>)>,
    movements: Vec<Line>,
}

impl Model {
    fn one(&mut self, item: &Item) -> Said {
        let (key, content) = match &item.ask {
            Ask::Order { id, lines } => {
                let mut sums = BTreeMap::new();
                for (sku, pieces) in lines {
                    *sums.entry(sku.clone()).or_insert(0) += pieces;
                }
                ((false, id.clone()), Content::Sums(sums))
            }
            Ask::Invalid { id, faults } => ((false, id.clone()), Content::Raw(*faults)),
            Ask::Receive { id, sku, pieces } => ((true, id.clone()), Content::Receive(sku.clone(), *pieces)),
            Ask::Adjust { id, sku, by } => ((true, id.clone()), Content::Adjust(sku.clone(), *by)),
            Ask::Set { id, sku, available, expected } => {
                ((true, id.clone()), Content::Set(sku.clone(), *available, *expected))
            }
        };
        if let Some((first, source)) = self.decided.get(&key) {
            return if item.source.is_some() && *source == item.source {
                Said::ToldAgain
            } else if *first != content {
                Said::Conflict(source.clone())
            } else {
                Said::Repeated
            };
        }
        if item.below {
            return Said::Undecided;
        }
        self.decided.insert(key.clone(), (content.clone(), item.source.clone()));
        self.verdict(&content, &key.1)
    }

    fn verdict(&mut self, content: &Content, id: &str) -> Said {
        match content {
            Content::Raw(faults) => Said::Rejected(invalid_reasons(*faults)),
            Content::Sums(sums) => {
                let mut reasons = Vec::new();
                for (sku, requested) in sums {
                    let (sku_id, requested) = (sku_of(sku), *requested);
                    match self.levels.get(sku) {
                        None => reasons.push(Reason::UnknownSku { sku: sku_id, requested }),
                        Some((available, _)) if i128::from(*available) - i128::from(requested) < 0 => reasons
                            .push(Reason::InsufficientStock {
                                sku: sku_id,
                                requested,
                                available: *available,
                            }),
                        Some(_) => {}
                    }
                }
                if !reasons.is_empty() {
                    return Said::Rejected(reasons);
                }
                let mut lines = Vec::new();
                for (sku, pieces) in sums {
                    let balance = self.shift(sku, -*pieces, id);
                    lines.push((sku.clone(), *pieces, balance));
                }
                Said::Accepted(lines)
            }
            Content::Receive(sku, pieces) => self.change(sku, *pieces, id),
            Content::Adjust(sku, by) if !self.levels.contains_key(sku) => {
                Said::Rejected(vec![Reason::UnknownSku { sku: sku_of(sku), requested: by.abs() }])
            }
            Content::Adjust(sku, by) => self.change(sku, *by, id),
            Content::Set(sku, available, expected) => {
                let (now, version) = self.levels.get(sku).copied().unwrap_or((0, 0));
                match expected {
                    Some(expected) if *expected != version => Said::Rejected(vec![Reason::VersionMismatch {
                        sku: sku_of(sku),
                        expected: *expected,
                        actual: version,
                    }]),
                    _ => {
                        let by = available - now;
                        self.shift(sku, by, id);
                        Said::Accepted(vec![(sku.clone(), by, *available)])
                    }
                }
            }
        }
    }

    /// A change within the bounds of a level, or why it is not made.
    fn change(&mut self, sku: &str, by: i64, id: &str) -> Said {
        let now = self.levels.get(sku).map_or(0, |level| level.0);
        if now + by < 0 {
            let (sku, requested) = (sku_of(sku), -by);
            return Said::Rejected(vec![Reason::InsufficientStock { sku, requested, available: now }]);
        }
        if now + by > MAX_QUANTITY {
            let (sku, limit) = (sku_of(sku), MAX_QUANTITY - now);
            return Said::Rejected(vec![Reason::LimitExceeded { sku, requested: by, limit }]);
        }
        let balance = self.shift(sku, by, id);
        Said::Accepted(vec![(sku.to_owned(), by, balance)])
    }

    fn shift(&mut self, sku: &str, by: i64, id: &str) -> i64 {
        let level = self.levels.entry(sku.to_owned()).or_insert((0, 0));
        *level = (level.0.checked_add(by).expect("the model does not overflow"), level.1 + 1);
        self.movements.push((sku.to_owned(), level.1, by, level.0, id.to_owned()));
        level.0
    }
}

/// What deciding gave, whatever batches it was done in.
#[derive(Debug, PartialEq)]
struct Run {
    outcomes: Vec<Outcome>,
    decisions: Vec<Arc<Decision>>,
    movements: Vec<Movement>,
    levels: BTreeMap<Sku, (i64, i64)>,
}

/// Decides in batches, each seeing what the one before wrote: what a store does.
fn run(start: &BTreeMap<String, i64>, items: &[Item], cuts: &[usize]) -> Run {
    let mut view = View {
        levels: start
            .iter()
            .map(|(sku, pieces)| (sku_of(sku), Level { available: *pieces, version: 1 }))
            .collect(),
        ..View::default()
    };
    let mut run = Run { outcomes: vec![], decisions: vec![], movements: vec![], levels: BTreeMap::new() };
    let mut seq = Seq(100);
    let mut rest = items;
    let mut done = 0;
    for cut in cuts.iter().copied().chain([items.len()]) {
        let (batch, after) = rest.split_at(cut.saturating_sub(done).min(rest.len()));
        (rest, done) = (after, done + batch.len());
        let requests: Vec<_> = batch
            .iter()
            .map(|item| Request { command: item.ask.command(), source: item.source.clone() })
            .collect();
        let changes = decide(
            view.clone(),
            &requests,
            |request| {
                let index = requests.iter().position(|known| std::ptr::eq(known, request));
                batch[index.expect("one of the requests")].below
            },
            seq,
            Stamp(5),
        );
        assert_eq!(changes.outcomes.len(), batch.len(), "one outcome for each request");
        assert!(changes.levels.is_sorted_by(|a, b| a.0 < b.0), "levels are sorted, each once");
        seq.0 += i64::try_from(changes.decisions.len()).unwrap();
        for decision in &changes.decisions {
            assert!(view.decisions.insert(decision.key.clone(), Arc::clone(decision)).is_none());
        }
        view.levels.extend(changes.levels);
        run.outcomes.extend(changes.outcomes);
        run.decisions.extend(changes.decisions);
        run.movements.extend(changes.movements);
    }
    run.levels =
        view.levels.into_iter().map(|(sku, level)| (sku, (level.available, level.version))).collect();
    run
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Decided(decision) if decision.accepted => Said::Accepted(
            decision
                .accepted_lines()
                .unwrap()
                .into_iter()
                .map(|line| (line.sku.to_string(), line.quantity, line.balance))
                .collect(),
        ),
        Outcome::Decided(decision) => Said::Rejected(decision.reasons().unwrap()),
        Outcome::ToldAgain(_) => Said::ToldAgain,
        Outcome::Repeated => Said::Repeated,
        Outcome::Conflict { first } => Said::Conflict(first.clone()),
        Outcome::Undecided => Said::Undecided,
    }
}

/// Few SKUs, of which some have no stock to begin with, so that orders meet.
fn sku() -> impl Strategy<Value = String> {
    (0..6).prop_map(|number| format!("sku-{number}"))
}

/// Mostly small, now and then as large as can be.
fn pieces() -> impl Strategy<Value = i64> {
    prop_oneof![12 => 1..8_i64, 1 => Just(MAX_QUANTITY), 1 => Just(MAX_QUANTITY - 1)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let id = || (0..25).prop_map(|number| format!("id-{number}"));
    let lines = prop::collection::vec((sku(), pieces()), 1..6);
    let available = prop_oneof![6 => 0..30_i64, 1 => Just(MAX_QUANTITY), 1 => Just(0)];
    prop_oneof![
        12 => (id(), lines).prop_map(|(id, lines)| Ask::Order { id, lines }),
        1 => (id(), 1..4_u32).prop_map(|(id, faults)| Ask::Invalid { id, faults }),
        2 => (id(), sku(), pieces()).prop_map(|(id, sku, pieces)| Ask::Receive { id, sku, pieces }),
        2 => (id(), sku(), pieces(), any::<bool>()).prop_map(|(id, sku, pieces, found)| {
            Ask::Adjust { id, sku, by: if found { pieces } else { -pieces } }
        }),
        2 => (id(), sku(), available, prop::option::of(0..5_i64))
            .prop_map(|(id, sku, available, expected)| Ask::Set { id, sku, available, expected }),
    ]
}

/// Where a generated item's content and place come from.
#[derive(Debug, Clone)]
enum Origin {
    /// A record of its own.
    Fresh,
    /// An operator's command, from no record.
    Operator,
    /// An earlier item's very record, read again.
    SameRecord(Index),
    /// An earlier item's content, its lines the other way round, in a record of its own.
    SameContent(Index),
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let origin = prop_oneof![
        8 => Just(Origin::Fresh),
        1 => Just(Origin::Operator),
        2 => any::<Index>().prop_map(Origin::SameRecord),
        2 => any::<Index>().prop_map(Origin::SameContent),
    ];
    prop::collection::vec((ask(), origin, prop::bool::weighted(0.1)), 1..60).prop_map(|drawn| {
        let mut items: Vec<Item> = Vec::new();
        for (offset, (ask, origin, below)) in (0..).zip(drawn) {
            let own = Some(Source { at: TopicPartition::new("orders", 0), offset: Offset(offset) });
            let item = match origin {
                Origin::SameRecord(index) if !items.is_empty() => Item { below, ..index.get(&items).clone() },
                Origin::SameContent(index) if !items.is_empty() => {
                    let mut ask = index.get(&items).ask.clone();
                    if let Ask::Order { lines, .. } = &mut ask {
                        lines.reverse();
                    }
                    Item { ask, source: own, below }
                }
                Origin::Operator => Item { ask, source: None, below: false },
                _ => Item { ask, source: own, below },
            };
            items.push(item);
        }
        items
    })
}

/// The stock to begin with: some SKUs plenty, some scarce, one full to the bound, one unknown.
fn start() -> impl Strategy<Value = BTreeMap<String, i64>> {
    (0..40_i64, 0..10_i64, 0..200_i64).prop_map(|(a, b, c)| {
        [("sku-0", a), ("sku-1", b), ("sku-2", c), ("sku-3", MAX_QUANTITY), ("sku-4", 0)]
            .map(|(sku, pieces)| (sku.to_owned(), pieces))
            .into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_batch_is_decided_as_the_model_decides_one_at_a_time(start in start(), items in items()) {
        let mut model = Model {
            levels: start.iter().map(|(sku, pieces)| (sku.clone(), (*pieces, 1))).collect(),
            ..Model::default()
        };
        let expected: Vec<_> = items.iter().map(|item| model.one(item)).collect();
        let run = run(&start, &items, &[]);
        prop_assert_eq!(run.outcomes.iter().map(said).collect::<Vec<_>>(), expected);
        let movements: Vec<Line> = run
            .movements
            .iter()
            .map(|m| (m.sku.to_string(), m.version, m.quantity, m.balance, m.cause.id.to_string()))
            .collect();
        prop_assert_eq!(movements, model.movements);
        let levels: BTreeMap<_, _> = run.levels.iter().map(|(sku, level)| (sku.to_string(), *level)).collect();
        prop_assert_eq!(levels, model.levels);
    }

    #[test]
    fn it_does_not_matter_how_records_are_cut_into_batches(
        start in start(),
        items in items(),
        cuts in prop::collection::vec(0..60_usize, 0..8),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let whole = run(&start, &items, &[]);
        prop_assert_eq!(&run(&start, &items, &cuts), &whole);
        let singly: Vec<_> = (1..items.len()).collect();
        prop_assert_eq!(&run(&start, &items, &singly), &whole);
    }

    #[test]
    fn every_level_is_explained_by_its_movements_and_none_is_below_zero(start in start(), items in items()) {
        let run = run(&start, &items, &[]);
        let mut levels: BTreeMap<Sku, (i64, i64)> =
            start.iter().map(|(sku, pieces)| (sku_of(sku), (*pieces, 1))).collect();
        for movement in &run.movements {
            let level = levels.entry(movement.sku.clone()).or_insert((0, 0));
            prop_assert_eq!(movement.version, level.1 + 1, "versions have no gap");
            prop_assert_eq!(Some(movement.balance), level.0.checked_add(movement.quantity), "balances chain");
            prop_assert!((0..=MAX_QUANTITY).contains(&movement.balance));
            *level = (movement.balance, movement.version);
        }
        prop_assert_eq!(levels, run.levels);
    }

    #[test]
    fn a_cart_is_taken_whole_or_not_at_all(start in start(), items in items()) {
        let run = run(&start, &items, &[]);
        for decision in &run.decisions {
            let moved: Vec<_> = run.movements.iter().filter(|movement| movement.seq == decision.seq).collect();
            if !decision.accepted {
                prop_assert!(moved.is_empty());
                prop_assert!(!decision.reasons().unwrap().is_empty());
                continue;
            }
            let told = decision.accepted_lines().unwrap();
            prop_assert_eq!(told.len(), moved.len());
            for (line, movement) in told.iter().zip(moved) {
                prop_assert_eq!((&line.sku, line.balance), (&movement.sku, movement.balance));
                let moved = match decision.key.kind {
                    CommandKind::OrderCreated => -movement.quantity,
                    CommandKind::Adjustment => movement.quantity,
                };
                prop_assert_eq!(line.quantity, moved);
                prop_assert_eq!(&movement.source, &decision.source);
                prop_assert_eq!(&movement.cause, &decision.key);
            }
        }
    }

    #[test]
    fn decisions_are_numbered_without_gaps_and_each_id_has_one(start in start(), items in items()) {
        let run = run(&start, &items, &[]);
        let mut ids = std::collections::BTreeSet::new();
        for (seq, decision) in (100..).zip(&run.decisions) {
            prop_assert_eq!(decision.seq, Seq(seq));
            prop_assert!(ids.insert(decision.key.clone()));
        }
    }

    #[test]
    fn lines_of_one_sku_are_summed_whatever_their_order(
        lines in prop::collection::vec((sku(), pieces()), 1..40),
        by in any::<Index>(),
    ) {
        let mut turned = lines.clone();
        turned.rotate_left(by.index(lines.len()));
        let one = Ask::Order { id: "o".to_owned(), lines: lines.clone() }.command();
        prop_assert_eq!(&Ask::Order { id: "o".to_owned(), lines: turned }.command(), &one);
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for (sku, pieces) in lines {
            *sums.entry(sku).or_default() += pieces;
        }
        let Action::Take(summed) = one.action else { panic!("an order takes") };
        let summed: Vec<_> = summed.into_iter().map(|line| (line.sku.to_string(), line.quantity)).collect();
        prop_assert_eq!(summed, sums.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn digests_are_equal_exactly_when_the_content_is(one in ask(), other in ask()) {
        let (one_digest, other_digest) = (one.command().digest, other.command().digest);
        let content = |ask: &Ask| match ask.command().action {
            Action::Refuse(reasons) => format!("raw {}", reasons.len()),
            action => format!("{action:?}"),
        };
        prop_assert_eq!(one_digest == other_digest, content(&one) == content(&other));
    }
}

#[test]
fn the_largest_cart_against_the_largest_level_does_not_overflow() {
    let lines = vec![("sku-3".to_owned(), MAX_QUANTITY); MAX_LINES];
    let start = [("sku-3".to_owned(), MAX_QUANTITY)].into();
    let source = Some(Source { at: TopicPartition::new("orders", 0), offset: Offset(0) });
    let item = Item { ask: Ask::Order { id: "o".to_owned(), lines }, source, below: false };
    let requested = MAX_QUANTITY * i64::try_from(MAX_LINES).unwrap();
    assert_eq!(
        said(&run(&start, &[item], &[]).outcomes[0]),
        Said::Rejected(vec![Reason::InsufficientStock {
            sku: sku_of("sku-3"),
            requested,
            available: MAX_QUANTITY
        }])
    );
}
