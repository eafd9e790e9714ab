//! What of the topics is deleted, and so cannot be compared.
//!
//! Kafka deletes the oldest records of each partition by itself, so the results of each are compared from a time of its own
//! on. Which partition a result belongs on its key says, by the partitioner that explains where those stand that are left.
//! Results that should be there and those that are found go by this one rule, so that the same are left out of both.

use anyhow::Result;

use super::super::incarnations::list;
use super::super::placement::PARTITIONERS;
use super::super::published::{Event, time_of};
use crate::config::TopicArgs;
use crate::event::Channel;
use crate::kafka::reader::{OffsetRange, Reader};
use crate::kafka::topics::Topics;
use crate::ledger::{NextOffset, Stamp};

/// How far results of one partition may stand out of the order of their decisions, by clocks that are apart too.
const RETENTION_SLACK_SECONDS: i64 = 60;
/// First records of each partition whose keys are looked at. By another partitioner, or with fewer partitions before, so
/// many of them would stand elsewhere that it cannot be missed by chance.
const MOST_SAMPLED: usize = 32;
/// Partitions that a note names of each kind: a topic may have thousands.
const MOST_NAMED: usize = 20;
/// Later than any decision: from when on the results of a partition are there of which nothing is left.
const NEVER: Stamp = Stamp(i64::MAX);

/// Which partition a key belongs on, of so many.
type Partitioner = fn(&[u8], i32) -> i32;

/// Whether a result is there still that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is.
    Yes,
    /// Nobody knows which partition it belongs on, and what is as old is deleted from some.
    Perhaps,
    /// What is as old is deleted from its partition.
    No,
}

/// What is left of the results.
#[derive(Default)]
pub(super) struct Retained {
    accepted: Option<Shortened>,
    rejected: Option<Shortened>,
}

impl Retained {
    /// Looks at the topics of results. Blocks.
    pub(super) fn look(topics: &Topics, names: &TopicArgs) -> Result<Self> {
        Ok(Self {
            accepted: Shortened::look(topics, &names.accepted_topic, Channel::Accepted)?,
            rejected: Shortened::look(topics, &names.rejected_topic, Channel::Rejected)?,
        })
    }

    /// Whether a result of this key that was decided then is there still; the key is `None` where nobody knows it.
    pub(super) fn keeps(&self, channel: Channel, key: Option<&[u8]>, decided_at: Stamp) -> Kept {
        let shortened = match channel {
            Channel::Accepted => self.accepted.as_ref(),
            Channel::Rejected => self.rejected.as_ref(),
            Channel::DeadLetter | Channel::Levels | Channel::Orders => None,
        };
        shortened.map_or(Kept::Yes, |shortened| shortened.keeps(key, decided_at))
    }

    /// What there is to note.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        [&self.accepted, &self.rejected].into_iter().flatten().map(Shortened::note)
    }
}

/// A topic of results from which some were deleted.
struct Shortened {
    topic: String,
    /// From when on the results of each partition are all there.
    since: Vec<Stamp>,
    /// The partitions from which some were deleted.
    partitions: Vec<i32>,
    /// Those that explain where the results stand that are left. Where none does, nobody knows which partition a key
    /// belongs on.
    partitioners: Vec<Partitioner>,
    /// The earliest and the latest of `since`.
    earliest: Stamp,
    latest: Stamp,
}

/// What is left of a partition.
#[derive(Default)]
struct Left {
    /// Whether its first records are deleted.
    is_shortened: bool,
    /// When the first that is left was decided, as it says.
    decided: Option<Stamp>,
    /// When that was published.
    published: Option<Stamp>,
    /// The keys of the first results that are left.
    keys: Vec<Vec<u8>>,
}

impl Left {
    fn read(reader: &mut Reader, whole: &OffsetRange, channel: Channel) -> Result<Self> {
        let mut left = Self { is_shortened: whole.from > NextOffset(0), ..Self::default() };
        for number in 0..MOST_SAMPLED {
            let Some(record) = reader.pop(&whole.at)? else { break };
            if number == 0 {
                left.decided = time_of(&record);
                left.published = record.timestamp_ms.map(|millis| Stamp(millis.saturating_mul(1_000)));
            }
            // Another program may send its records by another partitioner.
            if Event::found(channel, &record).is_some_and(|event| event.is_ours()) {
                left.keys.extend(record.key.filter(|key| !key.is_empty()));
            }
        }
        Ok(left)
    }

    /// From when on nothing is deleted, where something is. What is deleted was published before the first that is left, and
    /// decided before that. When that one was decided alone does not say it: a repair publishes late.
    fn since(&self) -> Stamp {
        let first = self.published.max(self.decided);
        first.map_or(NEVER, |first| first.plus_seconds(RETENTION_SLACK_SECONDS))
    }
}

