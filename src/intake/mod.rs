//! Kafka to batches.
//!
//! One thread polls, because librdkafka wants to be polled from one place
//! and because asynchronous wake-ups have stalled silently (rust-rdkafka#665,
//! #840). Records are parsed to owned values at once: a borrowed message pins
//! the whole fetch it came in.

mod assignment;
pub mod batch;
pub mod ownership;
pub mod recovery;
mod topic_watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::{Semaphore, TryAcquireError, mpsc};
use tokio_util::sync::CancellationToken;

pub use assignment::Assignment;
use batch::{Batch, Bounds, Gathering, Item};
pub use topic_watch::{TopicNews, TopicWatch};

use crate::config::{GroupArgs, GroupProtocol, KafkaArgs};
use crate::event::{Header, Record, read_command};
use crate::ledger::Source;

/// Longest sleep in one poll: how soon a stop or a rewind is seen when no record comes.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Longest wait for room in the next stage without polling; then the partitions are paused and polling goes on,
/// so that the group does not take this member for dead. Pausing throws prefetched records away, so not at once.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// The time between two rewinds. What cannot be begun now is tried again; the member polls meanwhile, or the group
/// could not give its partitions to another.
const REWIND_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for batches under way when stopping.
const STOP_DRAIN: Duration = Duration::from_secs(30);
/// Records prefetched at most, and KiB of them: what bounds memory while a backlog drains.
const PREFETCH_RECORDS: &str = "20000";
const PREFETCH_KIB: &str = "16384";
/// Largest fetch, in bytes. A fetch is compressed: orders grow to some ten times of it when it is opened, all at once,
/// so 8 MiB made for 160 MB resident and 1 MiB makes for 60, and no slower. A larger record comes all the same, alone.
const FETCH_MAX_BYTES: &str = "1048576";

/// The polling end of a pipeline.
pub struct Intake {
    consumer: Arc<BaseConsumer<Assignment>>,
    gathering: Gathering,
    /// Their names, for messages.
    topics: String,
}

