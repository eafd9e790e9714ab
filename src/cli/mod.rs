//! One file a command; here is what they share: arguments, the settings file, logging, exit statuses.

pub mod audit;
pub mod completions;
pub mod demo;
pub mod doctor;
mod findings;
pub mod gate;
mod hangup;
mod instance;
mod log;
pub mod mapping;
mod mappings;
pub mod migrate;
pub mod orders;
mod progress;
mod reads;
pub mod replay;
mod retention;
pub mod run;
pub mod schema;
pub mod settings_file;
pub mod settings_page;
mod signals;
mod start_checks;
pub mod stock;
pub mod topics;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::causes;
use crate::config::{DatabaseArgs, DatabaseUrl};
use crate::console;
use crate::replay::Stopped;
use crate::store::postgres::{Connections, PostgresStore};
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{LedgerAdmin as _, Store, StoreError};

/// Connections to PostgreSQL for a command that does one thing at a time.
const FEW_CONNECTIONS: Connections = Connections { batches: 1, readers: 1, others: 2 };

/// Verifies stock for orders from Kafka: never oversold, each order decided once, every deduction in a ledger.
#[derive(Debug, Parser)]
// The last of a flag given twice counts, so that a wrapper's can be overridden.
#[command(name = "stock-verifier", version, about, propagate_version = true, args_override_self = true)]
struct Cli {
    /// A TOML file of settings, under the names of the flags; flags and environment are stronger
    #[arg(long, env = "STOCK_VERIFIER_CONFIG", value_name = "FILE", global = true)]
    config: Option<std::path::PathBuf>,

    /// How the log looks
    #[arg(long, env = "STOCK_VERIFIER_LOG_FORMAT", value_enum, default_value_t = log::LogFormat::Pretty, global = true)]
    log_format: log::LogFormat,

    /// What is logged: a level, or one for each target (info,rdkafka=debug). Default: what the variable `RUST_LOG` says,
    /// else info
    #[arg(long, env = "STOCK_VERIFIER_LOG", value_name = "FILTER", value_parser = log::parse_filter, global = true)]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify orders until stopped
    Run(run::RunArgs),
    /// Create the topics, or check them
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// Create or update the ledger's tables
    Migrate(migrate::MigrateArgs),
    /// Show it all at work with nothing installed: a broker in this process, a SQLite file, sample orders
    Demo(demo::DemoArgs),
    /// Load, show and follow levels
    Stock(stock::StockArgs),
    /// Show what became of an order
    Orders(orders::OrdersArgs),
    /// Show what mappings make of records, and the mappings that are built in
    #[command(subcommand)]
    Mapping(mapping::MappingCommand),
    /// Look for what is wrong, or soon will be, with Kafka, the database and the settings, and say what to do
    ///
    /// Nothing is changed. Give it the settings of `run`, and the user and role of it: what they may not do is found by
    /// asking as them. Within 10 s, whatever hangs. Exit status: 0 when there is nothing to do (notes may be); 1 when there
    /// is a warning or an error; 2 when it could not be done, or the arguments are wrong.
    Doctor(doctor::DoctorArgs),
    /// Let orders in by HTTP, in front of Kafka, by amounts cached in Redis; open and close a sale
    ///
    /// Estimates only: what is let in goes to Kafka, and is decided by the verifier like anything else. See docs/gate.md.
    Gate(gate::GateArgs),
    /// Prove that the ledger's invariants hold
    Audit(audit::AuditArgs),
    /// Look at what was decided again: compare, republish, ask again, rebuild, simulate
    ///
    /// Nothing changes without --execute. Exit status: 0 done, and nothing differs; 1 something differs; 2 it could not
    /// be done; 130 stopped by Ctrl-C, with nothing half done.
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// Print the JSON Schemas, the AsyncAPI document and the OpenAPI document
    Schema(schema::Args),
    /// Print the page of all settings
    Settings(settings_page::SettingsArgs),
    /// Print what makes a shell complete this program's commands and flags
    ///
    /// bash: `stock-verifier completions bash > /etc/bash_completion.d/stock-verifier`; zsh: into a file `_stock-verifier` in
    /// a folder of `$fpath`; fish: into `~/.config/fish/completions/stock-verifier.fish`.
    Completions(completions::CompletionsArgs),
}

