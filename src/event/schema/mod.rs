//! The published schemas, made of the types in [`super::wire`]: JSON Schema 2020-12 and an `AsyncAPI` 3 document.

mod asyncapi;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::Value;

use super::wire;

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
        Document::written::<wire::StockLevel>(wire::STOCK_LEVEL, "stock.level.schema.json"),
        Document::read::<wire::CommandHeaders>("command.headers", "command.headers.schema.json"),
        Document::written::<wire::ResultHeaders>("result.headers", "result.headers.schema.json"),
        Document::written::<wire::LevelHeaders>("level.headers", "level.headers.schema.json"),
        Document::written::<wire::DeadLetterHeaders>(
            "dead-letter.headers",
            "dead-letter.headers.schema.json",
        ),
        Document { name: "asyncapi", file: "asyncapi.yaml", text: yaml(&asyncapi::document()) },
    ]);
    documents
}

fn commands() -> Vec<Document> {
    vec![
        Document::read::<wire::OrderCreated<'_>>(wire::ORDER_CREATED, "order.created.schema.json"),
        Document::read::<wire::OrderCancelled>(wire::ORDER_CANCELLED, "order.cancelled.schema.json"),
        Document::read::<wire::OrderReturned<'_>>(wire::ORDER_RETURNED, "order.returned.schema.json"),
        Document::read::<wire::OrderConfirmed<'_>>(wire::ORDER_CONFIRMED, "order.confirmed.schema.json"),
        Document::read::<wire::OrderReleased>(wire::ORDER_RELEASED, "order.released.schema.json"),
        Document::read::<wire::HoldExtended>(wire::ORDER_HOLD_EXTENDED, "order.hold_extended.schema.json"),
        Document::read::<wire::HoldDue>(wire::ORDER_HOLD_DUE, "order.hold_due.schema.json"),
        Document::read::<wire::StockReceived>(wire::STOCK_RECEIVED, "stock.received.schema.json"),
        Document::read::<wire::StockAdjusted>(wire::STOCK_ADJUSTED, "stock.adjusted.schema.json"),
        Document::read::<wire::StockSet>(wire::STOCK_SET, "stock.set.schema.json"),
        Document::read::<wire::LimitsSet>(wire::STOCK_LIMITS_SET, "stock.limits_set.schema.json"),
    ]
}

fn results() -> Vec<Document> {
    vec![
        Document::written::<wire::OrderAccepted>(wire::ORDER_ACCEPTED, "order.accepted.schema.json"),
        Document::written::<wire::OrderRejected>(wire::ORDER_REJECTED, "order.rejected.schema.json"),
        Document::written::<wire::CancellationAccepted>(
            wire::CANCELLATION_ACCEPTED,
            "cancellation.accepted.schema.json",
        ),
        Document::written::<wire::ReturnAccepted>(wire::RETURN_ACCEPTED, "return.accepted.schema.json"),
        Document::written::<wire::ReturnRejected>(wire::RETURN_REJECTED, "return.rejected.schema.json"),
        Document::written::<wire::ConfirmationAccepted>(
            wire::CONFIRMATION_ACCEPTED,
            "confirmation.accepted.schema.json",
        ),
        Document::written::<wire::ConfirmationRejected>(
            wire::CONFIRMATION_REJECTED,
            "confirmation.rejected.schema.json",
        ),
        Document::written::<wire::ReleaseAccepted>(wire::RELEASE_ACCEPTED, "release.accepted.schema.json"),
        Document::written::<wire::ReleaseRejected>(wire::RELEASE_REJECTED, "release.rejected.schema.json"),
        Document::written::<wire::ExtensionAccepted>(
            wire::EXTENSION_ACCEPTED,
            "extension.accepted.schema.json",
        ),
        Document::written::<wire::ExtensionRejected>(
            wire::EXTENSION_REJECTED,
            "extension.rejected.schema.json",
        ),
        Document::written::<wire::HoldExpired>(wire::HOLD_EXPIRED, "hold.expired.schema.json"),
        Document::written::<wire::AdjustmentAccepted>(
            wire::ADJUSTMENT_ACCEPTED,
            "adjustment.accepted.schema.json",
        ),
        Document::written::<wire::AdjustmentRejected>(
            wire::ADJUSTMENT_REJECTED,
            "adjustment.rejected.schema.json",
        ),
    ]
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
    format!(
        "# Made by `stock-verifier schema --write schemas` from the types in src/event/wire: do not edit.\n{}\n",
        text.trim_end()
    )
}
