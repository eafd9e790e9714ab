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

mod admin;
mod audit;
mod examine;
mod failure;
mod followers;
mod history;
mod levels;
mod orders;
mod positions;
mod programs;
mod queries;
mod read;
mod reader;
mod rows;
mod tx;
mod work_queue;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection};

use failure::database;

use super::{Applied, CommandBatch, LedgerWriter as _, StoreError};
use crate::ledger::Stamp;

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

/// This machine's clock, which is the database's: they are one process. Before 1970 it says 1970.
fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
