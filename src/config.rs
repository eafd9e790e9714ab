//! Settings, parsed once into typed parts.
//!
//! Every setting is a flag, an environment variable and a key of one TOML
//! file, under the same name and in that order of strength:
//! `--batch-max-orders`, `STOCK_VERIFIER_BATCH_MAX_ORDERS`, `batch-max-orders = …`.

mod registry;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, ValueEnum};
use secrecy::{ExposeSecret, SecretString};

pub use self::registry::{RegistryArgs, RegistryLogin};

use crate::store::MAX_BATCH;

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Kafka brokers to begin with: HOST:PORT[,HOST:PORT…]
    #[arg(long, env = "STOCK_VERIFIER_BROKERS", value_name = "LIST", default_value = "127.0.0.1:9092")]
    pub brokers: String,

    /// A file that holds the SASL password (sasl.password), so that it is on no command line
    #[arg(long, env = "STOCK_VERIFIER_KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// Any librdkafka property, as kcat has it; may be given many times (in the environment: one a line)
    #[arg(short = 'X', long = "property", env = "STOCK_VERIFIER_PROPERTY", value_name = "KEY=VALUE",
          value_parser = SecretParser(parse_property), value_delimiter = '\n',
          hide_env_values = true, hide_default_value = true)]
    pub properties: Vec<Property>,
}

impl KafkaArgs {
    /// The password from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub(crate) fn password(&self) -> Result<Option<SecretString>> {
        self.kafka_password_file.as_deref().map(read_secret).transpose()
    }
}

/// Reads what is or holds a secret. What it refuses is not repeated in the error, which clap's own parsers do.
#[derive(Debug)]
pub(crate) struct SecretParser<T>(pub(crate) fn(&str) -> Result<T, String>);

// Not derived, which would ask the same of what is read.
impl<T> Clone for SecretParser<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for SecretParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|why| {
            let flag = arg.map(|arg| format!(" for '{arg}'")).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value{flag}: {why}\n"))
                .with_cmd(command)
        })
    }
}

/// One librdkafka property. Its value may be a secret: it is never printed.
#[derive(Debug, Clone)]
pub struct Property {
    /// Its name in librdkafka's CONFIGURATION.md.
    pub key: String,
    value: SecretString,
}

impl Property {
    /// A property by its name and value.
    #[must_use]
    pub fn new(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), value: SecretString::from(value) }
    }

    /// Its value.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// Properties that the protocol rests on.
const OWN_PROPERTIES: [&str; 9] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "transactional.id",
    "enable.idempotence",
    "delivery.report.only.error",
];

/// Other names that librdkafka has for a property, each with the one that is used here. Under both names at once, which one
/// counts would be chance.
pub(crate) const ALIASES: [(&str, &str); 12] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("auto.commit.enable", "enable.auto.commit"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

fn parse_property(text: &str) -> Result<Property, String> {
    let (given, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let given = given.trim();
    let key = ALIASES.iter().find(|(alias, _)| *alias == given).map_or(given, |(_, name)| name);
    if OWN_PROPERTIES.contains(&key) {
        return Err(format!("{given} is set by the verifier itself and cannot be changed"));
    }
    Ok(Property::new(key, value))
}

/// A password from a file: all of it but one line's end, which is the editor's.
pub(crate) fn read_secret(file: &Path) -> Result<SecretString> {
    read_secret_of("password", file)
}

/// The same of another kind of secret, which errors name.
fn read_secret_of(what: &str, file: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the {what} file {}", file.display()))?;
    let secret = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        bail!("the {what} file {} is empty", file.display());
    }
    Ok(SecretString::from(secret))
}

/// The names of the topics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Topics")]
pub struct TopicArgs {
    /// Orders in, and all that follows them, keyed by order id. The end of holds is asked for here too, so the verifier
    /// must be allowed to write
    #[arg(long, env = "STOCK_VERIFIER_ORDERS_TOPIC", value_name = "TOPIC", default_value = "orders")]
    pub orders_topic: String,

    /// Stock received, adjusted, set and limited in, keyed by SKU
    #[arg(
        long,
        env = "STOCK_VERIFIER_ADJUSTMENTS_TOPIC",
        value_name = "TOPIC",
        default_value = "stock-adjustments"
    )]
    pub adjustments_topic: String,

    /// Accept events out
    #[arg(
        long,
        env = "STOCK_VERIFIER_ACCEPTED_TOPIC",
        value_name = "TOPIC",
        default_value = "stock.accepted"
    )]
    pub accepted_topic: String,

    /// Reject events out
    #[arg(
        long,
        env = "STOCK_VERIFIER_REJECTED_TOPIC",
        value_name = "TOPIC",
        default_value = "stock.rejected"
    )]
    pub rejected_topic: String,

    /// Stock levels out, compacted, keyed by SKU
    #[arg(long, env = "STOCK_VERIFIER_LEVELS_TOPIC", value_name = "TOPIC", default_value = "stock.levels")]
    pub levels_topic: String,

    /// Records no command could be read from, or that conflict with one already decided
    #[arg(
        long,
        env = "STOCK_VERIFIER_DEAD_LETTER_TOPIC",
        value_name = "TOPIC",
        default_value = "orders.dlq"
    )]
    pub dead_letter_topic: String,
}

