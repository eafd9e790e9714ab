//! Invariants 1 and 2: levels, and the movements that made them.

use std::collections::BTreeMap;

use super::super::chain::Chain;
use super::super::ledger::Ledger;
use super::bound;
use super::decisions::Read;
use crate::ledger::{Adjusted, CommandKind, Item, Map};

/// Levels below what may be promised of them.
pub(super) fn below_their_limit(ledger: &Ledger) -> impl Iterator<Item = String> {
    ledger.levels.iter().filter(|(_, level)| level.available < -level.limits.backorder).map(
        |(item, level)| {
            format!("SKU {item}: its level is {}, below {}", level.available, bound(level.limits.backorder))
        },
    )
}

/// Movements that left less than could ever be promised: the limit may have been higher before.
pub(super) fn were_below_every_limit(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = String> {
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
        (movement.balance < -limit).then(|| {
            let (item, version, balance) = (&movement.item, movement.version, movement.balance);
            format!("SKU {item}: movement {version} left {balance}, below {}", bound(limit))
        })
    })
}

/// Movements that do not go on from the one before.
pub(super) fn broken_chains(chains: &BTreeMap<&Item, Chain<'_>>) -> impl Iterator<Item = String> {
    chains.iter().flat_map(|(item, chain)| {
        chain.breaks().map(move |broken| {
            let (movement, before) = (broken.movement, broken.version_before);
            if before.checked_add(1) == Some(movement.version) {
                format!(
                    "SKU {item}: movement {} moved {} and left {}, but {} was there before",
                    movement.version, movement.quantity, movement.balance, broken.balance_before
                )
            } else {
                format!("SKU {item}: movement {} comes after movement {before}", movement.version)
            }
        })
    })
}

/// Levels that are not where their movements end.
pub(super) fn not_where_the_chain_ends(
    ledger: &Ledger,
    chains: &BTreeMap<&Item, Chain<'_>>,
) -> impl Iterator<Item = String> {
    chains.iter().filter_map(|(item, chain)| {
        let (newest, total) = (chain.newest(), chain.total());
        let Some(level) = ledger.levels.get(*item) else {
            return Some(format!("SKU {item}: {} movements, but no level", chain.len()));
        };
        let available = level.available;
        if level.version != newest.version {
            let (version, newest) = (level.version, newest.version);
            Some(format!("SKU {item}: its level has version {version}, its newest movement {newest}"))
        } else if i128::from(available) != total {
            Some(format!("SKU {item}: its level is {available}, its movements add up to {total}"))
        } else if available != newest.balance {
            let left = newest.balance;
            Some(format!("SKU {item}: its level is {available}, its newest movement left {left}"))
        } else {
            None
        }
    })
}

/// Levels from nowhere.
pub(super) fn without_movements(
    ledger: &Ledger,
    chains: &BTreeMap<&Item, Chain<'_>>,
) -> impl Iterator<Item = String> {
    ledger
        .levels
        .iter()
        .filter(|(item, _)| !chains.contains_key(item))
        .map(|(item, level)| format!("SKU {item}: a level of {}, but no movements", level.available))
}
