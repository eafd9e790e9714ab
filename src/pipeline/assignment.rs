//! Partitions come and go: one owner of what is assigned and read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Slice;
use super::failure::Failure;
use super::ownership::{Generation, InFlight, Ownership};
use super::ports::GroupMember;
use super::progress::{Known, Progress};
use super::take_over::{Begun, TakeOver};
use crate::background::LevelChanges;
use crate::causes;
use crate::kafka::consumer::{Assigned, FetchedRecord, Revoked};
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, Source, TopicId, TopicPartition};
use crate::mapping::{MapError, Mapping, Programs};

/// Longest wait for batches under way before partitions are handed over. Well under max.poll.interval.ms.
const HANDOVER_LIMIT: Duration = Duration::from_secs(20);
/// How often the log says that partitions cannot be taken over yet: it is tried several times a second.
const POSTPONED_SAY: Duration = Duration::from_secs(5);

/// A partition being read.
#[derive(Debug)]
struct ReadPartition {
    at: TopicPartition,
    generation: Generation,
    /// The least epoch of its records.
    epoch: u64,
    /// The next record that is taken in.
    next: NextOffset,
    /// Where the ledger must be at least when the next record is applied.
    expected: NextOffset,
}

/// What is assigned to a pipeline's memberships of the group, and what of it is read.
pub(super) struct Assignment<M> {
    members: Vec<M>,
    take_over: TakeOver,
    ownership: Arc<Ownership>,
    in_flight: InFlight,
    progress: Arc<Progress>,
    level_changes: LevelChanges,
    assigned: Vec<TopicPartition>,
    /// Those of them that are read.
    reading: Vec<ReadPartition>,
    /// Those of them that Kafka did not know when they were to be begun.
    left_out: Vec<TopicPartition>,
    /// Which topic each name meant when partitions of it were last begun; `None` where Kafka did not say.
    topics: HashMap<Arc<str>, Option<TopicId>>,
    /// Which programs read the records of what was begun.
    programs: Programs,
    /// Whether no partition is begun any more, since the memberships leave the group.
    leaving: bool,
    /// When it was said last that partitions cannot be taken over yet.
    said: Option<Instant>,
    /// When partitions were lost last, since the group had not heard of a member for too long.
    lost: Option<Instant>,
}

impl<M: GroupMember> Assignment<M> {
    /// Nothing assigned yet. `level_changes` learns that who had the partitions before may have left levels unpublished,
    /// `progress` where each partition is begun.
    pub(super) fn new(
        members: Vec<M>,
        take_over: TakeOver,
        in_flight: InFlight,
        progress: Arc<Progress>,
        level_changes: LevelChanges,
    ) -> Self {
        Self {
            members,
            ownership: Arc::clone(&take_over.ownership),
            take_over,
            in_flight,
            progress,
            level_changes,
            assigned: Vec::new(),
            reading: Vec::new(),
            left_out: Vec::new(),
            topics: HashMap::new(),
            programs: Programs::default(),
            leaving: false,
            said: None,
            lost: None,
        }
    }

    /// The memberships.
    pub(super) fn members(&self) -> &[M] {
        &self.members
    }

    /// Looks whether names still mean the topics that are read, and begins them again where one does not: what is read
    /// of a topic that was made anew must not be taken for the old one's. And whether Kafka knows a partition by now that
    /// was left out.
    pub(super) fn look_at_topics(&mut self, now: &[(String, Described)]) {
        for (name, described) in now {
            let changed = match (self.topics.get(name.as_str()), described) {
                (Some(Some(_)), Described::Absent) => true,
                (Some(Some(known)), Described::There { id: Some(id), .. }) => known != id,
                _ => false,
            };
            if changed {
                // Known again when it is begun again, if any of it is assigned.
                self.topics.remove(name.as_str());
                tracing::error!(topic = name, now = %described, "this topic was deleted or made anew while it was read");
                self.ownership.request_rewind();
            }
            let is_known = |at: &TopicPartition| {
                *at.topic == **name
                    && matches!(described, Described::There { partitions, .. } if at.partition < *partitions)
            };
            if self.left_out.iter().any(is_known) {
                tracing::info!(
                    topic = name,
                    "partitions that were left out are there: looking at all of them again"
                );
                self.ownership.request_rewind();
            }
        }
    }

