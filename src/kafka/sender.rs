//! A plain producer: sends, and waits until it is known of each record whether it arrived.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::error::ClientError;
use super::record::{record, topic};
use super::renewed::RenewedProducer;
use crate::config::{KafkaArgs, TopicArgs};
use crate::event::Outgoing;
use crate::ledger::TopicPartition;

/// How long a record may be under way before it counts as lost, and is republished later.
const MESSAGE_TIMEOUT_MS: &str = "10000";
/// Longest wait for everything sent to arrive or fail: past it librdkafka itself has given up on all of it.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(15);
/// The pause when the send queue is full.
const ROOM_LOOK: Duration = Duration::from_millis(1);
/// Records waiting to be sent at most.
const SEND_QUEUE_RECORDS: &str = "50000";
/// KiB waiting to be sent at most.
const SEND_QUEUE_KIB: &str = "16384";
/// Longest wait for Kafka's word on a topic.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A record to send, and the partition it goes to; `None` goes to its channel's topic, by its key.
pub(crate) type Posted = (Outgoing, Option<TopicPartition>);

/// An idempotent producer without transactions. One that a fatal error broke is made anew.
pub(crate) struct Sender {
    topics: TopicArgs,
    producer: RenewedProducer<Reports>,
}

/// A record that did not arrive, as far as is known.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Its index among those sent with it.
    pub(crate) index: usize,
    /// Why.
    pub(crate) error: ClientError,
}

impl Lost {
    /// Whether Kafka refuses this very record, now and later.
    pub(crate) fn for_good(&self) -> bool {
        self.is_too_large() || self.is_invalid()
    }

    /// Whether Kafka refuses its time: this host's clock and the brokers' are further apart than the topic allows.
    pub(crate) fn is_for_clocks(&self) -> bool {
        self.error.code() == Some(RDKafkaErrorCode::InvalidTimestamp)
    }

    fn is_invalid(&self) -> bool {
        self.error.code() == Some(RDKafkaErrorCode::InvalidRecord)
    }

    fn is_too_large(&self) -> bool {
        self.error.code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }
}

/// Notes what became of each record of one attempt.
struct Arrivals {
    known: Mutex<Known>,
    all_known: Condvar,
}

struct Known {
    lost: Vec<Lost>,
    /// By index: whether it was reported.
    reported: Vec<bool>,
    missing: usize,
}

impl Arrivals {
    fn of(records: usize) -> Self {
        let known = Known { lost: Vec::new(), reported: vec![false; records], missing: records };
        Self { known: Mutex::new(known), all_known: Condvar::new() }
    }

    fn report(&self, index: usize, result: Result<(), KafkaError>) {
        // Holds no state that a panic could leave half changed: the process ends with one anyway.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut known.reported[index], true) {
            known.missing -= 1;
            known.lost.extend(result.err().map(|error| Lost { index, error: error.into() }));
            if known.missing == 0 {
                self.all_known.notify_all();
            }
        }
    }

    /// What did not arrive, once that is known of all; what is not known within the limit counts as lost.
    fn lost(&self, limit: Duration) -> Vec<Lost> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, _) = self
            .all_known
            .wait_timeout_while(known, limit, |known| known.missing > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let mut lost = std::mem::take(&mut known.lost);
        let silent = known.reported.iter().enumerate().filter(|(_, reported)| !**reported);
        lost.extend(silent.map(|(index, _)| Lost {
            index,
            error: KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut).into(),
        }));
        lost
    }
}

/// A record's way back to who waits for it.
struct Ticket {
    arrivals: Arc<Arrivals>,
    index: usize,
}

/// Hands the word on each record on.
#[derive(Default)]
struct Reports;

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer of levels");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;
    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        ticket.arrivals.report(ticket.index, result);
    }
}

