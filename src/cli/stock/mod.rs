//! `stock-verifier stock`: loads and shows levels and limits. Each change is a command like any other, with its decision
//! and its movement in the ledger.

mod adjust;
mod export;
mod get;
mod import;
mod import_report;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

pub use adjust::{AdjustArgs, MoveArgs, ReceiveArgs};
pub use get::GetArgs;
pub(super) use import::read_levels_file;
pub use import::{FeedArgs, ImportArgs};
pub use state::{LimitsArgs, SetArgs};
pub use watch::WatchArgs;

use super::open::{Access, FEW_CONNECTIONS, open_ledger, open_or_stand_in};
use crate::config::DatabaseArgs;
use crate::console;
use crate::ledger::{CommandKey, Decision, Item, Location, Outcome, Reason, Sku};
use crate::store::{LedgerReader, Store};

/// The arguments of `stock`.
#[derive(Debug, Args)]
pub struct StockArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(subcommand)]
    command: StockCommand,
}

/// The commands about levels.
#[derive(Debug, Subcommand)]
pub enum StockCommand {
    /// Set the levels that a stock feed states, or add what it says came in
    ///
    /// The file is CSV (or has tabs, semicolons or bars for commas) with the header `sku,available` (or `sku,quantity`),
    /// and maybe a column `location`, empty for the default location; JSON lines with such fields; or Google's local
    /// inventory feed. Each SKU stands once at each location. All of it is checked first: with one bad row nothing is
    /// imported, unless with --skip-bad.
    ///
    /// Rows are done 2,000 at a time, so that orders of the same items wait a moment only. An import that was interrupted
    /// goes on where it stopped when it is run again: each row has an id made of the file's content and
    /// the row's number, so that what was done is not done again. For the same reason importing the very same file later
    /// changes nothing; give it another --name to import it once more.
    Import(ImportArgs),
    /// Print all levels as a CSV file that `stock import` takes
    ///
    /// Limits are not in it: `stock get --json` has them. A level below zero is left out, since none can be set.
    Export,
    /// Add pieces that came in to the level of one SKU
    Receive(ReceiveArgs),
    /// Change the level of one SKU by pieces that were found or are missing
    Adjust(AdjustArgs),
    /// Set the level of one SKU
    Set(SetArgs),
    /// State the limits of one SKU: both of them, so that one left out is lifted
    Limits(LimitsArgs),
    /// Show levels and limits: of these SKUs, or of all
    Get(GetArgs),
    /// Follow the level of a SKU: print it, then each change with what caused it, until Ctrl-C
    ///
    /// A look-up by key in each interval; changes in between come together, each by itself, the newest 1,000 of each
    /// location. While the ledger cannot be read it waits, and says so. Exit status: 0 stopped, or nobody reads any more; 1
    /// no stock of it was ever recorded, or the ledger is refused; 2 wrong arguments.
    Watch(WatchArgs),
}

/// Runs a command about levels on the ledger the settings name.
///
/// # Errors
/// When the command's input is wrong, a level is not as expected, or the database fails.
pub async fn run(args: StockArgs) -> Result<ExitCode> {
    let prepared = prepare(args.command)?;
    let is_for_programs = matches!(&prepared, Prepared::DryRun(import) if import.json);
    let (store, standing_in) = open(&args.database, &prepared).await?;
    let done = apply(prepared, &store).await;
    store.close().await;
    if standing_in.is_some() {
        let said = "There is no ledger yet: an import creates it.";
        if is_for_programs { console::say(said) } else { console::print(&format!("{said}\n"))? }
    }
    console::print(&done?)?;
    Ok(ExitCode::SUCCESS)
}

async fn open(
    database: &DatabaseArgs,
    command: &Prepared,
) -> Result<(Arc<dyn Store>, Option<tempfile::TempDir>)> {
    let url = database.url()?;
    // An import would create a SQLite ledger.
    if matches!(command, Prepared::DryRun(_)) && url.expose().starts_with("sqlite:") {
        return Ok(open_or_stand_in(&url, FEW_CONNECTIONS).await?);
    }
    Ok((open_ledger(database, FEW_CONNECTIONS, command.access()).await?, None))
}

