//! Which partitions a pipeline owns, and what of it is still under way: what the gathering stage decides, and the other
//! stages ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::ledger::TopicPartition;

/// A range of a partition that is owned, and read without a break. A partition that is lost, or read again
/// from an earlier offset, gets a new one; what was read under the old one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// The partitions that a process reads no further until a person has looked, of all its pipelines. All clones are one
/// list, as long as the topics have partitions at most.
#[derive(Debug, Clone, Default)]
pub struct StoppedPartitions(Arc<Mutex<HashMap<TopicPartition, Stopped>>>);

/// A partition that is read no further.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// Why, and what an operator can do.
    pub why: String,
    /// Since when, by this machine's clock.
    pub since: SystemTime,
    until: Until,
}

/// How long a partition is stopped. What lasts longer comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    /// Until it can be read where it stands, which each look at it may find.
    ReadAgain,
    /// Until what holds it releases it: no look at it changes that.
    Released,
    /// As long as this process lives, wherever the group moves it.
    Never,
}

impl StoppedPartitions {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Stopped>> {
        // Each change is one insert or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, at: &TopicPartition, why: String, until: Until) {
        let mut all = self.lock();
        match all.get_mut(at) {
            Some(known) => (known.why, known.until) = (why, until.max(known.until)),
            None => drop(all.insert(at.clone(), Stopped { why, since: SystemTime::now(), until })),
        }
    }

    /// A partition is not read where it stands now. Where that changes it is read again: [`StoppedPartitions::resume`].
    pub(super) fn stop_for_now(&self, at: &TopicPartition, why: String) {
        self.insert(at, why, Until::ReadAgain);
    }

    /// A partition is read again, or is another's: unless it was stopped for good.
    pub(super) fn resume(&self, at: &TopicPartition) {
        let mut all = self.lock();
        if all.get(at).is_some_and(|stopped| stopped.until < Until::Never) {
            all.remove(at);
        }
    }

    fn is_left_out(&self, at: &TopicPartition) -> bool {
        self.lock().get(at).is_some_and(|stopped| stopped.until > Until::ReadAgain)
    }

    /// All of them, sorted.
    #[must_use]
    pub fn all(&self) -> Vec<(TopicPartition, Stopped)> {
        let mut all: Vec<_> = self.lock().iter().map(|(at, stopped)| (at.clone(), stopped.clone())).collect();
        all.sort_unstable_by(|(one, _), (other, _)| {
            (&one.topic, one.partition).cmp(&(&other.topic, other.partition))
        });
        all
    }
}

/// The partitions a pipeline owns now.
#[derive(Debug, Default)]
pub struct Ownership {
    owned: Mutex<Owned>,
    stopped: StoppedPartitions,
    rewind: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    /// Of each partition that is owned; `None` while it waits to be read again.
    generations: HashMap<TopicPartition, Option<Generation>>,
    last: u64,
    rewind_is_due: bool,
}

