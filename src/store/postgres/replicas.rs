//! Reads on replicas: streaming standbys of the ledger's database. Deciding never reads them.
//!
//! # How old an answer is
//!
//! The primary is asked again and again where its log ends and what time it is ([`Sample`]); each replica, how far it has
//! replayed that log. A replica that has replayed up to a sample's end has all that was committed until that sample's
//! time. So positions in the log are compared, never clocks: where nothing is written, no replica is old. An answer is of
//! the moment that was known before it was asked for, and so at most an interval older than need be. What positions mean
//! after a failover is in `replicas/wal.rs`.
//!
//! # Which server answers
//!
//! In turn, a replica that is there, is a standby of this very primary, and not further behind than asked for; else the
//! primary, on connections of its own, so that readers never take one from deciding. What a replica cannot answer the
//! primary is asked at once. A replica that is left is looked at as before, and comes back by itself.
//!
//! How far a replica is it says on one connection, and answers on another: so both must lead to one server. Where a URL
//! names several, each is a replica by itself ([`each_server`]).

mod wal;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::Row as _;
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use url::form_urlencoded;

use self::wal::{Descent, Looks, Replayed, Sample, Samples};
use super::address::{Address, Wanted};
use super::failure::failed;
use super::rows::PgStamp;
use super::{Connections, PostgresStore};
use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};
use crate::store::{
    AsOf, DatedMovement, ItemLevel, LedgerAdmin as _, LedgerQueries, MovementCursor, OrderLife, StoreError,
};

/// How often primary and replicas are asked how far they are: a tiny statement each.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for an answer to that, once there is a connection; who does not answer in time is away.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Longest time until a replica is reached for the first time: some connections one after the other and thirty trips, of 200
/// ms each to another continent, with room. Nobody waits for it: reads go elsewhere meanwhile.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// How long what a replica said last counts.
const PROBE_COUNTS: Duration = Duration::from_secs(3);
/// Longest wait for a replica's answer before the primary is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Connections to each server: many reads share them, since each is a statement or a few.
const READ_CONNECTIONS: Connections = Connections { batches: 1, readers: 4, others: 1 };

/// Why a replica is left that does not answer.
const LATE: &str = "it does not answer in time";
/// Why one is left that is of another history.
const ASTRAY: &str = "it has replayed what the primary never wrote: a failover left it behind in another history (rewind it \
    by pg_rewind, or make it anew)";

/// What is known of a replica.
#[derive(Debug, Clone, Copy)]
struct Known {
    reached: Sample,
    /// The history of the primary that it is of.
    history: u64,
    /// When it was asked.
    asked: Instant,
}

struct Replica {
    /// Its number in the order given, from 1, each server of a URL by itself: its URL may be a secret.
    number: usize,
    url: String,
    /// Made once it is reached.
    store: Mutex<Option<PostgresStore>>,
    /// `None` while it is left.
    known: Mutex<Option<Known>>,
}

/// Nothing panics while one of these is locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers from replicas, and from the primary where none will do.
pub struct Replicas {
    shared: Arc<Shared>,
    /// They end with it.
    probing: Vec<AbortOnDropHandle<()>>,
}

struct Shared {
    primary: PostgresStore,
    password: Mutex<Option<SecretString>>,
    replicas: Vec<Replica>,
    samples: Mutex<Samples>,
    max_lag: Duration,
    /// Whose turn it is.
    turn: AtomicUsize,
    answered: Answered,
}

/// How many answers were given, and by which kind of server.
#[derive(Debug, Default)]
pub struct Answered {
    /// By replicas.
    pub replicas: AtomicU64,
    /// By the primary.
    pub primary: AtomicU64,
}

