//! Reading what changes stock without an order: `stock.received`, `stock.adjusted`, `stock.set`, `stock.limits_set`.

use super::Fault;
use super::envelope::no_fields;
use super::field::{self, Reader};
use super::json::{self, Field};
use super::types::{STOCK_ADJUSTED, STOCK_LIMITS_SET, STOCK_RECEIVED, STOCK_SET};
use crate::ledger::{Command, CommandKind, Id, Limits, MAX_QUANTITY};

/// Which of them a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdjustmentKind {
    Received,
    Adjusted,
    Set,
    LimitsSet,
}

impl AdjustmentKind {
    /// The kind of this type; `None` when it is none of them.
    pub(super) fn of(event_type: &str) -> Option<Self> {
        match event_type {
            STOCK_RECEIVED => Some(Self::Received),
            STOCK_ADJUSTED => Some(Self::Adjusted),
            STOCK_SET => Some(Self::Set),
            STOCK_LIMITS_SET => Some(Self::LimitsSet),
            _ => None,
        }
    }
}

/// The fields of all of them, but the id, and who reads them.
struct Fields<'a> {
    reader: &'a Reader,
    sku: Field<'a>,
    location: Field<'a>,
    quantity: Field<'a>,
    available: Field<'a>,
    expected_version: Field<'a>,
    backorder_limit: Field<'a>,
    order_limit: Field<'a>,
}

/// Reads any adjustment that can be known by an id; what else is wrong with it becomes its reasons.
///
/// # Errors
/// [`Fault`] when the value is no object, or its id is missing, invalid or ambiguous.
pub(super) fn read(kind: AdjustmentKind, payload: &str, reader: &Reader) -> Result<Command, Fault> {
    let names = [
        "adjustment_id",
        "sku",
        "location",
        "quantity",
        "available",
        "expected_version",
        "backorder_limit",
        "order_limit",
    ];
    let [id, sku, location, quantity, available, expected_version, backorder_limit, order_limit] =
        json::fields(payload, names).map_err(no_fields)?;
    let id = reader.id(&id)?;
    let fields =
        Fields { reader, sku, location, quantity, available, expected_version, backorder_limit, order_limit };
    let mut faults = field::Faults::default();
    let command = match kind {
        AdjustmentKind::Received => received(&id, &fields, &mut faults),
        AdjustmentKind::Adjusted => adjusted(&id, &fields, &mut faults),
        AdjustmentKind::Set => set(&id, &fields, &mut faults),
        AdjustmentKind::LimitsSet => limits_set(&id, &fields, &mut faults),
    };
    Ok(command.unwrap_or_else(|| {
        Command::invalid(id, CommandKind::Adjustment, faults.reasons(), payload.as_bytes())
    }))
}

fn received(id: &Id, fields: &Fields<'_>, faults: &mut field::Faults) -> Option<Command> {
    let item = faults.keep(field::item(&fields.sku, &fields.location));
    let quantity = faults.keep(fields.reader.quantity(&fields.quantity));
    Some(Command::stock_received(id.clone(), item?, quantity?))
}

fn adjusted(id: &Id, fields: &Fields<'_>, faults: &mut field::Faults) -> Option<Command> {
    let item = faults.keep(field::item(&fields.sku, &fields.location));
    let by = fields
        .reader
        .integer(&fields.quantity, -MAX_QUANTITY..=MAX_QUANTITY)
        .and_then(|by| if by == 0 { Err("quantity must not be 0".to_owned()) } else { Ok(by) });
    let by = faults.keep(by);
    Some(Command::stock_adjusted(id.clone(), item?, by?))
}

fn set(id: &Id, fields: &Fields<'_>, faults: &mut field::Faults) -> Option<Command> {
    let item = faults.keep(field::item(&fields.sku, &fields.location));
    let available = faults.keep(fields.reader.integer(&fields.available, 0..=MAX_QUANTITY));
    let expected =
        field::optional(&fields.expected_version, |expected| fields.reader.integer(expected, 0..=i64::MAX));
    let expected = faults.keep(expected);
    Some(Command::stock_set(id.clone(), item?, available?, expected?))
}

fn limits_set(id: &Id, fields: &Fields<'_>, faults: &mut field::Faults) -> Option<Command> {
    let item = faults.keep(field::item(&fields.sku, &fields.location));
    let within =
        |field, least| field::optional(field, |field| fields.reader.integer(field, least..=MAX_QUANTITY));
    let backorder = faults.keep(within(&fields.backorder_limit, 0));
    let order = faults.keep(within(&fields.order_limit, 1));
    Some(Command::limits_set(id.clone(), item?, Limits { backorder: backorder?.unwrap_or(0), order: order? }))
}
