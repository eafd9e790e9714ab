//! What should have been published against what was published, in any order and in bounded memory.
//!
//! Every event falls into one of a million buckets by its id, and each bucket keeps how many events should be in it
//! less how many are, and the same of the sums of their fingerprints. When all is well every bucket is empty in the
//! end. A second reading then names the events of those buckets that are not.
//!
//! Keys and headers have sums of their own, since they are not always known.

use std::collections::{HashMap, HashSet};

use super::published::{Event, EventId};
use crate::ledger::Source;

/// Buckets: 16 MB, and with twenty million events some twenty in each.
const BUCKETS: usize = 1 << 20;
/// Buckets whose events are named at most: with more, the damage is everywhere.
const MOST_NAMED: usize = 10_000;

/// What keeps events: [`Sums`] to see whether all is well, then [`Names`] to say what is not.
pub trait Reconciler {
    /// This should be published.
    fn expect(&mut self, event: Event);

    /// This should be published, unless its record was deleted before it could be; or it was, and is deleted since.
    fn expect_excused(&mut self, event: Event);

    /// This was published, but what is as old is deleted: it may be there still, and is not missed.
    fn expect_unretained(&mut self, event: Event);

    /// This may be published, instead of what else is expected of its id or of nothing.
    fn allow(&mut self, event: Event);

    /// This was published, there.
    fn find(&mut self, event: Event, at: &Source);

    /// This was published, there; what is as old is deleted elsewhere in its partition.
    fn find_unretained(&mut self, event: Event, at: &Source);
}

fn bucket(id: &EventId) -> usize {
    let mut hasher = blake3::Hasher::new();
    match id {
        EventId::Result(key) => {
            hasher.update(&key.kind.number().to_le_bytes()).update(key.id.as_str().as_bytes())
        }
        EventId::DeadLetter(Source { at, offset }) => hasher
            .update(at.topic.as_bytes())
            .update(&at.partition.to_le_bytes())
            .update(&offset.0.to_le_bytes()),
        EventId::Unknown(text) => hasher.update(text.as_bytes()),
    };
    let hash = hasher.finalize();
    let bytes = hash.as_bytes();
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2] & 0x0f) << 16
}

const _: () = assert!(BUCKETS == 1 << 20, "bucket() makes 20 bits");

/// The buckets.
#[derive(Debug)]
pub struct Sums(Vec<Bucket>);

#[derive(Debug, Clone, Default)]
struct Bucket {
    count: i64,
    fingerprints: u64,
    envelopes: u64,
    /// Whether the envelope of an event of it is not known: then those of the others are not compared either.
    has_unknown: bool,
    /// Whether one of its events may be there instead of another.
    has_allowed: bool,
}

impl Bucket {
    fn is_even(&self) -> bool {
        (self.count, self.fingerprints) == (0, 0)
            && (self.envelopes == 0 || self.has_unknown)
            && !self.has_allowed
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self(vec![Bucket::default(); BUCKETS])
    }
}

impl Sums {
    /// The buckets that are not even, and whether there are more than are returned.
    #[must_use]
    pub fn uneven(&self) -> (HashSet<usize>, bool) {
        let uneven = self.0.iter().enumerate().filter(|(_, sums)| !sums.is_even()).map(|(index, _)| index);
        let named: HashSet<usize> = uneven.clone().take(MOST_NAMED).collect();
        let more = uneven.count() > named.len();
        (named, more)
    }
}

impl Reconciler for Sums {
    fn expect(&mut self, event: Event) {
        let sums = &mut self.0[bucket(&event.id)];
        sums.count += 1;
        sums.fingerprints = sums.fingerprints.wrapping_add(event.fingerprint);
        match event.envelope {
            Some(envelope) => sums.envelopes = sums.envelopes.wrapping_add(envelope),
            None => sums.has_unknown = true,
        }
    }

    fn expect_excused(&mut self, event: Event) {
        self.expect(event);
    }

    fn expect_unretained(&mut self, _: Event) {
        // All of what is deleted would be uneven, and hide what is not.
    }

    fn allow(&mut self, event: Event) {
        // Sums cannot tell one thing or another: the names must.
        self.0[bucket(&event.id)].has_allowed = true;
    }

    fn find(&mut self, event: Event, _: &Source) {
        let sums = &mut self.0[bucket(&event.id)];
        sums.count -= 1;
        sums.fingerprints = sums.fingerprints.wrapping_sub(event.fingerprint);
        sums.envelopes = sums.envelopes.wrapping_sub(event.envelope.unwrap_or_default());
    }

    fn find_unretained(&mut self, _: Event, _: &Source) {
        // It is not expected either.
    }
}

