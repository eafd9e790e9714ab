//! Everything that a gate needs, at work: a Redis, a ledger, topics, a verifier, and gates.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use secrecy::SecretString;
use stock_verifier::config::TopicArgs;
use stock_verifier::gate::audit;
use stock_verifier::gate::cache::{CacheStatus, RedisCache, RedisSettings};
use stock_verifier::store::LedgerWriter as _;
use stock_verifier::store::postgres::{Connections, PostgresStore};

use super::redis::Redis;
use crate::Bench;
use crate::contestants::verifier::Verifier;
use crate::database::{Scratch, Tables, state_levels};
use crate::kafka::Kafka;
use crate::process::Process;
use crate::usage::Watched;

/// The keys of the gates begin so.
const PREFIX: &str = "bench:";
/// Longest wait for the cache to be filled, and for entries to end when nothing was killed.
pub const REST_LIMIT: Duration = Duration::from_secs(60);
/// A verifier that moved no position for so long has nothing to decide.
const STANDS: Duration = Duration::from_secs(1);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// All of it ends when it is dropped; [`Stage::end`] also removes what servers keep.
pub struct Stage {
    pub redis: Redis,
    pub cache: RedisCache,
    pub store: PostgresStore,
    pub names: TopicArgs,
    pub scratch: Scratch,
    verifier: Verifier,
    gates: Vec<(SocketAddr, Process)>,
}

impl Stage {
    /// With these levels of the first SKUs, and one gate.
    pub fn start(bench: &mut Bench, levels: &[i64]) -> Result<Self> {
        let redis = Redis::start()?;
        let orders = bench.new_backlog(&[])?;
        let name = bench.kafka.new_name("gate");
        let (names, group) = (Kafka::topics(&orders, &name), Kafka::group(&name));
        bench.block(bench.kafka.create(&topics(&names)[1..]))?;
        let scratch = bench.scratch(Tables::Ledger, levels.len() as u64)?;
        let settings = RedisSettings {
            url: SecretString::from(redis.url()),
            password: None,
            prefix: PREFIX.to_owned(),
            remember: Duration::from_secs(3_600),
        };
        let (store, cache) = bench.block(async {
            let store =
                PostgresStore::open(&scratch.url, Connections { batches: 1, readers: 1, others: 1 }).await?;
            state_levels(&store, "stated", (0..).zip(levels.iter().copied())).await?;
            anyhow::Ok((store, RedisCache::new(&settings)?))
        })?;
        let verifier = Verifier::start(bench, &scratch.url, &names, &group)?;
        let mut stage = Self { redis, cache, store, names, scratch, verifier, gates: Vec::new() };
        stage.add_gate(bench)?;
        stage.wait(bench, "the cache is not filled", |status| status.filled)?;
        Ok(stage)
    }

    /// Starts one more gate.
    pub fn add_gate(&mut self, bench: &Bench) -> Result<()> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut gate = self.gate(bench, port)?;
        gate.address()?;
        self.gates.push((SocketAddr::from(([127, 0, 0, 1], port)), gate));
        Ok(())
    }

    /// Stops the last gate.
    pub fn remove_gate(&mut self) -> Result<()> {
        self.gates.pop().map_or(Ok(()), |(_, gate)| gate.stop())
    }

    fn gate(&self, bench: &Bench, port: u16) -> Result<Process> {
        let mut command = Process::command(bench, "gate", &self.scratch.url, &self.names);
        command
            .args(["--redis-url", &self.redis.url(), "--redis-prefix", PREFIX])
            .args(["--http-listen", &format!("127.0.0.1:{port}")]);
        Process::start(command, false)
    }

    /// Where the gates are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.gates.iter().map(|(address, _)| *address).collect()
    }

    /// SIGKILL for a gate, and a new one in its place.
    pub fn kill_gate(&mut self, bench: &Bench, number: usize) -> Result<()> {
        let (address, killed) = self.gates.remove(number);
        drop(killed);
        let gate = self.gate(bench, address.port())?;
        self.gates.insert(number, (address, gate));
        Ok(())
    }

    /// The processes of the stage and the servers, whose time is counted.
    pub fn watched(&self, bench: &Bench) -> Vec<Watched> {
        let mut watched: Vec<Watched> = bench.services.watched.clone();
        watched.retain(|server| server.name != "redis");
        for server in &mut watched {
            if server.name == "bench" {
                server.name = "load";
            }
        }
        watched.push(Watched { name: "redis", pid: self.redis.pid() });
        watched.push(Watched { name: "verifier", pid: self.verifier.pid() });
        let names = ["gate", "second gate"];
        watched
            .extend(self.gates.iter().zip(names).map(|((_, gate), name)| Watched { name, pid: gate.pid() }));
        watched
    }

    pub fn status(&self, bench: &Bench) -> Result<CacheStatus> {
        Ok(bench.block(self.cache.status())?)
    }

    /// Waits until the cache is as it should be; how long that took.
    fn wait(&mut self, bench: &Bench, why: &str, is_so: impl Fn(&CacheStatus) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            if let Ok(status) = self.status(bench)
                && is_so(&status)
            {
                return Ok(begun.elapsed());
            }
            self.verifier.check()?;
            for (_, gate) in &mut self.gates {
                gate.check()?;
            }
            if begun.elapsed() > REST_LIMIT {
                bail!("{why} within {REST_LIMIT:?}: {:?}", self.status(bench)?);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until no entry is open; how long that took.
    pub fn rest(&mut self, bench: &Bench) -> Result<Duration> {
        self.wait(bench, "entries do not end", |status| {
            status.filled && status.unsettled + status.accepted == 0
        })
    }

    /// Waits until the verifier has decided all there is, as far as can be seen: its positions move no more. How long that took.
    pub fn decided(&mut self, bench: &Bench) -> Result<Duration> {
        let begun = Instant::now();
        let mut moved = (begun, None);
        while moved.0.elapsed() < STANDS {
            self.verifier.check()?;
            let at = Some(bench.block(self.store.all_positions())?);
            if moved.1 != at {
                moved = (Instant::now(), at);
            }
            if begun.elapsed() > REST_LIMIT {
                bail!("the verifier goes on deciding after {REST_LIMIT:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(moved.0 - begun)
    }

    /// What in the cache is not what the ledger says.
    pub fn drift(&self, bench: &Bench) -> Result<Vec<String>> {
        let found = bench.block(audit::compare(&self.cache, &self.store))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// Stops all of it, and removes what servers keep.
    pub fn end(self, bench: &Bench) -> Result<()> {
        for (_, gate) in self.gates {
            gate.stop()?;
        }
        self.verifier.stop()?;
        bench.block(async {
            use stock_verifier::store::LedgerAdmin as _;
            self.store.close().await;
            bench.kafka.delete(&topics(&self.names)).await
        })?;
        bench.drop_scratch(self.scratch)
    }
}

/// The orders first.
fn topics(names: &TopicArgs) -> [&str; 6] {
    [
        &names.orders_topic,
        &names.adjustments_topic,
        &names.accepted_topic,
        &names.rejected_topic,
        &names.levels_topic,
        &names.dead_letter_topic,
    ]
}
