//! Partitions come and go: where each begins, and how each is handed over.
//!
//! The group moves partitions from within the poll, on the polling thread
//! (see [`Rebalance`]), so everything here may block that thread, within
//! bounds. Nothing that it waits for needs that thread.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::batch::Slice;
use super::failure::Failure;
use super::ownership::{Generation, InFlight, Ownership, Ticket};
use super::progress::{Known, Progress};
use super::recovery::{self, KnownOffsets, Refusal, Start};
use crate::background::LevelChanges;
use crate::kafka;
use crate::kafka::consumer::{Consumer, JoinedAnew, Member, Rebalance};
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, Offset, Source, TopicId, TopicPartition};
use crate::store::{LedgerWriter, Position, StoreError};

/// Longest wait for a topic that is not there: one just made is not known to every broker yet, and this thread must poll.
const ABSENT_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for it.
const ABSENT_LOOK: Duration = Duration::from_millis(100);
/// What stands for the id of a topic that was never known.
const UNKNOWN_TOPIC: &str = "unknown";
/// Longest wait for batches under way before partitions are handed over. Well under max.poll.interval.ms.
const HANDOVER_LIMIT: Duration = Duration::from_secs(20);
/// How often the log says that partitions cannot be taken over yet: it is tried several times a second.
const POSTPONED_SAY: Duration = Duration::from_secs(5);
/// A partition being read.
#[derive(Debug)]
struct Reading {
    at: TopicPartition,
    generation: Generation,
    /// Where the ledger must be at least when the next record is applied.
    expected: NextOffset,
}

/// What a pipeline's memberships of the group have in common: which partitions are read, from where, and what of them is
/// under way.
pub struct Assignment {
    store: Arc<dyn LedgerWriter>,
    runtime: Handle,
    level_changes: LevelChanges,
    progress: Arc<Progress>,
    accept_data_loss: bool,
    /// What is owned, for the stages to ask.
    pub ownership: Ownership,
    in_flight: Arc<InFlight>,
    reading: Mutex<Vec<Reading>>,
    /// Which topic each name meant when partitions of it were last begun; `None` where Kafka did not say.
    topics: Mutex<HashMap<Arc<str>, Option<TopicId>>>,
    /// Partitions that are read no further in this process: a result or dead letter of theirs cannot be published.
    stuck: Mutex<HashSet<TopicPartition>>,
    changed: AtomicBool,
    rewind: AtomicBool,
    leaving: AtomicBool,
    failure: Mutex<Option<Failure>>,
    /// When it was said last that partitions cannot be taken over yet.
    said: Mutex<Option<Instant>>,
    /// When partitions were lost last, since the group had not heard of a member for too long.
    lost: Mutex<Option<Instant>>,
}

