//! Which records, batches and transactions belong together: known by partition and offset.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::{DESTINATION, MESSAGE_COUNT, PARTITION, Traces, remote};
use crate::kafka::consumer::FetchedRecord;
use crate::ledger::{NextOffset, Offset, TopicPartition};
use crate::store::{Advance, CommandBatch};

/// Most links of a batch: as many as a span has by OpenTelemetry's own limit.
const MOST_LINKS: usize = 128;
/// Most links kept of a partition's records that are in no batch yet: those of the batch being gathered, and of the next.
const MOST_PENDING_LINKS: usize = 2 * MOST_LINKS;
/// Most chunks whose time is kept of a partition's records that are in no batch yet. What comes after them is gathered
/// with them, or its span begins a little late.
const MOST_PENDING_CHUNKS: usize = 256;

/// What is under way in a process.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashMap<TopicPartition, Partition>>);

/// Of one partition. Grows by the partitions of the topics, and is bounded for each.
#[derive(Default)]
struct Partition {
    /// The last record that came. One that is not after it was read before: then all is begun anew.
    last: Option<Offset>,
    chunks: VecDeque<Chunk>,
    links: VecDeque<(Offset, SpanContext)>,
    /// The batches that are not published, each with where it ends here.
    batches: VecDeque<(NextOffset, Arc<Batch>)>,
}

/// Records that came together.
struct Chunk {
    last: Offset,
    at: SystemTime,
}

