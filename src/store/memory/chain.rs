//! The movements of one item: a chain, whose end is the item's level.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use crate::ledger::{Item, Level, Limits};
use crate::store::StoredMovement;

/// An item's movements, by version. There is at least one.
pub(super) struct Chain<'l>(Vec<&'l StoredMovement>);

/// Where the movements of an item do not go on from one another.
pub(super) struct Break<'l> {
    pub(super) movement: &'l StoredMovement,
    /// The version and the balance before it; zero before the first.
    pub(super) version_before: i64,
    pub(super) balance_before: i64,
}

/// The chain of every item that ever moved.
pub(super) fn chains(ledger: &Ledger) -> BTreeMap<&Item, Chain<'_>> {
    let mut chains: BTreeMap<&Item, Vec<&StoredMovement>> = BTreeMap::new();
    for movement in ledger.movements.values().flatten() {
        chains.entry(&movement.item).or_default().push(movement);
    }
    chains
        .into_iter()
        .map(|(item, mut movements)| {
            movements.sort_by_key(|movement| movement.version);
            (item, Chain(movements))
        })
        .collect()
}

impl<'l> Chain<'l> {
    /// How many movements there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The movement with the highest version.
    pub(super) fn newest(&self) -> &'l StoredMovement {
        // Holds because a chain is made of a movement, and gets more.
        self.0.last().expect("a movement")
    }

    /// What the movements add up to. Damaged ones may add up to more than a level can be.
    pub(super) fn total(&self) -> i128 {
        self.0.iter().map(|movement| i128::from(movement.quantity)).sum()
    }

    /// The movements whose version or balance does not follow from the one before.
    pub(super) fn breaks(&self) -> impl Iterator<Item = Break<'l>> {
        let before = std::iter::once((0, 0)).chain(self.0.iter().map(|one| (one.version, one.balance)));
        self.0.iter().zip(before).filter_map(|(movement, (version_before, balance_before))| {
            let follows = version_before.checked_add(1) == Some(movement.version)
                && balance_before.checked_add(movement.quantity) == Some(movement.balance);
            (!follows).then_some(Break { movement, version_before, balance_before })
        })
    }
}

/// A level that its newest movement leaves: 0 where nothing moved it. Its limits stay; where there was no level they
/// allow what was promised, and nothing more is known of them.
pub(super) fn level_after(newest: Option<&StoredMovement>, level: Option<&Level>) -> Level {
    let (available, version) = newest.map_or((0, 0), |newest| (newest.balance, newest.version));
    let unknown = Limits { backorder: available.saturating_neg().max(0), order: None };
    Level { available, version, limits: level.map_or(unknown, |level| level.limits) }
}
