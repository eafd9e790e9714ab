//! Creates an order, follows its verdict, and cancels the order again if it was accepted: what a shop's own service does.
//!
//! ```sh
//! cargo run --release --example follow_order -- ORDER_ID SKU QUANTITY
//! ```
//!
//! Prints what the verifier published, a line each. Ends with 1 where something was rejected. Of this project it uses
//! nothing: only rdkafka and JSON.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

/// Longest wait for any one answer; a verdict usually takes milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where everything is.
struct Places {
    brokers: String,
    orders: String,
    results: [String; 2],
}

impl Places {
    fn of_environment() -> Self {
        let setting = |name, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        Self {
            brokers: setting("BROKERS", "localhost:9092"),
            orders: setting("ORDERS_TOPIC", "orders"),
            results: [
                setting("ACCEPTED_TOPIC", "stock.accepted"),
                setting("REJECTED_TOPIC", "stock.rejected"),
            ],
        }
    }
}

/// Says whether Kafka took a record.
struct Delivered;
impl ClientContext for Delivered {}
impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<std::sync::mpsc::Sender<Result<(), String>>>;
    fn delivery(&self, delivered: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        // Nobody listens any more: the wait for it is over.
        let _ = answer.send(delivered.as_ref().map(|_| ()).map_err(|(error, _)| error.to_string()));
    }
}

fn consumer(places: &Places) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &places.brokers)
        // Nothing is committed: a program that runs for long would be a group of its own, and commit.
        .set("group.id", "follow-order")
        .set("enable.auto.commit", "false")
        // What a crash of the verifier left behind is not shown.
        .set("isolation.level", "read_committed")
        .create()?;
    // Every partition of the results, from its end on: taken before the order is sent, so that no verdict is missed.
    let mut from = TopicPartitionList::new();
    for topic in &places.results {
        let there = consumer.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
        for partition in there.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_LIMIT)?;
            from.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
        }
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

fn producer(places: &Places) -> Result<ThreadedProducer<Delivered>> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", &places.brokers)
        // As Kafka's own clients do it; librdkafka's default is another. With one partitioner for all producers an order
        // and what follows it stand on one partition, and so are decided in their order.
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .create_with_context(Delivered)?;
    Ok(producer)
}

/// Sends a command, keyed by its order, and waits until Kafka has it.
fn send(producer: &ThreadedProducer<Delivered>, topic: &str, order_id: &str, command: &Value) -> Result<()> {
    let (answer, delivered) = std::sync::mpsc::channel();
    let value = command.to_string();
    let record = BaseRecord::with_opaque_to(topic, Box::new(answer)).key(order_id).payload(&value);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(ANSWER_LIMIT)?;
    match delivered.recv_timeout(ANSWER_LIMIT) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => bail!("Kafka did not take the record: {why}"),
        Err(_) => bail!("Kafka did not say within {ANSWER_LIMIT:?} whether it has the record"),
    }
}

/// What was published about this order: `about` is order or cancellation.
fn verdict(consumer: &BaseConsumer, order_id: &str, about: &str) -> Result<bool> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    while Instant::now() < deadline {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message?;
        if message.key() != Some(order_id.as_bytes()) {
            continue;
        }
        let value = message.payload().unwrap_or_default();
        let event: Value = serde_json::from_slice(value).context("a result that is no JSON")?;
        let accepted = match event["type"].as_str().and_then(|kind| kind.split_once('.')) {
            Some((what, "accepted")) if what == about => true,
            Some((what, "rejected")) if what == about => false,
            _ => continue,
        };
        println!("{}", String::from_utf8_lossy(value));
        return Ok(accepted);
    }
    bail!(
        "no verdict within {ANSWER_LIMIT:?}: does a verifier run? An id that was decided before is not answered again"
    )
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [order_id, sku, quantity] = &arguments[..] else {
        bail!("usage: follow_order ORDER_ID SKU QUANTITY")
    };
    let quantity: u64 = quantity.parse().context("QUANTITY is a number of pieces")?;
    let places = Places::of_environment();
    let (consumer, producer) = (consumer(&places)?, producer(&places)?);
    let lines = [json!({"sku": sku, "quantity": quantity})];
    let created = json!({"type": "order.created", "order_id": order_id, "lines": lines});
    send(&producer, &places.orders, order_id, &created)?;
    if !verdict(&consumer, order_id, "order")? {
        return Ok(ExitCode::FAILURE);
    }
    let cancelled = json!({"type": "order.cancelled", "order_id": order_id});
    send(&producer, &places.orders, order_id, &cancelled)?;
    Ok(if verdict(&consumer, order_id, "cancellation")? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
