//! Batches to transactions: how much at once, and what becomes of what cannot be published.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::PipelineError;
use super::ownership::Ownership;
use super::ports::{GroupMember, ResultSink};
use super::{Comparison, Decided, Stuck};
use crate::causes;
use crate::event::{Channel, Outgoing};
use crate::kafka::consumer::NotSpeaking;
use crate::kafka::transactional::{PublishError, Refusal};
use crate::ledger::{NextOffset, TopicPartition};

/// The pause before reading again what could not be published.
const REPUBLISH_PAUSE: Duration = Duration::from_millis(200);

/// The pauses between tries to make the producers anew: soon at first, since a broker that restarts is back in moments;
/// then seldom, since each try is a client made and a line in the log.
const RENEW_PAUSE_MIN: Duration = Duration::from_millis(200);
const RENEW_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Most records published in one transaction when all goes well: as many as a batch has at most, by any setting.
const PORTION_MAX: usize = 1 << 20;
/// And at least, however slow publishing is: so few go through any link within the time that a transaction has.
const PORTION_MIN: usize = 16;
/// A transaction that fails after this long was too large for how slow publishing is now: Kafka ends it after ten seconds.
const SLOW: Duration = Duration::from_secs(8);

/// How long a topic must be refused before partitions stop for it: a broker that has just started does not know all topics
/// and ACLs yet.
const TOPIC_REFUSAL_WAIT: Duration = Duration::from_secs(10);
/// After so long without a refusal the next one counts as the first.
const TOPIC_FORGET: Duration = Duration::from_secs(60);

/// The topics that were refused, by what they are for: since when, and when last.
#[derive(Default)]
struct RefusedTopics(HashMap<Channel, (Instant, Instant)>);

impl RefusedTopics {
    /// Whether refusals of these events are there to stay: those of a topic only after a while.
    fn are_certain(&mut self, refusals: &[Refusal], events: &[&Outgoing]) -> bool {
        let now = Instant::now();
        refusals.iter().filter(|refusal| refusal.is_for_topic()).all(|refusal| {
            let channel = events[refusal.index].channel;
            let (since, last) = self.0.entry(channel).or_insert((now, now));
            if now.duration_since(*last) > TOPIC_FORGET {
                *since = now;
            }
            *last = now;
            now.duration_since(*since) >= TOPIC_REFUSAL_WAIT
        })
    }

    /// These events were published: their topics are not refused any more. Of others that says nothing.
    fn forget(&mut self, events: &[&Outgoing]) {
        self.0.retain(|channel, _| events.iter().all(|event| event.channel != *channel));
    }
}

/// Publishes decided batches, one after the other.
pub struct BatchPublisher<'a, K, M> {
    sink: K,
    members: &'a [M],
    ownership: &'a Ownership,
    comparison: &'a Comparison,
    stop: &'a CancellationToken,
    /// Most records published in one transaction: fewer after one that ran out of time.
    most: usize,
    refused: RefusedTopics,
    /// Why the last batch was not published, while it waits to be read again.
    unpublished: Option<PublishError>,
}

