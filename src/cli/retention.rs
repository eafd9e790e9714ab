//! Warns of commands that Kafka will delete before they are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rdkafka::admin::ConfigResource;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use super::start_checks::settings_of;
use crate::pipeline::Settings;

/// How often to look. Retention is hours or days, and a look is some requests for each partition.
const LOOK: Duration = Duration::from_secs(180);
/// Longest wait for one answer; without it the next look shows it.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The part of its retention that a lag may be old, one in so many: there is still as much time to do something.
const WARN_AT: i64 = 2;

/// How long a topic keeps its records, where it does not keep them for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    ms: Option<i64>,
    bytes: Option<i64>,
}

impl Kept {
    fn of(settings: &ConfigResource) -> Self {
        let number = |name| -> Option<i64> {
            settings.get(name)?.value.as_deref()?.parse().ok().filter(|number| *number >= 0)
        };
        Self { ms: number("retention.ms"), bytes: number("retention.bytes") }
    }
}

/// Where the group and the log of a partition are.
#[derive(Debug, Clone, Copy)]
struct Lag {
    /// The first record the log still holds.
    low: i64,
    /// The next record the group reads.
    next: i64,
    /// The end of the log.
    high: i64,
    /// The first record that is younger than what may be warned of; the end when none is.
    young: i64,
}

/// Why unread records may soon be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Risk {
    Age,
    Size,
}

fn risk(lag: Lag, kept: Kept) -> Option<Risk> {
    let unread = lag.high - lag.next;
    if unread <= 0 {
        None
    } else if kept.ms.is_some() && lag.next < lag.young {
        Some(Risk::Age)
    } else if kept.bytes.is_some() && lag.low > 0 && unread > (lag.high - lag.low) / WARN_AT {
        // Kafka has deleted before, so the log is about as large as it may be, and most of it is not read.
        Some(Risk::Size)
    } else {
        None
    }
}

/// Warns at once and from time to time, for as long as the process runs.
pub(super) async fn watch(settings: Settings) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if let Err(error) = look(&settings).await {
            tracing::debug!("cannot look whether retention is longer than the lag: {error:#}");
        }
    }
}

async fn look(settings: &Settings) -> Result<()> {
    let topics = settings.topics.read();
    let described = settings_of(&settings.kafka, &topics).await?;
    for (topic, described) in topics.iter().zip(described) {
        // What may not be read was said at the start.
        let Ok(described) = described else { continue };
        let kept = Kept::of(&described);
        if kept.ms.is_none() && kept.bytes.is_none() {
            continue;
        }
        let (settings, name) = (settings.clone(), (*topic).to_owned());
        let lags =
            spawn_blocking(move || lags(&settings, &name, kept)).await.context("looking panicked")??;
        for (partition, lag) in lags {
            let unread = lag.high - lag.next;
            match risk(lag, kept) {
                Some(Risk::Age) => tracing::warn!(
                    partition = format!("{topic}[{partition}]"),
                    next = lag.next,
                    unread,
                    "records that are not read yet are older than half of retention.ms ({}): Kafka will delete them \
                     unread. Raise retention.ms of {topic}, or start more instances",
                    humantime::format_duration(Duration::from_millis(kept.ms.unwrap_or(0).unsigned_abs()))
                ),
                Some(Risk::Size) => tracing::warn!(
                    partition = format!("{topic}[{partition}]"),
                    next = lag.next,
                    unread,
                    "more than half of what this partition keeps is not read yet, and it keeps at most {} bytes: Kafka \
                     will delete records unread. Raise retention.bytes of {topic}, or start more instances",
                    kept.bytes.unwrap_or(0)
                ),
                None => {}
            }
        }
    }
    tracing::debug!("looked at retention");
    Ok(())
}

/// How far the group is in each partition of a topic.
fn lags(settings: &Settings, topic: &str, kept: Kept) -> Result<Vec<(i32, Lag)>> {
    let mut config = settings.kafka.client()?;
    config
        .set("group.id", &settings.group.group)
        .set("enable.auto.commit", "false")
        // Where a transaction is open is no question here, and would be waited for.
        .set("isolation.level", "read_uncommitted");
    settings.kafka.overlay(&mut config);
    config.remove("group.instance.id");
    let consumer: BaseConsumer = config.create().context("the Kafka configuration is refused")?;
    let metadata =
        consumer.fetch_metadata(Some(topic), ANSWER_LIMIT).context("cannot read the topic's partitions")?;
    let mut wanted = TopicPartitionList::new();
    let mut times = TopicPartitionList::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let young = i64::try_from(now).unwrap_or(i64::MAX) - kept.ms.unwrap_or(i64::MAX) / WARN_AT;
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        wanted.add_partition(topic, partition.id());
        times.add_partition_offset(topic, partition.id(), Offset::Offset(young.max(0)))?;
    }
    let committed =
        consumer.committed_offsets(wanted, ANSWER_LIMIT).context("cannot read the committed offsets")?;
    let young = consumer.offsets_for_times(times, ANSWER_LIMIT).context("cannot look up offsets by time")?;
    let mut lags = Vec::new();
    for element in committed.elements() {
        let partition = element.partition();
        let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT)?;
        // Without a committed offset it is not known where it begins: the ledger may say.
        let Some(next) = element.offset().to_raw().filter(|next| *next >= 0) else { continue };
        let young = young.find_partition(topic, partition).and_then(|element| element.offset().to_raw());
        // The end is a negative number of its own.
        let young = young.filter(|offset| *offset >= 0).unwrap_or(high);
        lags.push((partition, Lag { low, next, high, young }));
    }
    Ok(lags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Kept = Kept { ms: Some(3_600_000), bytes: None };
    const SIZED: Kept = Kept { ms: None, bytes: Some(1_000_000) };

    fn lag(low: i64, next: i64, high: i64, young: i64) -> Lag {
        Lag { low, next, high, young }
    }

    #[test]
    fn a_lag_older_than_half_the_retention_is_a_risk() {
        assert_eq!(risk(lag(0, 10, 100, 11), HOUR), Some(Risk::Age));
        assert_eq!(risk(lag(0, 10, 100, 10), HOUR), None, "the next record is young");
        assert_eq!(risk(lag(0, 100, 100, 100), HOUR), None, "nothing is left to read");
    }

    #[test]
    fn most_of_a_log_that_is_cut_by_size_unread_is_a_risk() {
        assert_eq!(risk(lag(100, 120, 200, 200), SIZED), Some(Risk::Size));
        assert_eq!(risk(lag(100, 160, 200, 200), SIZED), None, "less than half is unread");
        assert_eq!(risk(lag(0, 0, 200, 200), SIZED), None, "nothing was ever deleted");
        assert_eq!(risk(lag(100, 120, 200, 200), HOUR), Some(Risk::Age));
    }

    #[test]
    fn what_is_kept_for_ever_is_no_risk() {
        assert_eq!(risk(lag(100, 120, 200, 200), Kept { ms: None, bytes: None }), None);
    }
}
