//! What a database says of itself to who looks for what is wrong with it, or soon will be.

use std::time::Duration;

use tokio::time::Instant;

use super::{ClockReading, ClusterFacts, OverdueHolds, StoreError};
use crate::ledger::{CommandKind, Id, TopicPartition};

/// An answer, or why there is none.
pub type Answer<T> = Result<T, StoreError>;

/// What was found out about a ledger and its database. Each part by itself: what one may not see or what is locked
/// hides nothing else.
#[derive(Debug)]
pub struct Examination {
    /// Whether the tables are those of this program.
    pub tables: Answer<()>,
    /// Whether the database takes writes now.
    pub writable: Answer<()>,
    /// Whose ledger it is; `None` before the first verifier.
    pub group: Answer<Option<String>>,
    /// Holds that should have ended.
    pub overdue: Answer<Option<OverdueHolds>>,
    /// What only one kind of database has.
    pub database: DatabaseFacts,
}

/// What only one kind of database has.
#[derive(Debug)]
pub enum DatabaseFacts {
    /// A server.
    Postgres(Box<PostgresFacts>),
    /// A file.
    Sqlite(SqliteFacts),
}

/// What a `PostgreSQL` server says of itself, to the role that asks.
#[derive(Debug)]
pub struct PostgresFacts {
    /// Its version, as it writes it.
    pub version: Answer<String>,
    /// Settings that correctness rests on and that are not as they must be.
    pub settings: Answer<Vec<UnmetSetting>>,
    /// What is usual for this role in this database.
    pub usual: Answer<UsualSettings>,
    /// Who copies it.
    pub standbys: Answer<Standbys>,
    /// How many connections there are and may be.
    pub connections: Answer<ConnectionCounts>,
    /// What time it is there.
    pub clock: Answer<ClockReading>,
    /// What a verifier's role lacks.
    pub missing_grants: Answer<Vec<MissingGrant>>,
    /// Transactions that hold locks on the ledger's tables or on the gate of its batches.
    pub lock_holders: Answer<Vec<LockHolder>>,
    /// The cluster that the ledger is distributed over; `None` where it is not.
    pub cluster: Answer<Option<ClusterFacts>>,
}

/// A setting that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetSetting {
    /// Which.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it must be.
    pub needed: &'static str,
    /// What would go wrong.
    pub why: &'static str,
    /// What an operator can do.
    pub repair: &'static str,
    /// Whether a ledger is refused for it, or only warned of.
    pub refused: bool,
}

/// What sessions have that set nothing by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsualSettings {
    /// `default_transaction_isolation`.
    pub isolation: String,
}

/// Who copies a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standbys {
    /// `synchronous_standby_names`; empty when no commit waits for a standby.
    pub synchronous_names: String,
    /// The `sync_state` of each that is connected now; `None` where this role may not see it. Who takes a backup, only keeps
    /// the log, or follows some tables by logical replication is none, unless a commit waits for it.
    pub connected: Vec<Option<String>>,
}

/// How many connections there are and may be, but for those of the process that asks: it gives them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// `max_connections`.
    pub most: i64,
    /// Those of them that are kept for administrators.
    pub reserved: i64,
    /// Those in use.
    pub used: i64,
    /// The most of this role, and those in use; `None` for any number.
    pub of_role: Option<(i64, i64)>,
    /// The same of this database.
    pub of_database: Option<(i64, i64)>,
}

impl ConnectionCounts {
    /// The same without so many of those that this role has in this database.
    pub(super) fn without(self, own: i64) -> Self {
        let of = |limit: Option<(i64, i64)>| limit.map(|(most, used)| (most, (used - own).max(0)));
        Self {
            used: (self.used - own).max(0),
            of_role: of(self.of_role),
            of_database: of(self.of_database),
            ..self
        }
    }

    /// How many more this role can open.
    #[must_use]
    pub fn left(&self) -> i64 {
        let of = |limit: Option<(i64, i64)>| limit.map_or(i64::MAX, |(most, used)| most - used);
        (self.most - self.reserved - self.used).min(of(self.of_role)).min(of(self.of_database)).max(0)
    }
}

/// Something that a verifier's role must be allowed, and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingGrant {
    /// The table or sequence.
    pub object: String,
    /// The privilege.
    pub privilege: String,
}

