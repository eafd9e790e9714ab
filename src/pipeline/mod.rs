//! The loop that joins the rooms: gather, decide, publish.
//!
//! Each worker is one pipeline of three stages with bounded queues between
//! them, so that batch N+1 is decided while batch N is published. Anything that
//! goes wrong while publishing ends in a *rewind*: what is under way is dropped,
//! the partitions are read again from their committed offsets, and what the
//! ledger already decided is published from there.

mod assignment;
pub mod batch;
mod batch_publisher;
mod comparison;
mod decided;
mod failure;
mod gather;
mod membership;
pub mod ownership;
pub mod progress;
pub mod recovery;
mod sharing;
mod topic_watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

pub use assignment::Assignment;
use batch::{Bounds, ReadBatch};
pub use batch_publisher::{BatchPublisher, Unfinished, renew};
pub use comparison::Comparison;
pub use decided::{Decided, Portion, Stuck};
pub use failure::Failure;
pub use gather::{FencedByItself, Intake};
pub use membership::Membership;
use progress::Progress;
pub use sharing::{GroupWatch, Sharing};
pub use topic_watch::{TopicNews, TopicWatch};

use crate::background::{Background, LevelChanges};
use crate::config::{BatchArgs, GroupArgs, KafkaArgs, LevelsArgs, TopicArgs};
use crate::kafka::transactional::Publisher;
use crate::ledger::Outcome;
use crate::store::{self, Applied, LedgerWriter, VerifierStore};
use crate::tally::Totals;

/// Decided batches that wait to be published. One is enough to keep both stages busy; each more is only latency and memory.
const STAGE_QUEUE: usize = 1;
/// Batches the deciding stage has at once. None waits before it: a batch grows until it is taken, so that under load
/// batches get larger, not more.
const DECIDING: usize = 1;
/// The longest pause between tries of a batch while the database is away.
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the log says that it still is.
const DATABASE_SAY: Duration = Duration::from_secs(5);
/// A member that is fenced by itself again within this time is fenced by another instance.
const FENCED_AGAIN: Duration = Duration::from_secs(60);
/// Longest wait, when stopping, for the ledger to note how far results are published.
const KEEP_LIMIT: Duration = Duration::from_secs(3);
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
    /// How levels are published.
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
    store: Arc<dyn VerifierStore>,
    totals: Arc<Totals>,
    stop: CancellationToken,
) -> Result<()> {
    let progress = Arc::new(Progress::default());
    let writer: Arc<dyn LedgerWriter> = store.clone();
    let comparison = Arc::new(Comparison::new(
        &settings.kafka,
        &settings.group,
        &settings.topics,
        Arc::clone(&writer),
        Arc::clone(&progress),
    )?);
    let topics = TopicWatch::new(&settings.kafka, &settings.topics)?;
    topics.check_partitions(&*writer, settings.accept_data_loss).await?;
    let background =
        Background::new(&settings.kafka, &settings.topics, settings.levels.delay(), store.clone(), store)?;
    let level_changes = background.level_changes();
    let background_stop = CancellationToken::new();
    let background = tokio::spawn(background.run(background_stop.clone()));
    let mut workers = JoinSet::new();
    for number in 0..settings.workers {
        let worker = Worker {
            number,
            settings: settings.clone(),
            store: Arc::clone(&writer),
            level_changes: level_changes.clone(),
            news: topics.listen(),
            comparison: Arc::clone(&comparison),
            totals: Arc::clone(&totals),
        };
        workers.spawn(work(worker, stop.clone()));
    }
    let topics = tokio::spawn(topics.run(background_stop.clone()));
    let mut first = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.context("a worker panicked").flatten();
        stop.cancel();
        first = graver(first, ended);
    }
    match tokio::time::timeout(KEEP_LIMIT, progress.keep(&*writer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "how far results are published is not kept"),
        Err(_) => tracing::debug!("how far results are published is not kept within {KEEP_LIMIT:?}"),
    }
    // Last, so that what the workers moved last is published too.
    background_stop.cancel();
    let watched = topics.await.context("watching the topics panicked");
    first.and(background.await.context("publishing levels panicked")).and(watched)
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
    store: Arc<dyn LedgerWriter>,
    level_changes: LevelChanges,
    news: TopicNews,
    comparison: Arc<Comparison>,
    totals: Arc<Totals>,
}

