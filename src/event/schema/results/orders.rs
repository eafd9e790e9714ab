//! What is published about orders.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RecordSource, berlin, orders_source, returned, taken};
use crate::event::schema::{example_id, example_sku};
use crate::ledger::{AcceptedLine, Id, MAX_LINES, Reason, ReturnedLine};

event_type!(OrderAcceptedType: OrderAccepted = "order.accepted", "Stock was taken for the order.");
event_type!(OrderRejectedType: OrderRejected = "order.rejected", "Nothing was taken from stock.");
event_type!(CancellationAcceptedType: CancellationAccepted = "cancellation.accepted", "The order has nothing any more.");

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

    /// The event that reports an order whose content breaks the contract.
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
