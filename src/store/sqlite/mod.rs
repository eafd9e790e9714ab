//! The ledger in one SQLite file: no server to install.
//!
//! A batch is one `BEGIN IMMEDIATE` transaction of a fixed number of
//! statements, whatever its size. SQLite answers from the same process, yet
//! each statement hops to the driver's thread and back, so a statement per
//! order would cost more than deciding it:
//!
//! | # | statement | carries |
//! |---|---|---|
//! | 1 | `BEGIN IMMEDIATE` | the file's write lock: one writer at a time, so nothing can deadlock |
//! | 2 | read decisions | all command ids, and the orders that commands follow, one JSON text |
//! | 3 | read levels | all items, and those of the orders followed |
//! | 4 | read positions | all partitions of the batch |
//! | 5 | next ledger sequence | – |
//! | 6 to 8 | write levels, decisions, movements | all rows, one JSON text each |
//! | 9 | write positions | all partitions |
//! | 10 | `COMMIT` | one fsync |
//!
//! Only batches that have use for them run these too, each once:
//!
//! | when | statement | carries |
//! |---|---|---|
//! | after 5 | read what orders gave back, read holds | all orders followed |
//! | after 8 | write what orders gave back, write holds, delete holds | all orders changed |
//! | after 8 | note levels to announce | all items moved by commands from no record |
//!
//! Rows travel as one JSON text that `json_each` takes apart, so that the
//! statements are static and stay prepared.

mod audit;
mod examine;
mod followers;
mod levels;
mod orders;
mod positions;
mod programs;
mod queries;
mod read;
mod rows;
mod tx;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use read::SqliteSnapshot;
use tx::SqliteTx;

use super::apply::{self, IdLookup};
use super::{
    Applied, Audit, CommandBatch, DueHold, Examination, Followers, ItemLevel, LedgerAdmin, LedgerExaminer,
    LedgerHistory, LedgerReader, LedgerWriter, OverdueHolds, Position, Snapshot, StoreError, StoredOrder,
    WorkQueue, first_seq_of, offline, stored_order, version,
};
use crate::ledger::{
    CommandKey, Decision, HeldProgram, Id, Item, Level, Seq, Sequenced, Sku, Stamp, TopicPartition,
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process's transaction on the same
/// file. Far above any batch, and short enough for the retries above it to
/// end within half a minute.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for its turn among the calls of this process.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that only read: look-ups by operators beside the one that writes.
const READERS: u32 = 2;

/// The writer's page cache, in KiB (SQLite reads a negative number so). Room
/// for the upper levels of the indexes of some ten million decisions, whose
/// keys come in no order, and far below the memory bound of the program.
const WRITER_CACHE: &str = "-32768";

/// Pages of write-ahead log (64 MiB) after which a commit copies them into the
/// file. A page changed many times is copied once, and order ids in no order
/// change almost as many index pages as there are orders: measured, a log
/// four times smaller costs a third of the speed with such ids.
const WAL_PAGES: &str = "16384";

/// What is to be done with the file that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// It is read. Nothing is created, and no statement changes it.
    ///
    /// Not with SQLite's own `mode=ro`: that leaves `-wal` and `-shm` files of this user beside the ledger, which shut
    /// out a verifier of another user. Opened like this they are gone when the last connection closes.
    Read,
    /// It is written to; it must be there.
    Write,
    /// It is written to, and created if it is not there.
    Create,
}

/// A stock ledger in a SQLite file.
pub struct SqliteStore {
    /// Where it is.
    file: PathBuf,
    /// One connection: SQLite has one writer at a time anyway, and queueing for it here is fairer than its busy wait.
    writer: SqlitePool,
    readers: SqlitePool,
    /// How often the writer's connection was opened.
    opened: Arc<AtomicU64>,
}

