//! A database, topics and a group of one test.

use std::process::Command;
use std::time::Duration;

use stock_verifier::ledger::{Command as Ask, Id, Request, Sku};
use stock_verifier::store::{CommandBatch, LedgerAdmin as _, LedgerHistory as _, LedgerWriter as _};

use super::database::{Database, unique};
use super::kafka::{Cluster, Sent};
use super::process::{Verifier, program};
use super::servers::{Servers, wait_for};
use super::wait;

/// Longest wait until both members of an instance have joined.
const JOINS_LIMIT: Duration = Duration::from_secs(60);
/// A verifier's topics, by what a test calls them.
const TOPICS: [&str; 6] = ["orders", "adjustments", "accepted", "rejected", "levels", "dead"];

/// Everything a verifier needs, and nothing another test sees.
pub struct Scene {
    /// Kafka.
    pub kafka: Cluster,
    /// The ledger.
    pub database: Database,
    /// The names of the topics start with it; it is also the group.
    pub name: String,
    directory: tempfile::TempDir,
}

impl Scene {
    /// On the servers of the environment, with so many partitions in each topic.
    pub fn new(partitions: i32) -> Self {
        Self::on(&Servers::shared(), partitions)
    }

    /// On these servers.
    pub fn on(servers: &Servers, partitions: i32) -> Self {
        Self::with(Database::fresh(&servers.database_url), servers, partitions)
    }

    /// With a distributed ledger, on the cluster whose coordinator `CITUS_URL` names.
    pub fn on_cluster(partitions: i32) -> Self {
        Self::with(Database::on_cluster(), &Servers::shared(), partitions)
    }

    fn with(database: Database, servers: &Servers, partitions: i32) -> Self {
        let scene = Self {
            kafka: Cluster::new(&servers.brokers),
            database,
            name: unique("t"),
            directory: tempfile::tempdir().expect("a directory"),
        };
        scene.kafka.create_all(&TOPICS.map(|topic| scene.topic(topic)), partitions, &[]);
        scene
    }

    /// Gives the topics what `topics create` gives them, with room for the largest record that the tests' other topics take.
    pub fn set_topics_as_created(&self) {
        self.kafka.set(&self.topic("levels"), "cleanup.policy", "compact");
        self.kafka.set(&self.topic("dead"), "max.message.bytes", "8404992");
    }

    /// The name of a topic: orders, adjustments, accepted, rejected, levels or dead.
    pub fn topic(&self, which: &str) -> String {
        format!("{}.{which}", self.name)
    }

    /// The orders' topic.
    pub fn orders(&self) -> String {
        self.topic("orders")
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.name
    }

    /// The broker that coordinates the group.
    #[track_caller]
    pub fn coordinator(&self) -> i32 {
        // Asked for, Kafka makes the topic of what groups commit.
        wait::value("the group has a coordinator", std::time::Duration::from_secs(30), || {
            self.kafka.try_committed(self.group(), &self.orders()).ok()?;
            self.kafka.coordinator(self.group())
        })
    }

    /// A path in a directory of its own.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Sets levels, each a movement in the ledger.
    pub fn stock(&self, levels: &[(impl AsRef<str>, i64)]) {
        let requests = levels.iter().map(|(sku, available)| {
            let item = Sku::new(sku.as_ref()).expect("a SKU").into();
            let id = Id::new(&unique("set")).expect("an id");
            Request { command: Ask::stock_set(id, item, *available, None), source: None }
        });
        let batch = CommandBatch { advances: Vec::new(), requests: requests.collect(), epoch: None };
        let store = self.database.store();
        wait_for(async {
            store.apply(&batch).await.expect("stock is set");
            store.close().await;
        });
    }

    /// Produces orders.
    pub fn produce(&self, records: &[Sent]) {
        self.kafka.produce(&self.orders(), records);
    }

    /// `run` with the scene's settings and these besides, not started yet.
    pub fn command(&self, instance: &str, more: &[&str]) -> Command {
        let mut command = self.command_without_database(instance, more);
        command.args(["--database-url", &self.database.url()]);
        command
    }

    /// The same without a database.
    pub fn command_without_database(&self, instance: &str, more: &[&str]) -> Command {
        let mut command = self.bare(instance, more);
        command.args(["--brokers", &self.kafka.brokers]);
        command
    }

    /// The same with the database, without brokers.
    pub fn command_without_brokers(&self, instance: &str, more: &[&str]) -> Command {
        let mut command = self.bare(instance, more);
        command.args(["--database-url", &self.database.url()]);
        command
    }

    /// Another command of the program, `replay diff` say, with the scene's settings.
    pub fn tool(&self, words: &[&str]) -> Command {
        self.tool_on(words, &self.database.url())
    }

    /// The same with another database.
    pub fn tool_on(&self, words: &[&str], database_url: &str) -> Command {
        let mut command = program();
        command.args(words).args(["--brokers", &self.kafka.brokers, "--group", &self.name]);
        self.name_topics(&mut command);
        command.args(["--database-url", database_url]);
        command
    }

    /// A command about topics, with the scene's.
    pub fn topics(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.args(words).args(["--brokers", &self.kafka.brokers]);
        self.name_topics(&mut command);
        command
    }

