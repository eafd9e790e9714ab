//! What a verifier did, counted for people: in the log, and by the demo.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

/// Longest latency kept apart, in milliseconds; a longer one counts as this long. An hour of backlog is a backlog.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordEnd {
    /// An accept event.
    Accepted,
    /// A reject event.
    Rejected,
    /// A result republished after a crash.
    Again,
    /// A dead letter.
    DeadLetter,
    /// Nothing: a repetition.
    Absorbed,
}

/// Counts since the start, or of one batch.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Accept events published.
    pub accepted: u64,
    /// Reject events published.
    pub rejected: u64,
    /// Results republished from the ledger.
    pub republished: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Repetitions absorbed.
    pub absorbed: u64,
    /// Partitions that stopped, since something of theirs cannot be published or they may not be read on.
    pub stuck: u64,
    produced_ms: Vec<i64>,
}

impl Tally {
    /// Counts one record, produced at this time (milliseconds since 1970).
    pub fn count(&mut self, published: RecordEnd, produced_ms: Option<i64>) {
        match published {
            RecordEnd::Accepted => self.accepted += 1,
            RecordEnd::Rejected => self.rejected += 1,
            RecordEnd::Again => self.republished += 1,
            RecordEnd::DeadLetter => self.dead_letters += 1,
            RecordEnd::Absorbed => self.absorbed += 1,
        }
        self.produced_ms.extend(produced_ms);
    }

    /// Records counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.accepted + self.rejected + self.republished + self.dead_letters + self.absorbed
    }
}

/// The running counts of a process, over all its workers.
#[derive(Debug)]
pub struct Totals {
    inner: Mutex<(Tally, Histogram<u64>)>,
}

impl Default for Totals {
    fn default() -> Self {
        // Holds because the bounds are constants the library accepts: 1 < LATENCY_MAX_MS, 3 digits.
        let latency = Histogram::new_with_max(LATENCY_MAX_MS, 3).expect("valid histogram bounds");
        Self { inner: Mutex::new((Tally::default(), latency)) }
    }
}

impl Totals {
    fn lock(&self) -> MutexGuard<'_, (Tally, Histogram<u64>)> {
        // Sums only: a panic between two of them leaves a count short, nothing worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch that was published just now.
    pub fn add(&self, batch: &Tally) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let mut inner = self.lock();
        let (total, latency) = &mut *inner;
        total.accepted += batch.accepted;
        total.rejected += batch.rejected;
        total.republished += batch.republished;
        total.dead_letters += batch.dead_letters;
        total.absorbed += batch.absorbed;
        for produced_ms in &batch.produced_ms {
            latency.saturating_record(u64::try_from(now_ms - produced_ms).unwrap_or(0));
        }
    }

    /// Counts a partition whose results cannot be published any further.
    pub fn add_stuck(&self) {
        self.lock().0.stuck += 1;
    }

    /// The counts so far.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        self.lock().0.clone()
    }

    /// The latency from produced to published at a quantile (0 to 1). Clocks of producer and verifier compare only
    /// where they are the same or in step.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_millis(self.lock().1.value_at_quantile(quantile))
    }
}