impl Assignment {
    /// Nothing assigned yet. `runtime` is where the store's futures run; `level_changes` learns that who had the partitions
    /// before may have left levels unpublished, `progress` where each partition is begun.
    #[must_use]
    pub fn new(
        store: Arc<dyn LedgerWriter>,
        runtime: Handle,
        level_changes: LevelChanges,
        progress: Arc<Progress>,
        accept_data_loss: bool,
    ) -> Self {
        Self {
            store,
            runtime,
            level_changes,
            progress,
            accept_data_loss,
            ownership: Ownership::default(),
            in_flight: Arc::default(),
            reading: Mutex::default(),
            topics: Mutex::default(),
            stuck: Mutex::default(),
            changed: AtomicBool::new(false),
            rewind: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            failure: Mutex::default(),
            said: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// Asks the polling thread to read every partition again from its committed offset.
    ///
    /// What was read so far is dropped; what the ledger decided of it is published from there.
    pub fn request_rewind(&self) {
        self.ownership.end_all();
        self.rewind.store(true, Ordering::SeqCst);
    }

    /// Reads a partition no further as long as this process lives, wherever the group moves it; the others go on from
    /// their committed offsets.
    pub fn stop_partition(&self, at: &TopicPartition) {
        lock(&self.stuck).insert(at.clone());
        self.request_rewind();
    }

    /// Looks whether names still mean the topics that are read, and begins them again where one does not: what is read
    /// of a topic that was made anew must not be taken for the old one's.
    pub(super) fn look_at_topics<'a>(&self, now: impl IntoIterator<Item = (&'a str, &'a Described)>) {
        for (name, described) in now {
            let mut topics = lock(&self.topics);
            let changed = match (topics.get(name), described) {
                (Some(Some(_)), Described::Absent) => true,
                (Some(Some(known)), Described::There { id: Some(id), .. }) => known != id,
                _ => false,
            };
            if changed {
                // Known again when it is begun again, if any of it is assigned.
                topics.remove(name);
                tracing::error!(topic = name, now = ?described, "this topic was deleted or made anew while it was read");
                self.request_rewind();
            }
        }
    }

    /// Whether a partition is this pipeline's.
    #[must_use]
    pub fn is_reading(&self, at: &TopicPartition) -> bool {
        lock(&self.reading).iter().any(|reading| reading.at == *at)
    }

    /// Whether partitions were lost within this time.
    pub(super) fn lost_within(&self, time: Duration) -> bool {
        lock(&self.lost).is_some_and(|at| at.elapsed() <= time)
    }

    /// Begins no partition any more: the member leaves the group.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(super) fn rewind_is_due(&self) -> bool {
        self.rewind.load(Ordering::SeqCst)
    }

