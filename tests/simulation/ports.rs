//! The ports of a pipeline, on the simulated world. Every wait is a step at which the process can be killed; what it asked
//! for is done between two of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use stock_verifier::kafka::consumer::{
    Assigned, ConsumerError, FetchedRecord, Incoming, NotSpeaking, Notice, Revoked, StartOffsets, Watermarks,
};
use stock_verifier::kafka::offsets::CommittedOffsets;
use stock_verifier::kafka::topic_ids::Described;
use stock_verifier::kafka::transactional::{InitError, PublishError, Refusal, RefusalCode};
use stock_verifier::kafka::{self, ClientError};
use stock_verifier::ledger::{HeldProgram, NextOffset, Outcome, TopicPartition};
use stock_verifier::pipeline::Portion;
use stock_verifier::pipeline::ports::{GroupCommitted, GroupMember, GroupOffsets, RecordSource, ResultSink};
use stock_verifier::store::{Applied, CommandBatch, LedgerWriter, Position, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::{ORDERS, World, partition, topic_id};

/// Most records that come at once: more than fit into a batch.
const CHUNK: usize = 10;
/// How often a source that nothing comes of looks whether it is in a backlog.
const BACKLOG_LOOK: Duration = Duration::from_secs(1);

/// What the process's one membership has.
#[derive(Default)]
struct Membership {
    notices: Vec<Notice>,
    /// Where each partition that is read was begun, and what is fetched next of it.
    reading: HashMap<TopicPartition, Range<usize>>,
    epoch: u64,
    /// Fetched, and not handed over yet: whatever the group says meanwhile comes before it.
    fetched: Vec<FetchedRecord>,
    taken_as: String,
    /// A partition that the group is about to give back.
    taken: Option<TopicPartition>,
}

/// The membership, and the source of its records.
#[derive(Clone)]
pub struct Member {
    world: World,
    topics: [Arc<str>; 1],
    shared: Arc<Mutex<Membership>>,
}

impl Member {
    /// Joins the group as a member of its own.
    pub fn join(world: &World) -> Self {
        world.lock().member += 1;
        let partitions = (0..world.lock().log.len()).map(partition).collect();
        let member = Self { world: world.clone(), topics: [Arc::from(ORDERS)], shared: Arc::default() };
        member.give(partitions);
        member
    }

    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.shared.lock().expect("nothing panics while it is locked")
    }

    fn read(shared: &mut Membership, from: &[(TopicPartition, NextOffset)]) {
        let next = |next: &NextOffset| usize::try_from(next.0).expect("an offset");
        shared.reading.extend(from.iter().map(|(at, from)| (at.clone(), next(from)..next(from))));
    }

    fn give(&self, partitions: Vec<TopicPartition>) {
        let shared = Arc::clone(&self.shared);
        let mut membership = self.lock();
        membership.epoch += 1;
        let epoch = membership.epoch;
        membership.notices.push(Notice::Assigned(Assigned::new(partitions, epoch, move |from| {
            Self::read(&mut shared.lock().expect("nothing panics while it is locked"), &from);
        })));
    }

    /// The group takes a partition, and gives it back when it was let go. When it is lost, this is another member after.
    pub fn take(&self, are_lost: bool) {
        let mut membership = self.lock();
        let Some(at) = membership.reading.keys().min_by_key(|at| at.partition).cloned() else { return };
        membership.epoch += 1;
        if are_lost {
            self.world.lock().member += 1;
        }
        let (shared, gone) = (Arc::clone(&self.shared), at.clone());
        membership.notices.push(Notice::Revoked(Revoked::new(vec![at], are_lost, move || {
            let mut membership = shared.lock().expect("nothing panics while it is locked");
            membership.reading.remove(&gone);
            membership.taken = Some(gone);
        })));
    }

    /// The group says that somebody else has this member's id.
    pub fn fence(&self) {
        self.lock().notices.push(Notice::Failed(ConsumerError::Fenced("fenced".to_owned())));
    }

    /// What is fetched now.
    fn fetch(&self) -> Vec<FetchedRecord> {
        let mut membership = self.lock();
        let mut world = self.world.lock();
        let has_more = |(at, read): (&TopicPartition, &Range<usize>)| {
            (read.end < world.log[at.partition.cast_unsigned() as usize].len()).then(|| at.clone())
        };
        let mut ready: Vec<_> = membership.reading.iter().filter_map(has_more).collect();
        ready.sort_unstable_by_key(|at| at.partition);
        if ready.is_empty() {
            return Vec::new();
        }
        let at = &ready[world.random.random_range(0..ready.len())];
        let most = world.random.random_range(1..=CHUNK);
        let epoch = membership.epoch;
        let read = membership.reading.get_mut(at).expect("it is read");
        if read.start < read.end && world.happens("again", |faults| faults.again) {
            read.end -= 1;
        }
        let log = &world.log[at.partition.cast_unsigned() as usize];
        let records: Vec<_> = log.iter().skip(read.end).take(most).cloned().collect();
        read.end += records.len();
        records.into_iter().map(|record| FetchedRecord { record, bytes: 1, epoch }).collect()
    }
}

