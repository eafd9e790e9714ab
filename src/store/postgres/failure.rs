//! Which errors are which.

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// The key that holds each command id to one decision.
const DECISIONS_KEY: &str = "decisions_pkey";

/// The key of levels to be announced.
const NOTES_KEY: &str = "unannounced_levels_pkey";

/// SQLSTATE `lock_not_available`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// SQLSTATE `internal_error`, which Citus has for what a node's connection says when it breaks.
const INTERNAL_ERROR: &str = "XX000";

/// Turns a driver's error into the store's, with what was being done.
pub(super) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        if is_of_another_session(&source) {
            return pooled_by_transaction();
        }
        let retry = is_transient(&source);
        StoreError::Database { doing, source, retry }
    }
}

/// Whether it was this constraint that refused. Citus adds a shard's number to the name, and hands on what a node said
/// without its parts.
fn broke(error: &dyn DatabaseError, constraint: &str) -> bool {
    error.constraint().map_or_else(
        || error.message().contains(&format!("\"{constraint}_")),
        |name| name.starts_with(constraint),
    )
}

/// The one place that says which errors may pass when the same is done again.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed
        // A connection cut in the middle of an answer.
        | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Migrate(migration) => match &**migration {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => is_transient(error),
            _ => false,
        },
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // Serialisation failure, deadlock, lock not available, statement cancelled by its time-out.
            Some("40001" | "40P01" | "55P03" | "57014"
            // Server shutting down, crashed, starting up; idle, in a transaction or without, or too long in one; read-only
            // after a failover.
            | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "25006"
            // The database lets nobody in, which an operator has said (ALLOW_CONNECTIONS) and will take back.
            | "55000") => true,
            // Another instance decided one of the batch's command ids meanwhile; or one of a version that does not know the
            // items' gate stated the first level of one of its SKUs. It will be read next time.
            Some("23505") => broke(&**database, DECISIONS_KEY) || broke(&**database, "levels_pkey"),
            // The connection broke; too little of something for now: disk, memory, connections.
            Some(code) => {
                code.starts_with("08") || code.starts_with("53") || is_of_node(&**database)
            }
            None => false,
        },
        _ => false,
    }
}

/// Whether a batch was refused because one of its ids was decided before, or one of its new items noted.
pub(super) fn met_known(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: sqlx::Error::Database(database), .. }
        if broke(&**database, DECISIONS_KEY) || broke(&**database, NOTES_KEY))
}

/// Whether this was a wait for a lock that took too long.
pub(super) fn waited_in_vain(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: sqlx::Error::Database(database), .. }
        if database.code().as_deref() == Some(LOCK_NOT_AVAILABLE))
}

/// Whether a migration waited for a lock in vain.
pub(super) fn is_lock_timeout(error: &MigrateError) -> bool {
    matches!(error, MigrateError::Execute(sqlx::Error::Database(database))
                    | MigrateError::ExecuteMigration(sqlx::Error::Database(database), _)
        if database.code().as_deref() == Some(LOCK_NOT_AVAILABLE))
}

/// Whether a session is as good as before, once what failed is rolled back: nothing but the work itself was refused.
/// Another session costs not only its opening: with each, the whole ledger is compared anew.
pub(super) fn keeps_session(error: &StoreError) -> bool {
    match error {
        StoreError::Database { source: sqlx::Error::Database(refused), .. } => {
            // A key or a constraint; serialisation; a deadlock. sqlx rolls back when it drops a transaction. Not a lock
            // that was waited for in vain: where that is the gate's, the transaction had begun, and sqlx knows none.
            refused.code().is_some_and(|code| code.starts_with("23") || matches!(&*code, "40001" | "40P01"))
        }
        StoreError::Reconnected
        | StoreError::ConcurrentChange
        | StoreError::PositionChanged { .. }
        | StoreError::LedgerBehind { .. }
        | StoreError::PreviousNotCommitted { .. } => true,
        _ => false,
    }
}

/// Whether a node, or the way to it, failed and not the work: the same again may pass when it is back.
fn is_of_node(error: &dyn DatabaseError) -> bool {
    let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else { return false };
    error.code() == INTERNAL_ERROR
        && (error.r#where().is_some_and(|context| context.contains("while executing command on "))
            || ["failure on connection marked as essential", "could not connect to any active placements"]
                .iter()
                .any(|words| error.message().starts_with(words)))
}

/// Whether a prepared statement is not where it should be, or is where it should not: another session has it.
fn is_of_another_session(error: &sqlx::Error) -> bool {
    // duplicate_prepared_statement, invalid_sql_statement_name
    matches!(error, sqlx::Error::Database(refused) if matches!(refused.code().as_deref(), Some("42P05" | "26000")))
}

/// The refusal of a pooler that lends a session for a transaction or less.
pub(super) fn pooled_by_transaction() -> StoreError {
    StoreError::Unsuitable {
        setting: "pool_mode of the connection pooler",
        found: "transaction, or statement,".to_owned(),
        needed: "session",
        why: "time-outs and other settings of a session must hold for all that it does, and its prepared statements must \
              be there",
        repair: "In PgBouncer set pool_mode = session for this database or user, or let the database URL name PostgreSQL \
                 itself",
    }
}
