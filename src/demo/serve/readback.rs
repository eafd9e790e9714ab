//! Reads back what comes in and what is published, for as long as it goes on: in memory that does not grow, so not the
//! events are kept but their sum.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::super::broker::{Broker, PARTITIONS};
use super::super::topic_tail::TopicTail;
use crate::config::TopicArgs;
use crate::event::{Channel, Record, read_command};
use crate::ledger::{Action, NextOffset, Source, TopicPartition};

/// A set of events, as the sum of their digests: two sets have the same sum where they have the same events, each as often.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventSum {
    pub(super) events: u64,
    digests: u128,
}

impl EventSum {
    /// One more: where it was published, its `ce_id` and its value.
    pub(super) fn add(&mut self, channel: Channel, id: &[u8], value: &[u8]) {
        let channel = if channel == Channel::Accepted { b"accepted" } else { b"rejected" };
        let mut hasher = blake3::Hasher::new();
        hasher.update(channel).update(&(id.len() as u64).to_le_bytes()).update(id).update(value);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.events += 1;
        self.digests = self.digests.wrapping_add(u128::from_le_bytes(digest));
    }
}

/// What was read back.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    /// The results.
    pub(super) results: EventSum,
    /// After the last record of each partition that the shop produced: all of these must be decided. What is behind it are
    /// the verifier's own questions, which come as long as it runs.
    pub(super) produced: HashMap<TopicPartition, NextOffset>,
    /// Where each partition that is verified ends.
    pub(super) ends: HashMap<TopicPartition, NextOffset>,
    /// What went wrong while reading: with any of this nothing is proved.
    pub(super) faults: Vec<String>,
}

/// Reads everything back.
pub(super) struct Reader {
    tail: TopicTail,
    notes: Notes,
}

/// What is noted of it on the way.
struct Notes {
    topics: TopicArgs,
    /// Records that the shop produced and that were read back.
    seen: Arc<AtomicU64>,
    read: ReadBack,
}

impl Reader {
    /// A reader of what comes in and of the results, from their beginning.
    pub(super) fn new(broker: &Broker, seen: Arc<AtomicU64>) -> Result<Self> {
        let topics = broker.topics.clone();
        let names =
            [&topics.orders_topic, &topics.adjustments_topic, &topics.accepted_topic, &topics.rejected_topic];
        let partitions = names.into_iter().flat_map(|name| {
            let name: Arc<str> = name.as_str().into();
            (0..PARTITIONS).map(move |partition| TopicPartition::new(Arc::clone(&name), partition))
        });
        let tail = TopicTail::new(broker, partitions)?;
        Ok(Self { tail, notes: Notes { topics, seen, read: ReadBack::default() } })
    }

    /// Reads until `published_all`, and then to the end of every topic. Blocks: runs on a thread of its own.
    pub(super) fn run(self, published_all: &CancellationToken) -> Result<ReadBack> {
        let Self { tail, mut notes } = self;
        let to_end = tail.run(published_all, |record| notes.note(&record))?;
        let Notes { topics, mut read, .. } = notes;
        read.ends = to_end.ends;
        read.ends.retain(|at, _| topics.read().contains(&&*at.topic));
        read.faults = to_end.faults;
        Ok(read)
    }
}

impl Notes {
    fn note(&mut self, record: &Record) -> Result<(), String> {
        let Source { at, offset } = &record.source;
        if self.topics.read().contains(&&*at.topic) {
            let is_own = read_command(record).is_ok_and(|command| matches!(command.action, Action::Expire));
            if !is_own {
                self.read.produced.insert(at.clone(), offset.next());
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        let channel =
            if *at.topic == *self.topics.accepted_topic { Channel::Accepted } else { Channel::Rejected };
        let id = record.headers.iter().find(|header| header.name == "ce_id");
        let Some(id) = id.and_then(|header| header.value.as_deref()) else {
            return Err(format!("the result at {} has no ce_id", record.source));
        };
        self.read.results.add(channel, id, record.value.as_deref().unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_same_events_in_any_order_and_of_no_others() {
        let sum = |events: &[(Channel, &str, &str)]| {
            let mut sum = EventSum::default();
            for (channel, id, value) in events {
                sum.add(*channel, id.as_bytes(), value.as_bytes());
            }
            sum
        };
        let (one, two) = ((Channel::Accepted, "a", "1"), (Channel::Rejected, "b", "2"));
        assert_eq!(sum(&[one, two]), sum(&[two, one]));
        for other in [
            vec![one],
            vec![one, two, two],
            vec![one, one],
            vec![one, (Channel::Accepted, "b", "2")],
            vec![one, (Channel::Rejected, "b2", "")],
            vec![one, (Channel::Rejected, "b", "3")],
        ] {
            assert_ne!(sum(&[one, two]), sum(&other));
        }
    }
}
