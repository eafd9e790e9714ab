//! Filling the cache from the ledger, when it is new or was emptied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::RedisCache;
use super::level_reads::store_page;
use super::results::{CLIENT_ID, ends};
use crate::causes;
use crate::config::{KafkaArgs, TopicArgs};
use crate::kafka::topics::Topics;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::{LedgerReader, LedgerWriter};

/// How often is looked whether it is filled, when nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause after something did not answer.
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait until the ledger has decided what is in Kafka. Past it the levels are taken as they are: they may count
/// pieces free that orders in Kafka still take, which costs rejections.
const BACKLOG_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks at how far it is.
const BACKLOG_LOOK: Duration = Duration::from_millis(100);

/// Fills the cache.
pub(super) struct Filling {
    pub(super) cache: RedisCache,
    pub(super) ledger: Arc<dyn LedgerReader>,
    /// For the positions alone.
    pub(super) positions: Arc<dyn LedgerWriter>,
    pub(super) kafka: KafkaArgs,
    pub(super) topics: TopicArgs,
    pub(super) asked: Arc<Notify>,
}

impl Filling {
    /// Fills it whenever it is not, until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let filled = tokio::select! {
                () = stop.cancelled() => return,
                filled = self.fill_if_empty() => filled,
            };
            if let Err(error) = &filled {
                tracing::warn!("the cache cannot be filled yet: {}", causes::of(error.as_ref()));
            }
            let pause = async {
                if filled.is_ok() {
                    let _ = timeout(LOOK_EVERY, self.asked.notified()).await;
                } else {
                    sleep(AWAY_PAUSE).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause => {}
            }
        }
    }

    async fn fill_if_empty(&self) -> Result<()> {
        if self.cache.status().await?.filled {
            return Ok(());
        }
        let begun = Instant::now();
        // Results from here on settle what is let in once it is filled.
        let (results, orders) = self.ends().await?;
        self.wait_for_ledger(&orders).await?;
        self.cache.begin_offsets(&results).await?;
        let (mut after, mut pages) = (None, 0);
        while let Some(last) = store_page(&self.cache, &*self.ledger, after.as_ref()).await? {
            after = Some(last);
            pages += 1;
        }
        self.cache.set_filled().await?;
        tracing::info!(pages, took = ?begun.elapsed(), "the cache is filled from the ledger");
        Ok(())
    }

    /// Where the results end, and where the orders do.
    async fn ends(&self) -> Result<(Offsets, Offsets)> {
        let (kafka, topics) = (self.kafka.clone(), self.topics.clone());
        spawn_blocking(move || {
            let asked = Topics::connect(&kafka, CLIENT_ID)?;
            let ends = |topic: &str| {
                anyhow::Ok(
                    ends(&asked, topic)?.into_iter().map(|(at, (_, end))| (at, end)).collect::<Offsets>(),
                )
            };
            let mut results = ends(&topics.accepted_topic)?;
            results.extend(ends(&topics.rejected_topic)?);
            Ok((results, ends(&topics.orders_topic)?))
        })
        .await?
    }

    /// Waits until the ledger has decided all orders below these ends: their entries are not known any more, and what they
    /// take is not in its levels before.
    async fn wait_for_ledger(&self, ends: &[(TopicPartition, NextOffset)]) -> Result<()> {
        let partitions: Vec<TopicPartition> = ends.iter().map(|(at, _)| at.clone()).collect();
        let begun = Instant::now();
        loop {
            let positions = self.positions.positions(&partitions).await?;
            let next = |at| positions.get(at).map_or(NextOffset(0), |position| position.next);
            let Some((at, end)) = ends.iter().find(|(at, end)| next(at) < *end) else { return Ok(()) };
            if begun.elapsed() > BACKLOG_LIMIT {
                tracing::warn!(
                    %at, %end, position = %next(at),
                    "filling the cache without waiting any longer for the ledger: is a verifier running?"
                );
                return Ok(());
            }
            sleep(BACKLOG_LOOK).await;
        }
    }
}

type Offsets = Vec<(TopicPartition, NextOffset)>;
