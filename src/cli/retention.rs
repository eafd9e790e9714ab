//! Warns of commands that Kafka will delete before they are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::kafka::admin::{Lag, TopicSettings, lags, settings_of};
use crate::pipeline::Settings;

/// How often to look. Retention is hours or days, and a look is some requests for each partition.
const LOOK: Duration = Duration::from_secs(180);
/// The part of its retention that a lag may be old, one in so many: there is still as much time to do something.
const WARN_AT: i64 = 2;

/// How long a topic keeps its records, where it does not keep them for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) ms: Option<i64>,
    pub(super) bytes: Option<i64>,
}

impl Kept {
    pub(super) fn of(settings: &TopicSettings) -> Self {
        let number = |name| settings.number(name).filter(|number| *number >= 0);
        Self { ms: number("retention.ms"), bytes: number("retention.bytes") }
    }

    /// From when on a record is young: nothing is warned of for it. In milliseconds since 1970.
    pub(super) fn young_since(self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        i64::try_from(now).unwrap_or(i64::MAX) - self.ms.unwrap_or(i64::MAX) / WARN_AT
    }
}

/// Why unread records may soon be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Risk {
    Age,
    Size,
}

/// Why they may; `lag.young` is the first record that is younger than what may be warned of.
pub(super) fn risk(lag: Lag, kept: Kept) -> Option<Risk> {
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
            spawn_blocking(move || lags_of(&settings, &name, kept)).await.context("looking panicked")??;
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
fn lags_of(settings: &Settings, topic: &str, kept: Kept) -> Result<Vec<(i32, Lag)>> {
    lags(&settings.kafka, &settings.group.group, topic, kept.young_since())
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