impl Shortened {
    fn look(topics: &Topics, topic: &str, channel: Channel) -> Result<Option<Self>> {
        let whole = topics.whole_topic(topic)?;
        if whole.iter().all(|range| range.from == NextOffset(0)) {
            return Ok(None);
        }
        let mut reader = topics.read(&whole)?;
        let left = whole.iter().map(|range| Left::read(&mut reader, range, channel));
        Ok(Self::of(topic, &left.collect::<Result<Vec<_>>>()?))
    }

    /// By what is left of each partition; `None` where nothing was deleted.
    fn of(topic: &str, left: &[Left]) -> Option<Self> {
        let latest = left.iter().filter(|left| left.is_shortened).map(Left::since).max()?;
        let since_of = |left: &Left| {
            if left.is_shortened {
                return left.since();
            }
            // Nothing of it is deleted. But before its first one the topic may have had fewer partitions: then what is older
            // belonged on others.
            let first = match (left.decided, left.published) {
                // A repair publishes late, and another program says what it likes of when.
                (Some(decided), Some(published))
                    if published > decided.plus_seconds(RETENTION_SLACK_SECONDS) =>
                {
                    published
                }
                (decided, published) => decided.or(published).unwrap_or(NEVER),
            };
            first.min(latest)
        };
        let since: Vec<Stamp> = left.iter().map(since_of).collect();
        let count = i32::try_from(left.len()).unwrap_or(i32::MAX);
        let explains = |partitioner: &Partitioner| {
            (0..count).zip(left).all(|(partition, left)| {
                left.keys.iter().all(|key| partitioner(key.as_slice(), count) == partition)
            })
        };
        let partitioners: Vec<Partitioner> = PARTITIONERS.into_iter().filter(explains).collect();
        let earliest = since.iter().copied().min().filter(|_| !partitioners.is_empty());
        Some(Self {
            topic: topic.to_owned(),
            since,
            partitions: (0..count)
                .zip(left)
                .filter_map(|(partition, left)| left.is_shortened.then_some(partition))
                .collect(),
            partitioners,
            earliest: earliest.unwrap_or(latest),
            latest,
        })
    }

    /// From when on the results of this key are all there; `None` where nobody knows which partition they belong on.
    fn since(&self, key: Option<&[u8]>) -> Option<Stamp> {
        // Kafka's producers send records without a key, or with an empty one, anywhere.
        let key = key.filter(|key| !key.is_empty())?;
        let count = i32::try_from(self.since.len()).unwrap_or(i32::MAX);
        self.partitioners.iter().map(|partitioner| self.since_of(partitioner(key, count))).max()
    }

    fn since_of(&self, partition: i32) -> Stamp {
        let since = usize::try_from(partition).ok().and_then(|index| self.since.get(index));
        since.copied().unwrap_or(self.latest)
    }

    fn keeps(&self, key: Option<&[u8]>, decided_at: Stamp) -> Kept {
        let (surely, perhaps) = self.since(key).map_or((self.latest, self.earliest), |since| (since, since));
        if decided_at >= surely {
            Kept::Yes
        } else if decided_at >= perhaps {
            Kept::Perhaps
        } else {
            Kept::No
        }
    }

    /// What was deleted, and what is compared all the same.
    fn note(&self) -> String {
        let (emptied, begun): (Vec<i32>, Vec<i32>) =
            self.partitions.iter().partition(|partition| self.since_of(**partition) == NEVER);
        let mut what = Vec::new();
        if !emptied.is_empty() {
            let more = emptied.len().saturating_sub(MOST_NAMED);
            let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = list(&emptied[..emptied.len() - more]);
            what.push(format!("nothing is left of {named}{and_more}, so what belongs there is not compared"));
        }
        for partition in begun.iter().take(MOST_NAMED) {
            let since = self.since_of(*partition).rfc3339();
            what.push(format!("of partition {partition} is compared what was decided from {since} on"));
        }
        if begun.len() > MOST_NAMED {
            what.push(format!("so it is with {} more", begun.len() - MOST_NAMED));
        }
        if self.partitioners.is_empty() {
            what.push(
                "the keys of what is left do not say their partitions, so this goes for all of it".to_owned(),
            );
        }
        format!("results were deleted from {} (retention?): {}", self.topic, what.join("; "))
    }
}

