//! Who runs: the verifier, what people use instead, and the floors below which nothing can go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

pub mod copy_floor;
pub mod kafka_floor;
pub mod redis;
pub mod sql;
pub mod store;
pub mod verifier;

use crate::Bench;
use crate::shapes::Shape;
use crate::usage::{self, Usage};

/// A contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// 1: this verifier, records in Kafka to results readable
    EndToEnd,
    /// 2: this verifier's store alone, one connection
    Store,
    /// 2: the same, two connections
    Store2,
    /// 3: SQL, one transaction an order, at its best number of clients
    Sql,
    /// 4: a stored procedure that loops over a batch's rows
    Procedure,
    /// 5: Redis with a script, synced each second, one request at a time on each connection
    RedisEverysec,
    /// 5: the same, synced always
    RedisAlways,
    /// 5: Redis with a script, synced each second, requests pipelined
    RedisEverysecPipelined,
    /// 5: the same, synced always
    RedisAlwaysPipelined,
    /// 6: COPY of the rows the ledger writes and nothing else, one connection
    Copy,
    /// 6: the same, two connections
    Copy2,
    /// 7: consume, produce as many bytes, commit transactionally, no database
    Kafka,
}

/// A measurement before it is judged.
#[derive(Debug, Clone)]
pub struct Run {
    /// Orders in `time`.
    pub orders: usize,
    pub time: Duration,
    /// Processor microseconds an order, of each process.
    pub used: Usage,
    /// What else is worth knowing, by name.
    pub notes: BTreeMap<String, f64>,
}

impl Run {
    pub fn new(orders: usize, time: Duration) -> Self {
        Self { orders, time, used: Usage::new(), notes: BTreeMap::new() }
    }

    /// With what was used of the processors between two looks, for so many orders.
    #[allow(clippy::cast_precision_loss)]
    pub fn using(mut self, before: &Usage, after: &Usage, orders: usize) -> Self {
        for (name, seconds) in usage::between(before, after) {
            *self.used.entry(name).or_default() += seconds * 1e6 / orders as f64;
        }
        self
    }

    pub fn note(mut self, name: &str, value: f64) -> Self {
        self.notes.insert(name.to_owned(), value);
        self
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        self.orders as f64 / self.time.as_secs_f64()
    }
}

impl Contestant {
    pub fn name(self) -> &'static str {
        match self {
            Self::EndToEnd => "1 verifier, end to end",
            Self::Store => "2 store alone",
            Self::Store2 => "2 store, two connections",
            Self::Sql => "3 SQL per order (pgbench)",
            Self::Procedure => "4 stored procedure",
            Self::RedisEverysec => "5 Redis everysec",
            Self::RedisAlways => "5 Redis always",
            Self::RedisEverysecPipelined => "5 Redis everysec, pipelined",
            Self::RedisAlwaysPipelined => "5 Redis always, pipelined",
            Self::Copy => "6 floor: COPY",
            Self::Copy2 => "6 floor: COPY, two connections",
            Self::Kafka => "7 floor: Kafka",
        }
    }

    /// Whether it can do what is asked in a shape.
    pub fn knows(self, shape: Shape) -> bool {
        shape != Shape::Mixed
            || matches!(self, Self::EndToEnd | Self::Store | Self::Store2 | Self::Copy | Self::Copy2)
    }

    /// Measures once.
    pub fn run(self, bench: &mut Bench, shape: Shape) -> Result<Run> {
        match self {
            Self::EndToEnd => verifier::run(bench, shape),
            Self::Store => store::run(bench, shape, 1),
            Self::Store2 => store::run(bench, shape, 2),
            Self::Sql => sql::per_order(bench, shape),
            Self::Procedure => sql::procedure(bench, shape),
            Self::RedisEverysec => redis::run(bench, shape, redis::Sync::EverySecond, redis::Way::OneByOne),
            Self::RedisAlways => redis::run(bench, shape, redis::Sync::Always, redis::Way::OneByOne),
            Self::RedisEverysecPipelined => {
                redis::run(bench, shape, redis::Sync::EverySecond, redis::Way::Pipelined)
            }
            Self::RedisAlwaysPipelined => {
                redis::run(bench, shape, redis::Sync::Always, redis::Way::Pipelined)
            }
            Self::Copy => copy_floor::run(bench, shape, 1),
            Self::Copy2 => copy_floor::run(bench, shape, 2),
            Self::Kafka => kafka_floor::run(bench, shape),
        }
    }
}
