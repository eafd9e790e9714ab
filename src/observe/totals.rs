//! What a verifier did, counted for people: in the log, and by the demo.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::lag::now_ms;
use crate::pipeline::{EndedRecord, RecordEnd};

/// Longest latency kept apart, in milliseconds; a longer one counts as this long. An hour of backlog is a backlog.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// Counts since the start.
#[derive(Debug, Default, Clone, Copy)]
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
    /// Records that their mapping gave nothing for.
    pub ignored: u64,
}

impl Tally {
    fn count(&mut self, end: RecordEnd) {
        match end {
            RecordEnd::Accepted => self.accepted += 1,
            RecordEnd::Rejected => self.rejected += 1,
            RecordEnd::Republished => self.republished += 1,
            RecordEnd::DeadLetter(_) => self.dead_letters += 1,
            RecordEnd::Absorbed => self.absorbed += 1,
            RecordEnd::Ignored => self.ignored += 1,
        }
    }

    /// Records counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.accepted + self.rejected + self.republished + self.dead_letters + self.absorbed + self.ignored
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

    /// Adds records that were published just now.
    pub(super) fn add(&self, ended: &[EndedRecord]) {
        let now_ms = now_ms();
        let mut inner = self.lock();
        let (total, latency) = &mut *inner;
        for record in ended {
            total.count(record.end);
            if let Some(produced_ms) = record.produced_ms {
                latency.saturating_record(u64::try_from(now_ms - produced_ms).unwrap_or(0));
            }
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        self.lock().0
    }

    /// The latency from produced to published at a quantile (0 to 1). Clocks of producer and verifier compare only
    /// where they are the same or in step.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_millis(self.lock().1.value_at_quantile(quantile))
    }
}
