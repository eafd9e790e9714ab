//! Reads on replicas: streaming standbys of the ledger's database. Deciding never reads them.
//!
//! # How old an answer is
//!
//! The primary is asked again and again where its log ends and what time it is ([`Sample`]); each replica, how far it has
//! replayed that log. A replica that has replayed up to a sample's end has all that was committed until that sample's
//! time. So positions in the log are compared, never clocks: where nothing is written, no replica is old. An answer is of
//! the moment that was known before it was asked for, and so at most an interval older than need be.
//!
//! # Which server answers
//!
//! In turn, a replica that is there, is a standby of this very primary, and not further behind than asked for; else the
//! primary, on connections of its own, so that readers never take one from deciding. What a replica cannot answer the
//! primary is asked at once. A replica that is left is looked at as before, and comes back by itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::Row as _;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure::failed;
use super::rows::PgStamp;
use super::{Connections, PostgresStore};
use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};
use crate::store::{
    AsOf, DatedMovement, ItemLevel, LedgerAdmin as _, LedgerQueries, MovementCursor, OrderLife, StoreError,
};

/// How often primary and replicas are asked how far they are: a tiny statement each.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for an answer to that; who does not answer in time is away.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How long what a replica said last counts.
const PROBE_COUNTS: Duration = Duration::from_secs(3);
/// Longest wait for a replica's answer before the primary is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Samples of the primary kept: five minutes of them. A replica that is further behind is older than any.
const SAMPLES: usize = 1_200;
/// Connections to each server: many reads share them, since each is a statement or a few.
const READ_CONNECTIONS: Connections = Connections { batches: 1, readers: 4, others: 1 };

/// A place in the write-ahead log, in bytes from its beginning.
type Lsn = i64;

/// Where the primary's log ended, and when. Whatever was committed until then is before that end.
#[derive(Debug, Clone, Copy)]
struct Sample {
    end: Lsn,
    /// By the primary's clock.
    at: Stamp,
    /// By this process's, before it was asked for.
    asked: Instant,
}

/// The primary's last samples, the newest last.
#[derive(Debug, Default)]
struct Samples(VecDeque<Sample>);

