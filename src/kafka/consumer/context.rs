//! What a membership's client and its polling thread have in common, and what is said between that thread and the owner of
//! the partitions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use tokio::sync::{mpsc, oneshot};

use super::ConsumerError;
use crate::kafka::error::Error;
use crate::ledger::{NextOffset, TopicPartition};

/// What is to be known of a membership besides its records.
pub enum Notice {
    /// The group gives it partitions.
    Assigned(Assigned),
    /// The group takes partitions away.
    Revoked(Revoked),
    /// An error that is not about one record.
    Failed(ConsumerError),
    /// What the owner answered could not be done.
    NotDone(Error),
    /// It fetches nothing more for now, since what it has is not taken.
    Paused,
    /// How far the logs reach that it reads, now and then.
    LogEnds(Vec<LogEnd>),
}

/// How far the log of a partition reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Which partition.
    pub at: TopicPartition,
    /// Its end for who reads what is committed: the last stable offset.
    pub end: NextOffset,
    /// Whether all before it was fetched and handed over. What is not, maybe nobody can read: a transaction's end takes an
    /// offset too.
    pub is_fetched: bool,
}

/// Partitions that are the membership's from here on. Dropped without an answer, they are assigned and not read.
pub struct Assigned {
    /// Which.
    pub partitions: Vec<TopicPartition>,
    /// Records of them that are fetched now have at least this epoch: see [`super::FetchedRecord`].
    pub epoch: u64,
    answer: Option<Box<dyn FnOnce(StartOffsets) + Send>>,
}

/// Partitions, each with its first record that is to be read.
pub type StartOffsets = Vec<(TopicPartition, NextOffset)>;

impl Assigned {
    /// With who waits for the answer.
    #[must_use]
    pub fn new(
        partitions: Vec<TopicPartition>,
        epoch: u64,
        answer: impl FnOnce(StartOffsets) + Send + 'static,
    ) -> Self {
        Self { partitions, epoch, answer: Some(Box::new(answer)) }
    }

    /// Reads these, each from its offset on; the others are assigned and not read.
    pub fn read(mut self, from: StartOffsets) {
        self.answer(from);
    }

    fn answer(&mut self, from: StartOffsets) {
        if let Some(answer) = self.answer.take() {
            answer(from);
        }
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.answer(Vec::new());
    }
}

/// Partitions that the group takes away: they are let go when this is dropped.
pub struct Revoked {
    /// Which.
    pub partitions: Vec<TopicPartition>,
    /// Whether another member may have them already, since the group had not heard of this one for too long.
    pub are_lost: bool,
    answer: Option<Box<dyn FnOnce() + Send>>,
}

impl Revoked {
    /// With who waits until they may be let go.
    #[must_use]
    pub fn new(
        partitions: Vec<TopicPartition>,
        are_lost: bool,
        answer: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { partitions, are_lost, answer: Some(Box::new(answer)) }
    }
}

impl Drop for Revoked {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer();
        }
    }
}

/// What the polling thread is told to do.
pub(super) enum Instruction {
    /// Take over the partitions that were reported, and read these of them.
    Assign(StartOffsets),
    /// Let go of those that were reported.
    Unassign,
    /// Read these from these offsets on, and no others.
    Seek(StartOffsets, oneshot::Sender<Result<u64, Error>>),
}

/// The context of a member's client.
pub(super) struct Context {
    /// Which of its pipeline's memberships it is.
    number: usize,
    topics: Vec<Arc<str>>,
    settled: AtomicBool,
    /// What the group called this member when it took over the partitions that it has.
    taken_as: Mutex<String>,
    /// Grows whenever a record that was polled before may be another than one polled after it: see [`super::FetchedRecord`].
    epoch: AtomicU64,
    /// The partitions that are read: fetched again after a pause.
    reading: Mutex<Vec<TopicPartition>>,
    notices: mpsc::UnboundedSender<(usize, Notice)>,
    instruct: Sender<Instruction>,
    instructions: Mutex<Receiver<Instruction>>,
}

/// A panic elsewhere leaves nothing half done: what is locked here is changed by one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn new(
        number: usize,
        topics: Vec<Arc<str>>,
        notices: mpsc::UnboundedSender<(usize, Notice)>,
    ) -> Self {
        let (instruct, instructions) = std::sync::mpsc::channel();
        Self {
            number,
            topics,
            settled: AtomicBool::new(false),
            taken_as: Mutex::default(),
            epoch: AtomicU64::new(0),
            reading: Mutex::default(),
            notices,
            instruct,
            instructions: Mutex::new(instructions),
        }
    }

    pub(super) fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }

    pub(super) fn taken_as(&self) -> MutexGuard<'_, String> {
        lock(&self.taken_as)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes that the group has told it what it is given.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::SeqCst);
    }

    /// What it is told to do; locked by the polling thread alone.
    pub(super) fn instructions(&self) -> MutexGuard<'_, Receiver<Instruction>> {
        lock(&self.instructions)
    }

    /// How the polling thread is told what to do.
    pub(super) fn instruct(&self) -> Sender<Instruction> {
        self.instruct.clone()
    }

    /// The partitions that are read.
    pub(super) fn reading(&self) -> MutexGuard<'_, Vec<TopicPartition>> {
        lock(&self.reading)
    }

    /// Tells the owner; whether there is one.
    pub(super) fn notify(&self, notice: Notice) -> bool {
        self.notices.send((self.number, notice)).is_ok()
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka consumer");
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = Vec::new();
        for (name, topic) in statistics.topics {
            let Some(name) = self.topics.iter().find(|known| ***known == *name) else { continue };
            // Partition -1 is librdkafka's own; of one that is not read it knows no end.
            let read =
                topic.partitions.into_values().filter(|known| known.partition >= 0 && known.ls_offset >= 0);
            ends.extend(read.map(|known| LogEnd {
                at: TopicPartition::new(Arc::clone(name), known.partition),
                end: NextOffset(known.ls_offset),
                is_fetched: known.next_offset >= known.ls_offset && known.fetchq_cnt == 0,
            }));
        }
        if !ends.is_empty() {
            self.notify(Notice::LogEnds(ends));
        }
    }
}
