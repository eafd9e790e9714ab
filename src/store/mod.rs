//! The ledger's databases. All SQL of the project lives in this room.
//!
//! A store applies a batch in one transaction: it locks and reads, hands
//! what it read to the pure [`crate::ledger::decide`], and writes what came
//! back. Every store passes the same suite, `tests/conformance`; the one in memory that part which it has contracts for.
//!
//! Here are the words; what can be done with a ledger is in `contract/`, one file for each kind of user.

use std::path::PathBuf;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

pub use audit::{Audit, BrokenInvariant};
pub use breach::{Breach, StoredItem, StoredRecord};
pub use clock_reading::ClockReading;
pub use cluster::{ClusterFacts, IN_DOUBT_SECONDS, NodeFacts, NodeReading};
pub use contract::{
    ExaminedStore, LedgerAdmin, LedgerExaminer, LedgerHistory, LedgerQueries, LedgerReader, LedgerWriter,
    Snapshot, Store, VerifierStore, WorkQueue,
};
pub use examination::{
    Answer, ConnectionCounts, DatabaseFacts, Examination, FollowerApart, Followers, LockHolder, MissingGrant,
    PostgresFacts, SqliteFacts, Standbys, TransactionOwner, UnmetSetting, UsualSettings,
};
pub use gathered::Gathered;
pub use layered::{Layer, Layered};
pub use queries::{AsOf, DatedMovement, MAX_FOLLOWERS, MovementCursor, OrderLife};
pub use stored_order::StoredOrder;

use crate::ledger::{
    CommandKey, Id, Item, Level, Movement, NextOffset, Offset, Outcome, Request, Seq, Stamp, TopicId,
    TopicPartition,
};

mod apply;
mod audit;
mod breach;
mod clock_reading;
mod cluster;
mod contract;
mod examination;
mod gathered;
mod layered;
pub mod memory;
mod offline;
pub mod postgres;
mod programs;
mod queries;
pub mod sqlite;
mod stored_order;
mod version;

/// Most commands one batch may have. Each batch draws this many ledger
/// sequences at once, so that one costs no round trip.
pub const MAX_BATCH: usize = 100_000;

/// How far a batch takes one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Which partition.
    pub at: TopicPartition,
    /// Where the batch before this one takes the partition: the ledger must be there at least.
    pub expected: NextOffset,
    /// Where the ledger is when this batch is applied.
    pub next: NextOffset,
    /// Where the ledger was at least when it was applied to last, as far as the caller knows. Below it the ledger has lost
    /// something; between it and `expected` only the batch before this one is not there yet.
    pub applied: Option<NextOffset>,
    /// How far results of the partition are known to be published, as far as the caller knows. Kept with the
    /// position, so that a group whose offsets are gone begins where nothing is skipped.
    pub published: Option<NextOffset>,
}

/// What the ledger keeps of a source partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The next record to apply.
    pub next: NextOffset,
    /// Every result of records below it is known to be published; `None` where an earlier version wrote the position.
    pub published: Option<NextOffset>,
    /// Which topic of this name it is of; `None` where that is not known.
    pub topic_id: Option<TopicId>,
}

/// From which ledger sequence on a partition's decisions are of which topic. Two topics of one name share
/// offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Which partition.
    pub at: TopicPartition,
    /// The topic its decisions are of, from there on.
    pub topic_id: TopicId,
    /// The ledger sequence.
    pub from: Seq,
}

/// What is applied in one transaction.
#[derive(Debug, Clone, Default)]
pub struct CommandBatch {
    /// One entry for each partition the batch has records of. Records no
    /// command could be read from move the position too.
    pub advances: Vec<Advance>,
    /// The commands, each partition's in offset order. At most [`MAX_BATCH`].
    pub requests: Vec<Request>,
    /// The [`LedgerWriter::connection_epoch`] in which the caller compared the whole ledger with what it knows; a later one is
    /// [`StoreError::Reconnected`]. `None` compares nothing.
    pub epoch: Option<u64>,
}

