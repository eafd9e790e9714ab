//! Reading what changes stock without an order: `stock.received`, `stock.adjusted`, `stock.set`.

use super::envelope::no_fields;
use super::json::{self, Field};
use super::wire::{STOCK_ADJUSTED, STOCK_RECEIVED, STOCK_SET};
use super::{Fault, field};
use crate::ledger::{Command, Id, MAX_QUANTITY, Reason};

/// Which of them a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Received,
    Adjusted,
    Set,
}

impl Kind {
    /// The kind of this type; `None` when it is none of them.
    pub(super) fn of(event_type: &str) -> Option<Self> {
        match event_type {
            STOCK_RECEIVED => Some(Self::Received),
            STOCK_ADJUSTED => Some(Self::Adjusted),
            STOCK_SET => Some(Self::Set),
            _ => None,
        }
    }
}

/// The fields of all three.
struct Fields<'a> {
    sku: Field<'a>,
    quantity: Field<'a>,
    available: Field<'a>,
    expected_version: Field<'a>,
}

/// Reads any adjustment that can be told by an id; what else is wrong with it becomes its reasons.
///
/// # Errors
/// [`Fault`] when the value is no object, or its id is missing, invalid or ambiguous.
pub(super) fn read(kind: Kind, payload: &str) -> Result<Command, Fault> {
    let [id, sku, quantity, available, expected_version] =
        json::fields(payload, ["adjustment_id", "sku", "quantity", "available", "expected_version"])
            .map_err(no_fields)?;
    let id = field::id(&id)?;
    let fields = Fields { sku, quantity, available, expected_version };
    let command = match kind {
        Kind::Received => received(&id, &fields),
        Kind::Adjusted => adjusted(&id, &fields),
        Kind::Set => set(&id, &fields),
    };
    Ok(command.unwrap_or_else(|faults| {
        let reasons = faults.into_iter().map(|detail| Reason::InvalidOrder { line: None, detail }).collect();
        Command::invalid_adjustment(id, reasons, payload.as_bytes())
    }))
}

fn received(id: &Id, fields: &Fields<'_>) -> Result<Command, Vec<String>> {
    let (sku, quantity) = both(field::sku(&fields.sku), field::quantity(&fields.quantity))?;
    Ok(Command::stock_received(id.clone(), sku, quantity))
}

fn adjusted(id: &Id, fields: &Fields<'_>) -> Result<Command, Vec<String>> {
    let by = field::integer(&fields.quantity, -MAX_QUANTITY..=MAX_QUANTITY)
        .and_then(|by| if by == 0 { Err("quantity must not be 0".to_owned()) } else { Ok(by) });
    let (sku, by) = both(field::sku(&fields.sku), by)?;
    Ok(Command::stock_adjusted(id.clone(), sku, by))
}

fn set(id: &Id, fields: &Fields<'_>) -> Result<Command, Vec<String>> {
    let expected = &fields.expected_version;
    let expected = if expected.value.is_none() && !expected.repeated {
        Ok(None)
    } else {
        field::integer(expected, 0..=i64::MAX).map(Some)
    };
    let available = field::integer(&fields.available, 0..=MAX_QUANTITY);
    let (sku, (available, expected)) = both(field::sku(&fields.sku), pair(available, expected))?;
    Ok(Command::stock_set(id.clone(), sku, available, expected))
}

fn pair<A, B>(one: Result<A, String>, other: Result<B, String>) -> Result<(A, B), String> {
    both(one, other).map_err(|faults| faults.join("; "))
}

/// Both values, or all that is wrong.
fn both<A, B>(one: Result<A, String>, other: Result<B, String>) -> Result<(A, B), Vec<String>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err(one.err().into_iter().chain(other.err()).collect()),
    }
}
