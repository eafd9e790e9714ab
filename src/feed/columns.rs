//! Which column says what.

use std::str::FromStr;

use anyhow::{Result, bail};

use super::FeedSettings;

/// What a column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The SKU.
    Sku,
    /// How many pieces.
    Available,
    /// Where; may be missing or empty, for the default location.
    Location,
}

impl Column {
    const ALL: [Self; 3] = [Self::Sku, Self::Available, Self::Location];

    fn name(self) -> &'static str {
        match self {
            Self::Sku => "sku",
            Self::Available => "available",
            Self::Location => "location",
        }
    }

    /// What it is called where nobody says otherwise.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Sku => &["sku"],
            Self::Available => &["available", "quantity"],
            Self::Location => &["location"],
        }
    }

    /// What Google's specification of local inventory calls it, of today and of before; underscores and spaces are one.
    fn of_google(self) -> &'static [&'static str] {
        match self {
            Self::Sku => &["id", "itemid", "item id"],
            Self::Available => &["quantity"],
            Self::Location => &["store code"],
        }
    }
}

/// The name of one column: `sku=Item number`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    column: Column,
    name: String,
}

impl FromStr for ColumnName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "is COLUMN=NAME, where COLUMN is sku, available or location".to_owned();
        let (column, name) = text.split_once('=').ok_or_else(expected)?;
        let column =
            Column::ALL.into_iter().find(|known| known.name() == column.trim()).ok_or_else(expected)?;
        let name = name.trim();
        if name.is_empty() { Err(expected()) } else { Ok(Self { column, name: name.to_owned() }) }
    }
}

/// Where the columns are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) sku: usize,
    pub(super) available: usize,
    /// What the header calls it, for messages.
    pub(super) available_name: String,
    pub(super) location: Option<usize>,
    /// How many the header has.
    pub(super) count: usize,
}

impl Columns {
    /// Finds the columns in a header.
    ///
    /// # Errors
    /// When one is missing, or two could be it, or there are more than are needed: says which.
    pub(super) fn find(header: &[String], settings: &FeedSettings) -> Result<Self> {
        let names: Vec<String> = header.iter().map(|name| normal(name)).collect();
        let is_google = settings.columns.is_empty()
            && [Column::Sku, Column::Location]
                .iter()
                .all(|column| names.iter().any(|name| column.of_google().contains(&name.as_str())))
            && !names.iter().any(|name| name == "sku");
        let find = |column: Column| -> Result<Option<usize>> {
            let said = settings.columns.iter().find(|known| known.column == column);
            let said = said.map(|said| normal(&said.name));
            let usual = if is_google { column.of_google() } else { column.usual() };
            let is_it = |name: &&String| match &said {
                Some(said) => *name == said,
                None => usual.contains(&name.as_str()),
            };
            let found: Vec<usize> =
                names.iter().enumerate().filter(|(_, name)| is_it(name)).map(|(at, _)| at).collect();
            match (&found[..], said) {
                ([], Some(said)) => {
                    bail!("line 1: no column is called {said}, the columns are {}", names.join(","))
                }
                ([], None) => Ok(None),
                ([only], _) => Ok(Some(*only)),
                ([first, second, ..], _) => bail!(
                    "line 1: column {} or {} could be {}: name it (--columns {}=NAME), and no two alike",
                    names[*first],
                    names[*second],
                    column.name(),
                    column.name()
                ),
            }
        };
        let (sku, available, location) =
            (find(Column::Sku)?, find(Column::Available)?, find(Column::Location)?);
        let (Some(sku), Some(available)) = (sku, available) else {
            bail!(
                "line 1: the header must be sku,available (or sku,quantity), with location or without, it is {}; --columns \
                 says what columns are called",
                names.join(",")
            )
        };
        let is_needed = |at: &usize| [Some(sku), Some(available), location].contains(&Some(*at));
        let extra: Vec<&str> =
            (0..names.len()).filter(|at| !is_needed(at)).map(|at| names[at].as_str()).collect();
        if !extra.is_empty() && !settings.ignore_extra && !is_google {
            bail!(
                "line 1: the header must be sku,available (or sku,quantity), with location or without, it is {}; \
                 --ignore-extra passes over {}",
                names.join(","),
                extra.join(", ")
            );
        }
        let available_name = names[available].clone();
        Ok(Self { sku, available, available_name, location, count: names.len() })
    }
}

/// A name without what does not count: case, and whether words are joined by spaces or underscores.
fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace('_', " ")
}
