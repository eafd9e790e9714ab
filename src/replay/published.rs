//! What is published, and what is to be: an event in short, so that the two can be held against each other.
//!
//! Keys and headers have a digest of their own, since they are not always known: what they should be stands in the record
//! that an event is of, and that may be gone.

use std::fmt;

use crate::event::{
    Channel, ERROR_HEADERS, OMITTED_HEADERS, OMITTED_VALUE_SHA256, Outgoing, Record, TRACESTATE, sha256,
};
use crate::ledger::{CommandKey, CommandKind, Id, Source, Stamp};

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

#[cfg(test)]
mod tests {
    use super::*;

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
