//! Two ledgers, compared to the row.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug, Display};

use anyhow::Result;

use super::replay_state::PAGE;
use crate::ledger::{Decision, Id, Item, NextOffset, OrderStock, Seq, TopicPartition};
use crate::store::{ItemLevel, Snapshot, StoredMovement};

/// Differences that are shown; a rebuilt ledger should have none.
const MOST_SHOWN: usize = 100;

/// What comparing two ledgers came to.
#[derive(Debug, Default)]
pub(super) struct RowComparison {
    /// Rows compared, of all tables.
    pub(super) compared: u64,
    /// Where the two differ; the first hundred.
    pub(super) differences: Vec<String>,
}

/// Compares two ledgers to the row.
pub(super) async fn compare_rows(old: &mut dyn Snapshot, new: &mut dyn Snapshot) -> Result<RowComparison> {
    let mut comparison = RowComparison::default();
    let mut after = Seq::START;
    loop {
        let (there, here) =
            (old.decisions_after(after, PAGE).await?, new.decisions_after(after, PAGE).await?);
        // Pages of different length end at the shorter one's end.
        let through = match (there.last(), here.last()) {
            (None, None) => break,
            (Some(there), Some(here)) => there.seq.min(here.seq),
            (Some(only), None) | (None, Some(only)) => only.seq,
        };
        let through_there = |page: Vec<Decision>| -> Vec<(Seq, Decision)> {
            page.into_iter().filter(|row| row.seq <= through).map(|row| (row.seq, row)).collect()
        };
        differ(&mut comparison, "decision at ledger sequence", through_there(there), through_there(here));
        let rows = |page: Vec<StoredMovement>| -> Vec<_> {
            page.into_iter().map(|row| (format!("{} of {}", row.version, row.item), row)).collect()
        };
        let there = rows(old.movements_between(after, through).await?);
        let here = rows(new.movements_between(after, through).await?);
        differ(&mut comparison, "movement", there, here);
        after = through;
    }
    let mut last = None;
    loop {
        let rows =
            |page: Vec<ItemLevel>| -> Vec<_> { page.into_iter().map(|row| (row.item, row.level)).collect() };
        let mut there = rows(old.levels_after(last.as_ref(), PAGE).await?);
        let mut here = rows(new.levels_after(last.as_ref(), PAGE).await?);
        last = cut(&mut there, &mut here);
        if last.is_none() {
            break;
        }
        differ(&mut comparison, "level of SKU", there, here);
    }
    let mut last: Option<Line> = None;
    loop {
        let after = last.as_ref().map(|Line(id, item)| (id, item));
        let rows = |page: Vec<(Id, OrderStock)>| -> Vec<_> {
            page.into_iter().map(|(id, row)| (Line(id, row.item.clone()), row)).collect()
        };
        let mut there = rows(old.order_lines_after(after, PAGE).await?);
        let mut here = rows(new.order_lines_after(after, PAGE).await?);
        last = cut(&mut there, &mut here);
        if last.is_none() {
            break;
        }
        differ(&mut comparison, "returned line of order", there, here);
    }
    let mut last = None;
    loop {
        let mut there = old.holds_after(last.as_ref(), PAGE).await?;
        let mut here = new.holds_after(last.as_ref(), PAGE).await?;
        last = cut(&mut there, &mut here);
        if last.is_none() {
            break;
        }
        differ(&mut comparison, "hold of order", there, here);
    }
    let (there, here) = (old.positions().await?, new.positions().await?);
    let sorted = |positions: HashMap<TopicPartition, NextOffset>| -> Vec<_> {
        BTreeMap::from_iter(positions).into_iter().collect()
    };
    differ(&mut comparison, "position of", sorted(there), sorted(here));
    Ok(comparison)
}

/// The key of an order's line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line(Id, Item);

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.1)
    }
}

/// Cuts two pages of one table, each sorted by key, to what both reach; the last key of that, `None` when both are empty.
fn cut<K: Ord + Clone, V>(there: &mut Vec<(K, V)>, here: &mut Vec<(K, V)>) -> Option<K> {
    let reach = match (there.last(), here.last()) {
        (None, None) => return None,
        // A page that is not full ends its table.
        (Some((a, _)), Some((b, _))) => match (there.len() < PAGE, here.len() < PAGE) {
            (true, true) => a.max(b).clone(),
            (true, false) => b.clone(),
            (false, true) => a.clone(),
            (false, false) => a.min(b).clone(),
        },
        (Some((only, _)), None) | (None, Some((only, _))) => only.clone(),
    };
    there.retain(|(key, _)| *key <= reach);
    here.retain(|(key, _)| *key <= reach);
    Some(reach)
}

/// Notes in which rows two pages differ.
fn differ<K: Ord + Display, V: PartialEq + Debug>(
    comparison: &mut RowComparison,
    what: &str,
    there: Vec<(K, V)>,
    here: Vec<(K, V)>,
) {
    let mut rows: BTreeMap<K, (Option<V>, Option<V>)> = BTreeMap::new();
    for (key, row) in there {
        rows.entry(key).or_default().0 = Some(row);
    }
    for (key, row) in here {
        rows.entry(key).or_default().1 = Some(row);
    }
    comparison.compared += rows.len() as u64;
    for (key, (there, here)) in rows {
        if there != here && comparison.differences.len() < MOST_SHOWN {
            let show = |row: Option<V>| row.map_or_else(|| "nothing".to_owned(), |row| format!("{row:?}"));
            comparison.differences.push(format!("{what} {key}: old {}, new {}", show(there), show(here)));
        }
    }
}