impl Ownership {
    /// Nothing is owned yet. What is stopped is noted in this list.
    #[must_use]
    pub fn new(stopped: StoppedPartitions) -> Self {
        Self { stopped, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        // What is changed together is changed by calls that do not panic: a panic elsewhere leaves nothing half done.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new generation of a partition.
    pub fn begin(&self, at: &TopicPartition) -> Generation {
        let mut owned = self.lock();
        owned.last += 1;
        let generation = Generation(owned.last);
        owned.generations.insert(at.clone(), Some(generation));
        generation
    }

    /// Ends a partition's generation: what was read under it is dropped.
    pub fn end(&self, at: &TopicPartition) {
        self.lock().generations.remove(at);
    }

    /// Ends a partition's generation, and keeps the partition: it waits to be read again.
    pub fn suspend(&self, at: &TopicPartition) {
        self.lock().generations.insert(at.clone(), None);
    }

    /// Whether what was read under a generation still counts.
    #[must_use]
    pub fn is_current(&self, at: &TopicPartition, generation: Generation) -> bool {
        self.lock().generations.get(at) == Some(&Some(generation))
    }

    /// Whether a partition is this pipeline's, be it that it waits to be read again.
    #[must_use]
    pub fn is_owned(&self, at: &TopicPartition) -> bool {
        self.lock().generations.contains_key(at)
    }

    /// Asks the gathering stage to read every partition again from its committed offset.
    ///
    /// What was read so far is dropped; what the ledger decided of it is published from there.
    pub fn request_rewind(&self) {
        let mut owned = self.lock();
        owned.generations.values_mut().for_each(|generation| *generation = None);
        owned.rewind_is_due = true;
        self.rewind.notify_one();
    }

    /// Whether that was asked for, and not begun yet.
    #[must_use]
    pub fn rewind_is_due(&self) -> bool {
        self.lock().rewind_is_due
    }

    /// Waits until it is asked for, if it is not yet.
    pub async fn rewind_requested(&self) {
        while !self.rewind_is_due() {
            self.rewind.notified().await;
        }
    }

    /// It is begun: from here on it can be asked for again.
    pub fn begin_rewind(&self) {
        self.lock().rewind_is_due = false;
    }

    /// Reads a partition no further as long as this process lives, wherever the group moves it: a result or dead letter
    /// of it cannot be published. The others go on from their committed offsets.
    pub fn stop(&self, at: &TopicPartition, why: String) {
        self.stopped.insert(at, why, Until::Never);
        self.request_rewind();
    }

    /// Takes a partition over no more until it is released: its next record needs what is not there now. What of it is under
    /// way goes on.
    pub fn hold(&self, at: &TopicPartition, why: String) {
        self.stopped.insert(at, why, Until::Released);
    }

    /// Reads a partition again that was held.
    pub fn release(&self, at: &TopicPartition) {
        self.stopped.resume(at);
        self.request_rewind();
    }

    /// Whether a partition is read no further, wherever it stands.
    #[must_use]
    pub fn is_stopped(&self, at: &TopicPartition) -> bool {
        self.stopped.is_left_out(at)
    }

    /// The list of what is stopped.
    #[must_use]
    pub fn stopped(&self) -> &StoppedPartitions {
        &self.stopped
    }
}

/// Counts the batches between the gathering stage and their publishing.
#[derive(Debug, Clone)]
pub struct InFlight(TaskTracker);

/// A batch under way. Dropping it, wherever the batch ends, counts it out.
pub type Ticket = TaskTrackerToken;

impl Default for InFlight {
    fn default() -> Self {
        let batches = TaskTracker::new();
        // Closed, it can be waited for; it counts all the same.
        batches.close();
        Self(batches)
    }
}

impl InFlight {
    /// Counts one more batch until its ticket is dropped.
    pub fn enter(&self) -> Ticket {
        self.0.token()
    }

    /// Whether no batch is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until no batch is under way.
    pub async fn wait_until_idle(&self) {
        self.0.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_owned_again_is_another_generation() {
        let ownership = Ownership::default();
        let at = TopicPartition::new("orders", 3);
        let first = ownership.begin(&at);
        assert!(ownership.is_current(&at, first));
        ownership.end(&at);
        assert!(!ownership.is_current(&at, first));
        let second = ownership.begin(&at);
        assert!(!ownership.is_current(&at, first));
        assert!(ownership.is_current(&at, second));
    }

    #[test]
    fn a_rewind_ends_what_was_read_but_not_the_owning() {
        let ownership = Ownership::default();
        let at = TopicPartition::new("orders", 3);
        let first = ownership.begin(&at);
        ownership.request_rewind();
        assert!(!ownership.is_current(&at, first));
        assert!(ownership.is_owned(&at) && ownership.rewind_is_due());
        ownership.begin_rewind();
        let second = ownership.begin(&at);
        assert!(ownership.is_current(&at, second) && !ownership.rewind_is_due());
        ownership.suspend(&at);
        assert!(ownership.is_owned(&at) && !ownership.is_current(&at, second));
        ownership.end(&at);
        assert!(!ownership.is_owned(&at));
    }

    #[test]
    fn a_partition_that_is_held_is_left_out_until_it_is_released_and_one_that_is_stopped_for_ever() {
        let ownership = Ownership::default();
        let (held, stuck) = (TopicPartition::new("orders", 1), TopicPartition::new("orders", 2));
        let under_way = ownership.begin(&held);
        ownership.hold(&held, "no schema".to_owned());
        assert!(ownership.is_current(&held, under_way) && !ownership.rewind_is_due());
        ownership.stop(&stuck, "too large".to_owned());
        ownership.hold(&stuck, "no schema".to_owned());
        assert!(ownership.rewind_is_due() && ownership.is_stopped(&held) && ownership.is_stopped(&stuck));
        ownership.begin_rewind();
        ownership.release(&held);
        ownership.release(&stuck);
        assert!(ownership.rewind_is_due() && !ownership.is_stopped(&held) && ownership.is_stopped(&stuck));
    }

    #[tokio::test]
    async fn idle_is_when_the_last_ticket_is_dropped() {
        let in_flight = InFlight::default();
        in_flight.wait_until_idle().await;
        let tickets = (in_flight.enter(), in_flight.enter());
        drop(tickets.0);
        assert!(!in_flight.is_idle());
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.wait_until_idle().await }
        });
        drop(tickets.1);
        waiting.await.unwrap();
        assert!(in_flight.is_idle());
    }
}
