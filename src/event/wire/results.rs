//! What is told: the values on the topics of results and of levels.
//!
//! Between the command's id and `source` they have what the ledger keeps of a
//! decision as its detail, field by field in the same order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{example_id, example_location, example_sku};
use crate::ledger::{
    AcceptedLine, AdjustedLine, ConfirmedLine, Id, Limits, Location, MAX_LINES, Offset, Reason, ReturnedLine,
    Sku, Source,
};

event_type!(OrderAcceptedType: OrderAccepted = "order.accepted", "Stock was taken for the order.");
event_type!(OrderRejectedType: OrderRejected = "order.rejected", "Nothing was taken from stock.");
event_type!(CancellationAcceptedType: CancellationAccepted = "cancellation.accepted", "The order has nothing any more.");
event_type!(ReturnAcceptedType: ReturnAccepted = "return.accepted", "What came back is in stock.");
event_type!(ReturnRejectedType: ReturnRejected = "return.rejected", "Nothing was given back to stock.");
event_type!(ConfirmationAcceptedType: ConfirmationAccepted = "confirmation.accepted", "The hold is final.");
event_type!(ConfirmationRejectedType: ConfirmationRejected = "confirmation.rejected", "Nothing was made final.");
event_type!(ReleaseAcceptedType: ReleaseAccepted = "release.accepted", "The hold was given back.");
event_type!(ReleaseRejectedType: ReleaseRejected = "release.rejected", "Nothing was given back to stock.");
event_type!(ExtensionAcceptedType: ExtensionAccepted = "extension.accepted", "The hold lasts longer.");
event_type!(ExtensionRejectedType: ExtensionRejected = "extension.rejected", "The hold's end is what it was.");
event_type!(HoldExpiredType: HoldExpired = "hold.expired", "The hold's time was over and it was given back.");
event_type!(AdjustmentAcceptedType: AdjustmentAccepted = "adjustment.accepted", "The level or its limits were changed.");
event_type!(AdjustmentRejectedType: AdjustmentRejected = "adjustment.rejected", "Neither the level nor its limits were changed.");
event_type!(StockLevelType: StockLevel = "stock.level", "How much of a SKU there is.");

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

// What the examples have in common: an order `o-1001` that is final, and `o-1004` that is a hold at berlin.

fn orders_source(offset: i64) -> RecordSource {
    RecordSource { topic: "orders".to_owned(), partition: 3, offset: Offset(offset) }
}

fn adjustments_source(offset: i64) -> RecordSource {
    RecordSource { topic: "stock-adjustments".to_owned(), partition: 5, offset: Offset(offset) }
}

fn taken(sku: &str, quantity: i64, balance: i64) -> AcceptedLine {
    AcceptedLine { sku: example_sku(sku), location: None, quantity, balance, backordered: 0 }
}

fn returned(sku: &str, location: Option<Location>, quantity: i64, balance: i64) -> ReturnedLine {
    ReturnedLine { sku: example_sku(sku), location, quantity, balance }
}

fn berlin() -> Location {
    example_location("berlin")
}

/// All of the hold, given back.
fn whole_hold() -> Vec<ReturnedLine> {
    vec![returned("MUG", Some(berlin()), 5, 5), returned("TSHIRT-M", Some(berlin()), 1, 12)]
}

fn hold_over() -> Vec<Reason> {
    vec![Reason::HoldExpired { expired_at: "2026-01-02T03:29:05.678901Z".to_owned() }]
}

