//! How far publishing is behind what stands in Kafka, for each partition that this process has.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::kafka::consumer::{FetchedRecord, LogEnd};
use crate::ledger::{NextOffset, TopicPartition};
use crate::live::PartitionLag;
use crate::pipeline::StoppedPartitions;
use crate::store::Advance;

/// Milliseconds since 1970, by this machine's clock.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// The lag of every partition that is read. Grows by the partitions of the topics.
#[derive(Debug, Default)]
pub(super) struct Lags {
    by_partition: Mutex<HashMap<TopicPartition, Lag>>,
    /// Partitions that are read no further. Kafka's client says of them that all is fetched, since it fetches nothing.
    stopped: StoppedPartitions,
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Lag {
    /// What the group committed: all results of records below it are published.
    published: NextOffset,
    /// After the last record that was read.
    read: NextOffset,
    /// The end of the log, and whether everything before it was fetched. A transaction's end takes a place in the log too,
    /// and nobody reads that: where all is fetched, what is behind the last record is no lag. Never so where the partition
    /// is stopped.
    end: NextOffset,
    is_fetched: bool,
    /// The first record of each chunk that was read and is not published: its offset, and when it was produced. After a
    /// rewind, what is to be read again counts as one chunk.
    unpublished: VecDeque<(NextOffset, i64)>,
    /// The same of what is not applied, and when it was read.
    unapplied: VecDeque<(NextOffset, Instant)>,
    /// Since when there is something that is not even read.
    unread_since: Option<i64>,
}

impl Lag {
    fn records(&self) -> i64 {
        let end = if self.is_fetched { self.read } else { self.end.max(self.read) };
        (end.0 - self.published.0).max(0)
    }

    fn seconds(&self, now_ms: i64) -> f64 {
        if self.records() == 0 {
            return 0.0;
        }
        let age_ms = self.oldest_ms().map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms).max(0));
        Duration::from_millis(age_ms.unsigned_abs()).as_secs_f64()
    }

    fn oldest_ms(&self) -> Option<i64> {
        self.unpublished.front().map(|(_, produced_ms)| *produced_ms).or(self.unread_since)
    }

    fn publish(&mut self, next: NextOffset) {
        if next <= self.published {
            return;
        }
        self.published = next;
        self.read = self.read.max(next);
        while self.unpublished.get(1).map_or(self.read, |(first, _)| *first) <= next {
            if self.unpublished.pop_front().is_none() {
                break;
            }
        }
    }

    fn note_unread(&mut self, now_ms: i64) {
        let is_unread = !self.is_fetched && self.end > self.read;
        self.unread_since = is_unread.then(|| self.unread_since.unwrap_or(now_ms));
    }
}