impl Replicas {
    /// Reads the ledger at `primary` on the replicas at these URLs, the password being the same for all, where they are at
    /// most `max_lag` behind. Each server that a URL names is a replica. One that is not there now is used when it is.
    ///
    /// # Errors
    /// When a URL is wrong, or the primary cannot be reached.
    pub async fn open(
        primary: &str,
        urls: &[String],
        password: Option<&SecretString>,
        max_lag: Duration,
    ) -> Result<Self, StoreError> {
        let servers = urls.iter().map(|url| each_server(url, password)).collect::<Result<Vec<_>, _>>()?;
        let replica = |(index, url): (usize, String)| Replica {
            number: index + 1,
            url,
            store: Mutex::default(),
            known: Mutex::default(),
        };
        let shared = Arc::new(Shared {
            primary: PostgresStore::open_with_password(primary, password, READ_CONNECTIONS).await?,
            password: Mutex::new(password.cloned()),
            replicas: servers.into_iter().flatten().enumerate().map(replica).collect(),
            samples: Mutex::default(),
            max_lag,
            turn: AtomicUsize::new(0),
            answered: Answered::default(),
        });
        let mut probing = vec![AbortOnDropHandle::new(tokio::spawn(Arc::clone(&shared).sample()))];
        for index in 0..shared.replicas.len() {
            probing.push(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&shared).watch(index))));
        }
        Ok(Self { shared, probing })
    }

    /// How many answers were given, and by whom.
    #[must_use]
    pub fn answered(&self) -> &Answered {
        &self.shared.answered
    }

    /// How old an answer of each replica that is not left is at most, by its number in the order given, from 1, each server
    /// of a URL by itself.
    #[must_use]
    pub fn ages(&self) -> Vec<(u32, Duration)> {
        let history = lock(&self.shared.samples).history();
        let age = |replica: &Replica| {
            let known = self.shared.fit(replica, history)?;
            Some((u32::try_from(replica.number).ok()?, known.reached.asked.elapsed()))
        };
        self.shared.replicas.iter().filter_map(age).collect()
    }

    /// Connects with this password from here on.
    pub fn set_password(&self, password: &SecretString) {
        *lock(&self.shared.password) = Some(password.clone());
        self.shared.primary.set_password(password);
        for replica in &self.shared.replicas {
            if let Some(store) = &*lock(&replica.store) {
                store.set_password(password);
            }
        }
    }

    /// Ends every connection.
    pub async fn close(&self) {
        self.probing.iter().for_each(AbortOnDropHandle::abort);
        for replica in &self.shared.replicas {
            let store = lock(&replica.store).take();
            if let Some(store) = store {
                store.close().await;
            }
        }
        self.shared.primary.close().await;
    }
}

/// The URLs of the servers that one names, each by itself and whatever it is now: whether it is a standby is asked at each
/// look.
fn each_server(url: &str, password: Option<&SecretString>) -> Result<Vec<String>, StoreError> {
    let address = Address::read(url, password)?;
    if address.servers.len() == 1 && address.wanted == Wanted::Any {
        return Ok(vec![url.to_owned()]);
    }
    // What comes after a # says nothing. Of a parameter that is there twice the last counts, and it is stronger than what
    // stands before the parameters.
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let more = if url.contains('?') { '&' } else { '?' };
    let alone = |server: &PgConnectOptions| {
        let host = server
            .get_socket()
            .map_or_else(|| server.get_host().to_owned(), |folder| folder.to_string_lossy().into_owned());
        let parameters = form_urlencoded::Serializer::new(String::new())
            .append_pair("hostaddr", &host)
            .append_pair("port", &server.get_port().to_string())
            .append_pair("target_session_attrs", "any")
            .finish();
        format!("{url}{more}{parameters}")
    };
    Ok(address.servers.iter().map(alone).collect())
}

/// Longest that asking this server how far it is may take: where there is no connection, one is to be found first.
fn probe_limit(store: &PostgresStore) -> Duration {
    let is_connected = store.pool.usage("others").idle > 0;
    if is_connected { PROBE_LIMIT } else { PROBE_LIMIT + store.pool.servers().longest_search() }
}

/// Where its log ends, by the server that writes it.
async fn sample(primary: &PostgresStore) -> Result<Sample, StoreError> {
    primary
        .with(async |connection| {
            // Once there is a connection: what finding one takes makes no answer old.
            let asked = Instant::now();
            let doing = failed("asking the primary where its log ends");
            // The clock is read first: columns are computed in their order. The name of a file of the log begins with its
            // timeline.
            let row = sqlx::query(
                "SELECT clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
                        left(pg_walfile_name(pg_current_wal_lsn()), 8)",
            )
            .fetch_one(connection)
            .await
            .map_err(&doing)?;
            let at: PgStamp = row.try_get(0).map_err(&doing)?;
            let timeline: &str = row.try_get(2).map_err(&doing)?;
            let timeline = u32::from_str_radix(timeline, 16)
                .map_err(|error| doing(sqlx::Error::Decode(error.into())))?;
            Ok(Sample { timeline, end: row.try_get(1).map_err(&doing)?, at: at.0, asked })
        })
        .await
}

/// How far a standby has replayed; `None` where it is no standby.
async fn replayed(replica: &PostgresStore) -> Result<Option<Replayed>, StoreError> {
    replica
        .with(async |connection| {
            let asked = Instant::now();
            let up_to: Option<i64> = sqlx::query_scalar(
                "SELECT CASE WHEN pg_is_in_recovery()
                             THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END",
            )
            .fetch_one(connection)
            .await
            .map_err(failed("asking a replica how far it is"))?;
            Ok(up_to.map(|up_to| Replayed { up_to, asked, said: Instant::now() }))
        })
        .await
}

