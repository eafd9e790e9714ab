//! What belongs together is found by partition and offset, whatever happens in between.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

use super::*;
use crate::event::{Header, Record};
use crate::kafka::consumer::FetchedRecord;
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};
use crate::store::{Advance, CommandBatch};

/// Keeps what is exported.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no panic").extend(batch);
        Ok(())
    }
}

impl Kept {
    /// The batches that ended: how many links each has, how many records, and whether it failed.
    fn batches(&self) -> Vec<(usize, String, bool)> {
        let kept = self.0.lock().expect("no panic");
        let batches = kept.iter().filter(|span| span.span_kind == SpanKind::Consumer);
        let of = |span: &SpanData| {
            let count = span.attributes.iter().find(|attribute| attribute.key.as_str() == MESSAGE_COUNT);
            let count = count.map_or_else(String::new, |count| count.value.to_string());
            (span.links.len(), count, matches!(span.status, Status::Error { .. }))
        };
        batches.map(of).collect()
    }
}

fn traces() -> (Traces, Kept) {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let tracer = provider.tracer("test");
    let topics = TopicArgs {
        orders_topic: "orders".to_owned(),
        adjustments_topic: "adjustments".to_owned(),
        accepted_topic: "accepted".to_owned(),
        rejected_topic: "rejected".to_owned(),
        levels_topic: "levels".to_owned(),
        dead_letter_topic: "dead".to_owned(),
    };
    let under_way = Arc::default();
    (Traces { tracer, provider, group: "group".into(), topics: Arc::new(topics), under_way }, kept)
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

/// Records of a partition, each of a trace.
fn came(traces: &Traces, partition: i32, offsets: std::ops::Range<i64>) {
    let record = |offset| {
        let value = format!("00-{:032x}-{:016x}-01", offset + 1, offset + 1).into_bytes();
        let record = Record {
            source: Source { at: at(partition), offset: Offset(offset) },
            key: None,
            value: None,
            headers: vec![Header { name: TRACEPARENT.to_owned(), value: Some(value) }],
            timestamp_ms: None,
            decoded: None,
        };
        FetchedRecord { record, bytes: 1, epoch: 0 }
    };
    traces.under_way.came(&offsets.map(record).collect::<Vec<_>>());
}

/// A batch that takes partitions from here to there.
fn asked(traces: &Traces, advances: &[(i32, i64, i64)]) -> Option<Arc<under_way::Batch>> {
    let advances = advances.iter().map(|(partition, expected, next)| Advance {
        at: at(*partition),
        expected: NextOffset(*expected),
        next: NextOffset(*next),
        applied: None,
        published: None,
    });
    let batch = CommandBatch { advances: advances.collect(), requests: Vec::new(), epoch: None };
    traces.under_way.batch(traces, &batch)
}

/// A transaction that publishes so far, and ends so many records.
fn published(traces: &Traces, offsets: &[(i32, i64)], records: usize) {
    let offsets: Vec<_> =
        offsets.iter().map(|(partition, next)| (at(*partition), NextOffset(*next))).collect();
    let batch = traces.under_way.published_by(&offsets).expect("it is under way");
    batch.published(records);
    traces.under_way.published(&offsets);
}

#[test]
fn each_record_is_linked_to_by_the_batch_that_it_is_in() {
    let (traces, kept) = traces();
    came(&traces, 0, 0..3);
    came(&traces, 1, 7..9);
    asked(&traces, &[(0, 0, 2), (1, 7, 9)]);
    came(&traces, 0, 3..5);
    asked(&traces, &[(0, 2, 5)]);
    published(&traces, &[(0, 2), (1, 9)], 4);
    assert_eq!(kept.batches(), [(4, "4".to_owned(), false)], "the second is under way");
    published(&traces, &[(0, 5)], 3);
    assert_eq!(kept.batches()[1], (3, "3".to_owned(), false));
}

#[test]
fn a_batch_that_is_tried_again_is_one_and_so_is_one_published_in_portions() {
    let (traces, kept) = traces();
    came(&traces, 0, 0..4);
    let first = asked(&traces, &[(0, 0, 4)]).expect("a batch");
    let again = asked(&traces, &[(0, 0, 4)]).expect("a batch");
    assert!(Arc::ptr_eq(&first, &again));
    drop((first, again));
    published(&traces, &[(0, 3)], 3);
    assert_eq!(kept.batches(), []);
    published(&traces, &[(0, 4)], 1);
    assert_eq!(kept.batches(), [(4, "4".to_owned(), false)]);
}

#[test]
fn what_is_read_again_is_another_batch_and_the_one_that_was_dropped_says_so() {
    let (traces, kept) = traces();
    came(&traces, 0, 0..4);
    asked(&traces, &[(0, 0, 2)]);
    asked(&traces, &[(0, 2, 4)]);
    // A rewind: from an earlier record on.
    came(&traces, 0, 0..4);
    assert_eq!(kept.batches(), [(2, "0".to_owned(), true), (2, "0".to_owned(), true)]);
    asked(&traces, &[(0, 4, 4)]);
    published(&traces, &[(0, 4)], 4);
    assert_eq!(kept.batches()[2], (4, "4".to_owned(), false));
}

#[test]
fn a_partition_that_is_gone_leaves_only_what_is_published_first() {
    let (traces, kept) = traces();
    came(&traces, 0, 0..2);
    asked(&traces, &[(0, 0, 1)]);
    traces.under_way.gone(&[at(0)], true);
    published(&traces, &[(0, 1)], 1);
    assert_eq!(kept.batches(), [(1, "1".to_owned(), false)]);
    came(&traces, 0, 1..2);
    asked(&traces, &[(0, 1, 2)]);
    traces.under_way.gone(&[at(0)], false);
    assert_eq!(kept.batches()[1], (1, "0".to_owned(), true));
}

#[test]
fn a_batch_has_no_more_links_than_a_span_and_what_waits_is_bounded() {
    let (traces, kept) = traces();
    for chunk in 0..500 {
        came(&traces, 0, chunk * 10..chunk * 10 + 10);
    }
    came(&traces, 1, 0..100);
    asked(&traces, &[(0, 0, 5_000), (1, 0, 100)]);
    published(&traces, &[(0, 5_000), (1, 100)], 5_100);
    assert_eq!(kept.batches(), [(128, "5100".to_owned(), false)]);
    let spans = kept.0.lock().expect("no panic");
    assert!(spans.iter().all(|span| span.links.dropped_count == 0), "more were made than there is room for");
}

#[test]
fn a_batch_of_no_partition_has_no_span() {
    let (traces, _) = traces();
    assert!(asked(&traces, &[]).is_none());
}

fn of(traceparent: &str) -> Option<String> {
    let trace = TraceContext { traceparent: Some(traceparent.as_bytes()), tracestate: Some(b"shop=1") };
    remote(trace).map(|span| format!("{} {} {}", span.trace_id(), span.span_id(), span.is_sampled()))
}

#[test]
fn a_trace_context_is_read_as_the_w3c_says_and_what_is_none_is_left_alone() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    assert_eq!(of(&format!("00-{trace}-{span}-01")), Some(format!("{trace} {span} true")));
    assert_eq!(of(&format!("00-{trace}-{span}-00")), Some(format!("{trace} {span} false")));
    assert_eq!(of(&format!("cc-{trace}-{span}-01-more")), Some(format!("{trace} {span} true")));
    let wrong = [
        "",
        "-",
        "00-4bf9-00f0-01",
        &format!("00-{}-{span}-01", "0".repeat(32)),
        &format!("00-{trace}-{}-01", "0".repeat(16)),
        &format!("00-{}-{span}-01", trace.to_uppercase()),
        &format!("00-{trace}-{span}-01-more"),
        &format!("00-{trace}-{span}-0"),
        &format!("ff-{trace}-{span}-01"),
        "\u{ff}",
    ];
    for wrong in wrong {
        assert_eq!(of(wrong), None, "{wrong:?}");
    }
    assert_eq!(remote(TraceContext::NONE), None);
}