impl Samples {
    fn push(&mut self, sample: Sample) {
        // Another server is the primary now, whose log is shorter: what was known is of a history that ended.
        if self.0.back().is_some_and(|last| last.end > sample.end) {
            self.0.clear();
        }
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The newest that lies before this place of the log, or right there.
    fn reached(&self, replayed: Lsn) -> Option<Sample> {
        self.0.iter().rfind(|sample| sample.end <= replayed).copied()
    }
}

/// What is known of a replica.
#[derive(Debug, Clone, Copy)]
struct Known {
    reached: Sample,
    /// When it said so.
    said: Instant,
}

struct Replica {
    /// Its number in the order given, from 1: its URL may be a secret.
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
    /// most `max_lag` behind. A replica that is not there now is used when it is.
    ///
    /// # Errors
    /// When a URL is wrong, or the primary cannot be reached.
    pub async fn open(
        primary: &str,
        urls: &[String],
        password: Option<&SecretString>,
        max_lag: Duration,
    ) -> Result<Self, StoreError> {
        let replica = |(index, url): (usize, &String)| {
            super::Address::read(url, password)?;
            Ok(Replica {
                number: index + 1,
                url: url.clone(),
                store: Mutex::default(),
                known: Mutex::default(),
            })
        };
        let shared = Arc::new(Shared {
            primary: PostgresStore::open_with_password(primary, password, READ_CONNECTIONS).await?,
            password: Mutex::new(password.cloned()),
            replicas: urls.iter().enumerate().map(replica).collect::<Result<_, StoreError>>()?,
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

    /// How old an answer of each replica that is not left is at most, by its number in the order given, from 1.
    #[must_use]
    pub fn ages(&self) -> Vec<(u32, Duration)> {
        let age = |replica: &Replica| {
            let known = (*lock(&replica.known))?;
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

/// Where its log ends, by the server that writes it.
async fn sample(primary: &PostgresStore) -> Result<Sample, StoreError> {
    let asked = Instant::now();
    primary
        .with(async |connection| {
            let doing = failed("asking the primary where its log ends");
            // The clock is read first: columns are computed in their order.
            let row =
                sqlx::query("SELECT clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
                    .fetch_one(connection)
                    .await
                    .map_err(&doing)?;
            let at: PgStamp = row.try_get(0).map_err(&doing)?;
            Ok(Sample { end: row.try_get(1).map_err(&doing)?, at: at.0, asked })
        })
        .await
}

/// How far a standby has replayed, and which cluster it is of; `None` where it is no standby.
async fn replayed(replica: &PostgresStore) -> Result<Option<Lsn>, StoreError> {
    replica
        .with(async |connection| {
            sqlx::query_scalar(
                "SELECT CASE WHEN pg_is_in_recovery()
                             THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END",
            )
            .fetch_one(connection)
            .await
            .map_err(failed("asking a replica how far it is"))
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
            match timeout(PROBE_LIMIT, sample(&self.primary)).await {
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
        // What was said of it last; nothing yet.
        let mut said: Option<Result<(), String>> = None;
        loop {
            let looked = timeout(PROBE_LIMIT, self.look(replica)).await;
            let found = looked.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
            let now = found.as_ref().map(|_| ()).map_err(Clone::clone);
            *lock(&replica.known) = found.ok();
            if said.as_ref().map(Result::is_ok) != Some(now.is_ok()) {
                match &now {
                    Ok(()) => tracing::info!(replica = replica.number, "reads go to this replica"),
                    Err(why) => {
                        tracing::warn!(replica = replica.number, "not reading from this replica: {why}");
                    }
                }
                said = Some(now);
            }
            sleep(PROBE_EVERY).await;
        }
    }

    /// What a replica is good for now; else why it is not.
    async fn look(&self, replica: &Replica) -> Result<Known, String> {
        let store = self.store_of(replica).await?;
        let said = Instant::now();
        let replayed = replayed(&store).await.map_err(|error| with_cause(&error))?;
        let replayed = replayed.ok_or("it is no standby (promoted?)")?;
        let reached = lock(&self.samples).reached(replayed);
        let reached = reached.ok_or("it is further behind than is known, or the primary does not answer")?;
        if reached.asked.elapsed() > self.max_lag {
            let behind = reached.asked.elapsed().as_secs_f64();
            return Err(format!("it is {behind:.1} s behind, more than --read-max-lag"));
        }
        Ok(Known { reached, said })
    }

    /// A replica's store, opened when it can be reached for the first time.
    async fn store_of(&self, replica: &Replica) -> Result<PostgresStore, String> {
        if let Some(store) = lock(&replica.store).clone() {
            return Ok(store);
        }
        let password = lock(&self.password).clone();
        let store = PostgresStore::open_with_password(&replica.url, password.as_ref(), READ_CONNECTIONS)
            .await
            .map_err(|error| with_cause(&error))?;
        // Who may not ask is believed.
        if let (Ok(its), Ok(primary)) = (cluster(&store).await, cluster(&self.primary).await)
            && its != primary
        {
            store.close().await;
            return Err("it is no replica of the primary, but of another cluster".to_owned());
        }
        *lock(&replica.store) = Some(store.clone());
        Ok(store)
    }

    /// The replica whose turn it is, and the moment that its answer will be of.
    fn choose(&self) -> Option<(&Replica, PostgresStore, Sample)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.replicas.len();
        (0..count).find_map(|step| {
            let replica = &self.replicas[(turn + step) % count];
            let known = (*lock(&replica.known))?;
            let is_fit =
                known.said.elapsed() <= PROBE_COUNTS && known.reached.asked.elapsed() <= self.max_lag;
            let store = lock(&replica.store).clone()?;
            is_fit.then_some((replica, store, known.reached))
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

    fn sample(end: Lsn, at: i64) -> Sample {
        Sample { end, at: Stamp(at), asked: Instant::now() }
    }

    #[test]
    fn a_replica_has_all_of_the_last_sample_whose_end_it_replayed() {
        let mut samples = Samples::default();
        for (end, at) in [(100, 1), (100, 2), (200, 3), (300, 4)] {
            samples.push(sample(end, at));
        }
        let reached = |replayed| samples.reached(replayed).map(|sample| sample.at.0);
        assert_eq!(reached(99), None);
        assert_eq!(reached(100), Some(2), "nothing was written in between");
        assert_eq!(reached(299), Some(3));
        assert_eq!(reached(1_000), Some(4));
    }

    #[test]
    fn a_primary_whose_log_is_shorter_is_another() {
        let mut samples = Samples::default();
        samples.push(sample(500, 1));
        samples.push(sample(400, 2));
        assert_eq!(samples.reached(450).map(|sample| sample.at.0), Some(2));
        for at in 0..2_000 {
            samples.push(sample(600, at));
        }
        assert_eq!(samples.0.len(), SAMPLES, "its bound");
    }
}
