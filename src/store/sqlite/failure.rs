//! Which errors are which.

use crate::store::StoreError;

/// Says what was being done when the driver failed, and whether doing it again may work: the one place that knows.
pub(super) fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| {
        let retry = is_transient(&source);
        StoreError::Database { doing, source, retry }
    }
}

/// `SQLITE_CANTOPEN`: the file, or one beside it.
pub(super) const CANNOT_OPEN: i32 = 14;

/// What SQLite says. The driver gives the extended code; its low byte is the primary one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
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
