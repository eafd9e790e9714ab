//! The connection to Redis: made when something is asked, and made anew when it breaks, leads to a replica or falls silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo as _, ParsingError, Pipeline,
    RedisError, ScriptInvocation, ServerErrorKind,
};
use secrecy::{ExposeSecret as _, SecretString};

/// Longest wait for an answer of Redis: above it Redis is away, and a buyer waits.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_millis(1_500);
/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a server may not even say that it has what was sent, before the connection to it is dropped. One that is busy
/// says so all the same.
#[cfg(target_os = "linux")]
const SILENT_LIMIT: Duration = Duration::from_secs(3);
/// The longest pause between two tries to connect.
const CONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Tries to connect before a command fails: few, so that it is known soon that Redis is away. The next command tries again.
const CONNECT_TRIES: usize = 2;

/// Redis did not do what was asked, or its answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be reached, or refused.
    #[error("Redis did not answer as it should")]
    Redis(#[from] RedisError),
    /// It answered what no script of this program answers: something else writes under this prefix.
    #[error("Redis holds what no gate writes ({0}): give the gates a prefix of their own (--redis-prefix)")]
    Strange(String),
}

impl From<ParsingError> for CacheError {
    fn from(error: ParsingError) -> Self {
        Self::Strange(error.to_string())
    }
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`; may hold a password.
    pub url: SecretString,
    /// The password, where it is in a file.
    pub password: Option<SecretString>,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How long entries that have ended are remembered.
    pub remember: Duration,
}

/// The connection, and what makes another.
struct Connected {
    manager: ConnectionManager,
    client: redis::Client,
    since: Instant,
}

impl Connected {
    /// Connects as soon as something is asked.
    fn new(client: redis::Client) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER_LIMIT))
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_max_delay(CONNECT_PAUSE_MAX)
            .set_number_of_retries(CONNECT_TRIES);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { manager, client, since: Instant::now() })
    }
}

fn with_password(info: ConnectionInfo, password: &SecretString) -> ConnectionInfo {
    let redis = info.redis_settings().clone().set_password(password.expose_secret());
    info.set_redis_settings(redis)
}

/// A connection; clones share it. What fails is told at once, and the next call connects anew.
#[derive(Clone)]
pub(super) struct RedisConnection(Arc<Mutex<Connected>>);

impl RedisConnection {
    /// Connects as soon as something is asked.
    ///
    /// # Errors
    /// When the URL is none.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, CacheError> {
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(SILENT_LIMIT);
        let mut info = settings.url.expose_secret().into_connection_info()?.set_tcp_settings(tcp);
        if let Some(password) = &settings.password {
            info = with_password(info, password);
        }
        let connected = Connected::new(redis::Client::open(info)?)?;
        Ok(Self(Arc::new(Mutex::new(connected))))
    }

    /// Connects with this password from here on; what is under way ends on the connection it began on.
    ///
    /// # Errors
    /// When no connection can be made ready.
    pub(super) fn set_password(&self, password: &SecretString) -> Result<(), CacheError> {
        let mut connected = self.connected();
        let info = connected.client.get_connection_info().clone();
        *connected = Connected::new(redis::Client::open(with_password(info, password))?)?;
        Ok(())
    }

    /// Sends a command.
    ///
    /// # Errors
    /// When Redis does not answer as it should: then it may have been done.
    pub(super) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        self.heard(command.query_async(&mut self.manager()).await)
    }

    /// Sends commands together.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) async fn send_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, CacheError> {
        self.heard(commands.query_async(&mut self.manager()).await)
    }

    /// Calls a script.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) async fn call<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, CacheError> {
        self.heard(call.invoke_async(&mut self.manager()).await)
    }

    fn manager(&self) -> ConnectionManager {
        self.connected().manager.clone()
    }

    fn heard<T>(&self, answer: Result<T, RedisError>) -> Result<T, CacheError> {
        answer.map_err(|error| {
            if needs_another(&error) {
                self.connect_anew();
            }
            CacheError::Redis(error)
        })
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        // Only ever replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects anew, unless that was done just now: one that many wait for fails for all of them.
    fn connect_anew(&self) {
        let mut connected = self.connected();
        if connected.since.elapsed() > CONNECT_PAUSE_MAX
            && let Ok(anew) = Connected::new(connected.client.clone())
        {
            *connected = anew;
        }
    }
}

/// Whether the connection has to be left by us. The manager connects anew where one broke, and only there: it keeps one that
/// could not be made for a reason of its own (a password that is wrong for a moment, TLS that was cut off), and fails by it
/// for good.
fn needs_another(error: &RedisError) -> bool {
    // A server that is away for good, behind an address that leads to another by now, says nothing; one that has become a
    // replica refuses to write. Both connections are sound.
    error.is_timeout()
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::Client
                | ErrorKind::InvalidClientConfig
                // The second is what a refused SELECT is too, with which a connection begins.
                | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::ResponseError)
        )
}
