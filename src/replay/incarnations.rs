//! Which decisions have their records in the topics that there are now.
//!
//! A topic that was deleted and made anew has other records at the same offsets. The ledger knows from which sequence of
//! its order on a partition's decisions are of which topic; only those of the last one can have records still, and only
//! if that is the topic that Kafka has.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::kafka::topic_ids::Described;
use crate::kafka::topics::Topics;
use crate::ledger::{Decision, NextOffset, Offset, Seq, TopicId, TopicPartition};
use crate::store::Incarnation;

/// Which topics the decisions of a ledger are of.
#[derive(Debug, Clone, Default)]
pub struct Incarnations(HashMap<TopicPartition, Last>);

/// The last topic of a partition.
#[derive(Debug, Clone)]
struct Last {
    topic_id: TopicId,
    /// From which ledger sequence on decisions are of it.
    from: Seq,
}

/// A topic that is not the one that the ledger's decisions are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Its name.
    pub topic: Arc<str>,
    /// Its id, where Kafka has one.
    pub id: Option<TopicId>,
    /// How many partitions it has.
    pub count: i32,
    /// The partitions whose decisions are of topics with other ids, by these.
    pub others: BTreeMap<TopicId, Vec<i32>>,
    /// The partitions that the ledger has positions on, and the topic does not have.
    pub lost: Vec<i32>,
}

impl Replaced {
    /// The partitions that this is so of, in their order.
    #[must_use]
    pub fn partitions(&self) -> Vec<i32> {
        let mut partitions: Vec<i32> = self.others.values().flatten().chain(&self.lost).copied().collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }
}

/// What is wrong with it.
impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut what = Vec::new();
        if let Some(id) = &self.id {
            for (was, partitions) in &self.others {
                what.push(format!(
                    "it was made anew: its id is {id}, what is decided of {} is of the one with the id {was}",
                    list(partitions)
                ));
            }
        }
        if !self.lost.is_empty() {
            what.push(format!(
                "it has {} partitions, but the ledger has positions on {}",
                self.count,
                list(&self.lost)
            ));
        }
        f.write_str(&what.join("; "))
    }
}

impl Incarnations {
    /// As the ledger has them: in the order of their ledger sequences.
    #[must_use]
    pub fn of(rows: Vec<Incarnation>) -> Self {
        // A later one of the same partition replaces the one before.
        Self(
            rows.into_iter()
                .map(|Incarnation { at, topic_id, from }| (at, Last { topic_id, from }))
                .collect(),
        )
    }

    /// Whether a decision is of the last topic of its partition, as far as is known.
    #[must_use]
    pub fn is_of_last(&self, decision: &Decision) -> bool {
        let last = decision.source.as_ref().and_then(|source| self.0.get(&source.at));
        last.is_none_or(|last| decision.seq >= last.from)
    }

    /// The id of the last topic of a partition, where it is known.
    #[must_use]
    pub fn topic_id(&self, at: &TopicPartition) -> Option<&TopicId> {
        self.0.get(at).map(|last| &last.topic_id)
    }

    /// The topics of these names that are not those the ledger's decisions are of, or have lost partitions, given how
    /// far the ledger is.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn replaced(
        &self,
        topics: &Topics,
        names: &[&str],
        positions: &HashMap<TopicPartition, NextOffset>,
    ) -> Result<Vec<Replaced>> {
        let described = topics.describe(names)?;
        Ok(names
            .iter()
            .zip(described)
            .filter_map(|(name, now)| self.compare(name, &now, positions))
            .collect())
    }

    fn compare(
        &self,
        name: &str,
        now: &Described,
        positions: &HashMap<TopicPartition, NextOffset>,
    ) -> Option<Replaced> {
        let Described::There { id, partitions: count } = now else { return None };
        let topic: Arc<str> = name.into();
        let mut others: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (at, Last { topic_id, .. }) in &self.0 {
            if at.topic == topic && id.as_ref().is_some_and(|id| id != topic_id) {
                others.entry(topic_id.clone()).or_default().push(at.partition);
            }
        }
        let lost = positions
            .iter()
            .filter(|(at, next)| at.topic == topic && at.partition >= *count && **next > NextOffset(0));
        let mut lost: Vec<i32> = lost.map(|(at, _)| at.partition).collect();
        lost.sort_unstable();
        for partitions in others.values_mut() {
            partitions.sort_unstable();
        }
        let found = !others.is_empty() || !lost.is_empty();
        found.then(|| Replaced { topic, id: id.clone(), count: *count, others, lost })
    }
}

