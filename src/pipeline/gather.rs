//! Kafka to batches.
//!
//! One thread polls, because librdkafka wants to be polled by one thread
//! and because asynchronous wake-ups have stalled silently (rust-rdkafka#665,
//! #840). Records are parsed to owned values at once: a borrowed message pins
//! the whole fetch it came in.

use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use tokio::sync::{Semaphore, TryAcquireError, mpsc};
use tokio_util::sync::CancellationToken;

use super::batch::{Bounds, Gathering, ReadBatch, ReadRecord};
use super::{Assignment, Membership, Sharing};
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::event::read_command;
use crate::kafka::consumer::{Consumer, ConsumerError, Polled, Rebalance};

/// The time between two looks for adjustments while there are none. One thread polls both topics and sleeps in the
/// orders' poll, so it is also the longest that the first adjustment waits; under load a look costs less than reading a
/// record, and at rest a hundred of them a second cost nothing to speak of.
const ADJUSTMENTS_LOOK: Duration = Duration::from_millis(10);
/// Longest sleep in one poll: how soon a stop or a rewind is seen when no record comes.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Longest wait for room in the next stage without polling; then the partitions are paused and polling goes on,
/// so that the group does not take this member for dead. Pausing throws prefetched records away, so not at once.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// The time between two rewinds. What cannot be taken over now is tried again; the member polls meanwhile, or the group
/// could not give its partitions to another.
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
/// The polling end of a pipeline.
pub struct Intake {
    /// The orders', or both topics'.
    orders: Arc<Consumer>,
    /// The adjustments', when they are a membership of their own.
    adjustments: Option<Arc<Consumer>>,
    /// When to look for adjustments next.
    adjustments_due: Instant,
    assignment: Arc<Assignment>,
    gathering: Gathering,
}

