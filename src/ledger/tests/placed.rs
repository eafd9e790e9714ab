//! What is decided before its place in the ledger's order is known.

use proptest::prelude::*;

use super::generate::{records, start};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_rests_on_levels_alone_is_decided_the_same_before_its_place_is_known(
        start in start(),
        records in records(),
        place in (0..i64::MAX / 2, any::<i64>()),
    ) {
        let requests: Vec<Request> = records
            .iter()
            .map(|record| Request { command: record.ask.command(record.id), source: record.source.clone() })
            .filter(|request| request.command.rests_on_levels())
            .collect();
        let view = || View {
            levels: start.iter().map(|(thing, level)| (item(*thing), *level)).collect(),
            ..View::default()
        };
        let first = Sequenced { seq: Seq(place.0), at: Stamp(place.1) };
        let decided = |sequences| decide(view(), &requests, |_| false, sequences);
        let known = decided(Sequences::From(first));
        let mut unknown = decided(Sequences::UNPLACED);
        unknown.place(first);
        prop_assert_eq!(&unknown.outcomes, &known.outcomes);
        prop_assert_eq!(&unknown.decisions, &known.decisions);
        prop_assert_eq!(&unknown.movements, &known.movements);
        prop_assert_eq!(&unknown.levels, &known.levels);
        prop_assert_eq!(&unknown.orders, &known.orders);
        prop_assert!(known.orders.is_empty(), "no order's life begins with it");
        let shared = unknown.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Decided(decision) => Some(decision),
            _ => None,
        });
        prop_assert!(shared.zip(&unknown.decisions).all(|(one, other)| Arc::ptr_eq(one, other)));
    }
}
