//! Kafka as a producer, a consumer and an operator see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header as KafkaHeader, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};
use stock_verifier::config::KafkaArgs;
use stock_verifier::event::{Header, Record};
use stock_verifier::kafka::asker::Asker;
use stock_verifier::ledger::{Offset, Source, TopicPartition};

use super::servers::wait_for;
use super::wait;

/// Longest wait for any one answer of Kafka.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a question to Kafka's administration is asked again, each time by a new client.
const ASKED_AGAIN: usize = 5;

/// A record to be produced.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Where to; `None` goes by the key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
}

impl Sent {
    /// To this partition.
    pub fn to(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push(Header { name: name.to_owned(), value: Some(value.to_vec()) });
        self
    }
}

/// What Kafka's administration answers.
///
/// A broker just started, or just gone, may be missing in what another says of the cluster: then the client drops it, and
/// what it was asked.
fn asked_again<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> T {
    let mut answer = ask();
    for _ in 0..ASKED_AGAIN {
        if !matches!(answer, Err(KafkaError::AdminOp(RDKafkaErrorCode::DestroyBroker))) {
            break;
        }
        answer = ask();
    }
    answer.expect("Kafka answers")
}

/// What is there already was created when that was asked for before.
fn is_there(created: TopicResult) -> TopicResult {
    match created {
        Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(topic),
        created => created,
    }
}

/// A record with this key and value.
pub fn sent(key: &str, value: impl Into<Vec<u8>>) -> Sent {
    Sent { key: Some(key.as_bytes().to_vec()), value: Some(value.into()), ..Sent::default() }
}

/// An order for these lines.
pub fn order(id: &str, lines: &[(&str, i64)]) -> Sent {
    let lines: Vec<_> =
        lines.iter().map(|(sku, quantity)| serde_json::json!({"sku": sku, "quantity": quantity})).collect();
    let value = serde_json::json!({"type": "order.created", "order_id": id, "lines": lines});
    sent(id, value.to_string())
}

/// A cluster.
pub struct Cluster {
    /// Its bootstrap servers.
    pub brokers: String,
    /// Clients that ask and never read, by isolation level and group: connecting anew for each question takes longer
    /// than the answer.
    asking: Mutex<HashMap<(String, String), Arc<BaseConsumer>>>,
}