    /// Whether partitions were lost within this time.
    pub(super) fn lost_within(&self, time: Duration) -> bool {
        self.lost.is_some_and(|at| at.elapsed() <= time)
    }

    /// Begins no partition any more: the memberships leave the group. What is held, or stopped where it stands, is for
    /// who takes it over to look at again, be it another pipeline of this process, which must not find it left out.
    pub(super) fn leave(&mut self, process_stops: bool) {
        self.leaving = true;
        // What was stopped at the end of this process is for its exit status to say.
        if !process_stops {
            self.assigned.iter().for_each(|at| self.ownership.stopped().resume(at));
        }
    }

    /// Takes a record in: the slice it belongs to. `None` when its partition is not being read, or was begun elsewhere since
    /// it was fetched; or when the record was taken in already.
    ///
    /// librdkafka can give one a second time: when the group rebalances, its own thread pauses what the member has, and notes
    /// where to go on. If a poll has taken a record then and not noted it yet, that record comes again after the rebalance
    /// (`rd_kafka_assignment_pause` and `rd_kafka_fetch_op_app_prepare` of 2.12).
    pub(super) fn admit(&mut self, fetched: &FetchedRecord) -> Option<Slice> {
        let source = &fetched.record.source;
        // The number first: comparing texts for each record would be work for nothing.
        let is_of = |reading: &&mut ReadPartition| {
            reading.at.partition == source.at.partition && reading.at.topic == source.at.topic
        };
        let reading = self.reading.iter_mut().find(is_of)?;
        if fetched.epoch < reading.epoch {
            return None;
        }
        if reading.next.covers(source.offset) {
            tracing::debug!(partition = %source.at, offset = %source.offset, "a record came again");
            return None;
        }
        let slice = Slice {
            at: reading.at.clone(),
            generation: reading.generation,
            expected: reading.expected,
            next: source.offset.next(),
        };
        reading.next = slice.next;
        reading.expected = reading.expected.max(slice.next);
        Some(slice)
    }

    /// Which programs read the records of what is assigned.
    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Reads a partition no further than to this record, which its mapping takes too long for. What was read before goes
    /// on, and after a rewind or on another instance the record is tried again: a machine may have been busy.
    pub(super) fn stop_before(&mut self, record: &Source) {
        let mapping = self.programs.reading(record).map_or("", Mapping::name);
        tracing::error!(
            partition = %record.at, offset = %record.offset, mapping,
            "stopped before this record: {}. Give a mapping that does not (`stock-verifier mapping test` shows what it does \
             to a record), then start again",
            MapError::TooSlow
        );
        self.reading.retain(|reading| reading.at != record.at);
        self.ownership
            .stopped()
            .stop_for_now(&record.at, format!("offset {}: {}", record.offset, MapError::TooSlow));
    }

    /// Takes over what the group gives to a membership, each partition from its own offset.
    pub(super) async fn assigned(&mut self, number: usize, assigned: Assigned) -> Result<(), Failure> {
        let member = self.members[number].clone();
        let kept = self.reading.iter().any(|reading| member.may_own(&reading.at));
        self.assigned.extend(assigned.partitions.iter().cloned());
        // When leaving, none is begun: the group's coordinator answers who leaves no more, so it would wait in vain.
        if self.leaving {
            return Ok(());
        }
        // Dropped on a failure: they are assigned all the same and not read, since librdkafka cannot close in mid-rebalance.
        match self.take_over.take_over(&member, &assigned.partitions).await {
            Ok(taken) => {
                let from = taken.start_offsets();
                self.topics.extend(taken.topics);
                self.programs.extend(taken.programs);
                self.left_out.extend(taken.left_out);
                for begun in taken.begun {
                    self.own(begun, assigned.epoch);
                }
                if !kept {
                    member.set_taken_as(taken.taken_as);
                } else if !member.was_taken_as(&taken.taken_as) {
                    // What it kept was taken over as the member that it was.
                    self.ownership.request_rewind();
                }
                self.level_changes.mark_all();
                assigned.read(from);
                Ok(())
            }
            Err(error) => self.postpone(error),
        }
    }

