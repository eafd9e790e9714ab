//! `stock import`: sets the levels a CSV file states.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::answered;
use super::import_report::{Hidden, Imported, ItemView, LevelChange, WouldImport};
use crate::ledger::{Command, Id, Item, Location, MAX_QUANTITY, Outcome, Request, Sku};
use crate::store::{CommandBatch, LedgerWriter, MAX_BATCH, Store};

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

    /// Only say what would be set
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// An import whose file was read and checked, all of it.
pub(super) struct Import {
    file: PathBuf,
    /// The start of every row's id.
    id: String,
    rows: Vec<Row>,
    /// Whether what it did is printed for programs.
    pub(super) json: bool,
}

/// Reads and checks the file, so that nothing is opened, created or written for one that is wrong.
///
/// # Errors
/// When it cannot be read, or a row is wrong: then it names every one.
pub(super) fn prepare(args: ImportArgs) -> Result<Import> {
    let ImportArgs { file, name, dry_run: _, json } = args;
    let content = read(&file)?;
    let rows = read_rows(&content).with_context(|| format!("{}: nothing imported", file.display()))?;
    Ok(Import { id: import_id(&content, &name), file, rows, json })
}

/// Sets the levels of an import.
///
/// # Errors
/// When the database fails, or an earlier import set other levels under these ids.
pub(super) async fn import(import: Import, store: &dyn LedgerWriter) -> Result<String> {
    let Import { file, id, rows, json } = import;
    // A file that fits in one transaction is one.
    let size = if rows.len() <= MAX_BATCH { MAX_BATCH } else { LONG_IMPORT_BATCH };
    let progress = progress(rows.len(), rows.len() > size);
    let (mut done, mut before) = (0_usize, 0_usize);
    for part in rows.chunks(size) {
        let requests = part.iter().map(|row| row.request(&id)).collect::<Result<Vec<_>>>()?;
        let applied = store
            .apply(&CommandBatch { advances: Vec::new(), requests, epoch: None })
            .await
            .with_context(|| format!("stopped after {} rows; run it again to go on", done + before))?;
        for (row, outcome) in part.iter().zip(&applied.outcomes) {
            match outcome {
                Outcome::Decided(decision) if decision.accepted => done += 1,
                Outcome::Repeated | Outcome::Republished(_) => before += 1,
                other => bail!(
                    "line {}: {}; to set these levels all the same, give the import another --name",
                    row.line,
                    answered(other)
                ),
            }
        }
        progress.inc(part.len() as u64);
    }
    progress.finish_and_clear();
    let file = file.display().to_string();
    Imported { file, set: done, set_before: before, hidden: hidden(&rows) }.written(json)
}

fn hidden(rows: &[Row]) -> Vec<Hidden> {
    rows.iter().filter_map(|row| Hidden::of(row.line, &row.item)).collect()
}

/// Says what an import would do. Orders may change that until it is done.
///
/// # Errors
/// When the database fails.
pub(super) async fn look(import: Import, store: &dyn Store) -> Result<String> {
    let Import { file, id, rows, json } = import;
    let (mut new, mut same, mut before, mut changes) = (0_usize, 0_usize, 0_usize, Vec::new());
    let mut snapshot = store.snapshot().await?;
    for part in rows.chunks(LONG_IMPORT_BATCH) {
        let requests = part.iter().map(|row| row.request(&id)).collect::<Result<Vec<_>>>()?;
        let ids: Vec<&Id> = requests.iter().map(|request| &request.command.key.id).collect();
        let decided = snapshot.decisions_of(&ids).await?;
        let items: Vec<Item> = part.iter().map(|row| row.item.clone()).collect();
        let levels: HashMap<Item, i64> = store
            .levels_of(&items)
            .await?
            .into_iter()
            .map(|level| (level.item, level.level.available))
            .collect();
        for (row, request) in part.iter().zip(&requests) {
            if decided.contains_key(&request.command.key) {
                before += 1;
                continue;
            }
            match levels.get(&row.item) {
                None => new += 1,
                Some(now) if *now == row.available => same += 1,
                Some(now) => {
                    let item = ItemView::from(row.item.clone());
                    changes.push(LevelChange { item, from: *now, to: row.available });
                }
            }
        }
    }
    let (file, would_set) = (file.display().to_string(), rows.len() - before);
    let hidden = hidden(&rows);
    WouldImport { file, would_set, new, same, changes, set_before: before, hidden }.written(json)
}

