//! How an invariant is broken: what a store found, and the one sentence that says it.

use std::fmt;

use serde::Deserialize;

use crate::ledger::{Item, Offset, Seq, Stamp};

/// What was found where an invariant does not hold. A database gives it as JSON, from its own columns: so texts are as they
/// are stored, whatever was done to them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of each says what its members are")]
pub enum Breach {
    /// A level is below what may be promised of it.
    LevelBelow { item: StoredItem, available: i64, limit: i64 },
    /// A movement left less than could ever be promised.
    MovementBelow { item: StoredItem, version: i64, balance: i64, limit: i64 },
    /// Movements between two are missing.
    MovementsMissing { item: StoredItem, version: i64, before: i64 },
    /// A movement does not go on from the one before.
    MovementApart { item: StoredItem, version: i64, quantity: i64, balance: i64, before: i64 },
    /// There are movements, and no level that they led to.
    LevelMissing { item: StoredItem, movements: i64 },
    /// A level is from nowhere.
    LevelAlone { item: StoredItem, available: i64 },
    /// A level has not the version of its newest movement.
    LevelVersion { item: StoredItem, version: i64, newest: i64 },
    /// A level is not what its movements add up to.
    LevelTotal { item: StoredItem, available: i64, total: i128 },
    /// A level is not what its newest movement left.
    LevelBalance { item: StoredItem, available: i64, left: i64 },
    /// A command was decided more than once.
    DecidedAgain { id: String, kind: i16, times: i64 },
    /// A decision is of a kind that this program does not know.
    KindUnknown { id: String, kind: i16 },
    /// A decision's detail cannot be read.
    Unreadable { id: String, why: String },
    /// A movement is of a command that nobody decided.
    MovementUndecided { item: StoredItem, version: i64, id: String },
    /// A movement has another ledger sequence than its decision.
    MovementSequence { item: StoredItem, version: i64, id: String, seq: Seq, decided: Seq },
    /// A rejected command moved something.
    RejectedMoved { id: String, version: i64, item: StoredItem },
    /// A movement names another record than its decision.
    MovementRecord { id: String, version: i64, item: StoredItem, record: StoredRecord, decided: StoredRecord },
    /// A movement is not what its decision says.
    MovementOther { id: String, version: i64, item: StoredItem, quantity: i64, balance: i64, detail: String },
    /// What a decision accepted was not moved.
    NotMoved { id: String, item: StoredItem },
    /// An accepted command that must move something names nothing.
    NoLine { id: String },
    /// More came back than was taken, or less than nothing.
    CameBack { order: String, item: StoredItem, returned: i64, deducted: i64 },
    /// An order's line notes other pieces given back than its decisions gave.
    NotedReturned { order: String, item: StoredItem, noted: i64, decided: i128 },
    /// An order's line notes other pieces taken than its decision took.
    NotedTaken { order: String, item: StoredItem, noted: i64, decided: i128 },
    /// Nobody asks for a hold's end before this.
    AskedTooLong { order: String, until: Stamp },
    /// A hold is open that no order asked for.
    HoldUnasked { order: String },
    /// A hold is open that has ended.
    HoldEnded { order: String },
    /// A hold is gone that has not ended.
    HoldGone { order: String },
    /// The ledger's sequence is behind its decisions.
    SequenceBehind { drawn: i64, seq: Seq },
    /// Lines, movements and orders could not be compared.
    NotCompared,
    /// There is more of what was found last.
    More,
}

/// An item as its columns have it, or a decision's line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredItem(Option<String>, Option<String>);

impl From<&Item> for StoredItem {
    fn from(item: &Item) -> Self {
        Self(Some(item.sku.to_string()), item.location.as_ref().map(ToString::to_string))
    }
}

impl fmt::Display for StoredItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())?;
        match self.1.as_deref().unwrap_or_default() {
            "" => Ok(()),
            location => write!(f, " at {location}"),
        }
    }
}

/// Partition and offset of a record, as their columns have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StoredRecord(Option<i32>, Option<i64>);

impl From<Option<(i32, Offset)>> for StoredRecord {
    fn from(record: Option<(i32, Offset)>) -> Self {
        Self(record.map(|(partition, _)| partition), record.map(|(_, offset)| offset.0))
    }
}

impl fmt::Display for StoredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(partition), Some(offset)) => write!(f, "{partition}@{offset}"),
            _ => f.write_str("none"),
        }
    }
}

/// What a level may not be below, by its limit.
struct Bound(i64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("zero") } else { write!(f, "{}", -i128::from(self.0)) }
    }
}

