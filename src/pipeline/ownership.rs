//! Which partitions a pipeline owns, and what of it is still under way.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::TopicPartition;

/// One stretch of owning a partition. A partition that is lost, or read again
/// from an earlier offset, gets a new one; what was read under the old one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// The partitions a pipeline owns now.
#[derive(Debug, Default)]
pub struct Ownership {
    owned: Mutex<Owned>,
}

#[derive(Debug, Default)]
struct Owned {
    generations: HashMap<TopicPartition, Generation>,
    last: u64,
}

impl Ownership {
    fn lock(&self) -> MutexGuard<'_, Owned> {
        // Every change is one insert or remove: a panic elsewhere leaves nothing half done.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new generation of a partition.
    pub fn begin(&self, at: &TopicPartition) -> Generation {
        let mut owned = self.lock();
        owned.last += 1;
        let generation = Generation(owned.last);
        owned.generations.insert(at.clone(), generation);
        generation
    }

    /// Ends a partition's generation: what was read under it is dropped.
    pub fn end(&self, at: &TopicPartition) {
        self.lock().generations.remove(at);
    }

    /// Ends every generation.
    pub fn end_all(&self) {
        self.lock().generations.clear();
    }

    /// Whether what was read under a generation still counts.
    pub fn is_current(&self, at: &TopicPartition, generation: Generation) -> bool {
        self.lock().generations.get(at) == Some(&generation)
    }
}

/// Counts the batches between the intake and their publishing.
#[derive(Debug, Default)]
pub struct InFlight {
    batches: Mutex<usize>,
    idle: Condvar,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more batch until its ticket is dropped.
    pub fn enter(self: &Arc<Self>) -> Ticket {
        *self.lock() += 1;
        Ticket(Arc::clone(self))
    }

    /// Waits until no batch is under way; `false` when that takes longer than `limit`.
    pub fn wait_until_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut batches = self.lock();
        while *batches > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            batches = self.idle.wait_timeout(batches, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A batch under way. Dropping it, wherever the batch ends, counts it out.
#[derive(Debug)]
pub struct Ticket(Arc<InFlight>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut batches = self.0.lock();
        *batches -= 1;
        if *batches == 0 {
            self.0.idle.notify_all();
        }
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
    fn idle_is_when_the_last_ticket_is_dropped() {
        let in_flight = Arc::new(InFlight::default());
        let ticket = in_flight.enter();
        assert!(!in_flight.wait_until_idle(Duration::ZERO));
        let waiting = std::thread::spawn({
            let in_flight = Arc::clone(&in_flight);
            move || in_flight.wait_until_idle(Duration::from_secs(10))
        });
        drop(ticket);
        assert!(waiting.join().unwrap());
    }
}
