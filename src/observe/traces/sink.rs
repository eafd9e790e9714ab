//! Where results go, traced.

use opentelemetry::trace::{SpanKind, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;
use tokio_util::sync::CancellationToken;

use super::{DESTINATION, MESSAGE_COUNT, Traces, under_way};
use crate::event::Channel;
use crate::kafka::transactional::{InitError, PublishError};
use crate::observe::names::end_name;
use crate::pipeline::Portion;
use crate::pipeline::ports::ResultSink;

/// With `traces`, each transaction has a span; without, nothing is done.
pub(in crate::observe) struct TracedSink<K> {
    pub(in crate::observe) inner: K,
    pub(in crate::observe) traces: Option<Traces>,
}

impl Traces {
    /// A span of a transaction. No message brings it on, so it is a client's, not a producer's.
    fn send(&self, portion: &Portion<'_>, parent: &Context) -> Span {
        let mut attributes = self.attributes("send", "send");
        attributes
            .push(KeyValue::new(MESSAGE_COUNT, i64::try_from(portion.events.len()).unwrap_or(i64::MAX)));
        let mut channels = portion.events.iter().map(|event| event.channel);
        let only = channels.next().filter(|first| channels.all(|channel| channel == *first));
        let topic = only.map(|channel| match channel {
            Channel::Accepted => self.topics.accepted_topic.clone(),
            Channel::Rejected => self.topics.rejected_topic.clone(),
            Channel::DeadLetter => self.topics.dead_letter_topic.clone(),
            Channel::Levels => self.topics.levels_topic.clone(),
            Channel::Orders => self.topics.orders_topic.clone(),
        });
        let name = topic.as_ref().map_or_else(|| "send".to_owned(), |topic| format!("send {topic}"));
        attributes.extend(topic.map(|topic| KeyValue::new(DESTINATION, topic)));
        self.tracer
            .span_builder(name)
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent)
    }
}

impl<K: ResultSink> ResultSink for TracedSink<K> {
    type Name = K::Name;

    async fn init_transactions(&mut self, stop: &CancellationToken) -> Result<(), InitError> {
        self.inner.init_transactions(stop).await
    }

    async fn publish(&mut self, portion: &Portion<'_>, names: &[K::Name]) -> Result<(), PublishError> {
        let Some(traces) = &self.traces else { return self.inner.publish(portion, names).await };
        let batch = traces.under_way.published_by(&portion.offsets);
        let parent = batch.as_ref().map_or_else(Context::new, |batch| batch.context().clone());
        let span = traces.send(portion, &parent);
        let published = self.inner.publish(portion, names).await;
        under_way::end(span, published.is_err().then(|| end_name(&published)));
        if let Some(batch) = &batch {
            batch.went_on();
        }
        if published.is_ok() {
            if let Some(batch) = &batch {
                batch.published(portion.ended.len());
            }
            traces.under_way.published(&portion.offsets);
        }
        published
    }
}