impl<'a, K: ResultSink, M: GroupMember<Name = K::Name>> BatchPublisher<'a, K, M> {
    /// Publishes to this sink, for these memberships of the group.
    #[must_use]
    pub fn new(
        sink: K,
        members: &'a [M],
        ownership: &'a Ownership,
        comparison: &'a Comparison,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            sink,
            members,
            ownership,
            comparison,
            stop,
            most: PORTION_MAX,
            refused: RefusedTopics::default(),
            unpublished: None,
        }
    }

    /// The names under which the memberships that own these offsets send them now.
    fn names(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<Vec<K::Name>, NotSpeaking> {
        let owns_some = |member: &&M| offsets.iter().any(|(at, _)| member.may_own(at));
        self.members.iter().filter(owns_some).map(GroupMember::name).collect()
    }

    /// No batch comes any more.
    ///
    /// # Errors
    /// [`PipelineError::Unfinished`] when something of what is this instance's is decided and waits to be read again, whatever
    /// for. What a stopped partition waits for no start brings.
    pub fn end(self) -> Result<(), PipelineError> {
        let waits = |at: &TopicPartition| self.ownership.is_owned(at) && !self.ownership.is_stopped(at);
        if !self.comparison.progress().unpublished().iter().any(waits) {
            return Ok(());
        }
        let why =
            self.unpublished.map_or_else(|| anyhow!("it was to be read again, and was not yet"), Into::into);
        Err(PipelineError::Unfinished(why))
    }

    /// Publishes a batch. What cannot be published now is read again and published from the ledger; what never can stops its partition.
    ///
    /// # Errors
    /// When another instance has this one's id, Kafka refuses the producers for good, or a stop cuts it short.
    pub async fn publish(&mut self, mut batch: Decided) -> Result<(), PipelineError> {
        let mut stuck = Vec::new();
        loop {
            // The membership first: partitions that change hands from here on make Kafka refuse the offsets.
            let names = match self.names(&batch.offsets()) {
                Ok(names) => names,
                Err(NotSpeaking::JoinedAnew(why)) => {
                    tracing::warn!("what is under way is read again, not published: {why}");
                    self.ownership.request_rewind();
                    break;
                }
                Err(no_member) => return Err(PipelineError::Failed(no_member.into())),
            };
            if !batch.drop_ended(self.ownership) || batch.is_published() {
                break;
            }
            if self.comparison.is_outdated(batch.epoch()) {
                tracing::info!(
                    "the database was connected to anew; what was decided before is read again, not published"
                );
                self.ownership.request_rewind();
                break;
            }
            let begun = Instant::now();
            let portion = batch.portion(self.most);
            let published = self.sink.publish(&portion, &names).await;
            match published {
                Ok(()) => {
                    tracing::debug!(events = portion.events.len(), took = ?begun.elapsed(), "published");
                    self.comparison.progress().published(&portion.offsets);
                    self.refused.forget(&portion.events);
                    let records = portion.ended.len();
                    if records == self.most {
                        self.most = (self.most + self.most / 8 + 1).min(PORTION_MAX);
                    }
                    self.unpublished = None;
                    batch.published(records);
                }
                Err(PublishError::Refused(refusals))
                    if self.refused.are_certain(&refusals, &portion.events) =>
                {
                    stuck.extend(batch.handle_refusals(refusals));
                }
                Err(PublishError::TooMany(error)) if portion.ended.len() > PORTION_MIN => {
                    let records = portion.ended.len();
                    self.publish_fewer(records, &error);
                }
                Err(fenced @ PublishError::Fenced(_)) => return Err(PipelineError::Failed(fenced.into())),
                Err(error) => {
                    if begun.elapsed() > SLOW {
                        let records = portion.ended.len();
                        self.publish_fewer(records, &error);
                    }
                    if self.stop.is_cancelled() {
                        return Err(PipelineError::Unfinished(error.into()));
                    }
                    tracing::warn!(%error, "a batch could not be published; it is read again and published from the ledger");
                    self.ownership.request_rewind();
                    tokio::time::sleep(REPUBLISH_PAUSE).await;
                    // Those that are missing, if any is.
                    renew(&mut self.sink, self.stop).await.map_err(|refused| {
                        if self.stop.is_cancelled() {
                            PipelineError::Unfinished(refused)
                        } else {
                            PipelineError::Failed(refused)
                        }
                    })?;
                    self.unpublished = Some(error);
                    break;
                }
            }
        }
        for stuck in stuck {
            self.give_up(&stuck);
        }
        Ok(())
    }

    /// Halves what is published at once.
    fn publish_fewer(&mut self, records: usize, why: &dyn std::fmt::Display) {
        self.most = (records / 2).max(PORTION_MIN);
        tracing::warn!(
            most = self.most,
            "fewer records are published at once, since {records} were too many: {why}"
        );
    }

    /// Stops a partition whose next result or dead letter cannot be published, and says what to do.
    fn give_up(&self, stuck: &Stuck) {
        let Stuck { source, topic, bytes, why } = stuck;
        tracing::error!(
            partition = %source.at, offset = %source.offset, topic, bytes, why = %why,
            "stopped: what this record came to cannot be published. It is decided, and published when {topic} takes it: raise its \
             max.message.bytes where it is too large, allow this user to write where it is not allowed (ACL: Write), \
             create the topic where it is gone; then start again"
        );
        self.ownership.stop(&source.at, format!("offset {}: {why} on {topic}", source.offset));
    }
}

/// Makes the producers anew, however long Kafka is away. A refusal that stays one ends it, and so does a stop.
///
/// # Errors
/// That refusal, or what the last try before the stop met.
pub(super) async fn renew<K: ResultSink>(sink: &mut K, stop: &CancellationToken) -> Result<()> {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(RENEW_PAUSE_MIN)
        .with_max_delay(RENEW_PAUSE_MAX)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        let error = match sink.init_transactions(stop).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if stop.is_cancelled() {
            return Err(error.into());
        }
        if error.is_final() {
            return Err(anyhow::Error::from(error).context(
                "Kafka refuses this instance's producers, and will as long as nothing changes there: allow this user to \
                 use their transactional ids (ACLs Write and Describe; each worker has two, the second with -b at its \
                 end)",
            ));
        }
        // Holds because there is no last time.
        let pause = pauses.next().unwrap_or(RENEW_PAUSE_MAX);
        tracing::warn!(?pause, "the producer could not be made anew: {}", causes::of(&error));
        let _ = tokio::time::timeout(pause, stop.cancelled()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::transactional::RefusalCode;

    fn event(channel: Channel) -> Outgoing {
        Outgoing { channel, key: None, value: None, headers: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_refused_for_good_once_it_takes_nothing_for_a_while_whatever_others_take() {
        let (accepted, rejected) = (event(Channel::Accepted), event(Channel::Rejected));
        let mut refused = RefusedTopics::default();
        for (taken, are_certain, then) in [
            (vec![], false, TOPIC_REFUSAL_WAIT),
            // It took something meanwhile, so this is the first refusal again.
            (vec![&rejected], false, TOPIC_REFUSAL_WAIT / 2),
            (vec![&accepted], false, TOPIC_REFUSAL_WAIT / 2),
            (vec![&accepted], true, TOPIC_FORGET * 2),
            // Nothing was refused for so long that this is the first again.
            (vec![], false, Duration::ZERO),
        ] {
            refused.forget(&taken);
            let refusal = Refusal { index: 1, topic: "rejected".to_owned(), why: RefusalCode::NOT_PERMITTED };
            assert_eq!(
                refused.are_certain(&[refusal], &[&accepted, &rejected]),
                are_certain,
                "before {then:?}"
            );
            tokio::time::advance(then).await;
        }
    }
}