impl SqliteStore {
    /// Opens the ledger in the file a `sqlite://path/to/file.db` URL names, and creates the file if there is none.
    ///
    /// Commits are durable (`synchronous = FULL`): results are published
    /// after the commit, and with `NORMAL` a power failure could take back a
    /// commit whose results were read already.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the URL names no file, or the file cannot be opened or is no SQLite database.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_for(url, FileAccess::Create).await
    }

    /// The same, for one who may do less with it.
    ///
    /// # Errors
    /// The same, and [`StoreError::Missing`] when there is no file and it is not to be created.
    pub async fn open_for(url: &str, access: FileAccess) -> Result<Self, StoreError> {
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(database("opening the SQLite ledger")(sqlx::Error::Configuration(
                "a ledger in memory is no ledger: name a file, as in sqlite://stock.db".into(),
            )));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(database("reading the SQLite URL"))?
            .create_if_missing(access == FileAccess::Create)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        // For messages, so that a mistyped path that is relative shows where it leads to.
        let file = std::path::absolute(options.get_filename())
            .unwrap_or_else(|_| options.get_filename().to_path_buf());
        let is_missing = || file.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if access != FileAccess::Create && is_missing() {
            return Err(StoreError::Missing { file });
        }
        let options = match access {
            FileAccess::Read => options.pragma("query_only", "ON"),
            // Kept in the file: who only reads leaves it as it is.
            FileAccess::Write | FileAccess::Create => {
                options.journal_mode(SqliteJournalMode::Wal).pragma("wal_autocheckpoint", WAL_PAGES)
            }
        };
        let opened = Arc::new(AtomicU64::new(0));
        let writer = pool(1)
            .after_connect({
                let opened = Arc::clone(&opened);
                move |_, _| {
                    opened.fetch_add(1, Ordering::SeqCst);
                    Box::pin(async { Ok(()) })
                }
            })
            .connect_with(options.clone().pragma("cache_size", WRITER_CACHE))
            .await
            .map_err(database("opening the SQLite ledger"))?;
        let readers = pool(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { file, writer, readers, opened })
    }

    /// Where it is, from the root.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// One try.
    async fn write_once(
        &self,
        batch: &CommandBatch,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Applied, StoreError>,
    ) -> Result<Applied, StoreError> {
        let mut conn = self.writer.acquire().await.map_err(database("waiting to write the ledger"))?;
        if batch.epoch.is_some_and(|epoch| epoch != self.connection_epoch()) {
            return Err(StoreError::Reconnected);
        }
        let result = work(&mut conn).await;
        if matches!(result, Err(StoreError::Database { .. })) {
            // Its state is unknown; the next try gets a new one. What closing says adds nothing to the error in hand.
            let _ = conn.close().await;
        }
        result
    }
}

/// A pool whose connections stay: reopening would drop the cache and the prepared statements.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[async_trait]
impl LedgerWriter for SqliteStore {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let doing = "claiming the ledger";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let owner: String = sqlx::query_scalar(
            "INSERT INTO ledger_group (only_one, name) VALUES (1, ?1)
             ON CONFLICT (only_one) DO UPDATE SET name = CASE WHEN ?2 THEN excluded.name ELSE name END
             RETURNING name",
        )
        .bind(group)
        .bind(take_over)
        .fetch_one(&mut *conn)
        .await
        .map_err(database(doing))?;
        if owner == group { Ok(()) } else { Err(StoreError::OtherGroup { owner }) }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let mut found = self.all_positions().await?;
        found.retain(|at, _| of.contains(at));
        Ok(found)
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading positions"))?;
        positions::read_full(&mut conn, None).await.map_err(database("reading positions"))
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        let doing = "setting a position";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(database(doing))?;
        let found = positions::read_full(&mut tx, Some(at)).await.map_err(database(doing))?.remove(at);
        if found.as_ref() != was {
            return Err(StoreError::PositionChanged { at: at.clone() });
        }
        positions::write_one(&mut tx, at, now).await.map_err(database(doing))?;
        if let Some(topic_id) = &now.topic_id
            && was.and_then(|was| was.topic_id.as_ref()) != Some(topic_id)
        {
            let from = first_seq_of(was, rows::next_seq(&mut tx).await.map_err(database(doing))?);
            positions::write_incarnation(&mut tx, at, topic_id, from).await.map_err(database(doing))?;
        }
        tx.commit().await.map_err(database(doing))
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        let doing = "noting the mappings";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        programs::hold(&mut conn, now).await.map_err(database(doing))
    }

    fn connection_epoch(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        let doing = "reading positions";
        let mut conn = self.writer.acquire().await.map_err(database(doing))?;
        let epoch = self.connection_epoch();
        Ok((epoch, positions::read_full(&mut conn, None).await.map_err(database(doing))?))
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        // Each error of the database costs the connection.
        let again = |error: &StoreError| {
            error.is_transient() && (batch.epoch.is_none() || !matches!(error, StoreError::Database { .. }))
        };
        super::retry_when("applying a batch", again, || {
            self.write_once(batch, async |conn: &mut SqliteConnection| {
                apply::apply::<SqliteTx<'_>>(conn, batch, IdLookup::Any).await
            })
        })
        .await
    }
}

#[async_trait]
impl LedgerReader for SqliteStore {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        let levels = match of {
            Some(skus) => levels::read_of_skus(&mut conn, &skus.iter().collect()).await?,
            None => levels::read_all(&mut conn).await?,
        };
        Ok(item_levels(levels))
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        levels::read(&mut conn, &items.iter().collect()).await.map(item_levels)
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        levels::read_after(&mut conn, after, limit).await.map(item_levels)
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading a decision"))?;
        let mut found = rows::read_decisions(&mut conn, &BTreeSet::from([&of.id])).await?;
        Ok(found.remove(of).map(Arc::unwrap_or_clone))
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let mut moment = self.readers.begin().await.map_err(database("reading an order"))?;
        let found = rows::read_decisions(&mut moment, &BTreeSet::from([id])).await?;
        let decisions = stored_order::about(id, found);
        if decisions.is_empty() {
            return Ok(None);
        }
        let mut state = stored_order::bare_state(id, &decisions)?;
        orders::read_lines(&mut moment, &mut state).await?;
        orders::read_holds(&mut moment, &mut state).await?;
        let mut movements = Vec::new();
        for seq in stored_order::sequences(&decisions) {
            movements.extend(rows::read_movements_between(&mut moment, Seq(seq.0 - 1), seq).await?);
        }
        Ok(Some(StoredOrder { decisions, state: state.remove(id), movements }))
    }
}

