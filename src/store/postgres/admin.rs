//! What an operator does to a ledger: its tables made, checked, distributed, repaired and made again.

use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::{Connection as _, PgConnection};

use super::connection::{self, AnswerLimit, CLOSE_LIMIT};
use super::distributed::{self, DistributedTx, Layout};
use super::failure::{self, failed};
use super::tx::PostgresTx;
use super::{PostgresStore, audit, settings};
use crate::ledger::Sequenced;
use crate::store::{self, Applied, CommandBatch, ItemLevel, LedgerAdmin, StoreError, offline, version};

/// Longest wait for a lock on a table while migrating. Whoever wants the table meanwhile waits behind.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The migrations this program was built with.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

impl PostgresStore {
    /// Refuses what is no coordinator of a Citus cluster that will do for [`Self::distribute`].
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`], with what to do.
    pub async fn check_cluster(&self) -> Result<(), StoreError> {
        self.with(distributed::check_cluster).await
    }

    /// Distributes the tables of an empty ledger over the nodes of the Citus cluster whose coordinator this is, in so many
    /// shards each. Nothing where they are distributed already.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] when a table has rows, or no node takes shards.
    pub async fn distribute(&self, shards: Option<u16>) -> Result<(), StoreError> {
        let session = self.pool.session();
        let mut connection = session
            .connect(&[
                ("statement_timeout", "0".to_owned()),
                ("lock_timeout", MIGRATION_LOCK_TIMEOUT.as_millis().to_string()),
            ])
            .await?;
        let distributed = distributed::distribute(&mut connection, shards).await;
        // What closing says adds nothing.
        let _ = tokio::time::timeout(CLOSE_LIMIT, connection.close()).await;
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = None;
        distributed
    }

    /// The migrations the database knows.
    pub(super) async fn migrations(&self) -> Result<Vec<version::FoundMigration>, StoreError> {
        let doing = failed("reading the ledger's version");
        self.with(async |connection| {
            let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
                .fetch_one(&mut *connection)
                .await
                .map_err(&doing)?;
            if !exists {
                return Ok(Vec::new());
            }
            let found: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
                "SELECT version, description, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
            )
            .fetch_all(connection)
            .await
            .map_err(&doing)?;
            Ok(version::applied(found))
        })
        .await
    }
}

#[async_trait]
impl LedgerAdmin for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.with(settings::check).await?;
        if !version::is_to_be_migrated(&MIGRATIONS, &self.migrations().await?)? {
            return Ok(());
        }
        self.check_writable().await?;
        // A session of its own: an index on a large ledger takes as long as it takes.
        let session = self.pool.session();
        let mut connection = session
            .connect(&[
                ("statement_timeout", "0".to_owned()),
                ("idle_in_transaction_session_timeout", "0".to_owned()),
                ("lock_timeout", MIGRATION_LOCK_TIMEOUT.as_millis().to_string()),
            ])
            .await?;
        let migrated = MIGRATIONS.run_direct(&mut connection).await;
        // What closing says adds nothing; the session ends with the connection anyway, and its locks too.
        let _ = tokio::time::timeout(CLOSE_LIMIT, connection.close()).await;
        migrated.map_err(|error| {
            let doing = if failure::is_lock_timeout(&error) {
                "migrating the database: another process migrates it or holds a lock on one of its tables; the same \
                 again may work"
            } else {
                "migrating the database"
            };
            failed(doing)(error.into())
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.with(settings::check).await?;
        version::check(&MIGRATIONS, &self.migrations().await?)?;
        self.layout().await.map(|_| ())
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.with(settings::check_writable).await
    }

    async fn repairable_levels(&self) -> Result<Vec<ItemLevel>, StoreError> {
        let layout = self.layout().await?;
        let session = self.pool.session();
        self.at_leisure(async |connection| audit::repairable_levels(connection, layout, &session).await).await
    }

    async fn repair(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let repair = || {
            let repair = async |connection: &mut PgConnection| {
                self.check_epoch(batch)?;
                match layout {
                    Layout::Plain => offline::repair::<PostgresTx<'_>>(connection, batch),
                    Layout::Distributed => offline::repair::<DistributedTx<'_>>(connection, batch),
                }
                .await
            };
            connection::with_connection(&self.batches, AnswerLimit::Usual, repair)
        };
        store::retry("repairing levels", repair).await
    }

    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let restore = || {
            let restore = async |connection: &mut PgConnection| {
                self.check_epoch(batch)?;
                match layout {
                    Layout::Plain => offline::restore::<PostgresTx<'_>>(connection, batch, sequences),
                    Layout::Distributed => {
                        offline::restore::<DistributedTx<'_>>(connection, batch, sequences)
                    }
                }
                .await
            };
            connection::with_connection(&self.batches, AnswerLimit::Usual, restore)
        };
        store::retry("restoring a batch", restore).await
    }

    fn set_password(&self, password: &SecretString) {
        // One address for all pools.
        self.pool.servers().set_password(password);
        for pool in [&self.pool, &self.batches, &self.readers] {
            pool.connect_anew();
        }
    }

    async fn close(&self) {
        let all = async {
            self.batches.close().await;
            self.readers.close().await;
            self.pool.close().await;
        };
        // A connection in use is waited for, and one to a server that vanished would be for long.
        if tokio::time::timeout(CLOSE_LIMIT, all).await.is_err() {
            tracing::debug!("not all connections were closed within {CLOSE_LIMIT:?}");
        }
    }
}
