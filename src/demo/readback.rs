//! Reads the topics back while the verifier runs: what came in and what was published.
//!
//! While, and not after, because the mock broker drops the oldest records of
//! a full partition. A record that was dropped before it was read shows as a
//! gap, and a gap fails the proof.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use crate::config::TopicArgs;
use crate::event::{Channel, Fault, Record, read_command};
use crate::kafka::in_process::Tail;
use crate::ledger::{Command, NextOffset, Source, TopicPartition};
use crate::replay::published::{letter_class, letter_of};

/// Longest sleep in one poll.
const POLL: Duration = Duration::from_millis(20);
/// Longest time the rest may take to read once everything is published.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Faults of the reading itself that are kept to be shown; more are only more of the same.
const MAX_FAULTS: usize = 10;

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
    tail: Tail,
    topics: TopicArgs,
    partitions: Vec<(TopicPartition, NextOffset)>,
    seen: Arc<Seen>,
    evidence: Evidence,
}

impl Reader {
    /// A reader of all topics, from their beginning.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn new(broker: &Broker, seen: Arc<Seen>) -> Result<Self> {
        let mut partitions = Vec::new();
        for (topic, count) in broker.read_back() {
            let topic: Arc<str> = topic.into();
            partitions.extend(
                (0..count)
                    .map(|partition| (TopicPartition::new(Arc::clone(&topic), partition), NextOffset(0))),
            );
        }
        let tail = Tail::new(&broker.kafka, "demo-auditor", &partitions)?;
        Ok(Self { tail, topics: broker.topics.clone(), partitions, seen, evidence: Evidence::default() })
    }

    /// Reads until `published_all`, and then to the end of every topic. Blocks: runs on a thread of its own.
    ///
    /// # Errors
    /// When the broker does not say where its partitions end.
    pub fn run(mut self, published_all: &CancellationToken) -> Result<Evidence> {
        while !published_all.is_cancelled() {
            self.poll()?;
        }
        let ends = self.ends()?;
        let deadline = Instant::now() + REST_LIMIT;
        while self.partitions.iter().zip(&ends).any(|((_, next), end)| next < end) {
            if Instant::now() > deadline {
                self.fault(format_args!("the topics could not be read to their ends within {REST_LIMIT:?}"));
                break;
            }
            self.poll()?;
        }
        self.evidence.ends = self
            .partitions
            .iter()
            .zip(ends)
            .filter(|((at, _), _)| *at.topic == self.topics.orders_topic)
            .map(|((at, _), end)| (at.clone(), end))
            .collect();
        Ok(self.evidence)
    }

    fn ends(&self) -> Result<Vec<NextOffset>> {
        self.partitions.iter().map(|(at, _)| self.tail.end(at)).collect()
    }

    fn poll(&mut self) -> Result<()> {
        let record = match self.tail.poll(POLL) {
            Ok(None) => return Ok(()),
            Ok(Some(record)) => record,
            Err(error) => {
                self.fault(format_args!("reading back: {error}"));
                return Ok(());
            }
        };
        let Source { at, offset } = record.source.clone();
        let Some((_, next)) = self.partitions.iter_mut().find(|(read, _)| *read == at) else {
            bail!("a record of {at}, which is not read")
        };
        let lost = (offset.0 != next.0).then(|| format!("{at} goes from {next} to {offset}"));
        *next = offset.next();
        self.note(record);
        if let Some(lost) = lost {
            self.fault(format_args!("records were dropped before they were read back: {lost}"));
        }
        Ok(())
    }

    /// Notes one record.
    fn note(&mut self, record: Record) {
        let (key, value) = (record.key.as_deref().unwrap_or(&[]), record.value.as_deref().unwrap_or(&[]));
        let evidence = &mut self.evidence;
        let topic = &*record.source.at.topic;
        if topic == self.topics.orders_topic {
            let as_letter = fingerprint(Channel::DeadLetter, key, value);
            let input = Input { command: read_command(&record), as_letter };
            evidence.inputs.entry(record.source.at).or_default().push(input);
            self.seen.inputs.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.seen.outputs.fetch_add(1, Ordering::Relaxed);
        if topic == self.topics.dead_letter_topic {
            let class = letter_class(&record).unwrap_or_default().to_owned();
            let letter = Letter { class, fingerprint: fingerprint(Channel::DeadLetter, key, value) };
            match letter_of(&record) {
                Some(of) => evidence.letters.entry(of).or_default().push(letter),
                None => self
                    .fault(format_args!("the dead letter at {} does not say what it is of", record.source)),
            }
            return;
        }
        let channel = if topic == self.topics.accepted_topic { Channel::Accepted } else { Channel::Rejected };
        match id_of(&record) {
            Some(id) => {
                let published = fingerprint(channel, key, value);
                evidence.results.entry(id.to_owned()).or_default().push(published);
            }
            None => self.fault(format_args!("the result at {} has no ce_id", record.source)),
        }
    }

    fn fault(&mut self, what: std::fmt::Arguments<'_>) {
        if self.evidence.faults.len() < MAX_FAULTS {
            self.evidence.faults.push(what.to_string());
        }
    }
}

/// The id in a result's headers.
fn id_of(result: &Record) -> Option<&str> {
    let header = result.headers.iter().find(|header| header.name == "ce_id")?;
    str::from_utf8(header.value.as_deref()?).ok()
}
