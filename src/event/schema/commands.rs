//! What is asked: the values on the topics of orders and of adjustments, beside [`OrderCreated`](super::OrderCreated).
//!
//! In all of them a `null` counts as absent. The reader looks at their fields one by one; the tests hold the two together.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{example_id, example_location, example_sku};
use crate::event::order::{OrderCreatedLine, lines};
use crate::ledger::{Id, Location, MAX_HOLD_SECONDS, MAX_LINES, MAX_QUANTITY, Sku};

event_type!(OrderCancelledType: OrderCancelled = "order.cancelled", "An order is cancelled.");
event_type!(OrderReturnedType: OrderReturned = "order.returned", "Some of an order comes back.");
event_type!(OrderConfirmedType: OrderConfirmed = "order.confirmed", "A hold becomes final.");
event_type!(OrderReleasedType: OrderReleased = "order.released", "A hold is given back.");
event_type!(HoldExtendedType: HoldExtended = "order.hold_extended", "A hold lasts longer.");
event_type!(HoldDueType: HoldDue = "order.hold_due", "A hold's time seems to be over.");
event_type!(StockReceivedType: StockReceived = "stock.received", "Pieces came in.");
event_type!(StockAdjustedType: StockAdjusted = "stock.adjusted", "Pieces were found or are missing.");
event_type!(StockSetType: StockSet = "stock.set", "A level is stated.");
event_type!(LimitsSetType: LimitsSet = "stock.limits_set", "Limits are stated.");

/// An order is cancelled: all that it still has is given back, whether it is final or a hold. An order cancelled before it is created takes nothing when it comes. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.cancelled", example = OrderCancelled::example())]
pub struct OrderCancelled {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderCancelledType")]
    pub kind: Option<OrderCancelledType>,
    /// The order's id. An order is cancelled once.
    pub order_id: Id,
}

impl OrderCancelled {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self { kind: Some(OrderCancelledType::OrderCancelled), order_id: example_id("o-1001") }
    }
}

/// Some of what an order took comes back: all the lines or none. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.returned", example = OrderReturned::example())]
pub struct OrderReturned<'a> {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderReturnedType")]
    pub kind: Option<OrderReturnedType>,
    /// The order that took it.
    pub order_id: Id,
    /// The return's id, chosen by its producer. The same id asks for the same return.
    pub return_id: Id,
    /// What comes back: at most what the order still has. Lines of one SKU and location are summed; their order does not matter.
    #[serde(borrow, deserialize_with = "lines")]
    #[schemars(length(min = 1, max = MAX_LINES))]
    pub lines: Vec<OrderCreatedLine<'a>>,
}

impl OrderReturned<'static> {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(OrderReturnedType::OrderReturned),
            order_id: example_id("o-1001"),
            return_id: example_id("r-12"),
            lines: vec![OrderCreatedLine::example("TSHIRT-M", 1)],
        }
    }
}

/// A hold becomes final. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.confirmed", example = OrderConfirmed::example(), example = OrderConfirmed::lines_example())]
pub struct OrderConfirmed<'a> {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderConfirmedType")]
    pub kind: Option<OrderConfirmedType>,
    /// The order that holds.
    pub order_id: Id,
    /// The confirmation's id, chosen by its producer: the order's id when absent. The same id asks for the same confirmation; after a rejection a new attempt needs a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Id")]
    pub confirmation_id: Option<Id>,
    /// What is kept, the rest is given back: at most what the order still has, lines of one SKU and location summed. Absent keeps all.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "lines_or_none")]
    #[schemars(with = "Vec<OrderCreatedLine<'_>>", length(min = 1, max = MAX_LINES))]
    pub lines: Option<Vec<OrderCreatedLine<'a>>>,
}

/// Lines, each an object, or `null`.
fn lines_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<OrderCreatedLine<'de>>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Lines<'a>(#[serde(borrow, deserialize_with = "lines")] Vec<OrderCreatedLine<'a>>);
    Option::<Lines<'de>>::deserialize(deserializer).map(|lines| lines.map(|lines| lines.0))
}

