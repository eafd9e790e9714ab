//! What a verifier does, measured and traced: metrics for machines, totals for people and for those who look at it now, spans
//! for who follows an order.
//!
//! No room counts by hand, or traces. What is to be measured is wrapped: where records come from (`source`), where results
//! go (`sink`), and the ledger (`ledger`). The names are in `metrics`, one table with their meaning is in
//! `docs/operations.md`. Spans have wrappers of their own (`traces`), with their table there.

mod gate;
mod lag;
mod ledger;
mod metrics;
mod names;
mod process;
mod reads;
mod sink;
mod source;
mod totals;
mod traces;

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use self::gate::GateMetrics;
use self::lag::{LagCollector, Lags, now_ms};
use self::ledger::LedgerMetrics;
use self::metrics::{Connections, Counters, LevelsCollector, StoppedCollector};
use self::process::ProcessCollector;
use self::reads::{PrecheckCollector, ReplicaCollector};
use self::sink::MeasuredSink;
use self::source::MeasuredSource;
pub use self::totals::{Tally, Totals};
use self::traces::{LedgerTraces, TracedSink, TracedSource};
pub use self::traces::{RequestSpan, Traces};
use crate::background::LevelChanges;
use crate::live::{Counts, Ends, Glance, Recorder, Watched};
use crate::pipeline::StoppedPartitions;
use crate::pipeline::ports::{GroupMember, Observer, RecordSource, ResultSink};
use crate::store::postgres::Replicas;
use crate::store::{Layered, VerifierStore};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is measured of one process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics {
    counters: Arc<Counters>,
    connections: Connections,
    replicas: ReplicaCollector,
    prechecks: PrecheckCollector,
    levels: LevelsCollector,
    lags: Arc<Lags>,
    totals: Arc<Totals>,
    live: Arc<Recorder>,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Of a verifier of this group. `stopped` are its partitions that are read no further.
    #[must_use]
    pub fn new(group: &str, stopped: StoppedPartitions) -> Self {
        let mut registry = Registry::default();
        let counters = Arc::new(Counters::register(&mut registry));
        let lags = Arc::new(Lags::new(stopped.clone()));
        registry.register_collector(Box::new(LagCollector::new(group, Arc::clone(&lags))));
        registry.register_collector(Box::new(StoppedCollector(stopped)));
        let connections = Connections::default();
        registry.register_collector(Box::new(connections.clone()));
        let replicas = ReplicaCollector::default();
        registry.register_collector(Box::new(replicas.clone()));
        let prechecks = PrecheckCollector::default();
        registry.register_collector(Box::new(prechecks.clone()));
        let levels = LevelsCollector::default();
        registry.register_collector(Box::new(levels.clone()));
        registry.register_collector(Box::new(ProcessCollector));
        let (totals, live, registry) = (Arc::default(), Arc::default(), Arc::new(registry));
        Self { counters, connections, replicas, prechecks, levels, lags, totals, live, registry }
    }

    /// What was done so far, for people.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// A ledger that is measured when it is used.
    #[must_use]
    pub fn ledger(&self, store: Arc<dyn VerifierStore>) -> Arc<dyn VerifierStore> {
        self.connections.of(&store);
        Arc::new(Layered(LedgerMetrics {
            inner: store,
            counters: Arc::clone(&self.counters),
            lags: Arc::clone(&self.lags),
            live: Arc::clone(&self.live),
        }))
    }

    /// Shows these replicas. The first ones count.
    pub fn replicas(&self, replicas: &Arc<Replicas>) {
        let _ = self.replicas.0.set(Arc::clone(replicas));
    }

    /// Shows how many prechecks were answered from memory, and how many from the database. The first one counts.
    pub fn prechecks(&self, answered: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        let _ = self.prechecks.0.set(Box::new(answered));
    }

    /// All of it as it is now, in the text format of `OpenMetrics` ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Holds because writing to a string does not fail, and no collector does.
        encode(&mut text, &self.registry).expect("metrics are written to a string");
        text
    }
}

impl Watched for Metrics {
    fn set_watched(&self, is_watched: bool) {
        self.live.set_watched(is_watched);
    }

    fn counts(&self) -> Counts {
        self.live.counts()
    }

    fn glance(&self) -> Glance {
        let Tally { accepted, rejected, republished, dead_letters, absorbed, ignored } = self.totals.so_far();
        let ends = Ends { accepted, rejected, republished, dead_letters, absorbed, ignored };
        Glance { ends, lags: self.lags.all(now_ms()), ..self.live.glance() }
    }
}

impl Observer for Metrics {
    fn source<S: RecordSource>(
        &self,
        source: S,
    ) -> impl RecordSource<Member: GroupMember<Name = <S::Member as GroupMember>::Name>> {
        MeasuredSource { inner: source, metrics: self.clone() }
    }

    fn sink<K: ResultSink>(&self, sink: K) -> impl ResultSink<Name = K::Name> {
        MeasuredSink { inner: sink, metrics: self.clone() }
    }

    fn level_changes(&self, changes: &LevelChanges) {
        self.levels.of(changes);
    }
}

/// All that watches a verifier: its metrics, and its traces where they are exported.
#[derive(Clone)]
pub struct Observed {
    /// What is measured.
    pub metrics: Metrics,
    /// What is exported as spans; `None` where nothing is.
    pub traces: Option<Traces>,
}

impl Observed {
    /// A ledger that is watched when it is used.
    #[must_use]
    pub fn ledger(&self, store: Arc<dyn VerifierStore>) -> Arc<dyn VerifierStore> {
        let measured = self.metrics.ledger(store);
        match &self.traces {
            Some(traces) => Arc::new(Layered(LedgerTraces { inner: measured, traces: traces.clone() })),
            None => measured,
        }
    }
}

impl Observer for Observed {
    fn source<S: RecordSource>(
        &self,
        source: S,
    ) -> impl RecordSource<Member: GroupMember<Name = <S::Member as GroupMember>::Name>> {
        TracedSource { inner: self.metrics.source(source), traces: self.traces.clone() }
    }

    fn sink<K: ResultSink>(&self, sink: K) -> impl ResultSink<Name = K::Name> {
        TracedSink { inner: self.metrics.sink(sink), traces: self.traces.clone() }
    }

    fn level_changes(&self, changes: &LevelChanges) {
        self.metrics.level_changes(changes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in the first column of the tables of docs/operations.md.
    fn documented() -> BTreeSet<String> {
        let page = include_str!("../../docs/operations.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_metric_is_in_the_table_and_every_row_of_it_is_exposed() {
        let text = Metrics::new("shop", StoppedPartitions::default()).render() + &GateMetrics::new().render();
        let exposed: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| {
                let (name, kind) = line.split_once(' ').expect("a name and a type");
                let end = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                format!("{name}{end}")
            })
            .collect();
        assert!(exposed.len() > 20, "{text}");
        assert_eq!(documented(), exposed);
    }
}