/// An order was accepted: its stock is taken, for good or, with `expires_at`, as a hold. Told once for each order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.accepted", example = OrderAccepted::example(), example = OrderAccepted::hold_example(), example = OrderAccepted::backorder_example())]
pub struct OrderAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: OrderAcceptedType,
    /// The order's id.
    pub order_id: Id,
    /// What was taken: one line for each SKU and location, sorted by them.
    #[schemars(length(min = 1, max = MAX_LINES))]
    pub lines: Vec<AcceptedLine>,
    /// Why an order with the policy `partial` got less of something than it asked for, one reason for each SKU and location; absent when it got everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub short: Vec<Reason>,
    /// When the hold ends, by the ledger's clock: RFC 3339, UTC, microseconds. Absent when the order is no hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub expires_at: Option<String>,
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
        Self {
            kind: OrderAcceptedType::OrderAccepted,
            order_id: example_id("o-1001"),
            lines: vec![taken("MUG", 1, 119), taken("TSHIRT-M", 2, 55)],
            short: Vec::new(),
            expires_at: None,
            source: Some(orders_source(8841)),
        }
    }

    /// A hold that got less than it asked for.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn hold_example() -> Self {
        let at_berlin = |line| AcceptedLine { location: Some(berlin()), ..line };
        let (sku, location) = (example_sku("MUG"), Some(berlin()));
        Self {
            order_id: example_id("o-1004"),
            lines: vec![at_berlin(taken("MUG", 5, 0)), at_berlin(taken("TSHIRT-M", 1, 11))],
            short: vec![Reason::InsufficientStock { sku, location, requested: 6, available: 5 }],
            expires_at: Some("2026-01-02T03:19:05.678901Z".to_owned()),
            source: Some(orders_source(8845)),
            ..Self::example()
        }
    }

    /// An order that was promised pieces that are not there yet.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn backorder_example() -> Self {
        Self {
            order_id: example_id("o-1005"),
            lines: vec![AcceptedLine { backordered: 3, ..taken("MUG", 4, -3) }],
            source: Some(orders_source(8846)),
            ..Self::example()
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
    /// Why: one reason for each SKU and location, or line, at fault.
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
                Reason::InsufficientStock {
                    sku: example_sku("MUG"),
                    location: None,
                    requested: 500,
                    available: 119,
                },
                Reason::UnknownSku { sku: example_sku("MUGG"), location: None, requested: 1 },
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
            source: Some(orders_source(offset)),
        }
    }
}

/// An order was cancelled: it has nothing any more, and takes nothing should it come only now. Told once for each order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "cancellation.accepted", example = CancellationAccepted::example())]
pub struct CancellationAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: CancellationAcceptedType,
    /// The order's id.
    pub order_id: Id,
    /// What was given back: all that the order still had; nothing when it had nothing, one line for each SKU and location, sorted by them.
    pub returned: Vec<ReturnedLine>,
    /// The record the cancellation was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl CancellationAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: CancellationAcceptedType::CancellationAccepted,
            order_id: example_id("o-1001"),
            returned: vec![returned("MUG", None, 1, 120), returned("TSHIRT-M", None, 1, 57)],
            source: Some(orders_source(8852)),
        }
    }
}

/// A return was accepted: what came back is in stock. Told once for each return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "return.accepted", example = ReturnAccepted::example())]
pub struct ReturnAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ReturnAcceptedType,
    /// The return's id.
    pub return_id: Id,
    /// The order.
    pub order_id: Id,
    /// What was given back, one line for each SKU and location, sorted by them.
    pub returned: Vec<ReturnedLine>,
    /// The record the return was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ReturnAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ReturnAcceptedType::ReturnAccepted,
            return_id: example_id("r-12"),
            order_id: example_id("o-1001"),
            returned: vec![returned("TSHIRT-M", None, 1, 56)],
            source: Some(orders_source(8850)),
        }
    }
}

/// A return was rejected, for every reason there is: nothing was given back. Told once for each return; a new attempt needs a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "return.rejected", example = ReturnRejected::example(), example = ReturnRejected::invalid_example())]
pub struct ReturnRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ReturnRejectedType,
    /// The return's id.
    pub return_id: Id,
    /// The order; absent when the command's content broke the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Id")]
    pub order_id: Option<Id>,
    /// Why: every reason there is.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the return was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ReturnRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ReturnRejectedType::ReturnRejected,
            return_id: example_id("r-13"),
            order_id: Some(example_id("o-1001")),
            reasons: vec![Reason::ReturnExceedsDeducted {
                sku: example_sku("TSHIRT-M"),
                location: None,
                requested: 2,
                left: 1,
            }],
            source: Some(orders_source(8851)),
        }
    }

    /// The event that tells of a return whose content breaks the contract.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn invalid_example() -> Self {
        let reason = |line, detail: &str| Reason::InvalidOrder { line, detail: detail.to_owned() };
        Self {
            return_id: example_id("r-14"),
            order_id: None,
            reasons: vec![reason(None, "order_id is missing"), reason(Some(1), "quantity is missing")],
            source: Some(orders_source(8853)),
            ..Self::example()
        }
    }
}

