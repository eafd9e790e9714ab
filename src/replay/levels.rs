//! The levels topic against the ledger: the last record of each key must be a level that the item had, and no newer one
//! than it has.
//!
//! An older level than the item has now is no fault: who publishes the newest may have been killed, or not have come to it
//! yet. It is counted, and a verifier that starts publishes all levels.

use std::collections::HashMap;

use anyhow::Result;

use super::finding::{AuditReport, Finding, WrongLevel};
use super::published::Event;
use crate::event::{Channel, Record, level, level_item};
use crate::kafka::topic_ids::Described;
use crate::kafka::topics::Topics;
use crate::ledger::{Item, Level, Limits, Movement, Source};

/// Records without an item's key that are named at most: another program may write to that topic.
const MOST_FOREIGN: usize = 1_000;

/// What the levels topic says at last of each item.
#[derive(Debug, Default)]
pub(super) struct PublishedLevels {
    last: HashMap<Item, Last>,
    /// Whether the topic has any record at all: who publishes no levels has an empty one, or none.
    is_used: bool,
    /// What is wrong so far: with which record, of which item, and how.
    wrong: Vec<(Source, Option<Item>, WrongLevel)>,
    note: Option<String>,
}

/// The last record of an item, in short.
#[derive(Debug)]
struct Last {
    at: Source,
    /// The version it says; `None` where it says none, or is no level.
    version: Option<i64>,
    fingerprint: u64,
    envelope: Option<u64>,
    /// Whether the ledger has a movement of that version.
    is_known: bool,
    /// The newest version that the item has, as far as the ledger was walked.
    newest: i64,
}

impl PublishedLevels {
    /// Reads the topic. Before the ledger is looked at: then nothing in it is newer than that.
    ///
    /// # Errors
    /// When it cannot be read. Where it does not exist, there is nothing to compare.
    pub(super) fn read(topics: &Topics, topic: &str) -> Result<Self> {
        let mut levels = Self::default();
        match topics.describe(&[topic])?.first() {
            Some(Described::There { .. }) => {}
            Some(Described::NotPermitted) => {
                levels.note = Some(format!("levels were not compared: this user may not see topic {topic}"));
                return Ok(levels);
            }
            Some(Described::Absent) | None => return Ok(levels),
        }
        let mut reader = topics.read(&topics.whole_topic(topic)?)?;
        while let Some(record) = reader.take_next()? {
            levels.is_used = true;
            levels.take(&record);
        }
        Ok(levels)
    }

    fn take(&mut self, record: &Record) {
        let at = record.source.clone();
        let Some(item) = record.key.as_deref().and_then(level_item) else {
            if self.wrong.len() < MOST_FOREIGN {
                self.wrong.push((at, None, WrongLevel::Foreign));
            }
            return;
        };
        let event = Event::found(Channel::Levels, record);
        let (fingerprint, envelope) = event.map_or((0, None), |event| (event.fingerprint, event.envelope));
        let version = record.value.as_deref().and_then(version_of);
        let last = Last { at, version, fingerprint, envelope, is_known: false, newest: 0 };
        self.last.insert(item, last);
    }

    /// A movement, on the walk through the ledger.
    pub(super) fn meet(&mut self, movement: &Movement) {
        let Some(last) = self.last.get_mut(&movement.item) else { return };
        last.newest = last.newest.max(movement.version);
        if last.version != Some(movement.version) {
            return;
        }
        last.is_known = true;
        let had = Level { available: movement.balance, version: movement.version, limits: Limits::default() };
        let is_right = Event::expected(&level(&movement.item, &had)).is_some_and(|expected| {
            (expected.fingerprint, expected.envelope) == (last.fingerprint, last.envelope)
        });
        if !is_right {
            let how = WrongLevel::Otherwise { version: had.version, available: had.available };
            self.wrong.push((last.at.clone(), Some(movement.item.clone()), how));
        }
    }

