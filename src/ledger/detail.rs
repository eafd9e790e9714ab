//! What the ledger stores as a decision's detail: the members of the event that publishes it, as JSON.
//!
//! Kept for ever and published as it is: a field that is here once keeps its name and meaning. The published schemas
//! have these shapes' lines and reasons in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Id, Limits, Location, Sku};

/// What is published about an accepted order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTaken {
    /// What was taken, sorted by SKU and location, each once.
    pub lines: Vec<AcceptedLine>,
    /// Why a partial order got less of something than it asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short: Vec<Reason>,
    /// When the hold ends, where it is one: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What is published about a cancellation, a return, a release and an expired hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// The order, where the command's id is not its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Id>,
    /// When the hold ended, where that is the cause: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<String>,
    /// What was given back, sorted by SKU and location, each once.
    pub returned: Vec<ReturnedLine>,
}

/// What is published about a confirmed hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The order.
    pub order_id: Id,
    /// What it keeps, sorted by SKU and location, each once.
    pub lines: Vec<ConfirmedLine>,
    /// What was given back since it was not confirmed.
    pub returned: Vec<ReturnedLine>,
}

/// What is published about a hold that lasts longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The order.
    pub order_id: Id,
    /// When the hold ends now: RFC 3339.
    pub expires_at: String,
}

/// What is published about an accepted adjustment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjusted {
    /// What it changed: one line.
    pub lines: Vec<AdjustedLine>,
    /// The limits, where they are what it stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// What is published about a rejected command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The order, where the command's id is not its id and it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Id>,
    /// Why: every reason there is.
    pub reasons: Vec<Reason>,
}

/// A line of an accepted order, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// Pieces taken, lines of one SKU and location summed.
    #[schemars(range(min = 1))]
    pub quantity: i64,
    /// The level right after this order took its pieces.
    pub balance: i64,
    /// How many of the pieces were not there and are promised; absent when all were there.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 1))]
    pub backordered: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What an accepted adjustment did, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdjustedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// Pieces added (positive) or taken away (negative); 0 when the level stated was the level there was.
    pub quantity: i64,
    /// The level right after it.
    pub balance: i64,
    /// The level's version right after it: what `expected_version` of the next `stock.set` would be.
    #[schemars(range(min = 1))]
    pub version: i64,
}

/// A line given back, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// Pieces given back.
    #[schemars(range(min = 1))]
    pub quantity: i64,
    /// The level right after it.
    pub balance: i64,
}

/// A line of a hold that is final now, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Where; absent for the default location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Location")]
    pub location: Option<Location>,
    /// Pieces kept.
    #[schemars(range(min = 1))]
    pub quantity: i64,
}

/// Why a command was rejected. A rejection names every line at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Less is available than was asked for.
    InsufficientStock {
        /// Which SKU.
        sku: Sku,
        /// Where; absent for the default location.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Location")]
        location: Option<Location>,
        /// Pieces asked for, lines of one SKU and location summed.
        #[schemars(range(min = 1))]
        requested: i64,
        /// Pieces that could have been taken at that moment, backorders included.
        #[schemars(range(min = 0))]
        available: i64,
    },
    /// No stock of this SKU was ever recorded.
    UnknownSku {
        /// Which SKU.
        sku: Sku,
        /// Where; absent for the default location.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Location")]
        location: Option<Location>,
        /// Pieces asked for; 0 where no pieces were.
        #[schemars(range(min = 0))]
        requested: i64,
    },
    /// The content of a command breaks the contract.
    InvalidOrder {
        /// The line at fault, counted from 1; absent when the fault is not in one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "u32", range(min = 1))]
        line: Option<u32>,
        /// What is wrong and what is allowed.
        detail: String,
    },
    /// The order was cancelled before it was created.
    OrderCancelled,
    /// There is no accepted order of this id.
    OrderNotFound,
    /// All of it was given back before: the order was cancelled, or its hold released.
    AlreadyCancelled,
    /// More was to be given back than the order still has.
    ReturnExceedsDeducted {
        /// Which SKU.
        sku: Sku,
        /// Where; absent for the default location.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Location")]
        location: Option<Location>,
        /// Pieces to be given back, lines of one SKU and location summed.
        #[schemars(range(min = 1))]
        requested: i64,
        /// Pieces of it the order still has; 0 when it never had any.
        #[schemars(range(min = 0))]
        left: i64,
    },
    /// The hold's time was over.
    HoldExpired {
        /// When it ended, by the ledger's clock: RFC 3339, UTC, microseconds.
        #[schemars(extend("format" = "date-time"))]
        expired_at: String,
    },
    /// The order is final: its hold was confirmed before, or it never was a hold.
    AlreadyConfirmed,
    /// The level's version is not the one the command expected.
    VersionMismatch {
        /// Which SKU.
        sku: Sku,
        /// Where; absent for the default location.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Location")]
        location: Option<Location>,
        /// The version the command expected.
        expected: i64,
        /// The version the level has; 0 when the SKU is unknown.
        actual: i64,
    },
    /// More than is allowed.
    LimitExceeded {
        /// Which SKU.
        sku: Sku,
        /// Where; absent for the default location.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Location")]
        location: Option<Location>,
        /// Pieces asked for.
        #[schemars(range(min = 1))]
        requested: i64,
        /// The most that was allowed at that moment.
        #[schemars(range(min = 0))]
        limit: i64,
    },
}

impl Reason {
    /// The reason's name in the contract.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InsufficientStock { .. } => "insufficient_stock",
            Self::UnknownSku { .. } => "unknown_sku",
            Self::InvalidOrder { .. } => "invalid_order",
            Self::OrderCancelled => "order_cancelled",
            Self::OrderNotFound => "order_not_found",
            Self::AlreadyCancelled => "already_cancelled",
            Self::ReturnExceedsDeducted { .. } => "return_exceeds_deducted",
            Self::HoldExpired { .. } => "hold_expired",
            Self::AlreadyConfirmed => "already_confirmed",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::LimitExceeded { .. } => "limit_exceeded",
        }
    }
}