/// Counts what was not delivered.
#[derive(Default)]
struct Failed(AtomicU64);
impl ClientContext for Failed {}
impl ProducerContext for Failed {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Longest wait for one answer, where it is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Stands for the broker's own number of replicas.
const BROKERS_DEFAULT: i32 = -1;

impl Cluster {
    /// The cluster of these bootstrap servers.
    pub fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), asking: Mutex::default() }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    fn consumer(&self, isolation: &str, group: &str) -> BaseConsumer {
        self.client()
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.message.max.bytes", "8388608")
            // How soon an empty partition says that it has ended.
            .set("fetch.wait.max.ms", "10")
            .create()
            .expect("a consumer")
    }

    /// A static member of a group, which joins while it is polled. Its name in the group is its client id.
    pub fn static_member(&self, group: &str, name: &str, topic: &str) -> BaseConsumer {
        let member: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("client.id", name)
            .set("group.instance.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // Whoever is killed is still a member when it comes back.
            .set("session.timeout.ms", "120000")
            .create()
            .expect("a consumer");
        member.subscribe(&[topic]).expect("subscribed");
        member
    }

    /// Asks about groups.
    pub fn asker(&self) -> Asker {
        let kafka =
            KafkaArgs { brokers: self.brokers.clone(), kafka_password_file: None, properties: Vec::new() };
        Asker::new(&kafka, "tests", None).expect("a client that asks")
    }

    fn asking(&self, isolation: &str, group: &str) -> Arc<BaseConsumer> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let client = asking
            .entry((isolation.to_owned(), group.to_owned()))
            .or_insert_with(|| Arc::new(self.consumer(isolation, group)));
        Arc::clone(client)
    }

    /// Creates a topic.
    pub fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]);
    }

    /// Creates a topic with these settings.
    pub fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.create_all(&[topic], partitions, settings);
    }

    /// Creates topics alike: together, since each request is a client of its own.
    pub fn create_all(&self, topics: &[impl AsRef<str>], partitions: i32, settings: &[(&str, &str)]) {
        let new = topics.iter().map(|topic| {
            let new = NewTopic::new(topic.as_ref(), partitions, TopicReplication::Fixed(BROKERS_DEFAULT))
                .set("max.message.bytes", "8388608");
            settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<_> = new.collect();
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        let mut is_again = false;
        let created = asked_again(|| {
            let created = wait_for(self.admin().create_topics(&new, &options));
            // What is asked again may be done.
            let may_be_there = std::mem::replace(&mut is_again, true);
            let judge = |created| if may_be_there { is_there(created) } else { created };
            created.map(|all| all.into_iter().map(judge).collect::<Vec<_>>())
        });
        for created in created {
            created.expect("created");
        }
        for topic in topics {
            wait::until("the topic is known", LIMIT, || self.partitions(topic.as_ref()) == partitions);
        }
    }

    /// How many brokers there are.
    pub fn brokers_there(&self) -> usize {
        // Not by a consumer: that looks for its group's coordinator, and Kafka makes the topic of what groups commit for it, led by
        // those brokers alone that are there already.
        let metadata = self.admin().inner().fetch_metadata(None, LIMIT);
        metadata.map_or(0, |metadata| metadata.brokers().len())
    }

    /// How many replicas of all partitions of a topic follow.
    pub fn in_sync(&self, topic: &str) -> usize {
        let metadata = self.asking("read_committed", "nobody").fetch_metadata(Some(topic), LIMIT);
        metadata.map_or(0, |metadata| {
            metadata.topics().iter().flat_map(MetadataTopic::partitions).map(|at| at.isr().len()).sum()
        })
    }

    /// The broker that coordinates a group: the leader of the partition that keeps what it commits, which Kafka finds by
    /// Java's hash of the group's name.
    ///
    /// `None` where that is not known yet.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        let hash = group
            .encode_utf16()
            .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
        let leaders = self.leaders_of_offsets();
        // As Kafka makes it positive (`Utils.abs`): not as it does with a key's hash, by leaving a bit out.
        let number = hash
            .checked_abs()
            .unwrap_or(0)
            .checked_rem(i32::try_from(leaders.len()).expect("few partitions"))?;
        leaders.get(&number).copied().filter(|leader| *leader >= 0)
    }

    /// The brokers that coordinate groups.
    pub fn coordinators(&self) -> BTreeSet<i32> {
        self.leaders_of_offsets().into_values().collect()
    }

    /// The leader of each partition that keeps what groups commit.
    fn leaders_of_offsets(&self) -> BTreeMap<i32, i32> {
        let metadata = self
            .asking("read_committed", "nobody")
            .fetch_metadata(Some("__consumer_offsets"), LIMIT)
            .expect("Kafka answers");
        metadata.topics()[0].partitions().iter().map(|at| (at.id(), at.leader())).collect()
    }

    /// Deletes a topic, and waits until nobody knows it.
    pub fn delete(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        for deleted in asked_again(|| wait_for(self.admin().delete_topics(&[topic], &options))) {
            assert!(
                matches!(deleted, Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))),
                "{deleted:?}"
            );
        }
        wait::until("the topic is gone", LIMIT, || self.partitions(topic) == 0);
    }

    /// Deletes topics without waiting, those of them that there are.
    pub fn delete_if_there(&self, topics: &[&str]) {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_LIMIT));
        let _ = wait_for(self.admin().delete_topics(topics, &options));
    }

    /// Changes a setting of a topic; the others go back to the broker's own.
    pub fn set(&self, topic: &str, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let options = AdminOptions::new();
        for changed in asked_again(|| wait_for(self.admin().alter_configs([&change], &options))) {
            changed.expect("changed");
        }
        wait::until("the setting is changed", LIMIT, || self.config(topic, name) == value);
    }

    /// A setting of a topic.
    pub fn config(&self, topic: &str, name: &str) -> String {
        let wanted = ResourceSpecifier::Topic(topic);
        // A broker that has not heard of a new topic yet says nothing of it.
        wait::value("the setting is told", LIMIT, || {
            let found =
                asked_again(|| wait_for(self.admin().describe_configs([&wanted], &AdminOptions::new())));
            let found = found.into_iter().next().expect("one topic").ok()?;
            found.get(name).and_then(|entry| entry.value.clone())
        })
    }

    /// Commits an offset for a group that has no members, as an operator can.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, KafkaOffset::Offset(offset)).expect("an offset");
        let consumer = self.consumer("read_committed", group);
        wait::until("the offset is committed", LIMIT, || {
            consumer.commit(&offsets, rdkafka::consumer::CommitMode::Sync).is_ok()
        });
    }

    /// Makes a group forget what it committed. It must have no members.
    pub fn delete_group(&self, group: &str) {
        wait::until("the group is empty and deleted", LIMIT, || {
            let done = asked_again(|| wait_for(self.admin().delete_groups(&[group], &AdminOptions::new())));
            done.into_iter().all(|group| group.is_ok())
        });
    }

    /// Deletes the records of a partition below an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, KafkaOffset::Offset(below)).expect("an offset");
        asked_again(|| wait_for(self.admin().delete_records(&offsets, &AdminOptions::new())));
        wait::until("the records are gone", LIMIT, || self.first(topic, partition) == below);
    }

    /// The number of a topic's partitions; 0 when there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        let client = self.asking("read_committed", "nobody");
        // The first question after a connection broke can be lost with it.
        let metadata = wait::value("Kafka says which partitions there are", LIMIT, || {
            client.fetch_metadata(Some(topic), ANSWER_LIMIT).ok()
        });
        let topic = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).expect("few"))
    }

    /// The first offset of a partition.
    pub fn first(&self, topic: &str, partition: i32) -> i64 {
        watermarks(&self.asking("read_uncommitted", "nobody"), topic, partition).0
    }

    /// The end of each partition, or with `read_committed` the last stable offset: what open transactions leave.
    pub fn ends(&self, topic: &str, isolation: &str) -> Vec<i64> {
        let consumer = self.asking(isolation, "nobody");
        (0..self.partitions(topic)).map(|partition| watermarks(&consumer, topic, partition).1).collect()
    }

    /// What a group committed, for each partition.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        self.try_committed(group, topic).expect("Kafka answers")
    }

    /// The same, while Kafka may be away.
    pub fn try_committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(topic, 0, self.partitions(topic) - 1);
        let found = self.asking("read_uncommitted", group).committed_offsets(wanted, LIMIT)?;
        Ok(found.elements().iter().map(|e| e.offset().to_raw().filter(|offset| *offset >= 0)).collect())
    }

    /// The members of a group that read orders, by their client ids: one for each worker.
    pub fn members(&self, group: &str) -> Vec<String> {
        let mut members = self.all_members(group);
        members.retain(|member| !member.ends_with("-adjustments"));
        members
    }

    /// The members of a group, by their client ids: each worker is two.
    pub fn all_members(&self, group: &str) -> Vec<String> {
        let consumer = self.asking("read_committed", "nobody");
        let groups = wait::value("Kafka says which members there are", LIMIT, || {
            consumer.fetch_group_list(Some(group), ANSWER_LIMIT).ok()
        });
        let members = groups.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
        members.map(|member| member.client_id().to_owned()).collect()
    }

    /// Produces, and waits until all of it has arrived.
    pub fn produce(&self, topic: &str, records: &[Sent]) {
        self.produce_with(topic, records, &[]);
    }

    /// The same with properties of librdkafka.
    pub fn produce_with(&self, topic: &str, records: &[Sent], properties: &[(&str, &str)]) {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("batch.size", "1000000")
            .set("message.max.bytes", "8388608")
            .set("queue.buffering.max.messages", "200000")
            .set("compression.type", "lz4");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer: ThreadedProducer<Failed> =
            config.create_with_context(Failed::default()).expect("a producer");
        for sent in records {
            let mut headers = OwnedHeaders::new();
            for Header { name, value } in &sent.headers {
                headers = headers.insert(KafkaHeader { key: name, value: value.as_deref() });
            }
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
            record.partition = sent.partition;
            record.key = sent.key.as_deref();
            record.payload = sent.value.as_deref();
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        producer.flush(LIMIT).expect("everything arrives");
        assert_eq!(producer.context().0.load(Ordering::SeqCst), 0, "records were not delivered to {topic}");
    }

    /// A transaction with one record on partition 0 of a topic, open until it is dropped.
    pub fn open_transaction(&self, topic: &str) -> OpenTransaction {
        self.open_transaction_at(topic, 0)
    }

    /// The same in this partition.
    pub fn open_transaction_at(&self, topic: &str, partition: i32) -> OpenTransaction {
        let mut config = self.client();
        config
            .set("transactional.id", super::database::unique("open"))
            .set("transaction.timeout.ms", "600000");
        let producer: ThreadedProducer<Failed> =
            config.create_with_context(Failed::default()).expect("a producer");
        producer.init_transactions(LIMIT).expect("Kafka answers");
        producer.begin_transaction().expect("it begins");
        let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(b"never committed");
        producer.send(record).map_err(|(error, _)| error).expect("sent");
        producer.flush(LIMIT).expect("it arrives");
        OpenTransaction(producer)
    }

    /// Every record a `read_committed` reader sees, from the first to the end there is now.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.each(&[topic], |message| records.push(owned(message)));
        records
    }

    /// The same of several topics at rest, in their order: by one client, which takes longer to make than to read.
    pub fn read_all<const N: usize>(&self, topics: [&str; N]) -> [Vec<Record>; N] {
        let mut records = [const { Vec::new() }; N];
        self.each(&topics, |message| {
            let topic = topics.iter().position(|topic| *topic == message.topic()).expect("one of them");
            records[topic].push(owned(message));
        });
        records
    }

    /// How many records a `read_committed` reader sees.
    pub fn count(&self, topic: &str) -> usize {
        let mut count = 0;
        self.each(&[topic], |_| count += 1);
        count
    }

    fn each(&self, topics: &[&str], mut see: impl FnMut(&BorrowedMessage<'_>)) {
        let consumer = self.consumer("read_committed", "nobody");
        let mut from = TopicPartitionList::new();
        for topic in topics {
            let partitions = self.partitions(topic);
            assert!(partitions > 0, "there is no topic {topic}");
            for partition in 0..partitions {
                from.add_partition_offset(topic, partition, KafkaOffset::Beginning).expect("an offset");
            }
        }
        // The end of a partition is an error that does not say of which topic: as many must come as topics have it.
        let mut open: HashMap<i32, usize> = HashMap::new();
        for element in from.elements() {
            *open.entry(element.partition()).or_default() += 1;
        }
        consumer.assign(&from).expect("assigned");
        let deadline = Instant::now() + LIMIT * 3;
        while open.values().any(|open| *open > 0) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => see(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let open = open.get_mut(&partition).expect("a partition that was assigned");
                    *open = open.saturating_sub(1);
                }
                Some(Err(error)) if !is_passing(&error) => panic!("reading {topics:?}: {error}"),
                Some(Err(_)) | None => {}
            }
            assert!(Instant::now() < deadline, "{topics:?} could not be read to their ends");
        }
    }
}

