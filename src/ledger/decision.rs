//! What was decided, the ledger lines that explain a level, and what is left of an order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AcceptedLine, Adjusted, Command, CommandKey, CommandKind, Confirmed, Digest, Extended, GivenBack, Id,
    Item, OrderTaken, Reason, Rejected, ReturnedLine, Source, TopicPartition,
};

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
    /// Whether it is of this command's content: made of it as it is read now, or a refusal of this very value by a version
    /// that did not read it yet.
    #[must_use]
    pub fn is_of(&self, command: &Command) -> bool {
        self.digest == command.digest || command.refused_as == Some(self.digest)
    }

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
