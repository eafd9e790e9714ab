//! The published shapes of events and their headers, and the schemas made of them: JSON Schema 2020-12 and an
//! `AsyncAPI` 3 document.
//!
//! Nothing here reads or writes a record: that is the reader's and [`super::result`]'s to do, and the tests hold each to
//! its shape. Only [`OrderCreated`] is both, and stands with the reader.

mod asyncapi;
mod commands;
mod headers;
mod results;

pub use commands::{
    HoldDue, HoldDueType, HoldExtended, HoldExtendedType, LimitsSet, LimitsSetType, OrderCancelled,
    OrderCancelledType, OrderConfirmed, OrderConfirmedType, OrderReleased, OrderReleasedType, OrderReturned,
    OrderReturnedType, StockAdjusted, StockAdjustedType, StockReceived, StockReceivedType, StockSet,
    StockSetType,
};
pub use headers::{CommandHeaders, DeadLetterHeaders, LevelHeaders, ResultHeaders};
pub use results::{
    AdjustmentAccepted, AdjustmentAcceptedType, AdjustmentRejected, AdjustmentRejectedType,
    CancellationAccepted, CancellationAcceptedType, ConfirmationAccepted, ConfirmationAcceptedType,
    ConfirmationRejected, ConfirmationRejectedType, ExtensionAccepted, ExtensionAcceptedType,
    ExtensionRejected, ExtensionRejectedType, HoldExpired, HoldExpiredType, OrderAccepted, OrderAcceptedType,
    OrderRejected, OrderRejectedType, RecordSource, ReleaseAccepted, ReleaseAcceptedType, ReleaseRejected,
    ReleaseRejectedType, ReturnAccepted, ReturnAcceptedType, ReturnRejected, ReturnRejectedType, StockLevel,
    StockLevelType,
};

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::Value;

pub use super::order::{OrderCreated, OrderCreatedLine, OrderCreatedType, OrderPolicy};
use super::types;
use crate::ledger::{Id, Location, Sku};

/// A published document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is asked for by.
    pub name: &'static str,
    /// The file it is kept in.
    pub file: &'static str,
    /// Its text, ending in a line feed.
    pub text: String,
}

impl Document {
    /// Of what this program reads.
    fn read<T: JsonSchema>(name: &'static str, file: &'static str) -> Self {
        Self::of(name, file, &read::<T>(standard()))
    }

    /// Of what this program writes.
    fn written<T: JsonSchema>(name: &'static str, file: &'static str) -> Self {
        Self::of(name, file, &written::<T>(standard()))
    }

    fn of(name: &'static str, file: &'static str, schema: &Value) -> Self {
        Self { name, file, text: format!("{schema:#}\n") }
    }
}

/// Every document, in the order of `schema --list`.
#[must_use]
pub fn documents() -> Vec<Document> {
    let mut documents = commands();
    documents.extend(results());
    documents.extend([
        Document::written::<StockLevel>(types::STOCK_LEVEL, "stock.level.schema.json"),
        Document::read::<CommandHeaders>("command.headers", "command.headers.schema.json"),
        Document::written::<ResultHeaders>("result.headers", "result.headers.schema.json"),
        Document::written::<LevelHeaders>("level.headers", "level.headers.schema.json"),
        Document::written::<DeadLetterHeaders>("dead-letter.headers", "dead-letter.headers.schema.json"),
        Document { name: "asyncapi", file: "asyncapi.yaml", text: yaml(&asyncapi::document()) },
    ]);
    documents
}