/// What makes a server and its standbys one: the number that its files were made with.
async fn cluster(store: &PostgresStore) -> Result<i64, StoreError> {
    store
        .with(async |connection| {
            sqlx::query_scalar("SELECT system_identifier FROM pg_control_system()")
                .fetch_one(connection)
                .await
                .map_err(failed("asking which cluster a server is of"))
        })
        .await
}

impl Shared {
    /// Samples the primary for ever. While it does not answer, the last samples stay, and age.
    async fn sample(self: Arc<Self>) {
        loop {
            match timeout(probe_limit(&self.primary), sample(&self.primary)).await {
                Ok(Ok(sample)) => lock(&self.samples).push(sample),
                Ok(Err(error)) => tracing::debug!(%error, "sampling the primary"),
                Err(_) => tracing::debug!("the primary does not say where its log ends"),
            }
            sleep(PROBE_EVERY).await;
        }
    }

    /// Looks at a replica for ever.
    async fn watch(self: Arc<Self>, index: usize) {
        let replica = &self.replicas[index];
        let mut looks = Looks::default();
        // Whether the log says that it is read; nothing yet.
        let mut said: Option<bool> = None;
        loop {
            let found = self.look(replica, &mut looks).await;
            let now = found.as_ref().map(Option::is_some).map_err(Clone::clone);
            *lock(&replica.known) = found.ok().flatten();
            // What is not known yet is worth no word: the next look says more.
            if now != Ok(false) && said != Some(now.is_ok()) {
                match &now {
                    Ok(_) => tracing::info!(replica = replica.number, "reads go to this replica"),
                    Err(why) => {
                        tracing::warn!(replica = replica.number, "not reading from this replica: {why}");
                    }
                }
                said = Some(now.is_ok());
            }
            sleep(PROBE_EVERY).await;
        }
    }

    /// What a replica is good for now, where that is known; else why it is not.
    async fn look(&self, replica: &Replica, looks: &mut Looks) -> Result<Option<Known>, String> {
        let store = self.store_of(replica).await?;
        let answer = timeout(probe_limit(&store), replayed(&store)).await;
        let answer =
            answer.map_err(|_| LATE.to_owned()).and_then(|it| it.map_err(|error| with_cause(&error)));
        // Who was away may come back rewound, or made anew.
        let replayed = answer.inspect_err(|_| *looks = Looks::default())?;
        let replayed = replayed.ok_or("it is no standby (promoted?)")?;
        let samples = lock(&self.samples);
        let descent = looks.look(&samples, replayed);
        if descent == Descent::OfAnother {
            return Err(ASTRAY.to_owned());
        }
        let reached = samples.reached(replayed.up_to);
        let reached = reached.ok_or("it is further behind than is known, or the primary does not answer")?;
        if reached.asked.elapsed() > self.max_lag {
            let behind = reached.asked.elapsed().as_secs_f64();
            return Err(format!("it is {behind:.1} s behind, more than --read-max-lag"));
        }
        let known = Known { reached, history: samples.history(), asked: replayed.asked };
        Ok((descent == Descent::OfIt).then_some(known))
    }

    /// A replica's store, opened when it can be reached for the first time.
    async fn store_of(&self, replica: &Replica) -> Result<PostgresStore, String> {
        if let Some(store) = lock(&replica.store).clone() {
            return Ok(store);
        }
        // The primary is asked too.
        let limit = OPEN_LIMIT + self.primary.pool.servers().longest_search();
        let store = timeout(limit, self.open_replica(replica)).await.map_err(|_| LATE.to_owned())??;
        *lock(&replica.store) = Some(store.clone());
        Ok(store)
    }

    async fn open_replica(&self, replica: &Replica) -> Result<PostgresStore, String> {
        let password = lock(&self.password).clone();
        let store = PostgresStore::open_with_password(&replica.url, password.as_ref(), READ_CONNECTIONS)
            .await
            .map_err(|error| with_cause(&error))?;
        match (cluster(&store).await, cluster(&self.primary).await) {
            (Ok(its), Ok(primary)) if its != primary => {
                store.close().await;
                Err("it is no replica of the primary, but of another cluster".to_owned())
            }
            // Who cannot be asked now is asked again.
            (Err(error), _) | (_, Err(error)) if error.is_transient() => {
                store.close().await;
                Err(with_cause(&error))
            }
            // Who may not ask is believed.
            _ => Ok(store),
        }
    }