/// What a batch did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// One for each request, in the same order.
    pub outcomes: Vec<Outcome>,
    /// The newest level of each item that moved; sorted by item, each once.
    pub levels: Vec<(Item, Level)>,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The ledger is behind what this process applied or Kafka committed: the database went back in time.
    #[error(
        "the ledger's position for {at} is {found}, but {expected} was already applied: the database \
         went back in time (a restored backup, or a failover that lost commits?)"
    )]
    LedgerBehind {
        /// Which partition.
        at: TopicPartition,
        /// Where the ledger should have been at least.
        expected: NextOffset,
        /// Where it is.
        found: NextOffset,
    },
    /// A batch came before the one that it goes on from, or that one failed. Not transient: the same again passes only
    /// once the caller has applied the batch before.
    #[error(
        "the ledger's position for {at} is {found}, but this batch goes on from {expected}: the batch before it is not \
         committed"
    )]
    PreviousNotCommitted {
        /// Which partition.
        at: TopicPartition,
        /// Where the batch before takes the partition.
        expected: NextOffset,
        /// Where the ledger is.
        found: NextOffset,
    },
    /// The SQLite file is not there, and was not to be created.
    #[error(
        "there is no ledger at {}: check the path; `stock-verifier migrate`, or `run --migrate`, creates a new one",
        file.display()
    )]
    Missing {
        /// Its path, from the root.
        file: PathBuf,
    },
    /// The database has no tables of this program.
    #[error("the database has no stock ledger yet: run `stock-verifier migrate`, or start with --migrate")]
    Unmigrated,
    /// The database lacks migrations this program needs.
    #[error(
        "the stock ledger is at version {found}, this program needs {needed}: run `stock-verifier migrate`"
    )]
    Outdated {
        /// The newest migration applied.
        found: i64,
        /// The newest migration of this program.
        needed: i64,
    },
    /// The database was migrated by a newer program, and this one may not run on it any more.
    #[error(
        "the stock ledger is at version {found}, newer than this program's {known}, and only programs of version {oldest} or \
         newer may run on it: run the newer program"
    )]
    Newer {
        /// The newest migration applied.
        found: i64,
        /// The newest migration of the oldest program that may run.
        oldest: i64,
        /// The newest migration of this program.
        known: i64,
    },
    /// The database's `_sqlx_migrations` names migrations that no version of this program has.
    #[error(
        "another program's migrations are in this database: its table _sqlx_migrations has a version {version} that is \
         not this program's. Give the ledger a database of its own; or, in PostgreSQL, a schema of its own, with \
         CREATE SCHEMA stock and ?options=-c%20search_path%3Dstock at the end of the URL"
    )]
    Foreign {
        /// The first migration that is not ours.
        version: i64,
    },
    /// A setting of the database would make what is decided or kept wrong.
    #[error("{setting} is {found} on this database, but must be {needed}: {why}. {repair}")]
    Unsuitable {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        needed: &'static str,
        /// What would go wrong.
        why: &'static str,
        /// What an operator can do.
        repair: &'static str,
    },
    /// The database takes no writes now. Passes when it is made writable.
    #[error("the database is read-only: {why}")]
    ReadOnly {
        /// How so, and what an operator can do.
        why: &'static str,
    },
    /// A connection was opened anew, maybe to a database that lost commits: compare the ledger's positions with what is
    /// known before anything is applied.
    #[error("the database was connected to anew")]
    Reconnected,
    /// A position is not what it was when it was read. Passes when it is read again.
    #[error("the position of {at} was changed in the meantime")]
    PositionChanged {
        /// Which partition.
        at: TopicPartition,
    },
    /// The ledger is of another consumer group.
    #[error(
        "this ledger is of consumer group {owner:?}: a second group would publish every result again. Give --group \
         {owner}, or another database; or, if that group is gone for good, --take-over-ledger"
    )]
    OtherGroup {
        /// The group it is of.
        owner: String,
    },
    /// What a batch read or was to lock is another's, or was changed by another: an order that was decided meanwhile, a
    /// level that somebody else holds, or one that was changed past the gate. Passes when the same is done again.
    #[error("what the batch needs was changed by another meanwhile")]
    ConcurrentChange,
    /// On a distributed ledger a node does not say whether it did what was committed.
    #[error(
        "node {node} does not answer, or has a transaction in doubt: prepared, and neither committed nor rolled back. Citus \
         settles that by itself when the node is back, within citus.recover_2pc_interval; SELECT \
         recover_prepared_transactions() on the coordinator does at once"
    )]
    InDoubt {
        /// Which node.
        node: String,
    },
    /// A shard of a distributed ledger was moved to another node while the whole ledger was read.
    #[error(
        "a shard of the ledger was moved to another node while it was read: read it again once all are moved"
    )]
    ShardMoved,
    /// What is stored cannot be what this program wrote.
    #[error("the ledger holds {what}: run `stock-verifier audit`")]
    Damaged {
        /// What was found, and where.
        what: String,
    },
    /// The database refused or could not be reached.
    #[error("{doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
        /// Whether doing the same again may work.
        retry: bool,
    },
}

