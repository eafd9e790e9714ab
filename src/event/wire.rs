//! The shapes on the wire. They read and write the events, and the published schemas are made of them.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::json::Object;
use crate::ledger::{
    AcceptedLine, AdjustedLine, Id, MAX_ID_BYTES, MAX_LINES, MAX_QUANTITY, Offset, Reason, Sku, Source,
};

/// The type of [`OrderCreated`].
pub const ORDER_CREATED: &str = "order.created";
/// The type of [`StockReceived`].
pub const STOCK_RECEIVED: &str = "stock.received";
/// The type of [`StockAdjusted`].
pub const STOCK_ADJUSTED: &str = "stock.adjusted";
/// The type of [`StockSet`].
pub const STOCK_SET: &str = "stock.set";
/// Every type that is read.
pub const COMMAND_TYPES: [&str; 4] = [ORDER_CREATED, STOCK_RECEIVED, STOCK_ADJUSTED, STOCK_SET];

/// The type of [`OrderAccepted`].
pub const ORDER_ACCEPTED: &str = "order.accepted";
/// The type of [`OrderRejected`].
pub const ORDER_REJECTED: &str = "order.rejected";
/// The type of [`AdjustmentAccepted`].
pub const ADJUSTMENT_ACCEPTED: &str = "adjustment.accepted";
/// The type of [`AdjustmentRejected`].
pub const ADJUSTMENT_REJECTED: &str = "adjustment.rejected";

/// A type of one event, so that its schema allows no other.
macro_rules! event_type {
    ($name:ident: $variant:ident = $text:literal, $doc:literal) => {
        /// The event's type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[schemars(inline)]
        pub enum $name {
            #[doc = $doc]
            #[serde(rename = $text)]
            $variant,
        }
    };
}

event_type!(OrderCreatedType: OrderCreated = "order.created", "An order asks for stock.");
event_type!(StockReceivedType: StockReceived = "stock.received", "Pieces came in.");
event_type!(StockAdjustedType: StockAdjusted = "stock.adjusted", "Pieces were found or are missing.");
event_type!(StockSetType: StockSet = "stock.set", "A level is stated.");
event_type!(OrderAcceptedType: OrderAccepted = "order.accepted", "All of the order's lines were taken from stock.");
event_type!(OrderRejectedType: OrderRejected = "order.rejected", "Nothing was taken from stock.");
event_type!(AdjustmentAcceptedType: AdjustmentAccepted = "adjustment.accepted", "The level was changed.");
event_type!(AdjustmentRejectedType: AdjustmentRejected = "adjustment.rejected", "The level was not changed.");

/// An order asks for stock: all its lines or none. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.created", example = OrderCreated::example())]
pub struct OrderCreated<'a> {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderCreatedType")]
    pub kind: Option<OrderCreatedType>,
    /// The order's id, chosen by its producer: at most 128 bytes of UTF-8, no control characters. The same id asks for the same order.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub order_id: Cow<'a, str>,
    /// What is ordered. Lines of one SKU are summed; their order does not matter.
    #[serde(borrow, deserialize_with = "lines")]
    #[schemars(length(min = 1, max = MAX_LINES))]
    pub lines: Vec<OrderCreatedLine<'a>>,
}

/// One line of an order. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order line")]
pub struct OrderCreatedLine<'a> {
    /// The stock keeping unit: at most 128 bytes of UTF-8, no control characters.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub sku: Cow<'a, str>,
    /// How many pieces: a JSON integer, written without fraction or exponent.
    #[schemars(range(min = 1, max = MAX_QUANTITY))]
    pub quantity: i64,
}

/// Lines, each an object.
fn lines<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<OrderCreatedLine<'de>>, D::Error> {
    struct Lines;
    impl<'de> serde::de::Visitor<'de> for Lines {
        type Value = Vec<OrderCreatedLine<'de>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array of order lines")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut lines = Vec::new();
            while let Some(Object(line)) = seq.next_element()? {
                lines.push(line);
            }
            Ok(lines)
        }
    }
    deserializer.deserialize_seq(Lines)
}

impl OrderCreated<'static> {
    /// The order shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        let line = |sku, quantity| OrderCreatedLine { sku: Cow::Borrowed(sku), quantity };
        Self {
            kind: Some(OrderCreatedType::OrderCreated),
            order_id: Cow::Borrowed("o-1001"),
            lines: vec![line("TSHIRT-M", 2), line("MUG", 1)],
        }
    }
}

/// Pieces came in. The first of a SKU makes it known. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.received", example = StockReceived::example())]
pub struct StockReceived {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StockReceivedType")]
    pub kind: Option<StockReceivedType>,
    /// The adjustment's id, chosen by its producer; `stock.received`, `stock.adjusted` and `stock.set` share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// How many pieces: a JSON integer, written without fraction or exponent.
    #[schemars(range(min = 1, max = MAX_QUANTITY))]
    pub quantity: i64,
}