/// A time to the second, in UTC.
struct Second(Stamp);

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0.0) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S")),
            Err(_) => write!(f, "{} microseconds after 1970", self.0.0),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LevelBelow { item, available, limit } => {
                write!(f, "SKU {item}: its level is {available}, below {}", Bound(*limit))
            }
            Self::MovementBelow { item, version, balance, limit } => {
                write!(f, "SKU {item}: movement {version} left {balance}, below {}", Bound(*limit))
            }
            Self::MovementsMissing { item, version, before } => {
                write!(f, "SKU {item}: movement {version} comes after movement {before}")
            }
            Self::MovementApart { item, version, quantity, balance, before } => write!(
                f,
                "SKU {item}: movement {version} moved {quantity} and left {balance}, but {before} was there before"
            ),
            Self::LevelMissing { item, movements } => {
                write!(f, "SKU {item}: {movements} movements, but no level")
            }
            Self::LevelAlone { item, available } => {
                write!(f, "SKU {item}: a level of {available}, but no movements")
            }
            Self::LevelVersion { item, version, newest } => {
                write!(f, "SKU {item}: its level has version {version}, its newest movement {newest}")
            }
            Self::LevelTotal { item, available, total } => {
                write!(f, "SKU {item}: its level is {available}, its movements add up to {total}")
            }
            Self::LevelBalance { item, available, left } => {
                write!(f, "SKU {item}: its level is {available}, its newest movement left {left}")
            }
            Self::DecidedAgain { id, kind, times } => {
                write!(f, "command {id} (kind {kind}): {times} decisions")
            }
            Self::KindUnknown { id, kind } => {
                write!(f, "command {id}: its decision is of kind {kind}, which this program does not know")
            }
            Self::Unreadable { id, why } => {
                write!(f, "command {id}: its decision is not readable JSON: {why}")
            }
            Self::MovementUndecided { item, version, id } => {
                write!(f, "SKU {item}: movement {version} is of command {id}, which has no decision")
            }
            Self::MovementSequence { item, version, id, seq, decided } => write!(
                f,
                "SKU {item}: movement {version} of command {id} has ledger sequence {seq}, its decision {decided}"
            ),
            Self::RejectedMoved { id, version, item } => {
                write!(f, "command {id} was rejected, yet movement {version} of SKU {item} took effect")
            }
            Self::MovementRecord { id, version, item, record, decided } => write!(
                f,
                "command {id}: movement {version} of SKU {item} says that it came by record {record}, its decision \
                 {decided}"
            ),
            Self::MovementOther { id, version, item, quantity, balance, detail } => write!(
                f,
                "command {id}: movement {version} of SKU {item} ({quantity}, leaving {balance}) is not what its \
                 decision says: {detail}"
            ),
            Self::NotMoved { id, item } => {
                write!(f, "command {id}: it was accepted for SKU {item}, but no movement took effect")
            }
            Self::NoLine { id } => write!(f, "command {id}: it was accepted, and names no line"),
            Self::CameBack { order, item, returned, deducted } => {
                write!(f, "order {order}: {returned} of {deducted} pieces of SKU {item} came back")
            }
            Self::NotedReturned { order, item, noted, decided } => write!(
                f,
                "order {order}, SKU {item}: {noted} pieces are noted as given back, its decisions gave back {decided}"
            ),
            Self::NotedTaken { order, item, noted, decided } => write!(
                f,
                "order {order}, SKU {item}: {noted} pieces are noted as taken, its decision took {decided}"
            ),
            Self::AskedTooLong { order, until } => write!(
                f,
                "order {order}: the end of its hold is somebody's to ask for until {}, longer than anybody has it",
                Second(*until)
            ),
            Self::HoldUnasked { order } => {
                write!(f, "order {order}: a hold is open that no order asked for")
            }
            Self::HoldEnded { order } => {
                write!(f, "order {order}: its hold is open, yet it was confirmed or given back")
            }
            Self::HoldGone { order } => {
                write!(f, "order {order}: its hold is neither open, nor confirmed, nor given back")
            }
            Self::SequenceBehind { drawn, seq } => write!(
                f,
                "ledger_seq is at {drawn}, but a decision has ledger sequence {seq}: the next ones would come before it"
            ),
            Self::NotCompared => f.write_str(
                "lines, movements and orders were not compared, since not all decisions are readable",
            ),
            Self::More => f.write_str("… and more of this kind"),
        }
    }
}
