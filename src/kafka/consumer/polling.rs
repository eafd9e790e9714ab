//! The memberships of a pipeline, each polled by a thread of its own.
//!
//! librdkafka wants to be polled by one thread, and asynchronous wake-ups have stalled silently (rust-rdkafka#665, #840).
//! The thread copies records at once, since a borrowed one pins the whole fetch it came in, and hands them over in chunks:
//! what to make of them takes no time of its own.
//!
//! Where nobody takes a chunk, the thread waits; and after a while it pauses the partitions and polls on, so that the group
//! does not take this member for dead.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::context::{Context, Instruction, Notice, StartOffsets};
use super::{Consumer, ConsumerError, Polled, Role};
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::event::Record;
use crate::kafka::error::Error;

/// Longest sleep in one poll: how soon a seek or the end is seen when no record comes.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Most records of a chunk, and about most bytes: large enough that handing over costs nothing, small enough to be
/// nothing beside what librdkafka prefetches. At most three chunks of a pipeline's are under way for each membership.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;
/// Longest wait for the polling thread to seek: as long as a seek may take, and then some.
const SEEK_ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait until a chunk is taken without polling. Pausing throws prefetched records away, so not at once.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// How long one wait for that is: how soon a seek is seen meanwhile.
const ROOM_WAIT: Duration = Duration::from_millis(10);

/// A record as it was fetched.
#[derive(Debug)]
pub struct FetchedRecord {
    /// The record.
    pub record: Record,
    /// Its size in bytes.
    pub bytes: usize,
    /// Grows whenever partitions come, go or are read from elsewhere. A record of a partition is to be read where its epoch
    /// is at least the one in which that partition was begun.
    pub epoch: u64,
}

/// What comes of a pipeline's memberships.
pub enum Incoming {
    /// Records, each partition's in offset order.
    Records(Vec<FetchedRecord>),
    /// Something else, of the membership of this number.
    Notice(usize, Notice),
    /// Nothing any more.
    Ended,
}

/// The memberships of a pipeline.
pub struct Memberships {
    members: Vec<Arc<Consumer>>,
    records: mpsc::Receiver<Vec<FetchedRecord>>,
    notices: mpsc::UnboundedReceiver<(usize, Notice)>,
    threads: Vec<JoinHandle<()>>,
}

impl Memberships {
    /// Joins the group: a membership for each role.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn join(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        worker: usize,
        roles: &[Role],
    ) -> Result<Self> {
        let (notify, notices) = mpsc::unbounded_channel();
        let members = roles
            .iter()
            .enumerate()
            .map(|(number, role)| {
                let context = |topics| Context::new(number, topics, notify.clone());
                Consumer::new(kafka, group, topics, worker, *role, context).map(Arc::new)
            })
            .collect::<Result<Vec<_>>>()?;
        // Right after one another, so that the group has to look at its members once.
        members.iter().try_for_each(|member| member.subscribe())?;
        let (sender, records) = mpsc::channel(1);
        let mut threads = Vec::new();
        for (role, member) in roles.iter().zip(&members) {
            let (consumer, sender) = (Arc::clone(member), sender.clone());
            let polling =
                Polling { consumer, sender, runtime: Handle::current(), chunk: Vec::new(), bytes: 0 };
            let thread = thread::Builder::new().name(format!("poll-{}", role.name()));
            threads.push(thread.spawn(move || polling.run()).context("cannot start a polling thread")?);
        }
        Ok(Self { members, records, notices, threads })
    }

    /// The memberships, by their number.
    #[must_use]
    pub fn members(&self) -> &[Arc<Consumer>] {
        &self.members
    }

    /// Waits for what comes next: without `records`, only for what is no record. What the group says of partitions comes
    /// before the records that are fetched after it; records fetched before may come after it, and have an earlier epoch.
    ///
    /// A wait that is cut short loses nothing.
    pub async fn next(&mut self, records: bool) -> Incoming {
        tokio::select! {
            biased;
            notice = self.notices.recv() => {
                notice.map_or(Incoming::Ended, |(number, notice)| Incoming::Notice(number, notice))
            }
            records = self.records.recv(), if records => records.map_or(Incoming::Ended, Incoming::Records),
        }
    }

    /// Ends the threads and closes the clients, which blocks. Whoever else has one of the members must have dropped it.
    pub fn close(self) {
        let Self { members, records, notices, threads } = self;
        // From here on the threads have no owner that they could wait for.
        drop((records, notices));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a polling thread panicked");
            }
        }
        // Side by side: each may take a while.
        let closing = members.into_iter().map(|member| thread::spawn(move || drop(member)));
        for thread in closing.collect::<Vec<_>>() {
            if thread.join().is_err() {
                tracing::error!("closing a consumer panicked");
            }
        }
    }
}

