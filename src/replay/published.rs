//! What should have been published against what was published, in any order and in bounded memory.
//!
//! Every event falls into one of a million buckets by its id, and each bucket keeps how many events should be in it
//! less how many are, and the same of the sums of their fingerprints. When all is well every bucket is empty in the
//! end. A second reading then names the events of those buckets that are not.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::event::{Channel, OMITTED_VALUE_SHA256, Outgoing, Record, sha256};
use crate::ledger::{Source, Stamp};

/// Buckets: 16 MB, and with twenty million events some twenty in each.
const BUCKETS: usize = 1 << 20;
/// Buckets whose events are named at most: with more, the damage is everywhere.
const MOST_NAMED: usize = 10_000;

/// The header that holds an event's id.
const ID: &str = "ce_id";
const TIME: &str = "ce_time";
const TYPE: &str = "ce_type";
const LETTER_CLASS: &str = "__connect.errors.exception.class.name";

/// An event, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id; of a dead letter, the source of the record it is of.
    pub id: String,
    /// A digest of where it was published and of what it says.
    pub fingerprint: u64,
}

fn fingerprint(channel: Channel, parts: [&[u8]; 3]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[match channel {
        Channel::Accepted => 1,
        Channel::Rejected => 2,
        Channel::DeadLetter => 3,
        Channel::Levels | Channel::Orders => 4,
    }]);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(short)
}

impl Event {
    /// One that is to be published.
    #[must_use]
    pub fn expected(event: &Outgoing) -> Option<Self> {
        let header = |name: &str| {
            let found = event.headers.iter().rfind(|header| header.name == name)?;
            found.value.as_deref()
        };
        Self::of(event.channel, event.value.as_deref(), header)
    }

    /// One that was published; `None` when it has no id: then this program did not publish it.
    #[must_use]
    pub fn found(channel: Channel, record: &Record) -> Option<Self> {
        Self::of(channel, record.value.as_deref(), |name| header(record, name))
    }

    fn of<'a>(
        channel: Channel,
        value: Option<&[u8]>,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Option<Self> {
        let value = value.unwrap_or_default();
        if channel == Channel::DeadLetter {
            let source = letter_source(&header)?;
            let class = header(LETTER_CLASS).unwrap_or_default();
            // One too large for its topic has its value's digest instead; so the digest is what is compared of all.
            let digest = header(OMITTED_VALUE_SHA256).filter(|_| value.is_empty());
            let digest = digest.map_or_else(|| sha256(value).into_bytes(), <[u8]>::to_vec);
            return Some(Self {
                id: format!("dead letter of {source}"),
                fingerprint: fingerprint(channel, [&digest, class, b""]),
            });
        }
        let id = String::from_utf8(header(ID)?.to_vec()).ok()?;
        let parts = [value, header(TYPE).unwrap_or_default(), header(TIME).unwrap_or_default()];
        Some(Self { id, fingerprint: fingerprint(channel, parts) })
    }
}

/// The record a dead letter is of, by its headers.
#[must_use]
pub fn letter_of(letter: &Record) -> Option<Source> {
    letter_source(&|name: &str| header(letter, name))
}

/// The class of a dead letter's error.
#[must_use]
pub fn letter_class(letter: &Record) -> Option<&str> {
    header(letter, LETTER_CLASS).and_then(|class| str::from_utf8(class).ok())
}

/// When an event says it was decided.
#[must_use]
pub fn time_of(record: &Record) -> Option<Stamp> {
    header(record, TIME).and_then(|time| str::from_utf8(time).ok()).and_then(Stamp::read)
}

fn header<'r>(record: &'r Record, name: &str) -> Option<&'r [u8]> {
    record.headers.iter().rfind(|header| header.name == name)?.value.as_deref()
}

fn letter_source<'a>(header: &impl Fn(&str) -> Option<&'a [u8]>) -> Option<Source> {
    let text = |name: &str| header(name).and_then(|value| str::from_utf8(value).ok());
    Some(Source {
        at: crate::ledger::TopicPartition::new(
            text("__connect.errors.topic")?,
            text("__connect.errors.partition")?.parse().ok()?,
        ),
        offset: crate::ledger::Offset(text("__connect.errors.offset")?.parse().ok()?),
    })
}

fn bucket(id: &str) -> usize {
    let hash = blake3::hash(id.as_bytes());
    let bytes = hash.as_bytes();
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2] & 0x0f) << 16
}

const _: () = assert!(BUCKETS == 1 << 20, "bucket() makes 20 bits");

/// The buckets.
#[derive(Debug)]
pub struct Sums(Vec<(i64, u64)>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![(0, 0); BUCKETS])
    }
}

impl Sums {
    fn expect(&mut self, event: &Event) {
        let (count, sum) = &mut self.0[bucket(&event.id)];
        *count += 1;
        *sum = sum.wrapping_add(event.fingerprint);
    }

    fn find(&mut self, event: &Event) {
        let (count, sum) = &mut self.0[bucket(&event.id)];
        *count -= 1;
        *sum = sum.wrapping_sub(event.fingerprint);
    }

    /// The buckets that are not even, and whether there are more than are returned.
    #[must_use]
    pub fn uneven(&self) -> (HashSet<usize>, bool) {
        let uneven = self.0.iter().enumerate().filter(|(_, sums)| **sums != (0, 0)).map(|(index, _)| index);
        let named: HashSet<usize> = uneven.clone().take(MOST_NAMED).collect();
        let more = uneven.count() > named.len();
        (named, more)
    }
}