/// A hold is final. Told once for each confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "confirmation.accepted", example = ConfirmationAccepted::example())]
pub struct ConfirmationAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ConfirmationAcceptedType,
    /// The confirmation's id: the order's when its producer gave it none.
    pub confirmation_id: Id,
    /// The order.
    pub order_id: Id,
    /// What the order keeps: one line for each SKU and location, sorted by them; none when everything of it came back before.
    #[schemars(length(max = MAX_LINES))]
    pub lines: Vec<ConfirmedLine>,
    /// What was given back since it was not confirmed, one line for each SKU and location, sorted by them.
    pub returned: Vec<ReturnedLine>,
    /// The record the confirmation was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ConfirmationAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ConfirmationAcceptedType::ConfirmationAccepted,
            confirmation_id: example_id("c-7"),
            order_id: example_id("o-1004"),
            lines: vec![ConfirmedLine { sku: example_sku("MUG"), location: Some(berlin()), quantity: 3 }],
            returned: vec![
                returned("MUG", Some(berlin()), 2, 2),
                returned("TSHIRT-M", Some(berlin()), 1, 12),
            ],
            source: Some(orders_source(8848)),
        }
    }
}

/// A confirmation was rejected, for every reason there is: nothing was made final or given back. Told once for each confirmation; a new attempt needs a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "confirmation.rejected", example = ConfirmationRejected::example())]
pub struct ConfirmationRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ConfirmationRejectedType,
    /// The confirmation's id: the order's when its producer gave it none.
    pub confirmation_id: Id,
    /// The order; absent when the command's content broke the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Id")]
    pub order_id: Option<Id>,
    /// Why: every reason there is.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the confirmation was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ConfirmationRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ConfirmationRejectedType::ConfirmationRejected,
            confirmation_id: example_id("c-8"),
            order_id: Some(example_id("o-1004")),
            reasons: hold_over(),
            source: Some(orders_source(8859)),
        }
    }
}

/// A hold was given back before its time was over. Told once for each order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "release.accepted", example = ReleaseAccepted::example())]
pub struct ReleaseAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ReleaseAcceptedType,
    /// The order's id.
    pub order_id: Id,
    /// What was given back: all that the order still had, one line for each SKU and location, sorted by them.
    pub returned: Vec<ReturnedLine>,
    /// The record the release was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ReleaseAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ReleaseAcceptedType::ReleaseAccepted,
            order_id: example_id("o-1004"),
            returned: whole_hold(),
            source: Some(orders_source(8849)),
        }
    }
}

/// A release was rejected: nothing was given back. Told once for each order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "release.rejected", example = ReleaseRejected::example())]
pub struct ReleaseRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ReleaseRejectedType,
    /// The order's id.
    pub order_id: Id,
    /// Why: every reason there is.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the release was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ReleaseRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ReleaseRejectedType::ReleaseRejected,
            order_id: example_id("o-1001"),
            reasons: vec![Reason::AlreadyConfirmed],
            source: Some(orders_source(8854)),
        }
    }
}

/// A hold lasts longer. Told once for each extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "extension.accepted", example = ExtensionAccepted::example())]
pub struct ExtensionAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ExtensionAcceptedType,
    /// The extension's id.
    pub extension_id: Id,
    /// The order.
    pub order_id: Id,
    /// When the hold ends now, by the ledger's clock: RFC 3339, UTC, microseconds.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// The record the extension was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ExtensionAccepted {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ExtensionAcceptedType::ExtensionAccepted,
            extension_id: example_id("e-2"),
            order_id: example_id("o-1004"),
            expires_at: "2026-01-02T03:29:05.678901Z".to_owned(),
            source: Some(orders_source(8847)),
        }
    }
}

