//! The shapes on the wire. They read and write the events, and the published schemas are made of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::{Id, Location, Sku};

/// A type of one event, so that its schema allows no other.
macro_rules! event_type {
    ($name:ident: $variant:ident = $text:literal, $doc:literal) => {
        /// The event's type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        #[schemars(inline)]
        pub enum $name {
            #[doc = $doc]
            #[serde(rename = $text)]
            $variant,
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::event::json::word(deserializer, &[($text, Self::$variant)])
            }
        }
    };
}

mod commands;
mod results;

pub use commands::{
    HoldDue, HoldDueType, HoldExtended, HoldExtendedType, LimitsSet, LimitsSetType, OrderCancelled,
    OrderCancelledType, OrderConfirmed, OrderConfirmedType, OrderCreated, OrderCreatedLine, OrderCreatedType,
    OrderPolicy, OrderReleased, OrderReleasedType, OrderReturned, OrderReturnedType, StockAdjusted,
    StockAdjustedType, StockReceived, StockReceivedType, StockSet, StockSetType,
};
pub use results::{
    AdjustmentAccepted, AdjustmentAcceptedType, AdjustmentRejected, AdjustmentRejectedType,
    CancellationAccepted, CancellationAcceptedType, ConfirmationAccepted, ConfirmationAcceptedType,
    ConfirmationRejected, ConfirmationRejectedType, ExtensionAccepted, ExtensionAcceptedType,
    ExtensionRejected, ExtensionRejectedType, HoldExpired, HoldExpiredType, OrderAccepted, OrderAcceptedType,
    OrderRejected, OrderRejectedType, RecordSource, ReleaseAccepted, ReleaseAcceptedType, ReleaseRejected,
    ReleaseRejectedType, ReturnAccepted, ReturnAcceptedType, ReturnRejected, ReturnRejectedType, StockLevel,
    StockLevelType,
};

/// The type of [`OrderCreated`].
pub const ORDER_CREATED: &str = "order.created";
/// The type of [`OrderCancelled`].
pub const ORDER_CANCELLED: &str = "order.cancelled";
/// The type of [`OrderReturned`].
pub const ORDER_RETURNED: &str = "order.returned";
/// The type of [`OrderConfirmed`].
pub const ORDER_CONFIRMED: &str = "order.confirmed";
/// The type of [`OrderReleased`].
pub const ORDER_RELEASED: &str = "order.released";
/// The type of [`HoldExtended`].
pub const ORDER_HOLD_EXTENDED: &str = "order.hold_extended";
/// The type of [`HoldDue`].
pub const ORDER_HOLD_DUE: &str = "order.hold_due";
/// The type of [`StockReceived`].
pub const STOCK_RECEIVED: &str = "stock.received";
/// The type of [`StockAdjusted`].
pub const STOCK_ADJUSTED: &str = "stock.adjusted";
/// The type of [`StockSet`].
pub const STOCK_SET: &str = "stock.set";
/// The type of [`LimitsSet`].
pub const STOCK_LIMITS_SET: &str = "stock.limits_set";
/// Every type that is read.
pub const COMMAND_TYPES: [&str; 11] = [
    ORDER_CREATED,
    ORDER_CANCELLED,
    ORDER_RETURNED,
    ORDER_CONFIRMED,
    ORDER_RELEASED,
    ORDER_HOLD_EXTENDED,
    ORDER_HOLD_DUE,
    STOCK_RECEIVED,
    STOCK_ADJUSTED,
    STOCK_SET,
    STOCK_LIMITS_SET,
];

