//! The program under measurement, as its own process.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stock_verifier::config::TopicArgs;

use crate::Bench;

/// Longest wait for a start, and for a stop.
const LIMIT: Duration = Duration::from_secs(30);
/// Lines of a log that are shown when it ended.
const SHOWN_LINES: usize = 20;

/// A running `stock-verifier`. Killed when dropped.
pub struct Process {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Process {
    /// A command of the program that is told where the topics and the ledger are.
    pub fn command(bench: &Bench, what: &str, database_url: &str, names: &TopicArgs) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stock-verifier"));
        command
            .args([what, "--brokers", &bench.kafka.args().brokers])
            .args(["--orders-topic", &names.orders_topic])
            .args(["--adjustments-topic", &names.adjustments_topic])
            .args(["--accepted-topic", &names.accepted_topic])
            .args(["--rejected-topic", &names.rejected_topic])
            .args(["--levels-topic", &names.levels_topic])
            .args(["--dead-letter-topic", &names.dead_letter_topic])
            .env("STOCK_VERIFIER_DATABASE_URL", database_url);
        command
    }

    /// Starts a command; `is_shown` sends its log to the terminal.
    pub fn start(mut command: Command, is_shown: bool) -> Result<Self> {
        let log = tempfile::NamedTempFile::new()?;
        let errors = if is_shown { Stdio::inherit() } else { log.reopen()?.into() };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().context("cannot start the program")?;
        Ok(Self { child, log })
    }

    /// Where it listens, by its log.
    pub fn address(&mut self) -> Result<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let log = std::fs::read_to_string(self.log.path())?;
            let said = log.lines().find_map(|line| line.split_once("metrics at http://"));
            // The end of the log may come in the middle of a line.
            if let Some((_, address)) = said.filter(|_| log.ends_with('\n')) {
                return Ok(address.trim().to_owned());
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("the program does not listen within {LIMIT:?}");
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
                let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
                bail!("the program ended ({status}):\n{shown}")
            }
        }
    }

    /// Stops it in good order.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the program did not stop in {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL. It has ended already, or shall now: an error says only the former.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
