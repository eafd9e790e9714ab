//! Reads topics while a verifier runs, and then to their ends: the loop that both proofs read back by.
//!
//! While, and not after, because the mock broker drops the oldest records of
//! a full partition. A record that was dropped before it was read shows as a
//! gap, and a gap fails the proof.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use crate::event::Record;
use crate::kafka::in_process::Tail;
use crate::ledger::{NextOffset, Source, TopicPartition};

/// Longest sleep in one poll.
const POLL: Duration = Duration::from_millis(20);
/// Longest time the rest may take to read once everything is published.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Faults of the reading itself that are kept to be shown; more are only more of the same.
const MAX_FAULTS: usize = 10;

/// Topics that are read from their beginning.
pub(super) struct TopicTail {
    tail: Tail,
    partitions: HashMap<TopicPartition, NextOffset>,
    faults: Vec<String>,
}

/// How the reading ended.
pub(super) struct ReadToEnd {
    /// Where each partition ends.
    pub(super) ends: HashMap<TopicPartition, NextOffset>,
    /// What went wrong while reading: with any of this nothing is proved.
    pub(super) faults: Vec<String>,
}

impl TopicTail {
    /// One of these partitions.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn new(broker: &Broker, partitions: impl Iterator<Item = TopicPartition>) -> Result<Self> {
        let from: Vec<_> = partitions.map(|at| (at, NextOffset(0))).collect();
        let tail = Tail::new(&broker.kafka, "demo-auditor", &from)?;
        Ok(Self { tail, partitions: from.into_iter().collect(), faults: Vec::new() })
    }

    /// Reads until `published_all`, and then to the end of every topic. Blocks: runs on a thread of its own. Each record is
    /// noted, and what is wrong with it is a fault.
    ///
    /// # Errors
    /// When the broker does not say where its partitions end.
    pub(super) fn run(
        mut self,
        published_all: &CancellationToken,
        mut note: impl FnMut(Record) -> Result<(), String>,
    ) -> Result<ReadToEnd> {
        while !published_all.is_cancelled() {
            self.poll(&mut note)?;
        }
        let mut ends = HashMap::new();
        for at in self.partitions.keys() {
            ends.insert(at.clone(), self.tail.end(at)?);
        }
        let deadline = Instant::now() + REST_LIMIT;
        while self.partitions.iter().any(|(at, next)| *next < ends[at]) {
            if Instant::now() > deadline {
                self.fault(&format_args!("the topics could not be read to their ends within {REST_LIMIT:?}"));
                break;
            }
            self.poll(&mut note)?;
        }
        Ok(ReadToEnd { ends, faults: self.faults })
    }

    fn poll(&mut self, note: &mut impl FnMut(Record) -> Result<(), String>) -> Result<()> {
        let record = match self.tail.poll(POLL) {
            Ok(None) => return Ok(()),
            Ok(Some(record)) => record,
            Err(error) => {
                self.fault(&format_args!("reading back: {error}"));
                return Ok(());
            }
        };
        let Source { at, offset } = record.source.clone();
        let Some(next) = self.partitions.get_mut(&at) else { bail!("a record of {at}, which is not read") };
        let expected = std::mem::replace(next, offset.next());
        if offset.0 != expected.0 {
            self.fault(&format_args!(
                "records were dropped before they were read back: {at} goes from {expected} to {offset}"
            ));
        }
        if let Err(fault) = note(record) {
            self.fault(&fault);
        }
        Ok(())
    }

    fn fault(&mut self, what: &dyn Display) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(what.to_string());
        }
    }
}
