//! Traces of a running verifier, on real Kafka and PostgreSQL, as a collector gets them.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::http::running::client;
use crate::support::collector::{Collector, attribute, hex};
use crate::support::kafka::{header, order, sent};
use crate::support::process::Verifier;
use crate::support::scene::Scene;

const SOON: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(is_sampled: bool) -> String {
    format!("00-{TRACE}-{PARENT}-0{}", u8::from(is_sampled))
}

/// `run`, exporting to this endpoint.
fn exporting(scene: &Scene, endpoint: &str, more: &[&str]) -> Command {
    let mut command = scene.command("a", more);
    // Spans wait a tenth of a second for others.
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command
}

/// The variables that docs/operations.md shows.
fn shown() -> Vec<(&'static str, &'static str)> {
    let page = include_str!("../../docs/operations.md");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.into_iter().find(|block| block.contains("OTEL_")).expect("an example");
    let lines = block.lines().map(|line| line.split('#').next().unwrap());
    lines.flat_map(str::split_whitespace).filter_map(|word| word.split_once('=')).collect()
}

#[track_caller]
fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        let found = attribute(&span.attributes, name);
        assert_eq!(found.as_deref(), Some(*value), "{name} of {}: {:?}", span.name, span.attributes);
    }
}

/// Asks the verifier's read API, and looks at the request's span.
#[track_caller]
fn a_request_goes_on_in_its_trace(verifier: &mut Verifier, collector: &Collector) {
    let asked = client(verifier);
    let http = ureq::get(format!("{}/v1/stock/MUG?unused", asked.base))
        .header("traceparent", traceparent(true))
        .config()
        .http_status_as_error(false)
        .build()
        .call()
        .unwrap();
    assert_eq!(http.status(), 400, "a query that is unknown");
    assert_eq!(asked.get("/livez").status, 200);
    let request =
        collector.wait_for("the request's span comes", SOON, |span| span.name == "GET /v1/stock/{sku}").span;
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(request.kind, SpanKind::Server as i32);
    assert_attributes(
        &request,
        &[
            ("http.request.method", "GET"),
            ("http.route", "/v1/stock/{sku}"),
            ("http.response.status_code", "400"),
            ("url.path", "/v1/stock/MUG"),
            ("url.scheme", "http"),
        ],
    );
}

/// A batch has its stages, one after the other, and nothing of them is outside of it.
#[track_caller]
fn its_stages_are_below_it(batch: &Span, spans: &[&Span], orders: &str, of_kafka: &[(&str, &str)]) {
    let below = |start: &str| -> &Span {
        let is_it = |span: &&&Span| span.name.starts_with(start) && span.parent_span_id == batch.span_id;
        spans.iter().find(is_it).expect(start)
    };
    let (poll, decide, send) = (below(&format!("poll {orders}")), below("decide"), below("send"));
    for (span, name, kind) in [(poll, "poll", "receive"), (send, "send", "send")] {
        assert_attributes(span, of_kafka);
        assert_attributes(span, &[("messaging.operation.name", name), ("messaging.operation.type", kind)]);
        assert_eq!(span.kind, SpanKind::Client as i32);
    }
    assert_attributes(
        poll,
        &[("messaging.destination.name", orders), ("messaging.destination.partition.id", "0")],
    );
    for stage in [poll, decide, send] {
        assert_eq!(stage.trace_id, batch.trace_id, "{}", stage.name);
        assert!(batch.start_time_unix_nano <= stage.start_time_unix_nano, "{} begins first", stage.name);
        assert!(stage.end_time_unix_nano <= batch.end_time_unix_nano, "{} ends last", stage.name);
    }
    assert!(poll.end_time_unix_nano <= decide.end_time_unix_nano);
    assert!(decide.end_time_unix_nano <= send.start_time_unix_nano);
}

