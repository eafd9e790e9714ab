//! Kafka to batches.
//!
//! One thread polls, because librdkafka wants to be polled by one thread
//! and because asynchronous wake-ups have stalled silently (rust-rdkafka#665,
//! #840). Records are parsed to owned values at once: a borrowed message pins
//! the whole fetch it came in.

mod assignment;
pub mod batch;
mod comparison;
mod membership;
pub mod ownership;
pub mod progress;
pub mod recovery;
mod sharing;
mod topic_watch;

use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::{Semaphore, TryAcquireError, mpsc};
use tokio_util::sync::CancellationToken;

pub use assignment::{Assignment, JoinedAnew, passes};
use assignment::{Member, MemberConsumer};
use batch::{Bounds, Gathering, ReadBatch, ReadRecord};
pub use comparison::Comparison;
pub use membership::{Membership, NotSpeaking, Speaking};
pub use sharing::{GroupWatch, Sharing};
pub use topic_watch::{TopicNews, TopicWatch};

use crate::config::{GroupArgs, GroupProtocol, KafkaArgs, TopicArgs};
use crate::event::{Header, Record, read_command};
use crate::ledger::Source;

/// The time between two looks for adjustments while there are none. One thread polls both topics and sleeps in the
/// orders' poll, so it is also the longest that the first adjustment waits; under load a look costs less than reading a
/// record, and at rest a hundred of them a second cost nothing to speak of.
const ADJUSTMENTS_LOOK: Duration = Duration::from_millis(10);
/// Longest sleep in one poll: how soon a stop or a rewind is seen when no record comes.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Longest wait for room in the next stage without polling; then the partitions are paused and polling goes on,
/// so that the group does not take this member for dead. Pausing throws prefetched records away, so not at once.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// The time between two rewinds. What cannot be taken over now is tried again; the member polls meanwhile, or the group
/// could not give its partitions to another.
const REWIND_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for batches under way when stopping.
const STOP_DRAIN: Duration = Duration::from_secs(30);
/// How long after partitions were lost a fence may be a member's own: it joins again at once, and the last answer under
/// its old name comes within a request's time.
const FENCED_BY_ITSELF: Duration = Duration::from_secs(60);
/// Longest wait until the group has let go of static members that leave. Past it they have left when their session ends.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How often to ask whether it has, and the longest wait for an answer.
const LEAVE_LOOK: Duration = Duration::from_millis(50);
const LEAVE_ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Records prefetched at most, and KiB of them: what bounds memory while a backlog drains.
const PREFETCH_RECORDS: &str = "20000";
const PREFETCH_KIB: &str = "16384";
/// The same of adjustments: few as a rule, and a pipeline's memory is for its orders.
const PREFETCH_ADJUSTMENTS: &str = "2000";
const PREFETCH_ADJUSTMENTS_KIB: &str = "1024";
/// Largest fetch, in bytes. A fetch is compressed: orders grow to some ten times of it when it is opened, all at once,
/// so 8 MiB made for 160 MB resident and 1 MiB makes for 60, and no slower. A larger record comes all the same, alone.
const FETCH_MAX_BYTES: &str = "1048576";

/// What a membership of the group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The orders' topic.
    Orders,
    /// The adjustments' topic.
    Adjustments,
    /// Both, as up to 0.1 (see [`Sharing`]).
    Both,
}

impl Role {
    /// Its name in ids.
    fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Adjustments => "adjustments",
            Self::Both => "both",
        }
    }

    fn topics(self, topics: &TopicArgs) -> Vec<&str> {
        match self {
            Self::Orders => vec![&topics.orders_topic],
            Self::Adjustments => vec![&topics.adjustments_topic],
            Self::Both => vec![&topics.orders_topic, &topics.adjustments_topic],
        }
    }
}

/// What a client calls itself. A member's role is in it: others see it in the group.
fn client_id(group: &GroupArgs, role: Option<Role>) -> String {
    let role = role.map_or_else(String::new, |role| format!("-{}", role.name()));
    format!("stock-verifier-{}{role}", group.instance_id)
}

/// The property that makes a member static.
const STATIC_ID: &str = "group.instance.id";
/// The length of a UUID as text.
const UUID: usize = 36;

/// The polling end of a pipeline.
pub struct Intake {
    /// The orders', or both topics'.
    orders: Arc<MemberConsumer>,
    /// The adjustments', when they are a membership of their own.
    adjustments: Option<Arc<MemberConsumer>>,
    /// When to look for adjustments next.
    adjustments_due: Instant,
    assignment: Arc<Assignment>,
    gathering: Gathering,
    group: String,
    /// What the group's members are called that leave by saying so (see [`Intake::leave`]).
    static_ids: Vec<String>,
}