/// Exit status of a doctor, an audit or a replay that could not be done: 1 says that something was found.
const EXIT_TROUBLE: u8 = 2;
/// Exit status after Ctrl-C: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the command that the arguments name. Exit status: 0 done, 1 failed or refused, 2 wrong arguments. Doctor,
/// audits and replays say 1 when they found something, and 2 when they could not be done.
#[must_use]
pub fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!("{}", causes::of(error.as_ref()));
            } else {
                // The settings say how the log looks, and they could not be read.
                console::say(&format!("error: {}", causes::of(error.as_ref())));
            }
            ExitCode::FAILURE
        }
    }
}

/// The settings as they are now: the file may have changed since the start.
///
/// # Errors
/// When the file cannot be read, or what stands there is wrong.
fn settings_again() -> Result<Cli> {
    let command = settings_file::with_defaults(Cli::command(), std::env::args_os())?;
    // Its text is for a terminal, with an end of line.
    parse(command, std::env::args_os()).map_err(|error| anyhow!("{}", error.to_string().trim_end()))
}

fn start() -> Result<ExitCode> {
    let command = settings_file::with_defaults(Cli::command(), std::env::args_os())?;
    let cli = parse(command, std::env::args_os()).unwrap_or_else(|error| error.exit());
    // The demo tells its own story; only what goes wrong belongs in between.
    let level = match cli.command {
        Command::Demo(_) => log::DEMO_LOG,
        Command::Doctor(_) => log::DOCTOR_LOG,
        _ => log::USUAL_LOG,
    };
    log::begin(cli.log_format, cli.log.as_deref(), level);
    // Two threads wait on the database; librdkafka and the stages have their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Topics(command) => topics::run(command).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Stock(args) => stock::run(args).await,
            Command::Orders(args) => orders::run(args).await,
            Command::Mapping(command) => Ok(status_of(mapping::run(command))),
            Command::Doctor(args) => Ok(status_of(doctor::run(args).await)),
            Command::Gate(args) => gate::run(args).await,
            Command::Audit(args) => Ok(status_of(audit::run(args).await)),
            Command::Replay(command) => Ok(status_of(replay::run(command).await)),
            Command::Schema(args) => schema::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Settings(args) => settings_page::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Completions(args) => completions::run(&args).map(|()| ExitCode::SUCCESS),
        }
    });
    // A call into librdkafka that hangs must not keep the process: what is decided is in the ledger.
    runtime.shutdown_background();
    code
}

fn parse(
    command: clap::Command,
    arguments: impl Iterator<Item = std::ffi::OsString>,
) -> Result<Cli, clap::Error> {
    let mut matches = command.try_get_matches_from(arguments).map_err(concealed)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(concealed)
}

/// An error of the command line without what may be a secret: clap repeats a text that it does not expect where it
/// stands, and that may be a database's URL, or a property after a flag that is mistyped.
fn concealed(mut error: clap::Error) -> clap::Error {
    let found: Vec<ContextKind> = error
        .context()
        .filter(|(_, value)| matches!(value, ContextValue::String(text) if may_hold_a_secret(text)))
        .map(|(kind, _)| kind)
        .collect();
    for kind in &found {
        error.insert(*kind, ContextValue::String("…".to_owned()));
    }
    if !found.is_empty() {
        // "to pass '…' as a value" repeats it.
        error.insert(ContextKind::Suggested, ContextValue::None);
    }
    error
}

/// Whether this is a URL, or a property. A flag with the name of its value (`--property <KEY=VALUE>`) is none.
fn may_hold_a_secret(text: &str) -> bool {
    text.contains("://") || (text.contains('=') && !text.contains('<'))
}

