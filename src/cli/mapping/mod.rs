//! `stock-verifier mapping`: shows what mappings make of records, and those that are built in.

mod records;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::report::Shown;
use super::mappings;
use super::mappings::program;
use crate::config::{KafkaArgs, ProgramSource, parse_program};
use crate::console;
use crate::event::read_and_show;
use crate::mapping::{PRESETS, preset};

/// The commands about mappings.
#[derive(Debug, Subcommand)]
pub enum MappingCommand {
    /// Show for each record what comes out, and why not
    ///
    /// Nothing is sent or changed. Exit status: 0 when every record is a command or asks for nothing; 1 when one would be a
    /// dead letter, would be refused, or takes too long; 2 when it could not be done.
    Test(TestArgs),
    /// List the mappings that are built in
    List(ListArgs),
    /// Print the program of one that is built in, to be used or changed
    Show(ShowArgs),
}

/// The arguments of `mapping test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files with one JSON value a line; or one record a line, as `kcat -J` prints them
    #[arg(value_name = "FILE", required_unless_present = "from")]
    files: Vec<PathBuf>,

    /// The program; without one, records are read as they are
    #[arg(long, value_name = "FILE.jq|preset:NAME", value_parser = parse_program)]
    mapping: Option<ProgramSource>,

    /// Read this topic, beside files or instead of them
    #[arg(long, value_name = "TOPIC")]
    from: Option<String>,

    /// Most records of the topic, from its first one on
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "from")]
    limit: usize,

    /// Print JSON, one object a line, instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The arguments of `mapping list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The arguments of `mapping show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its name; `?id={shop}-{id}` after it makes ids so
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs one of them.
///
/// # Errors
/// When something cannot be read, or a program does not compile.
pub fn run(command: MappingCommand) -> Result<ExitCode> {
    match command {
        MappingCommand::Test(args) => test(&args),
        MappingCommand::List(args) => list(&args),
        MappingCommand::Show(args) => show(&args),
    }
}

fn test(args: &TestArgs) -> Result<ExitCode> {
    let mapping = args.mapping.as_ref().map(program).transpose()?;
    let mut records = Vec::new();
    for file in &args.files {
        records.extend(records::of_file(file)?);
    }
    if let Some(topic) = &args.from {
        records.extend(records::of_topic(&args.kafka, topic, args.limit)?);
    }
    let shown: Vec<Shown> = records
        .into_iter()
        .map(|(name, record)| {
            let (reading, value) = read_and_show(&record, mapping.as_ref());
            Shown::of(name, reading, value)
        })
        .collect();
    console::print(&if args.json { report::json(&shown)? } else { report::table(&shown) })?;
    Ok(if shown.iter().all(Shown::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(args: &ListArgs) -> Result<ExitCode> {
    let each: Vec<(&str, &str)> = PRESETS.iter().map(|preset| (preset.name, preset.summary())).collect();
    console::print(&if args.json { report::list_json(&each)? } else { report::list(&each) })?;
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ShowArgs) -> Result<ExitCode> {
    let named = format!("preset:{}", args.name.trim_start_matches("preset:"));
    let Ok(ProgramSource::Preset { name, id_template }) = parse_program(&named) else {
        bail!("{:?} is no name of a built-in mapping: see `mapping list`", args.name);
    };
    // It is compiled once, so that nothing is printed that cannot be used.
    mappings::program(&ProgramSource::Preset { name: name.clone(), id_template: id_template.clone() })?;
    console::print(&preset(&name, id_template.as_deref())?)?;
    Ok(ExitCode::SUCCESS)
}
