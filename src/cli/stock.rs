//! `stock-verifier stock`: loads and shows levels. Each change is a command like any other, with its decision and
//! its movement in the ledger.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::{FEW_CONNECTIONS, open_ledger};
use crate::config::DatabaseArgs;
use crate::ledger::{Command, Id, MAX_QUANTITY, Outcome, Request, Sku};
use crate::store::{Batch, MAX_BATCH, SkuLevel, Store};

/// Rows of a long file set in one transaction: long enough to be quick, short enough for orders to pass in between.
const LONG_IMPORT_BATCH: usize = 10_000;

/// Bad rows named before the rest is only counted.
const MOST_FAULTS: usize = 20;

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
    /// Set the levels a CSV file states
    ///
    /// The file has the header `sku,available` (or `sku,quantity`), each SKU once. All of it is checked first: with
    /// one bad row nothing is imported.
    ///
    /// Up to 100,000 rows are one transaction: all or nothing. More are set 10,000 at a time, and an import that was
    /// interrupted goes on where it stopped when it is run again: each row has an id made of the file's content and
    /// its line, so that what was done is not done again. For the same reason importing the very same file later
    /// changes nothing; give it another --name to set these levels once more.
    Import(ImportArgs),
    /// Set the level of one SKU
    Set(SetArgs),
    /// Show levels: of these SKUs, or of all
    Get(GetArgs),
}

/// The arguments of `stock import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The CSV file; `-` reads standard input
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,

    /// Makes an import of the same content another import, such as the day it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,
}

/// The arguments of `stock set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which SKU
    pub sku: String,

    /// Its new level
    #[arg(value_name = "N", value_parser = clap::value_parser!(i64).range(0..=MAX_QUANTITY))]
    pub available: i64,

    /// Set it only if this is its version now, as `stock get` shows it; 0 for a SKU that is not known yet
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(i64).range(0..))]
    pub expected_version: Option<i64>,
}

/// The arguments of `stock get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which SKUs; none for all
    #[arg(value_name = "SKU")]
    pub skus: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs a command about levels on the ledger the settings name.
///
/// # Errors
/// When the command's input is wrong, a level is not as expected, or the database fails.
pub async fn run(args: StockArgs) -> Result<ExitCode> {
    let store = open_ledger(&args.database, FEW_CONNECTIONS, false).await?;
    let done = execute(args.command, &store).await;
    store.close().await;
    print!("{}", done?);
    Ok(ExitCode::SUCCESS)
}

/// Runs a command about levels on a ledger; what it prints.
///
/// # Errors
/// As [`run`].
pub async fn execute(command: StockCommand, store: &Arc<dyn Store>) -> Result<String> {
    match command {
        StockCommand::Import(args) => import(args, store).await,
        StockCommand::Set(args) => set(args, store).await,
        StockCommand::Get(args) => get(args, store).await,
    }
}

async fn import(args: ImportArgs, store: &Arc<dyn Store>) -> Result<String> {
    let content = read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let rows = read_rows(&content).with_context(|| format!("{}: nothing imported", args.file.display()))?;
    let import = import_id(&content, &args.name);
    // A file that fits in one transaction is one.
    let size = if rows.len() <= MAX_BATCH { MAX_BATCH } else { LONG_IMPORT_BATCH };
    let progress = progress(rows.len(), rows.len() > size);
    let (mut done, mut before) = (0_usize, 0_usize);
    for part in rows.chunks(size) {
        let requests = part.iter().map(|row| row.request(&import)).collect::<Result<Vec<_>>>()?;
        let applied = store
            .apply(&Batch { advances: Vec::new(), requests })
            .await
            .with_context(|| format!("stopped after {} rows; run it again to go on", done + before))?;
        for (row, outcome) in part.iter().zip(&applied.outcomes) {
            match outcome {
                Outcome::Decided(decision) if decision.accepted => done += 1,
                Outcome::Repeated | Outcome::ToldAgain(_) => before += 1,
                other => bail!("line {}: the ledger answered {other:?}", row.line),
            }
        }
        progress.inc(part.len() as u64);
    }
    progress.finish_and_clear();
    let mut text = format!("{done} levels set from {}.\n", args.file.display());
    if before > 0 {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{before} rows were set by an earlier import of this very file and were left alone. To set these levels \
             once more, give the import another --name."
        );
    }
    Ok(text)
}

fn read(file: &std::path::Path) -> std::io::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut content)?;
        return Ok(content);
    }
    std::fs::read(file)
}

/// The start of every row's id: the same for the same content and name, and for no other.
fn import_id(content: &[u8], name: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(content.len() as u64).to_le_bytes()).update(content).update(name.as_bytes());
    let hash = hasher.finalize().to_hex();
    format!("import-{}", &hash[..32])
}

