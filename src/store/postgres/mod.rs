//! The ledger in PostgreSQL.
//!
//! # Round trips of one batch, whatever its size
//!
//! | # | statement | why |
//! |---|---|---|
//! | 1 | look up the orders that commands follow | to know which levels to lock |
//! | – | look up the items that are received or set | whether one begins here; only with such commands |
//! | 2 | `BEGIN`, and pass the gate | so that an order and its cancellation never miss each other; see `apply.rs` |
//! | 3 | lock and read the levels, in item order | one order for all, so no two batches deadlock |
//! | 4 | lock and read the positions | the batch's place in its partitions |
//! | 5 | read decisions by command id; draw the batch's places in the ledger's order | after the locks: sees all that any earlier holder of them wrote. Of ids taken for new only cancellations |
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
//! Two batches that share an item
//! run one after the other from step 3 on. Two that share only a command id
//! (the same id on two partitions, with other SKUs) meet at the primary key
//! of `decisions` in step 12: the later one fails, is tried again, and then
//! reads the earlier one's decision in step 5. So does a batch whose ids were
//! taken for new and are not: they are when nothing says otherwise (records
//! below the positions, commands that follow orders, a known id in one of the last
//! `WARY_BATCHES` batches), since looking for ten thousand ids that are not
//! there was a twentieth of a batch's time.

mod apply;
mod audit;
mod copy;
mod levels;
mod orders;
mod positions;
mod read;
mod rows;

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Connection};

use apply::Ids;

use super::{Applied, Audit, Batch, DueHold, How, ItemLevel, Position, Snapshot, Store, StoreError, version};
use crate::ledger::{Item, Place, Sku, TopicPartition};

/// Longest a statement may run: a batch takes milliseconds, so past this the server is in trouble and a retry is due.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a lock: another batch holds its SKUs for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest a transaction of ours may sit idle, should this process hang: its locks block every other instance.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a free or new connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches in which command ids are looked up before they are taken for new again, once one was not: a batch refused
/// for that is done twice, so where producers repeat themselves all the time it costs a hundredth.
const WARY_BATCHES: usize = 100;

/// A ledger in PostgreSQL, 15 or newer.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// The connections that apply batches. By themselves, so that one opened anew is noticed, and none is for its age.
    batches: PgPool,
    /// How often one of those was opened.
    opened: Arc<AtomicU64>,
    /// Batches left of [`WARY_BATCHES`].
    wary: Arc<AtomicUsize>,
}

impl PostgresStore {
    /// Connects with at most `connections` at once.
    ///
    /// Time-outs are the server's own, never a dropped future, which could leave a pooled connection in
    /// the middle of an answer (sqlx#4385).
    ///
    /// # Errors
    /// When the URL is wrong, the server cannot be reached, or it refuses the user.
    pub async fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| failed("reading the database URL")(error))?
            .application_name("stock-verifier")
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT.as_millis().to_string()),
                ("lock_timeout", LOCK_TIMEOUT.as_millis().to_string()),
                ("idle_in_transaction_session_timeout", IDLE_TIMEOUT.as_millis().to_string()),
                // A batch's items are joined with their levels by both columns of the key. The planner, who thinks
                // the columns independent, expects few and would hash all levels there are: 70 ms instead of 21 for
                // 5,800 items of 100,000.
                ("enable_hashjoin", "off".to_owned()),
            ])
            .disable_statement_logging();
        // The pool would try a refused connection until it times out, and then not say why.
        sqlx::PgConnection::connect_with(&options)
            .await
            .map_err(failed("connecting to PostgreSQL"))?
            .close()
            .await
            .map_err(failed("connecting to PostgreSQL"))?;
        let pool = || {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // A broken connection is found by the batch that meets it, which is then tried on a new one.
                .test_before_acquire(false)
        };
        let opened = Arc::new(AtomicU64::new(0));
        let batches = pool().idle_timeout(None).max_lifetime(None).after_connect({
            let opened = Arc::clone(&opened);
            move |_, _| {
                opened.fetch_add(1, Ordering::SeqCst);
                Box::pin(async { Ok(()) })
            }
        });
        Ok(Self {
            batches: batches.connect_lazy_with(options.clone()),
            pool: pool().connect_lazy_with(options),
            opened,
            wary: Arc::default(),
        })
    }

    /// Applies a batch as if all its ids were new, which nearly always they are, or with a look at each.
    async fn attempt(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let wary = self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if wary.is_err() {
            match apply::attempt(self, batch, How::Usually, Ids::New).await {
                Err(error) if apply::met_known_id(&error) => {
                    tracing::debug!("a command id was decided before; ids are looked up for a while");
                    self.wary.store(WARY_BATCHES, Ordering::Relaxed);
                }
                applied => return applied,
            }
        }
        apply::attempt(self, batch, How::Usually, Ids::Any).await
    }

    async fn newest_migration(&self) -> Result<Option<i64>, StoreError> {
        let doing = failed("reading the ledger's version");
        let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(&doing)?;
        if !exists {
            return Ok(None);
        }
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(&self.pool)
            .await
            .map_err(&doing)
    }
}

/// Turns a driver's error into the store's, with what was being done.
fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        let retry = is_transient(&source);
        StoreError::Database { doing, source, retry }
    }
}

/// The key that holds each command id to one decision.
const DECISIONS_KEY: &str = "decisions_pkey";

