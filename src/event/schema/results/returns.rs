//! What is published about returns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RecordSource, orders_source, returned};
use crate::event::schema::{example_id, example_sku};
use crate::ledger::{Id, Reason, ReturnedLine};

event_type!(ReturnAcceptedType: ReturnAccepted = "return.accepted", "What came back is in stock.");
event_type!(ReturnRejectedType: ReturnRejected = "return.rejected", "Nothing was given back to stock.");

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

    /// The event that reports a return whose content breaks the contract.
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
