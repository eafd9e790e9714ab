//! Stock feeds: files that state levels or deliveries, as shops, their warehouses and Google's merchants write them.
//!
//! A feed is text with columns (CSV, or what else stands between them) or JSON lines. What it says is read exactly or the
//! line is refused by its number: no line is guessed at, and none is left out in silence.

mod columns;
mod delimited;
mod json_lines;
mod number;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use anyhow::{Result, bail, ensure};

pub use columns::{Column, ColumnName};
pub use number::Thousands;
pub use text::Encoding;

use crate::ledger::{Item, MAX_QUANTITY};

/// How a feed is to be read, where looking at it does not tell.
#[derive(Debug, Clone)]
pub struct FeedSettings {
    /// What stands between two columns; `None` looks at the header.
    pub delimiter: Option<u8>,
    /// How its bytes make text, where no byte order mark says so; `None` is UTF-8.
    pub encoding: Option<Encoding>,
    /// What columns are called that have other names than usual.
    pub columns: Vec<ColumnName>,
    /// Whether columns that are not needed are passed over.
    pub ignore_extra: bool,
    /// What stands between the thousands of a number; `None` allows nothing there.
    pub thousands: Option<Thousands>,
    /// How many pieces a line may say.
    pub pieces: RangeInclusive<i64>,
}

impl Default for FeedSettings {
    fn default() -> Self {
        Self {
            delimiter: None,
            encoding: None,
            columns: Vec::new(),
            ignore_extra: false,
            thousands: None,
            pieces: 0..=MAX_QUANTITY,
        }
    }
}

/// What a feed says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// Its good rows, in their order, each item once.
    pub rows: Vec<Row>,
    /// What is wrong with the others, in their order.
    pub refused: Vec<Refused>,
}

/// A checked row of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which record of the file it is; a header is the first. Its identity: no two rows of a file share it.
    pub record: u64,
    /// Where a person finds it.
    pub line: u64,
    /// What it is about.
    pub item: Item,
    /// How many pieces it says.
    pub pieces: i64,
}

/// Why a row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// Where a person finds it.
    pub line: u64,
    /// The column at fault, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong, and what is expected.
    pub what: String,
    /// What it is about, where that could be read all the same.
    #[serde(skip)]
    item: Option<Item>,
}

impl Refused {
    fn new(line: u64, column: Option<&str>, what: String) -> Self {
        Self { line, column: column.map(str::to_owned), what, item: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.what),
            None => write!(f, "line {}: {}", self.line, self.what),
        }
    }
}

/// Reads a feed, all of it.
///
/// # Errors
/// When it is no feed: empty, in an encoding that it is not, or without the columns that are needed.
pub fn read(content: &[u8], settings: &FeedSettings) -> Result<Feed> {
    let content = text::decode(content, settings.encoding)?;
    let content = &*content;
    let Some(first) = content.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        bail!("the file is empty")
    };
    let mut feed = match first {
        b'{' if settings.delimiter.is_none() => json_lines::read(content, settings),
        b'[' if settings.delimiter.is_none() => {
            bail!("the file is a JSON array: write one object a line instead (jq -c '.[]')")
        }
        b'<' if settings.delimiter.is_none() => {
            bail!("the file is XML: only text with columns and JSON lines are read")
        }
        _ => delimited::read(content, settings)?,
    };
    refuse_duplicates(&mut feed);
    let is_empty = feed.rows.is_empty() && feed.refused.is_empty();
    ensure!(!is_empty, "the file has no rows below its header");
    Ok(feed)
}

/// Of two lines about one item nobody can say which counts, so none does: nor where one of them is refused for its number.
fn refuse_duplicates(feed: &mut Feed) {
    let good = feed.rows.iter().map(|row| (&row.item, row.line));
    let bad = feed.refused.iter().filter_map(|refused| Some((refused.item.as_ref()?, refused.line)));
    // The first line of each item, and the one after it. The bad ones come last here, wherever they stand.
    let mut lines: HashMap<&Item, (u64, Option<u64>)> = HashMap::with_capacity(feed.rows.len());
    for (item, line) in good.chain(bad) {
        let met = |(first, next): &mut (u64, Option<u64>)| {
            let later = line.max(*first);
            *first = line.min(*first);
            *next = Some(next.map_or(later, |next| next.min(later)));
        };
        lines.entry(item).and_modify(met).or_insert((line, None));
    }
    let twice: HashMap<Item, (u64, u64)> =
        lines.into_iter().filter_map(|(item, (first, next))| Some((item.clone(), (first, next?)))).collect();
    if twice.is_empty() {
        return;
    }
    let refused = &mut feed.refused;
    feed.rows.retain(|row| {
        let Some((first, next)) = twice.get(&row.item) else { return true };
        let what = if row.line == *first {
            format!("{} is on line {next} too", row.item)
        } else {
            format!("{} is on line {first} already", row.item)
        };
        refused.push(Refused::new(row.line, Some("sku"), what));
        false
    });
    refused.sort_by_key(|refused| refused.line);
}

#[cfg(test)]
mod tests;
