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

/// What one walk through the stages carries.
#[derive(Debug)]
pub struct ReadBatch {
    /// One for each partition.
    pub slices: Vec<Slice>,
    /// The records, each partition's in offset order.
    pub items: Vec<ReadRecord>,
    /// Counts the batch as under way.
    pub ticket: Ticket,
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
    items: Vec<ReadRecord>,
    bytes: usize,
    since: Option<Instant>,
}

impl Gathering {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, slices: Vec::new(), items: Vec::new(), bytes: 0, since: None }
    }

    /// Adds a record read at `now`; its slice says which range of its partition it is of.
    pub fn push(&mut self, item: ReadRecord, bytes: usize, slice: Slice, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
        match self.slices.iter_mut().rfind(|known| known.at == slice.at) {
            Some(known) => known.next = slice.next,
            None => self.slices.push(slice),
        }
        self.items.push(item);
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it must grow no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.bounds.records || self.bytes >= self.bounds.bytes
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
        drop_ended(&mut self.slices, &mut self.items, |item| &item.record.source, ownership);
        if self.items.is_empty() {
            self.clear();
        }
    }

    /// Takes what was gathered.
    pub fn take(&mut self, ticket: Ticket) -> ReadBatch {
        let items = std::mem::replace(&mut self.items, Vec::with_capacity(self.bounds.records.min(4096)));
        let slices = std::mem::take(&mut self.slices);
        self.clear();
        ReadBatch { slices, items, ticket }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.items.clear();
        self.bytes = 0;
        self.since = None;
    }
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

/// What waits for its answers while the store decides.
#[derive(Debug)]
pub struct PendingBatch {
    /// One for each partition.
    pub slices: Vec<Slice>,
    /// The records, in the batch's order.
    pub records: Vec<PendingRecord>,
    /// Counts the batch as under way.
    pub ticket: Ticket,
}

impl ReadBatch {
    /// Drops what was read from partitions that changed hands meanwhile; `false` when nothing is left.
    pub fn drop_ended(&mut self, ownership: &Ownership) -> bool {
        drop_ended(&mut self.slices, &mut self.items, |item| &item.record.source, ownership);
        !self.slices.is_empty()
    }

    /// Parts the questions for the store from the records that wait for the answers.
    #[must_use]
    pub fn split(self) -> (store::CommandBatch, PendingBatch) {
        let mut requests = Vec::with_capacity(self.items.len());
        let mut records = Vec::with_capacity(self.items.len());
        for ReadRecord { record, command, is_mapped } in self.items {
            let no_command = match command {
                Ok(command) => {
                    requests.push(Request { command, source: Some(record.source.clone()) });
                    None
                }
                Err(no_command) => Some(no_command),
            };
            records.push(PendingRecord { record, no_command, is_mapped });
        }
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
        let pending = PendingBatch { slices: self.slices, records, ticket: self.ticket };
        (store::CommandBatch { advances, requests, epoch: None }, pending)
    }
}

/// Drops slices of ended generations, and the records that came with them.
pub fn drop_ended<T>(
    slices: &mut Vec<Slice>,
    items: &mut Vec<T>,
    source: impl Fn(&T) -> &Source,
    ownership: &Ownership,
) {
    let (current, ended): (Vec<Slice>, Vec<Slice>) =
        slices.drain(..).partition(|slice| ownership.is_current(&slice.at, slice.generation));
    *slices = current;
    if !ended.is_empty() {
        items.retain(|item| ended.iter().all(|slice| slice.at != source(item).at));
    }
}
