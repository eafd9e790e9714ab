//! What a verifier does now, for people who look at it: bounded, and next to free while nobody looks.
//!
//! `observe` notes here what passes by ([`Recorder`]), `http` shows it ([`Watched`]); so neither knows the other. All of
//! it is of one process.

mod hot;
mod recorder;

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::{CommandKind, Decision, Item, Source, TopicPartition};

pub use recorder::Recorder;

/// What can be looked at: a process at work.
pub trait Watched: Send + Sync + 'static {
    /// Somebody begins to look, or nobody does any more. What would cost deciding is noted only in between.
    fn set_watched(&self, is_watched: bool);

    /// How much was done so far. Costs next to nothing.
    fn counts(&self) -> Counts;

    /// All there is to see. Its times are of what was done since the glance before.
    fn glance(&self) -> Glance;
}

/// How much a process did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Orders decided.
    pub orders: u64,
    /// Of these, orders rejected.
    pub rejected_orders: u64,
}

/// What became of records since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Accept events published.
    pub accepted: u64,
    /// Reject events published.
    pub rejected: u64,
    /// Results republished from the ledger.
    pub republished: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Repetitions absorbed.
    pub absorbed: u64,
    /// Records that their mapping gave nothing for.
    pub ignored: u64,
}

/// All there is to see of a process.
#[derive(Debug, Default)]
pub struct Glance {
    /// What became of records since the process started.
    pub ends: Ends,
    /// Decisions since then, by what they are about and how they ended, most first.
    pub decisions: Vec<DecisionCount>,
    /// Time through the stages, since the glance before.
    pub stages: Stages,
    /// The items that most is asked for, most first; empty until it was watched for a moment.
    pub hot: Vec<HotItem>,
    /// The latest rejections, newest first.
    pub rejections: Vec<Arc<Decision>>,
    /// The latest dead letters, newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// How far each partition of this process is behind, sorted.
    pub lags: Vec<PartitionLag>,
}

/// How many decisions of a kind ended alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionCount {
    /// What they are about.
    pub kind: CommandKind,
    /// Why they were rejected, by the first reason; `None` where they were accepted.
    pub reason: Option<&'static str>,
    /// How many.
    pub count: u64,
}

/// Time through the stages.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stages {
    /// Batches that were applied to the database, and how long that took all together.
    pub applied: (u64, Duration),
    /// Transactions that published results, and how long they took all together.
    pub published: (u64, Duration),
    /// From produced to published.
    pub latency: Latency,
}

/// From the record's timestamp until its result was published. Clocks of producer and verifier compare only where they
/// are in step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// Records that it is of.
    pub records: u64,
    /// Their mean.
    pub mean: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 95 of 100 took no longer.
    pub p95: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
}

/// An item that much is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct HotItem {
    /// Which.
    pub item: Item,
    /// Pieces that orders ask for in a second, whether they get them or not. An estimate: of the last half minute, more
    /// of its end, and never too low but for what sampling misses.
    pub wanted_per_second: f64,
}

/// A dead letter that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record it is of.
    pub source: Source,
    /// The class of its fault.
    pub error: &'static str,
    /// What is wrong with it.
    pub detail: String,
    /// When it was published: milliseconds since 1970, by this machine's clock.
    pub at_ms: i64,
}

/// How far a partition is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionLag {
    /// Which.
    pub at: TopicPartition,
    /// Records whose result is not published yet.
    pub records: i64,
    /// The age of the oldest of them, in seconds.
    pub seconds: f64,
}