/// The events of some buckets, by name.
#[derive(Debug, Default)]
pub struct Names {
    of: HashSet<usize>,
    expected: BTreeMap<String, Vec<u64>>,
    /// Those that may be missing.
    excused: HashSet<String>,
    found: HashMap<String, Vec<(u64, Source)>>,
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It was not published.
    Missing,
    /// It was not published, and is excused.
    Excused,
    /// It was published otherwise than the ledger has it, there.
    Altered(Source),
    /// It was published more than once, there.
    Repeated(Vec<Source>),
    /// It was published, there, but the ledger has nothing of it.
    Unknown(Vec<Source>),
}

impl Names {
    /// To name the events of these buckets.
    #[must_use]
    pub fn of(buckets: HashSet<usize>) -> Self {
        Self { of: buckets, ..Self::default() }
    }

    /// What is wrong with each event that is not as it should be, sorted by id.
    #[must_use]
    pub fn wrong(mut self) -> Vec<(String, Wrong)> {
        let mut wrong = Vec::new();
        for (id, expected) in self.expected {
            let found = self.found.remove(&id).unwrap_or_default();
            let (right, altered): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(fingerprint, _)| expected.contains(fingerprint));
            let published = right.len() + altered.len();
            for (_, source) in altered {
                wrong.push((id.clone(), Wrong::Altered(source)));
            }
            if published == 0 {
                let what = if self.excused.contains(&id) { Wrong::Excused } else { Wrong::Missing };
                wrong.push((id, what));
            } else if right.len() > expected.len() {
                wrong.push((id, Wrong::Repeated(right.into_iter().map(|(_, source)| source).collect())));
            }
        }
        let unknown = self.found.into_iter().map(|(id, published)| {
            (id, Wrong::Unknown(published.into_iter().map(|(_, source)| source).collect()))
        });
        wrong.extend(unknown);
        wrong.sort_by(|a, b| a.0.cmp(&b.0));
        wrong
    }
}

/// What is kept of events: sums first, then names.
#[derive(Debug)]
pub enum Reconciler {
    /// To see whether all is well.
    Sums(Sums),
    /// To say what is not.
    Names(Names),
}

impl Reconciler {
    /// This should be published.
    pub fn expect(&mut self, event: Event) {
        match self {
            Self::Sums(sums) => sums.expect(&event),
            Self::Names(names) => {
                if names.of.contains(&bucket(&event.id)) {
                    names.expected.entry(event.id).or_default().push(event.fingerprint);
                }
            }
        }
    }

    /// This should be published, unless its record was deleted before it could be.
    pub fn expect_excused(&mut self, event: Event) {
        if let Self::Names(names) = self
            && names.of.contains(&bucket(&event.id))
        {
            names.excused.insert(event.id.clone());
        }
        self.expect(event);
    }

    /// This was published, there.
    pub fn find(&mut self, event: Event, at: &Source) {
        match self {
            Self::Sums(sums) => sums.find(&event),
            Self::Names(names) => {
                if names.of.contains(&bucket(&event.id)) {
                    names.found.entry(event.id).or_default().push((event.fingerprint, at.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Offset, TopicPartition};

    fn event(id: &str, fingerprint: u64) -> Event {
        Event { id: id.to_owned(), fingerprint }
    }

    fn at(offset: i64) -> Source {
        Source { at: TopicPartition::new("stock.accepted", 0), offset: Offset(offset) }
    }

    /// What is wrong when this was to be published and that was.
    fn wrong(expected: &[(&str, u64)], found: &[(&str, u64)]) -> Vec<(String, Wrong)> {
        let fill = |reconciler: &mut Reconciler| {
            for (id, fingerprint) in expected {
                reconciler.expect(event(id, *fingerprint));
            }
            for (offset, (id, fingerprint)) in (0..).zip(found) {
                reconciler.find(event(id, *fingerprint), &at(offset));
            }
        };
        let mut sums = Reconciler::Sums(Sums::default());
        fill(&mut sums);
        let Reconciler::Sums(sums) = sums else { unreachable!() };
        let mut names = Reconciler::Names(Names::of(sums.uneven().0));
        fill(&mut names);
        let Reconciler::Names(names) = names else { unreachable!() };
        names.wrong()
    }

    #[test]
    fn what_was_published_once_as_it_should_in_any_order_is_right() {
        assert_eq!(wrong(&[("a", 1), ("b", 2), ("c", 3)], &[("c", 3), ("a", 1), ("b", 2)]), []);
    }

    #[test]
    fn each_wrong_is_named_for_what_it_is() {
        let found = wrong(
            &[("a", 1), ("b", 2), ("c", 3), ("d", 4)],
            &[("d", 4), ("b", 9), ("c", 3), ("c", 3), ("e", 5)],
        );
        let named = |id: &str, wrong| (id.to_owned(), wrong);
        assert_eq!(
            found,
            [
                named("a", Wrong::Missing),
                named("b", Wrong::Altered(at(1))),
                named("c", Wrong::Repeated(vec![at(2), at(3)])),
                named("e", Wrong::Unknown(vec![at(4)])),
            ]
        );
    }
}
