//! A verifier: its workers, each a pipeline that is a member of the group, and what goes on beside them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::batch::Bounds;
use super::batch_publisher::renew;
use super::error::PipelineError;
use super::on_kafka::AskedGroup;
use super::ports::Observer;
use super::progress::Progress;
use super::sharing::{GroupWatch, Sharing};
use super::topic_watch::{TopicNews, TopicWatch};
use super::unread::UnreadWatch;
use super::{Comparison, Pipeline, StoppedPartitions, graver};
use crate::background::{Background, LevelChanges};
use crate::causes;
use crate::config::{BatchArgs, GroupArgs, GroupProtocol, KafkaArgs, LevelsArgs, RegistryArgs, TopicArgs};
use crate::kafka::consumer::Memberships;
use crate::kafka::transactional::Publisher;
use crate::mapping::Mappings;
use crate::registry::Registry;
use crate::store::{LedgerWriter, VerifierStore};

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
    /// Where schemas are looked up.
    pub registry: RegistryArgs,
    /// How levels are published.
    pub levels: LevelsArgs,
    /// How many pipelines, each a member of the group.
    pub workers: usize,
    /// Whether to go on where records are gone.
    pub accept_data_loss: bool,
    /// What reads records that are not commands as they are.
    pub mappings: Mappings,
    /// Whether the group may have members of an earlier version; the demo's has none, and its broker cannot be asked.
    pub may_have_older: bool,
}

/// Runs until `stop`, then finishes what is in hand and leaves the group. The observer watches where records come from and
/// where results go; partitions that cannot be read any further are noted in `stopped`.
///
/// # Errors
/// The first failure of a worker; the others are stopped in good order.
pub async fn run<O: Observer>(
    settings: Settings,
    store: Arc<dyn VerifierStore>,
    stopped: StoppedPartitions,
    observer: O,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let progress = Arc::new(Progress::default());
    let writer: Arc<dyn LedgerWriter> = store.clone();
    let comparison = Arc::new(Comparison::new(
        Arc::clone(&writer),
        Box::new(AskedGroup::new(&settings.kafka, &settings.group, &settings.topics)?),
        Arc::clone(&progress),
    ));
    let topics = TopicWatch::new(&settings.kafka, &settings.topics)?;
    topics.check_partitions(&*writer, settings.accept_data_loss).await?;
    let background =
        Background::new(&settings.kafka, &settings.topics, settings.levels.delay(), store.clone(), store)?;
    let level_changes = background.level_changes();
    observer.level_changes(&level_changes);
    // One for all workers: what one learned of a schema, all know.
    let registry = Registry::named(&settings.registry)?;
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
            registry: registry.clone(),
            comparison: Arc::clone(&comparison),
            stopped: stopped.clone(),
            observer: observer.clone(),
        };
        workers.spawn(work(worker, stop.clone()));
    }
    let topics = tokio::spawn(topics.run(background_stop.clone()));
    let mut first = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.context("a worker panicked").map_err(PipelineError::Failed).flatten();
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
    let published = background.await.context("publishing levels panicked");
    first.and(published.and(watched).map_err(PipelineError::Failed))
}

/// What one worker works with.
struct Worker<O> {
    /// From 0.
    number: usize,
    settings: Settings,
    store: Arc<dyn LedgerWriter>,
    level_changes: LevelChanges,
    news: TopicNews,
    registry: Option<Arc<Registry>>,
    comparison: Arc<Comparison>,
    stopped: StoppedPartitions,
    observer: O,
}

/// One worker: a pipeline, and another once the group has no older instances any more (see [`Sharing`]), or where partitions of
/// it are unread (see [`UnreadWatch`]).
async fn work<O: Observer>(worker: Worker<O>, stop: CancellationToken) -> Result<(), PipelineError> {
    let Worker { number, settings, .. } = &worker;
    let group = settings.may_have_older.then(|| GroupWatch::new(&settings.kafka, &settings.group));
    let mut unread = UnreadWatch::new(&settings.kafka, &settings.group, &settings.topics);
    let mut fenced: Option<Instant> = None;
    while !stop.is_cancelled() {
        let sharing = match &group {
            Some(group) => group.sharing(&stop).await?,
            None => Some(Sharing::EachTopic),
        };
        let Some(sharing) = sharing else { break };
        let own_stop = stop.child_token();
        let is_anew = AtomicBool::new(false);
        let pipeline = pipeline(&worker, sharing, own_stop.clone(), &stop);
        let ended = match (&group, sharing) {
            (Some(group), Sharing::Together) => {
                tokio::select! {
                    ended = pipeline => ended,
                    never = stop_without_older(group, *number, &own_stop) => match never {},
                }
            }
            // One for all workers of the process. With the other protocol the broker assigns, and knows what is unread.
            (Some(_), Sharing::EachTopic)
                if *number == 0 && settings.group.group_protocol == GroupProtocol::Classic =>
            {
                tokio::select! {
                    ended = pipeline => ended,
                    never = stop_where_unread(&mut unread, &own_stop, &is_anew) => match never {},
                }
            }
            _ => pipeline.await,
        };
        match ended {
            Ok(()) if sharing == Sharing::EachTopic && !is_anew.into_inner() => break,
            Ok(()) => {}
            Err(error) => go_on_after(error, *number, &mut fenced, stop.is_cancelled())?,
        }
    }
    Ok(())
}