/// A consumer's configuration.
///
/// # Errors
/// When a password file cannot be read.
pub fn consumer_config(kafka: &KafkaArgs, group: &GroupArgs, role: Role) -> Result<ClientConfig> {
    let mut config = kafka.client()?;
    let (records, kib) = match role {
        Role::Orders | Role::Both => (PREFETCH_RECORDS, PREFETCH_KIB),
        Role::Adjustments => (PREFETCH_ADJUSTMENTS, PREFETCH_ADJUSTMENTS_KIB),
    };
    config
        .set("client.id", client_id(group, Some(role)))
        .set("group.id", &group.group)
        // Offsets travel in the producer's transactions only.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is never answered by silently jumping.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("queued.min.messages", records)
        .set("queued.max.messages.kbytes", kib)
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
    if kafka.sets("client.id") {
        // The role stays in it, or others could not tell what this member is.
        let by_hand = config.get("client.id").unwrap_or_default().to_owned();
        config.set("client.id", format!("{by_hand}-{}", role.name()));
    }
    Ok(config)
}

/// Makes a membership static, so that whoever comes back within the session finds its partitions as they were and nobody
/// has to wait for the one that is gone. Returns what the group is to call it.
///
/// Not with the consumer protocol, where Kafka refuses the successor of a member that was killed for as long as the
/// session lasts, and librdkafka takes that refusal for final. Who sets an id by hand has it, for each membership.
fn make_static(config: &mut ClientConfig, group: &GroupArgs, worker: usize, role: Role) -> Option<String> {
    let id = match config.get(STATIC_ID) {
        Some(by_hand) => by_hand.to_owned(),
        None if group.group_protocol == GroupProtocol::Classic => group.instance_id.clone(),
        None => String::new(),
    };
    if id.is_empty() {
        config.remove(STATIC_ID);
        return None;
    }
    let id = format!("{id}-{worker}-{}", role.name());
    config.set(STATIC_ID, &id);
    Some(id)
}

