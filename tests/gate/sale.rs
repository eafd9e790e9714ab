//! A sale of one test: a verifier, a Redis, gates, and who buys.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stock_verifier::gate::cache::RedisCache;
use stock_verifier::gate::rule::Asked;
use stock_verifier::kafka::partitioner::partition_of;
use stock_verifier::ledger::{Action, Command as LedgerCommand, Id, Item, Quantity, Sku, Terms};
use ureq::http::{HeaderMap, Request};

use crate::support::database::unique;
use crate::support::process::{Verifier, program};
use crate::support::redis::Redis;
use crate::support::scene::Scene;
use crate::support::servers::wait_for;
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
/// The shortest bound of an entry that a gate takes, so that tests need not wait for longer.
pub const BOUND: [&str; 2] = ["--entry-bound", "7500ms"];

/// Everything that a sale needs, and nothing another test sees.
pub struct Sale {
    pub scene: Scene,
    pub redis: Redis,
    /// Where gates and commands reach it.
    pub redis_url: String,
    pub prefix: String,
    pub cache: RedisCache,
    skus: Vec<String>,
}

impl Sale {
    /// With this stock, and a Redis that loses nothing when it is killed.
    pub fn new(stock: &[(&str, i64)]) -> Self {
        Self::on(Redis::start(), stock)
    }

    pub fn on(redis: Redis, stock: &[(&str, i64)]) -> Self {
        let scene = Scene::new(2);
        scene.stock(stock);
        let (cache, prefix) = redis.cache();
        let skus = stock.iter().map(|(sku, _)| (*sku).to_owned()).collect();
        Self { scene, redis_url: redis.url(), redis, prefix, cache, skus }
    }

    /// Starts a gate, and waits until it lets orders in.
    pub fn gate(&self, name: &str, more: &[&str]) -> (Verifier, Shopper) {
        self.gate_at(&self.scene.kafka.brokers.clone(), name, more)
    }

    /// The same with other brokers.
    pub fn gate_at(&self, brokers: &str, name: &str, more: &[&str]) -> (Verifier, Shopper) {
        let mut command = self.scene.gate(brokers);
        self.name_cache(&mut command);
        command.args(["--http-listen", "127.0.0.1:0"]).args(more);
        let mut gate = self.scene.launch(command, name);
        let shopper = Shopper::of(&mut gate);
        self.filled();
        (gate, shopper)
    }

    pub fn filled(&self) {
        wait::until("the cache is filled", SOON, || {
            wait_for(self.cache.status()).is_ok_and(|status| status.filled)
        });
    }

    /// A command of a sale: open, close or status; what it prints.
    pub fn command(&self, words: &[&str]) -> String {
        let mut command = program();
        let done = self.name_cache(command.args(["gate", words[0]])).args(&words[1..]).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Names the cache to a command.
    pub fn name_cache<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.args(["--redis-url", &self.redis_url, "--redis-prefix", &self.prefix])
    }

    /// Does something to a key of the cache.
    pub fn redis_command(&self, words: &[&str]) {
        let key = format!("{}{}", self.prefix, words[1]);
        let words: Vec<&str> = [words[0], &key].into_iter().chain(words[2..].iter().copied()).collect();
        self.redis.command(&words).expect("Redis answers");
    }

    /// What is left of a SKU by the cache.
    pub fn cached(&self, sku: &str) -> Option<i64> {
        let (level, pending) = wait_for(self.cache.amount(&item(sku))).ok()?;
        Some(level?.available - pending)
    }

    /// And by the ledger.
    pub fn in_ledger(&self, sku: &str) -> i64 {
        self.scene.database.number(&format!("SELECT available FROM levels WHERE sku = '{sku}'"))
    }

    /// Waits until no entry is open, and each cached amount is the ledger's.
    #[track_caller]
    pub fn comes_to_rest(&self) {
        let mut seen = String::new();
        let is_at_rest = wait::is_soon(SOON, || {
            let status = wait_for(self.cache.status());
            let amounts: Vec<_> =
                self.skus.iter().map(|sku| (sku, self.cached(sku), self.in_ledger(sku))).collect();
            seen = format!("{status:?}, cached and in the ledger: {amounts:?}");
            status.is_ok_and(|status| status.filled && status.unsettled + status.accepted == 0)
                && amounts.iter().all(|(_, cached, ledger)| *cached == Some(*ledger))
        });
        assert!(is_at_rest, "it comes to no rest: {seen}");
    }

