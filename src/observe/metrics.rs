//! What is counted, and under which names.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::lag::now_ms;
use super::names::{ENDS, ERRORS};
use crate::background::LevelChanges;
use crate::event::FaultCode;
use crate::ledger::{CommandKind, Decision};
use crate::live::DecisionCount;
use crate::pipeline::{EndedRecord, RecordEnd, StoppedPartitions};
use crate::store::VerifierStore;

/// Times of calls: from a millisecond to half a minute, each bucket twice the one before.
const CALL_BUCKETS: (f64, f64, u16) = (0.001, 2.0, 16);
/// Times from produced to published: from five milliseconds to three hours.
const LATENCY_BUCKETS: (f64, f64, u16) = (0.005, 2.0, 21);
/// Counts in a batch: from one to 131,072.
const COUNT_BUCKETS: (f64, f64, u16) = (1.0, 2.0, 18);

/// A count as a number that every kind of metric takes. None here is anywhere near its end.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    r#type: &'static str,
    outcome: &'static str,
    /// Of a rejected command its first reason's name; else empty.
    reason: &'static str,
}

impl From<&DecisionCount> for DecisionLabels {
    fn from(counted: &DecisionCount) -> Self {
        let (outcome, reason) = counted.reason.map_or(("accepted", ""), |reason| ("rejected", reason));
        Self { r#type: counted.kind.name(), outcome, reason }
    }
}

/// How many decisions of each kind ended alike. There are few ways to end, so they are looked for one after the other, the
/// last one first: cheaper than hashing for each of a batch's decisions.
pub(super) fn counted<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Vec<DecisionCount> {
    let mut counts: Vec<DecisionCount> = Vec::new();
    let mut last = 0;
    for decision in decisions {
        let kind = decision.key.kind;
        let reason = (!decision.accepted).then(|| {
            // What cannot be read is for the audit to find.
            let reasons = decision.reasons().unwrap_or_default();
            reasons.first().map_or("", |reason| reason.name())
        });
        let is_same = |known: &DecisionCount| (known.kind, known.reason) == (kind, reason);
        if !counts.get(last).is_some_and(is_same) {
            last = counts.iter().position(is_same).unwrap_or_else(|| {
                counts.push(DecisionCount { kind, reason, count: 0 });
                counts.len() - 1
            });
        }
        counts[last].count += 1;
    }
    counts
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

/// All that is counted as it happens.
pub(super) struct Counters {
    pub(super) records_read: Counter,
    decisions: Family<DecisionLabels, Counter>,
    results: Family<OutcomeLabels, Counter>,
    republished: Counter,
    absorbed: Counter,
    ignored: Counter,
    dead_letters: Family<ErrorLabels, Counter>,
    latency_seconds: Histogram,
    pub(super) batch_commands: Histogram,
    pub(super) apply_seconds: Histogram,
    database_errors: Family<ErrorLabels, Counter>,
    pub(super) transaction_records: Histogram,
    pub(super) publish_seconds: Histogram,
    transactions: Family<OutcomeLabels, Counter>,
    producers: Family<OutcomeLabels, Counter>,
    pub(super) partitions_assigned: Counter,
    partitions_revoked: Family<OutcomeLabels, Counter>,
    pub(super) consumer_errors: Counter,
    pub(super) pauses: Counter,
    pub(super) read_to_applied_seconds: Histogram,
    pub(super) rewinds: Counter,
    pub(super) due_holds: Counter,
    pub(super) overdue_holds: Gauge,
}

/// Makes these series, at zero.
fn show<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Counter>, labels: impl IntoIterator<Item = L>) {
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
}

/// Registers what is made on the way.
struct Names<'a>(&'a mut Registry);

impl Names<'_> {
    fn of<M: Metric + Clone>(&mut self, name: &'static str, help: &'static str, metric: M) -> M {
        // The registry ends each help with a full stop.
        self.0.register(name, help, metric.clone());
        metric
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, buckets: (f64, f64, u16)) -> Histogram {
        let (first, factor, count) = buckets;
        self.of(name, help, Histogram::new(exponential_buckets(first, factor, count)))
    }

    fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.of(name, help, Counter::default())
    }
}