/// Partitions by their numbers, in words.
pub(super) fn list(partitions: &[i32]) -> String {
    let numbers = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("partition{} {numbers}", if partitions.len() == 1 { "" } else { "s" })
}

/// Refuses topics that are not those of the ledger's decisions: their records are gone.
///
/// # Errors
/// When there is one.
pub(super) fn check_same(replaced: &[Replaced]) -> Result<()> {
    let Some(replaced) = replaced.first() else { return Ok(()) };
    bail!(
        "topic {} is not the one that the ledger was made of: {replaced}. The records of its decisions are gone, so \
         this cannot be done. A verifier started with --accept-data-loss goes on with the new topic",
        replaced.topic
    )
}

/// Decisions whose records went with an earlier topic of their name.
#[derive(Debug, Default)]
pub(super) struct Gone(BTreeMap<TopicPartition, (u64, Offset, Offset)>);

impl Gone {
    /// Another one.
    pub(super) fn add(&mut self, decision: &Decision) {
        let Some(source) = &decision.source else { return };
        let offset = source.offset;
        let (count, first, last) = self.0.entry(source.at.clone()).or_insert((0, offset, offset));
        *count += 1;
        *first = offset.min(*first);
        *last = offset.max(*last);
    }

    /// What a report says of them.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(at, (count, first, last))| {
            format!(
                "{at}: {count} decisions, of offsets {first} to {last}, are of an earlier topic of this name; their \
                 records are gone with it, so they are judged by what they say themselves"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: i32, id: &str, from: i64) -> Incarnation {
        Incarnation {
            at: TopicPartition::new("orders", partition),
            topic_id: TopicId::new(id),
            from: Seq(from),
        }
    }

    fn there(id: Option<&str>, partitions: i32) -> Described {
        Described::There { id: id.map(TopicId::new), partitions }
    }

    fn positions(of: &[(i32, i64)]) -> HashMap<TopicPartition, NextOffset> {
        of.iter().map(|(at, next)| (TopicPartition::new("orders", *at), NextOffset(*next))).collect()
    }

    #[test]
    fn the_topic_the_ledger_knows_is_no_other() {
        let known = Incarnations::of(vec![row(0, "a", 0), row(0, "b", 100), row(1, "b", 200)]);
        let at = positions(&[(0, 5), (1, 5)]);
        assert_eq!(known.compare("orders", &there(Some("b"), 2), &at), None);
        assert_eq!(known.compare("orders", &there(None, 2), &at), None, "no id is unknown, not different");
        assert_eq!(known.compare("orders", &Described::NotPermitted, &at), None);
        assert_eq!(known.compare("stock", &there(Some("c"), 2), &at), None);
    }

    #[test]
    fn another_id_and_fewer_partitions_are_another_topic() {
        let known = Incarnations::of(vec![row(0, "a", 0), row(1, "a", 0), row(2, "b", 0)]);
        let found = known.compare("orders", &there(Some("b"), 3), &positions(&[])).expect("another");
        assert_eq!(found.partitions(), [0, 1]);
        assert!(found.to_string().contains("partitions 0, 1 is of the one with the id a"), "{found}");
        let found = known.compare("orders", &there(None, 2), &positions(&[(1, 9), (2, 1), (3, 0)]));
        let found = found.expect("fewer partitions");
        assert_eq!(found.partitions(), [2]);
        assert!(found.to_string().contains("the ledger has positions on partition 2"), "{found}");
    }
}