/// What a worker does whose pipeline ended by an error: it makes another one, or ends by the error that is returned.
/// `fenced` is when it was fenced by itself last.
fn go_on_after(
    error: PipelineError,
    worker: usize,
    fenced: &mut Option<Instant>,
    is_stopping: bool,
) -> Result<(), PipelineError> {
    match error {
        // What it left in hand to join anew it reads again itself.
        PipelineError::Unfinished(_) if !is_stopping => tracing::info!("{}", causes::of(&error)),
        // Told to stop meanwhile: what it had in hand is the next start's, and nothing is wrong with it.
        PipelineError::FencedByItself if is_stopping => return Err(PipelineError::Unfinished(error.into())),
        PipelineError::FencedByItself if fenced.is_none_or(|at| at.elapsed() > FENCED_AGAIN) => {
            tracing::warn!(worker, "joining the group anew: {}", causes::of(&error));
            *fenced = Some(Instant::now());
        }
        PipelineError::Unfinished(_) | PipelineError::FencedByItself | PipelineError::Failed(_) => {
            return Err(error);
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
        Err(error) => {
            tracing::warn!("not looking for older instances any more: {}", causes::of(error.as_ref()));
        }
    }
    std::future::pending().await
}

/// Stops a pipeline that is to join the group anew, since partitions are unread, and says so. Never ends by itself.
async fn stop_where_unread(
    unread: &mut UnreadWatch,
    stop: &CancellationToken,
    is_anew: &AtomicBool,
) -> Infallible {
    match unread.is_to_join_anew().await {
        Ok(()) => {
            is_anew.store(true, Ordering::Relaxed);
            stop.cancel();
        }
        Err(error) => {
            tracing::warn!("not looking for unread partitions any more: {}", causes::of(error.as_ref()));
        }
    }
    std::future::pending().await
}

/// A pipeline on Kafka.
async fn pipeline<O: Observer>(
    worker: &Worker<O>,
    sharing: Sharing,
    stop: CancellationToken,
    process_stop: &CancellationToken,
) -> Result<(), PipelineError> {
    let Settings { kafka, group, topics, batch, accept_data_loss, mappings, .. } = &worker.settings;
    // Init first: only then do the committed offsets hold all that a predecessor published.
    let publisher = Publisher::new(kafka, topics, &group.transactional_id(worker.number))?;
    let mut publisher = worker.observer.sink(publisher);
    match renew(&mut publisher, &stop).await {
        Ok(()) => {}
        // It has nothing in hand yet.
        Err(_) if stop.is_cancelled() => return Ok(()),
        Err(refused) => return Err(refused.into()),
    }
    let memberships = Memberships::join(kafka, group, topics, worker.number, sharing.roles())?;
    let pipeline = Pipeline {
        store: Arc::clone(&worker.store),
        comparison: Arc::clone(&worker.comparison),
        level_changes: worker.level_changes.clone(),
        news: worker.news.clone(),
        registry: worker.registry.clone(),
        stopped: worker.stopped.clone(),
        bounds: Bounds::from(*batch),
        accept_data_loss: *accept_data_loss,
        mappings: mappings.clone(),
        process_stop: process_stop.clone(),
    };
    pipeline.run(worker.observer.source(memberships), publisher, stop).await
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    /// What becomes of a worker that was fenced by itself so long ago, if ever.
    fn after(
        error: PipelineError,
        fenced_ago: Option<Duration>,
        is_stopping: bool,
    ) -> Result<(), PipelineError> {
        let at = fenced_ago.map(|ago| Instant::now().checked_sub(ago).expect("up for a minute"));
        let mut fenced = at;
        let ended = go_on_after(error, 0, &mut fenced, is_stopping);
        assert!(ended.is_err() || fenced >= at, "when it was fenced is not forgotten");
        ended
    }

    fn unfinished() -> PipelineError {
        PipelineError::Unfinished(anyhow!("the database is away"))
    }

    #[test]
    fn a_worker_goes_on_with_what_it_left_in_hand_unless_it_is_stopped() {
        assert!(after(unfinished(), None, false).is_ok());
        assert!(matches!(after(unfinished(), None, true), Err(PipelineError::Unfinished(_))));
    }

    #[test]
    fn a_worker_that_is_fenced_by_itself_joins_anew_but_not_again_and_again() {
        let fenced = || PipelineError::FencedByItself;
        assert!(after(fenced(), None, false).is_ok());
        assert!(matches!(after(fenced(), Some(Duration::ZERO), false), Err(PipelineError::FencedByItself)));
        assert!(after(fenced(), Some(FENCED_AGAIN + Duration::from_secs(1)), false).is_ok());
        assert!(matches!(after(fenced(), None, true), Err(PipelineError::Unfinished(_))));
    }

    #[test]
    fn a_worker_that_failed_ends_and_a_failure_counts_before_what_is_left_in_hand() {
        let failed = || PipelineError::Failed(anyhow!("the ledger went back in time"));
        for is_stopping in [false, true] {
            assert!(matches!(after(failed(), None, is_stopping), Err(PipelineError::Failed(_))));
        }
        for (first, next) in [(failed(), unfinished()), (unfinished(), failed())] {
            assert!(matches!(graver(Err(first), Err(next)), Err(PipelineError::Failed(_))));
        }
        assert!(matches!(graver(Err(unfinished()), Ok(())), Err(PipelineError::Unfinished(_))));
    }
}