impl Consumer {
    /// Reads these partitions from these offsets on, and no others; returns the epoch of records that are fetched from there.
    ///
    /// # Errors
    /// When one cannot be moved there.
    pub async fn read_only(&self, from: StartOffsets) -> Result<u64, Error> {
        let (answer, answered) = oneshot::channel();
        // Nobody takes it only where the client is closed: then there is no answer either.
        let _ = self.context().instruct().send(Instruction::Seek(from, answer));
        // Longer than the polling thread can be at anything else.
        match tokio::time::timeout(SEEK_ANSWER_LIMIT, answered).await {
            Ok(Ok(done)) => done,
            _ => Err(Error::ended()),
        }
    }
}

/// The thread that polls one membership.
struct Polling {
    consumer: Arc<Consumer>,
    sender: mpsc::Sender<Vec<FetchedRecord>>,
    runtime: Handle,
    /// What waits to be handed over, and its size.
    chunk: Vec<FetchedRecord>,
    bytes: usize,
}

impl Polling {
    /// Polls until nobody takes what comes.
    fn run(mut self) {
        let mut full_since: Option<Instant> = None;
        let mut paused = false;
        while !self.sender.is_closed() {
            self.consumer.context().serve(self.consumer.member());
            if self.hand_over() {
                full_since = None;
                if std::mem::take(&mut paused) {
                    let member = self.consumer.member();
                    self.note(member.resume(&member.reading()));
                }
            } else if self.is_full() {
                if full_since.get_or_insert_with(Instant::now).elapsed() < PAUSE_AFTER {
                    self.wait_for_room();
                    continue;
                }
                // Again each time round: a partition assigned meanwhile is not paused yet.
                let member = self.consumer.member();
                self.note(member.assigned().and_then(|assigned| member.pause(&assigned)));
                if !std::mem::replace(&mut paused, true) {
                    self.consumer.context().notify(Notice::Paused);
                }
            }
            let wait = if self.chunk.is_empty() || paused { POLL_MAX } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Polled::Nothing if wait.is_zero() => self.wait_for_room(),
                Polled::Nothing => {}
                Polled::Record(message) => {
                    let context = self.consumer.context();
                    let (record, bytes) = message.own(context.topics());
                    // After the poll: what the group said within it came before this record.
                    self.chunk.push(FetchedRecord { record, bytes, epoch: context.epoch() });
                    self.bytes += bytes;
                }
                Polled::Failed(error) => {
                    self.consumer.context().notify(Notice::Failed(error));
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_RECORDS || self.bytes >= CHUNK_BYTES
    }

    /// Hands over what there is, unless the last chunk is not taken yet.
    fn hand_over(&mut self) -> bool {
        if self.chunk.is_empty() {
            return true;
        }
        match self.sender.try_send(std::mem::take(&mut self.chunk)) {
            Ok(()) => {
                self.bytes = 0;
                true
            }
            Err(TrySendError::Full(chunk) | TrySendError::Closed(chunk)) => {
                self.chunk = chunk;
                false
            }
        }
    }

    /// Waits until the last chunk is taken, or for a moment.
    fn wait_for_room(&self) {
        // Elapsed or closed: the caller's next try tells which. The place is given back at once, and taken by that try.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(ROOM_WAIT, self.sender.reserve()).await.map(drop) });
    }

    fn note(&self, done: Result<(), Error>) {
        if let Err(error) = done {
            self.consumer.context().notify(Notice::NotDone(error));
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        // Who waits for more would wait for ever. Where this is the end of all, nobody waits.
        let ended = ConsumerError::Fatal("its polling thread ended".to_owned());
        self.consumer.context().notify(Notice::Failed(ended));
    }
}
