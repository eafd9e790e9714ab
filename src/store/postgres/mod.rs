//! The ledger in PostgreSQL.
//!
//! # Round trips of one batch, whatever its size
//!
//! | # | statement | why |
//! |---|---|---|
//! | 1 | look up the orders that commands follow | to know which levels to lock |
//! | 2 | `BEGIN`, and pass the gate | so that an order and its cancellation never miss each other; see `gate.rs` |
//! | 3 | lock and read the levels, in item order | one order for all, so no two batches deadlock |
//! | – | pass the items' gate; look whether one has a level by now, and lock those | only where an item had none: see `gate.rs` |
//! | 4 | lock and read the positions | where the batch stands in its partitions |
//! | 5 | read decisions by command id; draw the batch's ledger sequences | after the locks: sees all that any earlier holder of them wrote. Of ids taken for new only cancellations |
//! | 6, 7 | read what followed orders gave back, and their holds | |
//! | 8 | write levels and positions | one statement |
//! | 9, 10 | write levels whose limits changed; levels of new items | |
//! | 11, 12 | `COPY` the decisions | two trips each: open, then send and end |
//! | 13, 14 | `COPY` the movements | |
//! | 15 to 17 | write what orders gave back; their holds; holds that ended | |
//! | 18 | note which levels an operator's commands changed | |
//! | 19 | `COMMIT` | |
//!
//! Steps with nothing to do are left out: a batch of plain orders has ten.
//! Two batches that share an item run one after the other from step 3 on. Two that share only a command id
//! (the same id on two partitions, with other SKUs) meet at the primary key
//! of `decisions` in step 12: the later one fails, is tried again, and then
//! reads the earlier one's decision in step 5. So does a batch whose ids were
//! taken for new and are not: they are when nothing says otherwise (records
//! below the positions, commands that follow orders, a known id in one of the last
//! `FULL_LOOKUP_BATCHES` batches), since looking for ten thousand ids that are not
//! there was a twentieth of a batch's time.

mod address;
mod audit;
mod connection;
mod copy;
mod distributed;
mod examine;
mod followers;
mod gate;
mod levels;
mod orders;
mod peers;
mod plaintext;
mod positions;
mod programs;
pub mod queries;
mod read;
mod replicas;
mod rows;
mod servers;
mod session;
mod settings;
mod tx;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{Connection as _, PgConnection};

use address::Address;
use connection::{CLOSE_LIMIT, Patience, Pool};
use distributed::{DistributedTx, Layout};
pub use replicas::{Answered, Replicas};
use servers::Servers;
use session::ACQUIRE_TIMEOUT;
use tx::PostgresTx;

use super::apply::{self, IdLookup};
use super::{
    Applied, Audit, CommandBatch, DueHold, Examination, Followers, ItemLevel, LedgerAdmin, LedgerExaminer,
    LedgerHistory, LedgerReader, LedgerWriter, OverdueHolds, PoolUse, Position, Snapshot, StoreError,
    StoredOrder, WorkQueue, offline, version,
};
use crate::ledger::{CommandKey, Decision, HeldProgram, Id, Item, Sequenced, Sku, TopicPartition};

/// Longest wait for a lock on a table while migrating. Whoever wants the table meanwhile waits behind.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches in which command ids are looked up before they are taken for new again, once one was not: a batch refused
/// for that is done twice, so where producers repeat themselves all the time it costs a hundredth.
const FULL_LOOKUP_BATCHES: usize = 100;

/// Most connections of a store.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// To apply batches: one for each pipeline.
    pub batches: u32,
    /// To read by key.
    pub readers: u32,
    /// For everything else.
    pub others: u32,
}