/// A transaction that holds locks on the ledger's tables, or on the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// What has it.
    pub by: TransactionOwner,
    /// The role.
    pub role: String,
    /// For how long it is open, in seconds; `None` where this role may not see it.
    pub seconds: Option<i64>,
    /// What it holds locks on, sorted.
    pub tables: Vec<String>,
    /// Whether it does more than read.
    pub writes: bool,
    /// How many sessions wait for it.
    pub blocks: i64,
    /// Whether it is committed on this server, and waits for a synchronous standby to have it too. Not where this role may
    /// not see it.
    pub awaits_standby: bool,
}

/// What has a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionOwner {
    /// A session.
    Session {
        /// Its process at the server.
        pid: i32,
        /// What it calls itself.
        application: String,
        /// Where it comes from.
        address: String,
        /// Whether it waits for its client in mid-transaction; `None` where this role may not see it.
        idle: Option<bool>,
    },
    /// Nobody any more: it was prepared for a two-phase commit.
    Prepared {
        /// Its name.
        gid: String,
    },
}

/// What a `SQLite` file says of itself.
#[derive(Debug)]
pub struct SqliteFacts {
    /// `journal_mode`.
    pub journal_mode: Answer<String>,
    /// Whether the write lock could be had, and was given back.
    pub write_lock: Answer<()>,
}

/// Most commands whose orders are looked up by [`LedgerExaminer::followers`](super::LedgerExaminer::followers): enough to see
/// whether producers choose partitions alike, and looked up in some milliseconds.
pub(super) const MOST_FOLLOWERS_LOOKED_AT: i64 = 1_000;

/// The newest commands that follow an order, against their orders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followers {
    /// How many were looked at.
    pub looked_at: usize,
    /// Those on another partition than their order, the newest first.
    pub apart: Vec<FollowerApart>,
}

/// A command that stands on another partition than the order it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerApart {
    /// The order.
    pub order_id: Id,
    /// Where that stands.
    pub of_order: TopicPartition,
    /// What the command is about; `None` where this version does not know it.
    pub kind: Option<CommandKind>,
    /// Where the command stands.
    pub partition: i32,
}

/// A command that follows an order, and that order's partition, as both databases answer.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct FollowerRow {
    pub(super) order_id: String,
    pub(super) kind: i16,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) of_order: Option<i32>,
}

impl Followers {
    /// Of these rows, the newest first. An order that came by no record stands nowhere.
    pub(super) fn of(rows: Vec<FollowerRow>) -> Self {
        let mut followers = Self::default();
        for row in rows {
            let (Some(of_order), Ok(order_id)) = (row.of_order, Id::new(&row.order_id)) else { continue };
            followers.looked_at += 1;
            if of_order != row.partition {
                followers.apart.push(FollowerApart {
                    order_id,
                    of_order: TopicPartition::new(row.topic, of_order),
                    kind: CommandKind::from_number(row.kind),
                    partition: row.partition,
                });
            }
        }
        followers
    }
}

/// Until when answers are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// So long from now.
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// Waits for an answer until then.
    pub(super) async fn wait<T>(
        self,
        doing: &'static str,
        look: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        tokio::time::timeout_at(self.at, look).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", self.limit.as_secs());
            let source = sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text));
            Err(StoreError::Database { doing, source, retry: true })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_limit_says_how_many_connections_are_left() {
        let counts = ConnectionCounts { most: 100, reserved: 3, used: 90, of_role: None, of_database: None };
        assert_eq!(counts.left(), 7);
        assert_eq!(ConnectionCounts { of_role: Some((10, 8)), ..counts }.left(), 2);
        assert_eq!(ConnectionCounts { of_database: Some((5, 9)), ..counts }.left(), 0);
    }

    #[test]
    fn who_asks_takes_no_connection_from_who_is_asked_for() {
        let counts = ConnectionCounts {
            most: 100,
            reserved: 3,
            used: 96,
            of_role: Some((6, 6)),
            of_database: Some((7, 2)),
        };
        assert_eq!(counts.left(), 0);
        let others = counts.without(6);
        assert_eq!((others.used, others.of_role, others.of_database), (90, Some((6, 0)), Some((7, 0))));
        assert_eq!(others.left(), 6);
    }
}
