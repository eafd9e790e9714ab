//! `stock-verifier doctor`: what can be wrong before the first order, or in the night, each with what to do.
//!
//! First facts are gathered, then judged: judging is pure, and what could not be gathered is a fact too.

mod database;
mod finding;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use super::run::{CONNECTIONS_BACKGROUND, CONNECTIONS_READERS};
use crate::config::{DatabaseArgs, DatabaseUrl, GroupArgs, KafkaArgs, TopicArgs};
use crate::console;
use crate::store::postgres::{Connections, PostgresStore};
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{ExaminedStore, StoreError};
use finding::{Finding, Severity};

/// Longest wait for a connection. This, [`LOOK_LIMIT`] and [`CLOSE_LIMIT`] one after the other are less than
/// the ten seconds that doctor may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for all that is asked of a server that was connected to.
const LOOK_LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for connections to be closed: the process ends anyway.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
const _: () = assert!(CONNECT_LIMIT.as_secs() + LOOK_LIMIT.as_secs() + CLOSE_LIMIT.as_secs() < 10);

/// Connections to PostgreSQL: a table that is locked keeps one, and must keep nothing else from being looked at.
const CONNECTIONS: Connections = Connections { batches: 1, readers: 1, others: 6 };

/// The arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Pipelines in this process, each a member of the group
    #[arg(long, env = "STOCK_VERIFIER_WORKERS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,

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
        u32::from(self.workers) + CONNECTIONS_READERS + CONNECTIONS_BACKGROUND
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
    let mut findings = look_at_database(&args, &url).await;
    report::sort(&mut findings);
    let text = if args.json {
        report::json(&findings).context("the report cannot be written")?
    } else {
        report::text(&findings, begun.elapsed())
    };
    console::print(&text)?;
    Ok(if report::worst(&findings) < Severity::Warning { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look_at_database(args: &DoctorArgs, url: &DatabaseUrl) -> Vec<Finding> {
    let check = "database.connection";
    let Ok(opened) = tokio::time::timeout(CONNECT_LIMIT, open(url)).await else {
        let what = format!("the database says nothing for {CONNECT_LIMIT:?}");
        return vec![Finding::error(check, what, DATABASE_AWAY)];
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let what = format!("the ledger cannot be opened: {}", database::chain(&error));
            return vec![Finding::error(check, what, DATABASE_AWAY)];
        }
    };
    let facts = store.examine(LOOK_LIMIT).await;
    let mut findings = vec![Finding::ok(check, "the database answers")];
    findings.extend(database::judge(&facts, &args.group.group, args.connections_of_run()));
    // What is not closed by then ends with the process.
    let _ = tokio::time::timeout(CLOSE_LIMIT, store.close()).await;
    findings
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