impl Sender {
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub(crate) fn new(kafka: &KafkaArgs, topics: &TopicArgs) -> Result<Self> {
        let mut config = kafka.client()?;
        config
            .set("client.id", "stock-verifier-levels")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", SEND_QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", SEND_QUEUE_KIB)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS);
        kafka.overlay(&mut config);
        config
            // Keeps the order of a partition's records, also over a retry: the newest level is the last.
            .set("enable.idempotence", "true")
            // What arrived is waited for, record by record.
            .set("delivery.report.only.error", "false");
        let producer = RenewedProducer::new("levels and questions", config)?;
        Ok(Self { topics: topics.clone(), producer })
    }

    /// Sends, each to its channel's topic or to a partition of its own, and waits until it is known of each whether it
    /// arrived: what did not is returned, and holds nothing else up. On a thread of its own.
    ///
    /// # Errors
    /// When nothing was sent.
    pub(crate) async fn send(self: &Arc<Self>, events: Vec<Posted>) -> Result<Vec<Lost>> {
        let sender = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let indexes: Vec<usize> = (0..events.len()).collect();
            let mut lost = sender.send_these(&events, &indexes)?;
            sender.find_why(&events, &mut lost)?;
            lost.sort_unstable_by_key(|lost| lost.index);
            Ok(lost)
        })
        .await
        .context("sending panicked")?
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When Kafka does not answer, or there is no such topic.
    pub(crate) async fn partitions(self: &Arc<Self>, topic: &str) -> Result<i32> {
        let (sender, topic) = (Arc::clone(self), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let metadata = sender
                .producer
                .get()?
                .client()
                .fetch_metadata(Some(&topic), ANSWER_LIMIT)
                .with_context(|| format!("no answer from Kafka about topic {topic}"))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let error = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
            if error == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
                bail!("this user may not see topic {topic} (ACL: Describe, which Write implies)");
            }
            match found.map(|found| i32::try_from(found.partitions().len())) {
                Some(Ok(partitions)) if partitions > 0 => Ok(partitions),
                _ => bail!("Kafka knows no partitions of topic {topic}"),
            }
        })
        .await
        .context("asking panicked")?
    }

    /// Sends the records at these indexes; what did not arrive.
    fn send_these(&self, events: &[Posted], indexes: &[usize]) -> Result<Vec<Lost>> {
        let mut lost = self.attempt(events, indexes)?;
        let large: Vec<usize> =
            lost.iter().filter(|lost| lost.is_too_large()).map(|lost| lost.index).collect();
        // A broker refuses a batch as a whole, so those that are not too large by themselves are sent again.
        if indexes.len() > 1 && !large.is_empty() {
            lost.retain(|lost| !lost.is_too_large());
            let (first, second) = large.split_at(large.len().div_ceil(2));
            for half in [first, second] {
                if !half.is_empty() {
                    lost.extend(self.send_these(events, half)?);
                }
            }
        }
        Ok(lost)
    }

    /// Finds Kafka's word for several records that are called invalid. librdkafka (2.12) calls those so that are refused
    /// together, be it for their time; one that is sent alone has Kafka's own word.
    fn find_why(&self, events: &[Posted], lost: &mut Vec<Lost>) -> Result<()> {
        let mut invalid = lost.iter().filter(|lost| lost.is_invalid()).map(|lost| lost.index);
        let (Some(first), Some(_)) = (invalid.next(), invalid.next()) else { return Ok(()) };
        let why = if let Some(alone) = self.attempt(events, &[first])?.pop() {
            alone.error
        } else {
            // What stood in its way is over, and may be for the others.
            lost.retain(|lost| lost.index != first);
            KafkaError::MessageProduction(RDKafkaErrorCode::InvalidDifferentRecord).into()
        };
        for lost in lost.iter_mut().filter(|lost| lost.is_invalid()) {
            lost.error = why.clone();
        }
        Ok(())
    }

    fn attempt(&self, events: &[Posted], indexes: &[usize]) -> Result<Vec<Lost>> {
        let producer = self.producer.get()?;
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        let arrivals = Arc::new(Arrivals::of(indexes.len()));
        for (index, event) in indexes.iter().enumerate() {
            let (event, at) = &events[*event];
            let mut record = match at {
                Some(at) => posted(record(event, &at.topic).partition(at.partition), &arrivals, index),
                None => posted(record(event, topic(&self.topics, event.channel)), &arrivals, index),
            };
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull)
                    || Instant::now() > deadline
                {
                    arrivals.report(index, Err(error));
                    break;
                }
                record = back;
                std::thread::sleep(ROOM_LOOK);
            }
        }
        let mut lost = arrivals.lost(ARRIVAL_LIMIT);
        for lost in &mut lost {
            lost.index = indexes[lost.index];
            tracing::debug!(error = %lost.error, "a record was not delivered");
        }
        Ok(lost)
    }
}

