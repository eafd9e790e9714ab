//! Invariant 3: one decision for each command, which moved what it says.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ledger::Ledger;
use crate::ledger::{CommandKey, CommandKind, Decision, Item, check_detail};
use crate::store::{Breach, StoredMovement};

/// A decision, and what it says that it moved; nothing where it was rejected or its text cannot be read.
pub(super) struct Read<'l> {
    pub(super) decision: &'l Decision,
    pub(super) moved: Vec<Moved>,
}

/// What a decision says that it moved of one item.
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
pub(super) fn read(ledger: &Ledger) -> (Vec<Read<'_>>, Vec<Breach>) {
    let mut unreadable = Vec::new();
    let read = ledger.decisions.values().map(|decision| {
        let kind = decision.key.kind;
        let moved = check_detail(kind, decision.accepted, &decision.detail).and_then(|()| moved(decision));
        let moved = moved.unwrap_or_else(|error| {
            unreadable.push(Breach::Unreadable { id: decision.key.id.to_string(), why: error.to_string() });
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
pub(super) fn made_twice(ledger: &Ledger) -> impl Iterator<Item = Breach> {
    let mut times: BTreeMap<&CommandKey, i64> = BTreeMap::new();
    for decision in ledger.decisions.values() {
        *times.entry(&decision.key).or_default() += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(key, times)| Breach::DecidedAgain {
        id: key.id.to_string(),
        kind: key.kind.number(),
        times,
    })
}

/// Movements that are not what a decision says.
pub(super) fn movements_not_decided(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = Breach> {
    // In the ledger's order, as the movements are.
    let find = |seq| read.binary_search_by_key(&seq, |one| one.decision.seq).ok().map(|at| &read[at]);
    ledger.movements.values().flatten().filter_map(move |movement| {
        let own = ledger.decision(&movement.cause).map(|own| &**own);
        breach(movement, find(movement.seq), own)
    })
}

/// What is wrong with a movement, by the decision at its ledger sequence and that of its command.
fn breach(movement: &StoredMovement, at: Option<&Read<'_>>, own: Option<&Decision>) -> Option<Breach> {
    let at = at.filter(|at| is_as_said(movement, at)).map(|at| at.decision);
    let record_of =
        |decision: &Decision| decision.source.as_ref().map(|source| (source.at.partition, source.offset));
    if at.is_some_and(|at| record_of(at) == movement.record) {
        return None;
    }
    let (item, version, id) = ((&movement.item).into(), movement.version, movement.cause.id.to_string());
    Some(match (own, at) {
        (None, _) => Breach::MovementUndecided { item, version, id },
        (Some(own), _) if own.seq != movement.seq => {
            Breach::MovementSequence { item, version, id, seq: movement.seq, decided: own.seq }
        }
        (Some(own), _) if !own.accepted => Breach::RejectedMoved { id, version, item },
        (Some(_), Some(at)) => Breach::MovementRecord {
            id,
            version,
            item,
            record: movement.record.into(),
            decided: record_of(at).into(),
        },
        (Some(own), None) => Breach::MovementOther {
            id,
            version,
            item,
            quantity: movement.quantity,
            balance: movement.balance,
            detail: own.detail.chars().take(EXCERPT).collect(),
        },
    })
}

/// Whether a decision is the movement's, and says this of the item, once.
fn is_as_said(movement: &StoredMovement, Read { decision, moved }: &Read<'_>) -> bool {
    let mut of_item = moved.iter().filter(|line| line.item == movement.item);
    decision.key == movement.cause
        && of_item.next().is_some_and(|line| {
            (line.quantity, line.balance) == (movement.quantity, movement.balance) && decision.accepted
        })
        && of_item.next().is_none()
}

/// What accepted decisions say that was moved, and was not; where each movement is what a line says, both match one to one
/// then. What is given back may be nothing; an order took something, and an adjustment names its one line even when it
/// changed nothing.
pub(super) fn lines_not_moved(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = Breach> {
    read.iter().filter(|one| one.decision.accepted).flat_map(|Read { decision, moved }| {
        let id = || decision.key.id.to_string();
        let must_move = matches!(decision.key.kind, CommandKind::OrderCreated | CommandKind::Adjustment);
        // One that cannot be read is named for that.
        let is_readable = || check_detail(decision.key.kind, true, &decision.detail).is_ok();
        let no_line = (must_move && moved.is_empty() && is_readable()).then(|| Breach::NoLine { id: id() });
        let movements = ledger.movements.get(&decision.seq).map_or(&[][..], Vec::as_slice);
        let items: BTreeSet<&Item> = moved.iter().map(|line| &line.item).collect();
        let not_moved: Vec<Breach> = items
            .into_iter()
            .filter(|item| !movements.iter().any(|movement| movement.item == **item))
            .map(|item| Breach::NotMoved { id: id(), item: item.into() })
            .collect();
        no_line.into_iter().chain(not_moved)
    })
}