impl Intake {
    /// Joins the group. Partitions are assigned while [`Intake::run`] polls.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn join(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        worker: usize,
        sharing: Sharing,
        bounds: Bounds,
        assignment: Assignment,
    ) -> Result<Self> {
        let assignment = Arc::new(assignment);
        let mut static_ids = Vec::new();
        let mut members = Vec::new();
        for role in sharing.roles() {
            let mut config = consumer_config(kafka, group, *role)?;
            static_ids.extend(make_static(&mut config, group, worker, *role));
            let context = Member::new(Arc::clone(&assignment), &role.topics(topics));
            let consumer: MemberConsumer =
                config.create_with_context(context).context("the consumer's configuration is refused")?;
            members.push(Arc::new(consumer));
        }
        // Right after one another, so that the group has to look at its members once.
        for consumer in &members {
            let topics: Vec<&str> = consumer.context().topics().iter().map(|topic| &**topic).collect();
            consumer
                .subscribe(&topics)
                .with_context(|| format!("cannot subscribe to {}", topics.join(" and ")))?;
        }
        let mut members = members.into_iter();
        Ok(Self {
            // Holds because there is no sharing without a member.
            orders: members.next().expect("a member"),
            adjustments: members.next(),
            adjustments_due: Instant::now(),
            assignment,
            gathering: Gathering::new(bounds),
            group: group.group.clone(),
            static_ids,
        })
    }

    /// How the publishing end learns which members of the group speak.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership(iter::once(&self.orders).chain(&self.adjustments).map(Arc::clone).collect())
    }

    fn consumers(&self) -> impl Iterator<Item = &MemberConsumer> {
        iter::once(&*self.orders).chain(self.adjustments.as_deref())
    }

    /// Polls until stopped, handing over a batch at each of the `permits` that the next stage gives; then hands over
    /// what it gathered, waits until it is published, and leaves the group.
    ///
    /// Blocks: runs on a thread of its own.
    ///
    /// # Errors
    /// When Kafka refuses the member for good, or a partition may not be taken over (see [`recovery`]).
    pub fn run(
        mut self,
        batches: mpsc::Sender<ReadBatch>,
        permits: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<()> {
        let gathered = self.gather(&batches, permits, stop);
        if gathered.is_err() {
            // What may not be read may not be decided either.
            self.gathering.clear();
        }
        // After a failure too: a member that is closed while it is given partitions would begin them, and ask a coordinator
        // that answers it no more.
        let left = self.leave(batches);
        gathered.and(left)
    }

    /// Polls until stopped, or until the next stage has ended.
    fn gather(
        &mut self,
        batches: &mpsc::Sender<ReadBatch>,
        permits: &Semaphore,
        stop: &CancellationToken,
    ) -> Result<()> {
        let assignment = Arc::clone(&self.assignment);
        let mut waiting_since: Option<Instant> = None;
        let mut paused = false;
        let mut rewind_after = Instant::now();
        while !stop.is_cancelled() {
            assignment.take_failure()?;
            if assignment.rewind_is_due() {
                self.gathering.clear();
                if Instant::now() >= rewind_after && assignment.is_idle() {
                    assignment.rewind(self.consumers())?;
                    rewind_after = Instant::now() + REWIND_PAUSE;
                }
                // Not done, or not possible yet: the group must not take this member for dead meanwhile.
                if assignment.rewind_is_due() {
                    self.poll(POLL_MAX)?;
                }
                continue;
            }
            let remaining_wait = self.gathering.remaining_wait(Instant::now());
            if remaining_wait == Some(Duration::ZERO) {
                match permits.try_acquire() {
                    Ok(permit) => {
                        permit.forget();
                        if batches.blocking_send(self.gathering.take(assignment.enter())).is_err() {
                            break;
                        }
                        waiting_since = None;
                        if std::mem::take(&mut paused) {
                            self.consumers().try_for_each(|consumer| assignment.resume(consumer))?;
                        }
                        continue;
                    }
                    Err(TryAcquireError::Closed) => break,
                    Err(TryAcquireError::NoPermits) if self.gathering.is_full() => {
                        let since = *waiting_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < PAUSE_AFTER {
                            assignment.wait_for_permit(permits, PAUSE_AFTER);
                            continue;
                        }
                        // Again each time round: a partition assigned meanwhile is not paused yet.
                        for consumer in self.consumers() {
                            consumer.pause(&consumer.assignment()?).context("cannot pause the partitions")?;
                        }
                        paused = true;
                    }
                    // Old enough but not full: grow while the next stage is busy.
                    Err(TryAcquireError::NoPermits) => {}
                }
            }
            let wait = match remaining_wait {
                None => POLL_MAX,
                Some(Duration::ZERO) => Duration::from_millis(1),
                Some(remaining_wait) => remaining_wait.min(POLL_MAX),
            };
            self.poll(wait)?;
        }
        Ok(())
    }

    /// Takes in a record of each membership, if there is one. Sleeps for the orders' only, at most until it is time to
    /// look for adjustments.
    fn poll(&mut self, mut wait: Duration) -> Result<()> {
        if let Some(adjustments) = &self.adjustments {
            let now = Instant::now();
            if now >= self.adjustments_due {
                let adjustments = Arc::clone(adjustments);
                if !self.poll_one(&adjustments, Duration::ZERO)? {
                    self.adjustments_due = now + ADJUSTMENTS_LOOK;
                }
            }
            wait = wait.min(self.adjustments_due.saturating_duration_since(now));
        }
        let orders = Arc::clone(&self.orders);
        self.poll_one(&orders, wait)?;
        Ok(())
    }

    /// Takes in a record of one membership; `false` when there is none.
    fn poll_one(&mut self, consumer: &MemberConsumer, wait: Duration) -> Result<bool> {
        let polled = consumer.poll(wait);
        let assignment = &self.assignment;
        if assignment.take_changed() {
            self.gathering.drop_ended(&assignment.ownership);
        }
        match polled {
            None => Ok(false),
            Some(Ok(message)) => {
                if let Some((slice, source)) =
                    assignment.admit(message.topic(), message.partition(), message.offset())
                {
                    let (record, bytes) = own(&message, source);
                    let command = read_command(&record);
                    // Below the ledger's position it may be decided already, by a version that did not look at keys.
                    let is_new = !slice.expected.covers(record.source.offset);
                    let command = if is_new { record.check_key().and(command) } else { command };
                    self.gathering.push(ReadRecord { record, command }, bytes, slice, Instant::now());
                }
                Ok(true)
            }
            Some(Err(error)) => self.handle_error(consumer, &error).map(|()| true),
        }
    }

    /// What to do about an error that is not about one record.
    fn handle_error(&self, consumer: &MemberConsumer, error: &KafkaError) -> Result<()> {
        let topic = consumer.context().topics().join(" or ");
        match error.rdkafka_error_code() {
            // Retention overtook the reading, or the topic was made anew: look again at where each partition can begin.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                tracing::warn!(%error, "a position is outside its partition; looking at all of them again");
                self.assignment.request_rewind();
                Ok(())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => bail!(
                "topic {topic} does not exist: create it with `stock-verifier topics create`, or name another with \
                 --orders-topic or --adjustments-topic"
            ),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                bail!("Kafka does not allow this user to read {topic} in this group: {error}")
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                let fenced = consumer
                    .client()
                    .fatal_error()
                    .is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId);
                if fenced && self.assignment.lost_within(FENCED_BY_ITSELF) {
                    return Err(FencedByItself.into());
                }
                Err(refused_for_good(consumer, error))
            }
            // librdkafka goes on by itself: brokers down, timeouts, a poll that came late.
            _ => {
                tracing::warn!(%error, "Kafka consumer");
                Ok(())
            }
        }
    }

    fn leave(mut self, batches: mpsc::Sender<ReadBatch>) -> Result<()> {
        let assignment = Arc::clone(&self.assignment);
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
        let deadline = Instant::now() + LEAVE_LIMIT;
        if !self.static_ids.is_empty() {
            // Who has not joined yet does not know what the group calls it, and cannot leave.
            self.serve_until(deadline, |consumer| consumer.context().is_settled());
        }
        // Closing alone does not make a cooperative member leave that has no partitions yet (librdkafka 2.12 skips it
        // when terminating); a rebalance under way would then wait until this member's session ends. Nor does it make a
        // static member leave, which it does on an unsubscribe that is done before the close.
        for consumer in self.consumers() {
            consumer.unsubscribe();
        }
        if !self.static_ids.is_empty() && !self.serve_until(deadline, |consumer| self.has_left(consumer)) {
            tracing::warn!(
                "the group has not let go of this instance after {LEAVE_LIMIT:?}; its partitions are free when its \
                 session ends (session.timeout.ms)"
            );
        }
        assignment.take_failure()
    }

    /// Serves both memberships until it is so of each; `false` when that takes too long or cannot be any more.
    fn serve_until(&self, deadline: Instant, is_so: impl Fn(&MemberConsumer) -> bool) -> bool {
        self.consumers().all(|consumer| {
            loop {
                // Both: one's rebalance waits for the other. What comes is not for this instance any more.
                for each in self.consumers() {
                    let _ = each.poll(LEAVE_LOOK / 2);
                }
                if is_so(consumer) {
                    return true;
                }
                if Instant::now() > deadline || consumer.client().fatal_error().is_some() {
                    return false;
                }
            }
        })
    }

    /// Whether the group knows none of this instance's static members any more: Kafka makes their member ids of the
    /// static ones and a UUID.
    fn has_left(&self, consumer: &MemberConsumer) -> bool {
        let ours = |member: &str| {
            self.static_ids.iter().any(|id| {
                member
                    .strip_prefix(&**id)
                    .is_some_and(|rest| rest.starts_with('-') && rest.len() == "-".len() + UUID)
            })
        };
        consumer.fetch_group_list(Some(&self.group), LEAVE_ANSWER_LIMIT).is_ok_and(|groups| {
            groups.groups().iter().flat_map(GroupInfo::members).all(|member| !ours(member.id()))
        })
    }
}