fn commands() -> Vec<Document> {
    vec![
        Document::read::<OrderCreated<'_>>(types::ORDER_CREATED, "order.created.schema.json"),
        Document::read::<OrderCancelled>(types::ORDER_CANCELLED, "order.cancelled.schema.json"),
        Document::read::<OrderReturned<'_>>(types::ORDER_RETURNED, "order.returned.schema.json"),
        Document::read::<OrderConfirmed<'_>>(types::ORDER_CONFIRMED, "order.confirmed.schema.json"),
        Document::read::<OrderReleased>(types::ORDER_RELEASED, "order.released.schema.json"),
        Document::read::<HoldExtended>(types::ORDER_HOLD_EXTENDED, "order.hold_extended.schema.json"),
        Document::read::<HoldDue>(types::ORDER_HOLD_DUE, "order.hold_due.schema.json"),
        Document::read::<StockReceived>(types::STOCK_RECEIVED, "stock.received.schema.json"),
        Document::read::<StockAdjusted>(types::STOCK_ADJUSTED, "stock.adjusted.schema.json"),
        Document::read::<StockSet>(types::STOCK_SET, "stock.set.schema.json"),
        Document::read::<LimitsSet>(types::STOCK_LIMITS_SET, "stock.limits_set.schema.json"),
    ]
}

fn results() -> Vec<Document> {
    vec![
        Document::written::<OrderAccepted>(types::ORDER_ACCEPTED, "order.accepted.schema.json"),
        Document::written::<OrderRejected>(types::ORDER_REJECTED, "order.rejected.schema.json"),
        Document::written::<CancellationAccepted>(
            types::CANCELLATION_ACCEPTED,
            "cancellation.accepted.schema.json",
        ),
        Document::written::<ReturnAccepted>(types::RETURN_ACCEPTED, "return.accepted.schema.json"),
        Document::written::<ReturnRejected>(types::RETURN_REJECTED, "return.rejected.schema.json"),
        Document::written::<ConfirmationAccepted>(
            types::CONFIRMATION_ACCEPTED,
            "confirmation.accepted.schema.json",
        ),
        Document::written::<ConfirmationRejected>(
            types::CONFIRMATION_REJECTED,
            "confirmation.rejected.schema.json",
        ),
        Document::written::<ReleaseAccepted>(types::RELEASE_ACCEPTED, "release.accepted.schema.json"),
        Document::written::<ReleaseRejected>(types::RELEASE_REJECTED, "release.rejected.schema.json"),
        Document::written::<ExtensionAccepted>(types::EXTENSION_ACCEPTED, "extension.accepted.schema.json"),
        Document::written::<ExtensionRejected>(types::EXTENSION_REJECTED, "extension.rejected.schema.json"),
        Document::written::<HoldExpired>(types::HOLD_EXPIRED, "hold.expired.schema.json"),
        Document::written::<AdjustmentAccepted>(
            types::ADJUSTMENT_ACCEPTED,
            "adjustment.accepted.schema.json",
        ),
        Document::written::<AdjustmentRejected>(
            types::ADJUSTMENT_REJECTED,
            "adjustment.rejected.schema.json",
        ),
    ]
}

/// The schema of an order, as it stands within another document.
#[must_use]
pub fn order_created() -> Value {
    read::<OrderCreated<'_>>(standard().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    }))
}

/// A schema that stands in a file of its own.
fn standard() -> SchemaSettings {
    SchemaSettings::draft2020_12()
}

fn read<T: JsonSchema>(settings: SchemaSettings) -> Value {
    SchemaGenerator::new(settings.for_deserialize()).into_root_schema_for::<T>().to_value()
}

fn written<T: JsonSchema>(settings: SchemaSettings) -> Value {
    SchemaGenerator::new(settings.for_serialize()).into_root_schema_for::<T>().to_value()
}

fn yaml(value: &Value) -> String {
    // Holds because a JSON value is a tree of strings, numbers, lists and maps with text for keys: all of it YAML too.
    let text = serde_saphyr::to_string(value).expect("a JSON value is always valid YAML");
    // It names where the shapes once were: a published document changes by no byte when only this program does.
    format!(
        "# Made by `stock-verifier schema --write schemas` from the types in src/event/wire: do not edit.\n{}\n",
        text.trim_end()
    )
}

fn example_id(text: &str) -> Id {
    Id::new(text).expect("the examples' ids are short, printable constants")
}

fn example_sku(text: &str) -> Sku {
    Sku::new(text).expect("the examples' SKUs are short, printable constants")
}

fn example_location(text: &str) -> Location {
    Location::new(text).expect("the examples' locations are short, printable constants")
}
