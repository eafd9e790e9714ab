//! Filling the cache from the ledger, when it is new or was emptied.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cache::RedisCache;
use super::level_reads::store_page;
use super::orders_topic::{OrdersTopic, Standing, TopicEnds};
use super::partitions::Partitions;
use crate::causes;
use crate::config::TopicArgs;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::LedgerReader;

/// How often is looked whether it is filled, when nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause after something did not answer.
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait until the ledger has decided what is in Kafka. Past it the levels are taken as they are: they may count
/// pieces free that orders in Kafka still take, which costs rejections.
const BACKLOG_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks at how far it is.
const BACKLOG_LOOK: Duration = Duration::from_millis(100);
/// After so long a position that stands still is looked into.
const MARKS_AFTER: Duration = Duration::from_secs(1);

/// Fills the cache.
pub(super) struct Filling {
    pub(super) cache: RedisCache,
    pub(super) ledger: Arc<dyn LedgerReader>,
    pub(super) orders: OrdersTopic,
    pub(super) partitions: Partitions,
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
        let filling = self.cache.begin_filling().await?;
        // Results from here on settle what is let in once it is filled.
        let results = self.result_ends().await?;
        self.wait_for_ledger(&self.orders.ends().await?).await?;
        self.cache.begin_offsets(&results).await?;
        let (mut after, mut pages) = (None, 0);
        while let Some(last) = store_page(&self.cache, &*self.ledger, after.as_ref()).await? {
            after = Some(last);
            pages += 1;
        }
        ensure!(
            self.cache.set_filled(filling).await?,
            "Redis was emptied, or another took its place, meanwhile"
        );
        // Only Redis knew them, and it was new or had lost everything: a SKU that is not to be sold yet is sold now.
        tracing::warn!(
            pages, took = ?begun.elapsed(),
            "the cache is filled from the ledger. When SKUs are sold, and what each buyer can have, Redis alone knows: where \
             that was stated before, state it again (gate open, gate close)"
        );
        Ok(())
    }

    /// Where the results end. A partition that says nothing is begun when it does, at its beginning.
    async fn result_ends(&self) -> Result<Vec<(TopicPartition, NextOffset)>> {
        let topics = vec![self.topics.accepted_topic.clone(), self.topics.rejected_topic.clone()];
        let answered = self.partitions.whole(topics, HashSet::new()).await?;
        Ok(answered.whole.into_iter().map(|range| (range.at, range.to)).collect())
    }

    /// Waits until the ledger has decided all orders below these ends: their entries are not known any more, and what they
    /// take is not in its levels before. For a partition that says nothing nobody waits: no verifier reads it either.
    async fn wait_for_ledger(&self, TopicEnds { id, ends, .. }: &TopicEnds) -> Result<()> {
        let (begun, mut standing) = (Instant::now(), Standing::new());
        loop {
            let decided = self.orders.decided(id.as_ref(), ends, &mut standing, MARKS_AFTER).await?;
            let below = |at| decided.get(at).copied().unwrap_or(NextOffset(0));
            let Some((at, end)) = ends.iter().find(|(at, end)| below(at) < **end) else { return Ok(()) };
            if begun.elapsed() > BACKLOG_LIMIT {
                tracing::warn!(
                    %at, %end, decided = %below(at),
                    "filling the cache without waiting any longer for the ledger: is a verifier running?"
                );
                return Ok(());
            }
            sleep(BACKLOG_LOOK).await;
        }
    }
}
