//! Two ledgers, compared to the row.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};

use anyhow::Result;

use super::replay_state::PAGE;
use crate::ledger::{
    Decision, HeldProgram, Hold, Id, Item, Level, NextOffset, OrderStock, Seq, TopicPartition,
};
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
    let keyed = |programs: Vec<HeldProgram>| -> Vec<_> {
        programs.into_iter().map(|held| (format!("{} from offset {} on", held.at, held.from), held)).collect()
    };
    let (there, here) = (keyed(old.programs().await?), keyed(new.programs().await?));
    differ(&mut comparison, "mapping of", there, here);
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

/// A row as people read it: its columns by name, without those of its key.
trait Row: PartialEq {
    fn columns(&self) -> Vec<(&'static str, String)>;
}

/// What stands where there is nothing.
fn or_none(value: Option<impl Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

impl Row for Decision {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![
            ("command", self.key.to_string()),
            ("verdict", if self.accepted { "accepted" } else { "rejected" }.to_owned()),
            ("record", or_none(self.source.as_ref())),
            ("decided_at", self.decided_at.rfc3339()),
            ("digest", format!("{:?}", self.digest)),
            ("detail", self.detail.clone()),
        ]
    }
}

impl Row for StoredMovement {
    fn columns(&self) -> Vec<(&'static str, String)> {
        let record = self.record.map(|(partition, offset)| format!("{partition}@{offset}"));
        vec![
            ("quantity", self.quantity.to_string()),
            ("balance", self.balance.to_string()),
            ("command", self.cause.to_string()),
            ("ledger sequence", self.seq.to_string()),
            ("record", or_none(record)),
        ]
    }
}

impl Row for Level {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![
            ("available", self.available.to_string()),
            ("version", self.version.to_string()),
            ("backorder_limit", self.limits.backorder.to_string()),
            ("order_limit", or_none(self.limits.order)),
        ]
    }
}

impl Row for OrderStock {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![("deducted", self.deducted.to_string()), ("returned", self.returned.to_string())]
    }
}

impl Row for Hold {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![("ends", self.expires_at.rfc3339()), ("partition", or_none(self.at.as_ref()))]
    }
}

impl Row for HeldProgram {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![("program", or_none(self.program.as_ref()))]
    }
}

impl Row for NextOffset {
    fn columns(&self) -> Vec<(&'static str, String)> {
        vec![("next_offset", self.to_string())]
    }
}

/// Longest part of a value that is shown, in characters: a detail may be that of a cart of a thousand lines.
const MOST_CHARS: usize = 200;
/// Characters shown before the first that differs.
const CHARS_BEFORE: usize = 60;

/// The part of two values in which they first differ.
fn cut_alike(one: &str, other: &str) -> [String; 2] {
    let alike = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let from = if one.chars().count().max(other.chars().count()) <= MOST_CHARS {
        0
    } else {
        alike.saturating_sub(CHARS_BEFORE)
    };
    [one, other].map(|text| {
        let shown: String = text.chars().skip(from).take(MOST_CHARS).collect();
        let goes_on = text.chars().count() > from + MOST_CHARS;
        format!("{}{shown}{}", if from > 0 { "…" } else { "" }, if goes_on { "…" } else { "" })
    })
}

/// How two rows differ, column by column.
fn apart<V: Row>(there: Option<&V>, here: Option<&V>) -> String {
    let all = |row: &V| {
        let columns = row.columns().into_iter().map(|(name, value)| {
            let [value, _] = cut_alike(&value, "");
            format!("{name} {value}")
        });
        columns.collect::<Vec<_>>().join(", ")
    };
    let (there, here) = match (there, here) {
        (Some(there), Some(here)) => (there.columns(), here.columns()),
        (Some(there), None) => return format!("the old ledger has {}; the new one has nothing", all(there)),
        (None, Some(here)) => return format!("the old ledger has nothing; the new one has {}", all(here)),
        (None, None) => return String::new(),
    };
    let differing = there.iter().zip(&here).filter(|(there, here)| there != here);
    let said: Vec<String> = differing
        .map(|((name, there), (_, here))| {
            let [there, here] = cut_alike(there, here);
            format!("{name} is {there} in the old ledger, {here} in the new one")
        })
        .collect();
    said.join("; ")
}

/// Notes in which rows two pages differ.
fn differ<K: Ord + Display, V: Row>(
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
            let how = apart(there.as_ref(), here.as_ref());
            comparison.differences.push(format!("{what} {key}: {how}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Limits, Stamp};

    #[test]
    fn rows_that_differ_are_told_apart_by_column_in_plain_words() {
        let level = |available, order| {
            let limits = Limits { backorder: 0, order };
            Level { available, version: 3, limits }
        };
        assert_eq!(
            apart(Some(&level(4, None)), Some(&level(5, Some(2)))),
            "available is 4 in the old ledger, 5 in the new one; order_limit is none in the old ledger, 2 in the new one"
        );
        let hold = Hold { expires_at: Stamp(0), at: Some(TopicPartition::new("orders", 3)) };
        assert_eq!(
            apart(Some(&hold), None),
            "the old ledger has ends 1970-01-01T00:00:00.000000Z, partition orders[3]; the new one has nothing"
        );
        assert_eq!(
            apart(None, Some(&NextOffset(7))),
            "the old ledger has nothing; the new one has next_offset 7"
        );
    }

    #[test]
    fn of_long_values_the_part_is_shown_where_they_differ() {
        let long = |end: &str| "x".repeat(5_000) + end;
        let [one, other] = cut_alike(&long("1"), &long("2"));
        assert_eq!(one, format!("…{}1", "x".repeat(CHARS_BEFORE)));
        assert_eq!(other, format!("…{}2", "x".repeat(CHARS_BEFORE)));
        let [cut, short] = cut_alike(&long(""), "y");
        assert_eq!((cut.chars().count(), &*short), (MOST_CHARS + 1, "y"));
    }
}