/// How often something is there at once in a backlog, at most.
pub const BACKLOG: usize = 10_000;

/// A source in a backlog from some moment on: until a rewind, something is there whenever it is asked.
pub struct Backlog {
    member: Member,
    /// What Kafka says of topics at that moment: the one that is read is gone.
    pub news: watch::Sender<Arc<[(String, Described)]>>,
    /// Whether the moment is there.
    pub is_due: Arc<AtomicBool>,
    /// How often something was there since.
    pub came: Arc<AtomicUsize>,
    /// The epoch in which it began.
    since: Option<u64>,
}

impl Backlog {
    /// Not in one yet.
    pub fn new(member: Member) -> Self {
        let (is_due, came) = (Arc::default(), Arc::default());
        Self { member, news: watch::Sender::new(Arc::default()), is_due, came, since: None }
    }
}

impl RecordSource for Backlog {
    type Member = Member;

    fn members(&self) -> Vec<Member> {
        vec![self.member.clone()]
    }

    async fn next(&mut self, records: bool) -> Incoming {
        loop {
            let epoch = self.member.lock().epoch;
            if self.since.is_none() && self.is_due.load(Ordering::SeqCst) {
                self.since = Some(epoch);
                self.news.send_replace([(ORDERS.to_owned(), Described::Absent)].into());
            }
            // Nothing that the pipeline does anything about; and at once, so that whoever asks for it first sees nothing else.
            if self.since == Some(epoch) && self.came.fetch_add(1, Ordering::SeqCst) < BACKLOG {
                return Incoming::Notice(0, Notice::Paused);
            }
            if let Ok(incoming) = tokio::time::timeout(BACKLOG_LOOK, self.member.next(records)).await {
                return incoming;
            }
        }
    }

    async fn close(self) {}
}

impl RecordSource for Member {
    type Member = Self;

    fn members(&self) -> Vec<Self> {
        vec![self.clone()]
    }

