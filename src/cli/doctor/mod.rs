//! `stock-verifier doctor`: what can be wrong before the first order, or in the night, each with what to do.
//!
//! First facts are gathered, then judged: judging is pure, and what could not be gathered is a fact too.

mod cluster;
mod database;
mod diagnosis;
mod facts;
mod gather;
mod group;
mod partitioner;
mod report;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use super::reads;
use super::run::{CONNECTIONS_BACKGROUND, CONNECTIONS_READERS};
use crate::config::{DatabaseArgs, DatabaseUrl, GroupArgs, KafkaArgs, PrecheckSource, TopicArgs};
use crate::console;
use crate::store::postgres::{Connections, PostgresStore};
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{DatabaseFacts, ExaminedStore, StoreError};
use diagnosis::{Diagnosis, Severity};
use facts::KafkaFacts;
use gather::SLACK;
use topics::Wanted;

/// Longest wait for a connection. This, [`LOOK_LIMIT`] and [`CLOSE_LIMIT`] one after the other are less than
/// the ten seconds that doctor may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for all that is asked of a server that was connected to.
const LOOK_LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for the positions, and then for connections to be closed: the process ends anyway.
const CLOSE_LIMIT: Duration = Duration::from_millis(750);
const _: () = assert!(
    CONNECT_LIMIT.as_millis() + LOOK_LIMIT.as_millis() + 2 * CLOSE_LIMIT.as_millis() + SLACK.as_millis()
        < 10_000
);

/// Connections to PostgreSQL: a table that is locked keeps one, and must keep nothing else from being looked at.
const CONNECTIONS: Connections = Connections { batches: 1, readers: 1, others: 6 };

/// The arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Pipelines in this process, each a member of the group
    #[arg(long, env = "STOCK_VERIFIER_WORKERS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,

    /// Publish no levels; the levels topic need not be there
    #[arg(long, env = "STOCK_VERIFIER_NO_LEVELS")]
    no_levels: bool,

    /// Run although the orders' or the adjustments' topic is compacted: Kafka removes commands from it, unread ones too
    #[arg(long, env = "STOCK_VERIFIER_ACCEPT_COMPACTED_TOPICS")]
    accept_compacted_topics: bool,

    /// Answer reads, probes and metrics over HTTP at this address; without it nothing listens. It is not encrypted: beyond
    /// this machine let a proxy do that
    #[arg(long, env = "STOCK_VERIFIER_HTTP_LISTEN", value_name = "IP:PORT")]
    http_listen: Option<SocketAddr>,

    /// What prechecks are answered from
    #[arg(long, env = "STOCK_VERIFIER_PRECHECK_FROM", value_name = "SOURCE", value_enum,
          default_value_t = PrecheckSource::Database)]
    precheck_from: PrecheckSource,

    /// Print JSON instead of a list for people
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl DoctorArgs {
    /// How many connections to PostgreSQL a `run` with these settings opens at most.
    fn connections_of_run(&self) -> u32 {
        let reads = if self.http_listen.is_some() { reads::CONNECTIONS_READS } else { 0 };
        u32::from(self.workers) + CONNECTIONS_READERS + CONNECTIONS_BACKGROUND + reads
    }

    /// Whether a `run` with these settings reads the levels topic too.
    fn follows_levels(&self) -> bool {
        self.http_listen.is_some() && self.precheck_from == PrecheckSource::LevelsTopic
    }

    /// The topics that must be there.
    fn topic_names(&self) -> Vec<String> {
        let named = self.topics.named();
        let needed = named.iter().filter(|(_, name)| !(self.no_levels && *name == self.topics.levels_topic));
        needed.map(|(_, name)| (*name).to_owned()).collect()
    }

    /// The largest record that producers send, where the user set it.
    fn largest_sent(&self) -> Option<u64> {
        let property = self.kafka.properties.iter().rfind(|property| property.key == "message.max.bytes");
        property.and_then(|property| property.expose().parse().ok())
    }
}

