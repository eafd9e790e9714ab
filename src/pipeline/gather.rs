//! Records to batches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::TopicNews;
use super::assignment::Assignment;
use super::batch::{Batch, Bounds, Gathering, NoCommand, ReadRecord};
use super::decoding::Decoding;
use super::error::PipelineError;
use super::ownership::{InFlight, Ownership};
use super::ports::{GroupMember, RecordSource};
use crate::causes;
use crate::event::{Reading, read_record};
use crate::kafka::consumer::{ConsumerError, FetchedRecord, Incoming, Notice};

/// The time between two rewinds. What cannot be taken over now is tried again.
const REWIND_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for batches under way when stopping.
const STOP_DRAIN: Duration = Duration::from_secs(30);
/// How long after partitions were lost a fence may be a member's own: it joins again at once, and the last answer under
/// its old name comes within a request's time.
const FENCED_BY_ITSELF: Duration = Duration::from_secs(60);
/// Longest wait until the group has let go of static members that leave. Past it they have left when their session ends.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How often to ask whether it has.
const LEAVE_LOOK: Duration = Duration::from_millis(50);

/// The gathering stage.
pub(super) struct Gather<S: RecordSource> {
    source: S,
    assignment: Assignment<S::Member>,
    ownership: Arc<Ownership>,
    in_flight: InFlight,
    news: TopicNews,
    decoding: Decoding,
    gathering: Gathering,
    /// Records that a full batch has no room for.
    fetched: std::vec::IntoIter<FetchedRecord>,
    /// When partitions may be read again.
    rewind_after: Instant,
}

/// What is waited for while leaving.
#[derive(Clone, Copy)]
enum Until {
    /// The group knows the member.
    Settled,
    /// The group knows it no more.
    Left,
}

impl<S: RecordSource> Gather<S> {
    /// Nothing gathered yet.
    pub(super) fn new(
        source: S,
        assignment: Assignment<S::Member>,
        ownership: Arc<Ownership>,
        in_flight: InFlight,
        news: TopicNews,
        decoding: Decoding,
        bounds: Bounds,
    ) -> Self {
        Self {
            source,
            assignment,
            ownership,
            in_flight,
            news,
            decoding,
            gathering: Gathering::new(bounds),
            fetched: Vec::new().into_iter(),
            rewind_after: Instant::now(),
        }
    }

    /// Reads until stopped, handing over a batch at each of the `permits` that the next stage gives; then hands over
    /// what it gathered, waits until it is published, and leaves the group; a failure stops the other stages too. The
    /// source is given back, to be closed when nobody has its memberships any more.
    ///
    /// # Errors
    /// When Kafka refuses a member for good, or a partition may not be taken over (see [`super::recovery`]).
    pub(super) async fn run(
        mut self,
        batches: mpsc::Sender<Batch<ReadRecord>>,
        permits: Arc<Semaphore>,
        stop: CancellationToken,
        process_stop: CancellationToken,
    ) -> (Result<(), PipelineError>, S) {
        let gathered = self.gather(&batches, &permits, &stop).await;
        if let Err(error) = &gathered {
            // What may not be read may not be decided either.
            self.gathering.clear();
            // Said now: the other stages may take a while to end, and the pipeline ends after them.
            tracing::warn!("reading no further, and leaving the group: {}", causes::of(error));
            // Without it, a batch that waits for the database would be waited for, however long that is away.
            stop.cancel();
        }
        // After a failure too: a member that is closed while it is given partitions would be waited for.
        let left = self.leave(batches, process_stop.is_cancelled()).await;
        (gathered.and(left), self.source)
    }