impl TopicArgs {
    /// The topics that commands come by.
    #[must_use]
    pub fn read(&self) -> [&str; 2] {
        [&self.orders_topic, &self.adjustments_topic]
    }

    /// Refuses a topic that is given two roles: what is written to a topic that is read comes back for ever.
    ///
    /// # Errors
    /// Names both flags.
    pub fn check(&self) -> Result<()> {
        let named = self.named();
        named.iter().enumerate().try_for_each(|(index, (flag, name))| apart(&named[..index], flag, name))
    }

    /// Refuses another topic that has a role already.
    ///
    /// # Errors
    /// Names both flags.
    pub fn check_other(&self, flag: &str, name: &str) -> Result<()> {
        apart(&self.named(), flag, name)
    }

    /// All of them, each with its flag.
    #[must_use]
    pub fn named(&self) -> [(&str, &str); 6] {
        [
            ("--orders-topic", &self.orders_topic),
            ("--adjustments-topic", &self.adjustments_topic),
            ("--accepted-topic", &self.accepted_topic),
            ("--rejected-topic", &self.rejected_topic),
            ("--levels-topic", &self.levels_topic),
            ("--dead-letter-topic", &self.dead_letter_topic),
        ]
    }
}

fn apart(named: &[(&str, &str)], flag: &str, name: &str) -> Result<()> {
    if let Some((other, _)) = named.iter().find(|(_, taken)| *taken == name) {
        bail!("{other} and {flag} both name {name:?}: each topic has one role, so give them different names");
    }
    Ok(())
}

/// What reads records that are no commands as they are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mappings")]
pub struct MappingArgs {
    /// Make commands of a topic's records by a jq program: a file, or one that is built in (`mapping list`). With
    /// `?id={shop}-{id}` after a built-in one's name, orders of several shops have ids of their own. May be given once for
    /// each topic (in the environment: one a line)
    #[arg(long = "mapping", env = "STOCK_VERIFIER_MAPPING", value_name = "TOPIC=FILE.jq|TOPIC=preset:NAME",
          value_parser = parse_mapping, value_delimiter = '\n')]
    pub mappings: Vec<MappingSource>,
}

/// Where the mapping of a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSource {
    /// The topic's name.
    pub topic: String,
    /// The program.
    pub program: ProgramSource,
}

/// Where a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramSource {
    /// In a file.
    File(PathBuf),
    /// Built in.
    Preset {
        /// Its name.
        name: String,
        /// How ids are made: `{shop}-{id}`.
        id_template: Option<String>,
    },
}

fn parse_mapping(text: &str) -> Result<MappingSource, String> {
    let expected = "expected TOPIC=FILE.jq or TOPIC=preset:NAME";
    let (topic, program) = text.split_once('=').ok_or(expected)?;
    let (topic, program) = (topic.trim(), program.trim());
    if topic.is_empty() || program.is_empty() {
        return Err(expected.to_owned());
    }
    Ok(MappingSource { topic: topic.to_owned(), program: parse_program(program)? })
}

/// A program's place, without its topic.
pub(crate) fn parse_program(text: &str) -> Result<ProgramSource, String> {
    let Some(preset) = text.strip_prefix("preset:") else {
        return Ok(ProgramSource::File(PathBuf::from(text)));
    };
    let (name, id_template) = match preset.split_once('?') {
        None => (preset, None),
        Some((name, options)) => {
            let template =
                options.strip_prefix("id=").ok_or("after a built-in mapping's name comes ?id=TEMPLATE")?;
            (name, Some(template.to_owned()))
        }
    };
    Ok(ProgramSource::Preset { name: name.to_owned(), id_template })
}

