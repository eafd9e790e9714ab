//! How far the ledger has decided what is in the topic of orders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::spawn_blocking;

use super::results::CLIENT_ID;
use crate::config::KafkaArgs;
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::LedgerWriter;

/// An offset of each partition.
pub(super) type Offsets = HashMap<TopicPartition, NextOffset>;

/// A partition's position, which may stand still.
#[derive(Clone, Copy)]
pub(super) struct Stand {
    position: NextOffset,
    /// Since when it has been the same, or since it was last looked why.
    since: Instant,
    /// Below this there is nothing that is not decided, by what was looked at.
    decided: NextOffset,
}

impl Stand {
    fn at(position: NextOffset) -> Self {
        Self { position, since: Instant::now(), decided: position }
    }
}

/// The positions of partitions.
pub(super) type Standing = HashMap<TopicPartition, Stand>;

/// The topic, and the ledger's positions in it.
#[derive(Clone)]
pub(super) struct OrdersTopic {
    pub(super) kafka: KafkaArgs,
    pub(super) name: String,
    /// For the positions alone.
    pub(super) positions: Arc<dyn LedgerWriter>,
}

impl OrdersTopic {
    /// Where its partitions end now, with what open transactions hide: it will be decided too.
    pub(super) async fn ends(&self) -> Result<Offsets> {
        let (kafka, topic) = (self.kafka.clone(), self.name.clone());
        spawn_blocking(move || {
            let ends = Topics::connect(&kafka, CLIENT_ID)?.ends_with_hidden(&[&topic])?;
            Ok(ends.into_iter().collect())
        })
        .await?
    }

    /// Below which offset all orders are decided, in each of these partitions; where each ends says how far that matters.
    ///
    /// A position that has not moved for `marks_after` may have nothing to move over: the marks of transactions move an end,
    /// and no position. So the partition is looked into then, and again after as long. Not while it moves: then a verifier
    /// has a backlog, as in a sale.
    pub(super) async fn decided(
        &self,
        ends: &Offsets,
        standing: &mut Standing,
        marks_after: Duration,
    ) -> Result<Offsets> {
        standing.retain(|at, _| ends.contains_key(at));
        if ends.is_empty() {
            return Ok(Offsets::new());
        }
        let partitions: Vec<TopicPartition> = ends.keys().cloned().collect();
        let positions = self.positions.positions(&partitions).await?;
        let mut decided = Offsets::new();
        for (at, end) in ends {
            let next = positions.get(at).map_or(NextOffset(0), |position| position.next);
            let stand = standing.entry(at.clone()).or_insert_with(|| Stand::at(next));
            if stand.position != next {
                *stand = Stand::at(next);
            }
            if stand.decided < *end && stand.since.elapsed() > marks_after {
                match self.first_record(at, stand.decided, *end).await {
                    Ok(first) => stand.decided = stand.decided.max(first),
                    // It holds up none of the others.
                    Err(error) => {
                        tracing::debug!(partition = %at, "no look at what is not decided: {error:#}");
                    }
                }
                stand.since = Instant::now();
            }
            decided.insert(at.clone(), stand.decided);
        }
        Ok(decided)
    }

    /// Where the first record from an offset on stands; where there is none, the offset up to which it was looked.
    async fn first_record(
        &self,
        at: &TopicPartition,
        from: NextOffset,
        to: NextOffset,
    ) -> Result<NextOffset> {
        let (kafka, at) = (self.kafka.clone(), at.clone());
        spawn_blocking(move || {
            let topics = Topics::connect(&kafka, CLIENT_ID)?;
            // What retention took cannot be read, and is not there. What an open transaction hides cannot either, and may be.
            let whole = topics.whole(&at)?;
            let (from, to) = (from.max(whole.from), to.min(whole.to));
            if from >= to {
                return Ok(to);
            }
            let first = topics.read(&[OffsetRange { at, from, to }])?.take_next()?;
            Ok(first.map_or(to, |record| NextOffset(record.source.offset.0)))
        })
        .await?
    }
}