/// The events of some buckets, by name.
#[derive(Debug, Default)]
pub struct Names {
    of: HashSet<usize>,
    expected: HashMap<EventId, Vec<Digests>>,
    /// Those that may be missing.
    excused: HashSet<EventId>,
    /// Those that are as old as what is deleted.
    unretained: HashSet<EventId>,
    /// Those that may be there.
    allowed: HashMap<EventId, Vec<Digests>>,
    found: HashMap<EventId, Vec<(Digests, Source)>>,
}

/// The two digests of an event.
#[derive(Debug, Clone, Copy)]
struct Digests {
    fingerprint: u64,
    envelope: Option<u64>,
}

impl Digests {
    fn of(event: &Event) -> Self {
        Self { fingerprint: event.fingerprint, envelope: event.envelope }
    }

    /// Whether what was found is this, as far as that is known.
    fn is(&self, found: Self) -> bool {
        self.fingerprint == found.fingerprint
            && self.envelope.is_none_or(|known| found.envelope == Some(known))
    }
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It was not published.
    Missing,
    /// It was published otherwise than the ledger has it, there.
    Altered(Source),
    /// It says what the ledger has, but its key or a header is not what belongs to it, there.
    Envelope(Source),
    /// It stands there, and its key belongs on another partition.
    Misplaced {
        /// Where.
        at: Source,
        /// The partition that its key belongs on.
        belongs_on: i32,
    },
    /// It was published more than once, there.
    Repeated(Vec<Source>),
    /// It was published, there, but the ledger has nothing of it.
    Unknown(Vec<Source>),
}

/// What came of events by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// What is wrong with each event that is not as it should be, in the order of the ids' texts.
    pub wrong: Vec<(EventId, Wrong)>,
    /// How many results were not published, and are excused.
    pub excused_results: u64,
    /// The same of dead letters.
    pub excused_letters: u64,
}

impl Names {
    /// To name the events of these buckets.
    #[must_use]
    pub fn of(buckets: HashSet<usize>) -> Self {
        Self { of: buckets, ..Self::default() }
    }

    /// What came of the events.
    #[must_use]
    pub fn named(mut self) -> Named {
        let mut wrong = Vec::new();
        let (mut excused_results, mut excused_letters) = (0, 0);
        // One of them stands for what is expected of its id, or for nothing.
        for (id, allowed) in &self.allowed {
            let is_it = |found: &[(Digests, Source)]| matches!(found, [(found, _)] if allowed.iter().any(|known| known.is(*found)));
            if self.found.get(id).is_some_and(|found| is_it(found)) {
                self.found.remove(id);
                self.expected.remove(id);
            }
        }
        for (id, expected) in self.expected {
            let found = self.found.remove(&id).unwrap_or_default();
            let (right, altered): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(found, _)| expected.iter().any(|known| known.is(*found)));
            let published = right.len() + altered.len();
            for (digests, source) in altered {
                let says_the_same = expected.iter().any(|known| known.fingerprint == digests.fingerprint);
                let how = if says_the_same { Wrong::Envelope(source) } else { Wrong::Altered(source) };
                wrong.push((id.clone(), how));
            }
            if published == 0 && self.unretained.contains(&id) {
                // Whether it ever was there nobody can say.
                continue;
            }
            if published == 0 && self.excused.contains(&id) {
                match id {
                    EventId::DeadLetter(_) => excused_letters += 1,
                    EventId::Result(_) | EventId::Unknown(_) => excused_results += 1,
                }
            } else if published == 0 {
                wrong.push((id, Wrong::Missing));
            } else if right.len() > expected.len() {
                wrong.push((id, Wrong::Repeated(right.into_iter().map(|(_, source)| source).collect())));
            }
        }
        let unknown = self.found.into_iter().map(|(id, published)| {
            (id, Wrong::Unknown(published.into_iter().map(|(_, source)| source).collect()))
        });
        wrong.extend(unknown);
        wrong.sort_by_cached_key(|(id, _)| id.to_string());
        Named { wrong, excused_results, excused_letters }
    }

    fn names(&self, event: &Event) -> bool {
        self.of.contains(&bucket(&event.id))
    }
}

impl Reconciler for Names {
    fn expect(&mut self, event: Event) {
        if self.names(&event) {
            let digests = Digests::of(&event);
            self.expected.entry(event.id).or_default().push(digests);
        }
    }

    fn expect_excused(&mut self, event: Event) {
        if self.names(&event) {
            self.excused.insert(event.id.clone());
        }
        self.expect(event);
    }

    fn expect_unretained(&mut self, event: Event) {
        if self.names(&event) {
            self.unretained.insert(event.id.clone());
        }
        // Where it is there after all, it is known.
        self.expect(event);
    }

    fn allow(&mut self, event: Event) {
        if self.names(&event) {
            self.allowed.entry(event.id.clone()).or_default().push(Digests::of(&event));
        }
    }

    fn find(&mut self, event: Event, at: &Source) {
        if self.names(&event) {
            let digests = Digests::of(&event);
            self.found.entry(event.id).or_default().push((digests, at.clone()));
        }
    }

