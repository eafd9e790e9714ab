//! What is published about stock commands and levels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RecordSource, adjustments_source, berlin};
use crate::event::schema::{example_id, example_sku};
use crate::ledger::{AdjustedLine, Id, Limits, Location, Reason, Sku};

event_type!(AdjustmentAcceptedType: AdjustmentAccepted = "adjustment.accepted", "The level or its limits were changed.");
event_type!(AdjustmentRejectedType: AdjustmentRejected = "adjustment.rejected", "Neither the level nor its limits were changed.");
event_type!(StockLevelType: StockLevel = "stock.level", "How much of a SKU there is.");

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