impl MappingArgs {
    /// Refuses a mapping of a topic that is not read, and two of one.
    ///
    /// # Errors
    /// Names the topic.
    pub fn check(&self, topics: &TopicArgs) -> Result<()> {
        for (index, MappingSource { topic, .. }) in self.mappings.iter().enumerate() {
            if !topics.read().contains(&&**topic) {
                bail!(
                    "--mapping names topic {topic:?}, which is not read: {} are (--orders-topic, --adjustments-topic)",
                    topics.read().join(" and ")
                );
            }
            if self.mappings[..index].iter().any(|other| other.topic == *topic) {
                bail!(
                    "--mapping names topic {topic:?} twice: a topic has one mapping, which can tell its records apart"
                );
            }
        }
        Ok(())
    }
}

/// The consumer group and this instance's membership of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Group")]
pub struct GroupArgs {
    /// The consumer group that shares the orders
    #[arg(long, env = "STOCK_VERIFIER_GROUP", value_name = "GROUP", default_value = "stock-verifier")]
    pub group: String,

    /// Names this instance; must differ between instances that run at once, and stay the same over a restart: whoever
    /// comes back under it soon after a crash finds its partitions as they were. Default: the host's name, with a number
    /// from the second process of the group on this host on
    #[arg(long, env = "STOCK_VERIFIER_INSTANCE_ID", value_name = "ID")]
    pub instance_id: Option<String>,

    /// Transactional id; default: the group and the instance id, joined by a colon. Each worker adds its number, and -b
    /// for the second of its two producers
    #[arg(long, env = "STOCK_VERIFIER_TRANSACTIONAL_ID", value_name = "ID")]
    pub transactional_id: Option<String>,

    /// Rebalance protocol: cooperative-sticky on the classic one, or KIP-848's
    #[arg(long, env = "STOCK_VERIFIER_GROUP_PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic)]
    pub group_protocol: GroupProtocol,
}

/// The host's name: stable over a restart, and different for each container of a deployment.
fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        std::fs::read_to_string("/etc/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .or_else(|| std::env::var("HOSTNAME").ok())
            .unwrap_or_else(|| "instance".to_owned())
    })
}

impl GroupArgs {
    /// This instance's name: the host's where none is given.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.instance_id.as_deref().unwrap_or_else(|| host_name())
    }

    /// The transactional id of one worker.
    #[must_use]
    pub fn transactional_id(&self, worker: usize) -> String {
        match &self.transactional_id {
            Some(id) => format!("{id}-{worker}"),
            None => format!("{}:{}-{worker}", joinable(&self.group), joinable(self.instance())),
        }
    }
}

/// A name as it is joined with another: no two pairs of names give one text.
fn joinable(name: &str) -> String {
    name.replace('%', "%25").replace(':', "%3A")
}

/// How group members agree on their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// The classic protocol, cooperative-sticky.
    Classic,
    /// KIP-848, assigned by the broker.
    Consumer,
}

/// Most records of a batch where nothing else is said: of those measured, the largest that stays under 150 MB resident with three lines an
/// order (`docs/performance.md`).
pub const DEFAULT_BATCH_MAX_ORDERS: usize = 16_000;

/// What bounds a batch: the first bound reached closes it.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Batches")]
pub struct BatchArgs {
    /// Most records of a batch
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_ORDERS", value_name = "N",
          default_value_t = DEFAULT_BATCH_MAX_ORDERS, value_parser = parse_batch_size)]
    pub batch_max_orders: usize,

    /// Most bytes of keys, values and headers in a batch; one larger record is a batch of its own
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_BYTES", value_name = "SIZE", default_value = "4MiB")]
    pub batch_max_bytes: ByteSize,

    /// Longest time a record waits for others to join its batch
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_AGE", value_name = "TIME", default_value = "10ms",
          value_parser = humantime::parse_duration)]
    pub batch_max_age: Duration,
}

fn parse_batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (1..=MAX_BATCH).contains(&size) => Ok(size),
        _ => Err(format!("expected a number from 1 to {MAX_BATCH}")),
    }
}

/// How levels are published.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Levels")]
pub struct LevelsArgs {
    /// Time between a level's change and its record on the levels topic, under full load up to 5s; of the changes in
    /// between only the last is published
    #[arg(long, env = "STOCK_VERIFIER_LEVELS_DELAY", value_name = "TIME", default_value = "500ms",
          value_parser = humantime::parse_duration)]
    pub levels_delay: Duration,

    /// Publish no levels; the levels topic need not be there
    #[arg(long, env = "STOCK_VERIFIER_NO_LEVELS")]
    pub no_levels: bool,
}

impl LevelsArgs {
    /// The delay, if levels are published.
    #[must_use]
    pub fn delay(self) -> Option<Duration> {
        (!self.no_levels).then_some(self.levels_delay)
    }
}