#[async_trait]
impl LedgerHistory for SqliteStore {
    async fn group(&self) -> Result<Option<String>, StoreError> {
        let doing = "reading whose ledger it is";
        let mut conn = self.readers.acquire().await.map_err(database(doing))?;
        sqlx::query_scalar("SELECT name FROM ledger_group")
            .fetch_optional(&mut *conn)
            .await
            .map_err(database(doing))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let transaction = self.readers.begin().await.map_err(database("beginning to read the ledger"))?;
        Ok(Box::new(SqliteSnapshot(transaction)))
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("auditing the ledger"))?;
        audit::audit(&mut conn).await
    }
}

#[async_trait]
impl LedgerAdmin for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let found = rows::read_migrations(&self.readers).await.map_err(database("reading its version"))?;
        if !version::is_to_be_migrated(&MIGRATOR, &found)? {
            return Ok(());
        }
        MIGRATOR.run(&self.writer).await.map_err(|e| database("migrating the ledger")(e.into()))
    }

    async fn check(&self) -> Result<(), StoreError> {
        let found = rows::read_migrations(&self.readers).await.map_err(|error| {
            let doing = if primary_code(&error) == Some(CANNOT_OPEN) {
                "reading its version: SQLite makes files beside a ledger that nobody has open, so this user must be \
                 allowed to write in its folder"
            } else {
                "reading its version"
            };
            database(doing)(error)
        })?;
        version::check(&MIGRATOR, &found)
    }

    async fn repairable_levels(&self) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("looking for levels to repair"))?;
        levels::read_repairable(&mut conn).await.map(item_levels)
    }

    async fn repair(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        super::retry("repairing levels", || {
            self.write_once(batch, async |conn: &mut SqliteConnection| {
                offline::repair::<SqliteTx<'_>>(conn, batch).await
            })
        })
        .await
    }

    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError> {
        super::retry("restoring a batch", || {
            self.write_once(batch, async |conn: &mut SqliteConnection| {
                offline::restore::<SqliteTx<'_>>(conn, batch, sequences).await
            })
        })
        .await
    }

    async fn close(&self) {
        // Twice: sqlx 0.8.6 overlooks a connection that comes back to its pool while that closes, which leaves the files
        // beside the ledger. By the end of the first time all have come back.
        for pool in [&self.readers, &self.writer, &self.readers, &self.writer] {
            pool.close().await;
        }
    }
}

#[async_trait]
impl LedgerExaminer for SqliteStore {
    async fn examine(&self, limit: Duration) -> Examination {
        examine::examine(self, limit).await
    }

    async fn followers(&self) -> Result<Followers, StoreError> {
        followers::read(self).await
    }
}

#[async_trait]
impl WorkQueue for SqliteStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let mut conn = self.writer.acquire().await.map_err(database("taking due holds"))?;
        let now = now();
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        orders::take_due_holds(&mut conn, limit, now, Stamp(now.0.saturating_add(lease))).await
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("looking for overdue holds"))?;
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        orders::overdue_holds(&mut conn, Stamp(now().0.saturating_sub(by))).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        let mut conn = self.writer.acquire().await.map_err(database("taking levels to announce"))?;
        orders::take_unannounced(&mut conn, limit).await
    }
}

fn item_levels(levels: Vec<(Item, Level)>) -> Vec<ItemLevel> {
    levels.into_iter().map(|(item, level)| ItemLevel { item, level }).collect()
}

/// This machine's clock, which is the database's: they are one process. Before 1970 it says 1970.
fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Says what was being done when the driver failed, and whether doing it again may work: the one place that knows.
fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| {
        let retry = is_transient(&source);
        StoreError::Database { doing, source, retry }
    }
}

/// `SQLITE_CANTOPEN`: the file, or one beside it.
const CANNOT_OPEN: i32 = 14;

/// What SQLite says. The driver gives the extended code; its low byte is the primary one.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Whether the same call may work later: another process holds the file, the disk is full, or the queue for the writer
/// was long.
fn is_transient(error: &sqlx::Error) -> bool {
    /// `SQLITE_BUSY`: another connection holds the lock.
    const BUSY: i32 = 5;
    /// `SQLITE_LOCKED`: another statement of this process holds the table.
    const LOCKED: i32 = 6;
    /// `SQLITE_FULL`: no room on the disk for now.
    const FULL: i32 = 13;
    match error {
        sqlx::Error::Database(_) => matches!(primary_code(error), Some(BUSY | LOCKED | FULL)),
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