/// The consumer's configuration.
///
/// # Errors
/// When a password file cannot be read.
pub fn consumer_config(kafka: &KafkaArgs, group: &GroupArgs) -> Result<ClientConfig> {
    let mut config = kafka.client()?;
    config
        .set("client.id", format!("stock-verifier-{}", group.instance_id))
        .set("group.id", &group.group)
        // Offsets travel in the producer's transactions only.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is never answered by silently jumping.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("queued.min.messages", PREFETCH_RECORDS)
        .set("queued.max.messages.kbytes", PREFETCH_KIB)
        .set("fetch.max.bytes", FETCH_MAX_BYTES)
        // The default of a second would be a pause in every drain of a backlog.
        .set("fetch.queue.backoff.ms", "5");
    match group.group_protocol {
        GroupProtocol::Classic => {
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", "10000")
                .set("heartbeat.interval.ms", "2000");
        }
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    kafka.overlay(&mut config);
    Ok(config)
}

impl Intake {
    /// Joins the group. Partitions are assigned while [`Intake::run`] polls.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn join(
        config: &ClientConfig,
        topics: &[&str],
        bounds: Bounds,
        assignment: Assignment,
    ) -> Result<Self> {
        let consumer: BaseConsumer<Assignment> =
            config.create_with_context(assignment).context("the consumer's configuration is refused")?;
        let topics_named = topics.join(" and ");
        consumer.subscribe(topics).with_context(|| format!("cannot subscribe to {topics_named}"))?;
        Ok(Self { consumer: Arc::new(consumer), gathering: Gathering::new(bounds), topics: topics_named })
    }

    /// How the telling end learns which member of the group speaks.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership(Arc::clone(&self.consumer))
    }

    /// Polls until stopped, handing over a batch at each of the `turns` that the next stage gives; then hands over
    /// what it gathered, waits for its telling, and leaves the group.
    ///
    /// Blocks: runs on a thread of its own.
    ///
    /// # Errors
    /// When Kafka refuses the member for good, or a partition may not be begun (see [`recovery`]).
    pub fn run(
        mut self,
        batches: mpsc::Sender<Batch>,
        turns: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<()> {
        let assignment = Arc::clone(self.consumer.context());
        let mut waiting_since: Option<Instant> = None;
        let mut paused = false;
        let mut rewind_after = Instant::now();
        while !stop.is_cancelled() {
            assignment.take_failure()?;
            if assignment.rewind_is_due() {
                self.gathering.clear();
                if Instant::now() >= rewind_after && assignment.is_idle() {
                    assignment.rewind(&self.consumer)?;
                    rewind_after = Instant::now() + REWIND_PAUSE;
                }
                // Not done, or not possible yet: the group must not take this member for dead meanwhile.
                if assignment.rewind_is_due() {
                    self.poll(&assignment, POLL_MAX)?;
                }
                continue;
            }
            let patience = self.gathering.patience(Instant::now());
            if patience == Some(Duration::ZERO) {
                match turns.try_acquire() {
                    Ok(turn) => {
                        turn.forget();
                        if batches.blocking_send(self.gathering.take(assignment.enter())).is_err() {
                            break;
                        }
                        waiting_since = None;
                        if std::mem::take(&mut paused) {
                            assignment.resume(&self.consumer)?;
                        }
                        continue;
                    }
                    Err(TryAcquireError::Closed) => break,
                    Err(TryAcquireError::NoPermits) if self.gathering.is_full() => {
                        let since = *waiting_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < PAUSE_AFTER {
                            assignment.wait_for_turn(turns, PAUSE_AFTER);
                            continue;
                        }
                        // Again each time round: a partition assigned meanwhile is not paused yet.
                        self.consumer
                            .pause(&self.consumer.assignment()?)
                            .context("cannot pause the partitions")?;
                        paused = true;
                    }
                    // Old enough but not full: grow while the next stage is busy.
                    Err(TryAcquireError::NoPermits) => {}
                }
            }
            let wait = match patience {
                None => POLL_MAX,
                Some(Duration::ZERO) => Duration::from_millis(1),
                Some(patience) => patience.min(POLL_MAX),
            };
            self.poll(&assignment, wait)?;
        }
        self.leave(&assignment, batches)
    }

    fn poll(&mut self, assignment: &Assignment, wait: Duration) -> Result<()> {
        let polled = self.consumer.poll(wait);
        if assignment.take_changed() {
            self.gathering.drop_ended(&assignment.ownership);
        }
        match polled {
            None => Ok(()),
            Some(Ok(message)) => {
                if let Some((slice, source)) =
                    assignment.admit(message.topic(), message.partition(), message.offset())
                {
                    let (record, bytes) = own(&message, source);
                    let command = read_command(&record);
                    self.gathering.push(Item { record, command }, bytes, slice, Instant::now());
                }
                Ok(())
            }
            Some(Err(error)) => self.heed(assignment, &error),
        }
    }

    /// What to do about an error that is not about one record.
    fn heed(&self, assignment: &Assignment, error: &KafkaError) -> Result<()> {
        match error.rdkafka_error_code() {
            // Retention overtook the reading, or the topic was made anew: look again at where each partition can begin.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                tracing::warn!(%error, "a position is outside its partition; looking at all of them again");
                assignment.request_rewind();
                Ok(())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => bail!(
                "topic {} does not exist: create it with `stock-verifier topics create`, or name another with \
                 --orders-topic",
                self.topics
            ),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                bail!("Kafka does not allow this user to read {} in this group: {error}", self.topics)
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                bail!("Kafka refused this group member for good: {error}")
            }
            // librdkafka goes on by itself: brokers down, timeouts, a poll that came late.
            _ => {
                tracing::warn!(%error, "Kafka consumer");
                Ok(())
            }
        }
    }

    fn leave(mut self, assignment: &Assignment, batches: mpsc::Sender<Batch>) -> Result<()> {
        self.gathering.drop_ended(&assignment.ownership);
        if !self.gathering.is_empty() {
            // The stages may have ended already; then the records are read again by whoever comes next.
            let _ = batches.blocking_send(self.gathering.take(assignment.enter()));
        }
        drop(batches);
        if !assignment.wait_until_idle(STOP_DRAIN) {
            tracing::warn!("batches are still under way after {STOP_DRAIN:?}; leaving all the same");
        }
        assignment.leave();
        // Closing alone does not make a cooperative member leave that has no partitions yet (librdkafka 2.12 skips it
        // when terminating); a rebalance under way would then wait until this member's session ends.
        self.consumer.unsubscribe();
        assignment.take_failure()
    }
}

/// An owned copy of a message, and its size in bytes.
pub(crate) fn own(message: &BorrowedMessage<'_>, source: Source) -> (Record, usize) {
    let key = message.key().map(<[u8]>::to_vec);
    let value = message.payload().map(<[u8]>::to_vec);
    let mut bytes = key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
                Header { name: header.key.to_owned(), value: header.value.map(<[u8]>::to_vec) }
            })
            .collect()
    });
    let record = Record { source, key, value, headers, timestamp_ms: message.timestamp().to_millis() };
    (record, bytes)
}

/// The group membership that a transaction's offsets are sent under.
#[derive(Clone)]
pub struct Membership(Arc<BaseConsumer<Assignment>>);

impl Membership {
    /// Who this member is now. Taken before a transaction's records are chosen and used for its offsets: if
    /// partitions change hands in between, Kafka refuses the offsets and the transaction is undone.
    #[must_use]
    pub fn now(&self) -> Option<ConsumerGroupMetadata> {
        self.0.group_metadata()
    }

    /// What the group still owns and what is under way.
    #[must_use]
    pub fn assignment(&self) -> &Arc<Assignment> {
        self.0.context()
    }
}
