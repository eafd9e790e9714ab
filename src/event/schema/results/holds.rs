//! What is published about holds: confirmed, released, prolonged, over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RecordSource, berlin, hold_over, orders_source, returned, whole_hold};
use crate::event::schema::{example_id, example_sku};
use crate::ledger::{ConfirmedLine, Id, MAX_LINES, Reason, ReturnedLine};

event_type!(ConfirmationAcceptedType: ConfirmationAccepted = "confirmation.accepted", "The hold is final.");
event_type!(ConfirmationRejectedType: ConfirmationRejected = "confirmation.rejected", "Nothing was made final.");
event_type!(ReleaseAcceptedType: ReleaseAccepted = "release.accepted", "The hold was given back.");
event_type!(ReleaseRejectedType: ReleaseRejected = "release.rejected", "Nothing was given back to stock.");
event_type!(ExtensionAcceptedType: ExtensionAccepted = "extension.accepted", "The hold lasts longer.");
event_type!(ExtensionRejectedType: ExtensionRejected = "extension.rejected", "The hold's end is what it was.");
event_type!(HoldExpiredType: HoldExpired = "hold.expired", "The hold's time was over and it was given back.");

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
