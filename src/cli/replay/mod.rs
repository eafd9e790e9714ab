//! `stock-verifier replay`: compares, republishes, asks again, rebuilds, simulates.

pub mod patches;
pub mod record_filter;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;

use self::patches::PatchArgs;
use self::record_filter::{ChoiceArgs, RangeArgs};
use super::findings::ReportJson;
use super::open::{Access, FEW_CONNECTIONS, open_ledger, open_or_stand_in, open_url};
use super::progress::Shown;
use super::stock::read_levels_file;
use super::{EXIT_INTERRUPTED, mappings};
use crate::config::{
    DatabaseArgs, DatabaseUrl, KafkaArgs, MappingArgs, RegistryArgs, SecretParser, TopicArgs,
    parse_database_url,
};
use crate::console;
use crate::event::FaultCode;
use crate::ledger::{Item, NextOffset, TopicPartition};
use crate::replay::compare;
use crate::replay::record_filter::RecordFilter;
use crate::replay::scope::Scope;
use crate::replay::{rebuild, reprocess, republish, simulate};
use crate::store::{LedgerHistory, Store};

/// What every replay needs.
#[derive(Debug, Args)]
pub struct Common {
    /// The consumer group that shares the orders; its committed offsets say what is published
    #[arg(long, env = "STOCK_VERIFIER_GROUP", value_name = "GROUP", default_value = "stock-verifier")]
    group: String,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// For the commands that read records whose decisions they do not have beside them.
#[derive(Debug, Args)]
struct NoRegistryArgs {
    /// Say that the verifier has no schema registry: what one's schemas wrote is a dead letter, and passed over
    #[arg(long, conflicts_with = "schema_registry_url")]
    without_schema_registry: bool,
}

/// The commands of `replay`.
///
/// Nothing changes without --execute. Exit status: 0 done, and nothing differs; 1 something differs, nothing is known of an id
/// or SKU that was named, or a simulation could not read a command; 2 it could not be done; 130 stopped by Ctrl-C, with nothing
/// half done.
#[derive(Debug, Subcommand)]
pub enum ReplayCommand {
    /// Decide the chosen records again, and compare with what is stored and what was published
    Diff(DiffArgs),
    /// Publish stored decisions again: the same events with the same ids
    Republish(RepublishArgs),
    /// Ask commands again that are not decided, or dead letters once repaired
    Reprocess(ReprocessArgs),
    /// Make a new ledger from the topics, in the old one's order when it is there
    Rebuild(RebuildArgs),
    /// Say what would have happened with other levels
    Simulate(SimulateArgs),
}

/// The arguments of `replay diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: ChoiceArgs,
}

/// The arguments of `replay republish`.
#[derive(Debug, Args)]
pub struct RepublishArgs {
    /// Publish to this topic instead of the result topics
    #[arg(long, value_name = "TOPIC")]
    to_topic: Option<String>,

    /// Do it; else it is only said what would be done
    #[arg(long)]
    execute: bool,

    // Before those that stand under headings.
    #[command(flatten)]
    no_registry: NoRegistryArgs,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: ChoiceArgs,
}

/// The arguments of `replay reprocess`.
#[derive(Debug, Args)]
pub struct ReprocessArgs {
    /// Take the dead letters, instead of the orders and adjustments
    #[arg(long)]
    dead_letters: bool,

    /// Of the dead letters, those of this error; may be given many times
    #[arg(long, value_name = "CLASS", requires = "dead_letters",
          value_parser = PossibleValuesParser::new(FaultCode::ALL.map(FaultCode::name)))]
    error: Vec<String>,

    #[command(flatten)]
    patches: PatchArgs,

    /// Do it; else it is only said what would be done
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: ChoiceArgs,
    #[command(flatten)]
    mappings: MappingArgs,
}