/// An extension was rejected: the hold's end is what it was. Told once for each extension; a new attempt needs a new id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "extension.rejected", example = ExtensionRejected::example())]
pub struct ExtensionRejected {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: ExtensionRejectedType,
    /// The extension's id.
    pub extension_id: Id,
    /// The order; absent when the command's content broke the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Id")]
    pub order_id: Option<Id>,
    /// Why: every reason there is.
    #[schemars(length(min = 1))]
    pub reasons: Vec<Reason>,
    /// The record the extension was decided from; absent when it came by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl ExtensionRejected {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: ExtensionRejectedType::ExtensionRejected,
            extension_id: example_id("e-3"),
            order_id: Some(example_id("o-1004")),
            reasons: hold_over(),
            source: Some(orders_source(8858)),
        }
    }
}

/// A hold's time was over and it was given back. Told once for each order, and only for one that held until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "hold.expired", example = HoldExpired::example())]
pub struct HoldExpired {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: HoldExpiredType,
    /// The order's id.
    pub order_id: Id,
    /// When the hold ended, by the ledger's clock: RFC 3339, UTC, microseconds.
    #[schemars(extend("format" = "date-time"))]
    pub expired_at: String,
    /// What was given back: all that the order still had, one line for each SKU and location, sorted by them.
    pub returned: Vec<ReturnedLine>,
    /// The `order.hold_due` record by which the verifier asked for it; absent when it was asked by another way than Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RecordSource")]
    pub source: Option<RecordSource>,
}

impl HoldExpired {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: HoldExpiredType::HoldExpired,
            order_id: example_id("o-1004"),
            expired_at: "2026-01-02T03:29:05.678901Z".to_owned(),
            returned: whole_hold(),
            source: Some(orders_source(8857)),
        }
    }
}

/// An adjustment was accepted: the level or its limits are changed. Told once for each adjustment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "adjustment.accepted", example = AdjustmentAccepted::example(), example = AdjustmentAccepted::limits_example())]
pub struct AdjustmentAccepted {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: AdjustmentAcceptedType,
    /// The adjustment's id.
    pub adjustment_id: Id,
    /// What was changed: one line.
    #[schemars(length(min = 1, max = 1))]
    pub lines: Vec<AdjustedLine>,
    /// The limits from now on, where they are what was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Limits")]
    pub limits: Option<Limits>,
    /// The record the adjustment was decided from; absent when it came by another way than Kafka.
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
            lines: vec![AdjustedLine {
                sku: example_sku("MUG"),
                location: None,
                quantity: 500,
                balance: 620,
                version: 18,
            }],
            limits: None,
            source: Some(adjustments_source(77)),
        }
    }

    /// Limits that were stated.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn limits_example() -> Self {
        Self {
            adjustment_id: example_id("a-7"),
            lines: vec![AdjustedLine {
                sku: example_sku("MUG"),
                location: None,
                quantity: 0,
                balance: 620,
                version: 19,
            }],
            limits: Some(Limits { backorder: 50, order: Some(10) }),
            source: Some(adjustments_source(81)),
            ..Self::example()
        }
    }
}

/// An adjustment was rejected, for every reason there is: the level and its limits are what they were. Told once for each adjustment; a new attempt needs a new id.
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
    /// The record the adjustment was decided from; absent when it came by another way than Kafka.
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
            reasons: vec![Reason::VersionMismatch {
                sku: example_sku("MUG"),
                location: None,
                expected: 17,
                actual: 18,
            }],
            source: Some(adjustments_source(78)),
        }
    }
}

/// How much of a SKU there is at a location. Told after changes, not once for each: of several close together only the last is sure to be told. Of two with one key the one with the higher version is the newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stock.level", example = StockLevel::example(), example = StockLevel::location_example())]
pub struct StockLevel {
    /// What this is.
    #[serde(rename = "type")]
    pub kind: StockLevelType,
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// Pieces that can be taken, backorders not counted; below zero, the pieces promised beyond what was there.
    pub available: i64,
    /// The level's version: how many changes made it.
    #[schemars(range(min = 1))]
    pub version: i64,
}

impl StockLevel {
    /// The event shown in the documentation.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: StockLevelType::StockLevel,
            sku: example_sku("MUG"),
            location: None,
            available: 620,
            version: 18,
        }
    }

    /// The level at a location.
    ///
    /// # Panics
    /// Never: its ids are valid.
    #[must_use]
    pub fn location_example() -> Self {
        Self { location: Some(berlin()), available: 5, version: 4, ..Self::example() }
    }
}
