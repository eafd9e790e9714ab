//! What was asked, as far as a decision alone says it.

use super::{
    Action, Adjusted, CommandKind, Confirmed, Decision, Extended, GivenBack, Hold, HoldSeconds, Id, Item,
    Limits, Location, OrderLine, OrderTaken, Policy, Quantity, Reason, Rejected, Sku, Stamp, Terms,
};

/// An action that, at the decision's ledger sequence, makes this decision if any does.
///
/// Of a rejection it holds the lines at fault only, and of an adjustment the level it left: what else was asked is not
/// published, and made no difference. What the decision does not say of its moment is asked for: `hold` is the open hold of
/// the order that an extension is about, `available` the level of an item.
///
/// `None` when the decision's text is not what this program writes: a damaged ledger.
#[must_use]
pub fn reconstruct(
    decision: &Decision,
    hold: Option<&Hold>,
    available: impl Fn(&Item) -> i64,
) -> Option<Action> {
    let kind = decision.key.kind;
    if !decision.accepted {
        let Rejected { order_id, reasons } = read(&decision.detail)?;
        return Some(refused(kind, order_id, reasons, available));
    }
    Some(match kind {
        CommandKind::OrderCreated => taken(read(&decision.detail)?, decision.decided_at)?,
        CommandKind::OrderCancelled => Action::Cancel,
        CommandKind::OrderReleased => Action::Release,
        CommandKind::HoldExpired => Action::Expire,
        CommandKind::OrderReturned => {
            let GivenBack { order_id, returned, .. } = read(&decision.detail)?;
            let lines = returned.into_iter().map(|line| order_line(line.sku, line.location, line.quantity));
            Action::Return { order_id: order_id?, lines: lines.collect() }
        }
        CommandKind::OrderConfirmed => {
            let Confirmed { order_id, lines, .. } = read(&decision.detail)?;
            let lines = lines.into_iter().map(|line| order_line(line.sku, line.location, line.quantity));
            Action::Confirm { order_id, lines: Some(lines.collect()) }
        }
        CommandKind::HoldExtended => {
            let Extended { order_id, expires_at } = read(&decision.detail)?;
            let before = hold.map_or(decision.decided_at, |hold| hold.expires_at);
            Action::Extend { order_id, by: seconds(before, &expires_at)? }
        }
        CommandKind::Adjustment => {
            let Adjusted { lines, limits } = read(&decision.detail)?;
            let line = lines.into_iter().next()?;
            let item = Item { sku: line.sku, location: line.location };
            match limits {
                Some(limits) => Action::Limit { item, limits },
                None => Action::Set { item, available: line.balance, expected_version: None },
            }
        }
    })
}

fn read<T: serde::de::DeserializeOwned>(detail: &str) -> Option<T> {
    serde_json::from_str(detail).ok()
}

fn order_line(sku: Sku, location: Option<Location>, quantity: i64) -> OrderLine {
    OrderLine { item: Item { sku, location }, quantity }
}

fn seconds(from: Stamp, until: &str) -> Option<HoldSeconds> {
    HoldSeconds::new((Stamp::read(until)?.0 - from.0) / 1_000_000).ok()
}

/// An accepted order.
fn taken(published: OrderTaken, at: Stamp) -> Option<Action> {
    let OrderTaken { lines, short, expires_at } = published;
    let policy = if short.is_empty() { Policy::AllOrNone } else { Policy::Partial };
    let mut asked: Vec<OrderLine> = short.into_iter().filter_map(line_at_fault).collect();
    for line in lines {
        let line = order_line(line.sku, line.location, line.quantity);
        if !asked.iter().any(|short| short.item == line.item) {
            asked.push(line);
        }
    }
    asked.sort_unstable_by(|a, b| a.item.cmp(&b.item));
    let hold = match expires_at {
        Some(end) => Some(seconds(at, &end)?),
        None => None,
    };
    Some(Action::Take { lines: asked, terms: Terms { policy, hold } })
}

/// The line a reason is about, with what was asked for.
fn line_at_fault(reason: Reason) -> Option<OrderLine> {
    match reason {
        Reason::InsufficientStock { sku, location, requested, .. }
        | Reason::UnknownSku { sku, location, requested }
        | Reason::LimitExceeded { sku, location, requested, .. }
        | Reason::ReturnExceedsDeducted { sku, location, requested, .. } => {
            Some(order_line(sku, location, requested))
        }
        Reason::InvalidOrder { .. }
        | Reason::OrderCancelled
        | Reason::OrderNotFound
        | Reason::AlreadyCancelled
        | Reason::HoldExpired { .. }
        | Reason::AlreadyConfirmed
        | Reason::VersionMismatch { .. } => None,
    }
}

/// A rejected command.
fn refused(
    kind: CommandKind,
    order_id: Option<Id>,
    reasons: Vec<Reason>,
    available: impl Fn(&Item) -> i64,
) -> Action {
    let invalid = reasons.iter().any(|reason| matches!(reason, Reason::InvalidOrder { .. }));
    let lines = || reasons.iter().cloned().filter_map(line_at_fault).collect();
    match (kind, order_id) {
        _ if invalid => Action::Refuse(reasons),
        (CommandKind::OrderCreated, _) => Action::Take { lines: lines(), terms: Terms::default() },
        (CommandKind::OrderCancelled, _) => Action::Cancel,
        (CommandKind::OrderReleased, _) => Action::Release,
        (CommandKind::HoldExpired, _) => Action::Expire,
        (CommandKind::OrderReturned, Some(order_id)) => Action::Return { order_id, lines: lines() },
        (CommandKind::OrderConfirmed, Some(order_id)) => Action::Confirm { order_id, lines: Some(lines()) },
        (CommandKind::HoldExtended, Some(order_id)) => Action::Extend { order_id, by: HoldSeconds::MIN },
        (CommandKind::Adjustment, _) => refused_adjustment(reasons, available),
        // Only an invalid one is published without its order.
        (CommandKind::OrderReturned | CommandKind::OrderConfirmed | CommandKind::HoldExtended, None) => {
            Action::Refuse(reasons)
        }
    }
}

fn refused_adjustment(mut reasons: Vec<Reason>, available: impl Fn(&Item) -> i64) -> Action {
    match reasons.pop() {
        Some(Reason::VersionMismatch { sku, location, expected, .. }) => {
            Action::Set { item: Item { sku, location }, available: 0, expected_version: Some(expected) }
        }
        Some(Reason::InsufficientStock { sku, location, requested, .. }) => {
            Action::Adjust { item: Item { sku, location }, by: requested.saturating_neg() }
        }
        Some(Reason::UnknownSku { sku, location, requested: 0 }) => {
            Action::Limit { item: Item { sku, location }, limits: Limits::default() }
        }
        Some(Reason::UnknownSku { sku, location, requested }) => {
            Action::Adjust { item: Item { sku, location }, by: requested }
        }
        Some(Reason::LimitExceeded { sku, location, requested, limit }) => {
            let item = Item { sku, location };
            match Quantity::new(requested) {
                // Too much for the largest level there may be. Of what is promised, limits cannot forbid.
                Ok(quantity) if available(&item) >= 0 => Action::Receive { item, quantity },
                _ => Action::Limit { item, limits: Limits { backorder: limit, order: None } },
            }
        }
        other => Action::Refuse(other.into_iter().collect()),
    }
}
