//! What should have been published against what was published, in any order and in bounded memory.
//!
//! Every event falls into one of a million buckets by its id, and each bucket keeps how many events should be in it
//! less how many are, and the same of the sums of their fingerprints. When all is well every bucket is empty in the
//! end. A second reading then names the events of those buckets that are not.
//!
//! Keys and headers have sums of their own, since they are not always known: what they should be stands in the record
//! that an event is of, and that may be gone.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::event::{
    Channel, ERROR_HEADERS, OMITTED_HEADERS, OMITTED_VALUE_SHA256, Outgoing, Record, TRACESTATE, sha256,
};
use crate::ledger::{CommandKey, CommandKind, Id, Source, Stamp};

/// Buckets: 16 MB, and with twenty million events some twenty in each.
const BUCKETS: usize = 1 << 20;
/// Buckets whose events are named at most: with more, the damage is everywhere.
const MOST_NAMED: usize = 10_000;

/// The header that holds an event's id.
const ID: &str = "ce_id";
const TIME: &str = "ce_time";
const TYPE: &str = "ce_type";
const LETTER_CLASS: &str = "__connect.errors.exception.class.name";

/// Which event it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventId {
    /// The result of this command.
    Result(CommandKey),
    /// The dead letter of this record.
    DeadLetter(Source),
    /// An id that this program gives to no event.
    Unknown(String),
}

impl EventId {
    /// The id of a result, as it is published.
    fn read(text: String) -> Self {
        let key = text.split_once('/').and_then(|(name, id)| {
            let kind = CommandKind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(CommandKey { id: Id::new(id).ok()?, kind })
        });
        key.map_or(Self::Unknown(text), Self::Result)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result(key) => key.fmt(f),
            Self::DeadLetter(source) => write!(f, "dead letter of {source}"),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// An event, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which it is.
    pub id: EventId,
    /// A digest of where it was published and of what it says.
    pub fingerprint: u64,
    /// A digest of its key and its headers; `None` where nobody knows what they should be.
    pub envelope: Option<u64>,
}

fn fingerprint(channel: Channel, parts: [&[u8]; 3]) -> u64 {
    let channel = match channel {
        Channel::Accepted => 1,
        Channel::Rejected => 2,
        Channel::DeadLetter => 3,
        Channel::Levels | Channel::Orders => 4,
    };
    digest([&[channel][..]].into_iter().chain(parts))
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(short)
}

/// The key and the headers of a record, whoever has it.
struct Envelope<'a> {
    key: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Envelope<'a> {
    fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().rfind(|(known, _)| *known == name)?.1
    }

    fn digest(&self, channel: Channel) -> u64 {
        if channel == Channel::DeadLetter {
            return self.digest_of_letter();
        }
        let present = |part: Option<&[u8]>| if part.is_some() { &b"1"[..] } else { b"0" };
        let headers = self
            .headers
            .iter()
            // What an earlier version published has none, though its record may: 0.1 did not pass it on.
            .filter(|(name, _)| *name != TRACESTATE)
            .flat_map(|(name, value)| [name.as_bytes(), present(*value), value.unwrap_or_default()]);
        digest([present(self.key), self.key.unwrap_or_default()].into_iter().chain(headers))
    }

    /// Of a dead letter: its stage, that it has a message, and the key. Not what the message says, which may be said
    /// better by a later version; nor the headers of its record, which may have been left out.
    fn digest_of_letter(&self) -> u64 {
        let [_, _, _, stage, _, message] = ERROR_HEADERS;
        let [_, _, _, key_digest, _] = OMITTED_HEADERS;
        let key = match (self.header(key_digest), self.key) {
            (Some(omitted), _) => omitted.to_vec(),
            (None, Some(key)) => sha256(key).into_bytes(),
            (None, None) => Vec::new(),
        };
        let has_message = self.header(message).is_some_and(|message| !message.is_empty());
        digest([self.header(stage).unwrap_or_default(), if has_message { b"1" } else { b"0" }, &key])
    }
}

impl Event {
    /// One that is to be published.
    #[must_use]
    pub fn expected(event: &Outgoing) -> Option<Self> {
        let headers = event.headers.iter().map(|header| (&*header.name, header.value.as_deref()));
        let envelope = Envelope { key: event.key.as_deref(), headers: headers.collect() };
        Self::of(event.channel, event.value.as_deref(), &envelope)
    }

