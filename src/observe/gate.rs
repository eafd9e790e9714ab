//! What a gate does, measured.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process::ProcessCollector;
use crate::gate::cache::CacheStatus;
use crate::gate::{self, Observer};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EntryLabels {
    waits_for: &'static str,
}

/// What is measured of one gate. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct GateMetrics {
    answers: Family<AnswerLabels, Counter>,
    took: Histogram,
    entries: Family<EntryLabels, Gauge>,
    oldest: Gauge<f64, AtomicU64>,
    filled: Gauge,
    drift: Gauge,
    registry: Arc<Registry>,
}

impl Default for GateMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl GateMetrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("stock_verifier_build", "The version that runs", version);
        let (answers, entries) = (Family::default(), Family::default());
        // From half a millisecond to 16 seconds: Kafka may take five.
        let took = Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let (oldest, filled, drift) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "stock_verifier_gate_answers",
            "Orders at the door, by what they were answered",
            answers.clone(),
        );
        registry.register(
            "stock_verifier_gate_answer_seconds",
            "From an order read until it was answered, a wait for its verdict aside",
            took.clone(),
        );
        registry.register(
            "stock_verifier_gate_entries",
            "Entries that are open, of all gates of this Redis",
            entries.clone(),
        );
        registry.register(
            "stock_verifier_gate_oldest_entry_seconds",
            "How long the oldest of them is open",
            oldest.clone(),
        );
        registry.register(
            "stock_verifier_gate_cache_filled",
            "1 when the cache answers and is filled from the ledger",
            filled.clone(),
        );
        registry.register(
            "stock_verifier_gate_drift_pieces",
            "Pieces by which cached amounts differed from the ledger at rest, when all were compared last",
            drift.clone(),
        );
        registry.register_collector(Box::new(ProcessCollector));
        let metrics = Self { answers, took, entries, oldest, filled, drift, registry: Arc::new(registry) };
        // What appears with its first count has no rate before it.
        for answer in gate::answers() {
            drop(metrics.answers.get_or_create(&AnswerLabels { answer }));
        }
        for waits_for in [RESULT, LEVEL] {
            drop(metrics.entries.get_or_create(&EntryLabels { waits_for }));
        }
        metrics
    }

    /// All of it as it is now, in the text format of `OpenMetrics`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Holds because writing to a string does not fail, and no collector does.
        encode(&mut text, &self.registry).expect("metrics are written to a string");
        text
    }
}

const RESULT: &str = "result";
const LEVEL: &str = "level";

impl Observer for GateMetrics {
    fn answered(&self, answer: &'static str, took: Option<Duration>) {
        self.answers.get_or_create(&AnswerLabels { answer }).inc();
        if let Some(took) = took {
            self.took.observe(took.as_secs_f64());
        }
    }

    fn entries(&self, status: Option<&CacheStatus>) {
        let Some(status) = status else {
            // Of entries the last that was known stands.
            self.filled.set(0);
            return;
        };
        for (waits_for, count) in [(RESULT, status.unsettled), (LEVEL, status.accepted)] {
            self.entries
                .get_or_create(&EntryLabels { waits_for })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.oldest.set(status.oldest.unwrap_or_default().as_secs_f64());
        self.filled.set(i64::from(status.filled));
    }

    fn drift(&self, pieces: u64) {
        self.drift.set(i64::try_from(pieces).unwrap_or(i64::MAX));
    }
}
