//! Invariant 3: what is kept of orders beside their decisions, against those.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ledger::Ledger;
use super::decisions::Read;
use crate::ledger::{CommandKind, Decision, Id, Item, OrderStock, OrderTaken};
use crate::store::Breach;

/// What the decisions about each order gave back of each item.
pub(super) type GivenBack<'l> = BTreeMap<(Id, &'l Item), i64>;

/// What the decisions say that was given back.
pub(super) fn given_back<'r>(read: &'r [Read<'_>]) -> GivenBack<'r> {
    let mut given = GivenBack::new();
    for Read { decision, moved } in read {
        if let Some(order_id) = decision.follows() {
            for line in moved {
                let pieces = given.entry((order_id.clone(), &line.item)).or_default();
                *pieces = pieces.saturating_add(line.quantity);
            }
        }
    }
    given
}

/// The lines of which something is noted as given back.
fn noted(ledger: &Ledger) -> impl Iterator<Item = (&Id, &OrderStock)> {
    let lines = ledger.orders.iter().flat_map(|(id, state)| state.lines.iter().map(move |line| (id, line)));
    lines.filter(|(_, line)| line.returned != 0)
}

/// Lines of which more came back than was taken, or less than nothing.
pub(super) fn gave_back_what_they_never_had(ledger: &Ledger) -> impl Iterator<Item = Breach> {
    noted(ledger).filter(|(_, line)| !(0..=line.deducted).contains(&line.returned)).map(|(id, line)| {
        let OrderStock { item, deducted, returned } = line;
        Breach::CameBack {
            order: id.to_string(),
            item: item.into(),
            returned: *returned,
            deducted: *deducted,
        }
    })
}

/// Lines that note more or less given back than the decisions gave.
pub(super) fn noted_otherwise_than_given<'l>(
    ledger: &'l Ledger,
    given: &GivenBack<'l>,
) -> impl Iterator<Item = Breach> {
    let mut lines: BTreeMap<(Id, &Item), (i64, i64)> = BTreeMap::new();
    for (id, line) in noted(ledger) {
        lines.entry((id.clone(), &line.item)).or_default().0 = line.returned;
    }
    for ((id, item), pieces) in given {
        lines.entry((id.clone(), item)).or_default().1 = *pieces;
    }
    lines.into_iter().filter(|(_, (noted, gave))| noted != gave).map(|((id, item), (noted, gave))| {
        Breach::NotedReturned { order: id.to_string(), item: item.into(), noted, decided: gave.into() }
    })
}

/// Lines that note other pieces taken than the order's decision took.
pub(super) fn noted_otherwise_than_taken(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = Breach> {
    let mut took: BTreeMap<(&Id, &Item), i64> = BTreeMap::new();
    for Read { decision, moved } in read {
        if decision.key.kind == CommandKind::OrderCreated {
            for line in moved {
                let pieces = took.entry((&decision.key.id, &line.item)).or_default();
                *pieces = pieces.saturating_sub(line.quantity);
            }
        }
    }
    noted(ledger).filter_map(move |(id, OrderStock { item, deducted, .. })| {
        let took = took.get(&(id, item)).copied().unwrap_or(0);
        (took != *deducted).then(|| Breach::NotedTaken {
            order: id.to_string(),
            item: item.into(),
            noted: *deducted,
            decided: took.into(),
        })
    })
}

/// Holds that are open and should not be, and those that are not and should be.
pub(super) fn holds_open_or_not(ledger: &Ledger, read: &[Read<'_>]) -> impl Iterator<Item = Breach> {
    let accepted = || read.iter().map(|one| one.decision).filter(|decision| decision.accepted);
    let asked: BTreeSet<Id> =
        accepted().filter(|decision| is_hold(decision)).map(|decision| decision.key.id.clone()).collect();
    let ended: BTreeSet<Id> =
        accepted().filter(|decision| ends_a_hold(decision)).filter_map(Decision::follows).collect();
    let open: BTreeSet<Id> =
        ledger.orders.iter().filter(|(_, state)| state.hold.is_some()).map(|(id, _)| id.clone()).collect();
    let all: BTreeSet<Id> = asked.union(&open).cloned().collect();
    all.into_iter().filter_map(move |id| {
        let order = id.to_string();
        match (asked.contains(&id), open.contains(&id), ended.contains(&id)) {
            (false, ..) => Some(Breach::HoldUnasked { order }),
            (true, true, true) => Some(Breach::HoldEnded { order }),
            (true, false, false) => Some(Breach::HoldGone { order }),
            _ => None,
        }
    })
}

fn is_hold(decision: &Decision) -> bool {
    decision.key.kind == CommandKind::OrderCreated
        && serde_json::from_str(&decision.detail).is_ok_and(|taken: OrderTaken| taken.expires_at.is_some())
}

fn ends_a_hold(decision: &Decision) -> bool {
    match decision.key.kind {
        CommandKind::OrderCancelled
        | CommandKind::OrderConfirmed
        | CommandKind::OrderReleased
        | CommandKind::HoldExpired => true,
        CommandKind::OrderCreated
        | CommandKind::OrderReturned
        | CommandKind::HoldExtended
        | CommandKind::Adjustment => false,
    }
}