    /// What came of it, after the walk. While a verifier is `running`, older levels are its to publish.
    pub(super) fn report(mut self, running: bool, report: &mut AuditReport) {
        let mut older = 0_u64;
        for (item, last) in self.last {
            let how = match last.version {
                None => WrongLevel::Foreign,
                Some(version) if !last.is_known => WrongLevel::Unknown { version, newest: last.newest },
                Some(version) => {
                    older += u64::from(version < last.newest);
                    continue;
                }
            };
            self.wrong.push((last.at, Some(item), how));
        }
        self.wrong.sort_by_cached_key(|(record, ..)| (record.at.clone(), record.offset));
        for (record, item, wrong) in self.wrong {
            report.add(Finding::PublishedLevel { item, record, wrong });
        }
        if older > 0 && self.is_used && !running {
            report.notes.push(format!(
                "the levels topic has older levels than the ledger of {older} items: a verifier publishes all levels when \
                 it starts, unless with --no-levels"
            ));
        }
        report.notes.extend(self.note);
    }
}

fn version_of(value: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: i64,
    }
    serde_json::from_slice::<Versioned>(value).ok().map(|level| level.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Header;
    use crate::ledger::{CommandKey, CommandKind, Id, Offset, Seq, TopicPartition};

    fn item(name: &str) -> Item {
        level_item(name.as_bytes()).unwrap()
    }

    /// The record that publishes a level, at this offset.
    fn record(offset: i64, name: &str, available: i64, version: i64) -> Record {
        let event = level(&item(name), &Level { available, version, limits: Limits::default() });
        let headers = event.headers.iter().map(|header| Header {
            name: header.name.to_string(),
            value: header.value.as_deref().map(<[u8]>::to_vec),
        });
        Record {
            source: Source { at: TopicPartition::new("stock.levels", 0), offset: Offset(offset) },
            key: event.key.clone(),
            value: event.value.clone(),
            headers: headers.collect(),
            timestamp_ms: None,
            decoded: None,
        }
    }

    /// The offsets and faults that are found where the ledger has these movements, and the notes.
    fn found(records: &[Record], movements: &[(&str, i64, i64)]) -> (Vec<(i64, WrongLevel)>, Vec<String>) {
        let mut levels = PublishedLevels { is_used: true, ..PublishedLevels::default() };
        for record in records {
            levels.take(record);
        }
        for (name, version, balance) in movements {
            levels.meet(&Movement {
                item: item(name),
                version: *version,
                quantity: 0,
                balance: *balance,
                cause: CommandKey { id: Id::new("a").unwrap(), kind: CommandKind::Adjustment },
                seq: Seq(1),
                source: None,
            });
        }
        let mut report = AuditReport::default();
        levels.report(false, &mut report);
        let faults = report.findings.into_iter().map(|finding| match finding {
            Finding::PublishedLevel { record, wrong, .. } => (record.offset.0, wrong),
            other => panic!("{other:?}"),
        });
        (faults.collect(), report.notes)
    }

    #[test]
    fn the_last_record_of_each_item_counts_and_may_be_an_older_level() {
        let movements = [("MUG", 1, 5), ("MUG", 2, 4), ("MUG\u{1f}BERLIN", 1, 9)];
        let wrong_before = record(0, "MUG", 77, 1);
        let newest = record(1, "MUG", 4, 2);
        let berlin = record(2, "MUG\u{1f}BERLIN", 9, 1);
        assert_eq!(found(&[wrong_before, newest, berlin], &movements), (vec![], vec![]));
        let (faults, notes) = found(&[record(0, "MUG", 5, 1)], &movements);
        assert_eq!((faults, notes.len()), (vec![], 1), "{notes:?}");
    }

    #[test]
    fn a_level_that_never_was_and_what_is_no_level_are_named() {
        let movements = [("MUG", 1, 5), ("MUG", 2, 4)];
        let mut tombstone = record(3, "MUG", 4, 2);
        tombstone.value = None;
        let mut keyless = record(4, "MUG", 4, 2);
        keyless.key = None;
        let mut bare = record(5, "MUG", 4, 2);
        bare.headers.clear();
        for (record, wrong) in [
            (record(1, "MUG", 3, 2), WrongLevel::Otherwise { version: 2, available: 4 }),
            (record(2, "MUG", 4, 3), WrongLevel::Unknown { version: 3, newest: 2 }),
            (tombstone, WrongLevel::Foreign),
            (keyless, WrongLevel::Foreign),
            (bare, WrongLevel::Otherwise { version: 2, available: 4 }),
            (record(6, "HAT", 1, 1), WrongLevel::Unknown { version: 1, newest: 0 }),
        ] {
            assert_eq!(found(std::slice::from_ref(&record), &movements).0, [(record.source.offset.0, wrong)]);
        }
    }
}
