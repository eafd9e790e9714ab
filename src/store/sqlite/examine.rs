//! What a file says of itself to who looks for faults.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection as _;

use super::failure::database;
use super::{SqliteStore, followers};
use crate::store::examination::Deadline;
use crate::store::{
    Answer, DatabaseFacts, Examination, Followers, LedgerAdmin as _, LedgerExaminer, LedgerHistory as _,
    OVERDUE, SqliteFacts, WorkQueue as _,
};

#[async_trait]
impl LedgerExaminer for SqliteStore {
    /// Reading waits for nobody in SQLite, so one thing after the other is quick.
    async fn examine(&self, limit: Duration) -> Examination {
        let deadline = Deadline::after(limit);
        Examination {
            tables: deadline.wait("reading its version", self.check()).await,
            writable: deadline.wait("asking whether it can be written", self.check_writable()).await,
            group: deadline.wait("reading whose ledger it is", self.group()).await,
            overdue: deadline.wait("looking for overdue holds", self.overdue_holds(OVERDUE)).await,
            database: DatabaseFacts::Sqlite(SqliteFacts {
                journal_mode: deadline.wait("asking for its journal", journal_mode(self)).await,
                write_lock: deadline.wait("waiting for its write lock", write_lock(self)).await,
            }),
        }
    }

    async fn followers(&self) -> Answer<Followers> {
        followers::read(self).await
    }
}

async fn journal_mode(store: &SqliteStore) -> Answer<String> {
    let doing = "asking for its journal";
    let mut conn = store.readers.acquire().await.map_err(database(doing))?;
    sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *conn).await.map_err(database(doing))
}

/// Has the write lock for a moment.
async fn write_lock(store: &SqliteStore) -> Answer<()> {
    let doing = "waiting for its write lock";
    let mut conn = store.writer.acquire().await.map_err(database(doing))?;
    // Who opened the file to read may have the lock and write nothing under it.
    sqlx::query("PRAGMA query_only = OFF").execute(&mut *conn).await.map_err(database(doing))?;
    let transaction = conn.begin_with("BEGIN IMMEDIATE").await.map_err(database(doing))?;
    transaction.rollback().await.map_err(database(doing))?;
    sqlx::query("PRAGMA query_only = ON").execute(&mut *conn).await.map_err(database(doing))?;
    Ok(())
}