/// The levels a file states.
///
/// # Errors
/// When it cannot be read, or a row is wrong: then it names every one.
pub(in crate::cli) fn read_levels_file(file: &std::path::Path) -> Result<Vec<(Item, i64)>> {
    let content = read(file)?;
    let rows = read_rows(&content).with_context(|| format!("{} is not as it should be", file.display()))?;
    Ok(rows.into_iter().map(|row| (row.item, row.available)).collect())
}

fn read(file: &std::path::Path) -> Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut content)
            .context("cannot read standard input")?;
        return Ok(content);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
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
pub(super) struct Row {
    /// Which record of the file it is; the header is the first. Its identity: no two rows of a file share it.
    record: u64,
    /// Where a person finds it.
    line: u64,
    pub(super) item: Item,
    pub(super) available: i64,
}

impl Row {
    fn request(&self, import: &str) -> Result<Request> {
        let id = Id::new(&format!("{import}-{}", self.record))?;
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
pub(super) fn read_rows(content: &[u8]) -> Result<Vec<Row>> {
    // Spreadsheets put a byte order mark before the header.
    let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    ensure!(content.iter().any(|byte| !byte.is_ascii_whitespace()), "the file is empty");
    ensure!(
        !content.starts_with(b"\xFF\xFE") && !content.starts_with(b"\xFE\xFF"),
        "the file is UTF-16: save it as UTF-8"
    );
    let mut lines = Lines { content, at: 0, line: 1 };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(content);
    let columns = read_header(reader.byte_headers().context("the header cannot be read")?)?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut first_lines: HashMap<Item, u64> = HashMap::new();
    for (read, number) in reader.byte_records().zip(FIRST_ROW..) {
        let read = read.context("the file cannot be read as CSV")?;
        let line = lines.of(read.position().map_or(0, csv::Position::byte));
        match read_row(&read, number, line, &columns) {
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

/// The record that comes after the header.
const FIRST_ROW: u64 = 2;

/// Counts lines as editors do, where a line ends with LF, CR LF or CR: the parser takes all three and counts LF alone.
struct Lines<'a> {
    content: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the record that begins at this byte, or after empty lines from there on. Records come in order.
    fn of(&mut self, byte: u64) -> u64 {
        while let Some(letter) = self.content.get(self.at) {
            let ends = *letter == b'\n' || *letter == b'\r' && self.content.get(self.at + 1) != Some(&b'\n');
            if self.at as u64 >= byte && !matches!(letter, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(ends);
            self.at += 1;
        }
        self.line
    }
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

fn read_row(read: &csv::ByteRecord, record: u64, line: u64, columns: &Columns) -> Result<Row, Vec<String>> {
    if read.len() != columns.count() {
        return Err(vec![format!("line {line}: has {} columns, {} are needed", read.len(), columns.count())]);
    }
    let fault = |column: &str, what: String| format!("line {line}, column {column}: {what}");
    let text = |column: &str, index: usize| {
        let text = std::str::from_utf8(&read[index]).map_err(|_| fault(column, "is not UTF-8".to_owned()));
        // The parser has trimmed what ASCII has of white space; spreadsheets and web pages leave other.
        text.map(str::trim)
    };
    let sku = text("sku", columns.sku)
        .and_then(|text| Sku::new(text).map_err(|error| fault("sku", error.to_string())));
    let location = columns.location.map(|index| text("location", index)).and_then(|read| match read {
        Ok("") => None,
        read => Some(
            read.and_then(|text| Location::new(text).map_err(|error| fault("location", error.to_string()))),
        ),
    });
    let number = String::from_utf8_lossy(&read[columns.available]);
    let number = number.trim();
    let available = match number.parse::<i64>() {
        Ok(number) if (0..=MAX_QUANTITY).contains(&number) => Ok(number),
        _ => Err(fault(
            &columns.available_name,
            format!("must be a whole number from 0 to {MAX_QUANTITY}, is {number:?}"),
        )),
    };
    match (sku, location.transpose(), available) {
        (Ok(sku), Ok(location), Ok(available)) => {
            Ok(Row { record, line, item: Item { sku, location }, available })
        }
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
        let row = Row { record: 2, line: 2, item, available: 5 };
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
    fn white_space_of_any_kind_around_a_name_is_trimmed_and_what_nobody_sees_within_is_named() {
        let file = "sku,location,available\n\u{a0}MUG\u{a0},\u{2003},\u{a0}5\u{202f}\nM\u{200b}UG,north,6\n";
        let rows = read_rows(file.as_bytes()).unwrap();
        let read: Vec<_> = rows.iter().map(|row| (row.item.to_string(), row.available)).collect();
        assert_eq!(read, [("MUG".to_owned(), 5), ("M<U+200B>UG at north".to_owned(), 6)]);
        let said = |rows: &[Row]| {
            let imported = Imported { file: String::new(), set: 0, set_before: 0, hidden: hidden(rows) };
            imported.written(false).unwrap()
        };
        let text = said(&rows);
        assert!(text.ends_with("look the same:\n  line 3: M<U+200B>UG at north\n"), "{text}");
        assert_eq!(said(&rows[..1]), "0 levels set from .\n");
        let twice = faults("sku,available\nMUG,1\nMUG\u{a0},2\n".as_bytes());
        assert_eq!(twice, "line 3, column sku: MUG is on line 2 already");
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
        assert_eq!(faults(b""), "the file is empty");
        assert_eq!(faults(b"\xEF\xBB\xBF\r\n \n"), "the file is empty");
        assert_eq!(faults(b"\xFF\xFEs\0k\0u\0"), "the file is UTF-16: save it as UTF-8");
        assert!(faults(b"A,1\n").contains("it is a,1"));
        assert!(faults(b"sku,available,place\nA,1,x\n").contains("the header must be"));
        assert!(faults(b"sku,location\nA,x\n").contains("the header must be"));
        for header in ["sku,available", "sku,available\n", "sku,available\r", "sku,available\r\n\r\n"] {
            assert!(faults(header.as_bytes()).contains("no rows"), "{header:?}");
        }
    }

    /// Every row's record, line and SKU.
    fn places(content: &str) -> Vec<(u64, u64, String)> {
        let rows = read_rows(content.as_bytes()).unwrap();
        rows.into_iter().map(|row| (row.record, row.line, row.item.sku.to_string())).collect()
    }

    #[test]
    fn a_row_is_the_same_whatever_the_lines_end_with() {
        let row = |record, line, sku: &str| (record, line, sku.to_owned());
        let rows = [row(2, 2, "CUP"), row(3, 3, "MUG"), row(4, 4, "TEE")];
        for end in ["\n", "\r\n", "\r"] {
            let file = ["sku,available", "CUP,7", "MUG,12", "TEE,3"].join(end);
            assert_eq!(places(&file), rows, "{end:?}");
            assert_eq!(places(&(file + end)), rows, "{end:?}");
        }
        assert_eq!(places("sku,available\r\nCUP,7\rMUG,12\nTEE,3\r"), rows);
        // Empty lines are lines, and no rows.
        assert_eq!(
            places("sku,available\n\nCUP,7\r\r\rMUG,12\r\n\r\nTEE,3\n\n"),
            [row(2, 3, "CUP"), row(3, 6, "MUG"), row(4, 8, "TEE")]
        );
        // A line that ends within quotes is one, too.
        assert_eq!(
            places("sku,\"available\n\"\nCUP,\"7\r\"\nMUG,\"\r\n12\"\nTEE,3\n"),
            [row(2, 3, "CUP"), row(3, 5, "MUG"), row(4, 7, "TEE")]
        );
    }

    #[test]
    fn a_bad_row_is_found_where_lines_end_with_cr() {
        assert!(faults(b"sku,available\rA,1\rB,x\r").starts_with("line 3, column available"));
        assert_eq!(faults(b"sku,available\rA,1\rA,2\r"), "line 3, column sku: A is on line 2 already");
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
