//! Which records are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::event::{Record, read_record};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{Command, CommandKey, Id, NextOffset, Set, Sku, TopicPartition, visible};
use crate::mapping::Mapping;

/// Where to begin, or to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The first record there is.
    Earliest,
    /// The end, as it is now.
    Latest,
    /// This offset of each partition.
    Offset(NextOffset),
    /// The first record of this time or later.
    Time(Timestamp),
    /// The first record of so long ago or later.
    Ago(Duration),
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<i64>() {
            return if offset < 0 {
                Err("an offset is not negative".to_owned())
            } else {
                Ok(Self::Offset(NextOffset(offset)))
            };
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Time(time));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| {
            zone_missing(text).unwrap_or_else(|| {
                "expected earliest, latest, an offset (4711), a date-time with its zone (2026-11-22T18:00:00Z), or how \
                 long ago (90min, 2h, 3days)"
                    .to_owned()
            })
        })
    }
}

/// What to say of a date, or a date-time without its zone: how it is written with one. Nothing of any other text.
#[must_use]
pub fn zone_missing(text: &str) -> Option<String> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    Some(format!("has no zone: write {time}Z for UTC, or what it is ahead of UTC, as in {time}+01:00"))
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(offset) => offset.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::Ago(ago) => write!(f, "{} ago", humantime::format_duration(*ago)),
        }
    }
}

impl Bound {
    /// Where that is in a partition, given all of it that there is.
    fn offset(self, topics: &Topics, whole: &OffsetRange) -> Result<NextOffset> {
        match self {
            Self::Earliest => Ok(whole.from),
            Self::Latest => Ok(whole.to),
            Self::Offset(offset) => Ok(offset),
            Self::Time(_) | Self::Ago(_) => topics.at_time(whole, self.millis().unwrap_or(0)),
        }
    }

    /// The time it means, in milliseconds since 1970, if it means one.
    fn millis(self) -> Option<i64> {
        match self {
            Self::Earliest | Self::Latest | Self::Offset(_) => None,
            Self::Time(time) => Some(time.as_millisecond()),
            Self::Ago(ago) => {
                let now = Timestamp::now().as_millisecond();
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Some(now.saturating_sub(ago).max(0))
            }
        }
    }
}

/// Positions as rpk's and kcat's users write them down: `TOPIC PARTITION OFFSET`, a line each.
///
/// # Errors
/// When a line is something else; it says which.
pub fn read_positions(text: &str) -> Result<BTreeMap<TopicPartition, NextOffset>> {
    let mut positions = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [topic, partition, offset] = fields[..] else {
            bail!("line {}: expected TOPIC PARTITION OFFSET, found {line:?}", number + 1);
        };
        let at = partition.parse::<u16>().map(|partition| TopicPartition::new(topic, i32::from(partition)));
        let at = at.with_context(|| format!("line {}: {partition:?} is no partition", number + 1))?;
        let offset: u64 =
            offset.parse().with_context(|| format!("line {}: {offset:?} is no offset", number + 1))?;
        let next = NextOffset(i64::try_from(offset).context("an offset is at most 2^63 - 1")?);
        if positions.insert(at.clone(), next).is_some() {
            bail!("line {}: {at} comes twice", number + 1);
        }
    }
    Ok(positions)
}

/// Which records of some topics are meant.
#[derive(Debug, Clone)]
pub struct RecordFilter {
    /// Where to begin in each partition.
    pub from: Bound,
    /// Where to end.
    pub to: Bound,
    /// Where to begin in partitions named one by one; the others are left out.
    pub positions: Option<BTreeMap<TopicPartition, NextOffset>>,
    /// Of these partitions; all when there are none.
    pub partitions: BTreeSet<i32>,
    /// About these orders, or with these ids; any when there are none.
    pub ids: Set<Id>,
    /// About these SKUs; any when there are none.
    pub skus: Set<Sku>,
    /// These commands; any when there are none.
    pub keys: Set<CommandKey>,
}

