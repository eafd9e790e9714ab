//! What is published: the values on the topics of results and of levels.
//!
//! Between the command's id and `source` they have what the ledger keeps of a
//! decision as its detail, field by field in the same order.

mod holds;
mod orders;
mod returns;
mod stock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use holds::{
    ConfirmationAccepted, ConfirmationAcceptedType, ConfirmationRejected, ConfirmationRejectedType,
    ExtensionAccepted, ExtensionAcceptedType, ExtensionRejected, ExtensionRejectedType, HoldExpired,
    HoldExpiredType, ReleaseAccepted, ReleaseAcceptedType, ReleaseRejected, ReleaseRejectedType,
};
pub use orders::{
    CancellationAccepted, CancellationAcceptedType, OrderAccepted, OrderAcceptedType, OrderRejected,
    OrderRejectedType,
};
pub use returns::{ReturnAccepted, ReturnAcceptedType, ReturnRejected, ReturnRejectedType};
pub use stock::{
    AdjustmentAccepted, AdjustmentAcceptedType, AdjustmentRejected, AdjustmentRejectedType, StockLevel,
    StockLevelType,
};

use super::{example_location, example_sku};
use crate::ledger::{AcceptedLine, Location, Offset, Reason, ReturnedLine, Source};

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