/// Whether it was this constraint that refused. Citus adds a shard's number to the name.
fn broke(error: &dyn DatabaseError, constraint: &str) -> bool {
    error.constraint().is_some_and(|name| name.starts_with(constraint))
}

/// The one place that says which errors may pass when the same is done again.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed
        // A connection cut in the middle of an answer.
        | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // Serialisation failure, deadlock, lock not available, statement cancelled by its time-out.
            Some("40001" | "40P01" | "55P03" | "57014"
            // Server shutting down, crashed, starting up; too many connections; idle in transaction; read-only after
            // a failover.
            | "57P01" | "57P02" | "57P03" | "53300" | "25P03" | "25006") => true,
            // Another instance decided one of the batch's command ids, or stated the first level of one of its SKUs,
            // meanwhile: it will be read next time.
            Some("23505") => broke(&**database, DECISIONS_KEY) || broke(&**database, "levels_pkey"),
            Some(code) => code.starts_with("08"),
            None => false,
        },
        _ => false,
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        version::check_not_newer(&MIGRATIONS, self.newest_migration().await?)?;
        MIGRATIONS.run(&self.pool).await.map_err(|error| failed("migrating the database")(error.into()))
    }

    async fn check(&self) -> Result<(), StoreError> {
        version::check(&MIGRATIONS, self.newest_migration().await?)?;
        let durability: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("checking the database"))?;
        if durability == "off" { Err(StoreError::NotDurable) } else { Ok(()) }
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let (topics, partitions) = rows::partition_columns(of.iter());
        sqlx::query(
            "SELECT topic, partition, next_offset, published_offset, topic_id FROM positions
             JOIN UNNEST($1::text[], $2::int[]) AS wanted (topic, partition) USING (topic, partition)",
        )
        .bind(topics)
        .bind(partitions)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("reading the positions"))?
        .iter()
        .map(|row| rows::full_position(row).map_err(failed("reading the positions")))
        .collect()
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        sqlx::query("SELECT topic, partition, next_offset, published_offset, topic_id FROM positions")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("reading the positions"))?
            .iter()
            .map(|row| rows::full_position(row).map_err(failed("reading the positions")))
            .collect()
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        positions::set(&self.pool, at, was, now).await
    }

    async fn claim_group(&self, group: &str, take_over: bool) -> Result<(), StoreError> {
        let owner: String = sqlx::query_scalar(
            "INSERT INTO ledger_group (name) VALUES ($1)
             ON CONFLICT (only_one)
                 DO UPDATE SET name = CASE WHEN $2 THEN excluded.name ELSE ledger_group.name END
             RETURNING name",
        )
        .bind(group)
        .bind(take_over)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("claiming the ledger"))?;
        if owner == group { Ok(()) } else { Err(StoreError::OtherGroup { owner }) }
    }

    async fn group(&self) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT name FROM ledger_group")
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("reading whose ledger it is"))
    }

    fn connection_epoch(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        super::retry("applying a batch", || self.attempt(batch)).await
    }

    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let wanted: Option<Vec<&str>> = of.map(|skus| skus.iter().map(Sku::as_str).collect());
        let found = sqlx::query(
            "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
             WHERE $1::text[] IS NULL OR sku = ANY($1) ORDER BY sku, location",
        )
        .bind(wanted)
        .fetch_all(&self.pool)
        .await;
        read_levels(found)
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let items: BTreeSet<&Item> = items.iter().collect();
        let (skus, locations) = rows::item_columns(items.into_iter());
        let found = sqlx::query(
            "SELECT sku, location, available, version, backorder_limit, order_limit
             FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location) JOIN levels USING (sku, location)",
        )
        .bind(skus)
        .bind(locations)
        .fetch_all(&self.pool)
        .await;
        read_levels(found)
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed("connecting to PostgreSQL"))?;
        read::levels_after(&mut connection, after, limit).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        orders::take_unannounced(&self.pool, limit).await
    }

    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        orders::take_due_holds(&self.pool, limit, lease).await
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed("connecting to PostgreSQL"))?;
        let audit = audit::audit(&mut connection).await;
        if audit.is_err() {
            connection.close_on_drop();
        }
        audit
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(read::PostgresSnapshot::begin(&self.pool).await?))
    }

    async fn restore(&self, batch: &Batch, places: &[Place]) -> Result<Applied, StoreError> {
        super::retry("restoring a batch", || apply::attempt(self, batch, How::At(places), Ids::Any)).await
    }

    async fn mendable_levels(&self) -> Result<Vec<ItemLevel>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed("connecting to PostgreSQL"))?;
        let found = audit::mendable_levels(&mut connection).await;
        if found.is_err() {
            connection.close_on_drop();
        }
        found
    }

    async fn mend(&self, batch: &Batch) -> Result<Applied, StoreError> {
        super::retry("mending levels", || apply::attempt(self, batch, How::Mending, Ids::Any)).await
    }

    async fn close(&self) {
        self.batches.close().await;
        self.pool.close().await;
    }
}

/// The migrations this program was built with.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

fn read_levels(found: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<ItemLevel>, StoreError> {
    let found = found.map_err(failed("reading the levels"))?;
    found.iter().map(|row| rows::level(row).map(|(item, level)| ItemLevel { item, level })).collect()
}
