//! Latency from produced to readable, under a steady stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::Bench;
use crate::contestants::Contestant;
use crate::contestants::verifier::Verifier;
use crate::database::Tables;
use crate::kafka::{Kafka, PARTITIONS, order_value};
use crate::probe;
use crate::report::{median, save};
use crate::shapes::{self, Ids, Order, Shape};

/// A quiet shop, in orders a second.
const SLOW: f64 = 500.0;
/// Orders sent first, to see that the verifier is ready.
const FIRST: usize = 10;
/// What is sent in this time is not counted: caches fill, connections are made, and a broker just started compiles what
/// small transactions need, which takes nearly all of two cores for half a minute.
pub const WARM_UP: Duration = Duration::from_secs(40);
/// Longest wait for a result.
const RESULT_LIMIT: Duration = Duration::from_secs(30);
/// Longest latency kept apart, in microseconds.
pub const MAX_MICROS: u64 = 60_000_000;
/// How often due orders are sent.
const TICK: Duration = Duration::from_micros(500);
/// Upper ends of the printed histogram's bars, in milliseconds.
const BARS_MS: [u64; 13] = [2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 100, 200, 1_000];

pub fn run(bench: &mut Bench) -> Result<()> {
    let shape = Shape::Uniform;
    let mut rates = bench.args.rates.clone();
    if rates.is_empty() {
        let tops = (0..bench.args.rounds.min(3))
            .map(|_| Ok(Contestant::EndToEnd.run(bench, shape)?.rate()))
            .collect::<Result<Vec<_>>>()?;
        let top = median(tops);
        println!("top speed on shape u: {top:.0} orders/s");
        rates = vec![SLOW, (top / 2.0).floor()];
    }
    let mut measured = Vec::new();
    for rate in rates {
        let quiet = probe::probe(&bench.services.disk)?;
        let histogram = stream(bench, shape, rate, |_| Vec::new(), |_| Ok(()))?.0;
        print(rate, &histogram, quiet);
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        measured.push(serde_json::json!({
            "orders_per_second": rate, "orders": histogram.len(), "probe": quiet,
            "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "p999_ms": at(0.999),
            "max_ms": millis(histogram.max()),
            "histogram_ms": BARS_MS.iter().map(|bar| (*bar, below(&histogram, *bar))).collect::<Vec<_>>(),
        }));
    }
    save(&bench.args.json.with_file_name("latency.json"), &serde_json::to_string_pretty(&measured)?)
}

/// Latencies of orders at a steady rate. The verifier gets more arguments, made of its database's URL; beside the orders
/// runs what it is given, which is told how to see that they are over.
pub fn stream<T: Send>(
    bench: &mut Bench,
    shape: Shape,
    rate: f64,
    arguments: impl FnOnce(&str) -> Vec<String>,
    beside: impl FnOnce(&AtomicBool) -> Result<T> + Send,
) -> Result<(Histogram<u64>, T)> {
    let lasts = WARM_UP + Duration::from_secs(bench.args.latency_seconds());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = FIRST + (lasts.as_secs_f64() * rate) as usize;
    let orders = shapes::orders(shape, count, Ids::Counting, "");
    let backlog = bench.new_backlog(&[])?;
    let name = bench.kafka.new_name("latency");
    let (names, group) = (Kafka::topics(&backlog, &name), Kafka::group(&name));
    let topics = [
        &*names.accepted_topic,
        &names.rejected_topic,
        &names.dead_letter_topic,
        &names.adjustments_topic,
        &names.levels_topic,
    ];
    bench.block(bench.kafka.create(&topics))?;
    let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
    let mut verifier = Verifier::start_with(bench, &scratch.url, &names, &group, &arguments(&scratch.url))?;

    let start = Instant::now();
    // When each order was sent, in microseconds since the start.
    let sent: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let read = AtomicU64::new(0);
    let (orders, sent, read, kafka) = (&orders, &sent, &read, &bench.kafka);
    let results = &topics[..2];
    let over = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| {
        let reading = scope.spawn(move || follow(kafka, results, start, sent, read));
        let beside = scope.spawn(|| beside(&over));
        let done = send(kafka, &backlog, rate, orders, start, sent, read).and_then(|()| verifier.check());
        let histogram = reading.join().map_err(|_| anyhow!("the reader panicked"))?;
        over.store(true, Ordering::Release);
        let beside = beside.join().map_err(|_| anyhow!("what ran beside the orders panicked"))?;
        done?;
        Ok::<_, anyhow::Error>((histogram?, beside?))
    })?;
    verifier.stop()?;
    bench.drop_scratch(scratch)?;
    bench.block(bench.kafka.delete(&topics))?;
    bench.block(bench.kafka.delete(&[&backlog]))?;
    Ok(measured)
}

