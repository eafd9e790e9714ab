//! The past, decided again.

use proptest::prelude::*;
use proptest::sample::Index;

use super::generate::{cuts, records, start};
use super::properties::batches;
use super::*;

/// The decisions of a run, in their order; with the commands they were made of, or as they alone say it.
fn steps(run: &Run, records: &[Record], with_commands: bool) -> Vec<Step> {
    let commands = records
        .iter()
        .zip(&run.outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Decided(_)))
        .map(|(record, _)| record.ask.command(record.id));
    run.decisions
        .iter()
        .zip(commands)
        .map(|(decision, command)| {
            let mut movements: Vec<_> =
                run.movements.iter().filter(|movement| movement.seq == decision.seq).cloned().collect();
            movements.sort_by(|a, b| a.item.cmp(&b.item));
            Step { decision: Arc::clone(decision), movements, command: with_commands.then_some(command) }
        })
        .collect()
}

/// Decides all of it again, in pages; what differs, and the past at its end.
fn again(start: &Start, run: &Run, steps: &[Step], page: usize) -> (Vec<Difference>, ReplayState) {
    let mut state = ReplayState::default();
    state.assume(start.iter().map(|(thing, level)| (item(*thing), *level)));
    let mut differences = Vec::new();
    for page in steps.chunks(page) {
        let needs = state.needs(page);
        let known = run
            .by_key
            .iter()
            .filter(|(key, _)| needs.contains(&key.id))
            .map(|(key, decision)| (key.clone(), Arc::clone(decision)))
            .collect();
        differences.extend(state.go_on(page, &known));
    }
    (differences, state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_was_decided_is_decided_again_from_its_records_or_from_itself(
        start in start(),
        records in records(),
        cuts in cuts(),
        page in 1_usize..20,
    ) {
        let run = run(&start, &batches(&records, &cuts));
        for with_commands in [true, false] {
            let (differences, state) = again(&start, &run, &steps(&run, &records, with_commands), page);
            prop_assert_eq!(differences, []);
            let levels: BTreeMap<_, _> =
                state.levels().map(|(item, level)| (item.clone(), *level)).collect();
            prop_assert_eq!(&levels, &run.levels);
            for (id, order) in &run.orders {
                prop_assert_eq!(state.hold(id), order.hold.as_ref());
            }
        }
    }

    #[test]
    fn a_verdict_turned_round_is_the_first_difference_found(
        start in start(),
        records in records(),
        which in any::<Index>(),
        page in 1_usize..20,
    ) {
        let run = run(&start, &batches(&records, &[]));
        prop_assume!(!run.decisions.is_empty());
        let mut steps = steps(&run, &records, true);
        let step = &mut steps[which.index(run.decisions.len())];
        let mut damaged = Decision::clone(&step.decision);
        damaged.accepted = !damaged.accepted;
        step.decision = Arc::new(damaged);
        let key = step.decision.key.clone();
        let (differences, _) = again(&start, &run, &steps, page);
        prop_assert_eq!(differences.first().map(|found| &found.key), Some(&key));
    }
}