impl OrderConfirmed<'static> {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(OrderConfirmedType::OrderConfirmed),
            order_id: example_id("o-1004"),
            confirmation_id: None,
            lines: None,
        }
    }

    /// A confirmation of some of what is held, with an id of its own.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn lines_example() -> Self {
        let mug = OrderCreatedLine::example("MUG", 3);
        Self {
            confirmation_id: Some(example_id("c-7")),
            lines: Some(vec![OrderCreatedLine { location: Some(Cow::Borrowed("berlin")), ..mug }]),
            ..Self::example()
        }
    }
}

/// A hold is given back before its time is over. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.released", example = OrderReleased::example())]
pub struct OrderReleased {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderReleasedType")]
    pub kind: Option<OrderReleasedType>,
    /// The order's id. A release is decided once, for each order.
    pub order_id: Id,
}

impl OrderReleased {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self { kind: Some(OrderReleasedType::OrderReleased), order_id: example_id("o-1004") }
    }
}

/// A hold lasts longer. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.hold_extended", example = HoldExtended::example())]
pub struct HoldExtended {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HoldExtendedType")]
    pub kind: Option<HoldExtendedType>,
    /// The order that holds.
    pub order_id: Id,
    /// The extension's id, chosen by its producer. The same id asks for the same extension.
    pub extension_id: Id,
    /// By how many seconds the hold's end moves, counted from that end and not from now: a JSON integer, at most 31 days.
    #[schemars(range(min = 1, max = MAX_HOLD_SECONDS))]
    pub hold_seconds: i64,
}

impl HoldExtended {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(HoldExtendedType::HoldExtended),
            order_id: example_id("o-1004"),
            extension_id: example_id("e-2"),
            hold_seconds: 600,
        }
    }
}

/// A hold's time seems to be over. The verifier asks this itself and nobody else needs to; it does no harm when someone does, since the ledger decides by its own clock whether the time is over, and passes over what is not due. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.hold_due", example = HoldDue::example())]
pub struct HoldDue {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HoldDueType")]
    pub kind: Option<HoldDueType>,
    /// The order that holds.
    pub order_id: Id,
}

impl HoldDue {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self { kind: Some(HoldDueType::HoldDue), order_id: example_id("o-1004") }
    }
}

/// Pieces came in. The first of a SKU at a location makes it known. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.received", example = StockReceived::example(), example = StockReceived::location_example())]
pub struct StockReceived {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StockReceivedType")]
    pub kind: Option<StockReceivedType>,
    /// The adjustment's id, chosen by its producer; all `stock.*` commands share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
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
            location: None,
            quantity: 500,
        }
    }

    /// Pieces that came in at a location.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn location_example() -> Self {
        Self {
            adjustment_id: example_id("a-6"),
            location: Some(example_location("berlin")),
            quantity: 5,
            ..Self::example()
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
    /// The adjustment's id, chosen by its producer; all `stock.*` commands share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
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
            location: None,
            quantity: -2,
        }
    }
}

/// A level is stated, whatever it was or only at the version expected. The first of a SKU at a location makes it known. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.set", example = StockSet::example())]
pub struct StockSet {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StockSetType")]
    pub kind: Option<StockSetType>,
    /// The adjustment's id, chosen by its producer; all `stock.*` commands share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
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
            location: None,
            available: 120,
            expected_version: Some(17),
        }
    }
}

/// The limits of a known SKU are stated, both of them: one that is left out goes back to its default. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.limits_set", example = LimitsSet::example())]
pub struct LimitsSet {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitsSetType")]
    pub kind: Option<LimitsSetType>,
    /// The adjustment's id, chosen by its producer; all `stock.*` commands share them. The same id asks for the same adjustment.
    pub adjustment_id: Id,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// How far below zero orders may take the level, in pieces: a JSON integer; 0 when absent, which sells only what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = MAX_QUANTITY))]
    pub backorder_limit: Option<i64>,
    /// Most pieces one order may take: a JSON integer. Absent, an order may take any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = MAX_QUANTITY))]
    pub order_limit: Option<i64>,
}

impl LimitsSet {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(LimitsSetType::LimitsSet),
            adjustment_id: example_id("a-7"),
            sku: example_sku("MUG"),
            location: None,
            backorder_limit: Some(50),
            order_limit: Some(10),
        }
    }
}
