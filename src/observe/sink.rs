//! Where results go, measured.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::lag::now_ms;
use super::metrics::number;
use super::names::end_name;
use crate::event::{ERROR_HEADERS, Outgoing};
use crate::kafka::transactional::{InitError, PublishError};
use crate::live::{DeadLetter, Recorder};
use crate::pipeline::ports::ResultSink;
use crate::pipeline::{EndedRecord, Portion, RecordEnd};

pub(super) struct MeasuredSink<K> {
    pub(super) inner: K,
    pub(super) metrics: Metrics,
}

impl<K: ResultSink> ResultSink for MeasuredSink<K> {
    type Name = K::Name;

    async fn init_transactions(&mut self, stop: &CancellationToken) -> Result<(), InitError> {
        let made = self.inner.init_transactions(stop).await;
        self.metrics.counters.producers_made(made.is_ok());
        made
    }

    async fn publish(&mut self, portion: &Portion<'_>, names: &[K::Name]) -> Result<(), PublishError> {
        let begun = Instant::now();
        let published = self.inner.publish(portion, names).await;
        let counters = &self.metrics.counters;
        let took = begun.elapsed();
        counters.publish_seconds.observe(took.as_secs_f64());
        counters.transaction_ended(end_name(&published));
        if published.is_ok() {
            counters.transaction_records.observe(f64::from(number(portion.events.len())));
            counters.ended(portion.ended);
            self.metrics.lags.published(&portion.offsets);
            self.metrics.totals.add(portion.ended);
            note(&self.metrics.live, portion.ended, took);
        }
        published
    }
}

/// Notes for who looks what was published.
fn note(live: &Recorder, ended: &[EndedRecord], took: Duration) {
    let now_ms = now_ms();
    live.published(ended.iter().filter_map(|record| record.produced_ms), now_ms, took);
    for record in ended {
        let RecordEnd::DeadLetter(code) = record.end else { continue };
        let (source, error) = (record.source.clone(), code.name());
        let detail = record.event.as_ref().and_then(fault_of).unwrap_or_default();
        live.dead_letter(DeadLetter { source, error, detail, at_ms: now_ms });
    }
}

/// What a dead letter says of its fault.
fn fault_of(letter: &Outgoing) -> Option<String> {
    let [.., message] = ERROR_HEADERS;
    let header = letter.headers.iter().rfind(|header| header.name == message)?;
    Some(String::from_utf8_lossy(header.value.as_deref()?).into_owned())
}