impl Intake {
    /// Joins the group. Partitions are assigned while [`Intake::run`] polls.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn join(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        worker: usize,
        sharing: Sharing,
        bounds: Bounds,
        assignment: Assignment,
    ) -> Result<Self> {
        let assignment = Arc::new(assignment);
        let mut members = Vec::new();
        for role in sharing.roles() {
            let rebalance: Arc<dyn Rebalance> = Arc::<Assignment>::clone(&assignment);
            members.push(Arc::new(Consumer::new(kafka, group, topics, worker, *role, rebalance)?));
        }
        // Right after one another, so that the group has to look at its members once.
        members.iter().try_for_each(|member| member.subscribe())?;
        let mut members = members.into_iter();
        Ok(Self {
            // Holds because there is no sharing without a member.
            orders: members.next().expect("a member"),
            adjustments: members.next(),
            adjustments_due: Instant::now(),
            assignment,
            gathering: Gathering::new(bounds),
        })
    }

    /// How the publishing end learns which members of the group speak.
    #[must_use]
    pub fn membership(&self) -> Membership {
        let members = iter::once(&self.orders).chain(&self.adjustments).map(Arc::clone).collect();
        Membership::new(members, Arc::clone(&self.assignment))
    }

    fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        iter::once(&*self.orders).chain(self.adjustments.as_deref())
    }

    /// Polls until stopped, handing over a batch at each of the `permits` that the next stage gives; then hands over
    /// what it gathered, waits until it is published, and leaves the group.
    ///
    /// Blocks: runs on a thread of its own.
    ///
    /// # Errors
    /// When Kafka refuses the member for good, or a partition may not be taken over (see [`super::recovery`]).
    pub fn run(
        mut self,
        batches: mpsc::Sender<ReadBatch>,
        permits: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<()> {
        let gathered = self.gather(&batches, permits, stop);
        if gathered.is_err() {
            // What may not be read may not be decided either.
            self.gathering.clear();
        }
        // After a failure too: a member that is closed while it is given partitions would begin them, and ask a coordinator
        // that answers it no more.
        let left = self.leave(batches);
        gathered.and(left)
    }

    /// Polls until stopped, or until the next stage has ended.
    fn gather(
        &mut self,
        batches: &mpsc::Sender<ReadBatch>,
        permits: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<()> {
        let assignment = Arc::clone(&self.assignment);
        let mut waiting_since: Option<Instant> = None;
        let mut paused = false;
        let mut rewind_after = Instant::now();
        while !stop.is_cancelled() {
            assignment.take_failure()?;
            if assignment.rewind_is_due() {
                self.gathering.clear();
                if Instant::now() >= rewind_after && assignment.is_idle() {
                    assignment.rewind(self.consumers())?;
                    rewind_after = Instant::now() + REWIND_PAUSE;
                }
                // Not done, or not possible yet: the group must not take this member for dead meanwhile.
                if assignment.rewind_is_due() {
                    self.poll(POLL_MAX)?;
                }
                continue;
            }
            let remaining_wait = self.gathering.remaining_wait(Instant::now());
            if remaining_wait == Some(Duration::ZERO) {
                match permits.try_acquire() {
                    Ok(permit) => {
                        permit.forget();
                        if batches.blocking_send(self.gathering.take(assignment.enter())).is_err() {
                            break;
                        }
                        waiting_since = None;
                        if std::mem::take(&mut paused) {
                            self.consumers().try_for_each(|consumer| assignment.resume(consumer.member()))?;
                        }
                        continue;
                    }
                    Err(TryAcquireError::Closed) => break,
                    Err(TryAcquireError::NoPermits) if self.gathering.is_full() => {
                        let since = *waiting_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < PAUSE_AFTER {
                            assignment.wait_for_permit(permits, PAUSE_AFTER);
                            continue;
                        }
                        // Again each time round: a partition assigned meanwhile is not paused yet.
                        for consumer in self.consumers() {
                            consumer.member().pause(&consumer.member().assigned()?)?;
                        }
                        paused = true;
                    }
                    // Old enough but not full: grow while the next stage is busy.
                    Err(TryAcquireError::NoPermits) => {}
                }
            }
            let wait = match remaining_wait {
                None => POLL_MAX,
                Some(Duration::ZERO) => Duration::from_millis(1),
                Some(remaining_wait) => remaining_wait.min(POLL_MAX),
            };
            self.poll(wait)?;
        }
        Ok(())
    }

    /// Takes in a record of each membership, if there is one. Sleeps for the orders' only, at most until it is time to
    /// look for adjustments.
    fn poll(&mut self, mut wait: Duration) -> Result<()> {
        if let Some(adjustments) = &self.adjustments {
            let now = Instant::now();
            if now >= self.adjustments_due {
                let adjustments = Arc::clone(adjustments);
                if !self.poll_one(&adjustments, Duration::ZERO)? {
                    self.adjustments_due = now + ADJUSTMENTS_LOOK;
                }
            }
            wait = wait.min(self.adjustments_due.saturating_duration_since(now));
        }
        let orders = Arc::clone(&self.orders);
        self.poll_one(&orders, wait)?;
        Ok(())
    }

    /// Takes in a record of one membership; `false` when there is none.
    fn poll_one(&mut self, consumer: &Consumer, wait: Duration) -> Result<bool> {
        let polled = consumer.poll(wait);
        let assignment = &self.assignment;
        if assignment.take_changed() {
            self.gathering.drop_ended(&assignment.ownership);
        }
        match polled {
            Polled::Nothing => Ok(false),
            Polled::Record(message) => {
                if let Some((slice, source)) =
                    assignment.admit(message.topic(), message.partition(), message.offset())
                {
                    let (record, bytes) = message.own(source);
                    let command = read_command(&record);
                    // Below the ledger's position it may be decided already, by a version that did not look at keys.
                    let is_new = !slice.expected.covers(record.source.offset);
                    let command = if is_new { record.check_key().and(command) } else { command };
                    self.gathering.push(ReadRecord { record, command }, bytes, slice, Instant::now());
                }
                Ok(true)
            }
            Polled::Failed(error) => self.handle_error(consumer, error).map(|()| true),
        }
    }

    /// What to do about an error that is not about one record.
    fn handle_error(&self, consumer: &Consumer, error: ConsumerError) -> Result<()> {
        let topics = |and: &str| consumer.member().topics().join(and);
        match error {
            ConsumerError::OutOfRange(error) => {
                tracing::warn!(%error, "a position is outside its partition; looking at all of them again");
                self.assignment.request_rewind();
                Ok(())
            }
            ConsumerError::UnknownTopic(_) => bail!(
                "topic {} does not exist: create it with `stock-verifier topics create`, or name another with \
                 --orders-topic or --adjustments-topic",
                topics(" or ")
            ),
            ConsumerError::NotPermitted(error) => {
                bail!("Kafka does not allow this user to read {} in this group: {error}", topics(" or "))
            }
            ConsumerError::Fenced(_) if self.assignment.lost_within(FENCED_BY_ITSELF) => {
                Err(FencedByItself.into())
            }
            ConsumerError::Fenced(_) => Err(anyhow!(
                "another instance reads {} under this instance's id now: if it is not this one's successor, give each \
                 instance its own --instance-id (or group.instance.id, where it is set with -X)",
                topics(" and ")
            )),
            ConsumerError::Unreleased(_) => Err(anyhow!(
                "the group still has a member under this group.instance.id, which was killed or runs elsewhere: with \
                 --group-protocol consumer Kafka refuses a successor until that member's session has ended. Start again \
                 then, or set no group.instance.id"
            )),
            ConsumerError::Fatal(why) => bail!("Kafka refused this group member for good: {why}"),
            ConsumerError::Passing(error) => {
                tracing::warn!(%error, "Kafka consumer");
                Ok(())
            }
        }
    }

    fn leave(mut self, batches: mpsc::Sender<ReadBatch>) -> Result<()> {
        let assignment = Arc::clone(&self.assignment);
        self.gathering.drop_ended(&assignment.ownership);
        if !self.gathering.is_empty() {
            // The stages may have ended already; then the records are read again by whoever comes next.
            let _ = batches.blocking_send(self.gathering.take(assignment.enter()));
        }
        drop(batches);
        if !assignment.wait_until_idle(STOP_DRAIN) {
            tracing::warn!("batches are still under way after {STOP_DRAIN:?}; leaving all the same");
        }
        assignment.leave();
        let deadline = Instant::now() + LEAVE_LIMIT;
        let is_static = self.consumers().any(Consumer::is_static);
        if is_static {
            // Who has not joined yet does not know what the group calls it, and cannot leave.
            self.serve_until(deadline, |consumer| consumer.member().is_settled());
        }
        self.consumers().for_each(Consumer::unsubscribe);
        if is_static && !self.serve_until(deadline, Consumer::has_left) {
            tracing::warn!(
                "the group has not let go of this instance after {LEAVE_LIMIT:?}; its partitions are free when its \
                 session ends (session.timeout.ms)"
            );
        }
        Ok(assignment.take_failure()?)
    }

    /// Serves both memberships until it is so of each; `false` when that takes too long or cannot be any more.
    fn serve_until(&self, deadline: Instant, is_so: impl Fn(&Consumer) -> bool) -> bool {
        self.consumers().all(|consumer| {
            loop {
                // Both: one's rebalance waits for the other. What comes is not for this instance any more.
                for each in self.consumers() {
                    let _ = each.poll(LEAVE_LOOK / 2);
                }
                if is_so(consumer) {
                    return true;
                }
                if Instant::now() > deadline || consumer.is_dead() {
                    return false;
                }
            }
        })
    }
}

/// A static member was silent past its session and joined again, and librdkafka took the answer to a question under its
/// old name for another instance's doing. Its successor, made by the same process, goes on.
#[derive(Debug, thiserror::Error)]
#[error("this member was silent for too long and is fenced by its own successor in the group")]
pub struct FencedByItself;
