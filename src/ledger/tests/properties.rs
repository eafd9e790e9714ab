//! What holds whatever comes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::generate::{ask, cuts, pieces, records, start, thing, turned};
use super::model::{Model, Said, Shelf, sums};
use super::*;

/// Early enough for every hold to be open to the end of a run in which no time passes.
const NOW: Stamp = Stamp(5);

/// The records in batches: cut there, so many seconds apart.
pub(super) fn batches<'r>(records: &'r [Record], cuts: &[(usize, i64)]) -> Vec<Batch<'r>> {
    let (mut batches, mut begin, mut now) = (Vec::new(), 0, NOW);
    for (cut, seconds) in cuts.iter().copied().chain([(records.len(), 1)]) {
        let end = cut.clamp(begin, records.len());
        now = now.plus_seconds(seconds);
        batches.push((now, &records[begin..end]));
        begin = end;
    }
    batches
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Decided(decision) => {
            let published: Value = serde_json::from_str(&decision.detail).unwrap();
            if decision.accepted { Said::Accepted(published) } else { Said::Rejected(published) }
        }
        Outcome::Republished(_) => Said::Republished,
        Outcome::Repeated => Said::Repeated,
        Outcome::Conflict { first } => Said::Conflict(first.clone()),
        Outcome::NotDue => Said::NotDue,
        Outcome::Undecided => Said::Undecided,
    }
}