/// A batch between its first record and its last transaction.
pub(super) struct Batch {
    /// How far it takes each partition.
    advances: Vec<(TopicPartition, NextOffset, NextOffset)>,
    /// What its stages are below.
    context: Context,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Records whose results are published.
    records: i64,
    /// When its last transaction ended, or the database last answered.
    at: SystemTime,
    is_published: bool,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Partition>> {
        // A panic between two changes leaves a span short of something, nothing worse.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These records came, each partition's in offset order.
    pub(super) fn came(&self, records: &[FetchedRecord]) {
        let at = SystemTime::now();
        let mut all = self.lock();
        for chunk in records.chunk_by(|one, next| one.record.source.at == next.record.source.at) {
            if let [first, ..] = chunk {
                all.entry(first.record.source.at.clone()).or_default().came(chunk, at);
            }
        }
    }

    /// These partitions are gone, or others have them: what of them is in hand is `published` first, or it is lost.
    pub(super) fn gone(&self, partitions: &[TopicPartition], published: bool) {
        let mut all = self.lock();
        for at in partitions {
            if let Some(partition) = all.get_mut(at) {
                let batches =
                    if published { std::mem::take(&mut partition.batches) } else { VecDeque::new() };
                *partition = Partition { batches, ..Partition::default() };
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// The batch that the database is asked to apply; the same again where it was asked before.
    pub(super) fn batch(&self, traces: &Traces, asked: &CommandBatch) -> Option<Arc<Batch>> {
        let first = asked.advances.first()?;
        let mut all = self.lock();
        if let Some(known) = all.get(&first.at).and_then(|partition| partition.batches.back())
            && known.1.is(&asked.advances)
        {
            return Some(Arc::clone(&known.1));
        }
        let now = SystemTime::now();
        let (mut since, mut links) = (now, Vec::new());
        for advance in &asked.advances {
            let partition = all.entry(advance.at.clone()).or_default();
            since = since.min(partition.take(advance.next, &mut links).unwrap_or(now));
        }
        let batch = Arc::new(Batch::begin(traces, &asked.advances, since, links));
        for advance in &asked.advances {
            let batches = &mut all.entry(advance.at.clone()).or_default().batches;
            batches.push_back((advance.next, Arc::clone(&batch)));
        }
        Some(batch)
    }

    /// The batch that is published by a transaction with these offsets.
    pub(super) fn published_by(&self, offsets: &[(TopicPartition, NextOffset)]) -> Option<Arc<Batch>> {
        let all = self.lock();
        let of = |(at, next): &(TopicPartition, NextOffset)| {
            let batches = &all.get(at)?.batches;
            batches.iter().find(|(end, _)| end >= next).map(|(_, batch)| Arc::clone(batch))
        };
        offsets.iter().find_map(of)
    }

    /// These offsets are published.
    pub(super) fn published(&self, offsets: &[(TopicPartition, NextOffset)]) {
        let mut all = self.lock();
        for (at, next) in offsets {
            if let Some(partition) = all.get_mut(at) {
                partition.batches.retain(|(end, _)| end > next);
            }
        }
    }
}

impl Partition {
    fn came(&mut self, records: &[FetchedRecord], at: SystemTime) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        if self.last.is_some_and(|known| first.record.source.offset <= known) {
            // It is read again from an earlier record: whatever was under way was dropped.
            *self = Self::default();
        }
        let last = last.record.source.offset;
        self.last = Some(last);
        if self.chunks.len() < MOST_PENDING_CHUNKS {
            self.chunks.push_back(Chunk { last, at });
        }
        for FetchedRecord { record, .. } in records {
            if self.links.len() >= MOST_PENDING_LINKS {
                break;
            }
            // A trace that nobody keeps is nothing to look at.
            if let Some(span) = remote(record.trace()).filter(SpanContext::is_sampled) {
                self.links.push_back((record.source.offset, span));
            }
        }
    }

    /// Takes what came below an offset: when the first of it did, and its links as far as a batch has room for them.
    fn take(&mut self, next: NextOffset, links: &mut Vec<Link>) -> Option<SystemTime> {
        let since = self.chunks.front().map(|chunk| chunk.at);
        while self.chunks.front().is_some_and(|chunk| next.covers(chunk.last)) {
            self.chunks.pop_front();
        }
        while self.links.front().is_some_and(|(offset, _)| next.covers(*offset)) {
            if let Some((_, span)) = self.links.pop_front()
                && links.len() < MOST_LINKS
            {
                links.push(Link::with_context(span));
            }
        }
        since
    }
}

impl Batch {
    fn begin(traces: &Traces, advances: &[Advance], since: SystemTime, links: Vec<Link>) -> Self {
        let begin = |name: &'static str, operation: &'static str, kind: SpanKind| {
            let mut attributes = traces.attributes(name, operation);
            let topic = destination(advances, &mut attributes);
            let name = topic.map_or_else(|| name.to_owned(), |topic| format!("{name} {topic}"));
            traces
                .tracer
                .span_builder(name)
                .with_kind(kind)
                .with_start_time(since)
                .with_attributes(attributes)
        };
        let span = begin("process", "process", SpanKind::Consumer).with_links(links);
        // Of no other trace, whoever's thread it is.
        let span = span.start_with_context(&traces.tracer, &Context::new());
        let context = Context::new().with_span(span);
        let mut poll =
            begin("poll", "receive", SpanKind::Client).start_with_context(&traces.tracer, &context);
        poll.end();
        let advances =
            advances.iter().map(|advance| (advance.at.clone(), advance.expected, advance.next)).collect();
        let progress = Progress { records: 0, at: SystemTime::now(), is_published: false };
        Self { advances, context, progress: Mutex::new(progress) }
    }

    /// Whether it is the batch that takes partitions so far.
    fn is(&self, advances: &[Advance]) -> bool {
        let asked = advances.iter().map(|advance| (&advance.at, advance.expected, advance.next));
        asked.eq(self.advances.iter().map(|(at, expected, next)| (at, *expected, *next)))
    }

    /// What its stages are below.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage of it ended just now.
    pub(super) fn went_on(&self) {
        self.progress().at = SystemTime::now();
    }

    /// So many of its records are published.
    pub(super) fn published(&self, records: usize) {
        let mut progress = self.progress();
        progress.at = SystemTime::now();
        progress.is_published = true;
        progress.records += i64::try_from(records).unwrap_or(i64::MAX);
    }
}

/// Where a span's messages stand, where that is one topic, and one partition. Returns the topic.
fn destination<'a>(advances: &'a [Advance], attributes: &mut Vec<KeyValue>) -> Option<&'a str> {
    let first = &advances.first()?.at;
    if let [only] = advances {
        attributes.push(KeyValue::new(PARTITION, only.at.partition.to_string()));
    }
    let is_one = advances.iter().all(|advance| advance.at.topic == first.topic);
    is_one.then(|| {
        attributes.push(KeyValue::new(DESTINATION, first.topic.to_string()));
        &*first.topic
    })
}

impl Drop for Batch {
    /// Nothing of it is under way any more.
    fn drop(&mut self) {
        let (records, at, is_published) = {
            let progress = self.progress();
            (progress.records, progress.at, progress.is_published)
        };
        let span = self.context.span();
        span.set_attribute(KeyValue::new(MESSAGE_COUNT, records));
        if !is_published {
            span.set_status(Status::error("not published; its records are read again"));
        }
        span.end_with_timestamp(at);
    }
}

/// Ends a span of a stage.
pub(super) fn end(mut span: Span, failure: Option<&'static str>) {
    if let Some(failure) = failure {
        span.set_attribute(KeyValue::new(super::ERROR_TYPE, failure));
        span.set_status(Status::error(failure));
    }
    span.end();
}
