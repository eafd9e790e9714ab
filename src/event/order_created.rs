//! Reading `order.created`.
//!
//! Twice: [`read`] is quick and gives up at the first thing out of order,
//! [`read_fields`] then takes its time, and names every line at fault.

use super::envelope::no_fields;
use super::field::{self, Reader};
use super::json::{self, Object};
use super::order::{OrderCreated, OrderCreatedLine};
use super::{Fault, lines};
use crate::ledger::{
    Command, CommandKind, HoldSeconds, Id, Item, Location, MAX_LINES, Policy, Quantity, Sku, Terms,
};

/// Reads a good order; `None` when anything about it is not as it should be.
///
/// `typed` says that the envelope gave the type already: then the payload may leave it out.
pub(super) fn read(payload: &str, typed: bool) -> Option<Command> {
    let Object(order) = serde_json::from_str::<Object<OrderCreated<'_>>>(payload).ok()?;
    if !(typed || order.kind.is_some()) || !(1..=MAX_LINES).contains(&order.lines.len()) {
        return None;
    }
    let id = Id::new(&order.order_id).ok()?;
    let hold = order.hold_seconds.map(HoldSeconds::new).transpose().ok()?;
    let policy = order.policy.map_or_else(Policy::default, Policy::from);
    let lines = order.lines.iter().map(read_line).collect::<Option<Vec<_>>>()?;
    Some(Command::order_created(id, lines, Terms { policy, hold }))
}

fn read_line(line: &OrderCreatedLine<'_>) -> Option<(Item, Quantity)> {
    let sku = Sku::new(&line.sku).ok()?;
    let location = line.location.as_deref().map(Location::new).transpose().ok()?;
    Some((Item { sku, location }, Quantity::new(line.quantity).ok()?))
}

/// Reads any order that can be known by an id; what else is wrong with it becomes its reasons.
///
/// # Errors
/// [`Fault`] when the value is no object, or its id is missing, invalid or ambiguous.
pub(super) fn read_fields(payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let [order_id, lines, policy, hold] =
        json::fields(payload, ["order_id", "lines", "policy", "hold_seconds"]).map_err(no_fields)?;
    let id = reader.id(&order_id)?;
    let mut faults = field::Faults::default();
    let policy = faults.keep(field::policy(&policy));
    let hold = faults.keep(field::optional(&hold, |hold| reader.hold_seconds(hold)));
    let lines = faults.keep_lines(lines::read(&lines, reader));
    Ok(match (lines, policy, hold) {
        (Some(lines), Some(policy), Some(hold)) => Command::order_created(id, lines, Terms { policy, hold }),
        _ => Command::invalid(id, CommandKind::OrderCreated, faults.reasons(), payload.as_bytes()),
    })
}
