//! Invariant 3: one decision for each command, which moved what it says.

use std::collections::BTreeMap;

use super::super::ledger::Ledger;
use crate::ledger::{CommandKey, CommandKind, Decision, Item, check_detail};
use crate::store::StoredMovement;

/// A decision, and what it says that it moved; nothing where it was rejected or its text cannot be read.
pub(super) struct Read<'l> {
    pub(super) decision: &'l Decision,
    pub(super) moved: Vec<Moved>,
}

/// What a decision says that it moved of one item.
#[derive(PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) item: Item,
    /// Pieces added (positive) or taken (negative).
    pub(super) quantity: i64,
    /// The level after it.
    pub(super) balance: i64,
}

/// Longest part of a decision's text that a finding shows, in characters.
const EXCERPT: usize = 200;

/// Every decision in the ledger's order, and which of them cannot be read.
pub(super) fn read(ledger: &Ledger) -> (Vec<Read<'_>>, Vec<String>) {
    let mut unreadable = Vec::new();
    let read = ledger.decisions.values().map(|decision| {
        let (id, kind) = (&decision.key.id, decision.key.kind);
        let moved = check_detail(kind, decision.accepted, &decision.detail).and_then(|()| moved(decision));
        let moved = moved.unwrap_or_else(|error| {
            unreadable.push(format!("command {id}: its decision is not readable JSON: {error}"));
            Vec::new()
        });
        Read { decision, moved }
    });
    (read.collect(), unreadable)
}

fn moved(decision: &Decision) -> Result<Vec<Moved>, serde_json::Error> {
    if !decision.accepted {
        return Ok(Vec::new());
    }
    let taken = |sign: i64| {
        let lines = decision.accepted_lines()?.into_iter().map(|line| Moved {
            item: Item { sku: line.sku, location: line.location },
            quantity: sign.saturating_mul(line.quantity),
            balance: line.balance,
        });
        Ok(lines.collect())
    };
    match decision.key.kind {
        CommandKind::OrderCreated => taken(-1),
        CommandKind::Adjustment => taken(1),
        CommandKind::HoldExtended => Ok(Vec::new()),
        CommandKind::OrderCancelled
        | CommandKind::OrderReturned
        | CommandKind::OrderConfirmed
        | CommandKind::OrderReleased
        | CommandKind::HoldExpired => {
            let lines = decision.returned_lines()?.into_iter().map(|line| Moved {
                item: Item { sku: line.sku, location: line.location },
                quantity: line.quantity,
                balance: line.balance,
            });
            Ok(lines.collect())
        }
    }
}

/// Commands that were decided more than once.
pub(super) fn made_twice(ledger: &Ledger) -> impl Iterator<Item = String> {
    let mut times: BTreeMap<&CommandKey, usize> = BTreeMap::new();
    for decision in ledger.decisions.values() {
        *times.entry(&decision.key).or_default() += 1;
    }
    times
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(key, times)| format!("command {} (kind {}): {times} decisions", key.id, key.kind.number()))
}

/// Movements that are not what a decision says.
pub(super) fn movements_not_decided(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = String> {
    // In the ledger's order, as the movements are.
    let find = |seq| read.binary_search_by_key(&seq, |one| one.decision.seq).ok().map(|at| &read[at]);
    ledger.movements.values().flatten().filter_map(move |movement| fault(movement, find(movement.seq)))
}

fn fault(movement: &StoredMovement, decided: Option<&Read<'_>>) -> Option<String> {
    let StoredMovement { item, version, quantity, balance, cause, seq, .. } = movement;
    let id = &cause.id;
    let Some(Read { decision, moved }) = decided else {
        return Some(format!(
            "SKU {item}: movement {version} is of command {id}, which has no decision at ledger sequence {seq}"
        ));
    };
    let says = Moved { item: item.clone(), quantity: *quantity, balance: *balance };
    if decision.key != *cause {
        Some(format!(
            "SKU {item}: movement {version} is of command {id}, but ledger sequence {seq} decided command {}",
            decision.key.id
        ))
    } else if !decision.accepted {
        Some(format!("command {id} was rejected, yet movement {version} of SKU {item} took effect"))
    } else if moved.contains(&says) {
        None
    } else {
        let detail: String = decision.detail.chars().take(EXCERPT).collect();
        Some(format!(
            "command {id}: movement {version} of SKU {item} ({quantity}, leaving {balance}) is not what its decision \
             says: {detail}"
        ))
    }
}

/// Accepted decisions with more or fewer lines than movements: where each movement is what a line says, equal numbers
/// mean that both match one to one. What is given back may be nothing; an order took something, and an adjustment names
/// its one line even when it changed nothing.
pub(super) fn lines_not_moved(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = String> {
    read.iter().filter(|one| one.decision.accepted).filter_map(|Read { decision, moved }| {
        let (lines, movements) = (moved.len(), ledger.movements.get(&decision.seq).map_or(0, Vec::len));
        let must_move = matches!(decision.key.kind, CommandKind::OrderCreated | CommandKind::Adjustment);
        (lines != movements || lines == 0 && must_move)
            .then(|| format!("command {}: {lines} lines accepted, {movements} movements", decision.key.id))
    })
}