/// Looks at everything and prints what it found. Exit status: 0 nothing to do, 1 a warning or an error.
///
/// # Errors
/// When the settings contradict each other, or nothing can be printed.
pub async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let begun = Instant::now();
    args.topics.check()?;
    let url = args.database.url()?;
    let (mut diagnoses, store, (of_kafka, facts)) = {
        let (of_database, kafka) = tokio::join!(look_at_database(&args, &url), look_at_kafka(&args));
        (of_database.0, of_database.1, kafka)
    };
    diagnoses.extend(of_kafka);
    if let Some(store) = store {
        // After Kafka was asked: a ledger that is in order is never behind what was committed.
        if let Some(facts) = facts {
            let (positions, followers) =
                tokio::join!(compare(&*store, &facts, &args.topics), compare_followers(&*store, &facts));
            diagnoses.extend(positions);
            diagnoses.push(followers);
        }
        // What is not closed by then ends with the process.
        let _ = tokio::time::timeout(CLOSE_LIMIT, store.close()).await;
    }
    report::sort(&mut diagnoses);
    let text = if args.json {
        report::json(&diagnoses).context("the report cannot be written")?
    } else {
        report::text(&diagnoses, begun.elapsed())
    };
    console::print(&text)?;
    Ok(if report::worst(&diagnoses) < Severity::Warning { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look_at_database(
    args: &DoctorArgs,
    url: &DatabaseUrl,
) -> (Vec<Diagnosis>, Option<Arc<dyn ExaminedStore>>) {
    let check = "database.connection";
    let Ok(opened) = tokio::time::timeout(CONNECT_LIMIT, open(url)).await else {
        let what = format!("the database says nothing for {CONNECT_LIMIT:?}");
        return (vec![Diagnosis::error(check, what, DATABASE_AWAY)], None);
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let what = format!("the ledger cannot be opened: {}", database::chain(&error));
            return (vec![Diagnosis::error(check, what, DATABASE_AWAY)], None);
        }
    };
    let facts = store.examine(LOOK_LIMIT).await;
    let mut diagnoses = vec![Diagnosis::ok(check, "the database answers")];
    diagnoses.extend(database::judge(&facts, &args.group.group, args.connections_of_run()));
    if let DatabaseFacts::Postgres(server) = &facts.database {
        diagnoses.extend(cluster::judge(&server.cluster, args.connections_of_run()));
    }
    // Without tables there are no positions.
    let store = if facts.tables.is_ok() {
        Some(store)
    } else {
        let _ = tokio::time::timeout(CLOSE_LIMIT, store.close()).await;
        None
    };
    (diagnoses, store)
}

async fn look_at_kafka(args: &DoctorArgs) -> (Vec<Diagnosis>, Option<KafkaFacts>) {
    let check = "kafka.connection";
    let (examiner, cluster) = match gather::connect(args, CONNECT_LIMIT, LOOK_LIMIT).await {
        Ok(connected) => connected,
        Err(error) => {
            let what = format!("no answer from Kafka at {}: {error:#}", args.kafka.brokers);
            let advice = "Check --brokers, and the security.protocol, sasl.* and ssl.* properties given with -X; nothing \
                          else of Kafka was looked at";
            return (vec![Diagnosis::error(check, what, advice)], None);
        }
    };
    let brokers = cluster.brokers.len();
    let facts = gather::gather(args, &examiner, cluster, LOOK_LIMIT).await;
    let mut diagnoses = vec![Diagnosis::ok(check, format!("Kafka answers, with {brokers} brokers"))];
    let wanted = Wanted {
        topics: &args.topics,
        names: args.topic_names(),
        accept_compacted: args.accept_compacted_topics,
        workers: usize::from(args.workers),
        largest_sent: args.largest_sent(),
    };
    diagnoses.extend(topics::judge(&facts, &wanted));
    let used =
        group::Used { topics: &args.topics, names: &wanted.names, follows_levels: args.follows_levels() };
    diagnoses.extend(group::judge(&facts, &used, &args.group.group));
    diagnoses.extend(transactions::judge(&facts));
    (diagnoses, Some(facts))
}

/// The ledger's positions against what Kafka has.
async fn compare(store: &dyn ExaminedStore, facts: &KafkaFacts, topics: &TopicArgs) -> Vec<Diagnosis> {
    match tokio::time::timeout(CLOSE_LIMIT, store.all_positions()).await {
        Ok(Ok(positions)) => group::judge_positions(facts, topics, &positions),
        Ok(Err(error)) => vec![Diagnosis::unknown(
            "ledger.positions",
            "the ledger's positions",
            &database::chain(&error),
            "Allow this role to read the table positions, as docs/permissions.md has it",
        )],
        Err(_) => vec![Diagnosis::unknown(
            "ledger.positions",
            "the ledger's positions",
            &format_args!("no answer within {CLOSE_LIMIT:?}"),
            "Look again; if it stays so, somebody may hold a lock on the table positions",
        )],
    }
}

/// The partitions of commands that follow orders against those of their orders.
async fn compare_followers(store: &dyn ExaminedStore, facts: &KafkaFacts) -> Diagnosis {
    let found = match tokio::time::timeout(CLOSE_LIMIT, store.followers()).await {
        Ok(found) => found.map_err(|error| database::chain(&error)),
        Err(_) => Err(format!("no answer within {CLOSE_LIMIT:?}")),
    };
    partitioner::judge(&found, &facts.cluster)
}

/// What to do when the database cannot be reached.
const DATABASE_AWAY: &str = "Check --database-url and --database-password-file, that the server runs, and that \
    pg_hba.conf, a firewall or a pooler lets this host and role in; or, of a SQLite file, its path";

/// Opens a ledger as it is: nothing is created, checked or migrated.
async fn open(url: &DatabaseUrl) -> Result<Arc<dyn ExaminedStore>, StoreError> {
    let (url, password) = (url.expose(), url.password());
    Ok(if url.starts_with("sqlite:") {
        Arc::new(SqliteStore::open_for(url, FileAccess::Read).await?)
    } else {
        Arc::new(PostgresStore::open_with_password(url, password, CONNECTIONS).await?)
    })
}
