//! Reading `order.created`.
//!
//! Twice: [`read`] is quick and gives up at the first thing out of order,
//! [`read_faulty`] then takes its time and names every line at fault.

use serde_json::value::RawValue;

use super::envelope::{no_fields, repeated};
use super::fault::echo;
use super::json::{self, Field, Kind, Object};
use super::wire::OrderCreated;
use super::{Fault, FaultCode};
use crate::ledger::{Command, Id, IdError, MAX_LINES, MAX_QUANTITY, Quantity, Reason, Sku};

/// Longest piece of a line that a reason repeats, in characters: the reasons
/// of [`MAX_LINES`] lines together must fit into one record of the result topic.
const MAX_LINE_ECHO_CHARS: usize = 40;

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
    let id = read_id(&order_id)?;
    Ok(match read_lines(&lines) {
        Ok(lines) => Command::order_created(id, lines),
        Err(reasons) => Command::invalid_order(id, reasons, payload.as_bytes()),
    })
}

fn read_id(field: &Field<'_>) -> Result<Id, Fault> {
    if field.repeated {
        return Err(repeated(field));
    }
    let Some(kind) = field.kind() else {
        return Err(Fault::new(FaultCode::MissingId, "\"order_id\" is missing"));
    };
    text(&kind, Id::new).map_err(|fault| Fault::new(FaultCode::InvalidId, format_args!("order_id {fault}")))
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
    match (read_sku(&sku), read_quantity(&quantity)) {
        (Ok(sku), Ok(quantity)) => Ok((sku, quantity)),
        (Err(sku), Err(quantity)) => Err(format!("{sku}; {quantity}")),
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
    }
}

fn read_sku(field: &Field<'_>) -> Result<Sku, String> {
    let kind = once(field)?;
    text(&kind, Sku::new).map_err(|fault| format!("sku {fault}"))
}

fn read_quantity(field: &Field<'_>) -> Result<Quantity, String> {
    let kind = once(field)?;
    let Kind::Number(written) = kind else {
        return Err(format!("quantity must be a whole number, is {}", kind.name()));
    };
    let shown = echo(written, MAX_LINE_ECHO_CHARS);
    if written.contains(['.', 'e', 'E']) {
        return Err(format!(
            "quantity must be a whole number written without fraction or exponent, is {shown}"
        ));
    }
    // An integer that does not parse is one beyond i64, so beyond the bounds as well.
    let pieces: Result<i64, _> = written.parse();
    pieces
        .ok()
        .and_then(|pieces| Quantity::new(pieces).ok())
        .ok_or_else(|| format!("quantity must be between 1 and {MAX_QUANTITY}, is {shown}"))
}

/// A field that must be there, once.
fn once<'a>(field: &Field<'a>) -> Result<Kind<'a>, String> {
    if field.repeated {
        return Err(format!("{} comes more than once", field.name));
    }
    field.kind().ok_or_else(|| format!("{} is missing", field.name))
}

/// An id from a field's value, or what is wrong with it. An id that cannot be used is not repeated: it may be huge.
fn text<T>(kind: &Kind<'_>, make: impl FnOnce(&str) -> Result<T, IdError>) -> Result<T, String> {
    match kind {
        Kind::String(Some(text)) => make(text).map_err(|error| error.to_string()),
        Kind::String(None) => Err("is not text: it escapes half of a surrogate pair".to_owned()),
        other => Err(format!("must be a string, is {}", other.name())),
    }
}