/// The arguments of `replay rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// The new ledger.
    #[arg(long, env = "STOCK_VERIFIER_INTO", value_name = "URL", value_parser = SecretParser(parse_database_url),
          help = "The new ledger, empty or begun before: postgres://USER@HOST/DB or sqlite://FILE",
          hide_env_values = true, hide_default_value = true)]
    into: DatabaseUrl,

    /// A file that holds the password of the new ledger's database, so that it is in no URL
    #[arg(long, env = "STOCK_VERIFIER_INTO_PASSWORD_FILE", value_name = "FILE")]
    into_password_file: Option<PathBuf>,

    /// Do not follow the old ledger, whose sequence and time of each decision are then lost
    #[arg(long)]
    from_topics_alone: bool,

    /// Do it; else it is only said what would be done
    #[arg(long)]
    execute: bool,

    // Before those that stand under headings.
    #[command(flatten)]
    no_registry: NoRegistryArgs,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    mappings: MappingArgs,
}

/// The arguments of `replay simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The levels to begin with: CSV with the header `sku,available`, and maybe a column `location`
    #[arg(long, value_name = "FILE.csv")]
    levels: PathBuf,

    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    range: RangeArgs,
}

/// Runs a replay. Exit status: 0 done, and nothing differs; 1 something differs; 130 stopped, and said how to go on.
///
/// # Errors
/// When it could not be done, or was stopped.
pub async fn run(command: ReplayCommand) -> Result<ExitCode> {
    command.common().topics.check()?;
    match command {
        ReplayCommand::Diff(args) => diff(args).await,
        ReplayCommand::Republish(args) => republish(args).await,
        ReplayCommand::Reprocess(args) => reprocess(args).await,
        ReplayCommand::Rebuild(args) => rebuild(args).await,
        ReplayCommand::Simulate(args) => simulate(args).await,
    }
}

impl ReplayCommand {
    fn common(&self) -> &Common {
        match self {
            Self::Diff(DiffArgs { common, .. })
            | Self::Republish(RepublishArgs { common, .. })
            | Self::Reprocess(ReprocessArgs { common, .. })
            | Self::Rebuild(RebuildArgs { common, .. })
            | Self::Simulate(SimulateArgs { common, .. }) => common,
        }
    }
}

impl Common {
    fn scope<'a>(&'a self, filter: &'a RecordFilter) -> Scope<'a> {
        let Self { kafka, topics, registry, group, .. } = self;
        Scope { kafka, topics, registry, without_registry: false, group, filter, since: None }
    }

    async fn ledger(&self) -> Result<Arc<dyn Store>> {
        Ok(open_ledger(&self.database, FEW_CONNECTIONS, Access::Read).await?)
    }

    /// Prints a report: for machines as JSON, else for people.
    fn print<T: Serialize>(&self, report: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json {
            let report = serde_json::to_string_pretty(report).context("the report cannot be written")?;
            console::print(&(report + "\n"))
        } else {
            console::print(&text(report))
        }
    }
}

async fn diff(args: DiffArgs) -> Result<ExitCode> {
    let filter = args.filter.filter()?;
    let store = args.common.ledger().await?;
    let shown = Shown::new("comparing");
    let report = compare::with_topics(&*store, args.common.scope(&filter), &shown.progress).await;
    drop(shown);
    store.close().await;
    let report = report?;
    args.common.print(&ReportJson::from(&report), |_| report::diff(&report))?;
    Ok(if report.is_clean() { status_of_named(&report.unknown) } else { ExitCode::FAILURE })
}

