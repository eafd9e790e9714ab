//! What a comparison comes to: values, which the command line makes text and JSON of.

use super::incarnations::Replaced;
use super::published::EventId;
use super::reconciler::Wrong;
use crate::event::Fault;
use crate::ledger::{
    CommandKey, Differs, Hold, Id, Item, Limits, NextOffset, Offset, Seq, Source, TopicPartition,
};

/// Findings of each class kept at most; all are counted.
const MOST_FINDINGS: u64 = 1_000;

/// What class of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It is there, and says something else.
    Differing,
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Differing => "differing",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// What was published of an event is not what the ledger has.
    Published {
        /// Which event.
        event: EventId,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// A record that is done made no decision, and should have.
    Undecided {
        /// The command of the record.
        key: CommandKey,
        /// The record.
        record: Source,
    },
    /// A command is decided from a record that is no command.
    NoCommand {
        /// The command.
        key: CommandKey,
        /// Why its record is none.
        fault: Fault,
    },
    /// A command is decided from a record that is of another command.
    AnotherCommand {
        /// The command.
        key: CommandKey,
        /// The record.
        record: Source,
    },
    /// A command is decided from a record that is not there.
    NoRecord {
        /// The command.
        key: CommandKey,
        /// Where it should be.
        record: Source,
    },
    /// The rules decide otherwise.
    Decided {
        /// The command.
        key: CommandKey,
        /// How it differs.
        how: Differs,
    },
    /// An item's limits are not those that its decisions left.
    ItemLimits {
        /// The item.
        item: Item,
        /// As they are.
        now: Limits,
        /// As its decisions left them.
        decided: Limits,
    },
    /// A hold does not end when, or is not asked for where, its decisions say.
    OpenHold {
        /// The order.
        order_id: Id,
        /// As it is.
        now: Hold,
        /// As its decisions left it.
        decided: Hold,
    },
    /// The last record of an item on the levels topic is no level that the ledger has.
    PublishedLevel {
        /// The item; `None` where the record's key is no item's.
        item: Option<Item>,
        /// The record.
        record: Source,
        /// What is wrong with it.
        wrong: WrongLevel,
    },
    /// What orders, returns or holds ask for came by no record: an operator changes levels alone.
    OfNoRecord {
        /// The command.
        key: CommandKey,
    },
    /// Two decisions of one batch, one after the other, between whose ledger sequences something is missing.
    TornBatch {
        /// The command of the later one.
        key: CommandKey,
        /// Its ledger sequence.
        seq: Seq,
        /// The ledger sequence of the one before.
        after: Seq,
    },
    /// Ledger and Kafka do not agree how far a partition is done.
    Positions(PositionMismatch),
    /// A topic is not the one that the ledger's decisions are of.
    Topic(Replaced),
    /// A command is decided from a record that the ledger's position does not cover.
    BeyondPosition {
        /// The command.
        key: CommandKey,
        /// The record.
        record: Source,
        /// The position.
        position: NextOffset,
    },
    /// A command has a later ledger sequence than one of a later record of its partition.
    OutOfOrder {
        /// The command.
        key: CommandKey,
        /// Its record.
        record: Source,
        /// The offset of the other record.
        after: Offset,
    },
}

/// What is wrong with the last record of an item on the levels topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongLevel {
    /// It is no level.
    Foreign,
    /// It says something else of this version.
    Otherwise {
        /// The version.
        version: i64,
        /// The level that the item had then.
        available: i64,
    },
    /// The ledger has no such version.
    Unknown {
        /// The version that it says.
        version: i64,
        /// The newest that the ledger has; 0 where it does not know the item.
        newest: i64,
    },
}

/// A partition of which ledger and Kafka do not agree how far it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionMismatch {
    /// The partition.
    pub at: TopicPartition,
    /// The ledger's position; `None` where it was never there.
    pub ledger: Option<NextOffset>,
    /// Kafka's committed offset.
    pub committed: Option<NextOffset>,
}

