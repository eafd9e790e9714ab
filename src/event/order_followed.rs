//! Reading what goes on with an order's life: `order.cancelled`, `order.returned`, `order.confirmed`, `order.released`,
//! `order.hold_extended`, `order.hold_due`.

use super::envelope::no_fields;
use super::json;
use super::types::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_HOLD_DUE, ORDER_HOLD_EXTENDED, ORDER_RELEASED, ORDER_RETURNED,
};
use super::{Fault, field, lines};
use crate::ledger::{Command, CommandKind, Id};

/// Which of them a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowUpKind {
    Cancelled,
    Returned,
    Confirmed,
    Released,
    HoldExtended,
    /// Asked by the verifier itself when a hold's time seems over. Harmless from anybody else: the ledger decides
    /// whether it is.
    HoldDue,
}

impl FollowUpKind {
    /// The kind of this type; `None` when it is none of them.
    pub(super) fn of(event_type: &str) -> Option<Self> {
        match event_type {
            ORDER_CANCELLED => Some(Self::Cancelled),
            ORDER_RETURNED => Some(Self::Returned),
            ORDER_CONFIRMED => Some(Self::Confirmed),
            ORDER_RELEASED => Some(Self::Released),
            ORDER_HOLD_EXTENDED => Some(Self::HoldExtended),
            ORDER_HOLD_DUE => Some(Self::HoldDue),
            _ => None,
        }
    }
}

/// Reads any of them that can be known by an id; what else is wrong with it becomes its reasons.
///
/// # Errors
/// [`Fault`] when the value is no object, or its id is missing, invalid or ambiguous.
pub(super) fn read(kind: FollowUpKind, payload: &str) -> Result<Command, Fault> {
    match kind {
        FollowUpKind::Cancelled => Ok(Command::order_cancelled(only_id(payload)?)),
        FollowUpKind::Released => Ok(Command::order_released(only_id(payload)?)),
        FollowUpKind::HoldDue => Ok(Command::hold_expired(only_id(payload)?)),
        FollowUpKind::Returned => returned(payload),
        FollowUpKind::Confirmed => confirmed(payload),
        FollowUpKind::HoldExtended => extended(payload),
    }
}

/// The id of the order, of a command that says nothing else.
fn only_id(payload: &str) -> Result<Id, Fault> {
    let [order_id] = json::fields(payload, ["order_id"]).map_err(no_fields)?;
    field::id(&order_id)
}

fn returned(payload: &str) -> Result<Command, Fault> {
    let [id, order_id, lines] =
        json::fields(payload, ["return_id", "order_id", "lines"]).map_err(no_fields)?;
    let id = field::id(&id)?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(field::order_id(&order_id));
    let lines = faults.keep_lines(lines::read(&lines));
    Ok(match (order_id, lines) {
        (Some(order_id), Some(lines)) => Command::order_returned(id, order_id, lines),
        _ => Command::invalid(id, CommandKind::OrderReturned, faults.reasons(), payload.as_bytes()),
    })
}

fn confirmed(payload: &str) -> Result<Command, Fault> {
    let [own_id, order_id, lines] =
        json::fields(payload, ["confirmation_id", "order_id", "lines"]).map_err(no_fields)?;
    // The order's id stands in for a confirmation's that is left out, not for one that is wrong.
    let id = field::id(if own_id.is_absent() { &order_id } else { &own_id })?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(field::order_id(&order_id));
    let lines = if lines.is_absent() { Some(None) } else { faults.keep_lines(lines::read(&lines)).map(Some) };
    Ok(match (order_id, lines) {
        (Some(order_id), Some(lines)) => Command::order_confirmed(id, order_id, lines),
        _ => Command::invalid(id, CommandKind::OrderConfirmed, faults.reasons(), payload.as_bytes()),
    })
}

fn extended(payload: &str) -> Result<Command, Fault> {
    let [id, order_id, hold_seconds] =
        json::fields(payload, ["extension_id", "order_id", "hold_seconds"]).map_err(no_fields)?;
    let id = field::id(&id)?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(field::order_id(&order_id));
    let by = faults.keep(field::hold_seconds(&hold_seconds));
    Ok(match (order_id, by) {
        (Some(order_id), Some(by)) => Command::hold_extended(id, order_id, by),
        _ => Command::invalid(id, CommandKind::HoldExtended, faults.reasons(), payload.as_bytes()),
    })
}