    /// Whether no batch is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.wait_until_idle(Duration::ZERO)
    }

    /// Whether partitions came or went since the last call.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::SeqCst)
    }

    /// The failure of a rebalance, which has no caller to return it to.
    pub(super) fn take_failure(&self) -> Result<(), Failure> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    pub(super) fn enter(&self) -> Ticket {
        self.in_flight.enter()
    }

    pub(super) fn wait_until_idle(&self, limit: Duration) -> bool {
        self.in_flight.wait_until_idle(limit)
    }

    /// Waits until the next stage takes a batch, or for so long.
    pub(super) fn wait_for_permit(&self, permits: &Semaphore, limit: Duration) {
        // Elapsed or closed: the caller's next try tells which. No database future is dropped here.
        let _ =
            self.runtime.block_on(async { tokio::time::timeout(limit, permits.acquire()).await.map(drop) });
    }

    /// Takes a record in: the slice it belongs to and its source. `None` when its partition is not being read.
    pub(super) fn admit(&self, topic: &str, partition: i32, offset: Offset) -> Option<(Slice, Source)> {
        let mut reading = lock(&self.reading);
        let reading = reading
            .iter_mut()
            .find(|reading| reading.at.partition == partition && reading.at.topic.as_ref() == topic)?;
        let slice = Slice {
            at: reading.at.clone(),
            generation: reading.generation,
            expected: reading.expected,
            next: offset.next(),
        };
        reading.expected = reading.expected.max(slice.next);
        Some((slice, Source { at: reading.at.clone(), offset }))
    }

    /// Fetches a membership's partitions again, except what was stopped for good.
    pub(super) fn resume(&self, member: Member<'_>) -> Result<(), Failure> {
        Ok(member.resume(&self.read_by(member))?)
    }

    /// A membership's partitions that are read.
    fn read_by(&self, member: Member<'_>) -> Vec<TopicPartition> {
        let reading = lock(&self.reading);
        reading
            .iter()
            .filter(|reading| member.may_own(&reading.at))
            .map(|reading| reading.at.clone())
            .collect()
    }

    /// Reads every assigned partition of all memberships again from its committed offset. Nothing may be under way.
    pub(super) fn rewind<'a>(
        &self,
        consumers: impl IntoIterator<Item = &'a Consumer>,
    ) -> Result<(), Failure> {
        self.rewind.store(false, Ordering::SeqCst);
        consumers
            .into_iter()
            .try_for_each(|consumer| self.try_rewind(consumer.member()))
            .or_else(|error| self.postpone(error))
    }

    /// What could not be taken over because Kafka or the database is away is taken over later; a refusal is for good.
    fn postpone(&self, error: Failure) -> Result<(), Failure> {
        if !error.may_pass() {
            return Err(error);
        }
        let mut said = lock(&self.said);
        if said.is_none_or(|at| at.elapsed() >= POSTPONED_SAY) {
            tracing::warn!("partitions cannot be taken over yet: {:#}", anyhow::Error::from(error));
            *said = Some(Instant::now());
        }
        drop(said);
        self.request_rewind();
        Ok(())
    }

    fn try_rewind(&self, member: Member<'_>) -> Result<(), Failure> {
        let assigned = member.assigned()?;
        lock(&self.reading).retain(|reading| !member.may_own(&reading.at));
        if assigned.is_empty() {
            return Ok(());
        }
        let (taken_as, starts) = self.start_offsets(member, &assigned)?;
        member.set_taken_as(taken_as);
        let starts: Vec<_> = starts.into_iter().map(|(at, start)| (at, start.from)).collect();
        member.seek(&starts)?;
        member.pause(&assigned)?;
        self.resume(member)
    }

    /// Asks which topic each name means now, once for each. One that is not there is waited for, for a while.
    fn ask_topics(
        &self,
        member: Member<'_>,
        wanted: &[TopicPartition],
    ) -> Result<HashMap<Arc<str>, Described>, Failure> {
        let mut names: Vec<&str> = wanted.iter().map(|at| &*at.topic).collect();
        names.sort_unstable();
        names.dedup();
        let begun = Instant::now();
        loop {
            let described = member.describe(&names)?;
            let absent = names.iter().zip(&described).find(|(_, topic)| **topic == Described::Absent);
            match absent {
                None => {
                    let topics: HashMap<Arc<str>, Described> =
                        names.iter().map(|name| Arc::from(*name)).zip(described).collect();
                    let ids = topics.iter().map(|(name, topic)| (Arc::clone(name), topic.id().cloned()));
                    lock(&self.topics).extend(ids);
                    return Ok(topics);
                }
                Some((name, _)) if begun.elapsed() > ABSENT_LIMIT => {
                    return Err(Failure::TopicGone((*name).to_owned()));
                }
                Some(_) => std::thread::sleep(ABSENT_LOOK),
            }
        }
    }

    /// Finds where each partition begins, and begins to own it. A partition whose next record is gone is left out. Returns
    /// also as what member of the group.
    fn start_offsets(
        &self,
        member: Member<'_>,
        partitions: &[TopicPartition],
    ) -> Result<(String, Vec<(TopicPartition, Start)>), Failure> {
        // First: whoever is another member by the end of this may have been none while it asked.
        let taken_as = member.id();
        let mut wanted = partitions.to_vec();
        let committed = member.committed(partitions)?;
        let topics = self.ask_topics(member, &wanted)?;
        // Who comes back within its session is given what it had, also of a topic made anew with fewer partitions.
        wanted.retain(|at| {
            let is_there = topics[&at.topic].has(at.partition);
            if !is_there {
                tracing::warn!(partition = %at, "left out: the topic does not have this partition any more");
            }
            is_there
        });
        let ledger = self.runtime.block_on(self.store.all_positions())?;
        let mut begun = Vec::with_capacity(wanted.len());
        let stuck = lock(&self.stuck).clone();
        for at in wanted.into_iter().filter(|at| !stuck.contains(at)) {
            let (low, high) = member.watermarks(&at)?;
            let positions = KnownOffsets {
                committed: committed.of(&at)?,
                ledger: ledger.get(&at).map(|position| position.next),
                published: ledger.get(&at).and_then(|position| position.published),
                replaced: is_replaced(&at, topics[&at.topic].id(), &ledger),
                low,
                high,
            };
            match recovery::start_offset(positions, self.accept_data_loss) {
                Ok(start) => begun.push((at, start, positions)),
                Err(refusal @ Refusal::LedgerBehind { .. }) => {
                    return Err(Failure::Refused { at, refusal });
                }
                Err(refusal @ Refusal::OutOfRange { .. }) => {
                    tracing::error!(partition = %at, "stopped: {refusal}");
                }
                Err(refusal @ Refusal::TopicReplaced { .. }) => {
                    let was = ledger.get(&at).and_then(|was| was.topic_id.as_ref()).map(TopicId::as_str);
                    let now = topics[&at.topic].id().map(TopicId::as_str);
                    tracing::error!(partition = %at, was, now, "stopped: {refusal}");
                }
            }
        }
        // Where data loss was accepted first: what was committed before must not be held against the new position, by
        // another instance or should this process end between the two.
        let goes_back = |start: &Start, positions: &KnownOffsets| {
            positions.committed.is_some_and(|was| was > start.ledger)
        };
        let first = |(_, start, positions): &&(TopicPartition, Start, KnownOffsets)| {
            positions.replaced || goes_back(start, positions)
        };
        if member.id() != taken_as {
            return Err(kafka::Error::from(JoinedAnew).into());
        }
        commit_start_offsets(member, begun.iter().filter(first))?;
        for (at, start, _) in &begun {
            self.set_position(at, *start, ledger.get(at), topics[&at.topic].id())?;
        }
        commit_start_offsets(member, begun.iter().filter(|begun| !first(begun)))?;
        for (at, start, positions) in &begun {
            self.own(at, *start, *positions, topics[&at.topic].id().cloned());
        }
        Ok((taken_as, begun.into_iter().map(|(at, start, _)| (at, start)).collect()))
    }

    /// States where the ledger is, and of which topic, where it does not know that yet.
    fn set_position(
        &self,
        at: &TopicPartition,
        start: Start,
        was: Option<&Position>,
        topic_id: Option<&TopicId>,
    ) -> Result<(), StoreError> {
        let known = was.and_then(|was| was.topic_id.as_ref());
        let topic_id = topic_id.or(known).cloned();
        let now = match was {
            Some(was) if !start.set_position => Position { topic_id, ..was.clone() },
            _ => Position { next: start.ledger, published: Some(start.from), topic_id },
        };
        if was == Some(&now) {
            return Ok(());
        }
        let mut was = was.cloned();
        if let Some(before) =
            was.take_if(|was| was.topic_id.is_none() && now.topic_id.is_some() && now.next < was.next)
        {
            // An earlier version decided this of a topic whose id it did not know, and that topic is gone: without an id
            // of its own, those decisions would be taken for ones of the topic there is.
            let unknown = Position { topic_id: Some(TopicId::new(UNKNOWN_TOPIC)), ..before.clone() };
            self.runtime.block_on(self.store.set_position(at, Some(&before), &unknown))?;
            was = Some(unknown);
        }
        self.runtime.block_on(self.store.set_position(at, was.as_ref(), &now))
    }

    fn own(&self, at: &TopicPartition, start: Start, positions: KnownOffsets, topic_id: Option<TopicId>) {
        let lost =
            positions.ledger.is_some_and(|ledger| ledger != start.ledger) || start.from < positions.low;
        if lost || positions.replaced {
            tracing::warn!(partition = %at, from = %start.from, before = ?positions, "going on after accepted data loss");
        } else if positions.committed.is_none() && start.from < start.ledger {
            tracing::warn!(
                partition = %at, from = %start.from, ledger = %start.ledger,
                "the group's committed offset is gone: what was decided from here on is republished, with the same ids, \
                 since some of it may never have been published"
            );
        } else {
            tracing::info!(partition = %at, from = %start.from, ledger = %start.ledger, "reading");
        }
        let known = Known { topic_id, applied: start.ledger, published: start.from };
        self.progress.begin(at, known);
        let generation = self.ownership.begin(at);
        lock(&self.reading).push(Reading { at: at.clone(), generation, expected: start.ledger });
    }

    /// Takes assigned partitions over, each from its own offset.
    fn take_over(&self, member: Member<'_>, partitions: &[TopicPartition]) -> Result<(), Failure> {
        // On a refusal they are taken over all the same, stopped: librdkafka cannot close in mid-rebalance.
        // When leaving, neither: the group's coordinator answers a closing consumer no more, so it would wait in vain.
        let leaving = self.leaving.load(Ordering::SeqCst);
        let kept = !self.read_by(member).is_empty();
        let started =
            if leaving { Ok((String::new(), Vec::new())) } else { self.start_offsets(member, partitions) };
        let starts = started.as_ref().map_or(&[][..], |(_, starts)| starts);
        // A stopped partition stays assigned, paused, without an offset.
        let from = |at: &TopicPartition| {
            starts.iter().find(|(started, _)| started == at).map(|(_, start)| start.from)
        };
        let assign: Vec<_> = partitions.iter().map(|at| (at.clone(), from(at))).collect();
        member.assign(&assign)?;
        // A pause survives a reassignment inside librdkafka, so say for each what it is to be.
        member.pause(partitions)?;
        match started {
            Ok((taken_as, _)) => {
                if !kept {
                    member.set_taken_as(taken_as);
                } else if !member.was_taken_as(&taken_as) {
                    // What it kept was taken over as the member that it was.
                    self.request_rewind();
                }
                self.level_changes.mark_all();
                self.resume(member)
            }
            Err(error) => self.postpone(error),
        }
    }

    /// Hands partitions over: what is under way of them is published first, unless they are lost already.
    fn hand_over(
        &self,
        member: Member<'_>,
        partitions: &[TopicPartition],
        are_lost: bool,
    ) -> Result<(), Failure> {
        if are_lost {
            tracing::warn!("partitions were lost: this member was silent for too long");
            *lock(&self.lost) = Some(Instant::now());
        } else if !self.wait_until_idle(HANDOVER_LIMIT) {
            tracing::warn!(
                "batches are still under way after {HANDOVER_LIMIT:?}; their results are published by the next owner"
            );
        }
        for at in partitions {
            self.ownership.end(at);
            lock(&self.reading).retain(|reading| reading.at != *at);
            tracing::info!(partition = %at, "handed over");
        }
        Ok(member.unassign(partitions)?)
    }

    fn note(&self, done: Result<(), Failure>) {
        self.changed.store(true, Ordering::SeqCst);
        if let Err(error) = done {
            lock(&self.failure).get_or_insert(error);
        }
    }
}

