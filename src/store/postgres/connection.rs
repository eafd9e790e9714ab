//! How the database is talked to: where connections are taken, and when one is given up. How one is opened and what is
//! set on it is in `session.rs`.
//!
//! Everything goes through [`with_connection`]. After an error a connection is used again only where nothing but the
//! work it was for failed ([`failure::keeps_session`]): one that began while the database was read-only stays so, one
//! that met a full disk or a shutdown is of no more use, and the state of one that broke is unknown.
//!
//! # Silence
//!
//! PostgreSQL ends by itself what takes too long, and says so. What it cannot say is that it is gone: a host that
//! lost its power sends nothing, and sqlx 0.8.6 opens its socket by itself and takes no options for it, so that our
//! kernel would wait for ever. So an answer is waited for a little longer than PostgreSQL may take; then the
//! connection is closed without a word. What was asked is dropped with it, never left behind in a connection that
//! is used again (sqlx#4385).
//!
//! The other way round, PostgreSQL is told to look whether we are still there: `session.rs`. A process that is frozen but
//! whose host lives looks alive to both kernels; see `peers.rs`.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{PgConnection, Postgres};
use tokio::time::Instant;

use super::failure::{self, failed};
use super::peers;
use super::servers::Servers;
use super::session::{STATEMENT_TIMEOUT, Session, silent};
use crate::store::{PoolUse, StoreError};

/// Longest silence of a server that was asked something. Longer than [`STATEMENT_TIMEOUT`], after which a living
/// server says that it took too long.
const SILENCE_LIMIT: Duration = Duration::from_secs(40);
const _: () = assert!(SILENCE_LIMIT.as_secs() > STATEMENT_TIMEOUT.as_secs());
/// Longest wait for a connection to say that it can be used again. sqlx waits for ever, and the pool with it.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the connections to be closed: what they were for is done.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerLimit {
    /// As long as PostgreSQL may take for a statement, and a little more.
    Usual,
    /// Without an end: for what sets its own limits aside, and has somebody at the keyboard.
    Endless,
}

/// A pool of connections to the server that will do.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    connections: PgPool,
    servers: Arc<Servers>,
}

impl Pool {
    /// A pool that connects when it is asked to.
    pub(super) fn new(options: PgPoolOptions, servers: &Arc<Servers>) -> Self {
        Self::counted(options, servers, &Arc::default())
    }

    /// The same, which counts how often it has.
    pub(super) fn counted(options: PgPoolOptions, servers: &Arc<Servers>, opened: &Arc<AtomicU64>) -> Self {
        let (of, opened) = (Arc::clone(servers), Arc::clone(opened));
        let options = options.after_connect(move |connection, _| {
            opened.fetch_add(1, Ordering::SeqCst);
            let session = of.session();
            Box::pin(async move { session.prepare(connection).await })
        });
        let connections = options.connect_lazy_with(servers.session().options());
        Self { connections, servers: Arc::clone(servers) }
    }

    /// A connection, an idle one or a new one.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.servers.before_connecting(&self.connections).await?;
        self.connections.acquire().await.map_err(failed("connecting to PostgreSQL"))
    }

    /// Connects as its servers' sessions are from here on.
    pub(super) fn connect_anew(&self) {
        self.connections.set_connect_options(self.servers.session().options());
    }

    /// Its servers, which other pools may share.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// How it is used now.
    pub(super) fn usage(&self, name: &'static str) -> PoolUse {
        let idle = u32::try_from(self.connections.num_idle()).unwrap_or(u32::MAX);
        let used = self.connections.size().saturating_sub(idle);
        PoolUse { name, used, idle, most: self.connections.options().get_max_connections() }
    }

    /// What its sessions are like, for one beside the pool.
    pub(super) fn session(&self) -> Session {
        self.servers.session()
    }

    /// Closes all connections, once they are not in use.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