    async fn next(&mut self, records: bool) -> Incoming {
        loop {
            self.world.step().await;
            let given_back = self.lock().taken.take();
            if let Some(at) = given_back {
                self.give(vec![at]);
            }
            let is_quiet = self.lock().notices.is_empty();
            if is_quiet && self.world.happens("moved", |faults| faults.moved) {
                self.take(false);
            } else if is_quiet && self.world.happens("lost", |faults| faults.lost) {
                self.take(true);
            }
            if !self.lock().notices.is_empty() {
                return Incoming::Notice(0, self.lock().notices.remove(0));
            }
            if records {
                let fetched = self.fetch();
                let before = std::mem::replace(&mut self.lock().fetched, fetched);
                if !before.is_empty() {
                    return Incoming::Records(before);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn close(self) {}
}

impl GroupMember for Member {
    type Name = u64;

    fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    fn id(&self) -> String {
        self.world.lock().member.to_string()
    }

    fn set_taken_as(&self, id: String) {
        self.lock().taken_as = id;
    }

    fn was_taken_as(&self, id: &str) -> bool {
        self.lock().taken_as == id
    }

    fn name(&self) -> Result<u64, NotSpeaking> {
        let member = self.world.lock().member;
        if !self.was_taken_as(&member.to_string()) {
            return Err(kafka::JoinedAnew.into());
        }
        Ok(member)
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn is_static(&self) -> bool {
        false
    }

    fn is_dead(&self) -> bool {
        false
    }

    fn unsubscribe(&self) {}

    async fn has_left(&self) -> bool {
        true
    }

    async fn committed(&self, of: &[TopicPartition]) -> Result<CommittedOffsets, kafka::Error> {
        self.world.step().await;
        let is_said = |_: &&TopicPartition| !self.world.happens("unsaid", |faults| faults.unsaid);
        let said: Vec<_> = of.iter().filter(is_said).collect();
        let known = {
            let world = self.world.lock();
            said.into_iter().map(|at| (at.clone(), Ok(world.committed.get(at).copied()))).collect()
        };
        self.world.step().await;
        Ok(CommittedOffsets::new(known))
    }

    async fn watermarks(&self, of: &[TopicPartition]) -> Result<Vec<Watermarks>, kafka::Error> {
        self.world.step().await;
        let world = self.world.lock();
        let end = |at: &TopicPartition| world.log[at.partition.cast_unsigned() as usize].len();
        let end = |at| NextOffset(i64::try_from(end(at)).expect("a small number"));
        Ok(of.iter().map(|at| Watermarks { low: NextOffset(0), high: end(at) }).collect())
    }

    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>, kafka::Error> {
        self.world.step().await;
        let world = self.world.lock();
        let all = i32::try_from(world.log.len()).expect("few partitions");
        let partitions = world.described.unwrap_or(all);
        Ok(vec![Described::There { id: Some(topic_id()), partitions }; names.len()])
    }

    async fn commit(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<(), kafka::Error> {
        self.world.step().await;
        self.world.lock().committed.extend(offsets.iter().cloned());
        self.world.step().await;
        Ok(())
    }

    async fn read_only(&self, from: StartOffsets) -> Result<u64, kafka::Error> {
        self.world.step().await;
        let epoch = {
            let mut membership = self.lock();
            membership.reading.clear();
            Self::read(&mut membership, &from);
            membership.epoch += 1;
            membership.epoch
        };
        self.world.step().await;
        Ok(epoch)
    }
}

/// The transactional producer.
pub struct Sink(pub World);

impl Sink {
    /// What is refused of a transaction, if anything is: the topic of its first result.
    fn refusals(&self, portion: &Portion<'_>) -> Option<Vec<Refusal>> {
        let mut world = self.0.lock();
        if portion.events.is_empty() || world.refusals == 0 {
            return None;
        }
        world.refusals -= 1;
        Some(vec![Refusal { index: 0, topic: "results".to_owned(), why: RefusalCode::NOT_PERMITTED }])
    }
}

impl ResultSink for Sink {
    type Name = u64;

    async fn init_transactions(&mut self, _: &CancellationToken) -> Result<(), InitError> {
        // What is open is ended by it; nobody has seen anything of that.
        self.0.step().await;
        Ok(())
    }

    async fn publish(&mut self, portion: &Portion<'_>, names: &[u64]) -> Result<(), PublishError> {
        // Begun, sent, and the offsets.
        for _ in 0..3 {
            self.0.step().await;
        }
        if let Some(refusals) = self.refusals(portion) {
            return Err(PublishError::Refused(refusals));
        }
        if self.0.happens("aborted", |faults| faults.aborted) {
            return Err(PublishError::Aborted(ClientError::CLOSED));
        }
        let is_unknown = self.0.happens("unknown", |faults| faults.unknown);
        {
            let mut world = self.0.lock();
            if names != [world.member] {
                return Err(PublishError::Aborted(ClientError::CLOSED));
            }
            let values =
                portion.events.iter().map(|event| event.value.clone().expect("a result has a value"));
            world.published.extend(values);
            world.committed.extend(portion.offsets.iter().cloned());
        }
        self.0.step().await;
        if is_unknown { Err(PublishError::ProducerLost(ClientError::CLOSED)) } else { Ok(()) }
    }
}

#[async_trait]
impl GroupOffsets for World {
    async fn committed(&self) -> Result<GroupCommitted, kafka::Error> {
        self.step().await;
        let committed = self.lock().committed.clone();
        Ok(committed.into_iter().map(|(at, next)| (at, (Some(topic_id()), next))).collect())
    }
}

#[async_trait]
impl LedgerWriter for World {
    async fn claim_group(&self, _: &str, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn positions(
        &self,
        of: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        let mut positions = self.all_positions().await?;
        positions.retain(|at, _| of.contains(at));
        Ok(positions)
    }

    async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
        self.step().await;
        self.database.all_positions().await
    }

    async fn set_position(
        &self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        self.step().await;
        let done = self.database.set_position(at, was, now).await;
        self.step().await;
        done
    }

    async fn hold_programs(&self, now: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
        self.step().await;
        self.database.hold_programs(now).await
    }

    fn connection_epoch(&self) -> u64 {
        self.database.connection_epoch()
    }

    async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
        self.step().await;
        self.database.applying_positions().await
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        // Begun, locked, decided.
        for _ in 0..3 {
            self.step().await;
        }
        if self.lock().away {
            let source = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
            return Err(StoreError::Database { doing: "beginning a batch", source, retry: true });
        }
        if self.happens("disconnected", |faults| faults.disconnected) {
            self.database.lose_connection();
        }
        let applied = self.database.apply(batch).await?;
        for outcome in &applied.outcomes {
            if let Outcome::Decided(decision) = outcome {
                let id = decision.key.id.as_str().to_owned();
                assert!(self.lock().decided.insert(id), "decided twice: {:?}", decision.key);
            }
        }
        let is_unanswered = self.happens("unanswered", |faults| faults.unanswered);
        self.step().await;
        if is_unanswered {
            self.database.lose_connection();
            let source = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
            return Err(StoreError::Database { doing: "committing a batch", source, retry: true });
        }
        Ok(applied)
    }
}