    /// How many orders stand in Kafka.
    pub fn sent(&self) -> usize {
        self.scene.kafka.count(&self.scene.orders())
    }

    /// How many entries are open.
    pub fn open_entries(&self) -> u64 {
        let status = wait_for(self.cache.status()).expect("Redis answers");
        status.unsettled + status.accepted
    }

    /// Waits until so many entries have no result.
    #[track_caller]
    pub fn unsettled(&self, count: u64) {
        wait::until(&format!("{count} entries have no result"), SOON, || {
            wait_for(self.cache.status()).is_ok_and(|status| status.unsettled == count)
        });
    }
}

pub fn item(sku: &str) -> Item {
    Sku::new(sku).unwrap().into()
}

/// An order's id that no other test has.
pub fn fresh() -> String {
    unique("o")
}

/// One that stands in this one of the sale's two partitions.
pub fn fresh_in(partition: i32) -> String {
    std::iter::repeat_with(fresh)
        .find(|id| partition_of(id.as_bytes(), 2) == partition)
        .expect("every other is")
}

/// What a gate asks the cache for an order of one piece.
pub fn asked(id: &str, sku: &str) -> Asked {
    let lines = vec![(item(sku), Quantity::new(1).expect("one piece"))];
    let command = LedgerCommand::order_created(Id::new(id).expect("an id"), lines, Terms::default());
    let Action::Take { lines, .. } = command.action else { unreachable!("an order takes") };
    Asked { id: command.key.id, digest: command.digest, lines, all_or_none: true, buyer: None }
}

pub fn order(id: &str, lines: &[(&str, i64)]) -> Value {
    let lines: Vec<Value> =
        lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
    json!({"order_id": id, "lines": lines})
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last part of a problem's type.
    pub fn problem(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default()
    }

    pub fn is_accepted(&self) -> bool {
        self.status == 200 && self.body["decision"]["accepted"] == true
    }
}

/// Asks one gate.
#[derive(Clone)]
pub struct Shopper {
    base: String,
    agent: ureq::Agent,
}

impl Shopper {
    /// Who asks this gate.
    pub fn of(gate: &mut Verifier) -> Self {
        const SAID: &str = "metrics at http://";
        gate.said(SAID, SOON);
        let address = wait::value("the whole line is there", SOON, || {
            let log = gate.log();
            let (line, _) = log.split_once(SAID)?.1.split_once('\n')?;
            Some(line.trim().to_owned())
        });
        Self::at(&address)
    }

    /// Who asks the gate at this address.
    pub fn at(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(SOON))
            .max_idle_connections(0)
            .proxy(None);
        Self { base: format!("http://{address}"), agent: config.build().into() }
    }

    /// Where the gate is.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// `None` when nobody answers.
    pub fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = if body.is_empty() {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body.to_owned()).unwrap())
        };
        let mut response = sent.ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Some(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    pub fn try_order(&self, order: &Value, query: &str) -> Option<Answer> {
        let json = [("content-type", "application/json")];
        self.try_send("POST", &format!("/v1/orders{query}"), &json, &order.to_string())
    }

    #[track_caller]
    pub fn order(&self, order: &Value) -> Answer {
        self.try_order(order, "").expect("an answer")
    }

    /// And waits for the verdict.
    #[track_caller]
    pub fn order_and_wait(&self, order: &Value) -> Answer {
        self.try_order(order, "?wait=30s").expect("an answer")
    }

    /// The verdict of an order that was let in: asks again while nobody knows whether it was sent, as a buyer would.
    #[track_caller]
    pub fn verdict(&self, order: &Value) -> Answer {
        wait::value("a verdict", SOON, || {
            self.try_order(order, "?wait=5s").filter(|answer| answer.status == 200)
        })
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.try_send("GET", path, &[], "").expect("an answer")
    }
}
