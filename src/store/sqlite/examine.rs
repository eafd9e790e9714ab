//! What a file says of itself to who looks for faults.

use std::time::Duration;

use sqlx::Connection as _;

use super::{SqliteStore, database};
use crate::store::examination::Deadline;
use crate::store::{
    Answer, DatabaseFacts, Examination, LedgerAdmin as _, LedgerHistory as _, OVERDUE, SqliteFacts,
    WorkQueue as _,
};

/// All of it. Reading waits for nobody in SQLite, so one thing after the other is quick.
pub(super) async fn examine(store: &SqliteStore, limit: Duration) -> Examination {
    let deadline = Deadline::after(limit);
    Examination {
        tables: deadline.wait("reading its version", store.check()).await,
        writable: deadline.wait("asking whether it can be written", store.check_writable()).await,
        group: deadline.wait("reading whose ledger it is", store.group()).await,
        overdue: deadline.wait("looking for overdue holds", store.overdue_holds(OVERDUE)).await,
        database: DatabaseFacts::Sqlite(SqliteFacts {
            journal_mode: deadline.wait("asking for its journal", journal_mode(store)).await,
            write_lock: deadline.wait("waiting for its write lock", write_lock(store)).await,
        }),
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
