//! Where reads and prechecks are answered, and how old replicas are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::store::postgres::Replicas;

/// Shows what there is to say of replicas, once they are known.
#[derive(Clone, Default)]
pub(super) struct ReplicaCollector(pub(super) Arc<OnceLock<Arc<Replicas>>>);

impl std::fmt::Debug for ReplicaCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaCollector").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    replica: u32,
}

impl Collector for ReplicaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let replicas = self.0.get();
        let mut reads = encoder.encode_descriptor(
            "stock_verifier_replica_reads",
            "Answers where replicas are named, by the server that gave them",
            None,
            MetricType::Counter,
        )?;
        if let Some(answered) = replicas.map(|replicas| replicas.answered()) {
            for (server, count) in [("replica", &answered.replicas), ("primary", &answered.primary)] {
                let count = ConstCounter::new(count.load(Ordering::Relaxed));
                count.encode(reads.encode_family(&ServerLabels { server })?)?;
            }
        }
        let mut ages = encoder.encode_descriptor(
            "stock_verifier_replica_age_seconds",
            "How old an answer of a replica is at most; none for one that is left",
            None,
            MetricType::Gauge,
        )?;
        for (replica, age) in replicas.map(|replicas| replicas.ages()).unwrap_or_default() {
            ConstGauge::new(age.as_secs_f64()).encode(ages.encode_family(&ReplicaLabels { replica })?)?;
        }
        Ok(())
    }
}

/// How many prechecks were answered from memory, and how many from the database.
type Prechecks = dyn Fn() -> (u64, u64) + Send + Sync;

/// Shows where prechecks are answered, where levels are kept in memory.
#[derive(Clone, Default)]
pub(super) struct PrecheckCollector(pub(super) Arc<OnceLock<Box<Prechecks>>>);

impl std::fmt::Debug for PrecheckCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrecheckCollector").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

impl Collector for PrecheckCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut prechecks = encoder.encode_descriptor(
            "stock_verifier_prechecks",
            "Prechecks answered where levels are kept in memory, by what they were answered from",
            None,
            MetricType::Counter,
        )?;
        if let Some(answered) = self.0.get() {
            let (memory, database) = answered();
            for (source, count) in [("levels-topic", memory), ("database", database)] {
                ConstCounter::new(count).encode(prechecks.encode_family(&SourceLabels { source })?)?;
            }
        }
        Ok(())
    }
}