impl StockReceived {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(StockReceivedType::StockReceived),
            adjustment_id: example_id("a-3"),
            sku: example_sku("MUG"),
            quantity: 500,
        }
    }
}

/// Pieces of a known SKU were found or are missing. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.adjusted", example = StockAdjusted::example())]
pub struct StockAdjusted {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StockAdjustedType")]
    pub kind: Option<StockAdjustedType>,
    /// The adjustment's id, chosen by its producer; `stock.received`, `stock.adjusted` and `stock.set` share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Pieces found (positive) or missing (negative), not 0: a JSON integer, written without fraction or exponent.
    #[schemars(range(min = -MAX_QUANTITY, max = MAX_QUANTITY), extend("not" = { "const": 0 }))]
    pub quantity: i64,
}

impl StockAdjusted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(StockAdjustedType::StockAdjusted),
            adjustment_id: example_id("a-5"),
            sku: example_sku("MUG"),
            quantity: -2,
        }
    }
}

/// A level is stated, whatever it was or only at the version expected. The first of a SKU makes it known. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.set", example = StockSet::example())]
pub struct StockSet {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StockSetType")]
    pub kind: Option<StockSetType>,
    /// The adjustment's id, chosen by its producer; `stock.received`, `stock.adjusted` and `stock.set` share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// The level it shall have: a JSON integer, written without fraction or exponent.
    #[schemars(range(min = 0, max = MAX_QUANTITY))]
    pub available: i64,
    /// The version the level must have now, 0 for a SKU that is not known yet; without it the level is set in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub expected_version: Option<i64>,
}

impl StockSet {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(StockSetType::StockSet),
            adjustment_id: example_id("a-4"),
            sku: example_sku("MUG"),
            available: 120,
            expected_version: Some(17),
        }
    }
}

/// The record an event's command came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "source record")]
pub struct RecordSource {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// Its offset.
    #[schemars(with = "i64", range(min = 0))]
    pub offset: Offset,
}

impl From<&Source> for RecordSource {
    fn from(source: &Source) -> Self {
        Self {
            topic: source.at.topic.as_ref().to_owned(),
            partition: source.at.partition,
            offset: source.offset,
        }
    }
}

/// An order was accepted: the stock for all its lines is taken. Told once for each order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.accepted", example = OrderAccepted::example())]
pub struct OrderAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: OrderAcceptedType,
    /// The order's id.
    pub order_id: Id,
    /// What was taken: one line for each SKU, sorted by SKU.
    #[schemars(length(min = 1, max = MAX_LINES))]
    pub lines: Vec<AcceptedLine>,
    /// The record the order was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl OrderAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        let line = |sku, quantity, balance| AcceptedLine { sku: example_sku(sku), quantity, balance };
        Self {
            kind: OrderAcceptedType::OrderAccepted,
            order_id: example_id("o-1001"),
            lines: vec![line("MUG", 1, 119), line("TSHIRT-M", 2, 55)],
            source: Some(RecordSource { topic: "orders".to_owned(), partition: 3, offset: Offset(8841) }),
        }
    }
}

/// An order was rejected, for every reason there is: no stock was taken. Told once for each order; a new attempt needs a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.rejected", example = OrderRejected::example(), example = OrderRejected::invalid_example())]
pub struct OrderRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: OrderRejectedType,
    /// The order's id.
    pub order_id: Id,
    /// Why: one reason for each SKU or line at fault.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the order was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl OrderRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self::of(
            "o-1002",
            vec![
                Reason::InsufficientStock { sku: example_sku("MUG"), requested: 500, available: 119 },
                Reason::UnknownSku { sku: example_sku("MUGG"), requested: 1 },
            ],
            8842,
        )
    }

    /// The event that tells of an order whose content breaks the contract.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn invalid_example() -> Self {
        let detail = "quantity must be between 1 and 1000000000000, is 0".to_owned();
        Self::of("o-1003", vec![Reason::InvalidOrder { line: Some(2), detail }], 8843)
    }

    fn of(order_id: &str, reasons: Vec<Reason>, offset: i64) -> Self {
        Self {
            kind: OrderRejectedType::OrderRejected,
            order_id: example_id(order_id),
            reasons,
            source: Some(RecordSource { topic: "orders".to_owned(), partition: 3, offset: Offset(offset) }),
        }
    }
}

/// An adjustment was accepted: the level is changed. Told once for each adjustment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "adjustment.accepted", example = AdjustmentAccepted::example())]
pub struct AdjustmentAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: AdjustmentAcceptedType,
    /// The adjustment's id.
    pub adjustment_id: Id,
    /// What was changed: one line.
    #[schemars(length(min = 1, max = 1))]
    pub lines: Vec<AdjustedLine>,
    /// The record the adjustment was decided from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl AdjustmentAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: AdjustmentAcceptedType::AdjustmentAccepted,
            adjustment_id: example_id("a-3"),
            lines: vec![AdjustedLine { sku: example_sku("MUG"), quantity: 500, balance: 620, version: 18 }],
            source: Some(adjustments_source(77)),
        }
    }
}

