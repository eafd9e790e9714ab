//! How far the ledger has decided what is in the topic of orders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::partitions::Partitions;
use crate::kafka::reader::OffsetRange;
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, TopicId, TopicPartition};
use crate::store::{LedgerWriter, Position};

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

/// The topic at one moment.
#[derive(Debug, Clone)]
pub(super) struct TopicEnds {
    /// Which topic has the name; `None` where Kafka does not say.
    pub(super) id: Option<TopicId>,
    /// How many partitions it has.
    pub(super) count: i32,
    /// Where each of them ends that says so.
    pub(super) ends: Offsets,
}

/// The topic, and the ledger's positions in it.
#[derive(Clone)]
pub(super) struct OrdersTopic {
    pub(super) partitions: Partitions,
    pub(super) name: String,
    /// For the positions alone.
    pub(super) positions: Arc<dyn LedgerWriter>,
}

impl OrdersTopic {
    /// Where its partitions end now, with what open transactions hide: it will be decided too.
    pub(super) async fn ends(&self) -> Result<TopicEnds> {
        let topic = self.name.clone();
        let asked = self.partitions.ask(move |topics| {
            // First: of a topic that is made anew in between, no position counts.
            let id = topics.describe(&[&topic])?.first().and_then(Described::id).cloned();
            Ok((id, topics.each_with_hidden(&topic)?))
        });
        let (id, answered) = asked.await?;
        self.partitions.say(&answered.silent);
        let count = i32::try_from(answered.whole.len() + answered.silent.len()).unwrap_or(i32::MAX);
        let ends = answered.whole.into_iter().map(|range| (range.at, range.to)).collect();
        Ok(TopicEnds { id, count, ends })
    }

    /// Below which offset all orders are decided, in each of these partitions of this topic; where each ends says how far
    /// that matters.
    ///
    /// A position that has not moved for `marks_after` may have nothing to move over: the marks of transactions move an end,
    /// and no position. So the partition is looked into then, and again after as long. Not while it moves: then a verifier
    /// has a backlog, as in a sale.
    pub(super) async fn decided(
        &self,
        topic: Option<&TopicId>,
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
            let next = next_in(topic, positions.get(at));
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
        let at = at.clone();
        let looked = self.partitions.ask(move |topics| {
            let answered = topics.each_whole(&at.topic, |each| *each == at)?;
            if let Some((_, why)) = answered.silent.first() {
                bail!("{why}");
            }
            let Some(whole) = answered.whole.first() else { bail!("there is no such partition") };
            // What retention took cannot be read, and is not there. What an open transaction hides cannot either, and may be.
            let (from, to) = (from.max(whole.from), to.min(whole.to));
            if from >= to {
                return Ok(to);
            }
            let first = topics.read(&[OffsetRange { at, from, to }])?.take_next()?;
            Ok(first.map_or(to, |record| NextOffset(record.source.offset.0)))
        });
        looked.await
    }
}

/// How far the ledger is in a topic by a position of it. One that is of another topic of this name says nothing.
fn next_in(topic: Option<&TopicId>, position: Option<&Position>) -> NextOffset {
    let is_of_another = |position: &&Position| match (&position.topic_id, topic) {
        (Some(was), Some(now)) => was != now,
        _ => false,
    };
    position.filter(|position| !is_of_another(position)).map_or(NextOffset(0), |position| position.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_in_a_topic_that_was_there_before_says_nothing_of_the_one_that_is_there_now() {
        let position = |id: Option<&str>| Position {
            next: NextOffset(7),
            published: None,
            topic_id: id.map(TopicId::new),
        };
        let now = TopicId::new("now");
        assert_eq!(next_in(Some(&now), Some(&position(Some("before")))), NextOffset(0));
        assert_eq!(next_in(Some(&now), Some(&position(Some("now")))), NextOffset(7));
        // What is not known is never different.
        assert_eq!(next_in(Some(&now), Some(&position(None))), NextOffset(7));
        assert_eq!(next_in(None, Some(&position(Some("before")))), NextOffset(7));
        assert_eq!(next_in(Some(&now), None), NextOffset(0));
    }
}