    fn find_unretained(&mut self, event: Event, at: &Source) {
        self.find(event, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Offset, TopicPartition};

    fn event(id: &str, fingerprint: u64) -> Event {
        // One of a record that is gone, and one whose key and headers are known.
        let envelope = fingerprint.is_multiple_of(2).then_some(fingerprint);
        Event { id: EventId::Unknown(id.to_owned()), fingerprint, envelope }
    }

    fn at(offset: i64) -> Source {
        Source { at: TopicPartition::new("stock.accepted", 0), offset: Offset(offset) }
    }

    #[test]
    fn what_may_be_there_stands_for_what_is_expected_or_for_nothing() {
        let wrong = |expected: Option<u64>, found: &[u64]| {
            let fill = |reconciler: &mut dyn Reconciler| {
                if let Some(fingerprint) = expected {
                    reconciler.expect(event("a", fingerprint));
                }
                reconciler.allow(event("a", 7));
                for (offset, fingerprint) in (0..).zip(found) {
                    reconciler.find(event("a", *fingerprint), &at(offset));
                }
            };
            let mut sums = Sums::default();
            fill(&mut sums);
            let mut names = Names::of(sums.uneven().0);
            fill(&mut names);
            names.named().wrong.into_iter().map(|(_, wrong)| wrong).collect::<Vec<_>>()
        };
        for (expected, found) in [(None, &[][..]), (None, &[7]), (Some(1), &[1]), (Some(1), &[7])] {
            assert_eq!(wrong(expected, found), [], "{expected:?} {found:?}");
        }
        assert_eq!(wrong(Some(1), &[]), [Wrong::Missing]);
        assert_eq!(wrong(Some(1), &[9]), [Wrong::Altered(at(0))]);
        assert_eq!(wrong(Some(1), &[1, 7]), [Wrong::Altered(at(1))]);
        assert_eq!(wrong(None, &[9]), [Wrong::Unknown(vec![at(0)])]);
    }

    /// What is wrong when this was to be published and that was.
    fn wrong(expected: &[(&str, u64)], found: &[(&str, u64)]) -> Vec<(EventId, Wrong)> {
        let fill = |reconciler: &mut dyn Reconciler| {
            for (id, fingerprint) in expected {
                reconciler.expect(event(id, *fingerprint));
            }
            for (offset, (id, fingerprint)) in (0..).zip(found) {
                reconciler.find(event(id, *fingerprint), &at(offset));
            }
        };
        let mut sums = Sums::default();
        fill(&mut sums);
        let mut names = Names::of(sums.uneven().0);
        fill(&mut names);
        names.named().wrong
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
        let named = |id: &str, wrong| (EventId::Unknown(id.to_owned()), wrong);
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

    #[test]
    fn what_is_as_old_as_what_is_deleted_is_not_missed_and_is_known_where_it_is_found() {
        let named = |found_old: &[u64], found: &[u64]| {
            let fill = |reconciler: &mut dyn Reconciler| {
                reconciler.expect_unretained(event("a", 1));
                for (offset, fingerprint) in (0..).zip(found_old) {
                    reconciler.find_unretained(event("a", *fingerprint), &at(offset));
                }
                for (offset, fingerprint) in (10..).zip(found) {
                    reconciler.find(event("a", *fingerprint), &at(offset));
                }
            };
            let mut sums = Sums::default();
            fill(&mut sums);
            let mut names = Names::of(HashSet::from([bucket(&EventId::Unknown("a".to_owned()))]));
            fill(&mut names);
            let wrong = names.named().wrong.into_iter().map(|(_, wrong)| wrong).collect::<Vec<_>>();
            (sums.uneven().0.len(), wrong)
        };
        assert_eq!(named(&[], &[]), (0, vec![]));
        assert_eq!(named(&[1], &[]), (0, vec![]));
        // On another topic than it belongs on, say, of which nothing is deleted.
        assert_eq!(named(&[], &[9]), (1, vec![Wrong::Altered(at(10))]));
    }

    #[test]
    fn another_key_or_header_is_named_where_it_is_known_what_it_should_be() {
        let compare = |expected: Option<u64>| {
            let event = |envelope| Event { id: EventId::Unknown("a".to_owned()), fingerprint: 1, envelope };
            let mut sums = Sums::default();
            sums.expect(event(expected));
            sums.find(event(Some(8)), &at(0));
            let (uneven, _) = sums.uneven();
            let mut names = Names::of(HashSet::from([bucket(&EventId::Unknown("a".to_owned()))]));
            names.expect(event(expected));
            names.find(event(Some(8)), &at(0));
            (uneven.len(), names.named().wrong)
        };
        assert_eq!(compare(Some(8)), (0, vec![]));
        assert_eq!(compare(None), (0, vec![]));
        let wrong = (EventId::Unknown("a".to_owned()), Wrong::Envelope(at(0)));
        assert_eq!(compare(Some(7)), (1, vec![wrong]));
    }
}
