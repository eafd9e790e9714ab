//! `stock export`: all levels as a CSV file that `stock import` takes back.

use anyhow::{Context as _, Result};

use crate::ledger::{Location, MAX_QUANTITY};
use crate::store::{ItemLevel, LedgerReader};

/// Items left out of an export that are named before the rest is only counted.
const MOST_NAMED: usize = 10;

pub(super) async fn export(store: &dyn LedgerReader) -> Result<String> {
    let (stated, left_out): (Vec<_>, Vec<_>) =
        store.levels(None).await?.into_iter().partition(can_be_imported);
    if !left_out.is_empty() {
        let named: Vec<_> = left_out.iter().take(MOST_NAMED).map(|level| level.item.to_string()).collect();
        let more = if left_out.len() > named.len() { ", …" } else { "" };
        tracing::warn!(
            "{} levels are left out, since no import can set them: those below zero, where more is promised than there \
             is, and those of names that begin or end with white space: {}{more}. `stock get` has them all",
            left_out.len(),
            named.join(", ")
        );
    }
    csv_of(&stated)
}

/// Whether an import of this level would set this level.
fn can_be_imported(ItemLevel { item, level }: &ItemLevel) -> bool {
    // An import trims what stands around a name.
    let is_trimmed = |name: &str| name.trim().len() == name.len();
    (0..=MAX_QUANTITY).contains(&level.available)
        && is_trimmed(item.sku.as_str())
        && item.location.as_ref().is_none_or(|location| is_trimmed(location.as_str()))
}

/// With a column for locations only where there are any, as people write it.
fn csv_of(levels: &[ItemLevel]) -> Result<String> {
    let located = levels.iter().any(|level| level.item.location.is_some());
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut row = |sku: &str, location: &str, available: &str| {
        if located {
            csv.write_record([sku, location, available])
        } else {
            csv.write_record([sku, available])
        }
    };
    let failed = "the CSV cannot be written";
    row("sku", "location", "available").context(failed)?;
    for ItemLevel { item, level } in levels {
        let location = item.location.as_ref().map_or("", Location::as_str);
        row(item.sku.as_str(), location, &level.available.to_string()).context(failed)?;
    }
    String::from_utf8(csv.into_inner().context(failed)?).context(failed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::{self, FeedSettings};
    use crate::ledger::{Item, Level, Limits, Sku};

    fn item_level() -> impl Strategy<Value = ItemLevel> {
        let name = r"[ -~é\u{a0}\u{2028}🏷️]{1,6}";
        let location = prop_oneof![Just(None), name.prop_map(Some)];
        (name, location, -3..9_i64).prop_map(|(sku, location, available)| ItemLevel {
            item: Item {
                sku: Sku::new(&sku).unwrap(),
                location: location.map(|name| Location::new(&name).unwrap()),
            },
            level: Level { available, version: 1, limits: Limits::default() },
        })
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_back_as_it_was(levels in prop::collection::btree_map("[a-z]{3}", item_level(), 1..9)) {
            // Each SKU once: its own, and a name that no other has.
            let levels: Vec<ItemLevel> = levels
                .into_iter()
                .map(|(name, mut level)| {
                    let sku = format!("{}{name}{}", level.item.sku, level.item.sku);
                    level.item.sku = Sku::new(&sku).unwrap();
                    level
                })
                .filter(can_be_imported)
                .collect();
            prop_assume!(!levels.is_empty());
            let feed = feed::read(csv_of(&levels).unwrap().as_bytes(), &FeedSettings::default()).unwrap();
            prop_assert!(feed.refused.is_empty());
            let read: Vec<_> = feed.rows.into_iter().map(|row| (row.item, row.pieces)).collect();
            let stated: Vec<_> = levels.into_iter().map(|level| (level.item, level.level.available)).collect();
            prop_assert_eq!(read, stated);
        }
    }
}
