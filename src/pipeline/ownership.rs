//! Which partitions a pipeline owns, and what of it is still under way: what the gathering stage decides, and the other
//! stages ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::ledger::TopicPartition;

/// One stretch of owning a partition. A partition that is lost, or read again
/// from an earlier offset, gets a new one; what was read under the old one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// The partitions a pipeline owns now.
#[derive(Debug, Default)]
pub struct Ownership {
    owned: Mutex<Owned>,
    rewind: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    /// Of each partition that is owned; `None` while it waits to be read again.
    generations: HashMap<TopicPartition, Option<Generation>>,
    last: u64,
    /// Partitions that are read no further in this process: a result or dead letter of theirs cannot be published.
    stopped: HashSet<TopicPartition>,
    /// Partitions that were refused once when they were taken over: going on could lose or repeat a result.
    refused: HashSet<TopicPartition>,
    rewind_is_due: bool,
}

impl Ownership {
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

    /// Reads a partition no further as long as this process lives, wherever the group moves it; the others go on from
    /// their committed offsets.
    pub fn stop(&self, at: &TopicPartition) {
        self.lock().stopped.insert(at.clone());
        self.request_rewind();
    }

    /// Notes that a partition may not be taken over; whether that is new.
    pub fn refuse(&self, at: &TopicPartition) -> bool {
        self.lock().refused.insert(at.clone())
    }

    /// Whether a partition is read no further.
    #[must_use]
    pub fn is_stopped(&self, at: &TopicPartition) -> bool {
        self.lock().stopped.contains(at)
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
        ownership.end(&at);
        assert!(!ownership.is_owned(&at));
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
