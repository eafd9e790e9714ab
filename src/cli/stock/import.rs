//! `stock import`: sets the levels that a feed states, or receives what it says came in.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::import_report::{self, Done, Imported, LevelChange, Named, Planned, WouldImport};
use super::{answered, not_there, verdict};
use crate::feed::{self, ColumnName, Encoding, Feed, FeedSettings, Refused, Row, Thousands};
use crate::ledger::{Command, CommandKey, Id, Item, MAX_QUANTITY, Outcome, Quantity, Request};
use crate::store::{CommandBatch, LedgerHistory, Store};

/// Rows done in one transaction: enough to be quick, and few enough that orders of the same items wait a moment only. Of a
/// file with no more, all rows are answered or none is: what of them is rejected, or was decided before, changes nothing.
const IMPORT_BATCH: usize = 2_000;

/// After each transaction an import rests for the time that it took, divided by this: a verifier beside it loses less of its speed.
const REST: u32 = 20;

/// Rows looked up at once, which locks nothing.
const LOOK_BATCH: usize = 10_000;

/// Bad rows named before the rest is only counted, where they are why nothing is imported.
const MOST_FAULTS: usize = 20;

/// The arguments of `stock import`.
#[derive(Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, and any of them go together")]
pub struct ImportArgs {
    /// The file; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Makes an import of the same content another import, such as the day it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,

    /// Only say what would be done, with a table of what would change
    #[arg(long)]
    pub dry_run: bool,

    /// The pieces came in: add them to the levels, instead of stating what the levels are
    #[arg(long)]
    pub add: bool,

    /// Import the good rows all the same, and name every row that was refused
    #[arg(long)]
    pub skip_bad: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// How the file is read
    #[command(flatten)]
    pub feed: FeedArgs,
}

/// How a feed is read, where looking at it does not tell.
#[derive(Debug, Default, Args)]
pub struct FeedArgs {
    /// What columns or fields are called, where not as usual: sku=Item,available=Qty,location=Store
    #[arg(long, value_name = "COLUMN=NAME", value_delimiter = ',')]
    pub columns: Vec<ColumnName>,

    /// Pass over columns or fields that are not needed
    #[arg(long)]
    pub ignore_extra: bool,

    /// What stands between columns: comma, tab, semicolon, bar, or the character itself; when left out, what makes a
    /// header of the first line
    #[arg(long, value_name = "CHAR", value_parser = parse_delimiter)]
    pub delimiter: Option<u8>,

    /// The file's encoding, such as windows-1252; when left out, what its byte order mark says, else UTF-8
    #[arg(long, value_name = "NAME")]
    pub encoding: Option<Encoding>,

    /// What stands between the thousands of a number, as in 1,234; when left out, such numbers are refused
    #[arg(long, value_name = "CHAR")]
    pub thousands: Option<Thousands>,
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("comma", _) => Ok(b','),
        ("tab" | "\\t", _) => Ok(b'\t'),
        ("semicolon", _) => Ok(b';'),
        ("bar", _) => Ok(b'|'),
        // What a name, a number or a quoted text may be made of says nothing about columns.
        (_, [mark]) if (mark.is_ascii_punctuation() && *mark != b'"' || *mark == b'\t') => Ok(*mark),
        _ => Err("is comma, tab, semicolon, bar or one ASCII character".to_owned()),
    }
}

impl ImportArgs {
    fn settings(&self) -> FeedSettings {
        FeedSettings {
            delimiter: self.feed.delimiter,
            encoding: self.feed.encoding,
            columns: self.feed.columns.clone(),
            ignore_extra: self.feed.ignore_extra,
            thousands: self.feed.thousands,
            // Nothing that came in is no delivery.
            pieces: i64::from(self.add)..=MAX_QUANTITY,
        }
    }
}

/// An import whose file was read and checked, all of it.
pub(super) struct Import {
    file: PathBuf,
    /// The start of every row's id.
    id: String,
    /// Whether pieces are added to the levels.
    adds: bool,
    feed: Feed,
    /// Whether what it did is printed for programs.
    pub(super) json: bool,
}

/// Reads and checks the file, so that nothing is opened, created or written for one that is wrong.
///
/// # Errors
/// When it cannot be read, or a row is wrong and bad rows are not to be skipped: then it names every one.
pub(super) fn prepare(args: &ImportArgs) -> Result<Import> {
    let file = args.file.clone();
    let content = read(&file)?;
    let feed = feed::read(&content, &args.settings())
        .and_then(|feed| if args.skip_bad { Ok(feed) } else { good(feed) })
        .with_context(|| format!("{}: nothing imported", file.display()))?;
    Ok(Import { id: import_id(&content, &args.name, args.add), file, adds: args.add, feed, json: args.json })
}