/// Runs a command about levels on a ledger; what it prints.
///
/// # Errors
/// As [`run`].
pub async fn execute(command: StockCommand, store: &Arc<dyn Store>) -> Result<String> {
    apply(prepare(command)?, store).await
}

/// A command whose input was read and checked.
enum Prepared {
    Import(import::Import),
    DryRun(import::Import),
    Export,
    Receive(ReceiveArgs),
    Adjust(AdjustArgs),
    Set(SetArgs),
    Limits(LimitsArgs),
    Get(GetArgs),
    Watch(WatchArgs),
}

impl Prepared {
    /// What it does to the ledger.
    fn access(&self) -> Access {
        match self {
            Self::Import(_) => Access::WriteOrCreate,
            Self::Receive(_) | Self::Adjust(_) | Self::Set(_) | Self::Limits(_) => Access::Write,
            Self::DryRun(_) | Self::Export | Self::Get(_) | Self::Watch(_) => Access::Read,
        }
    }
}

/// Reads and checks what a command brings along, before any ledger is opened.
fn prepare(command: StockCommand) -> Result<Prepared> {
    Ok(match command {
        StockCommand::Import(args) if args.dry_run => Prepared::DryRun(import::prepare(&args)?),
        StockCommand::Import(args) => Prepared::Import(import::prepare(&args)?),
        StockCommand::Export => Prepared::Export,
        StockCommand::Receive(args) => Prepared::Receive(args),
        StockCommand::Adjust(args) => Prepared::Adjust(args),
        StockCommand::Set(args) => Prepared::Set(args),
        StockCommand::Limits(args) => Prepared::Limits(args),
        StockCommand::Get(args) => Prepared::Get(args),
        StockCommand::Watch(args) => Prepared::Watch(args),
    })
}

async fn apply(command: Prepared, store: &Arc<dyn Store>) -> Result<String> {
    match command {
        Prepared::Import(import) => import::import(import, &**store).await,
        Prepared::DryRun(import) => import::look(import, &**store).await,
        Prepared::Export => export::export(&**store).await,
        Prepared::Receive(args) => adjust::receive(args, &**store).await,
        Prepared::Adjust(args) => adjust::adjust(args, &**store).await,
        Prepared::Set(args) => state::set(args, &**store).await,
        Prepared::Limits(args) => state::limits(args, &**store).await,
        Prepared::Get(args) => get::get(args, &**store).await,
        // It prints as it goes.
        Prepared::Watch(args) => watch::watch(args, &**store).await.map(|()| String::new()),
    }
}

/// What the ledger answered, where that is not what an operator's command expects.
fn answered(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Decided(decision) | Outcome::Republished(decision) => verdict(decision),
        Outcome::Repeated => "this was decided before, and is not done again".to_owned(),
        Outcome::Conflict { .. } => "this id was decided before, for something else".to_owned(),
        Outcome::NotDue => "nothing was due".to_owned(),
        Outcome::Undecided => {
            "it was applied before, but its decision is not there: run `stock-verifier audit`".to_owned()
        }
    }
}

/// What a decision says, in short.
fn verdict(decision: &Decision) -> String {
    let verdict = if decision.accepted { "accepted" } else { "rejected" };
    let reasons = decision.reasons().unwrap_or_default();
    let reasons: Vec<&str> = reasons.iter().map(Reason::name).collect();
    format!("{} was {verdict} {}", decision.key, reasons.join(", ")).trim_end().to_owned()
}

/// The decision of a command that the ledger answered with [`Outcome::Repeated`]: that says that there is one, and not
/// whether it was accepted.
async fn first_decision(of: &CommandKey, store: &dyn LedgerReader) -> Result<Decision> {
    store.decision(of).await?.with_context(|| not_there(of))
}

/// What is said of a command that was decided before, where nothing is found of that.
fn not_there(of: &CommandKey) -> String {
    format!("{of} was decided before, but its decision is not there: run `stock-verifier audit`")
}

/// The item of these arguments.
fn item(sku: &str, location: Option<&str>) -> Result<Item> {
    let location = location
        .map(|text| Location::new(text).with_context(|| format!("the location {text:?}")))
        .transpose()?;
    Ok(Item { sku: Sku::new(sku).with_context(|| format!("the SKU {sku:?}"))?, location })
}
