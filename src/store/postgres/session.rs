//! A session with PostgreSQL: how it is opened, and what is set on it.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::{failed, settings};
use crate::store::StoreError;

/// Longest a statement may run: a batch takes milliseconds, so past this the server is in trouble and a retry is due.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a lock: another batch holds its SKUs for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest a transaction of ours may sit idle, should this process hang: its locks block every other instance.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a free or new connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How PostgreSQL finds out that this host is gone: it asks after this silence,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// again each time after this,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// so often; then, after 25 s, the session and its locks end.
const KEEPALIVE_COUNT: u32 = 3;
/// The same for what was sent and never acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(25);
/// How often PostgreSQL looks whether this process has hung up while a statement runs or waits for a lock.
const CONNECTION_CHECK: Duration = Duration::from_secs(5);

/// What sessions of ours are called in `pg_stat_activity`.
pub(super) const APPLICATION_NAME: &str = "stock-verifier";

/// What a session of ours must have, whatever the server, the role or the database have for usual: given when
/// connecting, which is stronger than those. What cannot be given is checked: `settings.rs`.
fn own_settings(checks_connections: bool) -> Vec<(&'static str, String)> {
    let millis = |time: Duration| time.as_millis().to_string();
    let mut settings = vec![
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        ("lock_timeout", millis(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", millis(IDLE_TIMEOUT)),
        // An idle session is one that waits for orders.
        ("idle_session_timeout", "0".to_owned()),
        // For statements by themselves; a transaction says its own. With another, a batch that waited for a lock would
        // not see what was decided meanwhile.
        ("default_transaction_isolation", r"read\ committed".to_owned()),
        // Our statements are written for these two.
        ("standard_conforming_strings", "on".to_owned()),
        ("transform_null_equals", "off".to_owned()),
        // A policy that hides rows makes a statement fail, instead of deciding without them.
        ("row_security", "off".to_owned()),
        // A host that vanished must not keep its locks: see `KEEPALIVE_IDLE`. No matter on a Unix socket.
        ("tcp_keepalives_idle", KEEPALIVE_IDLE.as_secs().to_string()),
        ("tcp_keepalives_interval", KEEPALIVE_INTERVAL.as_secs().to_string()),
        ("tcp_keepalives_count", KEEPALIVE_COUNT.to_string()),
        ("tcp_user_timeout", millis(USER_TIMEOUT)),
        // A batch's items are joined with their levels by both columns of the key. The planner, who thinks
        // the columns independent, expects few and would hash all levels there are: 70 ms instead of 21 for
        // 5,800 items of 100,000.
        ("enable_hashjoin", "off".to_owned()),
    ];
    if checks_connections {
        settings.push(("client_connection_check_interval", millis(CONNECTION_CHECK)));
    }
    settings
}

/// Connects once, for what a pool would not say: it tries a refused connection until it times out. Returns the options
/// for every connection that follows.
pub(super) async fn reach(options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    let options = options.application_name(APPLICATION_NAME);
    let mut connection = connect(&options).await?;
    settings::check_version(connection.server_version_num())?;
    // Not on every platform: PostgreSQL on Windows refuses it, and a refused option would refuse the connection.
    let checks = sqlx::query("SELECT set_config('client_connection_check_interval', '1s', false)")
        .execute(&mut connection)
        .await
        .is_ok();
    // It has said what it was asked for; how it ends changes nothing.
    let _ = connection.close().await;
    Ok(options.options(own_settings(checks)))
}

/// A connection outside of any pool.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(options)).await;
    connected.unwrap_or_else(|_| Err(silent(ACQUIRE_TIMEOUT))).map_err(failed("connecting to PostgreSQL"))
}

/// The error of a server that says nothing for so long.
pub(super) fn silent(limit: Duration) -> sqlx::Error {
    let text = format!("the database said nothing for {} s", limit.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