/// The partitions of a topic whose first records are deleted.
pub(super) fn shortened(topics: &Topics, topic: &str) -> Result<Vec<OffsetRange>> {
    let mut whole = topics.whole_topic(topic)?;
    whole.retain(|range| range.from > NextOffset(0));
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const SLACK: i64 = RETENTION_SLACK_SECONDS * SECOND;

    /// What is left of a partition: its first record of this second, and these keys.
    fn left(is_shortened: bool, first: i64, keys: &[&str]) -> Left {
        let first = Some(Stamp(first * SECOND));
        let keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        Left { is_shortened, decided: first, published: first, keys }
    }

    /// One of which nothing is left.
    fn emptied() -> Left {
        Left { is_shortened: true, ..Left::default() }
    }

    /// So many keys of each of three partitions, by this partitioner.
    fn keys_of(partitioner: Partitioner) -> [Vec<String>; 3] {
        let mut keys: [Vec<String>; 3] = Default::default();
        for number in 0..60 {
            let key = format!("o-{number}");
            keys[usize::try_from(partitioner(key.as_bytes(), 3)).unwrap()].push(key);
        }
        keys
    }

    /// The second from which on results of a key are looked for, or `None`.
    fn since(of: &Shortened, key: &str) -> Option<i64> {
        of.since(Some(key.as_bytes())).map(|since| (since.0 - SLACK) / SECOND)
    }

    #[test]
    fn a_topic_of_which_nothing_is_deleted_is_all_compared() {
        assert!(Shortened::of("t", &[left(false, 5, &[]), Left::default()]).is_none());
        assert_eq!(Retained::default().keeps(Channel::Accepted, None, Stamp(0)), Kept::Yes);
    }

    #[test]
    fn each_key_is_looked_for_from_what_is_left_of_its_own_partition_on() {
        for partitioner in PARTITIONERS {
            let keys = keys_of(partitioner);
            let of = |partition: usize| keys[partition].iter().map(String::as_str).collect::<Vec<_>>();
            let topic =
                Shortened::of("t", &[emptied(), left(true, 100, &of(1)), left(false, 50, &of(2))]).unwrap();
            assert_eq!(topic.partitioners.len(), 1);
            assert_eq!(topic.since(Some(keys[0][0].as_bytes())), Some(NEVER));
            assert_eq!(since(&topic, &keys[1][0]), Some(100));
            // Its own first one is there: no slack.
            assert_eq!(topic.since(Some(keys[2][0].as_bytes())), Some(Stamp(50 * SECOND)));
            let keeps =
                |key: &str, second: i64| topic.keeps(Some(key.as_bytes()), Stamp(second * SECOND + SLACK));
            assert_eq!((keeps(&keys[1][1], 99), keeps(&keys[1][1], 100)), (Kept::No, Kept::Yes));
            assert_eq!(keeps(&keys[0][1], 1_000_000), Kept::No);
            // One that has no key, and one whose key nobody knows.
            assert_eq!(keeps("", 100), Kept::Perhaps);
            assert_eq!(topic.keeps(None, Stamp(50 * SECOND)), Kept::Perhaps);
            assert_eq!(topic.keeps(None, Stamp(50 * SECOND - 1)), Kept::No);
            let note = topic.note();
            assert!(note.contains("nothing is left of partition 0, so what belongs there"), "{note}");
            assert!(
                note.contains("of partition 1 is compared what was decided from 1970-01-01T00:02:40"),
                "{note}"
            );
            assert!(!note.contains("partition 2") && !note.contains("do not say"), "{note}");
        }
    }

    #[test]
    fn keys_that_do_not_say_their_partitions_are_looked_for_where_all_partitions_have_them() {
        // As with fewer partitions before, or by another partitioner.
        let keys = keys_of(PARTITIONERS[0]);
        let one = [keys[0][0].as_str()];
        let moved: Vec<&str> = keys.iter().flatten().map(String::as_str).collect();
        let topic = Shortened::of("t", &[left(true, 10, &one), left(true, 100, &moved), left(false, 5, &[])])
            .unwrap();
        assert_eq!(topic.partitioners.len(), 0);
        for key in [Some(keys[0][0].as_bytes()), None] {
            assert_eq!(topic.keeps(key, Stamp(100 * SECOND + SLACK - 1)), Kept::No);
            assert_eq!(topic.keeps(key, Stamp(100 * SECOND + SLACK)), Kept::Yes);
        }
        assert!(topic.note().contains("do not say their partitions"), "{}", topic.note());
    }

    #[test]
    fn a_partition_that_may_be_new_is_compared_from_its_first_result_on_at_the_most() {
        let keys = keys_of(PARTITIONERS[0]);
        let of = |partition: usize| keys[partition].iter().map(String::as_str).collect::<Vec<_>>();
        // The first one there is younger than all that was deleted elsewhere; and one that never had any.
        let topic =
            Shortened::of("t", &[left(true, 10, &of(0)), left(false, 900, &of(1)), Left::default()]).unwrap();
        assert_eq!(since(&topic, &keys[1][0]), Some(10));
        assert_eq!(since(&topic, &keys[2][0]), Some(10));
    }

    #[test]
    fn a_result_that_was_published_late_does_not_say_when_those_before_it_were_decided() {
        let late = Left { published: Some(Stamp(100 * SECOND)), ..left(true, 1, &[]) };
        assert_eq!(late.since(), Stamp(100 * SECOND + SLACK));
    }

    #[test]
    fn a_note_names_few_partitions() {
        let note = |left: Vec<Left>| Shortened::of("t", &left).unwrap().note();
        let of_empty = note((0..30).map(|_| emptied()).collect());
        assert!(of_empty.contains(", 19 and 10 more, so what belongs there"), "{of_empty}");
        let note = note((0..30).map(|_| left(true, 1, &[])).collect());
        assert!(note.contains("of partition 19 is") && note.contains("so it is with 10 more"), "{note}");
    }
}
