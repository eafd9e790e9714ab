//! What a cart would get, by the rules that decide orders: an estimate, since nothing is locked and nothing is taken.

use super::command::sum_lines;
use super::stock::{self, Levels};
use super::{Item, Policy, Quantity, Reason};

/// What a cart would get if it were decided on these levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precheck {
    /// Whether an order for it would be accepted.
    pub acceptable: bool,
    /// Line by line, sorted by item, lines of one item summed.
    pub lines: Vec<PrecheckedLine>,
}

/// What a line of a cart would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecheckedLine {
    /// Which item.
    pub item: Item,
    /// Pieces asked for.
    pub requested: i64,
    /// Pieces it would get: 0 where the order would be rejected.
    pub granted: i64,
    /// Of these, pieces that are not there and would be promised.
    pub backordered: i64,
    /// Why it would not get all; `None` where the line alone could.
    pub reason: Option<Reason>,
}

/// Decides a cart as an order of this policy would be decided on these levels; an item that is not in them is unknown.
/// The caller bounds the lines at [`super::MAX_LINES`].
#[must_use]
pub fn precheck(mut levels: Levels, lines: Vec<(Item, Quantity)>, policy: Policy) -> Precheck {
    let lines = sum_lines(lines);
    let reasons: Vec<Option<Reason>> =
        lines.iter().map(|line| stock::grant(levels.get(&line.item), line).1).collect();
    let (acceptable, taken) = match stock::take(&mut levels, &lines, policy) {
        Ok((taken, _)) => (true, taken),
        Err(_) => (false, Vec::new()),
    };
    // Both are in the lines' order, and what got nothing is not among the taken.
    let mut taken = taken.iter().map(stock::Change::taken).peekable();
    let lines = lines.into_iter().zip(reasons).map(|(line, reason)| {
        let got = taken.next_if(|got| got.sku == line.item.sku && got.location == line.item.location);
        PrecheckedLine {
            requested: line.quantity,
            granted: got.as_ref().map_or(0, |got| got.quantity),
            backordered: got.as_ref().map_or(0, |got| got.backordered),
            item: line.item,
            reason,
        }
    });
    Precheck { acceptable, lines: lines.collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{
        Command, Decision, Id, Level, Limits, Outcome, Request, Seq, Sequenced, Sequences, Sku, Stamp, Terms,
        View, decide,
    };
    use super::*;

    fn item(number: u8) -> Item {
        Sku::new(&format!("SKU-{number}")).unwrap().into()
    }

    fn levels() -> impl Strategy<Value = Levels> {
        let level = (-3..9_i64, 0..5_i64, proptest::option::of(1..6_i64)).prop_map(
            |(available, backorder, order)| Level {
                available: available.max(-backorder),
                version: 1,
                limits: Limits { backorder, order },
            },
        );
        proptest::collection::hash_map(0..5_u8, level, 0..5)
            .prop_map(|levels| levels.into_iter().map(|(number, level)| (item(number), level)).collect())
    }

    fn cart() -> impl Strategy<Value = Vec<(Item, Quantity)>> {
        let line =
            (0..6_u8, 1..6_i64).prop_map(|(number, pieces)| (item(number), Quantity::new(pieces).unwrap()));
        proptest::collection::vec(line, 1..6)
    }

    fn decided(levels: Levels, cart: Vec<(Item, Quantity)>, policy: Policy) -> Arc<Decision> {
        let terms = Terms { policy, hold: None };
        let command = Command::order_created(Id::new("o-1").unwrap(), cart, terms);
        let view = View { levels, ..View::default() };
        let next = Sequences::From(Sequenced { seq: Seq(1), at: Stamp(0) });
        let changes = decide(view, &[Request { command, source: None }], |_| false, next);
        match changes.outcomes.into_iter().next() {
            Some(Outcome::Decided(decision)) => decision,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn a_cart_is_checked_as_its_order_would_be_decided(
            levels in levels(), cart in cart(), partial in any::<bool>()
        ) {
            let policy = if partial { Policy::Partial } else { Policy::AllOrNone };
            let decision = decided(levels.clone(), cart.clone(), policy);
            let checked = precheck(levels, cart, policy);
            prop_assert_eq!(checked.acceptable, decision.accepted);
            let reasons: Vec<Reason> =
                checked.lines.iter().filter_map(|line| line.reason.clone()).collect();
            let granted: Vec<(Item, i64, i64)> = checked
                .lines
                .iter()
                .filter(|line| line.granted > 0)
                .map(|line| (line.item.clone(), line.granted, line.backordered))
                .collect();
            if decision.accepted {
                let detail: super::super::OrderTaken = serde_json::from_str(&decision.detail).unwrap();
                prop_assert_eq!(reasons, detail.short);
                let taken: Vec<(Item, i64, i64)> = detail
                    .lines
                    .into_iter()
                    .map(|line| {
                        (Item { sku: line.sku, location: line.location }, line.quantity, line.backordered)
                    })
                    .collect();
                prop_assert_eq!(granted, taken);
            } else {
                prop_assert_eq!(reasons, decision.reasons().unwrap());
                prop_assert!(granted.is_empty());
            }
        }
    }
}