/// Where the ledger is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Where the ledger is.
    #[arg(long, help = "The ledger: postgres://USER@HOST/DB or sqlite://FILE; plain DATABASE_URL is read too",
          env = "STOCK_VERIFIER_DATABASE_URL", value_name = "URL", value_parser = SecretParser(parse_database_url),
          hide_env_values = true, hide_default_value = true)]
    pub database_url: Option<DatabaseUrl>,

    /// A file that holds the database password, so that it is in no URL
    #[arg(long, env = "STOCK_VERIFIER_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
}

/// A database's URL, and the password for it where that is in a file; neither is ever printed.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    password: Option<SecretString>,
}

pub(crate) fn parse_database_url(text: &str) -> Result<DatabaseUrl, String> {
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql" | "sqlite") => {
            Ok(DatabaseUrl { url: SecretString::from(text), password: None })
        }
        _ => Err("expected postgres://… or sqlite://…".to_owned()),
    }
}

impl DatabaseUrl {
    /// The URL, as it was given.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// The password from its file.
    #[must_use]
    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The same with the password from this file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or the database knows no passwords.
    pub(crate) fn with_password_of(&self, file: Option<&Path>) -> Result<Self> {
        let password = file.map(read_secret).transpose()?;
        if password.is_some() && self.expose().starts_with("sqlite:") {
            bail!("a SQLite ledger has no password, and a password file is given for it");
        }
        Ok(Self { url: self.url.clone(), password })
    }
}

impl DatabaseArgs {
    /// The URL, with the password from its file.
    ///
    /// # Errors
    /// When no URL is given, or the password file cannot be read.
    pub fn url(&self) -> Result<DatabaseUrl> {
        let Some(url) = &self.database_url else {
            bail!("no database is named: give --database-url, or set STOCK_VERIFIER_DATABASE_URL");
        };
        url.with_password_of(self.database_password_file.as_deref())
    }
}

/// Where the gates keep what they count with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Redis 7 or newer, or Valkey: redis://HOST:PORT/DB, rediss:// with TLS. One primary, without a cluster and without an
    /// eviction policy
    #[arg(long, env = "STOCK_VERIFIER_REDIS_URL", value_name = "URL", value_parser = SecretParser(parse_redis_url),
          default_value = "redis://127.0.0.1:6379/", hide_env_values = true, hide_default_value = true)]
    pub redis_url: RedisUrl,

    /// A file that holds the password of Redis, so that it is in no URL
    #[arg(long, env = "STOCK_VERIFIER_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// What the names of all keys in Redis begin with: one for each ledger
    #[arg(long, env = "STOCK_VERIFIER_REDIS_PREFIX", value_name = "TEXT", default_value = "stock:")]
    pub redis_prefix: String,

    /// How long it is remembered that an order was decided. Who sends it again within is answered from the ledger
    #[arg(long, env = "STOCK_VERIFIER_REDIS_REMEMBER", value_name = "TIME", default_value = "1h",
          value_parser = humantime::parse_duration)]
    pub redis_remember: Duration,
}

/// The URL of Redis; never printed.
#[derive(Debug, Clone)]
pub struct RedisUrl(SecretString);

fn parse_redis_url(text: &str) -> Result<RedisUrl, String> {
    match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis" | "rediss") => Ok(RedisUrl(SecretString::from(text))),
        _ => Err("expected redis://… or rediss://…".to_owned()),
    }
}

impl RedisArgs {
    /// The URL, which may hold a password.
    #[must_use]
    pub fn url(&self) -> SecretString {
        self.redis_url.0.clone()
    }

    /// The password from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn password(&self) -> Result<Option<SecretString>> {
        self.redis_password_file.as_deref().map(read_secret).transpose()
    }
}

/// The read API over HTTP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Answer reads, probes and metrics over HTTP at this address; without it nothing listens. It is not encrypted: beyond
    /// this machine let a proxy do that
    #[arg(long, env = "STOCK_VERIFIER_HTTP_LISTEN", value_name = "IP:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// A file that holds the token that requests must bring (Authorization: Bearer TOKEN); probes need none
    #[arg(long, env = "STOCK_VERIFIER_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// A streaming replica of the ledger's database, for reads; may be given many times (in the environment: one a line).
    /// The password file of the ledger's database counts here too
    #[arg(long, env = "STOCK_VERIFIER_READ_DATABASE_URL", value_name = "URL",
          value_parser = SecretParser(parse_database_url), value_delimiter = '\n',
          hide_env_values = true, hide_default_value = true)]
    pub read_database_url: Vec<DatabaseUrl>,

    /// Furthest that a replica may be behind; one that is further is left for the ledger's database until it has caught up
    #[arg(long, env = "STOCK_VERIFIER_READ_MAX_LAG", value_name = "TIME", default_value = "5s",
          value_parser = humantime::parse_duration)]
    pub read_max_lag: Duration,

    /// What prechecks are answered from
    #[arg(long, env = "STOCK_VERIFIER_PRECHECK_FROM", value_name = "SOURCE", value_enum,
          default_value_t = PrecheckSource::Database)]
    pub precheck_from: PrecheckSource,
}