/// An adjustment was rejected, for every reason there is: the level is what it was. Told once for each adjustment; a new attempt needs a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "adjustment.rejected", example = AdjustmentRejected::example())]
pub struct AdjustmentRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: AdjustmentRejectedType,
    /// The adjustment's id.
    pub adjustment_id: Id,
    /// Why.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the adjustment was decided from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl AdjustmentRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: AdjustmentRejectedType::AdjustmentRejected,
            adjustment_id: example_id("a-4"),
            reasons: vec![Reason::VersionMismatch { sku: example_sku("MUG"), expected: 17, actual: 18 }],
            source: Some(adjustments_source(78)),
        }
    }
}

fn adjustments_source(offset: i64) -> RecordSource {
    RecordSource { topic: "stock-adjustments".to_owned(), partition: 5, offset: Offset(offset) }
}

fn example_id(text: &str) -> Id {
    Id::new(text).expect("the examples' ids are short, printable constants")
}

fn example_sku(text: &str) -> Sku {
    Sku::new(text).expect("the examples' SKUs are short, printable constants")
}

/// The headers of a command: none is needed. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "command headers", example = CommandHeaders::example())]
pub struct CommandHeaders {
    /// The event's type in `CloudEvents` binary mode; then the value may leave `type` out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = COMMAND_TYPES))]
    pub ce_type: Option<String>,
    /// `application/cloudevents+json` says that the value is a structured `CloudEvent` with the command in `data` or `data_base64`.
    #[serde(rename = "content-type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub content_type: Option<String>,
    /// A W3C trace context, passed on to the command's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = super::MAX_TRACEPARENT_BYTES))]
    pub traceparent: Option<String>,
}

impl CommandHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_type: Some(ORDER_CREATED.to_owned()),
            content_type: Some("application/json".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        }
    }
}

/// The headers of a result: `CloudEvents` 1.0, Kafka binary mode. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "result headers", example = ResultHeaders::example())]
pub struct ResultHeaders {
    /// The version of `CloudEvents`: always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub ce_specversion: String,
    /// The event's id, made of the command's kind and id alone: a result told twice has one id, so drop those you have seen.
    #[schemars(length(min = 1))]
    pub ce_id: String,
    /// Who tells it.
    #[schemars(extend("const" = "stock-verifier"))]
    pub ce_source: String,
    /// The same as the value's `type`.
    pub ce_type: ResultType,
    /// When it was decided, by the ledger's clock: RFC 3339, UTC, microseconds.
    #[schemars(extend("format" = "date-time"))]
    pub ce_time: String,
    /// The media type of the value.
    #[serde(rename = "content-type")]
    #[schemars(extend("const" = "application/json"))]
    pub content_type: String,
    /// The W3C trace context of the command's record, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<String>,
}

/// A result's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ResultType {
    /// The order was accepted.
    #[serde(rename = "order.accepted")]
    OrderAccepted,
    /// The order was rejected.
    #[serde(rename = "order.rejected")]
    OrderRejected,
    /// The adjustment was accepted.
    #[serde(rename = "adjustment.accepted")]
    AdjustmentAccepted,
    /// The adjustment was rejected.
    #[serde(rename = "adjustment.rejected")]
    AdjustmentRejected,
}

impl ResultHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_specversion: "1.0".to_owned(),
            ce_id: "order.created/o-1001".to_owned(),
            ce_source: super::CE_SOURCE.to_owned(),
            ce_type: ResultType::OrderAccepted,
            ce_time: "2026-01-02T03:04:05.678901Z".to_owned(),
            content_type: "application/json".to_owned(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        }
    }
}

/// The headers a dead letter has beside those of its record. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "dead letter headers", example = DeadLetterHeaders::example())]
pub struct DeadLetterHeaders {
    /// The topic the record stood in.
    #[serde(rename = "__connect.errors.topic")]
    pub topic: String,
    /// The partition it stood in, in decimal.
    #[serde(rename = "__connect.errors.partition")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    pub partition: String,
    /// Its offset, in decimal.
    #[serde(rename = "__connect.errors.offset")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    pub offset: String,
    /// What was being done with it.
    #[serde(rename = "__connect.errors.stage")]
    pub stage: String,
    /// The kind of fault, for machines.
    #[serde(rename = "__connect.errors.exception.class.name")]
    #[schemars(extend("enum" = super::FaultCode::ALL.map(super::FaultCode::name)))]
    pub class_name: String,
    /// What is wrong and what is expected, for people.
    #[serde(rename = "__connect.errors.exception.message")]
    pub message: String,
}

impl DeadLetterHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            topic: "orders".to_owned(),
            partition: "3".to_owned(),
            offset: "8844".to_owned(),
            stage: "read".to_owned(),
            class_name: super::FaultCode::NotJson.name().to_owned(),
            message: "the value is not JSON: expected value at line 1 column 1".to_owned(),
        }
    }
}