    /// A gate, or a command of one, with the scene's topics and ledger.
    pub fn gate(&self, brokers: &str) -> Command {
        let mut command = program();
        command.args(["gate", "--brokers", brokers, "--database-url", &self.database.url()]);
        // By default it has less than what it waits for may take on a busy machine.
        command.env("STOCK_VERIFIER_STOP_TIMEOUT", "30s");
        self.name_topics(&mut command);
        command
    }

    fn name_topics(&self, command: &mut Command) {
        command
            .args(["--orders-topic", &self.topic("orders"), "--accepted-topic", &self.topic("accepted")])
            .args(["--rejected-topic", &self.topic("rejected"), "--levels-topic", &self.topic("levels")])
            .args(["--adjustments-topic", &self.topic("adjustments")])
            .args(["--dead-letter-topic", &self.topic("dead")]);
    }

    fn bare(&self, instance: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.args(["run", "--group", &self.name, "--instance-id", instance]);
        self.name_topics(&mut command);
        // A busy machine may need more than the usual time for what is in hand.
        command.args(["--stop-timeout", "30s"]);
        // With the consumer protocol the broker says how long a session is.
        if !more.contains(&"--group-protocol") {
            command.args(["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500"]);
        }
        command.args(more);
        command
    }

    /// Starts a verifier.
    pub fn start(&self, instance: &str, more: &[&str]) -> Verifier {
        self.launch(self.command(instance, more), instance)
    }

    /// Starts a command made by hand.
    pub fn launch(&self, command: Command, name: &str) -> Verifier {
        Verifier::start(command, name, self.file(&format!("{}.log", unique(name))))
    }

    /// Whether every record is decided and published: ledger and committed offsets are at the end of each partition.
    pub fn is_done(&self) -> bool {
        self.is_published(&self.orders())
    }

    /// The same of one topic.
    pub fn is_published(&self, topic: &str) -> bool {
        let ends = self.kafka.ends(topic, "read_committed");
        let applied = self.database.try_number(&format!(
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM positions WHERE topic = '{topic}'"
        ));
        applied.is_ok_and(|applied| applied == ends.iter().sum::<i64>())
            && self.kafka.try_committed(self.group(), topic).is_ok_and(|committed| {
                committed.iter().zip(&ends).all(|(committed, end)| committed.unwrap_or(0) == *end)
            })
    }

    /// Waits until an instance by itself has partitions of both topics. Until then its second member joins, and a batch that
    /// falls into that is published again: who is told to stop meanwhile has it in hand still.
    #[track_caller]
    pub fn joined(&self, verifier: &Verifier) {
        let topics = [self.orders(), self.topic("adjustments")];
        wait::until("both its members have partitions", JOINS_LIMIT, || {
            topics.iter().all(|topic| !verifier.reads(topic).is_empty())
        });
    }

    /// Waits until every order is decided and published.
    #[track_caller]
    pub fn done(&self, limit: Duration) {
        self.published_all_of(&self.orders(), limit);
    }

    /// Waits until every adjustment is decided and published.
    #[track_caller]
    pub fn adjusted(&self, limit: Duration) {
        self.published_all_of(&self.topic("adjustments"), limit);
    }

    #[track_caller]
    fn published_all_of(&self, topic: &str, limit: Duration) {
        let mut looked = std::time::Instant::now();
        wait::until("everything is decided and published", limit, || {
            // Each look is several clients of Kafka: not fifty times a second.
            if looked.elapsed() < Duration::from_millis(100) {
                return false;
            }
            looked = std::time::Instant::now();
            self.is_published(topic)
        });
        self.transactions_ended(limit);
    }

    /// Waits until no transaction is open in the results. Kafka marks its end in the offsets' partition and the results'
    /// one by one, after it has answered: readers may see the first before the last.
    #[track_caller]
    pub fn transactions_ended(&self, limit: Duration) {
        let results = ["accepted", "rejected", "dead"].map(|which| self.topic(which));
        wait::until("the ends of all transactions are marked", limit, || {
            results.iter().all(|topic| {
                self.kafka.ends(topic, "read_committed") == self.kafka.ends(topic, "read_uncommitted")
            })
        });
    }

    /// Expects the program's own audit to find nothing.
    #[track_caller]
    pub fn audit(&self) {
        let store = self.database.store();
        let audit = wait_for(async {
            let audit = store.audit().await;
            store.close().await;
            audit
        });
        assert_eq!(audit.expect("audited").findings, [], "the audit finds nothing");
    }

    /// The values published on a topic, as JSON.
    pub fn published(&self, which: &str) -> Vec<serde_json::Value> {
        let records = self.kafka.read(&self.topic(which));
        let values = records.iter().filter_map(|record| record.value.as_deref());
        values.map(|value| serde_json::from_slice(value).expect("JSON")).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            println!(
                "left for looking at: database {}, topics {}.*, logs in {}",
                self.database.name(),
                self.name,
                self.directory.path().display()
            );
        } else {
            self.kafka.delete_if_there(&TOPICS.map(|topic| self.topic(topic)).each_ref().map(String::as_str));
        }
    }
}
