//! `stock-verifier completions`: what makes a shell complete the program's commands and flags.

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::console;

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    // The bare flags: neither a settings file nor the environment gets into it.
    let mut command = super::Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut command, name, &mut script);
    let script = String::from_utf8(script).context("the completions are not UTF-8")?;
    console::print(&match args.shell {
        // clap_complete 4.6.11 writes a hyphen of the program's name in two ways, and then completes no subcommand.
        Shell::Bash => script.replace("stock__subcmd__verifier", "stock__verifier"),
        _ => script,
    })
}
