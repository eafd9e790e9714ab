//! The loop that joins the rooms: gather, decide, tell.
//!
//! Each worker is one pipeline of three stages with bounded queues between
//! them, so that batch N+1 is decided while batch N is told. Anything that
//! goes wrong while telling ends in a *rewind*: what is under way is dropped,
//! the partitions are read again from their committed offsets, and what the
//! ledger already decided is told from there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::beside::{Beside, Moved};
use crate::config::{BatchArgs, GroupArgs, KafkaArgs, LevelsArgs, TopicArgs};
use crate::intake::batch::{Batch, Bounds};
use crate::intake::{Assignment, GroupWatch, Intake, Membership, Sharing, TopicNews, TopicWatch};
use crate::ledger::Outcome;
use crate::publish::{self, Decided, Publisher, Refusal, Stuck, TellError, Telling};
use crate::store::{self, Applied, Store, StoreError};
use crate::tally::Totals;

/// Decided batches that wait to be told. One is enough to keep both stages busy; each more is only latency and memory.
const STAGE_QUEUE: usize = 1;
/// Batches the deciding stage has at once. None waits before it: a batch grows until it is taken, so that under load
/// batches get larger, not more.
const DECIDING: usize = 1;
/// The longest pause between tries of a batch while the database is away.
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the log says that it still is.
const DATABASE_SAY: Duration = Duration::from_secs(5);
/// The pause before reading again what could not be told.
const RETELL_PAUSE: Duration = Duration::from_millis(200);

/// The pauses between tries to make the producers anew: soon at first, since a broker that restarts is back in moments;
/// then seldom, since each try is a client made and a line in the log.
const RENEW_PAUSE_MIN: Duration = Duration::from_millis(200);
const RENEW_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Most records told in one transaction when all goes well: as many as a batch has at most, by any setting.
const PORTION_MAX: usize = 1 << 20;
/// And at least, however slow telling is: so few go through any link within the time that a transaction has.
const PORTION_MIN: usize = 16;
/// A transaction that fails after this long was too large for how slow telling is now: Kafka ends it after ten seconds.
const SLOW: Duration = Duration::from_secs(8);

/// How long a topic must be refused before partitions stop for it: a broker that has just started does not know all topics
/// and ACLs yet.
const TOPIC_PATIENCE: Duration = Duration::from_secs(10);
/// After so long without a refusal the next one counts as the first.
const TOPIC_FORGET: Duration = Duration::from_secs(60);

/// A stop that leaves something to the next start, which finishes it. Nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("stopped before everything in hand was decided and told; the next start goes on there: {0:#}")]
pub struct Unfinished(anyhow::Error);

/// What a verifier needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach Kafka.
    pub kafka: KafkaArgs,
    /// The topics' names.
    pub topics: TopicArgs,
    /// The consumer group.
    pub group: GroupArgs,
    /// What bounds a batch.
    pub batch: BatchArgs,
    /// How levels are told.
    pub levels: LevelsArgs,
    /// How many pipelines, each a member of the group.
    pub workers: usize,
    /// Whether to go on where records are gone.
    pub accept_data_loss: bool,
    /// Whether the group may have members of an earlier version; the demo's has none, and its broker cannot be asked.
    pub may_have_older: bool,
}

/// Runs until `stop`, then finishes what is in hand and leaves the group.
///
/// # Errors
/// The first failure of a worker; the others are stopped in good order.
pub async fn run(
    settings: Settings,
    store: Arc<dyn Store>,
    totals: Arc<Totals>,
    stop: CancellationToken,
) -> Result<()> {
    let topics = TopicWatch::new(&settings.kafka, &settings.topics)?;
    topics.check_partitions(&*store, settings.accept_data_loss).await?;
    let beside = Beside::new(&settings.kafka, &settings.topics, settings.levels.delay(), Arc::clone(&store))?;
    let moved = beside.moved();
    let beside_stop = CancellationToken::new();
    let beside = tokio::spawn(beside.run(beside_stop.clone()));
    let mut workers = JoinSet::new();
    for number in 0..settings.workers {
        let worker = Worker {
            number,
            settings: settings.clone(),
            store: Arc::clone(&store),
            moved: moved.clone(),
            news: topics.listen(),
            totals: Arc::clone(&totals),
        };
        workers.spawn(work(worker, stop.clone()));
    }
    let topics = tokio::spawn(topics.run(beside_stop.clone()));
    let mut first = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.context("a worker panicked").flatten();
        stop.cancel();
        first = graver(first, ended);
    }
    // Last, so that what the workers moved last is told too.
    beside_stop.cancel();
    let watched = topics.await.context("watching the topics panicked");
    first.and(beside.await.context("telling levels panicked")).and(watched)
}

