//! What was decided, and the ledger lines that explain a level.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CommandKey, Digest, Sku, Source};

/// A decision's place in the ledger's order.
///
/// Drawn while the batch's SKUs are locked, so for any two decisions that
/// share a SKU the order of their numbers is the order they were made in.
/// Numbers have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// Before every decision.
    pub const START: Self = Self(0);
    /// After every decision.
    pub const END: Self = Self(i64::MAX);
}

/// When a decision was made, by the database's clock: microseconds since 1970-01-01 UTC.
///
/// For people and for `--since`; no rule reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub i64);

/// How much of a SKU there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Pieces that can be taken.
    pub available: i64,
    /// How many movements made it: 0 before the first.
    pub version: i64,
}

/// One line of the ledger: a change of one SKU's level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Which SKU.
    pub sku: Sku,
    /// The version this movement gave the level; with the SKU it names the movement.
    pub version: i64,
    /// Pieces added (positive) or taken (negative).
    pub quantity: i64,
    /// The level after it.
    pub balance: i64,
    /// The command that caused it.
    pub cause: CommandKey,
    /// The decision that made it.
    pub seq: Seq,
    /// The record the command came from; `None` for an operator's own command.
    pub source: Option<Source>,
}

/// A line of an accepted order, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Pieces taken, lines of one SKU summed.
    #[schemars(range(min = 1))]
    pub quantity: i64,
    /// The level right after this order took its pieces.
    pub balance: i64,
}

/// What an accepted adjustment did, as told and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdjustedLine {
    /// Which SKU.
    pub sku: Sku,
    /// Pieces added (positive) or taken away (negative); 0 when the level stated was the level there was.
    pub quantity: i64,
    /// The level right after it.
    #[schemars(range(min = 0))]
    pub balance: i64,
    /// The level's version right after it: what `expected_version` of the next `stock.set` would be.
    #[schemars(range(min = 1))]
    pub version: i64,
}

/// Why a command was rejected. A rejection names every line at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Less is available than was asked for.
    InsufficientStock {
        /// Which SKU.
        sku: Sku,
        /// Pieces asked for, lines of one SKU summed.
        #[schemars(range(min = 1))]
        requested: i64,
        /// Pieces there were at that moment.
        available: i64,
    },
    /// No stock of this SKU was ever recorded.
    UnknownSku {
        /// Which SKU.
        sku: Sku,
        /// Pieces asked for.
        #[schemars(range(min = 1))]
        requested: i64,
    },
    /// The content of an order or an adjustment breaks the contract.
    InvalidOrder {
        /// The line at fault, counted from 1; absent when the fault is not in one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "u32", range(min = 1))]
        line: Option<u32>,
        /// What is wrong and what is allowed.
        detail: String,
    },
    /// The level's version is not the one the command expected.
    VersionMismatch {
        /// Which SKU.
        sku: Sku,
        /// The version the command expected.
        expected: i64,
        /// The version the level has; 0 when the SKU is unknown.
        actual: i64,
    },
    /// More than is allowed.
    LimitExceeded {
        /// Which SKU.
        sku: Sku,
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
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::LimitExceeded { .. } => "limit_exceeded",
        }
    }
}

/// A command's decision: made once, kept for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The command decided.
    pub key: CommandKey,
    /// Its place in the ledger's order.
    pub seq: Seq,
    /// The content it was decided for.
    pub digest: Digest,
    /// Whether it was accepted.
    pub accepted: bool,
    /// JSON: the [`AcceptedLine`]s of an accepted order, the [`AdjustedLine`] of an accepted adjustment, the
    /// [`Reason`]s of a rejected command.
    ///
    /// Written once when deciding, stored, and spliced into the result as it
    /// is: so a decision told again from the ledger has the same bytes,
    /// whatever version of this program tells it.
    pub detail: String,
    /// The record that made it; `None` for an operator's own command.
    pub source: Option<Source>,
    /// When it was made.
    pub decided_at: Stamp,
}

impl Decision {
    /// The lines of an accepted command; of an adjustment without the version.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn accepted_lines(&self) -> Result<Vec<AcceptedLine>, serde_json::Error> {
        serde_json::from_str(&self.detail)
    }

    /// The reasons of a rejected command.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn reasons(&self) -> Result<Vec<Reason>, serde_json::Error> {
        serde_json::from_str(&self.detail)
    }
}
