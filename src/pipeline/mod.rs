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
mod decoding;
mod error;
mod failure;
mod gather;
mod on_kafka;
pub mod ownership;
pub mod ports;
pub mod progress;
pub mod recovery;
mod sharing;
mod take_over;
mod topic_watch;
mod unread;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use assignment::Assignment;
use batch::{Batch, Bounds, ReadRecord};
pub use batch_publisher::BatchPublisher;
pub use comparison::Comparison;
pub use decided::{Decided, EndedRecord, Portion, RecordEnd, Stuck};
use decoding::Decoding;
pub use error::PipelineError;
pub use failure::Failure;
use gather::Gather;
use ownership::{InFlight, Ownership};
pub use ownership::{Stopped, StoppedPartitions};
use ports::{GroupMember, RecordSource, ResultSink};
use take_over::TakeOver;
pub use topic_watch::TopicNews;
pub use verifier::{Settings, run};

use crate::background::LevelChanges;
use crate::causes;
use crate::ledger::Outcome;
use crate::mapping::Mappings;
use crate::registry::Registry;
use crate::store::{self, Applied, LedgerWriter};

/// Decided batches that wait to be published. One is enough to keep both stages busy; each more is only latency and memory.
const STAGE_QUEUE: usize = 1;
/// Batches the deciding stage has at once. None waits before it: a batch grows until it is taken, so that under load
/// batches get larger, not more.
const DECIDING: usize = 1;
/// The longest pause between tries of a batch while the database is away.
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the log says that it still is.
const DATABASE_SAY: Duration = Duration::from_secs(5);

/// What a pipeline works with, besides where its records come from and its results go.
pub struct Pipeline {
    /// The ledger.
    pub store: Arc<dyn LedgerWriter>,
    /// What all pipelines of the process know of it.
    pub comparison: Arc<Comparison>,
    /// Learns which levels moved.
    pub level_changes: LevelChanges,
    /// What Kafka says of the topics.
    pub news: TopicNews,
    /// Where schemas are looked up, if values are written by any.
    pub registry: Option<Arc<Registry>>,
    /// Learns which partitions are read no further.
    pub stopped: StoppedPartitions,
    /// What closes a batch.
    pub bounds: Bounds,
    /// Whether to go on where records are gone.
    pub accept_data_loss: bool,
    /// What reads records that are not commands as they are.
    pub mappings: Mappings,
    /// Cancelled when the process stops. A pipeline that ends before has a successor, which reads on.
    pub process_stop: CancellationToken,
}

impl Pipeline {
    /// Three stages, joined by bounded queues, until `stop`; then what is in hand is finished.
    ///
    /// # Errors
    /// When a stage cannot go on; [`PipelineError::Unfinished`] where the next start goes on.
    pub async fn run<S, K>(self, source: S, sink: K, stop: CancellationToken) -> Result<(), PipelineError>
    where
        S: RecordSource,
        S::Member: GroupMember<Name = K::Name>,
        K: ResultSink,
    {
        let members = source.members();
        let ownership = Arc::new(Ownership::new(self.stopped.clone()));
        let in_flight = InFlight::default();
        let take_over = TakeOver {
            store: Arc::clone(&self.store),
            ownership: Arc::clone(&ownership),
            accept_data_loss: self.accept_data_loss,
            mappings: self.mappings.clone(),
        };
        let assignment = Assignment::new(
            members.clone(),
            take_over,
            in_flight.clone(),
            Arc::clone(self.comparison.progress()),
            self.level_changes.clone(),
        );
        let gather = Gather::new(
            source,
            assignment,
            Arc::clone(&ownership),
            in_flight,
            self.news.clone(),
            Decoding::new(self.registry.clone()),
            self.bounds,
        );

        let permits = Arc::new(Semaphore::new(DECIDING));
        let (gathered, batches) = mpsc::channel(DECIDING);
        let (decided, publishings) = mpsc::channel(STAGE_QUEUE);
        let gathering =
            tokio::spawn(gather.run(gathered, Arc::clone(&permits), stop.clone(), self.process_stop.clone()));
        let publishing = tokio::spawn({
            let comparison = Arc::clone(&self.comparison);
            let (ownership, stop) = (Arc::clone(&ownership), stop.clone());
            async move {
                let _ended = stop.clone().drop_guard();
                let publisher = BatchPublisher::new(sink, &members, &ownership, &comparison, &stop);
                publish(publisher, publishings).await
            }
        });
        let deciding = decide(&self, &ownership, batches, decided, &permits, &stop).await;
        permits.close();
        stop.cancel();

        let publishing = publishing
            .await
            .context("the publishing stage panicked")
            .map_err(PipelineError::Failed)
            .flatten();
        let gathering = match gathering.await.context("the gathering stage panicked") {
            Ok((gathered, source)) => {
                source.close().await;
                gathered
            }
            Err(panicked) => Err(panicked.into()),
        };
        graver(graver(publishing, deciding), gathering)
    }
}

/// The first failure, but one that a stop explains only where there is no other.
fn graver(first: Result<(), PipelineError>, next: Result<(), PipelineError>) -> Result<(), PipelineError> {
    match (&first, &next) {
        (Err(PipelineError::Unfinished(_)), Err(_)) => next,
        _ => first.and(next),
    }
}

/// The deciding stage. Gives a permit back when it is free for the next batch.
async fn decide(
    pipeline: &Pipeline,
    ownership: &Ownership,
    mut batches: mpsc::Receiver<Batch<ReadRecord>>,
    decided: mpsc::Sender<Decided>,
    permits: &Semaphore,
    stop: &CancellationToken,
) -> Result<(), PipelineError> {
    let Pipeline { store, level_changes, comparison, .. } = pipeline;
    while let Some(mut batch) = batches.recv().await {
        if batch.drop_ended(ownership) {
            let (mut to_apply, pending) = batch.split();
            let begun = Instant::now();
            let (mut applied, epoch) =
                match apply_with_retries(&**store, comparison, &mut to_apply, stop).await {
                    Err(error) if error.may_pass() => return Err(PipelineError::Unfinished(error.into())),
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
                        "the database is away, or cannot be compared; the batch waits: {}",
                        causes::of(&error)
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

/// The publishing stage.
async fn publish<K: ResultSink, M: GroupMember<Name = K::Name>>(
    mut publisher: BatchPublisher<'_, K, M>,
    mut batches: mpsc::Receiver<Decided>,
) -> Result<(), PipelineError> {
    while let Some(batch) = batches.recv().await {
        publisher.publish(batch).await?;
    }
    publisher.end()
}