/// The exit status of a doctor, an audit or a replay: what it came to; 130 when it was stopped, 2 when it could not be done.
fn status_of(done: Result<ExitCode>) -> ExitCode {
    match done {
        Ok(status) => status,
        Err(error) if error.is::<Stopped>() => {
            console::say(&error.to_string());
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => {
            tracing::error!("{}", causes::of(error.as_ref()));
            ExitCode::from(EXIT_TROUBLE)
        }
    }
}

/// How often a database that is read-only is looked at again: it costs a connection.
const READ_ONLY_LOOK: Duration = Duration::from_secs(1);
/// How often the log says that it still is.
const READ_ONLY_SAY: Duration = Duration::from_secs(10);

/// [`open_ledger`] for who writes to it until stopped: waits while the database is read-only, as it is after a failover
/// or when its disk is nearly full. Where it was once reached, being away is waited for too.
async fn open_for_writing(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>> {
    let mut said: Option<Instant> = None;
    loop {
        let error = match open_writable(args, connections, access).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        match error.downcast_ref::<StoreError>() {
            Some(StoreError::ReadOnly { .. }) => {}
            Some(away) if away.is_transient() && said.is_some() => {}
            _ => return Err(error),
        }
        if said.is_none_or(|at| at.elapsed() >= READ_ONLY_SAY) {
            tracing::warn!("waiting until the ledger can be written: {}", causes::of(error.as_ref()));
            said = Some(Instant::now());
        }
        tokio::time::sleep(READ_ONLY_LOOK).await;
    }
}

async fn open_writable(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>> {
    let store = open_ledger(args, connections, access).await?;
    if let Err(refused) = store.check_writable().await {
        store.close().await;
        return Err(refused.into());
    }
    Ok(store)
}

/// What a command does to the ledger that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// It reads: nothing is created, migrated or written.
    Read,
    /// It writes to a ledger that is there, with the tables of this program.
    Write,
    /// The same, and a SQLite file that is not there is created: nobody else could, and PostgreSQL has an administrator.
    WriteOrCreate,
    /// It creates or updates the tables first, and a SQLite file.
    Migrate,
}

impl Access {
    /// For who migrates when asked to.
    fn migrating(asked: bool) -> Self {
        if asked { Self::Migrate } else { Self::Write }
    }
}

/// Opens the ledger that the settings name, ready for use.
async fn open_ledger(
    args: &DatabaseArgs,
    connections: Connections,
    access: Access,
) -> Result<Arc<dyn Store>> {
    open_url(&args.url()?, connections, access).await
}

/// The same of a URL.
async fn open_url(url: &DatabaseUrl, connections: Connections, access: Access) -> Result<Arc<dyn Store>> {
    let (url, password) = (url.expose(), url.password());
    if url.starts_with("sqlite:") {
        return open_sqlite(url, access).await;
    }
    let cannot = "cannot open the ledger that --database-url names (check it, and --database-password-file)";
    let store: Arc<dyn Store> =
        Arc::new(PostgresStore::open_with_password(url, password, connections).await.context(cannot)?);
    prepare(&*store, access == Access::Migrate, access == Access::Migrate).await?;
    Ok(store)
}

async fn open_sqlite(url: &str, access: Access) -> Result<Arc<dyn Store>> {
    let file_access = match access {
        Access::Read => FileAccess::Read,
        Access::Write => FileAccess::Write,
        Access::WriteOrCreate | Access::Migrate => FileAccess::Create,
    };
    // No secret is in the URL of a file.
    let store =
        SqliteStore::open_for(url, file_access).await.with_context(|| format!("cannot open {url}"))?;
    let file = store.file().display().to_string();
    let prepared = prepare(&store, file_access == FileAccess::Create, access == Access::Migrate).await;
    if prepared.with_context(|| format!("the ledger {file}"))? {
        tracing::info!("created the ledger {file}");
    }
    Ok(Arc::new(store))
}

/// Makes a ledger ready for use, as far as that is allowed: with tables where there are none, and with the newest.
/// Whether there were none. One that cannot be used is closed, so that SQLite leaves no files beside it.
async fn prepare(store: &dyn Store, may_create: bool, may_update: bool) -> Result<bool, StoreError> {
    let prepared = check_or_migrate(store, may_create, may_update).await;
    if prepared.is_err() {
        store.close().await;
    }
    prepared
}

async fn check_or_migrate(store: &dyn Store, may_create: bool, may_update: bool) -> Result<bool, StoreError> {
    let is_new = match store.check().await {
        Err(StoreError::Unmigrated) if may_create => true,
        Err(StoreError::Outdated { .. }) if may_update => false,
        checked => return checked.map(|()| false),
    };
    store.migrate().await?;
    store.check().await?;
    Ok(is_new)
}

/// Opens a ledger to look at what would be done to it. Where there is none yet, an empty one stands in, in a directory
/// that goes with it, so that looking creates nothing.
async fn open_or_stand_in(
    url: &DatabaseUrl,
    connections: Connections,
) -> Result<(Arc<dyn Store>, Option<tempfile::TempDir>)> {
    let error = match open_url(url, connections, Access::Read).await {
        Ok(store) => return Ok((store, None)),
        Err(error) => error,
    };
    if !matches!(error.downcast_ref(), Some(StoreError::Missing { .. } | StoreError::Unmigrated)) {
        return Err(error);
    }
    let directory = tempfile::tempdir().context("cannot make a directory for an empty ledger")?;
    let store =
        SqliteStore::open(&format!("sqlite://{}", directory.path().join("empty.db").display())).await?;
    store.migrate().await?;
    Ok((Arc::new(store), Some(directory)))
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::{
        BatchArgs, GroupArgs, HttpArgs, KafkaArgs, LevelsArgs, MappingArgs, RedisArgs, RegistryArgs,
        TopicArgs,
    };

    #[test]
    fn a_flag_that_takes_what_is_or_holds_a_secret_shows_neither_environment_nor_default() {
        fn check(command: &clap::Command, found: &mut usize) {
            for flag in command.get_arguments() {
                let names = flag.get_value_names().unwrap_or_default();
                if names.iter().any(|name| matches!(&**name, "URL" | "KEY=VALUE")) {
                    *found += 1;
                    let hidden = flag.is_hide_env_values_set() && flag.is_hide_default_value_set();
                    assert!(hidden, "{} --{}", command.get_name(), flag.get_id());
                }
            }
            command.get_subcommands().for_each(|command| check(command, found));
        }
        let mut found = 0;
        check(&Cli::command(), &mut found);
        assert!(found > 10, "{found}");
    }

    /// The flags that belong under a heading of `--help`.
    fn under_headings() -> Vec<clap::Command> {
        let augment: [fn(clap::Command) -> clap::Command; 10] = [
            KafkaArgs::augment_args,
            TopicArgs::augment_args,
            GroupArgs::augment_args,
            BatchArgs::augment_args,
            LevelsArgs::augment_args,
            DatabaseArgs::augment_args,
            HttpArgs::augment_args,
            RedisArgs::augment_args,
            RegistryArgs::augment_args,
            MappingArgs::augment_args,
        ];
        augment.into_iter().map(|augment| augment(clap::Command::new("some"))).collect()
    }

    fn check(command: &clap::Command, known: &[clap::Command]) {
        for flag in command.get_arguments() {
            let Some(heading) = flag.get_help_heading().filter(|heading| *heading != "Which records") else {
                continue;
            };
            let belongs = known
                .iter()
                .flat_map(clap::Command::get_arguments)
                .any(|known| known.get_id() == flag.get_id() && known.get_help_heading() == Some(heading));
            assert!(belongs, "{} --{} stands under {heading}", command.get_name(), flag.get_id());
        }
        command.get_subcommands().for_each(|command| check(command, known));
    }

    #[test]
    fn a_commands_own_flags_do_not_stand_under_the_heading_of_what_it_shares_with_others() {
        check(&Cli::command(), &under_headings());
    }
}