/// One worker: a pipeline, and another once the group has no older instances any more (see [`Sharing`]).
async fn work(worker: Worker, stop: CancellationToken) -> Result<()> {
    let Worker { number, settings, .. } = &worker;
    let group = settings.may_have_older.then(|| GroupWatch::new(&settings.kafka, &settings.group));
    let mut fenced: Option<Instant> = None;
    while !stop.is_cancelled() {
        let sharing = match &group {
            Some(group) => group.sharing(&stop).await?,
            None => Some(Sharing::EachTopic),
        };
        let Some(sharing) = sharing else { break };
        let own_stop = stop.child_token();
        let pipeline = pipeline(&worker, sharing, own_stop.clone());
        let ended = match group.as_ref().filter(|_| sharing == Sharing::Together) {
            None => pipeline.await,
            Some(group) => {
                tokio::select! {
                    ended = pipeline => ended,
                    never = stop_without_older(group, *number, &own_stop) => match never {},
                }
            }
        };
        match ended {
            Ok(()) if sharing == Sharing::EachTopic => break,
            Ok(()) => {}
            // What it left in hand to join anew it reads again itself.
            Err(error) if error.is::<Unfinished>() && !stop.is_cancelled() => tracing::info!("{error:#}"),
            Err(error)
                if error.is::<FencedByItself>()
                    && !stop.is_cancelled()
                    && fenced.is_none_or(|at| at.elapsed() > FENCED_AGAIN) =>
            {
                tracing::warn!(worker = number, "joining the group anew: {error:#}");
                fenced = Some(Instant::now());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Stops a pipeline that joined as older instances do, once none of them is left. Never ends by itself.
async fn stop_without_older(group: &GroupWatch, worker: usize, stop: &CancellationToken) -> Infallible {
    tracing::warn!(
        worker,
        "older instances share this group: until all are of this version, orders and adjustments are shared in sum, as \
         they do, not each evenly"
    );
    match group.older_are_gone().await {
        Ok(()) => {
            tracing::info!(
                worker,
                "no older instance is left: leaving the group, to share each topic evenly"
            );
            stop.cancel();
        }
        Err(error) => tracing::warn!("not looking for older instances any more: {error:#}"),
    }
    std::future::pending().await
}

/// Three stages, joined by bounded queues.
async fn pipeline(worker: &Worker, sharing: Sharing, stop: CancellationToken) -> Result<()> {
    let Worker { number, settings, store, level_changes, news, comparison, totals } = worker;
    // Init first: only then do the committed offsets hold all that a predecessor published.
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

    let assignment = Assignment::new(
        Arc::clone(store),
        Handle::current(),
        level_changes.clone(),
        Arc::clone(comparison.progress()),
        settings.accept_data_loss,
    );
    let Settings { kafka, group, topics, .. } = settings;
    let intake =
        Intake::join(kafka, group, topics, *number, sharing, Bounds::from(settings.batch), assignment)?;
    let membership = intake.membership();
    tokio::spawn(news.clone().pass_on(Arc::clone(membership.assignment()), stop.clone()));

    let permits = Arc::new(Semaphore::new(DECIDING));
    let (gathered, batches) = mpsc::channel(DECIDING);
    let (decided, publishings) = mpsc::channel(STAGE_QUEUE);
    let gathering = spawn_blocking({
        let stop = stop.clone();
        let permits = Arc::clone(&permits);
        move || intake.run(gathered, &permits, &stop)
    });
    let publishing = spawn_blocking({
        let (membership, comparison) = (membership.clone(), Arc::clone(comparison));
        let (totals, stop) = (Arc::clone(totals), stop.clone());
        move || {
            let _ended = stop.clone().drop_guard();
            publish(publisher, &membership, publishings, &comparison, &totals, &stop)
        }
    });
    let deciding = decide(worker, membership, batches, decided, &permits, &stop).await;
    permits.close();
    stop.cancel();

    let publishing = publishing.await.context("the publishing stage panicked").flatten();
    let gathering = gathering.await.context("the gathering stage panicked").flatten();
    graver(graver(publishing, deciding), gathering)
}

/// The deciding stage. Gives a permit back when it is free for the next batch.
async fn decide(
    worker: &Worker,
    membership: Membership,
    mut batches: mpsc::Receiver<ReadBatch>,
    decided: mpsc::Sender<Decided>,
    permits: &Semaphore,
    stop: &CancellationToken,
) -> Result<()> {
    let Worker { store, level_changes, comparison, .. } = worker;
    while let Some(mut batch) = batches.recv().await {
        if batch.drop_ended(&membership.assignment().ownership) {
            let (mut to_apply, pending) = batch.split();
            let begun = Instant::now();
            let (mut applied, epoch) =
                match apply_with_retries(&**store, comparison, &mut to_apply, stop).await {
                    Err(error) if error.may_pass() => return Err(Unfinished(error.into()).into()),
                    done => done?,
                };
            level_changes.mark(std::mem::take(&mut applied.levels));
            // Decided before, by a process that is gone or with an answer that was lost: who knows what it published.
            if applied.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Republished(_))) {
                level_changes.mark_all();
            }
            tracing::debug!(requests = to_apply.requests.len(), took = ?begun.elapsed(), "decided");
            if decided.send(Decided::new(pending, applied, epoch)).await.is_err() {
                break;
            }
        }
        permits.add_permits(1);
    }
    Ok(())
}

/// Applies a batch, however long the database is away; a stop ends the waiting. Returns also the connection epoch in which
/// it was applied.
async fn apply_with_retries(
    store: &dyn LedgerWriter,
    comparison: &Comparison,
    to_apply: &mut store::CommandBatch,
    stop: &CancellationToken,
) -> Result<(Applied, u64), Failure> {
    let mut pause = Duration::from_millis(100);
    let mut said: Option<Instant> = None;
    loop {
        match apply_compared(store, comparison, to_apply).await {
            // Compared at once, now that somebody is there again.
            Err(error) if error.is_reconnected() => {}
            Err(error) if error.may_pass() && !stop.is_cancelled() => {
                if said.is_none_or(|at| at.elapsed() >= DATABASE_SAY) {
                    tracing::warn!(
                        "the database is away, or cannot be compared; the batch waits: {:#}",
                        anyhow::Error::from(error)
                    );
                    said = Some(Instant::now());
                }
                let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                pause = (pause * 2).min(DATABASE_PAUSE_MAX);
            }
            done => return done,
        }
    }
}

/// Applies a batch to a ledger that has all that is known of it.
async fn apply_compared(
    store: &dyn LedgerWriter,
    comparison: &Comparison,
    to_apply: &mut store::CommandBatch,
) -> Result<(Applied, u64), Failure> {
    let epoch = comparison.epoch().await?;
    to_apply.epoch = Some(epoch);
    comparison.progress().note_progress(&mut to_apply.advances);
    let applied = store.apply(to_apply).await?;
    comparison.progress().applied(&to_apply.advances);
    Ok((applied, epoch))
}

/// The publishing stage. Blocks: runs on a thread of its own.
fn publish(
    publisher: Publisher,
    membership: &Membership,
    mut batches: mpsc::Receiver<Decided>,
    comparison: &Comparison,
    totals: &Totals,
    stop: &CancellationToken,
) -> Result<()> {
    let mut batch_publisher = BatchPublisher::new(publisher, membership, comparison, totals, stop);
    while let Some(batch) = batches.blocking_recv() {
        batch_publisher.publish(batch)?;
    }
    batch_publisher.end()
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
