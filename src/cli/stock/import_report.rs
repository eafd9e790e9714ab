//! What an import did, or would do: for people and for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::feed::Refused;
use crate::ledger::{Item, Location, Sku, is_invisible, visible};

/// Most rows and changes that are named to a person; then the rest is only counted.
const MOST_ROWS: usize = 20;
const MOST_CHANGES: usize = 50;

/// A row by its line and its item.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    line: u64,
    #[serde(flatten)]
    item: ItemView,
}

impl Named {
    /// The row on this line.
    pub(super) fn new(line: u64, item: &Item) -> Self {
        Self { line, item: ItemView::from(item.clone()) }
    }

    /// The row, if a person cannot see all of its item: another item than the one that looks the same.
    pub(super) fn if_hidden(line: u64, item: &Item) -> Option<Self> {
        let has_hidden = |text: &str| text.contains(is_invisible);
        let is_hidden =
            has_hidden(item.sku.as_str()) || item.location.as_ref().is_some_and(|at| has_hidden(at.as_str()));
        is_hidden.then(|| Self::new(line, item))
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

/// How many rows were done.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Done {
    /// Levels that were set, and rows that an earlier import of this very file had set.
    Set { set: usize, set_before: usize },
    /// The same of pieces that came in.
    Received { received: usize, received_before: usize },
}

/// What an import did.
#[derive(Debug, Serialize)]
pub(super) struct Imported {
    /// The file.
    pub(super) file: String,
    /// How many rows were done.
    #[serde(flatten)]
    pub(super) done: Done,
    /// Rows with characters that nobody sees.
    pub(super) hidden: Vec<Named>,
    /// What was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refused: Vec<Refused>,
}

/// How many rows would be done.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Planned {
    /// Levels that would be set, and rows that an earlier import of this very file had set.
    Set { would_set: usize, set_before: usize },
    /// The same of pieces that came in.
    Received { would_receive: usize, received_before: usize },
}

/// What an import would do.
#[derive(Debug, Serialize)]
pub(super) struct WouldImport {
    /// The file.
    pub(super) file: String,
    /// How many rows would be done.
    #[serde(flatten)]
    pub(super) planned: Planned,
    /// Of these, those of items that are not known yet.
    pub(super) new: usize,
    /// Of these, those that are what they would be.
    pub(super) same: usize,
    /// Of these, those that would be another number.
    pub(super) changes: Vec<LevelChange>,
    /// Those of items that are not known yet.
    pub(super) new_levels: Vec<LevelChange>,
    /// Rows that were rejected when this very file was imported before.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) rejected_before: usize,
    /// Rows that an earlier import of this very file read otherwise: they would be left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conflicts: Vec<Named>,
    /// Rows with characters that nobody sees.
    pub(super) hidden: Vec<Named>,
    /// What would be left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refused: Vec<Refused>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A level that would change.
#[derive(Debug, Serialize)]
pub(super) struct LevelChange {
    line: u64,
    #[serde(flatten)]
    item: ItemView,
    /// What there is; absent of an item that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
    to: i64,
}

impl LevelChange {
    /// Of the row on this line.
    pub(super) fn new(line: u64, item: &Item, from: Option<i64>, to: i64) -> Self {
        Self { line, item: ItemView::from(item.clone()), from, to }
    }
}

fn hidden(rows: &[Named]) -> String {
    match rows.len() {
        0 => String::new(),
        many => format!(
            "{many} rows have characters in their SKU or location that nobody sees, and so are other items than those that \
             look the same:\n{}",
            named(rows)
        ),
    }
}

/// The first of these rows, a line each.
fn named(rows: &[Named]) -> String {
    let line = |row: &Named| format!("  line {}: {}\n", row.line, row.item.named());
    let more = if rows.len() > MOST_ROWS { "  … and more\n" } else { "" };
    rows.iter().take(MOST_ROWS).map(line).collect::<Vec<_>>().concat() + more
}

/// Names the rows that an earlier import of the file read otherwise, and says what to do about them.
pub(super) fn conflicts(rows: &[Named], adds: bool) -> String {
    let advice = if adds {
        "Another --name would receive once more what the earlier import received of this file: correct these levels by \
         `stock adjust` instead."
    } else {
        "To set all rows of the file as they are read now, give the import another --name."
    };
    match rows.len() {
        0 => String::new(),
        many => format!(
            "{many} rows were read otherwise by an earlier import of this very file, as with other --columns or --thousands. \
             What that decided of them stays so:\n{}{advice}\n",
            named(rows)
        ),
    }
}

/// Names every row that was left out.
pub(super) fn refused(refused: &[Refused]) -> String {
    let mut text = String::new();
    if !refused.is_empty() {
        let lines: BTreeSet<u64> = refused.iter().map(|refused| refused.line).collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} lines were refused:", lines.len());
    }
    for refused in refused {
        let _ = writeln!(text, "  {refused}");
    }
    text
}

