//! What was decided, and the ledger lines that explain a level.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CommandKey, CommandKind, Digest, Id, Item, Location, Sku, Source, TopicPartition};

/// A ledger sequence: where a decision stands in the ledger's order.
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

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// When a decision was made, by the database's clock: microseconds since 1970-01-01 UTC.
///
/// A moment in the ledger: when a decision was made, when a hold ends. No rule reads another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub i64);

impl Stamp {
    /// RFC 3339, UTC, microseconds. What lies outside of 1970 to (nearly the end of) 9999 is written as the nearest
    /// time within: no database clock is there, but a damaged ledger's might be.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let within = Timestamp::from_microsecond(self.0.max(0)).unwrap_or(Timestamp::MAX);
        format!("{within:.6}")
    }

    /// The time [`Stamp::rfc3339`] wrote; `None` for any other text.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(|time| Self(time.as_microsecond()))
    }

    /// So many seconds later.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

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

/// One line of the ledger: a change of one item's level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Which item.
    pub item: Item,
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

/// A command's decision: made once, kept for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The command decided.
    pub key: CommandKey,
    /// Its ledger sequence.
    pub seq: Seq,
    /// The content it was decided for.
    pub digest: Digest,
    /// Whether it was accepted.
    pub accepted: bool,
    /// JSON, an object: what is published about the decision beside its command's id. Of an accepted command [`OrderTaken`],
    /// [`GivenBack`], [`Confirmed`], [`Extended`] or [`Adjusted`] by its kind, of a rejected one [`Rejected`].
    ///
    /// Written once when deciding, stored, and spliced into the result as it
    /// is: so a decision republished from the ledger has the same bytes,
    /// whatever version of this program publishes it.
    pub detail: String,
    /// The record that made it; `None` for an operator's own command.
    pub source: Option<Source>,
    /// When it was made.
    pub decided_at: Stamp,
}

impl Decision {
    /// The lines of an accepted order; of an adjustment without the version.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn accepted_lines(&self) -> Result<Vec<AcceptedLine>, serde_json::Error> {
        serde_json::from_str::<OrderTaken>(&self.detail).map(|taken| taken.lines)
    }

    /// The lines an accepted command gave back.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn returned_lines(&self) -> Result<Vec<ReturnedLine>, serde_json::Error> {
        serde_json::from_str::<GivenBack>(&self.detail).map(|given| given.returned)
    }

    /// The order whose life this goes on with, by what is published about it; `None` when it is of another kind, or its text is
    /// not what this program writes.
    #[must_use]
    pub fn follows(&self) -> Option<Id> {
        #[derive(Deserialize)]
        struct Named {
            order_id: Id,
        }
        match self.key.kind {
            CommandKind::OrderCreated | CommandKind::Adjustment => None,
            CommandKind::OrderCancelled | CommandKind::OrderReleased | CommandKind::HoldExpired => {
                Some(self.key.id.clone())
            }
            CommandKind::OrderReturned | CommandKind::OrderConfirmed | CommandKind::HoldExtended => {
                serde_json::from_str::<Named>(&self.detail).ok().map(|named| named.order_id)
            }
        }
    }

    /// The reasons of a rejected command.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn reasons(&self) -> Result<Vec<Reason>, serde_json::Error> {
        serde_json::from_str::<Rejected>(&self.detail).map(|rejected| rejected.reasons)
    }
}

/// Checks that a decision's detail is what this program writes for its kind and verdict.
///
/// # Errors
/// When it is not: a damaged ledger.
pub fn check_detail(kind: CommandKind, accepted: bool, detail: &str) -> Result<(), serde_json::Error> {
    if !accepted {
        return serde_json::from_str::<Rejected>(detail).map(drop);
    }
    match kind {
        CommandKind::OrderCreated => serde_json::from_str::<OrderTaken>(detail).map(drop),
        CommandKind::OrderConfirmed => serde_json::from_str::<Confirmed>(detail).map(drop),
        CommandKind::HoldExtended => serde_json::from_str::<Extended>(detail).map(drop),
        CommandKind::Adjustment => serde_json::from_str::<Adjusted>(detail).map(drop),
        CommandKind::OrderCancelled
        | CommandKind::OrderReturned
        | CommandKind::OrderReleased
        | CommandKind::HoldExpired => serde_json::from_str::<GivenBack>(detail).map(drop),
    }
}

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

/// A hold that is neither confirmed nor over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// When it ends.
    pub expires_at: Stamp,
    /// The partition its order came by, and so the one its end is asked on; `None` for an operator's own order.
    pub at: Option<TopicPartition>,
}

/// What is left of an accepted order: kept for those that were held or given something back, and made of the decision
/// of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderState {
    /// What it took, sorted by item, each once.
    pub lines: Vec<OrderStock>,
    /// Its hold, while that is open.
    pub hold: Option<Hold>,
}

/// What an order took of one item, and gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderStock {
    /// Which item.
    pub item: Item,
    /// Pieces taken.
    pub deducted: i64,
    /// Pieces of them given back: 0 to `deducted`.
    pub returned: i64,
}

impl From<AcceptedLine> for OrderStock {
    fn from(line: AcceptedLine) -> Self {
        let item = Item { sku: line.sku, location: line.location };
        Self { item, deducted: line.quantity, returned: 0 }
    }
}

impl OrderState {
    /// The state of an accepted order right after its decision, without its hold.
    ///
    /// # Errors
    /// When the stored text is not what this program writes: a damaged ledger.
    pub fn of(created: &Decision) -> Result<Self, serde_json::Error> {
        let lines = created.accepted_lines()?.into_iter().map(OrderStock::from).collect();
        Ok(Self { lines, hold: None })
    }
}
