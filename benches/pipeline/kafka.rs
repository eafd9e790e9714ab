//! Topics, backlogs of orders, and how far a group has come.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use stock_verifier::config::{GroupArgs, GroupProtocol, KafkaArgs, TopicArgs};

use crate::shapes::{Asks, Line, Order, sku_name};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 6;
/// Longest wait for one answer of the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Longest silence of a group before it is taken for dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How often to ask how far a group has come: often enough for a run of seconds, and no load.
const LOOK: Duration = Duration::from_millis(10);

/// A Kafka cluster.
pub struct Kafka {
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    last: u32,
}

/// How a run through Kafka went.
#[derive(Debug)]
pub struct Progress {
    /// Orders published after the first look that showed some.
    pub orders: usize,
    /// From that look until the last result could be read.
    pub time: Duration,
    /// From the start until that look.
    pub start_up: Duration,
    /// From the start until the last result could be read.
    pub total: Duration,
}

impl Kafka {
    pub fn new(brokers: &str) -> Result<Self> {
        let admin = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        Ok(Self { brokers: brokers.to_owned(), admin, last: 0 })
    }

    /// A name that no other run uses.
    pub fn new_name(&mut self, what: &str) -> String {
        self.last += 1;
        format!("bench-{}-{}-{what}", std::process::id(), self.last)
    }

    pub async fn create(&self, topics: &[&str]) -> Result<()> {
        let new: Vec<_> =
            topics.iter().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))).collect();
        for created in self.admin.create_topics(&new, &AdminOptions::new()).await? {
            if let Err((name, error)) = created
                && error != RDKafkaErrorCode::TopicAlreadyExists
            {
                bail!("cannot create topic {name}: {error}");
            }
        }
        Ok(())
    }

    pub async fn delete(&self, topics: &[&str]) -> Result<()> {
        self.admin.delete_topics(topics, &AdminOptions::new()).await?;
        Ok(())
    }

    /// How the verifier is told to reach this cluster.
    pub fn args(&self) -> KafkaArgs {
        KafkaArgs { brokers: self.brokers.clone(), kafka_password_file: None, properties: Vec::new() }
    }

    pub fn topics(orders: &str, run: &str) -> TopicArgs {
        TopicArgs {
            orders_topic: orders.to_owned(),
            adjustments_topic: format!("{run}-adjustments"),
            accepted_topic: format!("{run}-accepted"),
            rejected_topic: format!("{run}-rejected"),
            levels_topic: format!("{run}-levels"),
            dead_letter_topic: format!("{run}-dlq"),
        }
    }

    pub fn group(run: &str) -> GroupArgs {
        GroupArgs {
            group: run.to_owned(),
            instance_id: Some("bench".to_owned()),
            transactional_id: None,
            group_protocol: GroupProtocol::Classic,
        }
    }

    pub fn producer(&self, linger_ms: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
        Ok(self.producer_config(linger_ms).create()?)
    }

    fn producer_config(&self, linger_ms: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("linger.ms", linger_ms)
            .set("queue.buffering.max.messages", "100000");
        config
    }

    /// Writes the orders as records, keyed by order id, and waits until they are there.
    pub fn produce(&self, topic: &str, orders: &[Order]) -> Result<()> {
        let mut config = self.producer_config("20");
        // What follows an order comes after it: a topic just made may refuse the first records, which are then sent again.
        config.set("enable.idempotence", "true");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        for order in orders {
            let value = order_value(order);
            let mut record = BaseRecord::to(topic).key(order.key()).payload(&value);
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error).context("cannot produce");
                }
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        producer.flush(Duration::from_secs(60)).context("cannot produce")
    }

    /// A consumer in no group's way, for asking and reading.
    pub fn consumer(&self, group: &str, isolation: &str) -> Result<BaseConsumer> {
        Ok(ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("fetch.wait.max.ms", "100")
            .create()?)
    }

    /// Waits until the group has published all orders of the backlog and all its results can be read.
    ///
    /// It asks for committed offsets instead of reading results, so that measuring costs next to nothing:
    /// offsets are committed in the transaction that holds the results.
    pub fn await_published(
        &self,
        names: &TopicArgs,
        group: &str,
        orders: usize,
        start: Instant,
        mut is_alive: impl FnMut() -> Result<()>,
    ) -> Result<Progress> {
        // read_uncommitted: a look must not wait for the transaction under way to end.
        let asking = self.consumer(group, "read_uncommitted")?;
        let reading = self.consumer(group, "read_committed")?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(&names.orders_topic, 0, PARTITIONS - 1);
        let mut first: Option<(Instant, usize)> = None;
        let (mut last, mut last_change) = (0, Instant::now());
        loop {
            let published = committed(&asking, &partitions)?;
            let now = Instant::now();
            if published > last {
                first.get_or_insert((now, published));
                (last, last_change) = (published, now);
            }
            if published >= orders {
                break;
            }
            is_alive()?;
            if last_change.elapsed() > SILENCE_LIMIT {
                bail!("no progress for {SILENCE_LIMIT:?}: {published} of {orders} orders published");
            }
            std::thread::sleep(LOOK);
        }
        for topic in [&names.accepted_topic, &names.rejected_topic] {
            for partition in 0..PARTITIONS {
                // Equal when no transaction is open: then everything up to there can be read.
                while reading.fetch_watermarks(topic, partition, ANSWER_LIMIT)?.1
                    < asking.fetch_watermarks(topic, partition, ANSWER_LIMIT)?.1
                {}
            }
        }
        let end = Instant::now();
        let (first, already) = first.unwrap_or((start, 0));
        Ok(Progress {
            orders: orders - already,
            time: end - first,
            start_up: first - start,
            total: end - start,
        })
    }

    /// Counts what a reader with `read_committed` sees of a topic.
    pub fn count(&self, topic: &str) -> Result<usize> {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "bench-count")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        reader.assign(&all)?;
        let (mut count, mut ended) = (0, 0);
        while ended < PARTITIONS {
            match reader.poll(SILENCE_LIMIT) {
                Some(Ok(_)) => count += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => return Err(error.into()),
                None => bail!("{topic} could not be read to its end: {count} records"),
            }
        }
        Ok(count)
    }
}