    /// Gathers until stopped, or until the next stage has ended.
    async fn gather(
        &mut self,
        batches: &mpsc::Sender<Batch<ReadRecord>>,
        permits: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<(), PipelineError> {
        while !stop.is_cancelled() {
            if self.ownership.rewind_is_due() {
                self.rewind(stop).await?;
                continue;
            }
            self.take_in();
            let remaining_wait = self.gathering.remaining_wait(Instant::now());
            let is_due = remaining_wait == Some(Duration::ZERO);
            // A batch that is old enough but not full grows while the next stage is busy.
            let has_room = self.fetched.len() == 0 && !self.decoding.has_ready();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.ownership.rewind_requested() => {}
                permit = permits.acquire(), if is_due => {
                    // The next stage gives it back when it is free again.
                    let Ok(()) = permit.map(SemaphorePermit::forget) else { break };
                    let batch = self.gathering.take(self.in_flight.enter());
                    if batches.send(batch).await.is_err() {
                        break;
                    }
                }
                // Before the records: in a backlog some are always there. Neither keeps them waiting, since each answer comes
                // once, and seldom.
                said = self.news.changed() => self.assignment.look_at_topics(&said),
                answer = self.decoding.answer() => self.decoding.take(answer, &self.ownership),
                incoming = self.source.next(has_room) => self.handle(incoming).await?,
                () = sleep(remaining_wait.unwrap_or_default()), if remaining_wait.is_some() && !is_due => {}
            }
        }
        Ok(())
    }