/// Sends each order at its time.
fn send(
    kafka: &Kafka,
    topic: &str,
    rate: f64,
    orders: &[Order],
    start: Instant,
    sent: &[AtomicU64],
    read: &AtomicU64,
) -> Result<()> {
    // A busy producer gathers its records (librdkafka's default): one request for each would be most of the load.
    let producer = kafka.producer(if rate > SLOW { "5" } else { "0" })?;
    let produce = |number: usize| -> Result<()> {
        let order = &orders[number];
        let value = order_value(order);
        sent[number].store(micros(start.elapsed()), Ordering::Release);
        let mut record = BaseRecord::to(topic).key(&order.id).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot produce");
            }
            record = back;
            std::thread::sleep(TICK);
        }
        Ok(())
    };
    (0..FIRST).try_for_each(produce)?;
    while read.load(Ordering::Acquire) < FIRST as u64 {
        if start.elapsed() > RESULT_LIMIT {
            bail!("no result of the first orders within {RESULT_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let begin = Instant::now();
    let mut number = FIRST;
    while number < orders.len() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let due = (FIRST + (begin.elapsed().as_secs_f64() * rate) as usize).min(orders.len());
        (number..due).try_for_each(produce)?;
        number = due;
        std::thread::sleep(TICK);
    }
    producer.flush(RESULT_LIMIT).context("cannot produce")
}

/// Reads results until all are there; their latencies after the warm-up.
fn follow(
    kafka: &Kafka,
    topics: &[&str],
    start: Instant,
    sent: &[AtomicU64],
    read: &AtomicU64,
) -> Result<Histogram<u64>> {
    let reader = kafka.consumer("bench-follow", "read_committed")?;
    let mut all = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    reader.assign(&all)?;
    let mut histogram = Histogram::new_with_max(MAX_MICROS, 3)?;
    let mut warm_until = None;
    for count in 1..=sent.len() {
        let message = next(&reader)?;
        let now = micros(start.elapsed());
        let key = std::str::from_utf8(message.key().unwrap_or_default())?;
        let number: usize = key.rsplit('-').next().unwrap_or_default().parse()?;
        let then = sent.get(number).context("a result of an unknown order")?.load(Ordering::Acquire);
        read.fetch_add(1, Ordering::AcqRel);
        if count > FIRST {
            let warm_until = *warm_until.get_or_insert(then + micros(WARM_UP));
            if then > warm_until {
                histogram.saturating_record(now - then);
            }
        }
    }
    Ok(histogram)
}

/// The next result. That the connection broke is said, and no end: it is made anew, and nothing is left out.
fn next(reader: &BaseConsumer) -> Result<BorrowedMessage<'_>> {
    loop {
        match reader.poll(RESULT_LIMIT).context("results stopped coming")? {
            Err(KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure),
            )) => eprintln!("the reader of results connects anew: {code}"),
            message => return Ok(message?),
        }
    }
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss)]
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// How many took at most so long.
fn below(histogram: &Histogram<u64>, milliseconds: u64) -> u64 {
    histogram.count_between(0, milliseconds * 1_000)
}

fn print(rate: f64, histogram: &Histogram<u64>, probe: probe::Probe) {
    let at = |quantile| millis(histogram.value_at_quantile(quantile));
    println!(
        "\n{rate:.0} orders/s, {} orders (disk {:.2} ms, others {:.0} %): \
         p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
        histogram.len(),
        probe.fdatasync_ms,
        probe.busy * 100.0,
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999),
        millis(histogram.max())
    );
    let mut before = 0;
    for bar in BARS_MS {
        let upto = below(histogram, bar);
        let share = (upto - before) * 1_000 / histogram.len().max(1);
        let width = usize::try_from(share / 10).unwrap_or(0);
        println!("  up to {bar:>5} ms  {:>5}.{} %  {}", share / 10, share % 10, "#".repeat(width));
        before = upto;
    }
}