/// What prechecks are answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecheckSource {
    /// The ledger's database, or its replicas
    Database,
    /// The levels topic, followed in memory; the database where that does not know an item or is behind. Levels are
    /// published some time after they moved, which the age of an answer does not count
    LevelsTopic,
}

impl HttpArgs {
    /// The token from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn token(&self) -> Result<Option<SecretString>> {
        self.http_token_file.as_deref().map(|file| read_secret_of("token", file)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_password_is_not_in_the_debug_text() {
        let url = parse_database_url("postgres://shop:hunter2@db/stock").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn a_propertys_value_is_not_in_the_debug_text() {
        let property = parse_property("sasl.password=hunter2").unwrap();
        assert!(!format!("{property:?}").contains("hunter2"));
    }

    #[test]
    fn no_two_instances_have_one_transactional_id() {
        let id = |group: &str, instance: &str, worker| {
            let group = GroupArgs {
                group: group.to_owned(),
                instance_id: Some(instance.to_owned()),
                transactional_id: None,
                group_protocol: GroupProtocol::Classic,
            };
            group.transactional_id(worker)
        };
        assert_eq!(id("stock-verifier", "host-1", 0), "stock-verifier:host-1-0");
        let names =
            ["x", "x-eu", "eu-1", "1", "a:b", "b", "a", "a:", ":b", "b:b", "a%3Ab", "a%", "3Ab", "b-0", "-b"];
        let mut seen = std::collections::HashMap::new();
        for (group, instance) in names.iter().flat_map(|group| names.map(|instance| (*group, instance))) {
            for worker in [0, 1, 10] {
                for producer in ["", "-b"] {
                    let id = format!("{}{producer}", id(group, instance, worker));
                    let other = seen.insert(id.clone(), (group, instance, worker, producer));
                    assert_eq!(other, None, "{id} is also of {group}, {instance}, {worker}{producer}");
                }
            }
        }
    }

    #[test]
    fn a_topic_with_two_roles_is_refused_and_both_flags_are_named() {
        let name = |name: &str| name.to_owned();
        let mut topics = TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        };
        topics.check().unwrap();
        topics.dead_letter_topic = name("o");
        let error = topics.check().unwrap_err().to_string();
        assert!(error.contains("--orders-topic") && error.contains("--dead-letter-topic"), "{error}");
        assert!(topics.check_other("--to-topic", "x").is_ok());
        assert!(topics.check_other("--to-topic", "s.a").is_err());
        topics.dead_letter_topic = name("s.l");
        let error = topics.check().unwrap_err().to_string();
        assert!(error.contains("--levels-topic") && error.contains("--dead-letter-topic"), "{error}");
    }

    #[test]
    fn a_mapping_is_of_a_topic_and_a_file_or_a_built_in_one() {
        let parsed = parse_mapping(" orders = mappings/shop=1.jq").unwrap();
        assert_eq!(parsed.topic, "orders");
        assert_eq!(parsed.program, ProgramSource::File("mappings/shop=1.jq".into()));
        let preset = |id_template: Option<&str>| ProgramSource::Preset {
            name: "shopify".to_owned(),
            id_template: id_template.map(str::to_owned),
        };
        assert_eq!(parse_mapping("o=preset:shopify").unwrap().program, preset(None));
        assert_eq!(
            parse_mapping("o=preset:shopify?id={shop}-{id}").unwrap().program,
            preset(Some("{shop}-{id}"))
        );
        for wrong in ["orders", "=x.jq", "orders=", "o=preset:shopify?shop=1"] {
            assert!(parse_mapping(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn properties_the_protocol_rests_on_cannot_be_changed() {
        assert!(parse_property("enable.auto.commit=true").unwrap_err().contains("cannot be changed"));
        for alias in [
            "metadata.broker.list=elsewhere:9092",
            " bootstrap.servers =elsewhere",
            "auto.commit.enable=true",
        ] {
            assert!(parse_property(alias).unwrap_err().contains("cannot be changed"), "{alias}");
        }
        assert_eq!(parse_property("compression.codec=zstd").unwrap().key, "compression.type");
        let property = parse_property("sasl.jaas=a=b").unwrap();
        assert_eq!((&*property.key, property.expose()), ("sasl.jaas", "a=b"));
    }
}