/// The type of [`OrderAccepted`].
pub const ORDER_ACCEPTED: &str = "order.accepted";
/// The type of [`OrderRejected`].
pub const ORDER_REJECTED: &str = "order.rejected";
/// The type of [`CancellationAccepted`].
pub const CANCELLATION_ACCEPTED: &str = "cancellation.accepted";
/// The type of [`ReturnAccepted`].
pub const RETURN_ACCEPTED: &str = "return.accepted";
/// The type of [`ReturnRejected`].
pub const RETURN_REJECTED: &str = "return.rejected";
/// The type of [`ConfirmationAccepted`].
pub const CONFIRMATION_ACCEPTED: &str = "confirmation.accepted";
/// The type of [`ConfirmationRejected`].
pub const CONFIRMATION_REJECTED: &str = "confirmation.rejected";
/// The type of [`ReleaseAccepted`].
pub const RELEASE_ACCEPTED: &str = "release.accepted";
/// The type of [`ReleaseRejected`].
pub const RELEASE_REJECTED: &str = "release.rejected";
/// The type of [`ExtensionAccepted`].
pub const EXTENSION_ACCEPTED: &str = "extension.accepted";
/// The type of [`ExtensionRejected`].
pub const EXTENSION_REJECTED: &str = "extension.rejected";
/// The type of [`HoldExpired`].
pub const HOLD_EXPIRED: &str = "hold.expired";
/// The type of [`AdjustmentAccepted`].
pub const ADJUSTMENT_ACCEPTED: &str = "adjustment.accepted";
/// The type of [`AdjustmentRejected`].
pub const ADJUSTMENT_REJECTED: &str = "adjustment.rejected";
/// Every type a decision is published as.
pub const RESULT_TYPES: [&str; 14] = [
    ORDER_ACCEPTED,
    ORDER_REJECTED,
    CANCELLATION_ACCEPTED,
    RETURN_ACCEPTED,
    RETURN_REJECTED,
    CONFIRMATION_ACCEPTED,
    CONFIRMATION_REJECTED,
    RELEASE_ACCEPTED,
    RELEASE_REJECTED,
    EXTENSION_ACCEPTED,
    EXTENSION_REJECTED,
    HOLD_EXPIRED,
    ADJUSTMENT_ACCEPTED,
    ADJUSTMENT_REJECTED,
];
/// The type of [`StockLevel`].
pub const STOCK_LEVEL: &str = "stock.level";

fn example_id(text: &str) -> Id {
    Id::new(text).expect("the examples' ids are short, printable constants")
}

fn example_sku(text: &str) -> Sku {
    Sku::new(text).expect("the examples' SKUs are short, printable constants")
}

fn example_location(text: &str) -> Location {
    Location::new(text).expect("the examples' locations are short, printable constants")
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
    #[schemars(extend("const" = super::CE_SOURCE))]
    pub ce_source: String,
    /// The same as the value's `type`.
    #[schemars(extend("enum" = RESULT_TYPES))]
    pub ce_type: String,
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

impl ResultHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_specversion: "1.0".to_owned(),
            ce_id: "order.created/o-1001".to_owned(),
            ce_source: super::CE_SOURCE.to_owned(),
            ce_type: ORDER_ACCEPTED.to_owned(),
            ce_time: "2026-01-02T03:04:05.678901Z".to_owned(),
            content_type: "application/json".to_owned(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        }
    }
}

/// The headers of a level: `CloudEvents` 1.0, Kafka binary mode. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "level headers", example = LevelHeaders::example())]
pub struct LevelHeaders {
    /// The version of `CloudEvents`: always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub ce_specversion: String,
    /// The event's id: `stock.level/`, the record's key, `/`, the version.
    #[schemars(length(min = 1))]
    pub ce_id: String,
    /// Who tells it.
    #[schemars(extend("const" = super::CE_SOURCE))]
    pub ce_source: String,
    /// The same as the value's `type`.
    #[schemars(extend("const" = STOCK_LEVEL))]
    pub ce_type: String,
    /// The media type of the value.
    #[serde(rename = "content-type")]
    #[schemars(extend("const" = "application/json"))]
    pub content_type: String,
}

impl LevelHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_specversion: "1.0".to_owned(),
            ce_id: "stock.level/MUG/18".to_owned(),
            ce_source: super::CE_SOURCE.to_owned(),
            ce_type: STOCK_LEVEL.to_owned(),
            content_type: "application/json".to_owned(),
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
