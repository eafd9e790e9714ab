//! The benchmark's arguments.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::contestants::Contestant;
use crate::shapes::{Ids, Shape};

/// What prechecks are answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadSource {
    /// Nobody asks.
    Nobody,
    /// They are asked of a server in this process, which answers at once and knows nothing: what asking alone costs here.
    Elsewhere,
    Primary,
    Replica,
    LevelsTopic,
}

impl fmt::Display for ReadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nobody => "nobody",
            Self::Elsewhere => "elsewhere",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::LevelsTopic => "levels-topic",
        })
    }
}

/// Runs the verifier next to what people would use instead.
#[derive(Debug, Clone, Parser)]
#[allow(clippy::struct_excessive_bools)] // Flags are what they are.
#[command(name = "pipeline")]
pub struct Args {
    /// Shapes of orders; by default those that every contestant can run
    #[arg(long, value_delimiter = ',', default_values_t = Shape::OF_ALL, value_enum)]
    pub shapes: Vec<Shape>,

    /// Who runs; by default all
    #[arg(long, value_delimiter = ',', default_values_t = Contestant::value_variants().to_vec(), value_enum)]
    pub contestants: Vec<Contestant>,

    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,

    /// Orders of one measurement
    #[arg(long, default_value_t = 300_000)]
    pub orders: usize,

    /// Orders of a batch; the verifier's default when not given
    #[arg(long)]
    pub batch: Option<usize>,

    /// What order ids look like
    #[arg(long, value_enum, default_value_t = Ids::Counting)]
    pub ids: Ids,

    /// An argument for `stock-verifier run`; may be given many times
    #[arg(long, allow_hyphen_values = true)]
    pub verifier_arg: Vec<String>,

    /// So many instances of the verifier, each a process, in one group
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=6))]
    pub instances: u8,

    /// So many look at the verifier's live page meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub viewers: usize,

    /// Show the verifier's log; with `RUST_LOG=stock_verifier=debug` it has the times of every batch
    #[arg(long)]
    pub verifier_log: bool,

    /// Where the measurements go
    #[arg(long, default_value = "target/bench/pipeline.json")]
    pub json: PathBuf,

    /// Where the chart goes
    #[arg(long, default_value = "target/bench/pipeline.svg")]
    pub svg: PathBuf,

    /// One short round, to see that everything works
    #[arg(long)]
    pub quick: bool,

    /// Count every measurement, however noisy the machine: for work on the benchmark itself
    #[arg(long)]
    pub count_noisy: bool,

    /// Instead: latency from produced to readable, at 500 orders a second and at half the top speed
    #[arg(long)]
    pub latency: bool,

    /// With --latency: these orders a second, instead of 500 and half the top speed
    #[arg(long, value_delimiter = ',', requires = "latency")]
    pub rates: Vec<f64>,

    /// Instead: what reads cost deciding: latency while prechecks are answered from the primary, from a replica, and from
    /// the levels in memory, next to none
    #[arg(long)]
    pub reads: bool,

    /// With --reads: so many prechecks a second
    #[arg(long, value_name = "N", default_value_t = 5_000, requires = "reads")]
    pub read_rate: u32,

    /// With --reads: only these sources
    #[arg(long, value_delimiter = ',', default_values_t = ReadSource::value_variants().to_vec(), value_enum, requires = "reads")]
    pub read_sources: Vec<ReadSource>,

    /// With --reads: so many orders a second
    #[arg(long, value_name = "N", default_value_t = 20_000.0, requires = "reads")]
    pub order_rate: f64,

    /// Instead: what a distributed ledger costs, with 1, 8 and 32 shards on the cluster that `CITUS_URL` names, next to a plain
    /// one on its coordinator
    #[arg(long)]
    pub citus: bool,

    /// Instead: what a gate answers in a second, next to its own script called straight from a Redis client; --rounds of it, 3
    /// at most
    #[arg(long)]
    pub gate: bool,

    /// Instead: a flash sale before a gate, without crashes and with them
    #[arg(long)]
    pub sale: bool,

    /// With --gate or --sale: so many connections that ask
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,

    /// Instead: a backlog of so many orders: memory, and the time until the first result
    #[arg(long, value_name = "ORDERS")]
    pub backlog: Option<usize>,

    /// Instead: shape z on ledgers that hold up to so many orders
    #[arg(long, value_name = "ORDERS")]
    pub history: Option<usize>,

    /// Instead: an import of so many levels beside a verifier at its top speed: how long it takes, and what it costs the
    /// verifier. The backlog (--orders) must outlast it
    #[arg(long, value_name = "ROWS")]
    pub import: Option<usize>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// With what `--quick` means.
    pub fn settled(mut self) -> Self {
        if self.quick {
            self.rounds = 1;
            self.orders = self.orders.min(60_000);
        }
        self
    }

    /// Seconds of one measurement of pgbench.
    pub fn sql_seconds(&self) -> u64 {
        if self.quick { 2 } else { 6 }
    }

    /// Seconds of one measurement of latency.
    pub fn latency_seconds(&self) -> u64 {
        if self.quick { 5 } else { 30 }
    }

    /// Seconds of one measurement of a gate.
    pub fn gate_seconds(&self) -> u64 {
        if self.quick { 3 } else { 8 }
    }

    /// Seconds of one try that looks for the best number of clients.
    pub fn try_seconds(&self) -> u64 {
        if self.quick { 1 } else { 3 }
    }
}
