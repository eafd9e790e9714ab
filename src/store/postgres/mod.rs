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
//! | 8 | write levels and positions | one statement; the rows of 11 to 14 are made meanwhile |
//! | 9, 10 | write levels whose limits changed; `COPY` those of new items | |
//! | 11, 12 | `COPY` the decisions | two trips each: open, then send and end |
//! | 13, 14 | `COPY` the movements | |
//! | 15 to 17 | write what orders gave back; their holds; holds that ended | |
//! | 18 | note which levels an operator's commands changed | by `COPY` those of new items, as an import has many |
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
mod admin;
mod audit;
mod connection;
mod copy;
mod distributed;
mod examine;
mod failure;
mod followers;
mod gate;
mod history;
mod levels;
mod line_breach;
mod orders;
mod peers;
mod plaintext;
mod positions;
mod programs;
pub mod queries;
mod read;
mod reader;
mod replicas;
mod rows;
mod servers;
mod session;
mod settings;
mod tx;
mod work_queue;
mod writer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;

use address::Address;
use connection::{AnswerLimit, Pool};
use distributed::Layout;
pub use replicas::{Answered, Replicas};
use servers::Servers;
use session::ACQUIRE_TIMEOUT;

use super::{CommandBatch, LedgerWriter as _, StoreError};

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
    /// Batches left in which ids are looked up before they are taken for new again.
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
        if layout == Layout::Distributed && result.as_ref().is_err_and(failure::waited_in_vain) {
            distributed::settle(&self.batches.session()).await;
        }
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
        connection::with_connection(&self.pool, AnswerLimit::Usual, talk).await
    }

    /// The same for what is asked for by key.
    async fn read<T>(
        &self,
        talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        connection::with_connection(&self.readers, AnswerLimit::Usual, talk).await
    }

    /// The same for what takes as long as it takes.
    async fn at_leisure<T>(
        &self,
        talk: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        connection::with_connection(&self.pool, AnswerLimit::Endless, talk).await
    }
}

/// Warns of something, unless it was said before: a ledger that cannot be written yet is opened again every second.
fn warn_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned()) {
        tracing::warn!("{text}");
    }
}