/// A feed of which every row is good.
fn good(feed: Feed) -> Result<Feed> {
    if feed.refused.is_empty() {
        return Ok(feed);
    }
    let named: Vec<String> = feed.refused.iter().take(MOST_FAULTS).map(Refused::to_string).collect();
    let more = feed.refused.len() - named.len();
    let more = if more > 0 { format!("\n… and {more} more") } else { String::new() };
    bail!("{}{more}", named.join("\n"));
}

impl Import {
    fn request(&self, row: &Row) -> Result<Request> {
        let id = Id::new(&format!("{}-{}", self.id, row.record))?;
        let command = if self.adds {
            Command::stock_received(id, row.item.clone(), Quantity::new(row.pieces)?)
        } else {
            Command::stock_set(id, row.item.clone(), row.pieces, None)
        };
        Ok(Request { command, source: None })
    }

    fn requests(&self, rows: &[Row]) -> Result<Vec<Request>> {
        rows.iter().map(|row| self.request(row)).collect()
    }
}

/// Sets the levels of an import, or receives what came in.
///
/// # Errors
/// When the database fails; or, after all rows were done that can be, when an earlier import of the file read some of them
/// otherwise, or the ledger rejected some, now or then.
pub(super) async fn import(import: Import, store: &dyn Store) -> Result<String> {
    let rows = &import.feed.rows;
    ensure!(
        !rows.is_empty(),
        "{}: nothing imported, no row is good\n{}",
        import.file.display(),
        import_report::refused(&import.feed.refused)
    );
    let progress = progress(rows.len(), rows.len() > IMPORT_BATCH);
    let (mut done, mut repeated, mut rejected, mut conflicts) = (0_usize, Vec::new(), Vec::new(), Vec::new());
    let mut rest = Duration::ZERO;
    for part in rows.chunks(IMPORT_BATCH) {
        tokio::time::sleep(rest).await;
        let begun = Instant::now();
        let batch = CommandBatch { advances: Vec::new(), requests: import.requests(part)?, epoch: None };
        let so_far = done + repeated.len();
        let applied = store
            .apply(&batch)
            .await
            .with_context(|| format!("stopped after {so_far} rows; run it again to go on"))?;
        for ((row, request), outcome) in part.iter().zip(batch.requests).zip(&applied.outcomes) {
            match outcome {
                Outcome::Decided(decision) if decision.accepted => done += 1,
                Outcome::Decided(_) => rejected.push((row.line, answered(outcome))),
                Outcome::Repeated | Outcome::Republished(_) => repeated.push((row.line, request.command.key)),
                Outcome::Conflict { .. } => conflicts.push(Named::new(row.line, &row.item)),
                other => bail!("line {}: {}", row.line, answered(other)),
            }
        }
        progress.inc(part.len() as u64);
        rest = begun.elapsed() / REST;
    }
    progress.finish_and_clear();
    let rejected_before = rejected_before(&repeated, store).await.context(
        "all rows are decided, but how those of an earlier import were is not known; run it again",
    )?;
    let before = repeated.len() - rejected_before.len();
    let hidden = hidden(rows);
    let done = if import.adds {
        Done::Received { received: done, received_before: before }
    } else {
        Done::Set { set: done, set_before: before }
    };
    let file = import.file.display().to_string();
    let written = Imported { file, done, hidden, refused: import.feed.refused }.written(import.json)?;
    let advice = if rejected_before.is_empty() { "" } else { REJECTED_BEFORE };
    rejected.extend(rejected_before);
    rejected.sort();
    let named: Vec<String> = rejected.iter().map(|(line, what)| format!("line {line}: {what}")).collect();
    let rejected = match named.len() {
        0 => String::new(),
        many => format!("{many} rows were rejected:\n{}{advice}\n", named.join("\n")),
    };
    let not_done = rejected + &import_report::conflicts(&conflicts, import.adds);
    ensure!(not_done.is_empty(), "{written}{}", not_done.trim_end());
    Ok(written)
}

/// What to do about rows that an earlier import of the file had rejected: their ids stay decided.
const REJECTED_BEFORE: &str =
    "\nWhat was rejected before stays so. To try these rows again, import them alone under another --name.";