/// Decides the batches and lets the model decide each of their records, at the same times.
fn agrees_with_the_model(start: &Start, batches: &[Batch<'_>]) -> Result<(), TestCaseError> {
    let shelf = |level: &Level| Shelf {
        pieces: level.available,
        version: level.version,
        backorder: level.limits.backorder,
        most: level.limits.order,
    };
    let mut model = Model::default();
    model.stock.extend(start.iter().map(|(thing, level)| (*thing, shelf(level))));
    let mut expected = Vec::new();
    for (now, records) in batches {
        expected.extend(records.iter().map(|record| model.one(record, now.0)));
    }
    let run = run(start, batches);
    prop_assert_eq!(run.outcomes.iter().map(said).collect::<Vec<_>>(), expected);

    let movements: Vec<_> = model
        .movements
        .iter()
        .map(|(thing, version, quantity, balance, (kind, own))| {
            (item(*thing), *version, *quantity, *balance, CommandKey { id: id(own), kind: *kind })
        })
        .collect();
    let moved: Vec<_> = run
        .movements
        .iter()
        .map(|m| (m.item.clone(), m.version, m.quantity, m.balance, m.cause.clone()))
        .collect();
    prop_assert_eq!(moved, movements);

    let levels: BTreeMap<_, _> = model.stock.iter().map(|(thing, shelf)| (item(*thing), *shelf)).collect();
    let found: BTreeMap<_, _> = run.levels.iter().map(|(item, level)| (item.clone(), shelf(level))).collect();
    prop_assert_eq!(found, levels);

    let orders: BTreeMap<_, _> = model
        .orders
        .iter()
        .map(|(own, order)| {
            let lines = order.lines.iter().map(|(thing, (deducted, returned))| OrderStock {
                item: item(*thing),
                deducted: *deducted,
                returned: *returned,
            });
            let at = order.source.as_ref().map(|source| source.at.clone());
            let hold = order.open_until().map(|end| Hold { expires_at: Stamp(end), at });
            (id(own), OrderState { lines: lines.collect(), hold })
        })
        .collect();
    prop_assert_eq!(run.orders, orders);
    Ok(())
}

/// The records that were decided, each with its decision and the movements that made.
fn decided<'r>(
    run: &'r Run,
    records: &'r [Record],
) -> impl Iterator<Item = (&'r Record, &'r Decision, Vec<&'r Movement>)> {
    records.iter().zip(&run.outcomes).filter_map(|(record, outcome)| {
        let Outcome::Decided(decision) = outcome else { return None };
        let moved = run.movements.iter().filter(|movement| movement.seq == decision.seq);
        Some((record, &**decision, moved.collect()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_batch_is_decided_as_the_model_decides_one_at_a_time(start in start(), records in records()) {
        agrees_with_the_model(&start, &[(NOW, &records)])?;
    }

    #[test]
    fn as_time_passes_batches_are_decided_as_the_model_decides(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        agrees_with_the_model(&start, &batches(&records, &cuts))?;
    }

    #[test]
    fn it_does_not_matter_how_records_are_cut_into_batches(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        let at_once = |cuts: &[(usize, i64)]| {
            let batches: Vec<_> = batches(&records, cuts).into_iter().map(|(_, part)| (NOW, part)).collect();
            run(&start, &batches)
        };
        let whole = at_once(&[]);
        prop_assert_eq!(&at_once(&cuts), &whole);
        let singly: Vec<_> = (1..records.len()).map(|cut| (cut, 0)).collect();
        prop_assert_eq!(&at_once(&singly), &whole);
    }

    #[test]
    fn every_level_is_explained_by_its_movements_and_none_is_below_what_may_be_promised(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        let run = run(&start, &batches(&records, &cuts));
        let mut levels: BTreeMap<Item, Level> =
            start.iter().map(|(thing, level)| (item(*thing), *level)).collect();
        for movement in &run.movements {
            let level = levels.entry(movement.item.clone()).or_default();
            let decision = &run.by_key[&movement.cause];
            if movement.cause.kind == CommandKind::Adjustment {
                let published: Adjusted = serde_json::from_str(&decision.detail).unwrap();
                level.limits = published.limits.unwrap_or(level.limits);
            }
            prop_assert_eq!(movement.version, level.version + 1, "versions have no gap");
            prop_assert_eq!(movement.balance, level.available + movement.quantity, "balances chain");
            prop_assert!(movement.balance >= -level.limits.backorder);
            prop_assert_eq!((movement.seq, &movement.source), (decision.seq, &decision.source));
            (level.available, level.version) = (movement.balance, movement.version);
        }
        prop_assert_eq!(levels, run.levels);
    }

    #[test]
    fn a_cart_is_taken_whole_or_not_at_all_unless_it_may_be_partial(
        start in start(),
        records in records(),
    ) {
        let run = run(&start, &[(NOW, &records)]);
        for (record, decision, moved) in decided(&run, &records) {
            if !decision.accepted {
                prop_assert!(moved.is_empty());
                prop_assert!(!decision.reasons().unwrap().is_empty());
                continue;
            }
            let Ask::Order { lines, partial, .. } = &record.ask else { continue };
            let asked: BTreeMap<Item, i64> =
                sums(lines).into_iter().map(|(thing, pieces)| (item(thing), pieces)).collect();
            let taken: BTreeMap<Item, i64> =
                moved.iter().map(|movement| (movement.item.clone(), -movement.quantity)).collect();
            prop_assert_eq!(taken.len(), moved.len(), "each item once");
            if *partial {
                prop_assert!(!taken.is_empty());
                let published: OrderTaken = serde_json::from_str(&decision.detail).unwrap();
                let short = asked.iter().filter(|(item, pieces)| taken.get(*item) != Some(*pieces)).count();
                prop_assert_eq!(published.short.len(), short, "each line that is short has its reason");
                prop_assert!(taken.iter().all(|(item, pieces)| (1..=asked[item]).contains(pieces)));
            } else {
                prop_assert_eq!(taken, asked);
            }
        }
    }

    #[test]
    fn an_order_gives_back_what_it_took_at_most_and_every_piece_given_back_is_its(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        let run = run(&start, &batches(&records, &cuts));
        let mut back: BTreeMap<(Id, Item), i64> = BTreeMap::new();
        for (record, _, moved) in decided(&run, &records) {
            let order = match &record.ask {
                Ask::Cancel | Ask::Release | Ask::Due => record.id,
                Ask::Return { order, .. } | Ask::Confirm { order, .. } => order,
                Ask::Extend { .. } => {
                    prop_assert!(moved.is_empty());
                    continue;
                }
                _ => continue,
            };
            for movement in moved {
                prop_assert!(movement.quantity > 0);
                *back.entry((id(order), movement.item.clone())).or_default() += movement.quantity;
            }
        }
        for (own, order) in &run.orders {
            for line in &order.lines {
                prop_assert!(0 <= line.returned && line.returned <= line.deducted);
                let given = back.remove(&(own.clone(), line.item.clone())).unwrap_or(0);
                prop_assert_eq!(given, line.returned);
            }
        }
        prop_assert!(back.is_empty(), "given back for no order: {:?}", back);
    }

    #[test]
    fn an_order_that_was_given_up_or_is_over_has_nothing_left(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        let run = run(&start, &batches(&records, &cuts));
        for (own, order) in &run.orders {
            let ended = [CommandKind::OrderCancelled, CommandKind::OrderReleased, CommandKind::HoldExpired]
                .into_iter()
                .any(|kind| run.by_key.get(&CommandKey { id: own.clone(), kind }).is_some_and(|d| d.accepted));
            if ended {
                prop_assert_eq!(&order.hold, &None);
                prop_assert!(order.lines.iter().all(|line| line.returned == line.deducted));
            }
        }
    }

    #[test]
    fn decisions_are_numbered_without_gaps_and_each_command_has_one(
        start in start(),
        records in records(),
        cuts in cuts(),
    ) {
        let run = run(&start, &batches(&records, &cuts));
        let mut keys = BTreeSet::new();
        for (seq, decision) in (100..).zip(&run.decisions) {
            prop_assert_eq!(decision.seq, Seq(seq));
            prop_assert!(keys.insert(decision.key.clone()));
        }
    }

    #[test]
    fn lines_of_one_item_are_summed_whatever_their_order(
        lines in prop::collection::vec((thing(), pieces()), 1..40),
        by in any::<Index>(),
    ) {
        let mut rotated = lines.clone();
        rotated.rotate_left(by.index(lines.len()));
        let order = |lines| Ask::Order { lines, partial: false, hold: None }.command("o");
        let one = order(lines.clone());
        prop_assert_eq!(&order(rotated), &one);
        let Action::Take { lines: summed, .. } = one.action else { panic!("an order takes") };
        let summed: Vec<_> = summed.into_iter().map(|line| (line.item, line.quantity)).collect();
        let expected: Vec<_> = sums(&lines).into_iter().map(|(thing, pieces)| (item(thing), pieces)).collect();
        prop_assert_eq!(summed, expected);
    }

    #[test]
    fn digests_are_equal_exactly_when_the_content_is(one in ask(), other in ask()) {
        let content = |ask: &Ask| match ask.command("i").action {
            Action::Refuse(reasons) => format!("raw {}", reasons.len()),
            action => format!("{action:?}"),
        };
        for (one, other) in [(&one, &other), (&one, &turned(one.clone()))] {
            let same = one.command("i").digest == other.command("j").digest;
            prop_assert_eq!(same, content(one) == content(other));
        }
    }
}

/// What was decided of a command, in a few words.
fn words(decision: &Decision) -> Vec<String> {
    let kind = decision.key.kind.name();
    if decision.accepted {
        let published: Value = serde_json::from_str(&decision.detail).unwrap();
        let short = if published.get("short").is_some() { " in part" } else { "" };
        let back = published.get("returned").is_some_and(|lines| lines != &Value::Array(Vec::new()));
        return vec![format!("{kind} accepted{short}{}", if back { ", giving back" } else { "" })];
    }
    decision.reasons().unwrap().iter().map(|reason| format!("{kind} {}", reason.name())).collect()
}

#[test]
fn what_is_generated_meets_every_rule() {
    let mut runner = TestRunner::deterministic();
    let strategy = (start(), records(), cuts());
    let mut met = BTreeSet::new();
    for _ in 0..400 {
        let (start, records, cuts) = strategy.new_tree(&mut runner).unwrap().current();
        let run = run(&start, &batches(&records, &cuts));
        met.extend(run.decisions.iter().flat_map(|decision| words(decision)));
        met.extend(run.outcomes.iter().filter(|o| !matches!(o, Outcome::Decided(_))).map(|outcome| {
            let word = format!("{outcome:?}");
            word.split_once(['(', ' ']).map_or(word.clone(), |(name, _)| name.to_owned())
        }));
    }
    for rule in [
        "adjustment accepted",
        "adjustment insufficient_stock",
        "adjustment limit_exceeded",
        "adjustment unknown_sku",
        "adjustment version_mismatch",
        "hold.expired accepted, giving back",
        "order.cancelled accepted",
        "order.cancelled accepted, giving back",
        "order.cancelled invalid_order",
        "order.confirmed accepted",
        "order.confirmed accepted, giving back",
        "order.confirmed already_cancelled",
        "order.confirmed already_confirmed",
        "order.confirmed hold_expired",
        "order.confirmed limit_exceeded",
        "order.confirmed order_not_found",
        "order.created accepted",
        "order.created accepted in part",
        "order.created insufficient_stock",
        "order.created limit_exceeded",
        "order.created order_cancelled",
        "order.created unknown_sku",
        "order.hold_extended accepted",
        "order.hold_extended already_cancelled",
        "order.hold_extended already_confirmed",
        "order.hold_extended hold_expired",
        "order.hold_extended order_not_found",
        "order.released accepted, giving back",
        "order.released already_cancelled",
        "order.released already_confirmed",
        "order.released hold_expired",
        "order.released order_not_found",
        "order.returned accepted, giving back",
        "order.returned already_cancelled",
        "order.returned hold_expired",
        "order.returned order_not_found",
        "order.returned return_exceeds_deducted",
        "Conflict",
        "NotDue",
        "Repeated",
        "Republished",
        "Undecided",
    ] {
        assert!(met.contains(rule), "{rule} is not among {met:#?}");
    }
}
