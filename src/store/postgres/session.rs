//! A session with PostgreSQL: how it is opened, and what is set on it.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::failure::{self, failed};
use super::settings;
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
fn own_settings(checks_connections: bool, is_citus: bool) -> Vec<(&'static str, String)> {
    let millis = |time: Duration| time.as_millis().to_string();
    let mut settings = vec![
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        ("lock_timeout", millis(LOCK_TIMEOUT)),
        ("idle_in_transaction_session_timeout", millis(IDLE_TIMEOUT)),
        // An idle session is one that waits for orders.
        ("idle_session_timeout", "0".to_owned()),
        // For statements by themselves; a transaction says its own. With another, a batch that waited for a lock would
        // not see what was decided meanwhile.
        ("default_transaction_isolation", "read committed".to_owned()),
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
    if is_citus {
        // One connection to each node: a batch is one transaction there, in doubt whole or not at all, and a reader
        // has one snapshot. More would also be slower: each is another transaction to prepare.
        settings.push(("citus.max_adaptive_executor_pool_size", "1".to_owned()));
    }
    settings
}

/// What every session with a server is like.
#[derive(Clone)]
pub(super) struct Session {
    options: PgConnectOptions,
    own: Vec<(&'static str, String)>,
    given: Given,
}

/// How a session is given its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// When connecting: before anything of the role's or the database's can be in the way.
    WhenConnecting,
    /// By a statement after that: a pooler refuses them when connecting, or drops them without a word.
    ByStatement,
}

impl Session {
    /// How it is connected to. Then it is to be [prepared](Self::prepare).
    pub(super) fn options(&self) -> PgConnectOptions {
        match self.given {
            Given::WhenConnecting => with_settings(self.options.clone(), &self.own),
            Given::ByStatement => self.options.clone(),
        }
    }

    /// Connects with this password from here on.
    pub(super) fn set_password(&mut self, password: &SecretString) {
        self.options = self.options.clone().password(password.expose_secret());
    }

    /// Gives a new connection what it could not be given when it connected.
    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.set(connection, &self.own).await
    }

    /// A connection outside of any pool, with other settings for some.
    pub(super) async fn connect(&self, other: &[(&'static str, String)]) -> Result<PgConnection, StoreError> {
        if self.given == Given::WhenConnecting {
            return connect(&with_settings(self.options(), other)).await;
        }
        let mut connection = connect(&self.options).await?;
        let doing = failed("preparing a session");
        self.prepare(&mut connection).await.map_err(&doing)?;
        self.set(&mut connection, other).await.map_err(&doing)?;
        Ok(connection)
    }

    /// A connection outside of any pool that is given no settings: it has what is usual for the role and the database.
    pub(super) async fn connect_bare(&self) -> Result<PgConnection, StoreError> {
        connect(&self.options).await
    }

    async fn set(
        &self,
        connection: &mut PgConnection,
        settings: &[(&'static str, String)],
    ) -> Result<(), sqlx::Error> {
        if self.given == Given::ByStatement && !settings.is_empty() {
            // All of them are this file's own, and none has a quote in it.
            let statements: Vec<String> =
                settings.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
            connection.execute(sqlx::raw_sql(&statements.join("; "))).await?;
        }
        Ok(())
    }
}

/// The options with these settings besides. A space would end one.
fn with_settings(options: PgConnectOptions, settings: &[(&'static str, String)]) -> PgConnectOptions {
    options.options(settings.iter().map(|(name, value)| (*name, value.replace(' ', r"\ "))))
}

/// Connects for what a pool would not say: it tries a refused connection until it times out. Returns what every session
/// that follows is like, and the first one, which is not.
pub(super) async fn reach(options: PgConnectOptions) -> Result<(Session, PgConnection), StoreError> {
    // No number is read as text; and poolers refuse to be told how to write one.
    let options = options.application_name(APPLICATION_NAME).extra_float_digits(None);
    let mut first = connect(&options).await?;
    settings::check_version(first.server_version_num())?;
    // Not on every platform: PostgreSQL on Windows refuses it, and a refused option would refuse the connection. For this
    // statement alone, since the session may be a pooler's.
    let checks = "SELECT set_config('client_connection_check_interval', '1s', true)";
    let checks = first.execute(sqlx::raw_sql(checks)).await.is_ok();
    // A server that has Citus loaded, whether or not this ledger is distributed.
    let citus = "SELECT (current_setting('citus.version', true) IS NOT NULL)::text";
    let is_citus = text(&mut first, citus).await.is_ok_and(|loaded| loaded == "true");
    let mut session = Session { options, own: own_settings(checks, is_citus), given: Given::WhenConnecting };
    let mut second = match connect(&session.options()).await {
        Ok(mut second) => {
            if lacks_settings(&mut second).await {
                session.given = Given::ByStatement;
            }
            second
        }
        Err(refused) if is_refused_when_connecting(&refused) => {
            session.given = Given::ByStatement;
            connect(&session.options).await?
        }
        // Too many connections, say: it may do with the one.
        Err(_) => return Ok((session, first)),
    };
    let shared = tokio::time::timeout(ACQUIRE_TIMEOUT, are_shared(&mut first, &mut second)).await;
    // It has said what it was asked for; how it ends changes nothing.
    let _ = second.close().await;
    // Who does not say in time, lets two of our sessions wait for each other, and shares none.
    if shared.unwrap_or(false) {
        return Err(failure::pooled_by_transaction());
    }
    Ok((session, first))
}

/// Whether the server did not take the settings that it was given when this connected.
async fn lacks_settings(connection: &mut PgConnection) -> bool {
    let set = format!(
        "SELECT (setting = '{}')::text FROM pg_settings WHERE name = 'lock_timeout'",
        LOCK_TIMEOUT.as_millis()
    );
    text(connection, &set).await.is_ok_and(|set| set != "true")
}

/// Whether a pooler does not take settings when connecting (`protocol_violation`); `PostgreSQL` has other words for what it
/// does not know.
fn is_refused_when_connecting(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: sqlx::Error::Database(refused), .. }
        if refused.code().as_deref() == Some(PROTOCOL_VIOLATION) && refused.message().contains("startup parameter"))
}

/// Whether two connections of ours are served by the same sessions of `PostgreSQL` in turn, as by a pooler that lends one
/// for a transaction or a statement. It lends the one that was given back last, or another each time.
async fn are_shared(first: &mut PgConnection, second: &mut PgConnection) -> bool {
    const PROCESS: &str = "SELECT pg_backend_pid()::text";
    let Ok(process) = text(first, PROCESS).await else { return false };
    if let Err(sqlx::Error::Database(refused)) = second.execute(sqlx::raw_sql("BEGIN")).await {
        return refused.code().as_deref() == Some(PROTOCOL_VIOLATION);
    }
    let (other, again) = (text(second, PROCESS).await, text(first, PROCESS).await);
    other.is_ok_and(|other| other == process) || again.is_ok_and(|again| again != process)
}

/// The one text that a query gives, without a prepared statement, which a session that is shared may have already.
async fn text(connection: &mut PgConnection, query: &str) -> Result<String, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(query)).await?.try_get(0)
}

/// SQLSTATE `protocol_violation`.
const PROTOCOL_VIOLATION: &str = "08P01";

/// A connection outside of any pool.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(options)).await;
    connected.unwrap_or_else(|_| Err(silent(ACQUIRE_TIMEOUT))).map_err(failed("connecting to PostgreSQL"))
}

/// The error of a server that says nothing for so long.
pub(super) fn silent(limit: Duration) -> sqlx::Error {
    let text = format!("the database said nothing for {} s", limit.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