/// The first failure, but one that a stop explains only where there is no other.
fn graver(first: Result<()>, next: Result<()>) -> Result<()> {
    match (&first, &next) {
        (Err(error), Err(_)) if error.is::<Unfinished>() => next,
        _ => first.and(next),
    }
}

/// What one worker works with.
struct Worker {
    /// From 0.
    number: usize,
    settings: Settings,
    store: Arc<dyn Store>,
    moved: Moved,
    news: TopicNews,
    totals: Arc<Totals>,
}

/// One worker: a pipeline, and another once the group has no older instances any more (see [`Sharing`]).
async fn work(worker: Worker, stop: CancellationToken) -> Result<()> {
    let Worker { number, settings, .. } = &worker;
    let group = settings.may_have_older.then(|| GroupWatch::new(&settings.kafka, &settings.group));
    while !stop.is_cancelled() {
        let sharing = match &group {
            Some(group) => group.sharing(&stop).await?,
            None => Some(Sharing::EachTopic),
        };
        let Some(sharing) = sharing else { break };
        let own_stop = stop.child_token();
        let pipeline = pipeline(&worker, sharing, own_stop.clone());
        let Some(group) = group.as_ref().filter(|_| sharing == Sharing::Together) else {
            return pipeline.await;
        };
        tracing::warn!(
            worker = number,
            "older instances share this group: until all are of this version, orders and adjustments are shared in \
             sum, as they do, not each evenly"
        );
        let regroup = async {
            match group.older_are_gone().await {
                Ok(()) => {
                    tracing::info!(
                        worker = number,
                        "no older instance is left: leaving the group, to share each topic evenly"
                    );
                    own_stop.cancel();
                }
                Err(error) => tracing::warn!("not looking for older instances any more: {error:#}"),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // What it left in hand to join anew it reads again itself.
            ended = pipeline => match ended {
                Err(error) if error.is::<Unfinished>() && !stop.is_cancelled() => tracing::info!("{error:#}"),
                ended => ended?,
            },
            () = regroup => {}
        }
    }
    Ok(())
}

/// Three stages, joined by bounded queues.
async fn pipeline(worker: &Worker, sharing: Sharing, stop: CancellationToken) -> Result<()> {
    let Worker { number, settings, store, moved, news, totals } = worker;
    // Fence first: only then do the committed offsets hold all that a predecessor told.
    let id = settings.group.transactional_id(*number);
    let mut publisher = Publisher::new(&settings.kafka, &settings.topics, &id)?;
    let publisher = spawn_blocking({
        let stop = stop.clone();
        move || renew(&mut publisher, &stop).map(|()| publisher)
    });
    let publisher = match publisher.await? {
        Ok(publisher) => publisher,
        // It has nothing in hand yet.
        Err(_) if stop.is_cancelled() => return Ok(()),
        Err(refused) => return Err(refused),
    };

    let assignment =
        Assignment::new(Arc::clone(store), Handle::current(), moved.clone(), settings.accept_data_loss);
    let Settings { kafka, group, topics, .. } = settings;
    let intake =
        Intake::join(kafka, group, topics, *number, sharing, Bounds::from(settings.batch), assignment)?;
    let membership = intake.membership();
    tokio::spawn(news.clone().tell(Arc::clone(membership.assignment()), stop.clone()));

    let turns = Arc::new(Semaphore::new(DECIDING));
    let (gathered, batches) = mpsc::channel(DECIDING);
    let (decided, tellings) = mpsc::channel(STAGE_QUEUE);
    let gathering = spawn_blocking({
        let stop = stop.clone();
        let turns = Arc::clone(&turns);
        move || intake.run(gathered, &turns, &stop)
    });
    let telling = spawn_blocking({
        let (membership, totals, stop) = (membership.clone(), Arc::clone(totals), stop.clone());
        move || {
            let _ended = stop.clone().drop_guard();
            tell(publisher, &membership, tellings, &totals, &stop)
        }
    });
    let deciding = decide(&**store, membership, batches, decided, moved, &turns, &stop).await;
    turns.close();
    stop.cancel();

    let telling = telling.await.context("the telling stage panicked").flatten();
    let gathering = gathering.await.context("the gathering stage panicked").flatten();
    graver(graver(telling, deciding), gathering)
}

/// The deciding stage. Gives a turn back when it is free for the next batch.
async fn decide(
    store: &dyn Store,
    membership: Membership,
    mut batches: mpsc::Receiver<Batch>,
    decided: mpsc::Sender<Decided>,
    moved: &Moved,
    turns: &Semaphore,
    stop: &CancellationToken,
) -> Result<()> {
    while let Some(mut batch) = batches.recv().await {
        if batch.drop_ended(&membership.assignment().ownership) {
            let (questions, waiting) = batch.ask();
            let begun = Instant::now();
            let mut applied = match apply_patiently(store, &questions, stop).await {
                Err(error) if error.is_transient() => return Err(Unfinished(error.into()).into()),
                done => done?,
            };
            moved.mark(std::mem::take(&mut applied.levels));
            // Decided before, by a process that is gone or with an answer that was lost: who knows what it told.
            if applied.outcomes.iter().any(|outcome| matches!(outcome, Outcome::ToldAgain(_))) {
                moved.mark_all();
            }
            tracing::debug!(requests = questions.requests.len(), took = ?begun.elapsed(), "decided");
            if decided.send(Decided::new(waiting, applied)).await.is_err() {
                break;
            }
        }
        turns.add_permits(1);
    }
    Ok(())
}

/// Applies a batch, however long the database is away; a stop ends the waiting.
async fn apply_patiently(
    store: &dyn Store,
    questions: &store::Batch,
    stop: &CancellationToken,
) -> Result<Applied, StoreError> {
    let mut pause = Duration::from_millis(100);
    let mut said: Option<Instant> = None;
    loop {
        match store.apply(questions).await {
            Err(error) if error.is_transient() && !stop.is_cancelled() => {
                if said.is_none_or(|at| at.elapsed() >= DATABASE_SAY) {
                    let error = anyhow::Error::new(error);
                    tracing::warn!("the database is away; the batch waits: {error:#}");
                    said = Some(Instant::now());
                }
                let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                pause = (pause * 2).min(DATABASE_PAUSE_MAX);
            }
            done => return done,
        }
    }
}

/// The telling stage. Blocks: runs on a thread of its own.
fn tell(
    publisher: Publisher,
    membership: &Membership,
    mut batches: mpsc::Receiver<Decided>,
    totals: &Totals,
    stop: &CancellationToken,
) -> Result<()> {
    let mut teller = Teller {
        publisher,
        membership,
        totals,
        stop,
        most: PORTION_MAX,
        refused: HashMap::new(),
        untold: None,
    };
    while let Some(batch) = batches.blocking_recv() {
        teller.tell(batch)?;
    }
    teller.untold.map_or(Ok(()), |why| Err(Unfinished(why.into()).into()))
}

/// What telling works with.
struct Teller<'a> {
    publisher: Publisher,
    membership: &'a Membership,
    totals: &'a Totals,
    stop: &'a CancellationToken,
    /// Most records told in one transaction: fewer after one that ran out of time.
    most: usize,
    /// The topics that were refused, since when, and when last.
    refused: HashMap<String, (Instant, Instant)>,
    /// Why the last batch was not told, while it waits to be read again.
    untold: Option<TellError>,
}

