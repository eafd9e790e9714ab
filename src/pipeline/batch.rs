//! Records become batches, bounded by count, bytes and age.

use std::time::Duration;

use tokio::time::Instant;

use super::ownership::{Generation, Ownership, Ticket};
use crate::event::{Fault, Record};
use crate::ledger::{Command, NextOffset, Request, Source, TopicPartition};
use crate::store::{self, Advance};

/// The part of a batch that comes from one partition.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Which partition.
    pub at: TopicPartition,
    /// The generation it was read under.
    pub generation: Generation,
    /// Where the ledger must be at least.
    pub expected: NextOffset,
    /// The offset after the slice's last record.
    pub next: NextOffset,
}

/// What one walk through the stages carries: of each record first what was read from it, then what waits for its answer, and
/// last what it came to.
#[derive(Debug)]
pub struct Batch<R> {
    /// One for each partition.
    pub slices: Vec<Slice>,
    /// The records, each partition's in offset order.
    pub records: Vec<R>,
    /// Counts the batch as under way.
    pub ticket: Ticket,
}

/// What a stage has of one record.
pub trait OfRecord {
    /// Where the record stands.
    fn source(&self) -> &Source;
}

/// A record with what was read from it.
#[derive(Debug)]
pub struct ReadRecord {
    /// The record as it came.
    pub record: Record,
    /// Its command, or why there is none.
    pub command: Result<Command, NoCommand>,
    /// Whether a mapping read it.
    pub is_mapped: bool,
}

/// Why a record asks the ledger nothing.
#[derive(Debug)]
pub enum NoCommand {
    /// None can be read from it.
    Faulty(Fault),
    /// Its mapping gives none.
    Ignored,
}

/// A record that waits for its answer.
#[derive(Debug)]
pub struct PendingRecord {
    /// The record.
    pub record: Record,
    /// Why it asks nothing, if it does not.
    pub no_command: Option<NoCommand>,
    /// Whether a mapping read it.
    pub is_mapped: bool,
}

impl OfRecord for ReadRecord {
    fn source(&self) -> &Source {
        &self.record.source
    }
}

impl OfRecord for PendingRecord {
    fn source(&self) -> &Source {
        &self.record.source
    }
}

/// What closes a batch; the first bound reached does.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most records.
    pub records: usize,
    /// Most bytes; one larger record is a batch of its own.
    pub bytes: usize,
    /// Longest wait of its first record.
    pub age: Duration,
}

/// A batch being gathered.
#[derive(Debug)]
pub struct Gathering {
    bounds: Bounds,
    slices: Vec<Slice>,
    records: Vec<ReadRecord>,
    bytes: usize,
    since: Option<Instant>,
}

impl Gathering {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, slices: Vec::new(), records: Vec::new(), bytes: 0, since: None }
    }

    /// Adds a record read at `now`; its slice says which range of its partition it is of.
    pub fn push(&mut self, record: ReadRecord, bytes: usize, slice: Slice, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
        match self.slices.iter_mut().rfind(|known| known.at == slice.at) {
            Some(known) => known.next = slice.next,
            None => self.slices.push(slice),
        }
        self.records.push(record);
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether it must grow no more. An empty one always grows: whatever the bounds, a record is a batch.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.is_empty() && (self.records.len() >= self.bounds.records || self.bytes >= self.bounds.bytes)
    }

    /// How long it may still wait for company; zero when it is full or old enough, `None` when it is empty.
    #[must_use]
    pub fn remaining_wait(&self, now: Instant) -> Option<Duration> {
        let since = self.since?;
        Some(if self.is_full() {
            Duration::ZERO
        } else {
            self.bounds.age.saturating_sub(now.saturating_duration_since(since))
        })
    }

    /// Drops what was read from partitions that are no longer owned, or are read again from elsewhere.
    pub fn drop_ended(&mut self, ownership: &Ownership) {
        drop_ended(&mut self.slices, &mut self.records, ownership);
        if self.records.is_empty() {
            self.clear();
        }
    }

    /// Takes what was gathered.
    pub fn take(&mut self, ticket: Ticket) -> Batch<ReadRecord> {
        let records = std::mem::replace(&mut self.records, Vec::with_capacity(self.bounds.records.min(4096)));
        let slices = std::mem::take(&mut self.slices);
        self.clear();
        Batch { slices, records, ticket }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.records.clear();
        self.bytes = 0;
        self.since = None;
    }
}

impl<R: OfRecord> Batch<R> {
    /// Drops what was read from partitions that changed hands meanwhile; `false` when nothing is left.
    pub fn drop_ended(&mut self, ownership: &Ownership) -> bool {
        drop_ended(&mut self.slices, &mut self.records, ownership);
        !self.slices.is_empty()
    }

    /// The same batch at its next stage.
    #[must_use]
    pub fn map<S>(self, next: impl FnMut(R) -> S) -> Batch<S> {
        // Not collected, which would keep the room that the larger records before them had.
        let mut records = Vec::with_capacity(self.records.len());
        records.extend(self.records.into_iter().map(next));
        Batch { slices: self.slices, records, ticket: self.ticket }
    }
}

impl Batch<ReadRecord> {
    /// Parts the questions for the store from the records that wait for the answers.
    #[must_use]
    pub fn split(self) -> (store::CommandBatch, Batch<PendingRecord>) {
        let advances = self
            .slices
            .iter()
            .map(|slice| Advance {
                at: slice.at.clone(),
                expected: slice.expected,
                next: slice.next,
                applied: None,
                published: None,
            })
            .collect();
        let mut requests = Vec::with_capacity(self.records.len());
        let pending = self.map(|ReadRecord { record, command, is_mapped }| {
            let no_command = match command {
                Ok(command) => {
                    requests.push(Request { command, source: Some(record.source.clone()) });
                    None
                }
                Err(no_command) => Some(no_command),
            };
            PendingRecord { record, no_command, is_mapped }
        });
        (store::CommandBatch { advances, requests, epoch: None }, pending)
    }
}

/// Drops slices of ended generations, and the records that came with them.
fn drop_ended<R: OfRecord>(slices: &mut Vec<Slice>, records: &mut Vec<R>, ownership: &Ownership) {
    let (current, ended): (Vec<Slice>, Vec<Slice>) =
        slices.drain(..).partition(|slice| ownership.is_current(&slice.at, slice.generation));
    *slices = current;
    if !ended.is_empty() {
        records.retain(|record| ended.iter().all(|slice| slice.at != record.source().at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_batch_is_never_full() {
        let bounds = Bounds { records: 1, bytes: 0, age: Duration::ZERO };
        let gathering = Gathering::new(bounds);
        assert!(!gathering.is_full() && gathering.remaining_wait(Instant::now()).is_none());
    }
}