/// A static member was silent past its session and joined again, and librdkafka took the answer to a question under its
/// old name for another instance's doing. Its successor, made by the same process, goes on.
#[derive(Debug, thiserror::Error)]
#[error("this member was silent for too long and is fenced by its own successor in the group")]
pub struct FencedByItself;

/// Why the group, or Kafka, will have nothing more to do with this member.
fn refused_for_good(consumer: &MemberConsumer, error: &KafkaError) -> anyhow::Error {
    let topic = consumer.context().topics().join(" and ");
    match consumer.client().fatal_error() {
        Some((RDKafkaErrorCode::FencedInstanceId, _)) => anyhow!(
            "another instance reads {topic} under this instance's id now: if it is not this one's successor, give each \
             instance its own --instance-id (or group.instance.id, where it is set with -X)"
        ),
        Some((RDKafkaErrorCode::UnreleasedInstanceId, _)) => anyhow!(
            "the group still has a member under this group.instance.id, which was killed or runs elsewhere: with \
             --group-protocol consumer Kafka refuses a successor until that member's session has ended. Start again \
             then, or set no group.instance.id"
        ),
        Some((_, why)) => anyhow!("Kafka refused this group member for good: {why}"),
        None => anyhow!("Kafka refused this group member for good: {error}"),
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
