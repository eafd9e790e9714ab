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
mod open;
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

use anyhow::{Context as _, Result, anyhow};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::causes;
use crate::console;
use crate::replay::Stopped;

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

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::{
        BatchArgs, DatabaseArgs, GroupArgs, HttpArgs, KafkaArgs, LevelsArgs, MappingArgs, RedisArgs,
        RegistryArgs, TopicArgs,
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
