//! Making, checking, repairing and closing a ledger.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::migrate::Migrator;

use super::failure::{CANNOT_OPEN, database, primary_code};
use super::levels::{self, item_levels};
use super::tx::SqliteTx;
use super::{SqliteStore, rows};
use crate::ledger::Sequenced;
use crate::store::{Applied, CommandBatch, ItemLevel, LedgerAdmin, StoreError, offline, retry, version};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

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
        retry("repairing levels", || {
            self.write_once(batch, async |conn: &mut SqliteConnection| {
                offline::repair::<SqliteTx<'_>>(conn, batch).await
            })
        })
        .await
    }

    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError> {
        retry("restoring a batch", || {
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
