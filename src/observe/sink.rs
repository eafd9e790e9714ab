//! Where results go, measured.

use std::time::Instant;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::metrics::number;
use super::names::end_name;
use crate::kafka::transactional::PublishError;
use crate::pipeline::Portion;
use crate::pipeline::ports::ResultSink;

pub(super) struct MeasuredSink<K> {
    pub(super) inner: K,
    pub(super) metrics: Metrics,
}

impl<K: ResultSink> ResultSink for MeasuredSink<K> {
    type Name = K::Name;

    async fn init_transactions(&mut self, stop: &CancellationToken) -> Result<()> {
        let made = self.inner.init_transactions(stop).await;
        self.metrics.counters.producers_made(made.is_ok());
        made
    }

    async fn publish(&mut self, portion: &Portion<'_>, names: &[K::Name]) -> Result<(), PublishError> {
        let begun = Instant::now();
        let published = self.inner.publish(portion, names).await;
        let counters = &self.metrics.counters;
        counters.publish_seconds.observe(begun.elapsed().as_secs_f64());
        counters.transaction_ended(end_name(&published));
        if published.is_ok() {
            counters.transaction_records.observe(f64::from(number(portion.events.len())));
            counters.ended(portion.ended);
            self.metrics.lags.published(&portion.offsets);
            self.metrics.totals.add(portion.ended);
        }
        published
    }
}