impl Lags {
    /// Of no partition yet. `stopped` are those that are read no further.
    pub(super) fn new(stopped: StoppedPartitions) -> Self {
        Self { stopped, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Lag>> {
        // A panic between two changes leaves a number wrong, nothing worse.
        self.by_partition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is begun where the group committed last; nothing of it is read yet, or it is to be read again.
    pub(super) fn begun(&self, at: &TopicPartition, committed: NextOffset) {
        let mut all = self.lock();
        let lag = all.entry(at.clone()).or_default();
        lag.publish(committed);
        let end = lag.end.max(lag.read);
        // As old as it was: where the partition is stopped, it is not read again.
        let again = lag.oldest_ms().filter(|_| end > committed).map(|oldest_ms| (committed, oldest_ms));
        let unpublished = again.into_iter().collect();
        *lag = Lag { published: committed, read: committed, end, unpublished, ..Lag::default() };
    }

    /// The log of a partition reaches so far.
    pub(super) fn ends(&self, ends: &[LogEnd]) {
        let now_ms = now_ms();
        let stopped: HashSet<TopicPartition> = self.stopped.all().into_iter().map(|(at, _)| at).collect();
        let mut all = self.lock();
        for end in ends {
            if let Some(lag) = all.get_mut(&end.at) {
                (lag.end, lag.is_fetched) = (end.end, end.is_fetched && !stopped.contains(&end.at));
                lag.note_unread(now_ms);
            }
        }
    }

    /// These records were read, each partition's in offset order.
    pub(super) fn read(&self, records: &[FetchedRecord]) {
        let now_ms = now_ms();
        let mut all = self.lock();
        for chunk in records.chunk_by(|one, next| one.record.source.at == next.record.source.at) {
            let [first, .., last] = chunk else {
                let [only] = chunk else { continue };
                note_read(&mut all, only, only, now_ms);
                continue;
            };
            note_read(&mut all, first, last, now_ms);
        }
    }

    /// A batch was applied that brings partitions so far: how long ago its first record was read. `None` where none is known.
    pub(super) fn applied(&self, advances: &[Advance]) -> Option<Duration> {
        let mut all = self.lock();
        let mut first: Option<Instant> = None;
        for advance in advances {
            let Some(lag) = all.get_mut(&advance.at) else { continue };
            if let Some((_, read)) = lag.unapplied.front() {
                first = Some(first.map_or(*read, |first| first.min(*read)));
            }
            // The last chunk that begins before what comes next may go on there.
            while lag.unapplied.get(1).is_some_and(|(next, _)| *next <= advance.next) {
                lag.unapplied.pop_front();
            }
            if lag.read <= advance.next {
                lag.unapplied.clear();
            }
        }
        first.map(|first| first.elapsed())
    }

    /// So far are partitions published.
    pub(super) fn published(&self, offsets: &[(TopicPartition, NextOffset)]) {
        let mut all = self.lock();
        for (at, next) in offsets {
            if let Some(lag) = all.get_mut(at) {
                lag.publish(*next);
            }
        }
    }

    /// These partitions are another's.
    pub(super) fn gone(&self, partitions: &[TopicPartition]) {
        let mut all = self.lock();
        for at in partitions {
            all.remove(at);
        }
    }

    /// Every partition's lag at a moment, sorted.
    pub(super) fn all(&self, now_ms: i64) -> Vec<PartitionLag> {
        let all = self.lock();
        let lag = |(at, lag): (&TopicPartition, &Lag)| PartitionLag {
            at: at.clone(),
            records: lag.records(),
            seconds: lag.seconds(now_ms),
        };
        let mut lags: Vec<_> = all.iter().map(lag).collect();
        lags.sort_unstable_by(|one, other| {
            (&one.at.topic, one.at.partition).cmp(&(&other.at.topic, other.at.partition))
        });
        lags
    }
}

fn note_read(
    all: &mut HashMap<TopicPartition, Lag>,
    first: &FetchedRecord,
    last: &FetchedRecord,
    now_ms: i64,
) {
    let Some(lag) = all.get_mut(&first.record.source.at) else { return };
    let from = NextOffset(first.record.source.offset.0);
    // Read again from earlier on.
    lag.unpublished.retain(|(first, _)| *first < from);
    lag.unpublished.push_back((from, first.record.timestamp_ms.unwrap_or(now_ms)));
    lag.unapplied.retain(|(first, _)| *first < from);
    lag.unapplied.push_back((from, Instant::now()));
    lag.read = last.record.source.offset.next();
    lag.note_unread(now_ms);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    group: String,
    topic: String,
    partition: i32,
}

/// Shows the lags, under the names that people graph already.
#[derive(Debug)]
pub(super) struct LagCollector {
    group: String,
    lags: Arc<Lags>,
}

impl LagCollector {
    pub(super) fn new(group: &str, lags: Arc<Lags>) -> Self {
        Self { group: group.to_owned(), lags }
    }

    fn labels(&self, at: &TopicPartition) -> Labels {
        Labels { group: self.group.clone(), topic: at.topic.to_string(), partition: at.partition }
    }
}

impl Collector for LagCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let lags = self.lags.all(now_ms());
        let mut records = encoder.encode_descriptor(
            "kafka_consumergroup_group_lag",
            "Records whose result is not published yet, in partitions of this process",
            None,
            MetricType::Gauge,
        )?;
        for lag in &lags {
            ConstGauge::new(lag.records).encode(records.encode_family(&self.labels(&lag.at))?)?;
        }
        let mut seconds = encoder.encode_descriptor(
            "kafka_consumergroup_group_lag_seconds",
            "Age of the oldest record whose result is not published yet",
            None,
            MetricType::Gauge,
        )?;
        for lag in &lags {
            ConstGauge::new(lag.seconds).encode(seconds.encode_family(&self.labels(&lag.at))?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Record;
    use crate::ledger::{Offset, Source};
    use crate::pipeline::ownership::Ownership;

    fn at() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    fn record(offset: i64, produced_ms: i64) -> FetchedRecord {
        let source = Source { at: at(), offset: Offset(offset) };
        let timestamp_ms = Some(produced_ms);
        let record =
            Record { source, key: None, value: None, headers: Vec::new(), timestamp_ms, decoded: None };
        FetchedRecord { record, bytes: 1, epoch: 0 }
    }

    fn end(end: i64, is_fetched: bool) -> LogEnd {
        LogEnd { at: at(), end: NextOffset(end), is_fetched }
    }

    fn is(lags: &Lags, now_ms: i64, records: i64, seconds: f64) {
        let [lag] = &lags.all(now_ms)[..] else { panic!("one partition") };
        assert_eq!((lag.records, lag.seconds), (records, seconds));
    }

    #[test]
    fn the_lag_is_what_is_not_published_and_as_old_as_the_first_of_it() {
        let lags = Lags::default();
        lags.begun(&at(), NextOffset(10));
        is(&lags, 9_000, 0, 0.0);
        lags.ends(&[end(20, false)]);
        lags.read(&[record(10, 1_000), record(11, 2_000)]);
        lags.read(&[record(12, 3_000)]);
        is(&lags, 9_000, 10, 8.0);
        lags.published(&[(at(), NextOffset(11))]);
        is(&lags, 9_000, 9, 8.0);
        lags.published(&[(at(), NextOffset(12))]);
        is(&lags, 9_000, 8, 6.0);
        lags.gone(&[at()]);
        assert_eq!(lags.all(9_000), []);
    }

    #[test]
    fn a_batch_took_as_long_as_its_first_record_waited() {
        let lags = Lags::default();
        lags.begun(&at(), NextOffset(10));
        let advance = |next| {
            let next = NextOffset(next);
            [Advance { at: at(), expected: next, next, applied: None, published: None }]
        };
        assert_eq!(lags.applied(&advance(10)), None, "nothing was read");
        lags.read(&[record(10, 1_000), record(11, 2_000)]);
        std::thread::sleep(Duration::from_millis(30));
        let before_second = Instant::now();
        lags.read(&[record(12, 3_000)]);
        let first = lags.applied(&advance(11)).unwrap();
        let second = lags.applied(&advance(12)).unwrap();
        assert!(
            first >= Duration::from_millis(30) && second >= first,
            "{second:?}: a part of the same chunk"
        );
        let third = lags.applied(&advance(13)).unwrap();
        assert!(third <= before_second.elapsed(), "{third:?}: the second chunk came later");
        assert_eq!(lags.applied(&advance(13)), None, "all is applied");
    }

    #[test]
    fn what_nobody_reads_at_the_end_of_a_log_is_no_lag() {
        let lags = Lags::default();
        lags.begun(&at(), NextOffset(10));
        lags.read(&[record(10, 1_000)]);
        lags.published(&[(at(), NextOffset(11))]);
        // A transaction's end.
        lags.ends(&[end(12, true)]);
        is(&lags, 9_000, 0, 0.0);
        lags.ends(&[end(13, false)]);
        let [lag] = &lags.all(now_ms() + 5_000)[..] else { panic!("one partition") };
        assert!(lag.records == 2 && (5.0..60.0).contains(&lag.seconds), "{lag:?}");
    }

    #[test]
    fn what_is_read_again_is_as_old_as_it_was() {
        let lags = Lags::default();
        lags.begun(&at(), NextOffset(10));
        lags.read(&[record(10, 1_000), record(11, 2_000)]);
        lags.read(&[record(12, 3_000)]);
        lags.begun(&at(), NextOffset(11));
        lags.read(&[record(11, 2_000), record(12, 3_000)]);
        is(&lags, 9_000, 2, 7.0);
    }

    #[test]
    fn what_stands_in_a_partition_that_is_stopped_or_held_is_lag_whatever_was_fetched() {
        for is_held in [false, true] {
            let stopped = StoppedPartitions::default();
            let (lags, ownership) = (Lags::new(stopped.clone()), Ownership::new(stopped));
            lags.begun(&at(), NextOffset(10));
            lags.read(&[record(10, 1_000), record(11, 2_000)]);
            lags.read(&[record(12, 3_000), record(13, 4_000)]);
            lags.published(&[(at(), NextOffset(12))]);
            lags.ends(&[end(14, true)]);
            is(&lags, 9_000, 2, 6.0);
            if is_held {
                ownership.hold(&at(), "no schema".to_owned());
            } else {
                ownership.stop(&at(), "too large".to_owned());
            }
            // The rewind leaves it out. What it has paused, the client says to be fetched.
            lags.begun(&at(), NextOffset(12));
            is(&lags, 9_000, 2, 6.0);
            lags.ends(&[end(14, true)]);
            is(&lags, 9_000, 2, 6.0);
            lags.ends(&[end(20, true)]);
            is(&lags, 19_000, 8, 16.0);
            // So does the next one.
            lags.begun(&at(), NextOffset(12));
            is(&lags, 19_000, 8, 16.0);
            if is_held {
                ownership.release(&at());
                lags.begun(&at(), NextOffset(12));
                lags.read(&[record(12, 3_000), record(13, 4_000)]);
                lags.published(&[(at(), NextOffset(14))]);
                lags.ends(&[end(20, true)]);
                is(&lags, 19_000, 0, 0.0);
            }
        }
    }

    #[test]
    fn what_of_a_rewound_partition_is_published_meanwhile_makes_it_no_older() {
        let lags = Lags::default();
        lags.begun(&at(), NextOffset(10));
        lags.read(&[record(10, 1_000), record(11, 2_000)]);
        lags.read(&[record(12, 3_000)]);
        lags.begun(&at(), NextOffset(12));
        is(&lags, 9_000, 1, 6.0);
        lags.begun(&at(), NextOffset(13));
        is(&lags, 9_000, 0, 0.0);
    }
}