impl Counters {
    /// All of them, under their names. A counter's name is shown with `_total` at its end.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("stock_verifier_build", "The version that runs", version);
        let counters = Self::named(&mut Names(registry));
        counters.show_zeros();
        counters
    }

    fn named(names: &mut Names<'_>) -> Self {
        Self {
            records_read: names.counter("stock_verifier_records_read", "Records read, again after a rewind"),
            decisions: names.of("stock_verifier_decisions", "Commands decided", Family::default()),
            results: names.of("stock_verifier_results_published", "Results published", Family::default()),
            republished: names.counter("stock_verifier_results_republished", "Results republished"),
            absorbed: names
                .counter("stock_verifier_repetitions_absorbed", "Repetitions that ask nothing new"),
            ignored: names
                .counter("stock_verifier_records_ignored", "Records that their mapping gave nothing for"),
            dead_letters: names.of(
                "stock_verifier_dead_letters",
                "Dead letters published",
                Family::default(),
            ),
            latency_seconds: names.histogram(
                "stock_verifier_produced_to_published_seconds",
                "From the record's timestamp until its result was published",
                LATENCY_BUCKETS,
            ),
            batch_commands: names.histogram(
                "stock_verifier_batch_commands",
                "Commands in a batch",
                COUNT_BUCKETS,
            ),
            apply_seconds: names.histogram(
                "stock_verifier_database_apply_seconds",
                "Applying a batch to the database, tries within included",
                CALL_BUCKETS,
            ),
            database_errors: names.of(
                "stock_verifier_database_apply_failures",
                "Batches that could not be applied, and are tried again or end the process",
                Family::default(),
            ),
            transaction_records: names.histogram(
                "stock_verifier_kafka_transaction_records",
                "Results and dead letters in a committed transaction",
                COUNT_BUCKETS,
            ),
            publish_seconds: names.histogram(
                "stock_verifier_kafka_transaction_seconds",
                "A Kafka transaction, whatever its end",
                CALL_BUCKETS,
            ),
            transactions: names.of(
                "stock_verifier_kafka_transactions",
                "Kafka transactions",
                Family::default(),
            ),
            producers: names.of(
                "stock_verifier_kafka_producer_inits",
                "Tries to make the transactional producers, at the start and anew",
                Family::default(),
            ),
            partitions_assigned: names
                .counter("stock_verifier_partitions_assigned", "Partitions given by the group"),
            partitions_revoked: names.of(
                "stock_verifier_partitions_revoked",
                "Partitions taken by the group",
                Family::default(),
            ),
            consumer_errors: names.counter("stock_verifier_consumer_errors", "Errors of the group's members"),
            pauses: names.counter(
                "stock_verifier_pauses",
                "Times that a member fetched nothing more, since what it had was not taken",
            ),
            read_to_applied_seconds: names.histogram(
                "stock_verifier_read_to_applied_seconds",
                "From reading a batch's first record until the batch was applied",
                CALL_BUCKETS,
            ),
            rewinds: names.counter(
                "stock_verifier_rewinds",
                "Times that a member's partitions were read again from their committed offsets",
            ),
            due_holds: names.counter("stock_verifier_due_holds", "Holds whose end was asked for"),
            overdue_holds: names.of(
                "stock_verifier_overdue_holds",
                "Holds that should have ended",
                Gauge::default(),
            ),
        }
    }

    /// Shows series that are zero so far, too: what appears with its first count has no rate before it.
    fn show_zeros(&self) {
        let decisions = CommandKind::ALL.map(|kind| DecisionLabels {
            r#type: kind.name(),
            outcome: "accepted",
            reason: "",
        });
        show(&self.decisions, decisions);
        let outcome = |outcome| OutcomeLabels { outcome };
        show(&self.results, ["accepted", "rejected"].map(outcome));
        show(&self.transactions, ENDS.map(outcome));
        show(&self.producers, ["made", "failed"].map(outcome));
        show(&self.partitions_revoked, ["handed_over", "lost"].map(outcome));
        let error = |error| ErrorLabels { error };
        show(&self.dead_letters, FaultCode::ALL.map(|code| error(code.name())));
        show(&self.database_errors, ERRORS.map(error));
    }

    /// So many commands were decided.
    pub(super) fn decided(&self, counts: &[DecisionCount]) {
        for counted in counts {
            self.decisions.get_or_create(&DecisionLabels::from(counted)).inc_by(counted.count);
        }
    }

    /// These records' results are published, or they have none.
    pub(super) fn ended(&self, ended: &[EndedRecord]) {
        let now_ms = now_ms();
        let (mut accepted, mut rejected, mut republished, mut absorbed, mut ignored) = (0, 0, 0, 0, 0);
        for record in ended {
            match record.end {
                RecordEnd::Accepted => accepted += 1,
                RecordEnd::Rejected => rejected += 1,
                RecordEnd::Republished => republished += 1,
                RecordEnd::Absorbed => absorbed += 1,
                RecordEnd::Ignored => ignored += 1,
                RecordEnd::DeadLetter(code) => {
                    self.dead_letters.get_or_create(&ErrorLabels { error: code.name() }).inc();
                }
            }
            if let Some(produced_ms) = record.produced_ms {
                let ms = u32::try_from(now_ms.saturating_sub(produced_ms).max(0)).unwrap_or(u32::MAX);
                self.latency_seconds.observe(f64::from(ms) / 1000.0);
            }
        }
        self.results.get_or_create(&OutcomeLabels { outcome: "accepted" }).inc_by(accepted);
        self.results.get_or_create(&OutcomeLabels { outcome: "rejected" }).inc_by(rejected);
        self.republished.inc_by(republished);
        self.absorbed.inc_by(absorbed);
        self.ignored.inc_by(ignored);
    }

    pub(super) fn database_failed(&self, error: &'static str) {
        self.database_errors.get_or_create(&ErrorLabels { error }).inc();
    }

    pub(super) fn transaction_ended(&self, outcome: &'static str) {
        self.transactions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn producers_made(&self, are_made: bool) {
        let outcome = if are_made { "made" } else { "failed" };
        self.producers.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(super) fn partitions_revoked(&self, are_lost: bool, count: usize) {
        let outcome = if are_lost { "lost" } else { "handed_over" };
        self.partitions_revoked.get_or_create(&OutcomeLabels { outcome }).inc_by(u64::from(number(count)));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    state: &'static str,
}

/// Shows the connections to the database.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<OnceLock<Arc<dyn VerifierStore>>>);

impl Connections {
    /// Of this ledger. The first one counts.
    pub(super) fn of(&self, store: &Arc<dyn VerifierStore>) {
        let _ = self.0.set(Arc::clone(store));
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "stock_verifier_database_connections",
            "Connections to the database, and the most that there may be",
            None,
            MetricType::Gauge,
        )?;
        for pool in self.0.get().map(|store| store.connections()).unwrap_or_default() {
            for (state, count) in [("used", pool.used), ("idle", pool.idle), ("most", pool.most)] {
                let labels = PoolLabels { pool: pool.name, state };
                ConstGauge::new(i64::from(count)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Shows how many levels wait to be published.
#[derive(Clone, Debug, Default)]
pub(super) struct LevelsCollector(Arc<OnceLock<LevelChanges>>);

impl LevelsCollector {
    /// Of these. The first ones count.
    pub(super) fn of(&self, changes: &LevelChanges) {
        let _ = self.0.set(changes.clone());
    }
}

impl Collector for LevelsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let metric = encoder.encode_descriptor(
            "stock_verifier_levels_waiting",
            "Items whose level moved and is not published yet",
            None,
            MetricType::Gauge,
        )?;
        let waiting = self.0.get().map_or(0, LevelChanges::waiting);
        ConstGauge::new(i64::from(number(waiting))).encode(metric)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

/// Shows the partitions that are read no further.
#[derive(Debug)]
pub(super) struct StoppedCollector(pub(super) StoppedPartitions);

impl Collector for StoppedCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "stock_verifier_stopped_partition",
            "1 for each partition that is read no further until a person has looked",
            None,
            MetricType::Gauge,
        )?;
        let stopped = self.0.all();
        for (at, _) in &stopped {
            let labels = PartitionLabels { topic: at.topic.to_string(), partition: at.partition };
            ConstGauge::new(1_i64).encode(metric.encode_family(&labels)?)?;
        }
        let count = encoder.encode_descriptor(
            "stock_verifier_stopped_partitions",
            "How many partitions are read no further until a person has looked",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(number(stopped.len()))).encode(count)
    }
}
