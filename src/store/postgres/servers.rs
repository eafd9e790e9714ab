//! Which of a database's servers is talked to.
//!
//! Where a URL names several, each is tried in its order, and the first that will do is taken: when the ledger is opened,
//! and before each connection that follows. So after a failover new connections go to the server that then will do. A
//! connection that there is stays where it is until it fails, as it does on a server that is gone or was demoted.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{Connection as _, PgConnection};

use super::address::{Address, Wanted};
use super::failure::failed;
use super::plaintext;
use super::session::{self, ACQUIRE_TIMEOUT, Session};
use crate::store::StoreError;

/// Longest wait for one of several servers: the next one may answer.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

/// The servers of one database.
pub(super) struct Servers {
    address: RwLock<Address>,
    /// What sessions with the one that was taken last are like.
    taken: RwLock<Session>,
}

// `PgConnectOptions` would print its password.
impl std::fmt::Debug for Servers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Servers").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Servers {
    /// Takes the first that will do.
    ///
    /// # Errors
    /// When none will.
    pub(super) async fn reach(address: Address) -> Result<Self, StoreError> {
        let taken = choose(&address).await?;
        plaintext::warn_of(&taken.options(), address.has_password).await;
        Ok(Self { address: RwLock::new(address), taken: RwLock::new(taken) })
    }

    fn address(&self) -> Address {
        // Nothing can panic while it is locked.
        self.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects with this password from here on.
    pub(super) fn set_password(&self, password: &SecretString) {
        self.address.write().unwrap_or_else(PoisonError::into_inner).set_password(password);
        self.taken.write().unwrap_or_else(PoisonError::into_inner).set_password(password);
    }

    /// What sessions with the one that was taken last are like.
    pub(super) fn session(&self) -> Session {
        // Nothing can panic while it is locked.
        self.taken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Longest time until there is a new connection, or it is clear that no server will do now. Who waits no longer than
    /// for an answer would never get past a server that is gone.
    pub(super) fn longest_search(&self) -> Duration {
        longest_search(&self.address())
    }

    /// Takes again the first that will do, where there are several and the pool may be about to connect.
    ///
    /// # Errors
    /// When none will.
    pub(super) async fn before_connecting(&self, pool: &PgPool) -> Result<(), StoreError> {
        let address = self.address();
        let several = address.servers.len() > 1 || address.wanted != Wanted::Any;
        if several && pool.num_idle() == 0 && pool.size() < pool.options().get_max_connections() {
            let taken = choose(&address).await?;
            pool.set_connect_options(taken.options());
            *self.taken.write().unwrap_or_else(PoisonError::into_inner) = taken;
        }
        Ok(())
    }
}

/// What is wanted of a server, round by round over all of them.
fn rounds(address: &Address) -> &[Wanted] {
    match &address.wanted {
        Wanted::PreferStandby => &[Wanted::Standby, Wanted::Any],
        wanted => std::slice::from_ref(wanted),
    }
}

/// The longest that [`choose`] may take, and connecting to what it chose, which answered just now.
fn longest_search(address: &Address) -> Duration {
    let tries = rounds(address).len() * address.servers.len();
    if tries == 1 {
        return ACQUIRE_TIMEOUT;
    }
    ONE_OF_SEVERAL.saturating_mul(u32::try_from(tries + 1).unwrap_or(u32::MAX))
}

/// The first server that will do, by what sessions with it are like.
async fn choose(address: &Address) -> Result<Session, StoreError> {
    let rounds = rounds(address);
    if let ([one], [wanted]) = (&*address.servers, rounds) {
        return try_one(one, *wanted, ACQUIRE_TIMEOUT).await;
    }
    let mut refusals = Vec::new();
    for wanted in rounds {
        for server in &address.servers {
            match try_one(server, *wanted, ONE_OF_SEVERAL).await {
                Ok(taken) => return Ok(taken),
                Err(error) => refusals.push((server, error)),
            }
        }
    }
    Err(none_will_do(&refusals))
}

async fn try_one(server: &PgConnectOptions, wanted: Wanted, limit: Duration) -> Result<Session, StoreError> {
    let reached = tokio::time::timeout(limit, async {
        let (session, mut connection) = session::reach(server.clone()).await?;
        let will_do = check_wanted(&mut connection, wanted).await;
        // It has said what it was asked for; how it ends changes nothing.
        let _ = connection.close().await;
        will_do.map(|()| session)
    });
    reached.await.unwrap_or_else(|_| Err(failed("connecting to PostgreSQL")(session::silent(limit))))
}

async fn check_wanted(connection: &mut PgConnection, wanted: Wanted) -> Result<(), StoreError> {
    if wanted == Wanted::Any {
        return Ok(());
    }
    let (standby, read_only): (bool, bool) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("asking what kind of server it is"))?;
    let why = match wanted {
        Wanted::ReadWrite if standby => "it is a standby",
        Wanted::ReadWrite if read_only => "default_transaction_read_only is on",
        Wanted::ReadOnly if !standby && !read_only => {
            "it can be written, and target_session_attrs is read-only"
        }
        Wanted::Primary if standby => "it is a standby, and target_session_attrs is primary",
        Wanted::Standby | Wanted::PreferStandby if !standby => "it is no standby",
        _ => return Ok(()),
    };
    Err(StoreError::ReadOnly { why })
}

/// What each of the servers said, as one error.
fn none_will_do(refusals: &[(&PgConnectOptions, StoreError)]) -> StoreError {
    let said: Vec<String> = refusals
        .iter()
        .map(|(server, error)| {
            let cause =
                std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{}:{}: {error}{cause}", server.get_host(), server.get_port())
        })
        .collect();
    // Another of them may be the one in a moment, unless all refuse for good.
    let retry = refusals.iter().any(|(_, error)| error.is_transient());
    let source = sqlx::Error::Configuration(said.join("; ").into());
    StoreError::Database { doing: "connecting to PostgreSQL: none of its servers will do", source, retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_may_try_each_server_in_each_round_and_then_connect() {
        let seconds = |url: &str| longest_search(&Address::read(url, None).unwrap()).as_secs();
        let each = ONE_OF_SEVERAL.as_secs();
        assert_eq!(seconds("postgres://a/stock"), ACQUIRE_TIMEOUT.as_secs());
        assert_eq!(seconds("postgres://a/stock?target_session_attrs=read-write"), ACQUIRE_TIMEOUT.as_secs());
        assert_eq!(seconds("postgres://a,b/stock?target_session_attrs=read-write"), 3 * each);
        assert_eq!(seconds("postgres://a,b,c/stock?target_session_attrs=prefer-standby"), 7 * each);
    }
}