/// Which of these rows, decided by an earlier import of the file, were rejected by it, and how.
async fn rejected_before(
    repeated: &[(u64, CommandKey)],
    store: &dyn LedgerHistory,
) -> Result<Vec<(u64, String)>> {
    let mut rejected = Vec::new();
    if repeated.is_empty() {
        return Ok(rejected);
    }
    // Many at once: a file that is imported again may have a million rows.
    let mut snapshot = store.snapshot().await?;
    for part in repeated.chunks(LOOK_BATCH) {
        let ids: Vec<&Id> = part.iter().map(|(_, key)| &key.id).collect();
        let decided = snapshot.decisions_of(&ids).await?;
        for (line, key) in part {
            let decision = decided.get(key).with_context(|| not_there(key))?;
            if !decision.accepted {
                rejected.push((*line, format!("{}, when this file was imported before", verdict(decision))));
            }
        }
    }
    Ok(rejected)
}

fn hidden(rows: &[Row]) -> Vec<Named> {
    rows.iter().filter_map(|row| Named::if_hidden(row.line, &row.item)).collect()
}

/// Says what an import would do. Orders may change that until it is done.
///
/// # Errors
/// When the database fails.
pub(super) async fn look(import: Import, store: &dyn Store) -> Result<String> {
    let rows = &import.feed.rows;
    let (mut same, mut before, mut rejected_before) = (0_usize, 0_usize, 0_usize);
    let (mut new, mut changes, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    let mut snapshot = store.snapshot().await?;
    for part in rows.chunks(LOOK_BATCH) {
        let requests = import.requests(part)?;
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
            if let Some(decision) = decided.get(&request.command.key) {
                if !decision.is_of(&request.command) {
                    conflicts.push(Named::new(row.line, &row.item));
                } else if decision.accepted {
                    before += 1;
                } else {
                    rejected_before += 1;
                }
                continue;
            }
            let now = levels.get(&row.item).copied();
            let then = if import.adds { now.unwrap_or(0).saturating_add(row.pieces) } else { row.pieces };
            let change = || LevelChange::new(row.line, &row.item, now, then);
            match now {
                None => new.push(change()),
                Some(now) if now == then => same += 1,
                Some(_) => changes.push(change()),
            }
        }
    }
    let (hidden, planned) = (hidden(rows), rows.len() - before - rejected_before - conflicts.len());
    let planned = if import.adds {
        Planned::Received { would_receive: planned, received_before: before }
    } else {
        Planned::Set { would_set: planned, set_before: before }
    };
    let file = import.file.display().to_string();
    let refused = import.feed.refused;
    let new_levels = new;
    let new = new_levels.len();
    WouldImport { file, planned, new, same, changes, new_levels, rejected_before, conflicts, hidden, refused }
        .written(import.json)
}

/// The levels a file states.
///
/// # Errors
/// When it cannot be read, or a row is wrong: then it names every one.
pub(in crate::cli) fn read_levels_file(file: &Path) -> Result<Vec<(Item, i64)>> {
    let content = read(file)?;
    let feed = feed::read(&content, &FeedSettings::default())
        .and_then(good)
        .with_context(|| format!("{} is not as it should be", file.display()))?;
    Ok(feed.rows.into_iter().map(|row| (row.item, row.pieces)).collect())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut content)
            .context("cannot read standard input")?;
        return Ok(content);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The start of every row's id: the same for the same content and name, and for no other. What is received is another
/// import than what is set.
fn import_id(content: &[u8], name: &str, adds: bool) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(content.len() as u64).to_le_bytes()).update(content).update(name.as_bytes());
    let hash = hasher.finalize().to_hex();
    format!("{}-{}", if adds { "receipt" } else { "import" }, &hash[..32])
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

const PROGRESS: &str = "{bar:40} {human_pos} of {human_len} rows, {per_sec}, {eta} left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faults_are_counted() {
        let content: String = "sku,available\n".to_owned() + &"x,x\n".repeat(50);
        let feed = feed::read(content.as_bytes(), &FeedSettings::default()).unwrap();
        assert!(good(feed).unwrap_err().to_string().ends_with("… and 30 more"));
    }

    #[test]
    fn a_delimiter_is_a_word_or_a_character() {
        for (text, mark) in
            [("tab", b'\t'), ("\\t", b'\t'), ("\t", b'\t'), ("semicolon", b';'), ("|", b'|'), ("comma", b',')]
        {
            assert_eq!(parse_delimiter(text), Ok(mark), "{text:?}");
        }
        for wrong in ["", "a", "7", "\"", ";;", "§", "\n", " "] {
            assert!(parse_delimiter(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(PROGRESS).is_ok());
    }

    #[test]
    fn content_name_and_meaning_make_the_import() {
        assert_eq!(import_id(b"a", "x", false), import_id(b"a", "x", false));
        assert_ne!(import_id(b"a", "x", false), import_id(b"a", "y", false));
        assert_ne!(import_id(b"ax", "", false), import_id(b"a", "x", false));
        assert_ne!(import_id(b"a", "x", true)[7..], import_id(b"a", "x", false)[7..]);
    }
}
