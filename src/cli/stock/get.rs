//! `stock get`: shows levels and limits.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::ledger::{Limits, Location, Sku, visible};
use crate::store::{ItemLevel, LedgerReader};

/// The arguments of `stock get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which SKUs, each at every location; none for all
    #[arg(value_name = "SKU")]
    pub skus: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn get(args: GetArgs, store: &dyn LedgerReader) -> Result<String> {
    let wanted = args
        .skus
        .iter()
        .map(|text| Sku::new(text).with_context(|| format!("the SKU {text:?}")))
        .collect::<Result<Vec<_>>>()?;
    let levels = store.levels((!wanted.is_empty()).then_some(&wanted)).await?;
    let unknown: Vec<_> = wanted
        .iter()
        .filter(|sku| levels.iter().all(|level| level.item.sku != **sku))
        .map(|sku| visible(sku.as_str()))
        .collect();
    ensure!(unknown.is_empty(), "no stock of these SKUs was ever recorded: {}", unknown.join(", "));
    if args.json { json(&levels) } else { Ok(table(&levels)) }
}

/// A level, for programs.
#[derive(Debug, Serialize)]
pub(super) struct LevelView<'a> {
    sku: &'a Sku,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a Location>,
    available: i64,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backorder_limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_limit: Option<i64>,
}

impl<'a> From<&'a ItemLevel> for LevelView<'a> {
    fn from(ItemLevel { item, level }: &'a ItemLevel) -> Self {
        Self {
            sku: &item.sku,
            location: item.location.as_ref(),
            available: level.available,
            version: level.version,
            backorder_limit: Some(level.limits.backorder).filter(|limit| *limit > 0),
            order_limit: level.limits.order,
        }
    }
}

fn json(levels: &[ItemLevel]) -> Result<String> {
    let shown: Vec<LevelView<'_>> = levels.iter().map(LevelView::from).collect();
    Ok(serde_json::to_string_pretty(&shown)? + "\n")
}

/// Levels for people: the location and the limits only where there are any, since most tell no locations apart and set
/// no limits.
pub(super) fn table(levels: &[ItemLevel]) -> String {
    if levels.is_empty() {
        return "No stock was ever recorded.\n".to_owned();
    }
    let located = levels.iter().any(|level| level.item.location.is_some());
    let limited = levels.iter().any(|level| level.level.limits != Limits::default());
    let mut header = vec!["SKU"];
    header.extend(located.then_some("LOCATION"));
    let names = header.len();
    header.extend(["AVAILABLE", "VERSION"]);
    header.extend(limited.then_some(["BACKORDER LIMIT", "ORDER LIMIT"]).into_iter().flatten());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for number in table.column_iter_mut().skip(names) {
        number.set_cell_alignment(CellAlignment::Right);
    }
    for ItemLevel { item, level } in levels {
        let mut row = vec![visible(item.sku.as_str()).into_owned()];
        if located {
            row.push(item.location.as_ref().map_or_else(String::new, |at| visible(at.as_str()).into_owned()));
        }
        row.extend([level.available.to_string(), level.version.to_string()]);
        if limited {
            row.push(level.limits.backorder.to_string());
            row.push(level.limits.order.map_or_else(|| "none".to_owned(), |limit| limit.to_string()));
        }
        table.add_row(row);
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Item, Level};

    fn level(sku: &str, location: Option<&str>, limits: Limits) -> ItemLevel {
        let location = location.map(|text| Location::new(text).unwrap());
        let item = Item { sku: Sku::new(sku).unwrap(), location };
        ItemLevel { item, level: Level { available: 12, version: 3, limits } }
    }

    #[test]
    fn a_table_has_columns_only_for_what_there_is() {
        let shown = |levels: &[ItemLevel]| -> Vec<String> {
            table(levels).lines().map(|line| line.trim().to_owned()).collect()
        };
        let plain = level("MUG", None, Limits::default());
        assert_eq!(
            shown(std::slice::from_ref(&plain)),
            ["SKU  AVAILABLE  VERSION", "MUG         12        3"]
        );
        let limits = Limits { backorder: 5, order: None };
        assert_eq!(
            shown(&[plain, level("MUG", Some("north"), limits)]),
            [
                "SKU  LOCATION  AVAILABLE  VERSION  BACKORDER LIMIT  ORDER LIMIT",
                "MUG                   12        3                0         none",
                "MUG  north            12        3                5         none",
            ]
        );
    }
}