/// Undone when dropped.
pub struct OpenTransaction(ThreadedProducer<Failed>);

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        let aborted = self.0.abort_transaction(LIMIT);
        // A second panic would end all tests.
        if !std::thread::panicking() {
            aborted.expect("Kafka answers");
        }
    }
}

/// Whether a connection broke: the client makes another, and reads on.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

/// A partition's first offset and its end. A broker that was just started may not lead it yet.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let what = format!("Kafka says where {topic}[{partition}] begins and ends");
    wait::value(&what, LIMIT, || {
        let answer = consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT).ok();
        if answer.is_none() {
            // A client that reads nothing goes on asking the leader it knew, be it dead.
            let _ = consumer.fetch_metadata(Some(topic), ANSWER_LIMIT);
        }
        answer
    })
}

fn owned(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| Header { name: header.key.to_owned(), value: header.value.map(<[u8]>::to_vec) })
            .collect()
    });
    Record {
        source: Source {
            at: TopicPartition::new(message.topic(), message.partition()),
            offset: Offset(message.offset()),
        },
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
        decoded: None,
    }
}

/// The one value of a header, as text.
pub fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let value = record.headers.iter().find(|header| header.name == name)?.value.as_deref()?;
    Some(std::str::from_utf8(value).expect("UTF-8"))
}