impl Imported {
    /// As it is printed.
    pub(super) fn written(&self, json: bool) -> Result<String> {
        if json {
            return Ok(serde_json::to_string_pretty(self)? + "\n");
        }
        let (mut text, done, before) = match self.done {
            Done::Set { set, set_before } => (format!("{set} levels set"), "set", set_before),
            Done::Received { received, received_before } => {
                (format!("{received} deliveries received"), "received", received_before)
            }
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, " from {}.", self.file);
        if before > 0 {
            let _ = writeln!(
                text,
                "{before} rows were {done} by an earlier import of this very file and were left alone. To import them once \
                 more, give the import another --name."
            );
        }
        Ok(text + &refused(&self.refused) + &hidden(&self.hidden))
    }
}

impl WouldImport {
    /// As it is printed.
    pub(super) fn written(&self, json: bool) -> Result<String> {
        if json {
            return Ok(serde_json::to_string_pretty(self)? + "\n");
        }
        let (would, done, before) = match self.planned {
            Planned::Set { would_set, set_before } => (format!("set {would_set} levels"), "set", set_before),
            Planned::Received { would_receive, received_before } => {
                (format!("add to {would_receive} levels"), "received", received_before)
            }
        };
        let Self { file, rejected_before, new, same, changes, .. } = self;
        let mut text = format!(
            "Nothing was changed. An import of {file} would {would}: {new} of items that are not known yet, {} to another \
             number, {same} to what they are.\n",
            changes.len()
        );
        let mut all: Vec<&LevelChange> = changes.iter().chain(&self.new_levels).collect();
        all.sort_by_key(|change| change.line);
        text.push_str(&table(&all));
        if before > 0 {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{before} rows were {done} by an earlier import of this very file and would be left alone, unless the import \
                 has another --name."
            );
        }
        if *rejected_before > 0 {
            let _ = writeln!(
                text,
                "{rejected_before} rows were rejected by an earlier import of this very file and stay so. To try them again, \
                 import them alone under another --name."
            );
        }
        let adds = matches!(self.planned, Planned::Received { .. });
        text.push_str(&conflicts(&self.conflicts, adds));
        Ok(text + &refused(&self.refused) + &hidden(&self.hidden))
    }
}

/// What would change, for people: the location only where there is one.
fn table(changes: &[&LevelChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let shown = &changes[..changes.len().min(MOST_CHANGES)];
    let located = shown.iter().any(|change| change.item.location.is_some());
    let mut header = vec!["LINE", "SKU"];
    header.extend(located.then_some("LOCATION"));
    let names = header.len();
    header.extend(["NOW", "THEN"]);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index == 0 || index >= names {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for LevelChange { line, item, from, to } in shown {
        let mut cells = vec![line.to_string(), visible(item.sku.as_str()).into_owned()];
        if located {
            let at = item.location.as_ref().map(Location::as_str).unwrap_or_default();
            cells.push(visible(at).into_owned());
        }
        cells.extend([from.map_or_else(|| "-".to_owned(), |from| from.to_string()), to.to_string()]);
        table.add_row(cells);
    }
    let more = match changes.len() - shown.len() {
        0 => String::new(),
        more => format!("… and {more} more\n"),
    };
    table.trim_fmt() + "\n" + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, location: Option<&str>) -> Item {
        let location = location.map(|name| Location::new(name).unwrap());
        Item { sku: Sku::new(sku).unwrap(), location }
    }

    #[test]
    fn what_nobody_sees_in_a_name_is_named() {
        let rows: Vec<Named> = [(2, item("MUG", None)), (3, item("M\u{200b}UG", Some("north")))]
            .iter()
            .filter_map(|(line, item)| Named::if_hidden(*line, item))
            .collect();
        let text = hidden(&rows);
        assert!(text.ends_with("look the same:\n  line 3: M<U+200B>UG at north\n"), "{text}");
        assert_eq!(hidden(&[]), "");
    }

    #[test]
    fn a_table_shows_what_changes_and_locations_only_where_there_are_any() {
        let known = LevelChange::new(2, &item("MUG", None), Some(8), 10);
        let new = LevelChange::new(13, &item("HAT", Some("north")), None, 5);
        let shown = |changes: &[&LevelChange]| -> Vec<String> {
            table(changes).lines().map(|line| line.trim().to_owned()).collect()
        };
        assert_eq!(shown(&[&known]), ["LINE  SKU  NOW  THEN", "2  MUG    8    10"]);
        assert_eq!(
            shown(&[&known, &new]),
            ["LINE  SKU  LOCATION  NOW  THEN", "2  MUG              8    10", "13  HAT  north       -     5"]
        );
        assert!(table(&[&known; 60]).ends_with("… and 10 more\n"));
        assert_eq!(table(&[]), "");
    }
}