    /// Hands over what the group takes away: what is under way of it is published first, unless it is lost already.
    pub(super) async fn revoked(&mut self, revoked: Revoked) {
        if revoked.are_lost {
            tracing::warn!("partitions were lost: this member was silent for too long");
            self.lost = Some(Instant::now());
        } else if tokio::time::timeout(HANDOVER_LIMIT, self.in_flight.wait_until_idle()).await.is_err() {
            tracing::warn!(
                "batches are still under way after {HANDOVER_LIMIT:?}; their results are published by the next owner"
            );
        }
        for at in &revoked.partitions {
            self.ownership.end(at);
            self.assigned.retain(|assigned| assigned != at);
            self.reading.retain(|reading| reading.at != *at);
            self.left_out.retain(|left_out| left_out != at);
            // While leaving, that is done already where it is to be.
            if !self.leaving {
                self.ownership.stopped().resume(at);
            }
            tracing::info!(partition = %at, "handed over");
        }
    }

    /// Reads every assigned partition of all memberships again from its committed offset. Nothing may be under way.
    pub(super) async fn rewind(&mut self) -> Result<(), Failure> {
        self.ownership.begin_rewind();
        for number in 0..self.members.len() {
            if let Err(error) = self.begin_again(number).await {
                return self.postpone(error);
            }
        }
        Ok(())
    }

    async fn begin_again(&mut self, number: usize) -> Result<(), Failure> {
        let member = self.members[number].clone();
        let assigned: Vec<_> = self.assigned.iter().filter(|at| member.may_own(at)).cloned().collect();
        let ended = self.reading.extract_if(.., |reading| member.may_own(&reading.at));
        // Still this pipeline's, should they not be begun: what of them is not published is for it to say.
        ended.for_each(|reading| self.ownership.suspend(&reading.at));
        self.left_out.retain(|at| !member.may_own(at));
        if assigned.is_empty() {
            return Ok(());
        }
        let taken = self.take_over.take_over(&member, &assigned).await?;
        let from = taken.start_offsets();
        member.set_taken_as(taken.taken_as);
        let epoch = member.read_only(from).await?;
        self.topics.extend(taken.topics);
        self.programs.extend(taken.programs);
        self.left_out.extend(taken.left_out);
        for at in &assigned {
            self.ownership.end(at);
        }
        for begun in taken.begun {
            self.own(begun, epoch);
        }
        Ok(())
    }

    /// What could not be taken over because Kafka or the database is away is taken over later; a refusal is for good.
    fn postpone(&mut self, error: Failure) -> Result<(), Failure> {
        if !error.may_pass() {
            return Err(error);
        }
        if self.said.is_none_or(|at| at.elapsed() >= POSTPONED_SAY) {
            tracing::warn!("partitions cannot be taken over yet: {}", causes::of(&error));
            self.said = Some(Instant::now());
        }
        self.ownership.request_rewind();
        Ok(())
    }

    /// Owns a partition from here on.
    fn own(&mut self, begun: Begun, epoch: u64) {
        let Begun { at, start, known, topic_id } = begun;
        let lost = known.ledger.is_some_and(|ledger| ledger != start.ledger) || start.from < known.low;
        if lost || known.replaced {
            tracing::warn!(partition = %at, from = %start.from, before = %known, "going on after accepted data loss");
        } else if known.committed.is_none() && start.from < start.ledger {
            tracing::warn!(
                partition = %at, from = %start.from, ledger = %start.ledger,
                "the group's committed offset is gone: what was decided from here on is republished, with the same ids, \
                 since some of it may never have been published"
            );
        } else {
            tracing::info!(partition = %at, from = %start.from, ledger = %start.ledger, "reading");
        }
        let known = Known { topic_id, applied: start.ledger, published: start.from };
        self.progress.begin(&at, known);
        let generation = self.ownership.begin(&at);
        let (next, expected) = (start.from, start.ledger);
        self.reading.push(ReadPartition { at, generation, epoch, next, expected });
    }
}
