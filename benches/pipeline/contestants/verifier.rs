//! Contestant 1: the program itself, as it is installed.

use std::time::Instant;

use anyhow::{Result, bail};
use stock_verifier::config::{GroupArgs, TopicArgs};

use super::Run;
use crate::Bench;
use crate::database::Tables;
use crate::kafka::Kafka;
use crate::process::Process;
use crate::shapes::Shape;
use crate::usage::{self, Usage};
use crate::viewers::Viewers;

/// A running `stock-verifier run`. Killed when dropped.
pub struct Verifier {
    process: Process,
    viewers: Option<Viewers>,
}

impl Verifier {
    pub fn start(bench: &Bench, database_url: &str, names: &TopicArgs, group: &GroupArgs) -> Result<Self> {
        Self::start_with(bench, database_url, names, group, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        bench: &Bench,
        database_url: &str,
        names: &TopicArgs,
        group: &GroupArgs,
        more: &[String],
    ) -> Result<Self> {
        let mut command = Process::command(bench, "run", database_url, names);
        command
            .args(["--group", &group.group, "--instance-id", group.instance()])
            .args(&bench.args.verifier_arg)
            .args(more);
        if let Some(batch) = bench.args.batch {
            command.args(["--batch-max-orders", &batch.to_string()]);
        }
        let is_viewed = bench.args.viewers > 0;
        if is_viewed {
            command.args(["--http-listen", "127.0.0.1:0"]);
        }
        let mut process = Process::start(command, bench.args.verifier_log && !is_viewed)?;
        let viewers = match bench.args.viewers {
            0 => None,
            count => Some(Viewers::of(&process.address()?, count)?),
        };
        Ok(Self { process, viewers })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// An error with the log's end if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Stops it in good order.
    pub fn stop(self) -> Result<()> {
        if let Some(viewers) = self.viewers {
            viewers.have_seen_something()?;
        }
        self.process.stop()
    }
}

pub fn run(bench: &mut Bench, shape: Shape) -> Result<Run> {
    let orders = bench.args.orders;
    let backlog = bench.backlog(shape)?;
    let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
    let run = drain(bench, &scratch.url, &backlog, orders, shape.rejected(orders))?;
    bench.drop_scratch(scratch)?;
    Ok(run)
}

/// Starts the instances of the group, each with an id of its own.
fn start_all(
    bench: &Bench,
    database_url: &str,
    names: &TopicArgs,
    group: &GroupArgs,
) -> Result<Vec<Verifier>> {
    let start = |number: u8| {
        let instance_id = Some(format!("{}-{number}", group.instance()));
        Verifier::start(bench, database_url, names, &GroupArgs { instance_id, ..group.clone() })
    };
    (1..=bench.args.instances).map(start).collect()
}

/// Starts the verifier on a waiting backlog and measures until all its results can be read.
pub fn drain(
    bench: &mut Bench,
    database_url: &str,
    backlog: &str,
    orders: usize,
    rejected: usize,
) -> Result<Run> {
    let name = bench.kafka.new_name("verifier");
    let (names, group) = (Kafka::topics(backlog, &name), Kafka::group(&name));
    let results = [&*names.accepted_topic, &names.rejected_topic, &names.dead_letter_topic];
    bench.block(bench.kafka.create(&results))?;
    let others = [&*names.adjustments_topic, &names.levels_topic];
    bench.block(bench.kafka.create(&others))?;

    let before = bench.used();
    let start = Instant::now();
    let mut verifiers = start_all(bench, database_url, &names, &group)?;
    let progress = bench.kafka.await_published(&names, &group.group, orders, start, || {
        verifiers.iter_mut().try_for_each(Verifier::check)
    })?;
    let after = bench.used();
    let peaks = verifiers.iter().map(|verifier| usage::peak_memory_mib(verifier.pid()).unwrap_or(f64::NAN));
    let peak = peaks.fold(0.0, f64::max);
    let mut threads = Usage::new();
    for verifier in &verifiers {
        for (name, seconds) in usage::threads(verifier.pid()) {
            *threads.entry(name).or_default() += seconds;
        }
    }
    verifiers.into_iter().try_for_each(Verifier::stop)?;

    // A fast wrong answer is no answer.
    let published =
        [bench.kafka.count(results[0])?, bench.kafka.count(results[1])?, bench.kafka.count(results[2])?];
    if published != [orders - rejected, rejected, 0] {
        bail!(
            "of {orders} orders, {rejected} of them too large, {published:?} were accepted, rejected, dead letters"
        );
    }
    bench.block(bench.kafka.delete(&results))?;
    bench.block(bench.kafka.delete(&others))?;
    let mut run = Run::new(progress.orders, progress.time)
        .note("start-up s", progress.start_up.as_secs_f64())
        .note("total s", progress.total.as_secs_f64())
        .note("peak MiB", peak);
    run = run.using(&before, &after, orders);
    let threads =
        threads.into_iter().map(|(name, seconds)| (format!("verifier's {name}"), seconds)).collect();
    Ok(run.using(&Usage::new(), &threads, orders))
}
