//! Contestant 7, the Kafka floor: the verifier's own clients, and nothing between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use stock_verifier::event::{Channel, Outgoing, OutgoingHeader};
use stock_verifier::kafka::consumer::{MemberName, Role, consumer_config};
use stock_verifier::kafka::transactional::{PublishRequest, Publisher};
use stock_verifier::ledger::{NextOffset, TopicPartition};
use tokio_util::sync::CancellationToken;

use super::Run;
use crate::Bench;
use crate::kafka::Kafka;
use crate::shapes::{Shape, sku_name};

/// Longest a batch waits to be full; the verifier's default.
const AGE: Duration = Duration::from_millis(10);

pub fn run(bench: &mut Bench, shape: Shape) -> Result<Run> {
    let orders = bench.args.orders;
    let batch = bench.batch();
    let backlog = bench.backlog(shape)?;
    let name = bench.kafka.new_name("floor");
    let (names, group) = (Kafka::topics(&backlog, &name), Kafka::group(&name));
    let results = [&*names.accepted_topic, &names.rejected_topic, &names.dead_letter_topic];
    bench.block(bench.kafka.create(&results))?;
    let lines = if shape == Shape::Cart { 3 } else { 1 };

    let before = bench.used();
    let start = Instant::now();
    let mut publisher = Publisher::new(&bench.kafka.args(), &names, &name)?;
    publisher.init_transactions(&CancellationToken::new())?;
    let consumer: BaseConsumer = consumer_config(&bench.kafka.args(), &group, Role::Orders)?
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[&names.orders_topic])?;

    let stop = AtomicBool::new(false);
    let (consumer, stop, publisher, kafka) = (&consumer, &stop, &mut publisher, &bench.kafka);
    let progress = std::thread::scope(|scope| {
        let (gathered, batches) = sync_channel::<Vec<(Vec<u8>, i32, i64)>>(1);
        scope.spawn(move || {
            let mut records = Vec::with_capacity(batch);
            let mut since = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(AGE) {
                    if records.is_empty() {
                        since = Instant::now();
                    }
                    let key = message.key().unwrap_or_default().to_vec();
                    records.push((key, message.partition(), message.offset()));
                }
                let due = records.len() >= batch || (!records.is_empty() && since.elapsed() >= AGE);
                if due && gathered.send(std::mem::replace(&mut records, Vec::with_capacity(batch))).is_err() {
                    return;
                }
            }
        });
        let publishing = scope.spawn(|| -> Result<()> {
            for records in batches {
                let mut nexts = BTreeMap::new();
                for (_, partition, offset) in &records {
                    nexts.insert(*partition, NextOffset(offset + 1));
                }
                let offsets: Vec<_> = nexts
                    .into_iter()
                    .map(|(partition, next)| (TopicPartition::new(&*backlog, partition), next))
                    .collect();
                let events: Vec<_> = records
                    .into_iter()
                    .map(|(key, _, offset)| result(key, lines, &backlog, offset))
                    .collect();
                let group = consumer.group_metadata().ok_or_else(|| anyhow!("no group membership"))?;
                publisher.publish(&PublishRequest {
                    events: &events.iter().collect::<Vec<_>>(),
                    offsets: &offsets,
                    group: &[MemberName::of(&backlog, group)],
                })?;
            }
            Ok(())
        });
        let progress = kafka.await_published(&names, &group.group, orders, start, || Ok(()));
        stop.store(true, Ordering::Relaxed);
        publishing
            .join()
            .map_err(|_| anyhow!("the publishing thread panicked"))?
            .context("cannot publish")?;
        progress
    })?;
    let after = bench.used();
    bench.block(bench.kafka.delete(&results))?;
    let run = Run::new(progress.orders, progress.time).using(&before, &after, orders);
    Ok(run.note("start-up s", progress.start_up.as_secs_f64()))
}

/// A record as large as a result, with the same headers.
fn result(key: Vec<u8>, lines: u64, topic: &str, offset: i64) -> Outgoing {
    let id = String::from_utf8_lossy(&key);
    let mut value = format!("{{\"type\":\"order.accepted\",\"order_id\":\"{id}\",\"lines\":[");
    // Writing to a string does not fail.
    for line in 0..lines {
        let comma = if line == 0 { "" } else { "," };
        value.push_str(comma);
        let _ = write!(value, "{{\"sku\":\"{}\",\"quantity\":1,\"balance\":999999999}}", sku_name(line));
    }
    let _ = write!(value, "],\"source\":{{\"topic\":\"{topic}\",\"partition\":1,\"offset\":{offset}}}}}");
    let header =
        |name: &'static str, value: Vec<u8>| OutgoingHeader { name: name.into(), value: Some(value.into()) };
    let headers = vec![
        header("ce_specversion", b"1.0".to_vec()),
        header("ce_id", format!("order.created/{id}").into_bytes()),
        header("ce_source", b"stock-verifier".to_vec()),
        header("ce_type", b"order.accepted".to_vec()),
        header("ce_time", b"2026-01-01T00:00:00.000000Z".to_vec()),
        header("content-type", b"application/json".to_vec()),
    ];
    Outgoing { channel: Channel::Accepted, value: Some(value.into_bytes()), headers, key: Some(key) }
}