    /// What is known of a replica, where that is enough to read from it.
    fn fit(&self, replica: &Replica, history: u64) -> Option<Known> {
        let known = (*lock(&replica.known))?;
        let is_fit = known.history == history
            && known.asked.elapsed() <= PROBE_COUNTS
            && known.reached.asked.elapsed() <= self.max_lag;
        is_fit.then_some(known)
    }

    /// The replica whose turn it is, and the moment that its answer will be of.
    fn choose(&self) -> Option<(&Replica, PostgresStore, Sample)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (count, history) = (self.replicas.len(), lock(&self.samples).history());
        (0..count).find_map(|step| {
            let replica = &self.replicas[(turn + step) % count];
            let known = self.fit(replica, history)?;
            let store = lock(&replica.store).clone()?;
            Some((replica, store, known.reached))
        })
    }

    /// Asks a replica, and the primary where none will do.
    async fn ask<T, F: Future<Output = Result<AsOf<T>, StoreError>>>(
        &self,
        ask: impl Fn(PostgresStore) -> F,
    ) -> Result<AsOf<T>, StoreError> {
        if let Some((replica, store, reached)) = self.choose() {
            let behind = reached.asked.elapsed();
            match timeout(ANSWER_LIMIT, ask(store)).await {
                Ok(Ok(answer)) => {
                    self.answered.replicas.fetch_add(1, Ordering::Relaxed);
                    return Ok(AsOf { value: answer.value, at: reached.at, behind });
                }
                failed => {
                    // The next look says whether it is fit again.
                    *lock(&replica.known) = None;
                    let why = failed.map_or("no answer in time".to_owned(), |failed| {
                        failed.err().map_or_else(String::new, |error| with_cause(&error))
                    });
                    tracing::debug!(replica = replica.number, why, "asking the primary instead");
                }
            }
        }
        let answer = ask(self.primary.clone()).await?;
        self.answered.primary.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

/// An error with its cause, on one line. Neither has a password in it.
fn with_cause(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[async_trait]
impl LedgerQueries for Replicas {
    async fn moment(&self) -> Result<Stamp, StoreError> {
        self.shared.primary.moment().await
    }

    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        self.shared.ask(|server| async move { server.stock(sku, limit).await }).await
    }

    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        self.shared.ask(|server| async move { server.stock_of(items).await }).await
    }

    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
        self.shared.ask(|server| async move { server.orders(ids).await }).await
    }

    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
        let ask = |server: PostgresStore| async move { server.movements(sku, location, before, limit).await };
        self.shared.ask(ask).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the URLs of a URL's servers lead to.
    fn servers(url: &str) -> Vec<(String, u16)> {
        let urls = each_server(url, None).unwrap();
        let server = |url: &String| {
            let address = Address::read(url, None).unwrap();
            assert!(address.servers.len() == 1 && address.wanted == Wanted::Any, "{url}");
            let options = &address.servers[0];
            let socket = options.get_socket().map(|folder| folder.display().to_string());
            (socket.unwrap_or_else(|| options.get_host().to_owned()), options.get_port())
        };
        urls.iter().map(server).collect()
    }

    #[test]
    fn each_server_that_a_url_names_is_a_replica_by_itself() {
        let three = [("a", 5432), ("b", 5433), ("::1", 5434)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(servers("postgres://u:p@a,b:5433,[::1]:5434/stock?target_session_attrs=standby#x"), three);
        assert_eq!(servers("postgres://u:p@a,b:5433,[::1]:5434"), three);
        assert_eq!(servers("postgres:///stock?host=a,b,::1&port=5432,5433,5434"), three);
        assert_eq!(servers("postgres:///stock?hostaddr=a,b,::1&port=5432,5433,5434"), three);
        let same = [("a", 7), ("/tmp", 7)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(servers("postgres:///stock?host=a,/tmp&port=7"), same);
        assert_eq!(servers("postgres://a/stock?target_session_attrs=prefer-standby").len(), 1);
        let one = "postgres://u:p@a:5433/stock?sslmode=disable";
        assert_eq!(each_server(one, None).unwrap(), [one], "it is left as it is");
    }

    #[test]
    fn each_of_them_has_the_user_the_database_and_the_rest() {
        for url in each_server("postgres://shop:p@a,b/stock?sslmode=verify-full", None).unwrap() {
            let address = Address::read(&url, None).unwrap();
            let options = &address.servers[0];
            assert_eq!((options.get_username(), options.get_database()), ("shop", Some("stock")));
            assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
            assert!(address.has_password);
        }
    }
}
