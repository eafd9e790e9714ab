//! `stock import`: sets the levels a CSV file states.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::ledger::{Command, Id, Item, Location, MAX_QUANTITY, Outcome, Request, Sku};
use crate::store::{CommandBatch, LedgerWriter, MAX_BATCH};

/// Rows of a long file set in one transaction: long enough to be quick, short enough for orders to pass in between.
const LONG_IMPORT_BATCH: usize = 10_000;

/// Bad rows named before the rest is only counted.
const MOST_FAULTS: usize = 20;

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

pub(super) async fn import(args: ImportArgs, store: &dyn LedgerWriter) -> Result<String> {
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
            .apply(&CommandBatch { advances: Vec::new(), requests, epoch: None })
            .await
            .with_context(|| format!("stopped after {} rows; run it again to go on", done + before))?;
        for (row, outcome) in part.iter().zip(&applied.outcomes) {
            match outcome {
                Outcome::Decided(decision) if decision.accepted => done += 1,
                Outcome::Repeated | Outcome::Republished(_) => before += 1,
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

/// The levels a file states.
///
/// # Errors
/// When it cannot be read, or a row is wrong: then it names every one.
pub(in crate::cli) fn read_levels_file(file: &std::path::Path) -> Result<Vec<(Item, i64)>> {
    let content = read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rows = read_rows(&content).with_context(|| format!("{} is not as it should be", file.display()))?;
    Ok(rows.into_iter().map(|row| (row.item, row.available)).collect())
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
    item: Item,
    available: i64,
}

impl Row {
    fn request(&self, import: &str) -> Result<Request> {
        let id = Id::new(&format!("{import}-{}", self.line))?;
        Ok(Request { command: Command::stock_set(id, self.item.clone(), self.available, None), source: None })
    }
}

/// Where the columns are.
struct Columns {
    sku: usize,
    available: usize,
    available_name: String,
    location: Option<usize>,
}

impl Columns {
    fn count(&self) -> usize {
        2 + usize::from(self.location.is_some())
    }
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
    let mut first_lines: HashMap<Item, u64> = HashMap::new();
    for record in reader.byte_records() {
        let record = record.context("the file cannot be read as CSV")?;
        let line = record.position().map_or(0, csv::Position::line);
        match read_row(&record, line, &columns) {
            Ok(row) => {
                if let Some(first) = first_lines.insert(row.item.clone(), line) {
                    faults.push(format!("line {line}, column sku: {} is on line {first} already", row.item));
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
    let location = find(&["location"]);
    match (find(&["sku"]), find(&["available", "quantity"])) {
        (Some(sku), Some(available)) if names.len() == 2 + usize::from(location.is_some()) => {
            Ok(Columns { sku, available, available_name: names[available].clone(), location })
        }
        _ => bail!(
            "line 1: the header must be sku,available (or sku,quantity), with location or without, it is {}",
            names.join(",")
        ),
    }
}

fn read_row(record: &csv::ByteRecord, line: u64, columns: &Columns) -> Result<Row, Vec<String>> {
    if record.len() != columns.count() {
        return Err(vec![format!(
            "line {line}: has {} columns, {} are needed",
            record.len(),
            columns.count()
        )]);
    }
    let fault = |column: &str, what: String| format!("line {line}, column {column}: {what}");
    let text = |column: &str, index: usize| {
        std::str::from_utf8(&record[index]).map_err(|_| fault(column, "is not UTF-8".to_owned()))
    };
    let sku = text("sku", columns.sku)
        .and_then(|text| Sku::new(text).map_err(|error| fault("sku", error.to_string())));
    let location = columns.location.filter(|index| !record[*index].is_empty()).map(|index| {
        text("location", index)
            .and_then(|text| Location::new(text).map_err(|error| fault("location", error.to_string())))
    });
    let number = String::from_utf8_lossy(&record[columns.available]);
    let available = match number.parse::<i64>() {
        Ok(number) if (0..=MAX_QUANTITY).contains(&number) => Ok(number),
        _ => Err(fault(
            &columns.available_name,
            format!("must be a whole number from 0 to {MAX_QUANTITY}, is {number:?}"),
        )),
    };
    match (sku, location.transpose(), available) {
        (Ok(sku), Ok(location), Ok(available)) => Ok(Row { line, item: Item { sku, location }, available }),
        (sku, location, available) => {
            Err([sku.err(), location.err(), available.err()].into_iter().flatten().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: &[u8]) -> String {
        format!("{:#}", read_rows(content).unwrap_err())
    }

    #[test]
    fn columns_are_found_by_name_in_either_order() {
        let item = Sku::new("MUG, red").unwrap().into();
        let row = Row { line: 2, item, available: 5 };
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
    fn a_sku_on_two_lines_is_a_fault_unless_they_are_of_two_locations() {
        assert_eq!(faults(b"sku,quantity\nA,1\nB,1\nA,2\n"), "line 4, column sku: A is on line 2 already");
        let file = b"sku,location,quantity\nA,,1\nA,north,1\nA,south,1\nA,north,2\nA,,2\n";
        assert_eq!(
            faults(file),
            "line 5, column sku: A at north is on line 3 already\nline 6, column sku: A is on line 2 already"
        );
    }

    #[test]
    fn a_location_is_read_where_the_header_names_one() {
        let rows = read_rows(b"location,sku,available\nnorth,A,1\n,A,2\n").unwrap();
        let locations: Vec<_> =
            rows.iter().map(|row| row.item.location.as_ref().map(Location::as_str)).collect();
        assert_eq!(locations, [Some("north"), None]);
        let found = faults(b"sku,available,location\nA,1\nB,1,\xff\n,x,\"a\nb\"\n");
        for text in [
            "line 2: has 2 columns, 3 are needed",
            "line 3, column location: is not UTF-8",
            "line 4, column sku: must not be empty",
            "line 4, column location: must not contain control characters",
            "line 4, column available: must be a whole number",
        ] {
            assert!(found.contains(text), "{text:?} is not in:\n{found}");
        }
    }

    #[test]
    fn a_wrong_header_and_an_empty_file_are_faults() {
        assert!(faults(b"").contains("the header must be sku,available"));
        assert!(faults(b"A,1\n").contains("it is a,1"));
        assert!(faults(b"sku,available,place\nA,1,x\n").contains("the header must be"));
        assert!(faults(b"sku,location\nA,x\n").contains("the header must be"));
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
