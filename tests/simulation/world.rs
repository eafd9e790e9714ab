//! What outlives a process in the simulation: Kafka's topics and group, and the database. And where a process is killed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stock_verifier::event::Record;
use stock_verifier::ledger::{NextOffset, Offset, Source, Stamp, TopicId, TopicPartition};
use stock_verifier::store::memory::MemoryStore;
use tokio::sync::Notify;

/// The topic of commands.
pub const ORDERS: &str = "orders";
/// The longest that something takes in the simulation.
const LONGEST: u64 = 5;

/// A partition of the orders.
pub fn partition(number: usize) -> TopicPartition {
    TopicPartition::new(ORDERS, i32::try_from(number).expect("few partitions"))
}

/// What may go wrong, each with how likely it is at each moment where it can.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A transaction is aborted.
    pub aborted: f64,
    /// A transaction is committed, and its producer does not learn it.
    pub unknown: f64,
    /// The group takes a partition and gives it back.
    pub moved: f64,
    /// The same, but the group did not wait: the member was silent for too long.
    pub lost: f64,
    /// The database's connection breaks before a batch is applied.
    pub disconnected: f64,
    /// The same after its commit, which the process does not learn.
    pub unanswered: f64,
    /// Kafka cannot say what was committed of a partition.
    pub unsaid: f64,
    /// The record of a partition that came last comes once more before the next.
    pub again: f64,
}

/// Kafka and the database, and the process's fate.
pub struct Inner {
    pub random: StdRng,
    pub faults: Faults,
    /// The records of each partition.
    pub log: Vec<Vec<Record>>,
    pub committed: HashMap<TopicPartition, NextOffset>,
    /// What `read_committed` readers see of the results, in order.
    pub published: Vec<Vec<u8>>,
    /// The member that owns the partitions, as Kafka counts them.
    pub member: u64,
    /// How many partitions the broker knows that is asked; `None` where it knows all.
    pub described: Option<i32>,
    /// How many transactions are refused next, as by a broker that has just started.
    pub refusals: usize,
    /// The database is away.
    pub away: bool,
    /// The commands that the ledger decided.
    pub decided: BTreeSet<String>,
    /// The steps made by this process.
    pub steps: u64,
    /// The step at which it is killed.
    pub kill_at: Option<u64>,
    /// The step at which it is told to stop.
    pub stop_at: Option<u64>,
    /// What went wrong, in words: for checks that a run was not empty.
    pub events: Vec<&'static str>,
}

impl Inner {
    /// Whether something goes wrong now.
    pub fn happens(&mut self, what: &'static str, likely: impl Fn(&Faults) -> f64) -> bool {
        let likely = likely(&self.faults);
        let happens = likely > 0.0 && self.random.random_bool(likely);
        if happens {
            self.events.push(what);
        }
        happens
    }
}

/// Appends an order to a partition.
fn produce(log: &mut [Vec<Record>], at: usize, order: &str) {
    let offset = Offset(i64::try_from(log[at].len()).expect("a small number"));
    log[at].push(Record {
        source: Source { at: partition(at), offset },
        key: None,
        value: Some(order.to_owned().into_bytes()),
        headers: Vec::new(),
        timestamp_ms: None,
        decoded: None,
    });
}

/// A handle on it.
#[derive(Clone)]
pub struct World {
    /// The database, as the process that runs is connected to it.
    pub database: MemoryStore,
    inner: Arc<Mutex<Inner>>,
    killed: Arc<Notify>,
    stopped: Arc<Notify>,
}

impl World {
    /// With this stock and these orders, spread over so many partitions.
    pub fn new(seed: u64, faults: Faults, orders: &[String], partitions: usize) -> Self {
        let mut log: Vec<Vec<Record>> = vec![Vec::new(); partitions];
        for (number, order) in orders.iter().enumerate() {
            produce(&mut log, number % partitions, order);
        }
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            faults,
            log,
            committed: HashMap::new(),
            published: Vec::new(),
            member: 0,
            described: None,
            refusals: 0,
            away: false,
            decided: BTreeSet::new(),
            steps: 0,
            kill_at: None,
            stop_at: None,
            events: Vec::new(),
        };
        // Nothing here depends on when something was decided.
        let database = MemoryStore::new(|| Stamp(0));
        Self { database, inner: Arc::new(Mutex::new(inner)), killed: Arc::default(), stopped: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is locked")
    }

    /// A moment at which the process waits for the world. It may be its last: then this never ends.
    pub async fn step(&self) {
        let (is_last, takes) = {
            let mut world = self.lock();
            world.steps += 1;
            if world.stop_at == Some(world.steps) {
                self.stopped.notify_one();
            }
            let takes = world.random.random_range(0..=LONGEST);
            (world.kill_at == Some(world.steps), Duration::from_millis(takes))
        };
        if is_last {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(takes).await;
    }

    /// One more order comes.
    pub fn produce(&self, at: usize, order: &str) {
        produce(&mut self.lock().log, at, order);
    }

    /// What a process of its own sees of it: another connection.
    pub fn for_another_process(&self) -> Self {
        Self { database: self.database.connect(), ..self.clone() }
    }

    /// Ends when the process is killed.
    pub async fn killed(&self) {
        self.killed.notified().await;
    }

    /// Ends when the process is told to stop.
    pub async fn stopped(&self) {
        self.stopped.notified().await;
    }

    /// Whether something goes wrong now.
    pub fn happens(&self, what: &'static str, likely: impl Fn(&Faults) -> f64) -> bool {
        self.lock().happens(what, likely)
    }

    /// Whether all records are decided and published.
    pub fn is_done(&self) -> bool {
        let world = self.lock();
        world.log.iter().enumerate().all(|(number, records)| {
            let end = NextOffset(i64::try_from(records.len()).expect("a small number"));
            world.committed.get(&partition(number)) == Some(&end)
        })
    }
}

/// The topic's id.
pub fn topic_id() -> TopicId {
    TopicId::new("first")
}