    /// Reads all partitions again once nothing is under way, and not too soon after the last time. What comes meanwhile is
    /// dropped: it is read again.
    async fn rewind(&mut self, stop: &CancellationToken) -> Result<(), PipelineError> {
        self.gathering.clear();
        self.decoding.drop_records();
        self.fetched = Vec::new().into_iter();
        let (after, in_flight) = (self.rewind_after, self.in_flight.clone());
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            () = async { sleep_until(after).await; in_flight.wait_until_idle().await } => {
                self.assignment.rewind().await?;
                self.rewind_after = Instant::now() + REWIND_PAUSE;
                Ok(())
            }
            incoming = self.source.next(true) => self.handle(incoming).await,
        }
    }

    /// Handles what comes of the source.
    async fn handle(&mut self, incoming: Incoming) -> Result<(), PipelineError> {
        match incoming {
            Incoming::Records(_) if self.ownership.rewind_is_due() => {}
            Incoming::Records(records) => self.fetched = records.into_iter(),
            Incoming::Notice(number, Notice::Assigned(assigned)) => {
                self.assignment.assigned(number, assigned).await?;
                self.gathering.drop_ended(&self.ownership);
            }
            Incoming::Notice(_, Notice::Revoked(revoked)) => {
                self.decoding.drop_partitions(&revoked.partitions);
                self.assignment.revoked(revoked).await;
                self.gathering.drop_ended(&self.ownership);
            }
            Incoming::Notice(number, Notice::Failed(error)) => self.handle_error(number, error)?,
            Incoming::Notice(_, Notice::NotDone(error)) => return Err(error.into()),
            // For who measures the source.
            Incoming::Notice(_, Notice::LogEnds(_) | Notice::Paused) => {}
            Incoming::Ended => return Err(anyhow!("no records come any more").into()),
        }
        Ok(())
    }

    /// Reads records into the batch until it is full.
    fn take_in(&mut self) {
        let is_quick = self.fetched.len() == 0 || self.assignment.programs().are_none();
        if is_quick || Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.read_in();
        } else {
            // A mapping may take its time: the runtime's other tasks go on elsewhere meanwhile.
            block_in_place(|| self.read_in());
        }
    }

    fn read_in(&mut self) {
        while !self.gathering.is_full() {
            let Some(fetched) = self.decoding.next_ready().or_else(|| self.fetched.next()) else { return };
            let Some(fetched) = self.decoding.decode(fetched, &self.ownership) else { continue };
            let Some(slice) = self.assignment.admit(&fetched) else { continue };
            let FetchedRecord { record, bytes, .. } = fetched;
            let mapping = self.assignment.programs().reading(&record.source);
            let is_mapped = mapping.is_some();
            let command = match read_record(&record, mapping) {
                Reading::Command(command) => Ok(command),
                Reading::Faulty(fault) => Err(NoCommand::Faulty(fault)),
                Reading::Ignored => Err(NoCommand::Ignored),
                Reading::TooSlow => {
                    self.assignment.stop_before(&record.source);
                    continue;
                }
            };
            // Below the ledger's position it may be decided already, by a version that did not look at keys.
            let is_new = !slice.expected.covers(record.source.offset);
            let command = match record.check_key() {
                Err(fault) if is_new && !matches!(command, Err(NoCommand::Ignored)) => {
                    Err(NoCommand::Faulty(fault))
                }
                _ => command,
            };
            self.gathering.push(ReadRecord { record, command, is_mapped }, bytes, slice, Instant::now());
        }
    }

    /// What to do about an error that is not about one record.
    fn handle_error(&self, number: usize, error: ConsumerError) -> Result<(), PipelineError> {
        let topics = |and: &str| self.assignment.members()[number].topics().join(and);
        let failed = match error {
            ConsumerError::OutOfRange(error) => {
                tracing::warn!(%error, "a position is outside its partition; looking at all of them again");
                self.ownership.request_rewind();
                return Ok(());
            }
            ConsumerError::UnknownTopic(_) => anyhow!(
                "topic {} does not exist: create it with `stock-verifier topics create`, or name another with \
                 --orders-topic or --adjustments-topic",
                topics(" or ")
            ),
            ConsumerError::NotPermitted(error) => {
                anyhow!("Kafka does not allow this user to read {} in this group: {error}", topics(" or "))
            }
            ConsumerError::Fenced(_) if self.assignment.lost_within(FENCED_BY_ITSELF) => {
                return Err(PipelineError::FencedByItself);
            }
            ConsumerError::Fenced(_) => anyhow!(
                "another instance reads {} under this instance's id now: if it is not this one's successor, give each \
                 instance its own --instance-id (or group.instance.id, where it is set with -X)",
                topics(" and ")
            ),
            ConsumerError::Unreleased(_) => anyhow!(
                "the group still has a member under this group.instance.id, which was killed or runs elsewhere: with \
                 --group-protocol consumer Kafka refuses a successor until that member's session has ended. Start again \
                 then, or set no group.instance.id"
            ),
            ConsumerError::Fatal(why) => anyhow!("Kafka refused this group member for good: {why}"),
            ConsumerError::Passing(error) => {
                tracing::warn!(%error, "Kafka consumer");
                return Ok(());
            }
        };
        Err(failed.into())
    }

    /// Hands over what is gathered, waits until it is published, and leaves the group.
    async fn leave(
        &mut self,
        batches: mpsc::Sender<Batch<ReadRecord>>,
        process_stops: bool,
    ) -> Result<(), PipelineError> {
        self.gathering.drop_ended(&self.ownership);
        if !self.gathering.is_empty() {
            // The stages may have ended already; then the records are read again by whoever comes next.
            let _ = batches.send(self.gathering.take(self.in_flight.enter())).await;
        }
        drop(batches);
        if timeout(STOP_DRAIN, self.in_flight.wait_until_idle()).await.is_err() {
            tracing::warn!("batches are still under way after {STOP_DRAIN:?}; leaving all the same");
        }
        self.assignment.leave(process_stops);
        let deadline = Instant::now() + LEAVE_LIMIT;
        let is_static = self.assignment.members().iter().any(GroupMember::is_static);
        if is_static {
            // Who has not joined yet does not know what the group calls it, and cannot leave.
            self.serve(Until::Settled, deadline).await?;
        }
        self.assignment.members().iter().for_each(GroupMember::unsubscribe);
        if is_static && !self.serve(Until::Left, deadline).await? {
            tracing::warn!(
                "the group has not let go of this instance after {LEAVE_LIMIT:?}; its partitions are free when its \
                 session ends (session.timeout.ms)"
            );
        }
        Ok(())
    }

    /// Does what the group asks until it is so of all memberships; `false` when that takes too long or cannot be any more.
    async fn serve(&mut self, until: Until, deadline: Instant) -> Result<bool, PipelineError> {
        for number in 0..self.assignment.members().len() {
            loop {
                // One's rebalance waits for the other's. What comes else is not for this instance any more.
                match timeout(LEAVE_LOOK, self.source.next(false)).await {
                    Ok(Incoming::Notice(_, Notice::Failed(_)) | Incoming::Ended) | Err(_) => {}
                    Ok(incoming) => {
                        self.handle(incoming).await?;
                        continue;
                    }
                }
                let member = &self.assignment.members()[number];
                let is_so = match until {
                    Until::Settled => member.is_settled(),
                    Until::Left => member.has_left().await,
                };
                if is_so {
                    break;
                }
                if Instant::now() > deadline || member.is_dead() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
