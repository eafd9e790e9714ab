//! What an import did, or would do: for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::ledger::{Item, Location, Sku, is_invisible};

/// Most rows and changes that are named to a person; then the rest is only counted.
const MOST_ROWS: usize = 20;
const MOST_CHANGES: usize = 50;

/// A row of whose item a person cannot see all: another item than the one that looks the same.
#[derive(Debug, Serialize)]
pub(super) struct Hidden {
    line: u64,
    #[serde(flatten)]
    item: ItemView,
}

impl Hidden {
    /// The row, if it is such a one.
    pub(super) fn of(line: u64, item: &Item) -> Option<Self> {
        let has_hidden = |text: &str| text.contains(is_invisible);
        let is_hidden =
            has_hidden(item.sku.as_str()) || item.location.as_ref().is_some_and(|at| has_hidden(at.as_str()));
        is_hidden.then(|| Self { line, item: ItemView::from(item.clone()) })
    }
}

/// An item, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ItemView {
    sku: Sku,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

impl From<Item> for ItemView {
    fn from(Item { sku, location }: Item) -> Self {
        Self { sku, location }
    }
}

impl ItemView {
    fn named(&self) -> String {
        Item { sku: self.sku.clone(), location: self.location.clone() }.to_string()
    }
}

/// What an import did.
#[derive(Debug, Serialize)]
pub(super) struct Imported {
    /// The file.
    pub(super) file: String,
    /// Levels that were set.
    pub(super) set: usize,
    /// Rows that an earlier import of this very file had set.
    pub(super) set_before: usize,
    /// Rows with characters that nobody sees.
    pub(super) hidden: Vec<Hidden>,
}

/// What an import would do.
#[derive(Debug, Serialize)]
pub(super) struct WouldImport {
    /// The file.
    pub(super) file: String,
    /// Levels that would be set.
    pub(super) would_set: usize,
    /// Of these, those of items that are not known yet.
    pub(super) new: usize,
    /// Of these, those that are what they would be.
    pub(super) same: usize,
    /// Of these, those that would be another number.
    pub(super) changes: Vec<LevelChange>,
    /// Rows that an earlier import of this very file had set.
    pub(super) set_before: usize,
    /// Rows with characters that nobody sees.
    pub(super) hidden: Vec<Hidden>,
}

/// A level that would change.
#[derive(Debug, Serialize)]
pub(super) struct LevelChange {
    #[serde(flatten)]
    pub(super) item: ItemView,
    pub(super) from: i64,
    pub(super) to: i64,
}

fn hidden(rows: &[Hidden]) -> String {
    let line = |row: &Hidden| format!("  line {}: {}\n", row.line, row.item.named());
    let named = rows.iter().take(MOST_ROWS).map(line).collect::<Vec<_>>().concat();
    match rows.len() {
        0 => String::new(),
        many => format!(
            "{many} rows have characters in their SKU or location that nobody sees, and so are other items than those that \
             look the same:\n{named}{}",
            if many > MOST_ROWS { "  … and more\n" } else { "" }
        ),
    }
}

impl Imported {
    /// As it is printed.
    pub(super) fn written(&self, json: bool) -> Result<String> {
        if json {
            return Ok(serde_json::to_string_pretty(self)? + "\n");
        }
        let mut text = format!("{} levels set from {}.\n", self.set, self.file);
        if self.set_before > 0 {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{} rows were set by an earlier import of this very file and were left alone. To set these levels once more, \
                 give the import another --name.",
                self.set_before
            );
        }
        Ok(text + &hidden(&self.hidden))
    }
}

impl WouldImport {
    /// As it is printed.
    pub(super) fn written(&self, json: bool) -> Result<String> {
        if json {
            return Ok(serde_json::to_string_pretty(self)? + "\n");
        }
        let Self { file, would_set, new, same, changes, set_before, .. } = self;
        let mut text = format!(
            "Nothing was changed. An import of {file} would set {would_set} levels: {new} of items that are not known yet, \
             {} to another number, {same} to what they are.\n",
            changes.len()
        );
        for LevelChange { item, from, to } in changes.iter().take(MOST_CHANGES) {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {}: {from} to {to}", item.named());
        }
        if changes.len() > MOST_CHANGES {
            let _ = writeln!(text, "  … and {} more", changes.len() - MOST_CHANGES);
        }
        if *set_before > 0 {
            let _ = writeln!(
                text,
                "{set_before} rows were set by an earlier import of this very file and would be left alone, unless the import \
                 has another --name."
            );
        }
        Ok(text + &hidden(&self.hidden))
    }
}