fn committed(consumer: &BaseConsumer, partitions: &TopicPartitionList) -> Result<usize> {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    let committed = match consumer.committed_offsets(partitions.clone(), ANSWER_LIMIT) {
        // A broker that just started has to make room for the first group's offsets: there are none yet.
        Err(error)
            if matches!(
                error.rdkafka_error_code(),
                Some(NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress)
            ) =>
        {
            return Ok(0);
        }
        committed => committed?,
    };
    Ok(committed
        .elements()
        .iter()
        .filter_map(|element| element.offset().to_raw())
        .filter_map(|offset| usize::try_from(offset).ok())
        .sum())
}

/// An order as its producer writes it.
pub fn order_value(order: &Order) -> String {
    use std::fmt::Write as _;
    let id = &order.id;
    let mut value = match &order.asks {
        Asks::Order => format!("{{\"type\":\"order.created\",\"order_id\":\"{id}\",\"lines\":["),
        Asks::Hold => {
            format!("{{\"type\":\"order.created\",\"order_id\":\"{id}\",\"hold_seconds\":86400,\"lines\":[")
        }
        Asks::Cancel => return format!("{{\"type\":\"order.cancelled\",\"order_id\":\"{id}\"}}"),
        Asks::Return { order } => {
            format!(
                "{{\"type\":\"order.returned\",\"order_id\":\"{order}\",\"return_id\":\"{id}\",\"lines\":["
            )
        }
        Asks::Restock => {
            let Line { sku, quantity } = order.lines[0];
            return format!(
                "{{\"type\":\"stock.received\",\"adjustment_id\":\"{id}\",\"sku\":\"{}\",\"quantity\":{quantity}}}",
                sku_name(sku)
            );
        }
    };
    for (place, line) in order.lines.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(value, "{comma}{{\"sku\":\"{}\",\"quantity\":{}}}", sku_name(line.sku), line.quantity);
    }
    value.push_str("]}");
    value
}