impl RecordFilter {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            from: Bound::Earliest,
            to: Bound::Latest,
            positions: None,
            partitions: BTreeSet::new(),
            ids: Set::default(),
            skus: Set::default(),
            keys: Set::default(),
        }
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let by_position = self.from != Bound::Earliest
            || self.to != Bound::Latest
            || self.positions.is_some()
            || !self.partitions.is_empty();
        !by_position && !self.looks_inside()
    }

    /// Whether records are chosen by what they say, and not only by where they stand.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        !self.ids.is_empty() || !self.skus.is_empty() || !self.keys.is_empty()
    }

    /// The ranges of these topics that are meant.
    ///
    /// # Errors
    /// When records that are meant by their offset were deleted, or do not exist yet; or Kafka does not answer.
    pub fn ranges(&self, topics: &Topics, of: &[&str]) -> Result<Vec<OffsetRange>> {
        let mut ranges = Vec::new();
        for topic in of {
            for whole in topics.whole_topic(topic)? {
                let at = &whole.at;
                if !self.partitions.is_empty() && !self.partitions.contains(&at.partition) {
                    continue;
                }
                let from = match &self.positions {
                    None => self.from.offset(topics, &whole)?,
                    Some(positions) => match positions.get(at) {
                        Some(from) => *from,
                        None => continue,
                    },
                };
                let to = self.to.offset(topics, &whole)?;
                check_is_there(topics, &whole, from)?;
                if self.positions.is_none() {
                    self.check_reaches(topics, &whole, from)?;
                }
                ranges.push(OffsetRange { at: at.clone(), from, to: to.min(whole.to).max(from) });
            }
        }
        if let Some(missing) = self
            .positions
            .iter()
            .flatten()
            .find(|(at, _)| !of.contains(&&*at.topic) || !ranges.iter().any(|range| range.at == **at))
        {
            bail!("{} is no partition of {}", missing.0, of.join(" or "));
        }
        Ok(ranges)
    }

    /// Refuses a time from before the first record that is left.
    fn check_reaches(&self, topics: &Topics, whole: &OffsetRange, from: NextOffset) -> Result<()> {
        let (Some(millis), true) = (self.from.millis(), from == whole.from && whole.from > NextOffset(0))
        else {
            return Ok(());
        };
        match topics.first_timestamp(whole)? {
            Some(first) if first > millis => bail!(deleted(topics, whole, &format!("--from {}", self.from))?),
            _ => Ok(()),
        }
    }

    /// Whether this record is meant, by what it says. One that says nothing readable is meant by its offset alone.
    #[must_use]
    pub fn wants(&self, record: &Record, mapping: Option<&Mapping>) -> bool {
        if !self.looks_inside() {
            return true;
        }
        read_record(record, mapping).command().is_ok_and(|command| self.wants_command(&command))
    }

    /// Whether this command is meant.
    #[must_use]
    pub fn wants_command(&self, command: &Command) -> bool {
        let by_id = self.ids.is_empty()
            || self.ids.contains(&command.key.id)
            || command.follows().is_some_and(|order| self.ids.contains(order));
        let by_sku = self.skus.is_empty() || command.items().any(|item| self.skus.contains(&item.sku));
        by_id && by_sku && (self.keys.is_empty() || self.keys.contains(&command.key))
    }
}

/// Which of the ids and SKUs that a filter names were met, so that a mistyped one is not taken for one of which all is
/// well.
#[derive(Debug, Default)]
pub struct Met {
    ids: Set<Id>,
    skus: Set<Sku>,
}

impl Met {
    /// Meets an id.
    pub fn id(&mut self, filter: &RecordFilter, id: &Id) {
        if filter.ids.contains(id) && !self.ids.contains(id) {
            self.ids.insert(id.clone());
        }
    }

    /// Meets a SKU.
    pub fn sku(&mut self, filter: &RecordFilter, sku: &Sku) {
        if filter.skus.contains(sku) && !self.skus.contains(sku) {
            self.skus.insert(sku.clone());
        }
    }

    /// Meets a command, with what it is about.
    pub fn command(&mut self, filter: &RecordFilter, command: &Command) {
        if !filter.looks_inside() {
            return;
        }
        self.id(filter, &command.key.id);
        if let Some(order) = command.follows() {
            self.id(filter, order);
        }
        if !filter.skus.is_empty() {
            command.items().for_each(|item| self.sku(filter, &item.sku));
        }
    }

    /// What was named and not met, for people, sorted.
    #[must_use]
    pub fn unmet(&self, filter: &RecordFilter) -> Vec<String> {
        let ids = filter.ids.difference(&self.ids).map(|id| format!("id {}", visible(id.as_str())));
        let skus = filter.skus.difference(&self.skus).map(|sku| format!("SKU {}", visible(sku.as_str())));
        let mut unmet: Vec<String> = ids.chain(skus).collect();
        unmet.sort_unstable();
        unmet
    }
}

/// Refuses to begin where there are no records any more, or none yet.
fn check_is_there(topics: &Topics, whole: &OffsetRange, from: NextOffset) -> Result<()> {
    if from < whole.from {
        bail!(deleted(topics, whole, &format!("offset {from}"))?);
    }
    if from > whole.to {
        bail!("{}: there is no offset {from} yet, the partition ends at {}", whole.at, whole.to);
    }
    Ok(())
}

/// That the records there were deleted, and what is left.
fn deleted(topics: &Topics, whole: &OffsetRange, wanted: &str) -> Result<String> {
    let since = topics.first_timestamp(whole)?.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let since = since.map_or_else(String::new, |since| format!(", which is of {since}"));
    Ok(format!(
        "{}: records before offset {} were deleted (retention?), and {wanted} reaches back to them. The first that is \
         left is {}{since}: begin there, or with --from earliest",
        whole.at, whole.from, whole.from
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_zone_is_refused_with_what_works() {
        for text in ["2026-11-22T18:00:00", "2026-11-22 18:00", "2026-11-22", "2026-11-22T18:00:00.5"] {
            let said = text.parse::<Bound>().unwrap_err();
            assert!(said.starts_with("has no zone"), "{text}: {said}");
            let examples: Vec<_> = said.split_whitespace().filter(|word| word.starts_with("2026")).collect();
            assert_eq!(examples.len(), 2, "{said}");
            for example in examples {
                assert!(matches!(example.parse(), Ok(Bound::Time(_))), "{example}");
            }
        }
        assert!("yesterday".parse::<Bound>().unwrap_err().contains("(2026-11-22T18:00:00Z)"));
    }
}