/// A ledger in PostgreSQL, 15 or newer.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool,
    /// The connections that apply batches. By themselves, so that one opened anew is noticed, and none is for its age.
    batches: Pool,
    /// The connections that read by key. By themselves, so that many who ask hold up nothing else.
    readers: Pool,
    /// How often one of those was opened.
    opened: Arc<AtomicU64>,
    /// Batches left of [`FULL_LOOKUP_BATCHES`].
    full_lookup_batches: Arc<AtomicUsize>,
    /// Where the tables are, once that is known.
    layout: Arc<Mutex<Option<Layout>>>,
}

impl PostgresStore {
    /// Connects with at most so many `connections` at once.
    ///
    /// Time-outs are the server's own, and one for its silence: `connection.rs`.
    ///
    /// # Errors
    /// When the URL is wrong, no server of it can be reached, or it refuses the user.
    pub async fn open(url: &str, connections: Connections) -> Result<Self, StoreError> {
        Self::open_with_password(url, None, connections).await
    }

    /// The same with a password that is in no URL, and so is taken as it is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_password(
        url: &str,
        password: Option<&SecretString>,
        connections: Connections,
    ) -> Result<Self, StoreError> {
        let servers = Arc::new(Servers::reach(Address::read(url, password)?).await?);
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // A broken connection is found by the batch that meets it, which is then tried on a new one.
                .test_before_acquire(false)
        };
        let opened = Arc::new(AtomicU64::new(0));
        let batches = pool(connections.batches).idle_timeout(None).max_lifetime(None);
        Ok(Self {
            batches: Pool::counted(batches, &servers, &opened),
            readers: Pool::new(pool(connections.readers), &servers),
            pool: Pool::new(pool(connections.others), &servers),
            opened,
            full_lookup_batches: Arc::default(),
            layout: Arc::default(),
        })
    }

    /// Applies a batch as if all its ids were new, which nearly always they are, or with a look at each.
    async fn attempt(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let full_lookup_batches =
            self.full_lookup_batches
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if full_lookup_batches.is_err() {
            match self.attempt_as(batch, IdLookup::New).await {
                Err(error) if tx::met_known_id(&error) => {
                    tracing::debug!("a command id was decided before; ids are looked up for a while");
                    self.full_lookup_batches.store(FULL_LOOKUP_BATCHES, Ordering::Relaxed);
                }
                applied => return applied,
            }
        }
        self.attempt_as(batch, IdLookup::Any).await
    }

    async fn attempt_as(&self, batch: &CommandBatch, ids: IdLookup) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let apply = async |connection: &mut PgConnection| {
            self.check_epoch(batch)?;
            match layout {
                Layout::Plain => apply::apply::<PostgresTx<'_>>(connection, batch, ids),
                Layout::Distributed => apply::apply::<DistributedTx<'_>>(connection, batch, ids),
            }
            .await
        };
        let applied = connection::with_connection(&self.batches, Patience::Usual, apply).await;
        self.settle_after(layout, &applied).await;
        applied
    }

    /// Where the tables are. Asked once: whoever distributes them stops the verifiers, since the tables are empty.
    async fn layout(&self) -> Result<Layout, StoreError> {
        if let Some(known) = *self.layout.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known);
        }
        let found = self.with(distributed::layout).await?;
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = found;
        // Where there are no tables yet, none are distributed.
        Ok(found.unwrap_or(Layout::Plain))
    }

    /// Settles what is in doubt on a node, where somebody waited for it in vain.
    async fn settle_after<T>(&self, layout: Layout, result: &Result<T, StoreError>) {
        if layout == Layout::Distributed && result.as_ref().is_err_and(peers::waited_in_vain) {
            distributed::settle(&self.batches.session()).await;
        }
    }

    /// Refuses what is no coordinator of a Citus cluster that will do for [`Self::distribute`].
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`], with what to do.
    pub async fn check_cluster(&self) -> Result<(), StoreError> {
        self.with(distributed::check_cluster).await
    }

    /// Distributes the tables of an empty ledger over the nodes of the Citus cluster whose coordinator this is, in so many
    /// shards each. Nothing where they are distributed already.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] when a table has rows, or no node takes shards.
    pub async fn distribute(&self, shards: Option<u16>) -> Result<(), StoreError> {
        let session = self.pool.session();
        let mut connection = session
            .connect(&[
                ("statement_timeout", "0".to_owned()),
                ("lock_timeout", MIGRATION_LOCK_TIMEOUT.as_millis().to_string()),
            ])
            .await?;
        let distributed = distributed::distribute(&mut connection, shards).await;
        // What closing says adds nothing.
        let _ = tokio::time::timeout(CLOSE_LIMIT, connection.close()).await;
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = None;
        distributed
    }

    /// Refuses a batch of an earlier connection. To be asked once there is a connection: its own opening counts.
    fn check_epoch(&self, batch: &CommandBatch) -> Result<(), StoreError> {
        match batch.epoch {
            Some(epoch) if epoch != self.connection_epoch() => Err(StoreError::Reconnected),
            _ => Ok(()),
        }
    }

    /// Talks to the database: see [`connection::with_connection`].
    async fn with<T>(
        &self,
        talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        connection::with_connection(&self.pool, Patience::Usual, talk).await
    }

    /// The same for what is asked for by key.
    async fn read<T>(
        &self,
        talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        connection::with_connection(&self.readers, Patience::Usual, talk).await
    }

    /// The same for what takes as long as it takes.
    async fn at_leisure<T>(
        &self,
        talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        connection::with_connection(&self.pool, Patience::Endless, talk).await
    }

    /// The migrations the database knows.
    async fn migrations(&self) -> Result<Vec<version::FoundMigration>, StoreError> {
        let doing = failed("reading the ledger's version");
        self.with(async |connection| {
            let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
                .fetch_one(&mut *connection)
                .await
                .map_err(&doing)?;
            if !exists {
                return Ok(Vec::new());
            }
            let found: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
                "SELECT version, description, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
            )
            .fetch_all(connection)
            .await
            .map_err(&doing)?;
            Ok(version::applied(found))
        })
        .await
    }
}

/// Warns of something, unless it was said before: a ledger that cannot be written yet is opened again every second.
fn warn_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned()) {
        tracing::warn!("{text}");
    }
}

/// Turns a driver's error into the store's, with what was being done.
fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        if session::is_of_another_session(&source) {
            return session::pooled_by_transaction();
        }
        let retry = is_transient(&source);
        StoreError::Database { doing, source, retry }
    }
}

/// The key that holds each command id to one decision.
const DECISIONS_KEY: &str = "decisions_pkey";

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
                code.starts_with("08") || code.starts_with("53") || distributed::is_of_node(&**database)
            }
            None => false,
        },
        _ => false,
    }
}

#[async_trait]
impl LedgerWriter for PostgresStore {
    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let owner: String = self
            .with(async |connection| {
                sqlx::query_scalar(
                    "INSERT INTO ledger_group (name) VALUES ($1)
                     ON CONFLICT (only_one)
                         DO UPDATE SET name = CASE WHEN $2 THEN excluded.name ELSE ledger_group.name END
                     RETURNING name",
                )
                .bind(group)
                .bind(take_over)
                .fetch_one(connection)
                .await
                .map_err(failed("claiming the ledger"))
            })
            .await?;
        if owner == group { Ok(()) } else { Err(StoreError::OtherGroup { owner }) }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let (topics, partitions) = rows::partition_columns(of.iter());
        self.with(async |connection| {
            sqlx::query(
                "SELECT topic, partition, next_offset, published_offset, topic_id FROM positions
                 JOIN UNNEST($1::text[], $2::int[]) AS wanted (topic, partition) USING (topic, partition)",
            )
            .bind(topics)
            .bind(partitions)
            .fetch_all(connection)
            .await
            .map_err(failed("reading the positions"))?
            .iter()
            .map(|row| rows::full_position(row).map_err(failed("reading the positions")))
            .collect()
        })
        .await
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.with(positions::all).await
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        self.with(async |connection| positions::set(connection, at, was, now).await).await
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        self.with(async |connection| programs::hold(connection, now).await).await
    }

    fn connection_epoch(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    fn connections(&self) -> Vec<PoolUse> {
        vec![self.batches.usage("batches"), self.readers.usage("readers"), self.pool.usage("others")]
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        let read = async |connection: &mut PgConnection| {
            // Now that it is there: its own opening counts.
            let epoch = self.connection_epoch();
            Ok((epoch, positions::all(connection).await?))
        };
        connection::with_connection(&self.batches, Patience::Usual, read).await
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let again = |error: &StoreError| {
            error.is_transient() && (batch.epoch.is_none() || connection::keeps_session(error))
        };
        super::retry_when("applying a batch", again, || self.attempt(batch)).await
    }
}

#[async_trait]
impl LedgerReader for PostgresStore {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let wanted: Option<Vec<&str>> = of.map(|skus| skus.iter().map(Sku::as_str).collect());
        self.read(async |connection| {
            let found = sqlx::query(
                "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
                 WHERE $1::text[] IS NULL OR sku = ANY($1) ORDER BY sku, location",
            )
            .bind(wanted)
            .fetch_all(connection)
            .await;
            read_levels(found)
        })
        .await
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let items: BTreeSet<&Item> = items.iter().collect();
        let (skus, locations) = rows::item_columns(items.into_iter());
        self.read(async |connection| {
            let found = sqlx::query(
                "SELECT sku, location, available, version, backorder_limit, order_limit
                 FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location) JOIN levels USING (sku, location)",
            )
            .bind(skus)
            .bind(locations)
            .fetch_all(connection)
            .await;
            read_levels(found)
        })
        .await
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        self.read(async |connection| read::levels_after(connection, after, limit).await).await
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        self.read(async |connection| read::decision(connection, of).await).await
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let layout = self.layout().await?;
        self.read(async |connection| read::order(connection, id, layout).await).await
    }
}

#[async_trait]
impl LedgerHistory for PostgresStore {
    async fn group(&self) -> Result<Option<String>, StoreError> {
        self.with(async |connection| {
            sqlx::query_scalar("SELECT name FROM ledger_group")
                .fetch_optional(connection)
                .await
                .map_err(failed("reading whose ledger it is"))
        })
        .await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let layout = self.layout().await?;
        // Only the owner may, and nobody on a standby: then what follows may be slow.
        if let Err(error) =
            self.at_leisure(async |connection| read::summarise(connection, layout).await).await
        {
            tracing::debug!(%error, "the indexes by ledger sequence are not brought up to date; reading may be slow");
        }
        Ok(Box::new(read::PostgresSnapshot::begin(&self.pool, layout).await?))
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let layout = self.layout().await?;
        let session = self.pool.session();
        self.at_leisure(async |connection| audit::audit(connection, layout, &session).await).await
    }
}

#[async_trait]
impl LedgerAdmin for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.with(settings::check).await?;
        if !version::is_to_be_migrated(&MIGRATIONS, &self.migrations().await?)? {
            return Ok(());
        }
        self.check_writable().await?;
        // A session of its own: an index on a large ledger takes as long as it takes.
        let session = self.pool.session();
        let mut connection = session
            .connect(&[
                ("statement_timeout", "0".to_owned()),
                ("idle_in_transaction_session_timeout", "0".to_owned()),
                ("lock_timeout", MIGRATION_LOCK_TIMEOUT.as_millis().to_string()),
            ])
            .await?;
        let migrated = MIGRATIONS.run_direct(&mut connection).await;
        // What closing says adds nothing; the session ends with the connection anyway, and its locks too.
        let _ = tokio::time::timeout(CLOSE_LIMIT, connection.close()).await;
        migrated.map_err(|error| {
            let doing = if is_lock_timeout(&error) {
                "migrating the database: another process migrates it or holds a lock on one of its tables; the same \
                 again may work"
            } else {
                "migrating the database"
            };
            failed(doing)(error.into())
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.with(settings::check).await?;
        version::check(&MIGRATIONS, &self.migrations().await?)?;
        self.layout().await.map(|_| ())
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.with(settings::check_writable).await
    }

    async fn repairable_levels(&self) -> Result<Vec<ItemLevel>, StoreError> {
        let layout = self.layout().await?;
        let session = self.pool.session();
        self.at_leisure(async |connection| audit::repairable_levels(connection, layout, &session).await).await
    }

    async fn repair(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let repair = || {
            let repair = async |connection: &mut PgConnection| {
                self.check_epoch(batch)?;
                match layout {
                    Layout::Plain => offline::repair::<PostgresTx<'_>>(connection, batch),
                    Layout::Distributed => offline::repair::<DistributedTx<'_>>(connection, batch),
                }
                .await
            };
            connection::with_connection(&self.batches, Patience::Usual, repair)
        };
        super::retry("repairing levels", repair).await
    }

    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError> {
        let layout = self.layout().await?;
        let restore = || {
            let restore = async |connection: &mut PgConnection| {
                self.check_epoch(batch)?;
                match layout {
                    Layout::Plain => offline::restore::<PostgresTx<'_>>(connection, batch, sequences),
                    Layout::Distributed => {
                        offline::restore::<DistributedTx<'_>>(connection, batch, sequences)
                    }
                }
                .await
            };
            connection::with_connection(&self.batches, Patience::Usual, restore)
        };
        super::retry("restoring a batch", restore).await
    }

    fn set_password(&self, password: &SecretString) {
        // One address for all pools.
        self.pool.servers().set_password(password);
        for pool in [&self.pool, &self.batches, &self.readers] {
            pool.connect_anew();
        }
    }

    async fn close(&self) {
        let all = async {
            self.batches.close().await;
            self.readers.close().await;
            self.pool.close().await;
        };
        // A connection in use is waited for, and one to a server that vanished would be for long.
        if tokio::time::timeout(CLOSE_LIMIT, all).await.is_err() {
            tracing::debug!("not all connections were closed within {CLOSE_LIMIT:?}");
        }
    }
}

#[async_trait]
impl LedgerExaminer for PostgresStore {
    async fn examine(&self, limit: Duration) -> Examination {
        examine::examine(self, limit).await
    }

    async fn followers(&self) -> Result<Followers, StoreError> {
        let layout = self.layout().await?;
        self.with(async |connection| followers::read(connection, layout).await).await
    }
}

#[async_trait]
impl WorkQueue for PostgresStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let layout = self.layout().await?;
        let taken = self
            .with(async |connection| match layout {
                Layout::Plain => orders::take_due_holds(connection, limit, lease).await,
                Layout::Distributed => distributed::take_due_holds(connection, limit, lease).await,
            })
            .await;
        self.settle_after(layout, &taken).await;
        taken
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        self.with(async |connection| orders::overdue_holds(connection, by).await).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        let layout = self.layout().await?;
        self.with(async |connection| match layout {
            Layout::Plain => orders::take_unannounced(connection, limit).await,
            Layout::Distributed => distributed::take_unannounced(connection, limit).await,
        })
        .await
    }
}

/// Whether a migration waited for a lock in vain.
fn is_lock_timeout(error: &MigrateError) -> bool {
    matches!(error, MigrateError::Execute(sqlx::Error::Database(database))
                    | MigrateError::ExecuteMigration(sqlx::Error::Database(database), _)
        if database.code().as_deref() == Some(peers::LOCK_NOT_AVAILABLE))
}

/// The migrations this program was built with.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

fn read_levels(found: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<ItemLevel>, StoreError> {
    let found = found.map_err(failed("reading the levels"))?;
    found.iter().map(|row| rows::level(row).map(|(item, level)| ItemLevel { item, level })).collect()
}