impl Finding {
    /// Which invariant of the design it breaks: 4 to 6.
    #[must_use]
    pub fn invariant(&self) -> u8 {
        match self {
            Self::Published { .. }
            | Self::Undecided { .. }
            | Self::NoCommand { .. }
            | Self::AnotherCommand { .. }
            | Self::NoRecord { .. }
            | Self::OfNoRecord { .. }
            | Self::PublishedLevel { .. } => 4,
            Self::Decided { .. }
            | Self::ItemLimits { .. }
            | Self::OpenHold { .. }
            | Self::TornBatch { .. }
            | Self::OutOfOrder { .. } => 5,
            Self::Positions(_) | Self::Topic(_) | Self::BeyondPosition { .. } => 6,
        }
    }

    /// What class it is of.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Published { wrong: Wrong::Missing, .. }
            | Self::Undecided { .. }
            | Self::TornBatch { .. } => Class::Missing,
            Self::Published { wrong: Wrong::Repeated(_) | Wrong::Unknown(_), .. }
            | Self::NoCommand { .. }
            | Self::AnotherCommand { .. }
            | Self::NoRecord { .. }
            | Self::OfNoRecord { .. }
            | Self::PublishedLevel { wrong: WrongLevel::Unknown { .. }, .. } => Class::Extra,
            Self::Published {
                wrong: Wrong::Altered(_) | Wrong::Envelope(_) | Wrong::Misplaced { .. },
                ..
            }
            | Self::Decided { .. }
            | Self::ItemLimits { .. }
            | Self::OpenHold { .. }
            | Self::PublishedLevel { wrong: WrongLevel::Foreign | WrongLevel::Otherwise { .. }, .. }
            | Self::Positions(_)
            | Self::Topic(_)
            | Self::BeyondPosition { .. }
            | Self::OutOfOrder { .. } => Class::Differing,
        }
    }

    /// The command whose result the ledger may have, though it is published nowhere.
    #[must_use]
    pub fn unpublished(&self) -> Option<&CommandKey> {
        match self {
            Self::Published { event: EventId::Result(key), wrong: Wrong::Missing }
            // Its decision may be stored by now, where a verifier goes on meanwhile.
            | Self::Undecided { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, Default)]
pub struct AuditReport {
    /// Decisions compared.
    pub decisions: u64,
    /// Records that were absorbed, as they should be: repeats, and holds that were not over.
    pub absorbed: u64,
    /// Records that are dead letters, as they should be.
    pub dead_letters: u64,
    /// Results and dead letters that were read back.
    pub published: u64,
    /// Results that should be there, and were looked for.
    pub results: u64,
    /// Results that were not looked for: what is as old is deleted from their partitions.
    pub unretained: u64,
    /// Things that say something else than they should.
    pub differing: u64,
    /// Things that should be there and are not.
    pub missing: u64,
    /// Things that are there and should not be.
    pub extra: u64,
    /// The differences; the first thousand of each class.
    pub findings: Vec<Finding>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// Ids and SKUs that were named, and of which nothing is known: neither the chosen records nor the ledger have them.
    pub unknown: Vec<String>,
}

impl AuditReport {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differing + self.missing + self.extra == 0
    }

    /// Whether results should be there, and all of them are as old as what is deleted: then none that was published is
    /// compared.
    #[must_use]
    pub fn is_all_unretained(&self) -> bool {
        self.results == 0 && self.unretained > 0
    }

    /// What is not compared since it is deleted, if anything.
    pub(super) fn unretained_note(&self) -> Option<String> {
        let count = self.unretained;
        if self.is_all_unretained() {
            return Some(format!(
                "what was published is not compared: all {count} results that should be there are as old as what was \
                 deleted from their topics (retention?)"
            ));
        }
        (count > 0).then(|| {
            format!(
                "{count} results are not compared: they are as old as what was deleted from their partitions"
            )
        })
    }

    /// Counts a difference, and keeps it while there is room.
    pub(super) fn add(&mut self, finding: Finding) {
        let count = match finding.class() {
            Class::Differing => &mut self.differing,
            Class::Missing => &mut self.missing,
            Class::Extra => &mut self.extra,
        };
        *count += 1;
        // Each class by itself, so that none crowds another out.
        if *count <= MOST_FINDINGS {
            self.findings.push(finding);
        }
    }
}
