//! Reading what goes on with an order's life: `order.cancelled`, `order.returned`, `order.confirmed`, `order.released`,
//! `order.hold_extended`, `order.hold_due`.

use super::envelope::no_fields;
use super::field::{self, Reader};
use super::json;
use super::types::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_HOLD_DUE, ORDER_HOLD_EXTENDED, ORDER_RELEASED, ORDER_RETURNED,
};
use super::{Fault, lines};
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
pub(super) fn read(kind: FollowUpKind, payload: &str, reader: &Reader) -> Result<Command, Fault> {
    match kind {
        FollowUpKind::Cancelled => Ok(Command::order_cancelled(only_id(payload, reader)?)),
        FollowUpKind::Released => Ok(Command::order_released(only_id(payload, reader)?)),
        FollowUpKind::HoldDue => Ok(Command::hold_expired(only_id(payload, reader)?)),
        FollowUpKind::Returned => returned(payload, reader),
        FollowUpKind::Confirmed => confirmed(payload, reader),
        FollowUpKind::HoldExtended => extended(payload, reader),
    }
}

/// The id of the order, of a command that says nothing else.
fn only_id(payload: &str, reader: &Reader) -> Result<Id, Fault> {
    let [order_id] = json::fields(payload, ["order_id"]).map_err(no_fields)?;
    reader.id(&order_id)
}

fn returned(payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let [id, order_id, lines] =
        json::fields(payload, ["return_id", "order_id", "lines"]).map_err(no_fields)?;
    let id = reader.id(&id)?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(reader.order_id(&order_id));
    let lines = faults.keep_lines(lines::read(&lines, reader));
    Ok(match (order_id, lines) {
        (Some(order_id), Some(lines)) => Command::order_returned(id, order_id, lines),
        _ => Command::invalid(id, CommandKind::OrderReturned, faults.reasons(), payload.as_bytes()),
    })
}

fn confirmed(payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let [own_id, order_id, lines] =
        json::fields(payload, ["confirmation_id", "order_id", "lines"]).map_err(no_fields)?;
    // The order's id stands in for a confirmation's that is left out, not for one that is wrong.
    let id = reader.id(if own_id.is_absent() { &order_id } else { &own_id })?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(reader.order_id(&order_id));
    let lines =
        if lines.is_absent() { Some(None) } else { faults.keep_lines(lines::read(&lines, reader)).map(Some) };
    Ok(match (order_id, lines) {
        (Some(order_id), Some(lines)) => Command::order_confirmed(id, order_id, lines),
        _ => Command::invalid(id, CommandKind::OrderConfirmed, faults.reasons(), payload.as_bytes()),
    })
}

fn extended(payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let [id, order_id, hold_seconds] =
        json::fields(payload, ["extension_id", "order_id", "hold_seconds"]).map_err(no_fields)?;
    let id = reader.id(&id)?;
    let mut faults = field::Faults::default();
    let order_id = faults.keep(reader.order_id(&order_id));
    let by = faults.keep(reader.hold_seconds(&hold_seconds));
    Ok(match (order_id, by) {
        (Some(order_id), Some(by)) => Command::hold_extended(id, order_id, by),
        _ => Command::invalid(id, CommandKind::HoldExtended, faults.reasons(), payload.as_bytes()),
    })
}