/// A bar on a terminal, for an import of several steps.
fn progress(rows: usize, long: bool) -> ProgressBar {
    if !long || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // Holds because the template is a constant that the tests draw.
    let style = ProgressStyle::with_template(PROGRESS).expect("a valid template");
    ProgressBar::new(rows as u64).with_style(style)
}

const PROGRESS: &str = "{bar:40} {human_pos} of {human_len} levels, {per_sec}, {eta} left";

/// A checked row of an import.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    line: u64,
    sku: Sku,
    available: i64,
}

impl Row {
    fn request(&self, import: &str) -> Result<Request> {
        let id = Id::new(&format!("{import}-{}", self.line))?;
        Ok(Request { command: Command::stock_set(id, self.sku.clone(), self.available, None), source: None })
    }
}

/// Where the two columns are.
struct Columns {
    sku: usize,
    available: usize,
    available_name: String,
}

/// Reads and checks a whole file.
///
/// # Errors
/// One text that names every bad row by line and column, up to [`MOST_FAULTS`] of them.
fn read_rows(content: &[u8]) -> Result<Vec<Row>> {
    // Spreadsheets put a byte order mark before the header.
    let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(content);
    let columns = read_header(reader.byte_headers().context("the header cannot be read")?)?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut first_lines: HashMap<Sku, u64> = HashMap::new();
    for record in reader.byte_records() {
        let record = record.context("the file cannot be read as CSV")?;
        let line = record.position().map_or(0, csv::Position::line);
        match read_row(&record, line, &columns) {
            Ok(row) => {
                if let Some(first) = first_lines.insert(row.sku.clone(), line) {
                    faults.push(format!("line {line}, column sku: {} is on line {first} already", row.sku));
                }
                rows.push(row);
            }
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        let more = faults.len().saturating_sub(MOST_FAULTS);
        faults.truncate(MOST_FAULTS);
        let mut text = faults.join("\n");
        if more > 0 {
            let _ = write!(text, "\n… and {more} more");
        }
        bail!(text);
    }
    ensure!(!rows.is_empty(), "the file has no rows below its header");
    Ok(rows)
}

fn read_header(header: &csv::ByteRecord) -> Result<Columns> {
    let names: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let find = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
    match (names.len(), find(&["sku"]), find(&["available", "quantity"])) {
        (2, Some(sku), Some(available)) => {
            Ok(Columns { sku, available, available_name: names[available].clone() })
        }
        _ => bail!("line 1: the header must be sku,available (or sku,quantity), it is {}", names.join(",")),
    }
}

fn read_row(record: &csv::ByteRecord, line: u64, columns: &Columns) -> Result<Row, Vec<String>> {
    if record.len() != 2 {
        return Err(vec![format!("line {line}: has {} columns, 2 are needed", record.len())]);
    }
    let fault = |column: &str, what: String| format!("line {line}, column {column}: {what}");
    let sku = std::str::from_utf8(&record[columns.sku])
        .map_err(|_| fault("sku", "is not UTF-8".to_owned()))
        .and_then(|text| Sku::new(text).map_err(|error| fault("sku", error.to_string())));
    let text = String::from_utf8_lossy(&record[columns.available]);
    let available = match text.parse::<i64>() {
        Ok(number) if (0..=MAX_QUANTITY).contains(&number) => Ok(number),
        _ => Err(fault(
            &columns.available_name,
            format!("must be a whole number from 0 to {MAX_QUANTITY}, is {text:?}"),
        )),
    };
    match (sku, available) {
        (Ok(sku), Ok(available)) => Ok(Row { line, sku, available }),
        (sku, available) => Err(sku.err().into_iter().chain(available.err()).collect()),
    }
}

async fn set(args: SetArgs, store: &Arc<dyn Store>) -> Result<String> {
    let sku = Sku::new(&args.sku).with_context(|| format!("the SKU {:?}", args.sku))?;
    // Each call is a command of its own, as its operator means it.
    let id = Id::new(&format!("set-{:032x}", rand::random::<u128>()))?;
    let command = Command::stock_set(id, sku.clone(), args.available, args.expected_version);
    let batch = Batch { advances: Vec::new(), requests: vec![Request { command, source: None }] };
    let applied = store.apply(&batch).await?;
    match applied.outcomes.as_slice() {
        [Outcome::Decided(decision)] if !decision.accepted => {
            let now = store.levels(Some(&[sku])).await?;
            match now.first() {
                Some(now) => bail!(
                    "not set: {} has version {} now, with {} available",
                    now.sku,
                    now.level.version,
                    now.level.available
                ),
                None => bail!("not set: {} is not known yet, so its version is 0", args.sku),
            }
        }
        // Repeated: the commit's answer was lost, and the store found its own command decided when it tried again.
        [Outcome::Decided(_) | Outcome::Repeated] => get_table(&store.levels(Some(&[sku])).await?),
        other => bail!("the ledger answered {other:?}"),
    }
}

async fn get(args: GetArgs, store: &Arc<dyn Store>) -> Result<String> {
    let wanted = args
        .skus
        .iter()
        .map(|text| Sku::new(text).with_context(|| format!("the SKU {text:?}")))
        .collect::<Result<Vec<_>>>()?;
    let levels = store.levels((!wanted.is_empty()).then_some(&wanted)).await?;
    let unknown: Vec<&str> =
        wanted.iter().filter(|sku| levels.iter().all(|level| level.sku != **sku)).map(Sku::as_str).collect();
    ensure!(unknown.is_empty(), "no stock of these SKUs was ever recorded: {}", unknown.join(", "));
    if args.json { get_json(&levels) } else { get_table(&levels) }
}

fn get_json(levels: &[SkuLevel]) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Shown<'a> {
        sku: &'a Sku,
        available: i64,
        version: i64,
    }
    let shown: Vec<Shown<'_>> = levels
        .iter()
        .map(|level| Shown {
            sku: &level.sku,
            available: level.level.available,
            version: level.level.version,
        })
        .collect();
    Ok(serde_json::to_string_pretty(&shown)? + "\n")
}

