//! The lines of an order, a return or a confirmation that may be faulty: all of them, or what is wrong with each.

use serde_json::value::RawValue;

use super::field::{self, Reader};
use super::json::{self, Field, ValueKind};
use crate::ledger::{Item, MAX_LINES, Quantity, Reason};

/// The lines, or a reason for each one at fault.
pub(super) fn read(field: &Field<'_>, reader: &Reader) -> Result<Vec<(Item, Quantity)>, Vec<Reason>> {
    let whole = |detail: String| Err(vec![Reason::InvalidOrder { line: None, detail }]);
    if field.repeated {
        return whole("\"lines\" comes more than once".to_owned());
    }
    let lines = match (field.value, field.kind()) {
        (Some(value), Some(ValueKind::Array)) => elements(value),
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
        match read_line(line, reader) {
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
fn read_line(line: &RawValue, reader: &Reader) -> Result<(Item, Quantity), String> {
    let kind = ValueKind::of(line);
    if !matches!(kind, ValueKind::Object) {
        return Err(format!("must be an object with sku and quantity, is {}", kind.name()));
    }
    let Ok([sku, location, quantity]) = json::fields(line.get(), ["sku", "location", "quantity"]) else {
        return Err("has a field name that is not text".to_owned());
    };
    match (field::item(&sku, &location), reader.quantity(&quantity)) {
        (Ok(item), Ok(quantity)) => Ok((item, quantity)),
        (item, quantity) => Err(field::both_wrong(item, quantity)),
    }
}