    /// One that was published. On a topic of results whatever has no id is an event that this program does not know;
    /// a dead letter that says of no record is another program's, and `None`.
    #[must_use]
    pub fn found(channel: Channel, record: &Record) -> Option<Self> {
        let headers = record.headers.iter().map(|header| (&*header.name, header.value.as_deref()));
        let envelope = Envelope { key: record.key.as_deref(), headers: headers.collect() };
        let event = Self::of(channel, record.value.as_deref(), &envelope);
        event.or_else(|| {
            let id = EventId::Unknown("a record without an event's id".to_owned());
            (channel != Channel::DeadLetter).then_some(Self { id, fingerprint: 0, envelope: Some(0) })
        })
    }

    /// Whether it has the id of an event of this program's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.id, EventId::Unknown(_))
    }

    /// The same where the record that it is of is gone, and its key and headers with it.
    #[must_use]
    pub fn of_a_record_that_is_gone(self) -> Self {
        Self { envelope: None, ..self }
    }

    fn of(channel: Channel, value: Option<&[u8]>, envelope: &Envelope<'_>) -> Option<Self> {
        let header = |name: &str| envelope.header(name);
        let value = value.unwrap_or_default();
        let of_headers = Some(envelope.digest(channel));
        if channel == Channel::DeadLetter {
            let source = letter_source(&header)?;
            let class = header(LETTER_CLASS).unwrap_or_default();
            // One too large for its topic has its value's digest instead; so the digest is what is compared of all.
            let digest = header(OMITTED_VALUE_SHA256).filter(|_| value.is_empty());
            let digest = digest.map_or_else(|| sha256(value).into_bytes(), <[u8]>::to_vec);
            return Some(Self {
                id: EventId::DeadLetter(source),
                fingerprint: fingerprint(channel, [&digest, class, b""]),
                envelope: of_headers,
            });
        }
        let id = EventId::read(String::from_utf8(header(ID)?.to_vec()).ok()?);
        let parts = [value, header(TYPE).unwrap_or_default(), header(TIME).unwrap_or_default()];
        Some(Self { id, fingerprint: fingerprint(channel, parts), envelope: of_headers })
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
}

/// The events of some buckets, by name.
#[derive(Debug, Default)]
pub struct Names {
    of: HashSet<usize>,
    expected: HashMap<EventId, Vec<Digests>>,
    /// Those that may be missing.
    excused: HashSet<EventId>,
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
}

/// What keeps events: [`Sums`] to see whether all is well, then [`Names`] to say what is not.
pub trait Reconciler {
    /// This should be published.
    fn expect(&mut self, event: Event);

    /// This should be published, unless its record was deleted before it could be; or it was, and is deleted since.
    fn expect_excused(&mut self, event: Event);

    /// This may be published, instead of what else is expected of its id or of nothing.
    fn allow(&mut self, event: Event);

    /// This was published, there.
    fn find(&mut self, event: Event, at: &Source);
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

    #[test]
    fn a_result_without_the_tracestate_that_0_1_did_not_pass_on_is_as_it_should_be() {
        let digest = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
            Envelope { key: None, headers }.digest(Channel::Accepted)
        };
        let before = digest(&[("traceparent", "1")]);
        assert_eq!(digest(&[("traceparent", "1"), ("tracestate", "shop=1")]), before);
        assert_ne!(digest(&[("traceparent", "2"), ("tracestate", "shop=1")]), before);
    }

    #[test]
    fn an_id_is_read_as_it_is_published() {
        let key = |kind| CommandKey { id: Id::new("o/1").expect("an id"), kind };
        for kind in CommandKind::ALL {
            let text = key(kind).to_string();
            assert_eq!(EventId::read(text.clone()), EventId::Result(key(kind)));
            assert_eq!(EventId::read(text.clone()).to_string(), text);
        }
        for text in ["o-1", "order.created/", "order.lost/o-1", "dead letter of orders[0]@1"] {
            assert_eq!(EventId::read(text.to_owned()), EventId::Unknown(text.to_owned()));
        }
    }
}