impl Teller<'_> {
    /// Tells a batch. What cannot be told now is read again and told from the ledger; what never can stops its partition.
    fn tell(&mut self, mut batch: Decided) -> Result<()> {
        let assignment = self.membership.assignment();
        let mut stuck = Vec::new();
        loop {
            // The membership first: partitions that change hands from here on make Kafka refuse the offsets.
            let group =
                self.membership.now(&batch.offsets()).ok_or_else(|| anyhow!("not a member of any group"))?;
            if !batch.drop_ended(&assignment.ownership) || batch.is_told() {
                break;
            }
            let begun = Instant::now();
            let portion = batch.portion(self.most);
            let told = self.publisher.tell(&Telling {
                events: &portion.events,
                offsets: &portion.offsets,
                group: Some(group),
            });
            match told {
                Ok(()) => {
                    tracing::debug!(events = portion.events.len(), took = ?begun.elapsed(), "told");
                    self.totals.add(&portion.tally);
                    let records = portion.records;
                    if records == self.most {
                        self.most = (self.most + self.most / 8 + 1).min(PORTION_MAX);
                    }
                    self.untold = None;
                    batch.told(records);
                }
                Err(TellError::Refused(refusals)) if self.is_certain(&refusals) => {
                    stuck.extend(batch.heed(refusals));
                }
                Err(TellError::TooMany(error)) if portion.records > PORTION_MIN => {
                    self.tell_fewer(portion.records, &error);
                }
                Err(fenced @ TellError::Fenced(_)) => return Err(fenced.into()),
                Err(error) => {
                    if begun.elapsed() > SLOW {
                        self.tell_fewer(portion.records, &error);
                    }
                    if self.stop.is_cancelled() {
                        return Err(Unfinished(error.into()).into());
                    }
                    tracing::warn!(%error, "a batch could not be told; it is read again and told from the ledger");
                    assignment.request_rewind();
                    std::thread::sleep(RETELL_PAUSE);
                    // Those that are missing, if any is.
                    renew(&mut self.publisher, self.stop).map_err(|refused| {
                        if self.stop.is_cancelled() { Unfinished(refused).into() } else { refused }
                    })?;
                    self.untold = Some(error);
                    break;
                }
            }
        }
        for stuck in stuck {
            self.give_up(&stuck);
        }
        Ok(())
    }

    /// Whether refusals are there to stay: those of a topic only after a while.
    fn is_certain(&mut self, refusals: &[Refusal]) -> bool {
        let now = Instant::now();
        let refused = &mut self.refused;
        refusals.iter().filter(|refusal| refusal.is_for_topic()).all(|refusal| {
            let (since, last) = refused.entry(refusal.topic.clone()).or_insert((now, now));
            if now.duration_since(*last) > TOPIC_FORGET {
                *since = now;
            }
            *last = now;
            now.duration_since(*since) >= TOPIC_PATIENCE
        })
    }

    /// Halves what is told at once.
    fn tell_fewer(&mut self, records: usize, why: &dyn std::fmt::Display) {
        self.most = (records / 2).max(PORTION_MIN);
        tracing::warn!(
            most = self.most,
            "fewer records are told at once, since {records} were too many: {why}"
        );
    }

    /// Stops a partition whose next result or dead letter cannot be told, and says what to do.
    fn give_up(&self, stuck: &Stuck) {
        let Stuck { source, topic, bytes, why } = stuck;
        tracing::error!(
            partition = %source.at, offset = %source.offset, topic, bytes, why = %why,
            "stopped: what this record came to cannot be told. It is decided, and told when {topic} takes it: raise its \
             max.message.bytes where it is too large, allow this user to write where it is not allowed (ACL: Write), \
             create the topic where it is gone; then start again"
        );
        self.totals.add_stuck();
        self.membership.assignment().stop_partition(&source.at);
    }
}

