//! Where results stand: each on the partition that its key belongs on, and those of one partition in the order of their
//! records.
//!
//! Which partition a key belongs on is the producer's to say, and its partitioner may be set (`-X partitioner`). So the one
//! that explains nearly all of a topic is taken for the one that was used; where none does, nothing is said.

use std::collections::HashMap;

use super::published::EventId;
use crate::event::Record;
use crate::kafka::partitioner::{crc32_partition_of, partition_of};
use crate::ledger::{Offset, Source, TopicPartition};

/// The partitioners that producers have: librdkafka's own, and that of Kafka's clients.
pub(super) const PARTITIONERS: [fn(&[u8], i32) -> i32; 2] = [crc32_partition_of, partition_of];
/// Results that are named at most.
const MOST_MISPLACED: usize = 1_000;
/// The share of results that may stand elsewhere, one in so many: with more, another partitioner was used.
const MOST_SHARE: u64 = 10;

/// A result that does not stand where its key belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OnAnotherPartition {
    pub(super) event: EventId,
    pub(super) at: Source,
    /// The partition that its key belongs on.
    pub(super) belongs_on: i32,
    key: Vec<u8>,
    timestamp_ms: i64,
}

/// The results of one topic, as they are read.
#[derive(Debug)]
pub(super) struct Placement {
    partitions: i32,
    keyed: u64,
    /// For each partitioner, those that it does not explain: how many, and the first of them.
    misplaced: [(u64, Vec<OnAnotherPartition>); PARTITIONERS.len()],
    /// When the first record of each partition was produced.
    oldest: HashMap<i32, i64>,
    /// The last record of each partition that has a result on a partition of the topic.
    last: HashMap<(i32, TopicPartition), Offset>,
    /// How many results stand behind one of a later record, and the first of them.
    late: Option<(u64, Source)>,
}

impl Placement {
    /// Of a topic with so many partitions.
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            keyed: 0,
            misplaced: std::array::from_fn(|_| (0, Vec::new())),
            oldest: HashMap::new(),
            last: HashMap::new(),
            late: None,
        }
    }

    /// The next result, of this record where it says so.
    pub(super) fn see(&mut self, result: &Record, event: &EventId, of: Option<Source>) {
        let at = &result.source;
        let timestamp_ms = result.timestamp_ms.unwrap_or(0);
        self.oldest.entry(at.at.partition).or_insert(timestamp_ms);
        if let Some(of) = of {
            let last = self.last.entry((at.at.partition, of.at)).or_insert(of.offset);
            if of.offset < *last {
                self.late.get_or_insert_with(|| (0, at.clone())).0 += 1;
            }
            *last = of.offset.max(*last);
        }
        // Kafka's producers send records without a key, or with an empty one, anywhere.
        let Some(key) = result.key.as_deref().filter(|key| !key.is_empty()) else { return };
        self.keyed += 1;
        for (partitioner, (count, misplaced)) in PARTITIONERS.iter().zip(&mut self.misplaced) {
            let belongs_on = partitioner(key, self.partitions);
            if belongs_on == at.at.partition {
                continue;
            }
            *count += 1;
            if misplaced.len() < MOST_MISPLACED {
                let (event, at, key) = (event.clone(), at.clone(), key.to_vec());
                misplaced.push(OnAnotherPartition { event, at, belongs_on, key, timestamp_ms });
            }
        }
    }

    /// Those that stand elsewhere, and what there is to note.
    pub(super) fn end(self) -> (Vec<OnAnotherPartition>, Option<String>) {
        let note = self.late.as_ref().map(|(count, first)| {
            format!(
                "{count} results stand behind one of a later record of their partition, the first at {first}: they were \
                 published late by a repair or a replay, are of a topic made anew, or were moved"
            )
        });
        let (partitioner, (count, misplaced)) = PARTITIONERS
            .iter()
            .zip(&self.misplaced)
            .min_by_key(|(_, (count, _))| *count)
            .expect("there are partitioners");
        if *count == 0 || count * MOST_SHARE > self.keyed || self.is_grown(*partitioner, misplaced) {
            return (Vec::new(), note);
        }
        (misplaced.clone(), note)
    }

    /// Whether the topic had fewer partitions when all of these were published: then they stand where their keys belonged,
    /// and nothing stood on the other partitions yet.
    fn is_grown(&self, partitioner: fn(&[u8], i32) -> i32, misplaced: &[OnAnotherPartition]) -> bool {
        let newest = misplaced.iter().map(|result| result.timestamp_ms).max().unwrap_or(0);
        (1..self.partitions).any(|before| {
            misplaced.iter().all(|result| partitioner(&result.key, before) == result.at.at.partition)
                && (before..self.partitions)
                    .all(|later| self.oldest.get(&later).is_none_or(|oldest| *oldest > newest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many results by this partitioner, the first few when the topic had fewer partitions; and one that is moved.
    fn found(
        partitioner: fn(&[u8], i32) -> i32,
        few: Option<(usize, i32)>,
        moved: Option<usize>,
    ) -> (Vec<i64>, bool) {
        const PARTITIONS: i32 = 3;
        let mut placement = Placement::new(3);
        for number in 0..100_usize {
            let key = format!("o-{number}").into_bytes();
            let partitions = few.filter(|(first, _)| number < *first).map_or(PARTITIONS, |(_, few)| few);
            let mut partition = partitioner(&key, partitions);
            if moved == Some(number) {
                partition = (partition + 1) % PARTITIONS;
            }
            let offset = Offset(i64::try_from(number).unwrap());
            let result = Record {
                source: Source { at: TopicPartition::new("stock.accepted", partition), offset },
                key: Some(key),
                value: None,
                headers: Vec::new(),
                timestamp_ms: Some(offset.0),
                decoded: None,
            };
            placement.see(&result, &EventId::Unknown(number.to_string()), None);
        }
        let (misplaced, note) = placement.end();
        (misplaced.into_iter().map(|one| one.at.offset.0).collect(), note.is_some())
    }

    #[test]
    fn a_result_on_another_partition_than_its_key_belongs_on_is_found_with_either_partitioner() {
        for partitioner in PARTITIONERS {
            assert_eq!(found(partitioner, None, None), (vec![], false));
            assert_eq!(found(partitioner, None, Some(70)), (vec![70], false));
        }
    }

    #[test]
    fn a_topic_that_grew_and_another_partitioner_are_no_faults() {
        assert_eq!(found(partition_of, Some((9, 2)), None), (vec![], false));
        assert_eq!(found(|_, _| 1, None, None), (vec![], false));
    }

    #[test]
    fn results_behind_one_of_a_later_record_are_noted() {
        let mut placement = Placement::new(1);
        for (number, of) in [(0, 5), (1, 6), (2, 3), (3, 4), (4, 7)] {
            let result = Record {
                source: Source { at: TopicPartition::new("stock.accepted", 0), offset: Offset(number) },
                key: None,
                value: None,
                headers: Vec::new(),
                timestamp_ms: None,
                decoded: None,
            };
            let of = Source { at: TopicPartition::new("orders", 0), offset: Offset(of) };
            placement.see(&result, &EventId::Unknown(String::new()), Some(of));
        }
        let (_, note) = placement.end();
        let note = note.expect("a note");
        assert!(note.starts_with("2 results stand behind") && note.contains("stock.accepted[0]@2"), "{note}");
    }
}
