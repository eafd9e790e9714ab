//! Contestant 1: the program itself, as it is installed.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stock_verifier::config::{GroupArgs, TopicArgs};

use super::Run;
use crate::Bench;
use crate::database::Tables;
use crate::kafka::Kafka;
use crate::shapes::Shape;
use crate::usage::{self, Usage};
use crate::viewers::Viewers;

/// Longest wait for a stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running `stock-verifier run`. Killed when dropped.
pub struct Verifier {
    child: Child,
    log: tempfile::NamedTempFile,
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
        let log = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_stock-verifier"));
        command
            .args(["run", "--brokers", &bench.kafka.args().brokers])
            .args(["--orders-topic", &names.orders_topic])
            .args(["--adjustments-topic", &names.adjustments_topic])
            .args(["--accepted-topic", &names.accepted_topic])
            .args(["--rejected-topic", &names.rejected_topic])
            .args(["--levels-topic", &names.levels_topic])
            .args(["--dead-letter-topic", &names.dead_letter_topic])
            .args(["--group", &group.group, "--instance-id", group.instance()])
            .args(&bench.args.verifier_arg)
            .args(more)
            .env("STOCK_VERIFIER_DATABASE_URL", database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen()?);
        if let Some(batch) = bench.args.batch {
            command.args(["--batch-max-orders", &batch.to_string()]);
        }
        if bench.args.viewers > 0 {
            command.args(["--http-listen", "127.0.0.1:0"]);
        } else if bench.args.verifier_log {
            command.stderr(Stdio::inherit());
        }
        let child = command.spawn().context("cannot start the verifier")?;
        let mut verifier = Self { child, log, viewers: None };
        if bench.args.viewers > 0 {
            verifier.viewers = Some(Viewers::of(&verifier.address()?, bench.args.viewers)?);
        }
        Ok(verifier)
    }

    /// Where its page is, by its log.
    fn address(&mut self) -> Result<String> {
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            let log = std::fs::read_to_string(self.log.path())?;
            let said = log.lines().find_map(|line| line.split_once("metrics at http://"));
            // The end of the log may come in the middle of a line.
            if let Some((_, address)) = said.filter(|_| log.ends_with('\n')) {
                return Ok(address.trim().to_owned());
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("the verifier does not listen within {STOP_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the log's end if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let mut text = String::new();
                File::open(self.log.path())?.read_to_string(&mut text)?;
                let lines: Vec<_> = text.lines().collect();
                bail!(
                    "the verifier ended ({status}):\n{}",
                    lines[lines.len().saturating_sub(20)..].join("\n")
                )
            }
        }
    }

    /// Stops it in good order.
    pub fn stop(mut self) -> Result<()> {
        if let Some(viewers) = self.viewers.take() {
            viewers.have_seen_something()?;
        }
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the verifier did not stop in {STOP_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        // It has ended already, or shall now: an error says only the former.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// Starts a verifier on a waiting backlog and measures until all its results can be read.
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
    let mut verifier = Verifier::start(bench, database_url, &names, &group)?;
    let progress = bench.kafka.await_published(&names, &group.group, orders, start, || verifier.check())?;
    let after = bench.used();
    let peak = usage::peak_memory_mib(verifier.pid()).unwrap_or(f64::NAN);
    let threads = usage::threads(verifier.pid());
    verifier.stop()?;

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
