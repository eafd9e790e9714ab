//! The types of events, by which a record says what it is.

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

/// The type of [`OrderCreated`](super::schema::OrderCreated).
pub const ORDER_CREATED: &str = "order.created";
/// The type of [`OrderCancelled`](super::schema::OrderCancelled).
pub const ORDER_CANCELLED: &str = "order.cancelled";
/// The type of [`OrderReturned`](super::schema::OrderReturned).
pub const ORDER_RETURNED: &str = "order.returned";
/// The type of [`OrderConfirmed`](super::schema::OrderConfirmed).
pub const ORDER_CONFIRMED: &str = "order.confirmed";
/// The type of [`OrderReleased`](super::schema::OrderReleased).
pub const ORDER_RELEASED: &str = "order.released";
/// The type of [`HoldExtended`](super::schema::HoldExtended).
pub const ORDER_HOLD_EXTENDED: &str = "order.hold_extended";
/// The type of [`HoldDue`](super::schema::HoldDue).
pub const ORDER_HOLD_DUE: &str = "order.hold_due";
/// The type of [`StockReceived`](super::schema::StockReceived).
pub const STOCK_RECEIVED: &str = "stock.received";
/// The type of [`StockAdjusted`](super::schema::StockAdjusted).
pub const STOCK_ADJUSTED: &str = "stock.adjusted";
/// The type of [`StockSet`](super::schema::StockSet).
pub const STOCK_SET: &str = "stock.set";
/// The type of [`LimitsSet`](super::schema::LimitsSet).
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

/// The type of [`OrderAccepted`](super::schema::OrderAccepted).
pub const ORDER_ACCEPTED: &str = "order.accepted";
/// The type of [`OrderRejected`](super::schema::OrderRejected).
pub const ORDER_REJECTED: &str = "order.rejected";
/// The type of [`CancellationAccepted`](super::schema::CancellationAccepted).
pub const CANCELLATION_ACCEPTED: &str = "cancellation.accepted";
/// The type of [`ReturnAccepted`](super::schema::ReturnAccepted).
pub const RETURN_ACCEPTED: &str = "return.accepted";
/// The type of [`ReturnRejected`](super::schema::ReturnRejected).
pub const RETURN_REJECTED: &str = "return.rejected";
/// The type of [`ConfirmationAccepted`](super::schema::ConfirmationAccepted).
pub const CONFIRMATION_ACCEPTED: &str = "confirmation.accepted";
/// The type of [`ConfirmationRejected`](super::schema::ConfirmationRejected).
pub const CONFIRMATION_REJECTED: &str = "confirmation.rejected";
/// The type of [`ReleaseAccepted`](super::schema::ReleaseAccepted).
pub const RELEASE_ACCEPTED: &str = "release.accepted";
/// The type of [`ReleaseRejected`](super::schema::ReleaseRejected).
pub const RELEASE_REJECTED: &str = "release.rejected";
/// The type of [`ExtensionAccepted`](super::schema::ExtensionAccepted).
pub const EXTENSION_ACCEPTED: &str = "extension.accepted";
/// The type of [`ExtensionRejected`](super::schema::ExtensionRejected).
pub const EXTENSION_REJECTED: &str = "extension.rejected";
/// The type of [`HoldExpired`](super::schema::HoldExpired).
pub const HOLD_EXPIRED: &str = "hold.expired";
/// The type of [`AdjustmentAccepted`](super::schema::AdjustmentAccepted).
pub const ADJUSTMENT_ACCEPTED: &str = "adjustment.accepted";
/// The type of [`AdjustmentRejected`](super::schema::AdjustmentRejected).
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
/// The type of [`StockLevel`](super::schema::StockLevel).
pub const STOCK_LEVEL: &str = "stock.level";
