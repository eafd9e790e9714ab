//! How fast the verifier is, next to what people would use instead, in the same run on the same machine.
//!
//! ```text
//! cargo bench --bench pipeline -- [--shapes h,u,z,c,r] [--contestants …] [--rounds N] [--orders N] [--quick]
//! cargo bench --bench pipeline -- --latency | --reads | --citus | --gate | --sale | --backlog 1000000 | --history 20000000
//! ```
//!
//! Starts Kafka, PostgreSQL and Redis by `tests/services`, or uses those that
//! `KAFKA_BROKERS`, `DATABASE_URL` and `REDIS_URL` name. Contestants take
//! turns, round after round. Before each measurement a probe looks at the
//! disk and the processors: one that fell into a noisy moment is shown and
//! not counted.

// The parts are public to the benchmark only; nothing outside can reach them.
#![allow(unreachable_pub, missing_docs)]

mod args;
mod chart;
mod contestants;
mod database;
mod kafka;
mod modes;
mod probe;
mod process;
mod report;
mod services;
mod shapes;
mod standby;
mod usage;
mod viewers;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use stock_verifier::config::DEFAULT_BATCH_MAX_ORDERS;
use tokio::runtime::Runtime;

use args::Args;
use contestants::copy_floor::Captured;
use contestants::{Contestant, Run};
use database::{Databases, Scratch, Tables};
use kafka::Kafka;
use report::{Measurement, Report, save};
use services::Services;
use shapes::{Order, Shape};
use usage::Usage;

/// Exit status after Ctrl-C: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// What was found to be best for a contestant, so that it is searched for once.
#[derive(Default)]
struct Best {
    clients: HashMap<Shape, usize>,
    procedure_batch: HashMap<Shape, usize>,
    connections: HashMap<(Shape, bool), usize>,
}

/// What the contestants share.
struct Bench {
    args: Args,
    services: Services,
    kafka: Kafka,
    databases: Databases,
    best: Best,
    captured: Captured,
    orders: HashMap<Shape, Arc<Vec<Order>>>,
    backlogs: HashMap<Shape, String>,
    runtime: Arc<Runtime>,
}

impl Bench {
    /// Runs a future to its end.
    fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn batch(&self) -> usize {
        self.args.batch.unwrap_or(DEFAULT_BATCH_MAX_ORDERS)
    }

    /// The orders of a shape.
    fn orders(&mut self, shape: Shape) -> Arc<Vec<Order>> {
        let (count, ids) = (self.args.orders, self.args.ids);
        let orders =
            self.orders.entry(shape).or_insert_with(|| Arc::new(shapes::orders(shape, count, ids, "")));
        Arc::clone(orders)
    }

    /// The topic that holds the orders of a shape; written once, read by each run with a group of its own.
    fn backlog(&mut self, shape: Shape) -> Result<String> {
        if let Some(topic) = self.backlogs.get(&shape) {
            return Ok(topic.clone());
        }
        let orders = self.orders(shape);
        let topic = self.new_backlog(&orders)?;
        self.backlogs.insert(shape, topic.clone());
        Ok(topic)
    }

    /// A new topic that holds these orders.
    fn new_backlog(&mut self, orders: &[Order]) -> Result<String> {
        let topic = self.kafka.new_name("orders");
        self.block(self.kafka.create(&[&topic]))?;
        self.kafka.produce(&topic, orders)?;
        Ok(topic)
    }

    fn scratch(&mut self, tables: Tables, skus: u64) -> Result<Scratch> {
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(self.databases.scratch(tables, skus))
    }

    fn drop_scratch(&self, scratch: Scratch) -> Result<()> {
        self.block(self.databases.drop_scratch(scratch))
    }

    /// What the servers and this process used of the processors so far.
    fn used(&self) -> Usage {
        usage::usage(&self.services.watched)
    }

    /// Looks at the machine, then measures.
    fn measure(&mut self, contestant: Contestant, shape: Shape, round: usize) -> Result<Measurement> {
        let probe = probe::probe(&self.services.disk)?;
        let run: Run = contestant
            .run(self, shape)
            .with_context(|| format!("{}, shape {}", contestant.name(), shape.letter()))?;
        Ok(Measurement::new(contestant, shape, round, &run, probe))
    }

    fn compare(&mut self) -> Result<()> {
        // The broker's first 100,000s of records cost ten times what they do once its code is compiled.
        if self.args.contestants.iter().any(|one| matches!(one, Contestant::EndToEnd | Contestant::Kafka)) {
            Contestant::Kafka.run(self, self.args.shapes[0]).context("warming the broker up")?;
        }
        let mut report = Report::default();
        for round in 1..=self.args.rounds {
            for shape in self.args.shapes.clone() {
                for contestant in self.args.contestants.clone() {
                    if !contestant.knows(shape) {
                        continue;
                    }
                    let measured = self.measure(contestant, shape, round)?;
                    eprintln!("{measured}");
                    report.add(measured);
                }
            }
            // After each round, so that a run cut short leaves what it had.
            report.judge(self.args.count_noisy);
            report.write(&self.args)?;
            save(&self.args.svg, &chart::draw(&report.medians(), &report.shapes()))?;
        }
        report.print();
        Ok(())
    }

    /// Removes what was made on servers that outlive this run.
    fn clean_up(&mut self) -> Result<()> {
        let topics: Vec<String> = self.backlogs.drain().map(|(_, topic)| topic).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(async {
            if !topics.is_empty() {
                self.kafka.delete(&topics).await?;
            }
            self.databases.close().await
        })
    }
}

fn main() -> Result<()> {
    let args = Args::parse().settled();
    let services = Services::find_or_start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stop = services.stop.clone();
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.now();
            std::process::exit(EXIT_INTERRUPTED);
        }
    });
    let mut bench = Bench {
        kafka: Kafka::new(&services.brokers)?,
        databases: Databases::new(&services.database_url)?,
        best: Best::default(),
        captured: Captured::default(),
        orders: HashMap::new(),
        backlogs: HashMap::new(),
        runtime: Arc::new(runtime),
        services,
        args,
    };
    let done = modes::run(&mut bench).and_then(|ran| if ran { Ok(()) } else { bench.compare() });
    let cleaned = bench.clean_up();
    done.and(cleaned)
}