fn get_table(levels: &[SkuLevel]) -> Result<String> {
    if levels.is_empty() {
        return Ok("No stock was ever recorded.\n".to_owned());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["SKU", "AVAILABLE", "VERSION"]);
    for number in 1..=2 {
        let column = table.column_mut(number).context("the table has three columns")?;
        column.set_cell_alignment(CellAlignment::Right);
    }
    for SkuLevel { sku, level } in levels {
        table.add_row([sku.to_string(), level.available.to_string(), level.version.to_string()]);
    }
    Ok(table.trim_fmt() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: &[u8]) -> String {
        format!("{:#}", read_rows(content).unwrap_err())
    }

    #[test]
    fn columns_are_found_by_name_in_either_order() {
        let row = Row { line: 2, sku: Sku::new("MUG, red").unwrap(), available: 5 };
        assert_eq!(read_rows(b"sku,available\n\"MUG, red\",5\n").unwrap(), [row]);
        assert_eq!(read_rows(b"\xEF\xBB\xBFQuantity , SKU\r\n 5, A\r\n").unwrap()[0].available, 5);
    }

    #[test]
    fn a_bad_row_is_named_by_line_and_column() {
        let found =
            faults(b"sku,available\nA,1\n,2\nB,-1\nC,1.5\nD\nE,1,2\nF,9999999999999\n\"G\nG\",1\nH,\xff\n");
        for text in [
            "line 3, column sku: must not be empty",
            "line 4, column available: must be a whole number from 0 to 1000000000000, is \"-1\"",
            "line 5, column available: must be a whole number",
            "line 6: has 1 columns, 2 are needed",
            "line 7: has 3 columns, 2 are needed",
            "line 8, column available",
            "line 9, column sku: must not contain control characters",
            "line 11, column available",
        ] {
            assert!(found.contains(text), "{text:?} is not in:\n{found}");
        }
    }

    #[test]
    fn a_sku_on_two_lines_is_a_fault() {
        assert_eq!(faults(b"sku,quantity\nA,1\nB,1\nA,2\n"), "line 4, column sku: A is on line 2 already");
    }

    #[test]
    fn a_wrong_header_and_an_empty_file_are_faults() {
        assert!(faults(b"").contains("the header must be sku,available"));
        assert!(faults(b"A,1\n").contains("it is a,1"));
        assert!(faults(b"sku,available,place\nA,1,x\n").contains("the header must be"));
        assert!(faults(b"sku,available\n").contains("no rows"));
    }

    #[test]
    fn many_faults_are_counted() {
        let content: String = "sku,available\n".to_owned() + &"x,x\n".repeat(50);
        assert!(faults(content.as_bytes()).ends_with("… and 30 more"));
    }

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(PROGRESS).is_ok());
    }

    #[test]
    fn content_and_name_make_the_import() {
        assert_eq!(import_id(b"a", "x"), import_id(b"a", "x"));
        assert_ne!(import_id(b"a", "x"), import_id(b"a", "y"));
        assert_ne!(import_id(b"ax", ""), import_id(b"a", "x"));
    }
}