impl StoreError {
    /// Whether doing the same again may work: a deadlock, a lost connection, a server starting up.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::ConcurrentChange
                | Self::PositionChanged { .. }
                | Self::ReadOnly { .. }
                | Self::InDoubt { .. }
                | Self::ShardMoved
                | Self::Database { retry: true, .. }
        )
    }
}

/// How a pool of connections is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// What it is for: `batches`, `readers` or `others`.
    pub name: &'static str,
    /// Connections that something is done on.
    pub used: u32,
    /// Connections that wait for something to do.
    pub idle: u32,
    /// Most of both.
    pub most: u32,
}

/// A level as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemLevel {
    /// Which item.
    pub item: Item,
    /// How much there is.
    pub level: Level,
}

/// A hold whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueHold {
    /// The order that holds.
    pub order_id: Id,
    /// The partition its order came by; `None` for an operator's own order.
    pub at: Option<TopicPartition>,
}

/// How long after its end a hold that is still there is overdue. Its end is asked for within two seconds and again every
/// half a minute, so this is four questions unanswered.
pub const OVERDUE: Duration = Duration::from_secs(120);

/// Holds that are over since long, and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueHolds {
    /// How many.
    pub count: u64,
    /// The order of the one that is over the longest.
    pub oldest: Id,
    /// Since when that one is.
    pub since: Stamp,
}

/// A movement as its table keeps it. The topic its record stood in is its decision's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMovement {
    /// Which item.
    pub item: Item,
    /// The version it gave the level.
    pub version: i64,
    /// Pieces added (positive) or taken (negative).
    pub quantity: i64,
    /// The level after it.
    pub balance: i64,
    /// The command that caused it.
    pub cause: CommandKey,
    /// The decision that made it.
    pub seq: Seq,
    /// Partition and offset of the record the command came from; `None` for an operator's own command.
    pub record: Option<(i32, Offset)>,
}

impl StoredMovement {
    /// As a ledger keeps it: of its record the topic is with its decision.
    pub(crate) fn of(movement: &Movement) -> Self {
        let Movement { item, version, quantity, balance, cause, seq, source } = movement.clone();
        let record = source.map(|source| (source.at.partition, source.offset));
        Self { item, version, quantity, balance, cause, seq, record }
    }
}

/// Most tries of a batch that meets a transient failure (deadlock, serialisation, lost connection) within one call.
const APPLY_TRIES: usize = 5;
/// The first pause between tries; it doubles up to [`APPLY_PAUSE_MAX`].
const APPLY_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between tries within one call.
const APPLY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Tries a whole batch again after a transient failure, a bounded number of times.
async fn retry<T, F: Future<Output = Result<T, StoreError>>>(
    doing: &'static str,
    attempt: impl FnMut() -> F,
) -> Result<T, StoreError> {
    retry_when(doing, StoreError::is_transient, attempt).await
}

/// The same where not every transient failure is tried again within.
async fn retry_when<T, F: Future<Output = Result<T, StoreError>>>(
    doing: &'static str,
    again: impl Fn(&StoreError) -> bool,
    attempt: impl FnMut() -> F,
) -> Result<T, StoreError> {
    attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(APPLY_PAUSE)
                .with_max_delay(APPLY_PAUSE_MAX)
                .with_max_times(APPLY_TRIES - 1)
                .with_jitter(),
        )
        .when(again)
        // What does not pass within the bound is for the caller to say, and there may be five of these a second.
        .notify(|error, pause| {
            tracing::debug!(error = error as &dyn std::error::Error, ?pause, "{doing}: trying again");
        })
        .await
}

/// From which ledger sequence on a partition's decisions are of a topic whose id is stated now: all of them, where the position
/// that `was` knew no id, since then the topic was never known to be another; else those still to come.
fn first_seq_of(was: Option<&Position>, next: Seq) -> Seq {
    match was {
        Some(Position { topic_id: Some(_), .. }) => next,
        _ => Seq::START,
    }
}

/// Longest that a due hold is given to somebody. What somebody seems to have for longer was given by a clock that was
/// ahead; far enough above any lease that two callers whose moments differ a little never take it for that.
const MOST_LEASE: Duration = Duration::from_secs(600);

/// Levels repaired at once, at most.
const MOST_REPAIRED: u16 = 20_000;