/// The exit status of a work that is done, where ids and SKUs were named: one of which nothing is known may be mistyped,
/// and nothing was done about what was meant.
fn status_of_named(unknown: &[String]) -> ExitCode {
    if unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn republish(args: RepublishArgs) -> Result<ExitCode> {
    if let Some(topic) = &args.to_topic {
        args.common.topics.check_other("--to-topic", topic)?;
    }
    let filter = args.filter.filter()?;
    let store = args.common.ledger().await?;
    let shown = Shown::new(if args.execute { "publishing again" } else { "looking" });
    let without_registry = args.no_registry.without_schema_registry;
    let scope = Scope { without_registry, ..args.common.scope(&filter) };
    let to = args.to_topic.as_deref();
    let report = republish::republish(&*store, scope, to, args.execute, &shown.progress).await;
    drop(shown);
    store.close().await;
    let report = report?;
    args.common.print(&report, report::republish)?;
    Ok(stopped(report.stopped_at.as_ref()).unwrap_or_else(|| status_of_named(&report.unknown)))
}

async fn reprocess(args: ReprocessArgs) -> Result<ExitCode> {
    let filter = args.filter.filter()?;
    let repairs = args.patches.repairs()?;
    let mappings = mappings::load(&args.mappings, &args.common.topics)?;
    let from = if args.dead_letters {
        reprocess::From::DeadLetters(args.error.iter().cloned().collect::<BTreeSet<_>>())
    } else {
        reprocess::From::Sources
    };
    let store = args.common.ledger().await?;
    let shown = Shown::new(if args.execute { "asking again" } else { "looking" });
    let scope = args.common.scope(&filter);
    let report =
        reprocess::reprocess(&*store, scope, &from, &repairs, &mappings, args.execute, &shown.progress).await;
    drop(shown);
    store.close().await;
    let report = report?;
    args.common.print(&report, report::reprocess)?;
    Ok(stopped(report.stopped_at.as_ref()).unwrap_or_else(|| status_of_named(&report.unknown)))
}

/// The exit status of a work that was stopped; where that was is said in the lines of a positions file.
fn stopped(at: Option<&BTreeMap<TopicPartition, NextOffset>>) -> Option<ExitCode> {
    let reached = at?;
    console::say(
        "stopped, with nothing half done. To go on, put these lines into a file and give it as --positions-file:",
    );
    for (at, next) in reached {
        console::say(&format!("{} {} {next}", at.topic, at.partition));
    }
    Some(ExitCode::from(EXIT_INTERRUPTED))
}

async fn rebuild(args: RebuildArgs) -> Result<ExitCode> {
    let filter = RecordFilter::all();
    let mappings = mappings::load(&args.mappings, &args.common.topics)?;
    let old = if args.from_topics_alone { None } else { Some(args.common.ledger().await?) };
    let into = args.into.with_password_of(args.into_password_file.as_deref())?;
    if args.common.database.url().is_ok_and(|url| url.expose() == into.expose()) {
        bail!("--into names the ledger itself: name an empty database");
    }
    let opened = if args.execute {
        open_url(&into, FEW_CONNECTIONS, Access::Migrate).await.map(|store| (store, None))
    } else {
        open_or_stand_in(&into, FEW_CONNECTIONS).await
    };
    let (into, _directory) = opened.context("the ledger that --into names")?;
    let shown = Shown::new(if args.execute { "rebuilding" } else { "looking" });
    let without_registry = args.no_registry.without_schema_registry;
    let scope = Scope { without_registry, ..args.common.scope(&filter) };
    let history = old.as_deref().map(|old| old as &dyn LedgerHistory);
    let report = rebuild::rebuild(history, &*into, scope, &mappings, args.execute, &shown.progress).await;
    drop(shown);
    into.close().await;
    if let Some(old) = &old {
        old.close().await;
    }
    let report = report?;
    args.common.print(&report, |report| report::rebuild(report, old.is_some()))?;
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn simulate(args: SimulateArgs) -> Result<ExitCode> {
    let filter = args.range.filter();
    let levels: BTreeMap<Item, i64> = read_levels_file(&args.levels)?.into_iter().collect();
    let store = args.common.ledger().await?;
    let shown = Shown::new("simulating");
    let report = simulate::simulate(&*store, args.common.scope(&filter), &levels, &shown.progress).await;
    drop(shown);
    store.close().await;
    let report = report?;
    args.common.print(&report, report::simulate)?;
    Ok(if report.left_out.unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