/// Talks to the database: the one place where a connection is taken from a pool, and given back or given up.
pub(super) async fn with_connection<T>(
    pool: &Pool,
    limit: AnswerLimit,
    talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut lease = Lease::of(pool).await?;
    let talked = match limit {
        AnswerLimit::Usual => unless_silent(SILENCE_LIMIT, talk(lease.connection())).await,
        AnswerLimit::Endless => Some(talk(lease.connection()).await),
    };
    let Some(talked) = talked else {
        // Dropped with its lease, the connection is closed hard.
        drop(lease);
        tracing::warn!(
            "the database said nothing for {} s: this connection is given up",
            SILENCE_LIMIT.as_secs()
        );
        return Err(failed("waiting for an answer")(silent(SILENCE_LIMIT)));
    };
    match &talked {
        Err(error) if !failure::keeps_session(error) => lease.close(),
        _ => lease.give_back(),
    }
    if talked.as_ref().is_err_and(failure::waited_in_vain) {
        peers::end_stuck(&pool.session()).await;
    }
    talked
}

/// A connection out of the pool. Neither given back nor closed, it was left in the middle of an answer: then its socket
/// is closed at once, which waits for nobody, and the pool may open another.
struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    async fn of(pool: &Pool) -> Result<Self, StoreError> {
        pool.acquire().await.map(|connection| Self(Some(connection)))
    }

    fn connection(&mut self) -> &mut PgConnection {
        // Holds because only what ends the lease takes it.
        self.0.as_mut().expect("a lease has its connection")
    }

    /// For the next one, once it has said that it is in order; not waited for.
    fn give_back(mut self) {
        if let Some(mut connection) = self.0.take() {
            // As sqlx does when it is dropped, but within a bound: a server that vanished at this moment would take the
            // pool's slot for good.
            let back = connection.return_to_pool();
            tokio::spawn(tokio::time::timeout(RELEASE_LIMIT, back));
        }
    }

    /// With a word to the server, which sqlx gives five seconds.
    fn close(mut self) {
        if let Some(mut connection) = self.0.take() {
            connection.close_on_drop();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Waits for a conversation, unless its socket stays silent for so long: `None` then, and the conversation is dropped.
async fn unless_silent<T>(limit: Duration, conversation: impl Future<Output = T>) -> Option<T> {
    let mut conversation = pin!(conversation);
    let heard = Arc::new(Heard { yes: AtomicBool::new(true), then: Mutex::new(Waker::noop().clone()) });
    let waker = Waker::from(Arc::clone(&heard));
    let mut alarm = pin!(tokio::time::sleep(limit));
    std::future::poll_fn(|context| {
        heard.then.lock().unwrap_or_else(PoisonError::into_inner).clone_from(context.waker());
        // A conversation waits for its socket alone. Others in this task wake it too, and are no sign of life.
        if heard.yes.swap(false, Ordering::SeqCst) {
            if let Poll::Ready(said) = conversation.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Some(said));
            }
            alarm.as_mut().reset(Instant::now() + limit);
        }
        alarm.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Whether a conversation's socket had something to say.
struct Heard {
    yes: AtomicBool,
    then: Mutex<Waker>,
}

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.yes.store(true, Ordering::SeqCst);
        self.then.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a busy machine, short enough for a test.
    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_conversation_may_last_as_long_as_it_goes_on() {
        let talk = async {
            for _ in 0..15 {
                tokio::time::sleep(LIMIT / 10).await;
            }
            "said"
        };
        assert_eq!(unless_silent(LIMIT, talk).await, Some("said"));
    }

    #[tokio::test]
    async fn silence_ends_it_whatever_else_happens_in_its_task() {
        let silent = unless_silent(LIMIT, std::future::pending::<()>());
        let others = async {
            for _ in 0..100 {
                tokio::time::sleep(LIMIT / 10).await;
            }
        };
        tokio::select! {
            ended = silent => assert_eq!(ended, None),
            () = others => panic!("it was taken for alive"),
        }
    }
}