/// Makes the producers anew, however long Kafka is away. A refusal that stays one ends it, and so does a stop.
fn renew(publisher: &mut Publisher, stop: &CancellationToken) -> Result<()> {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(RENEW_PAUSE_MIN)
        .with_max_delay(RENEW_PAUSE_MAX)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        let error = match publisher.fence(stop) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if stop.is_cancelled() {
            return Err(error);
        }
        if publish::is_final(&error) {
            return Err(error.context(
                "Kafka refuses this instance's producers, and will as long as nothing changes there: allow this user to \
                 use their transactional ids (ACLs Write and Describe; each worker has two, the second with -b at its \
                 end)",
            ));
        }
        // Holds because there is no last time.
        let pause = pauses.next().unwrap_or(RENEW_PAUSE_MAX);
        tracing::warn!(?pause, "the producer could not be made anew: {error:#}");
        let _ = Handle::current().block_on(tokio::time::timeout(pause, stop.cancelled()));
    }
}

impl From<BatchArgs> for Bounds {
    fn from(batch: BatchArgs) -> Self {
        Self {
            records: batch.batch_max_orders,
            bytes: usize::try_from(batch.batch_max_bytes.as_u64()).unwrap_or(usize::MAX),
            age: batch.batch_max_age,
        }
    }
}
