//! Partitions and offsets, as librdkafka's lists of them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::error::{Doing as _, Error};
use crate::ledger::{NextOffset, TopicPartition};

/// A list of partitions.
pub(super) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

/// A list of partitions, each with its offset.
///
/// # Errors
/// When an offset is none.
pub(super) fn list_at<'a>(
    partitions: impl IntoIterator<Item = &'a (TopicPartition, NextOffset)>,
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (at, next) in partitions {
        list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))
            .doing(|| format!("{next} is no offset of {at}"))?;
    }
    Ok(list)
}

/// The partitions of a list.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

/// What a group committed for some partitions.
pub struct CommittedOffsets(TopicPartitionList);

impl CommittedOffsets {
    pub(super) fn new(answer: TopicPartitionList) -> Self {
        Self(answer)
    }

    /// What the group committed for a partition; `None` where it never did. Kafka can answer for some partitions and not
    /// for others, and "cannot say" is not "never".
    ///
    /// # Errors
    /// When Kafka said nothing of this partition.
    pub fn of(&self, at: &TopicPartition) -> Result<Option<NextOffset>, Error> {
        let cannot = || format!("cannot read the committed offset of {at}");
        let element = self
            .0
            .find_partition(&at.topic, at.partition)
            .ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))
            .doing(cannot)?;
        element.error().doing(cannot)?;
        Ok(offset(&element))
    }

    /// All partitions that something was committed for.
    ///
    /// # Errors
    /// When Kafka said nothing of one.
    pub fn all(&self) -> Result<Vec<(TopicPartition, NextOffset)>, Error> {
        let mut all = Vec::new();
        for at in partitions(&self.0) {
            if let Some(next) = self.of(&at)? {
                all.push((at, next));
            }
        }
        Ok(all)
    }
}

fn offset(element: &TopicPartitionListElem<'_>) -> Option<NextOffset> {
    match element.offset() {
        Offset::Offset(offset) => Some(NextOffset(offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_does_not_say_of_a_partition_is_not_never() {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 0, Offset::Offset(7)).unwrap();
        list.add_partition_offset("orders", 1, Offset::Invalid).unwrap();
        let committed = CommittedOffsets::new(list);
        let of = |partition| committed.of(&TopicPartition::new("orders", partition));
        assert_eq!(of(0).unwrap(), Some(NextOffset(7)));
        assert_eq!(of(1).unwrap(), None);
        let error = of(2).unwrap_err();
        assert!(error.may_pass(), "it is tried again: {error}");
        assert_eq!(committed.all().unwrap(), [(TopicPartition::new("orders", 0), NextOffset(7))]);
    }
}