#[test]
fn an_orders_trace_goes_on_to_its_result_and_the_batch_that_decided_it_is_linked_to_it() {
    let (scene, collector) = (Scene::new(1), Collector::start());
    scene.stock(&[("MUG", 10)]);
    let mut command = scene.command("a", &["--http-listen", "127.0.0.1:0"]);
    let variables = shown();
    assert_eq!(variables.len(), 4, "{variables:?}");
    command.envs(variables).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    command.env("OTEL_TRACES_SAMPLER_ARG", "1").env("OTEL_SERVICE_NAME", "shop-stock");
    command.env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    let mut verifier = scene.launch(command, "a");
    // Once all its members have joined: what is read before is read again.
    scene.joined(&verifier);
    scene.produce(&[
        order("o-1", &[("MUG", 2)])
            .header("traceparent", traceparent(true).as_bytes())
            .header("tracestate", b"shop=1"),
        order("o-2", &[("MUG", 99)]).header("traceparent", traceparent(false).as_bytes()),
        order("o-3", &[("MUG", 1)]).header("traceparent", b"nonsense"),
        sent("bad", "no JSON").header("traceparent", traceparent(true).as_bytes()),
    ]);
    scene.done(SOON);

    let accepted = scene.kafka.read(&scene.topic("accepted"));
    assert_eq!(header(&accepted[0], "traceparent"), Some(&*traceparent(true)));
    assert_eq!(header(&accepted[0], "tracestate"), Some("shop=1"));

    a_request_goes_on_in_its_trace(&mut verifier, &collector);
    verifier.stop();

    let orders = scene.orders();
    let received = collector.received();
    let resource = &received[0].resource;
    assert_eq!(attribute(resource, "service.name").as_deref(), Some("shop-stock"));
    assert_eq!(attribute(resource, "service.instance.id").as_deref(), Some("a"));
    assert_eq!(attribute(resource, "deployment.environment.name").as_deref(), Some("test"));
    let spans: Vec<&Span> = received.iter().map(|received| &received.span).collect();
    let process = format!("process {orders}");
    let batches: Vec<&Span> = spans.iter().filter(|span| span.name == process).copied().collect();
    assert!(!batches.is_empty(), "{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
    let records: i64 = batches
        .iter()
        .map(|batch| {
            attribute(&batch.attributes, "messaging.batch.message_count").unwrap().parse::<i64>().unwrap()
        })
        .sum();
    assert_eq!(records, 4);
    // Those of the order and of the dead letter; what is not sampled and what is none are not linked.
    let links: Vec<_> = batches.iter().flat_map(|batch| &batch.links).collect();
    assert_eq!(links.len(), 2, "{links:?}");
    for link in &links {
        assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    }
    assert_eq!(links[0].trace_state, "shop=1");
    let first = batches[0];
    assert!(
        first.parent_span_id.is_empty() && hex(&first.trace_id) != TRACE,
        "a trace of its own: {first:?}"
    );
    assert_eq!(first.kind, SpanKind::Consumer as i32);
    let of_kafka = [("messaging.system", "kafka"), ("messaging.consumer.group.name", scene.group())];
    let of_orders = [("messaging.destination.name", &*orders), ("messaging.destination.partition.id", "0")];
    assert_attributes(first, &of_kafka);
    assert_attributes(first, &of_orders);
    assert_attributes(
        first,
        &[("messaging.operation.name", "process"), ("messaging.operation.type", "process")],
    );

    its_stages_are_below_it(first, &spans, &orders, &of_kafka);
    let sum = |name: &str| -> i64 {
        let decided = spans.iter().filter(|span| span.name == "decide");
        decided.map(|span| attribute(&span.attributes, name).unwrap().parse::<i64>().unwrap()).sum()
    };
    let counts = ["commands", "accepted", "rejected"].map(|what| sum(&format!("stock_verifier.{what}")));
    assert_eq!(counts, [3, 2, 1]);
    assert!(!spans.iter().any(|span| span.name.contains("livez")), "probes are not traced");
}

#[test]
fn where_a_collector_never_answers_orders_are_decided_as_ever_and_the_log_says_so_once() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100_000)]);
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command =
        exporting(&scene, &format!("http://{}", silent.local_addr().unwrap()), &["--batch-max-orders", "5"]);
    // The most that may wait, so that it is full soon.
    command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "300").env("OTEL_BSP_MAX_QUEUE_SIZE", "16");
    let mut verifier = scene.launch(command, "a");
    let orders: Vec<_> = (0..1_000).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
    scene.produce(&orders);
    scene.done(SOON);
    let said = "spans could not be exported, and are lost";
    verifier.said(said, SOON);
    // Until there were several failures more.
    scene.produce(
        &(1_000..1_100).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect::<Vec<_>>(),
    );
    scene.done(SOON);
    verifier.signal("TERM");
    let begun = Instant::now();
    let status = verifier.wait(SOON);
    assert_eq!(status.code(), Some(0), "it is no failure");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let log = verifier.log();
    assert!(!log.contains("o-1") && log.lines().count() < 100, "nothing is said of single orders: {log}");
    assert_eq!(log.matches(said).count(), 1, "{log}");
    assert!(log.contains("timeout"), "it says why: {log}");
    assert_eq!(scene.prove().accepted, 1_100);
}

#[test]
fn what_the_variables_turn_off_is_off_and_what_cannot_be_is_said_and_orders_go_on() {
    let (scene, collector) = (Scene::new(1), Collector::start());
    scene.stock(&[("MUG", 10)]);
    for (number, (variable, value, says)) in [
        ("OTEL_SDK_DISABLED", "true", None),
        ("OTEL_TRACES_EXPORTER", "none", None),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            Some("no spans are exported: OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\""),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = exporting(&scene, &collector.endpoint(), &[]);
        command.env(variable, value);
        let verifier = scene.launch(command, "a");
        let id = format!("o-{number}");
        scene.produce(&[order(&id, &[("MUG", 1)]).header("traceparent", traceparent(true).as_bytes())]);
        scene.done(SOON);
        let log = verifier.log();
        verifier.stop();
        assert!(!log.contains("exporting spans"), "{variable}: {log}");
        assert!(says.is_none_or(|says| log.contains(says)), "{variable}: {log}");
    }
    assert_eq!(collector.received().len(), 0);
    let accepted = scene.kafka.read(&scene.topic("accepted"));
    assert_eq!(accepted.len(), 3);
    assert!(accepted.iter().all(|record| header(record, "traceparent") == Some(&*traceparent(true))));
}
