//! How much there is of an item, and what bounds orders for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What bounds orders for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Limits {
    /// How far below zero orders may take the level; 0 sells only what is there.
    #[serde(rename = "backorder_limit")]
    #[schemars(range(min = 0, max = super::MAX_QUANTITY))]
    pub backorder: i64,
    /// Most pieces one order may take; absent when it may take any number.
    #[serde(rename = "order_limit", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = super::MAX_QUANTITY))]
    pub order: Option<i64>,
}

/// How much of an item there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Pieces that can be taken; below zero, the pieces promised beyond what was there.
    pub available: i64,
    /// How many movements made it: 0 before the first.
    pub version: i64,
    /// What bounds orders.
    pub limits: Limits,
}
