//! Invariants 1 and 2: levels, and the movements that made them.

use std::collections::BTreeMap;

use super::super::chain::Chain;
use super::super::ledger::Ledger;
use super::decisions::Read;
use crate::ledger::{Adjusted, CommandKind, Item, Map};
use crate::store::{Breach, StoredMovement};

/// Levels below what may be promised of them.
pub(super) fn below_their_limit(ledger: &Ledger) -> impl Iterator<Item = Breach> {
    ledger.levels.iter().filter(|(_, level)| level.available < -level.limits.backorder).map(
        |(item, level)| Breach::LevelBelow {
            item: item.into(),
            available: level.available,
            limit: level.limits.backorder,
        },
    )
}

/// Movements that left less than could ever be promised: the limit may have been higher before.
pub(super) fn were_below_every_limit(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = Breach> {
    let mut highest: Map<Item, i64> =
        ledger.levels.iter().map(|(item, level)| (item.clone(), level.limits.backorder)).collect();
    for Read { decision, moved, .. } in read {
        if decision.key.kind != CommandKind::Adjustment || !decision.accepted {
            continue;
        }
        // Read once already.
        let limits =
            serde_json::from_str(&decision.detail).ok().and_then(|adjusted: Adjusted| adjusted.limits);
        if let Some(limits) = limits {
            for line in moved {
                let highest = highest.entry(line.item.clone()).or_default();
                *highest = limits.backorder.max(*highest);
            }
        }
    }
    ledger.movements.values().flatten().filter_map(move |movement| {
        let limit = highest.get(&movement.item).copied().unwrap_or(0);
        (movement.balance < -limit).then(|| Breach::MovementBelow {
            item: (&movement.item).into(),
            version: movement.version,
            balance: movement.balance,
            limit,
        })
    })
}

/// Movements that do not go on from the one before.
pub(super) fn broken_chains(chains: &BTreeMap<&Item, Chain<'_>>) -> impl Iterator<Item = Breach> {
    chains.iter().flat_map(|(item, chain)| {
        chain.breaks().map(move |broken| {
            let (item, version, before) = ((*item).into(), broken.movement.version, broken.version_before);
            if before.checked_add(1) == Some(version) {
                let StoredMovement { quantity, balance, .. } = *broken.movement;
                Breach::MovementApart { item, version, quantity, balance, before: broken.balance_before }
            } else {
                Breach::MovementsMissing { item, version, before }
            }
        })
    })
}

/// Levels that are not where their movements end.
pub(super) fn not_where_the_chain_ends(
    ledger: &Ledger,
    chains: &BTreeMap<&Item, Chain<'_>>,
) -> impl Iterator<Item = Breach> {
    chains.iter().filter_map(|(item, chain)| {
        let (newest, total) = (chain.newest(), chain.total());
        let Some(level) = ledger.levels.get(*item) else {
            let movements = i64::try_from(chain.len()).unwrap_or(i64::MAX);
            return Some(Breach::LevelMissing { item: (*item).into(), movements });
        };
        let (item, available) = ((*item).into(), level.available);
        if level.version != newest.version {
            Some(Breach::LevelVersion { item, version: level.version, newest: newest.version })
        } else if i128::from(available) != total {
            Some(Breach::LevelTotal { item, available, total })
        } else if available != newest.balance {
            Some(Breach::LevelBalance { item, available, left: newest.balance })
        } else {
            None
        }
    })
}

/// Levels from nowhere.
pub(super) fn without_movements(
    ledger: &Ledger,
    chains: &BTreeMap<&Item, Chain<'_>>,
) -> impl Iterator<Item = Breach> {
    ledger
        .levels
        .iter()
        .filter(|(item, _)| !chains.contains_key(item))
        .map(|(item, level)| Breach::LevelAlone { item: item.into(), available: level.available })
}