impl Rebalance for Assignment {
    fn assigned(&self, member: Member<'_>, partitions: &[TopicPartition]) {
        self.note(self.take_over(member, partitions));
    }

    fn revoked(&self, member: Member<'_>, partitions: &[TopicPartition], are_lost: bool) {
        self.note(self.hand_over(member, partitions, are_lost));
    }
}

/// Whether the ledger's position is of another topic than the one that has the name now. Where the ledger has no position,
/// those of the topic's other partitions say.
fn is_replaced(
    at: &TopicPartition,
    now: Option<&TopicId>,
    ledger: &HashMap<TopicPartition, Position>,
) -> bool {
    let is_other =
        |position: &Position| now.is_some_and(|now| position.topic_id.as_ref().is_some_and(|was| was != now));
    match ledger.get(at) {
        Some(position) => is_other(position),
        // Where nothing was applied, nothing is known of the topic.
        None => ledger.iter().any(|(other, position)| {
            other.topic == at.topic && position.next > NextOffset(0) && is_other(position)
        }),
    }
}

/// Commits where each partition begins whose committed offset says otherwise, before anything of it is decided.
///
/// Without that, a crash between deciding a partition's first batch and publishing it would leave a ledger ahead and no
/// committed offset; and then, reading from the ledger's position, those results would never be published.
fn commit_start_offsets<'a>(
    member: Member<'_>,
    begun: impl Iterator<Item = &'a (TopicPartition, Start, KnownOffsets)>,
) -> Result<(), Failure> {
    let differing: Vec<_> = begun
        .filter(|(_, start, known)| known.committed != Some(start.from))
        .map(|(at, start, _)| (at.clone(), start.from))
        .collect();
    Ok(member.commit(&differing)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is one assignment, push or retain: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
