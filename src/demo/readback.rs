//! Reads the topics back while the verifier runs: what came in and what was published.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::topic_tail::TopicTail;
use crate::config::TopicArgs;
use crate::event::{Channel, Fault, Record, read_command};
use crate::ledger::{Command, NextOffset, Source, TopicPartition};
use crate::replay::published::{letter_class, letter_of};

/// A digest of a result's bytes and of where it was published: what is compared with the ledger.
pub type Fingerprint = [u8; 16];

/// The fingerprint of a result.
#[must_use]
pub fn fingerprint(channel: Channel, key: &[u8], value: &[u8]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    let channel = match channel {
        Channel::Accepted => b"accepted",
        Channel::Rejected => b"rejected",
        Channel::DeadLetter => b"letter  ",
        Channel::Levels => b"level   ",
        Channel::Orders => b"order   ",
    };
    hasher.update(channel).update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// A dead letter as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The kind of fault its headers name.
    pub class: String,
    /// Its value's fingerprint: it must be the record's own.
    pub fingerprint: Fingerprint,
}

/// A record of the orders' topic.
#[derive(Debug)]
pub struct Input {
    /// What it asks, or why nothing can be read from it.
    pub command: Result<Command, Fault>,
    /// What its dead letter must have, should it get one.
    pub as_letter: Fingerprint,
}

/// What was read back.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The orders' topic: each partition's records, by offset.
    pub inputs: HashMap<TopicPartition, Vec<Input>>,
    /// The end of each of the orders' partitions.
    pub ends: HashMap<TopicPartition, NextOffset>,
    /// The results: fingerprints by the id in the event's `ce_id`.
    pub results: HashMap<String, Vec<Fingerprint>>,
    /// The dead letters, by the record they are of.
    pub letters: HashMap<Source, Vec<Letter>>,
    /// What went wrong while reading: with any of this nothing is proved.
    pub faults: Vec<String>,
}

/// How much was read back so far.
#[derive(Debug, Default)]
pub struct Seen {
    inputs: AtomicU64,
    outputs: AtomicU64,
}

impl Seen {
    /// Records of the orders' topic.
    pub fn inputs(&self) -> u64 {
        self.inputs.load(Ordering::Relaxed)
    }

    /// Results and dead letters.
    pub fn outputs(&self) -> u64 {
        self.outputs.load(Ordering::Relaxed)
    }
}

/// Reads everything back.
pub struct Reader {
    tail: TopicTail,
    notes: Notes,
}

/// What is noted of it on the way.
struct Notes {
    topics: TopicArgs,
    seen: Arc<Seen>,
    evidence: Evidence,
}

impl Reader {
    /// A reader of all topics, from their beginning.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn new(broker: &Broker, seen: Arc<Seen>) -> Result<Self> {
        let partitions = broker.read_back().into_iter().flat_map(|(topic, count)| {
            let topic: Arc<str> = topic.into();
            (0..count).map(move |partition| TopicPartition::new(Arc::clone(&topic), partition))
        });
        let tail = TopicTail::new(broker, partitions)?;
        let notes = Notes { topics: broker.topics.clone(), seen, evidence: Evidence::default() };
        Ok(Self { tail, notes })
    }

    /// Reads until `published_all`, and then to the end of every topic. Blocks: runs on a thread of its own.
    ///
    /// # Errors
    /// When the broker does not say where its partitions end.
    pub fn run(self, published_all: &CancellationToken) -> Result<Evidence> {
        let Self { tail, mut notes } = self;
        let read = tail.run(published_all, |record| notes.note(record))?;
        let Notes { topics, mut evidence, .. } = notes;
        evidence.ends = read.ends;
        evidence.ends.retain(|at, _| *at.topic == topics.orders_topic);
        evidence.faults = read.faults;
        Ok(evidence)
    }
}

impl Notes {
    /// Notes one record.
    fn note(&mut self, record: Record) -> Result<(), String> {
        let (key, value) = (record.key.as_deref().unwrap_or(&[]), record.value.as_deref().unwrap_or(&[]));
        let evidence = &mut self.evidence;
        let topic = &*record.source.at.topic;
        if topic == self.topics.orders_topic {
            let as_letter = fingerprint(Channel::DeadLetter, key, value);
            let input = Input { command: read_command(&record), as_letter };
            evidence.inputs.entry(record.source.at).or_default().push(input);
            self.seen.inputs.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.seen.outputs.fetch_add(1, Ordering::Relaxed);
        if topic == self.topics.dead_letter_topic {
            let class = letter_class(&record).unwrap_or_default().to_owned();
            let letter = Letter { class, fingerprint: fingerprint(Channel::DeadLetter, key, value) };
            let Some(of) = letter_of(&record) else {
                return Err(format!("the dead letter at {} does not say what it is of", record.source));
            };
            evidence.letters.entry(of).or_default().push(letter);
            return Ok(());
        }
        let channel = if topic == self.topics.accepted_topic { Channel::Accepted } else { Channel::Rejected };
        let Some(id) = id_of(&record) else {
            return Err(format!("the result at {} has no ce_id", record.source));
        };
        evidence.results.entry(id.to_owned()).or_default().push(fingerprint(channel, key, value));
        Ok(())
    }
}

/// The id in a result's headers.
fn id_of(result: &Record) -> Option<&str> {
    let header = result.headers.iter().find(|header| header.name == "ce_id")?;
    str::from_utf8(header.value.as_deref()?).ok()
}
