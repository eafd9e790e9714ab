//! Reading `order.created`.
//!
//! Twice: [`read`] is quick and gives up at the first thing out of order,
//! [`read_faulty`] then takes its time and names every line at fault.

use serde_json::value::RawValue;

use super::envelope::no_fields;
use super::json::{self, Field, Kind, Object};
use super::wire::OrderCreated;
use super::{Fault, field};
use crate::ledger::{Command, Id, MAX_LINES, Quantity, Reason, Sku};

/// Reads a good order; `None` when anything about it is not as it should be.
///
/// `typed` says that the envelope gave the type already: then the payload may leave it out.
pub(super) fn read(payload: &str, typed: bool) -> Option<Command> {
    let Object(order) = serde_json::from_str::<Object<OrderCreated<'_>>>(payload).ok()?;
    if !(typed || order.kind.is_some()) || !(1..=MAX_LINES).contains(&order.lines.len()) {
        return None;
    }
    let id = Id::new(&order.order_id).ok()?;
    let lines = order
        .lines
        .iter()
        .map(|line| Some((Sku::new(&line.sku).ok()?, Quantity::new(line.quantity).ok()?)))
        .collect::<Option<Vec<_>>>()?;
    Some(Command::order_created(id, lines))
}

/// Reads any order that can be told by an id; what else is wrong with it becomes its reasons.
///
/// # Errors
/// [`Fault`] when the value is no object, or its id is missing, invalid or ambiguous.
pub(super) fn read_faulty(payload: &str) -> Result<Command, Fault> {
    let [order_id, lines] = json::fields(payload, ["order_id", "lines"]).map_err(no_fields)?;
    let id = field::id(&order_id)?;
    Ok(match read_lines(&lines) {
        Ok(lines) => Command::order_created(id, lines),
        Err(reasons) => Command::invalid_order(id, reasons, payload.as_bytes()),
    })
}

fn read_lines(field: &Field<'_>) -> Result<Vec<(Sku, Quantity)>, Vec<Reason>> {
    let whole = |detail: String| Err(vec![Reason::InvalidOrder { line: None, detail }]);
    if field.repeated {
        return whole("\"lines\" comes more than once".to_owned());
    }
    let lines = match (field.value, field.kind()) {
        (Some(value), Some(Kind::Array)) => elements(value),
        (_, Some(other)) => return whole(format!("lines must be an array, is {}", other.name())),
        (_, None) => return whole("\"lines\" is missing".to_owned()),
    };
    if lines.is_empty() {
        return whole("lines must not be empty".to_owned());
    }
    if lines.len() > MAX_LINES {
        return whole(format!("has {} lines, at most {MAX_LINES} are allowed", lines.len()));
    }
    let mut good = Vec::with_capacity(lines.len());
    let mut reasons = Vec::new();
    for (number, line) in (1..).zip(lines) {
        match read_line(line) {
            Ok(line) => good.push(line),
            Err(detail) => reasons.push(Reason::InvalidOrder { line: Some(number), detail }),
        }
    }
    if reasons.is_empty() { Ok(good) } else { Err(reasons) }
}

/// The elements of an array, unread. It was read once as a whole, so its syntax holds.
fn elements(array: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(array.get()).unwrap_or_default()
}

/// One line, or all that is wrong with it.
fn read_line(line: &RawValue) -> Result<(Sku, Quantity), String> {
    let kind = Kind::of(line);
    if !matches!(kind, Kind::Object) {
        return Err(format!("must be an object with sku and quantity, is {}", kind.name()));
    }
    let Ok([sku, quantity]) = json::fields(line.get(), ["sku", "quantity"]) else {
        return Err("has a field name that is not text".to_owned());
    };
    match (field::sku(&sku), field::quantity(&quantity)) {
        (Ok(sku), Ok(quantity)) => Ok((sku, quantity)),
        (Err(sku), Err(quantity)) => Err(format!("{sku}; {quantity}")),
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
    }
}
