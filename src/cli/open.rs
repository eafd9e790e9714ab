//! Opening the ledger that the settings name, as far as a command may: to read it, to write to it, or to make it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::causes;
use crate::config::{DatabaseArgs, DatabaseUrl};
use crate::store::postgres::{Connections, PostgresStore};
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{LedgerAdmin as _, Store, StoreError};

/// Connections to PostgreSQL for a command that does one thing at a time.
pub(super) const FEW_CONNECTIONS: Connections = Connections { batches: 1, readers: 1, others: 2 };

/// How often a database that is read-only is looked at again: it costs a connection.
const READ_ONLY_LOOK: Duration = Duration::from_secs(1);
/// How often the log says that it still is.
const READ_ONLY_SAY: Duration = Duration::from_secs(10);

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// No ledger is named, or not so that it can be opened.
    #[error(transparent)]
    Settings(anyhow::Error),
    /// The database of the settings' URL cannot be used at all. The URL may hold a secret, so it is not said.
    #[error("cannot open the ledger that --database-url names (check it, and --database-password-file)")]
    Postgres(#[source] StoreError),
    /// The same of a file, whose URL holds none.
    #[error("cannot open {url}")]
    Sqlite {
        /// As the settings name it.
        url: String,
        /// Why not.
        source: StoreError,
    },
    /// The ledger of this file is not one that the command can use.
    #[error("the ledger {}", file.display())]
    SqliteLedger {
        /// Its path.
        file: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// The ledger of this database is not one that the command can use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An empty ledger was to stand in for one that is not there.
    #[error("cannot make a directory for an empty ledger")]
    StandIn(#[source] io::Error),
}

impl OpenError {
    /// What the store said, where it was asked.
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Postgres(source)
            | Self::Sqlite { source, .. }
            | Self::SqliteLedger { source, .. }
            | Self::Store(source) => Some(source),
            Self::Settings(_) | Self::StandIn(_) => None,
        }
    }
}

/// What a command does to the ledger that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It reads: nothing is created, migrated or written.
    Read,
    /// It writes to a ledger that is there, with the tables of this program.
    Write,
    /// The same, and a SQLite file that is not there is created: nobody else could, and PostgreSQL has an administrator.
    WriteOrCreate,
    /// It creates or updates the tables first, and a SQLite file.
    Migrate,
}

impl Access {
    /// For who migrates when asked to.
    pub(super) fn migrating(asked: bool) -> Self {
        if asked { Self::Migrate } else { Self::Write }
    }
}

/// [`open_ledger`] for who writes to it until stopped: waits while the database is read-only, as it is after a failover
/// or when its disk is nearly full. Where it was once reached, being away is waited for too.
pub(super) async fn open_for_writing(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>, OpenError> {
    let mut said: Option<Instant> = None;
    loop {
        let error = match open_writable(args, connections, access).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        match error.of_store() {
            Some(StoreError::ReadOnly { .. }) => {}
            Some(away) if away.is_transient() && said.is_some() => {}
            _ => return Err(error),
        }
        if said.is_none_or(|at| at.elapsed() >= READ_ONLY_SAY) {
            tracing::warn!("waiting until the ledger can be written: {}", causes::of(&error));
            said = Some(Instant::now());
        }
        tokio::time::sleep(READ_ONLY_LOOK).await;
    }
}

async fn open_writable(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>, OpenError> {
    let store = open_ledger(args, connections, access).await?;
    if let Err(refused) = store.check_writable().await {
        store.close().await;
        return Err(refused.into());
    }
    Ok(store)
}

/// Opens the ledger that the settings name, ready for use.
pub(super) async fn open_ledger(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>, OpenError> {
    open_url(&args.url().map_err(OpenError::Settings)?, connections, access).await
}

/// The same of a URL.
pub(super) async fn open_url(
    url: &DatabaseUrl,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>, OpenError> {
    let (url, password) = (url.expose(), url.password());
    if url.starts_with("sqlite:") {
        return open_sqlite(url, access).await;
    }
    let store = PostgresStore::open_with_password(url, password, connections).await;
    let store: Arc<dyn Store> = Arc::new(store.map_err(OpenError::Postgres)?);
    prepare(&*store, access == Access::Migrate, access == Access::Migrate).await?;
    Ok(store)
}

async fn open_sqlite(url: &str, access: Access) -> Result<Arc<dyn Store>, OpenError> {
    let file_access = match access {
        Access::Read => FileAccess::Read,
        Access::Write => FileAccess::Write,
        Access::WriteOrCreate | Access::Migrate => FileAccess::Create,
    };
    let store = SqliteStore::open_for(url, file_access)
        .await
        .map_err(|source| OpenError::Sqlite { url: url.to_owned(), source })?;
    let file = store.file().to_owned();
    match prepare(&store, file_access == FileAccess::Create, access == Access::Migrate).await {
        Ok(true) => tracing::info!("created the ledger {}", file.display()),
        Ok(false) => {}
        Err(source) => return Err(OpenError::SqliteLedger { file, source }),
    }
    Ok(Arc::new(store))
}

/// Makes a ledger ready for use, as far as that is allowed: with tables where there are none, and with the newest.
/// Whether there were none. One that cannot be used is closed, so that SQLite leaves no files beside it.
async fn prepare(store: &dyn Store, may_create: bool, may_update: bool) -> Result<bool, StoreError> {
    let prepared = check_or_migrate(store, may_create, may_update).await;
    if prepared.is_err() {
        store.close().await;
    }
    prepared
}

/// The same of one that stays open whatever is found.
pub(super) async fn check_or_migrate(
    store: &dyn Store,
    may_create: bool,
    may_update: bool,
) -> Result<bool, StoreError> {
    let is_new = match store.check().await {
        Err(StoreError::Unmigrated) if may_create => true,
        Err(StoreError::Outdated { .. }) if may_update => false,
        checked => return checked.map(|()| false),
    };
    store.migrate().await?;
    store.check().await?;
    Ok(is_new)
}

/// Opens a ledger to look at what would be done to it. Where there is none yet, an empty one stands in, in a directory
/// that goes with it, so that looking creates nothing.
pub(super) async fn open_or_stand_in(
    url: &DatabaseUrl,
    connections: Connections,
) -> Result<(Arc<dyn Store>, Option<TempDir>), OpenError> {
    let error = match open_url(url, connections, Access::Read).await {
        Ok(store) => return Ok((store, None)),
        Err(error) => error,
    };
    if !matches!(error.of_store(), Some(StoreError::Missing { .. } | StoreError::Unmigrated)) {
        return Err(error);
    }
    let directory = tempfile::tempdir().map_err(OpenError::StandIn)?;
    let store =
        SqliteStore::open(&format!("sqlite://{}", directory.path().join("empty.db").display())).await?;
    store.migrate().await?;
    Ok((Arc::new(store), Some(directory)))
}