/// The record with its way back.
fn posted<'a>(
    record: BaseRecord<'a, [u8], [u8]>,
    arrivals: &Arc<Arrivals>,
    index: usize,
) -> BaseRecord<'a, [u8], [u8], Box<Ticket>> {
    let BaseRecord { topic, partition, payload, key, timestamp, headers, delivery_opaque: () } = record;
    let delivery_opaque = Box::new(Ticket { arrivals: Arc::clone(arrivals), index });
    BaseRecord { topic, partition, payload, key, timestamp, headers, delivery_opaque }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::renewed::RENEW_PAUSE;
    use super::*;
    use crate::event::{Channel, hold_due};
    use crate::ledger::Id;

    /// Kafka's part in these tests is to take records; nothing here is about exactness.
    struct Scene {
        cluster: MockCluster<'static, DefaultProducerContext>,
        sender: Arc<Sender>,
    }

    fn scene() -> Scene {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let topics = topics();
        cluster.create_topic(&topics.orders_topic, 2, 1).expect("a topic");
        let kafka = KafkaArgs {
            brokers: cluster.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let sender = Arc::new(Sender::new(&kafka, &topics).expect("a sender"));
        Scene { cluster, sender }
    }

    fn topics() -> TopicArgs {
        let name = |name: &str| name.to_owned();
        TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        }
    }

    fn question(id: &str, at: Option<(&str, i32)>) -> Posted {
        let id = Id::new(id).expect("an id");
        (hold_due(&id), at.map(|(topic, partition)| TopicPartition::new(topic, partition)))
    }

    fn large() -> Posted {
        let value = Some(vec![b'x'; 2_000_000]);
        (Outgoing { channel: Channel::Orders, key: None, value, headers: Vec::new() }, None)
    }

    fn indexes(lost: &[Lost]) -> Vec<usize> {
        lost.iter().map(|lost| lost.index).collect()
    }

    #[tokio::test]
    async fn what_can_never_be_sent_holds_nothing_else_up() {
        let Scene { cluster: _cluster, sender } = scene();
        let events = vec![
            question("o-1", None),
            large(),
            question("o-2", Some(("o", 7))),
            question("o-3", Some(("o", 1))),
        ];
        let lost = sender.send(events).await.expect("sent");
        assert_eq!(indexes(&lost), [1, 2], "{lost:?}");
        assert!(lost[0].for_good() && !lost[1].for_good(), "{lost:?}");
    }

    /// Breaks the producer as librdkafka itself does when Kafka refuses to go on with it.
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn break_for_good(sender: &Sender) {
        let producer = sender.producer.get().expect("a producer");
        let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // Sound because the client lives through the call, and the text ends in NUL.
        unsafe {
            rdkafka::bindings::rd_kafka_test_fatal_error(
                producer.client().native_ptr(),
                code,
                c"a test".as_ptr(),
            );
        }
    }

    #[tokio::test]
    async fn a_producer_that_is_broken_for_good_is_made_anew_after_a_pause() {
        let Scene { cluster: _cluster, sender } = scene();
        for _ in 0..2 {
            break_for_good(&sender);
            let broken = Instant::now();
            let error = sender.send(vec![question("o-1", None)]).await.expect_err("it is broken");
            assert!(error.to_string().contains("made anew in a moment"), "{error:#}");
            while sender.send(vec![question("o-1", None)]).await.map_or(true, |lost| !lost.is_empty()) {
                assert!(broken.elapsed() < RENEW_PAUSE + ARRIVAL_LIMIT, "it stays broken");
                tokio::time::sleep(ROOM_LOOK).await;
            }
        }
    }

    #[tokio::test]
    async fn asking_after_a_topic_that_is_gone_does_not_make_it() {
        // This broker makes every topic that it is asked for by who allows that.
        let Scene { cluster: _cluster, sender } = scene();
        for _ in 0..2 {
            let error = sender.partitions("gone").await.expect_err("nobody made it");
            assert!(error.to_string().contains("no partitions of topic gone"), "{error:#}");
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_for_the_broker_is_sent_in_parts() {
        let Scene { cluster, sender } = scene();
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let events = (0..5).map(|n| question(&format!("o-{n}"), Some(("o", 0)))).collect();
        let lost = sender.send(events).await.expect("sent");
        assert_eq!(indexes(&lost), [0_usize; 0], "{lost:?}");
    }

    #[tokio::test]
    async fn records_refused_for_the_clocks_are_not_refused_for_good() {
        let Scene { cluster, sender } = scene();
        // What librdkafka makes of Kafka's word for several, and the word for one of them alone.
        cluster.request_errors(
            RDKafkaApiKey::Produce,
            &[
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD,
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
            ],
        );
        let events =
            || -> Vec<Posted> { (0..5).map(|n| question(&format!("o-{n}"), Some(("o", 0)))).collect() };
        let lost = sender.send(events()).await.expect("sent");
        assert!(lost.iter().any(Lost::is_for_clocks), "{lost:?}");
        assert!(!lost.iter().any(Lost::for_good), "{lost:?}");
        let lost = sender.send(events()).await.expect("sent");
        assert_eq!(indexes(&lost), [0_usize; 0], "{lost:?}");
    }
}
