//! Making, checking, repairing and closing a ledger.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::{SqliteConnection, SqlitePool};

use super::failure::{CANNOT_OPEN, database, primary_code};
use super::levels::{self, item_levels};
use super::tx::SqliteTx;
use super::{SqliteStore, rows};
use crate::ledger::Sequenced;
use crate::store::{Applied, CommandBatch, ItemLevel, LedgerAdmin, StoreError, offline, retry, version};

/// Longest wait for the connections that calls still have when a ledger closes: longer than any statement waits for the
/// file.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Pause before the connections of a closing pool are looked at again.
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

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
        // All are closed where it can be, so that the files beside the ledger are gone when this returns.
        let all = async {
            close(&self.readers).await;
            close(&self.writer).await;
        };
        if tokio::time::timeout(CLOSE_LIMIT, all).await.is_err() {
            tracing::warn!(
                limit_s = CLOSE_LIMIT.as_secs(),
                "the ledger's file is still in use by this process: what SQLite keeps beside it stays"
            );
        }
    }
}

/// Closes a pool's connections and waits for those that a call has, or that are on their way back.
///
/// Again and again: sqlx 0.8.6 counts each idle connection that it closes as a place that came free, so that it waits for
/// as many connections less, and does not look at those that come back later.
async fn close(pool: &SqlitePool) {
    loop {
        pool.close().await;
        if pool.size() == 0 {
            return;
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqliteStore;
    use super::*;

    #[tokio::test]
    async fn closing_waits_for_a_connection_that_is_not_back_beside_one_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let store = SqliteStore::open(&format!("sqlite://{}", file.display())).await.unwrap();
        store.migrate().await.unwrap();
        let held = store.readers.acquire().await.unwrap();
        drop(store.readers.acquire().await.unwrap());
        while store.readers.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::join!(store.close(), async {
            while !store.readers.is_closed() {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(10 * CLOSE_PAUSE).await;
            drop(held);
        });
        assert_eq!(store.readers.size() + store.writer.size(), 0);
        let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [file], "files of SQLite stay beside the ledger");
    }
}
