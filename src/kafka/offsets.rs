//! Partitions and offsets, as librdkafka's lists of them.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::elections::{LEADER_LIMIT, wait_for_leader};
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

/// Where a partition begins and ends: for a reader of committed records, where the first open transaction begins. Waits for
/// its leader. Blocks.
///
/// # Errors
/// When Kafka does not answer within `limit`.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    at: &TopicPartition,
    limit: Duration,
) -> KafkaResult<(i64, i64)> {
    wait_for_leader(LEADER_LIMIT.min(limit), || consumer.fetch_watermarks(&at.topic, at.partition, limit))
}

/// The first offset of each partition whose record is of the time given as its offset, or later. Waits for their leaders.
/// Blocks.
///
/// # Errors
/// When Kafka does not answer within `limit`, or not for each.
pub(super) fn offsets_at_times<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    times: &TopicPartitionList,
    limit: Duration,
) -> KafkaResult<TopicPartitionList> {
    wait_for_leader(LEADER_LIMIT.min(limit), || consumer.offsets_for_times(times.clone(), limit))
}

/// What a group committed for some partitions. Kafka can answer for some of them and not for others, and "cannot say" is not
/// "never".
#[derive(Debug, Default)]
pub struct CommittedOffsets(HashMap<TopicPartition, Result<Option<NextOffset>, Error>>);

impl CommittedOffsets {
    /// Of what is known of each partition.
    #[must_use]
    pub fn new(known: HashMap<TopicPartition, Result<Option<NextOffset>, Error>>) -> Self {
        Self(known)
    }

    pub(super) fn of_answer(answer: &TopicPartitionList) -> Self {
        let known = answer.elements().into_iter().map(|element| {
            let at = TopicPartition::new(element.topic(), element.partition());
            let offset = element.error().doing(|| cannot_read(&at)).map(|()| offset(&element));
            (at, offset)
        });
        Self(known.collect())
    }

    /// Takes out what the group committed for a partition; `None` where it never did.
    ///
    /// # Errors
    /// When Kafka said nothing of this partition.
    pub fn take(&mut self, at: &TopicPartition) -> Result<Option<NextOffset>, Error> {
        self.0.remove(at).unwrap_or_else(|| {
            Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition)).doing(|| cannot_read(at))
        })
    }

    /// What the group committed for a partition; `None` where it never did, or Kafka did not say.
    #[must_use]
    pub fn get(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.0.get(at).and_then(|known| known.as_ref().ok().copied().flatten())
    }

    /// All partitions that something was committed for.
    ///
    /// # Errors
    /// When Kafka said nothing of one.
    pub fn all(self) -> Result<Vec<(TopicPartition, NextOffset)>, Error> {
        self.0.into_iter().filter_map(|(at, next)| next.transpose().map(|next| Ok((at, next?)))).collect()
    }
}

fn cannot_read(at: &TopicPartition) -> String {
    format!("cannot read the committed offset of {at}")
}

fn offset(element: &TopicPartitionListElem<'_>) -> Option<NextOffset> {
    match element.offset() {
        Offset::Offset(offset) => Some(NextOffset(offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};

    use super::*;

    #[test]
    fn what_kafka_does_not_say_of_a_partition_is_not_never() {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 0, Offset::Offset(7)).unwrap();
        list.add_partition_offset("orders", 1, Offset::Invalid).unwrap();
        let all = CommittedOffsets::of_answer(&list).all().unwrap();
        assert_eq!(all, [(TopicPartition::new("orders", 0), NextOffset(7))]);
        let mut committed = CommittedOffsets::of_answer(&list);
        let mut of = |partition| committed.take(&TopicPartition::new("orders", partition));
        assert_eq!(of(0).unwrap(), Some(NextOffset(7)));
        assert_eq!(of(1).unwrap(), None);
        let error = of(2).unwrap_err();
        assert!(error.may_pass(), "it is tried again: {error}");
    }

    #[test]
    fn a_partition_that_kafka_answers_with_an_error_is_not_one_never_committed() {
        // Only librdkafka can write an error beside a partition: it does for one that it does not know.
        let consumer: BaseConsumer = ClientConfig::new().set("group.id", "g").create().unwrap();
        let mut unknown = TopicPartitionList::new();
        unknown.add_partition_offset("orders", 0, Offset::Beginning).unwrap();
        let answer = consumer.seek_partitions(unknown, Duration::ZERO).unwrap();
        assert!(answer.elements()[0].error().is_err(), "the list has an error of its own for the partition");
        let committed = || CommittedOffsets::of_answer(&answer);
        let error = committed().take(&TopicPartition::new("orders", 0)).unwrap_err();
        assert!(error.to_string().contains("cannot read the committed offset of orders[0]"), "{error}");
        committed().all().unwrap_err();
    }
}
