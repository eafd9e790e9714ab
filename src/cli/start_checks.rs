//! What `run` checks of Kafka before it begins, so that a wrong setting is said at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::spawn_blocking;

use crate::kafka::admin::{TopicList, TopicSettings, settings_of};
use crate::pipeline::Settings;
use crate::store::Store;

/// Longest wait for a topic to appear: one just created is not known to every broker yet.
const TOPICS_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for it.
const TOPICS_LOOK: Duration = Duration::from_millis(100);

/// Checks that the brokers answer, that the topics are there, that they keep what was not read yet, and
/// that what is published finds room.
///
/// # Errors
/// When something is not as it must be; the message says what to do.
pub(super) async fn check(settings: &Settings, accept_compacted: bool) -> Result<()> {
    let reached = settings.clone();
    spawn_blocking(move || check_reach(&reached)).await.context("checking Kafka panicked")??;
    check_kept(settings, accept_compacted).await?;
    check_sizes(settings).await;
    Ok(())
}

/// Makes this the ledger of the group: a second group would publish every result again.
///
/// # Errors
/// When it is another group's, and is not to be taken over.
pub(super) async fn claim(store: &dyn Store, group: &str, take_over: bool) -> Result<()> {
    let owner = store.group().await?;
    store.claim_group(group, take_over).await?;
    if let Some(owner) = owner.filter(|owner| owner != group) {
        tracing::warn!(from = owner, to = group, "this ledger was taken over from another consumer group");
    }
    Ok(())
}

/// Checks that the brokers answer and the topics are there.
fn check_reach(settings: &Settings) -> Result<()> {
    let topics = TopicList::connect(&settings.kafka)?;
    let begun = Instant::now();
    loop {
        let missing = missing_topics(&topics, settings)?;
        if missing.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > TOPICS_LIMIT {
            bail!(
                "missing on {}: {}. Create what is missing with `stock-verifier topics create`, or name other topics",
                settings.kafka.brokers,
                missing.join(", ")
            );
        }
        std::thread::sleep(TOPICS_LOOK);
    }
}

/// The topics that are needed and not there.
fn missing_topics<'a>(there: &TopicList, settings: &'a Settings) -> Result<Vec<&'a str>> {
    let there = there.names()?;
    let topics = &settings.topics;
    let needed = [
        &*topics.orders_topic,
        &topics.adjustments_topic,
        &topics.accepted_topic,
        &topics.rejected_topic,
        &topics.dead_letter_topic,
    ];
    let levels = settings.levels.delay().map(|_| &*topics.levels_topic);
    Ok(needed.into_iter().chain(levels).filter(|name| !there.contains(*name)).collect())
}

/// Checks that Kafka does not remove commands of a topic for newer ones with the same key: all of them count.
async fn check_kept(settings: &Settings, accept_compacted: bool) -> Result<()> {
    let topics = settings.topics.read();
    let unknown = |topics: &str, why: &dyn std::fmt::Display| {
        tracing::warn!(
            "cannot check whether {topics} keeps what was not read yet (cleanup.policy, retention.ms): {why}. To have \
             it checked, allow this user to read its settings (ACL: DescribeConfigs)"
        );
    };
    let described = match settings_of(&settings.kafka, &topics).await {
        Ok(described) => described,
        Err(error) => {
            unknown(&topics.join(" and "), &format_args!("{error:#}"));
            return Ok(());
        }
    };
    for (topic, described) in topics.iter().zip(described) {
        let policy = match &described {
            Ok(settings) => settings.get("cleanup.policy").unwrap_or_default(),
            Err(error) => {
                unknown(topic, error);
                continue;
            }
        };
        if !policy.split(',').any(|part| part.trim() == "compact") {
            continue;
        }
        if accept_compacted {
            tracing::warn!(
                topic,
                "this topic is compacted: commands are lost that Kafka removes before they are read"
            );
        } else {
            bail!(
                "topic {topic} is compacted (cleanup.policy={policy}): Kafka removes commands from it for newer ones \
                 with the same key, unread ones too, and nobody is told. Set its cleanup.policy to delete, with a \
                 retention.ms longer than any lag; or start with --accept-compacted-topics"
            );
        }
    }
    Ok(())
}

/// What a dead letter has more than its record, at most: some headers of bounded length, in bytes.
pub(super) const LETTER_ROOM: u64 = 16_384;
/// The topics' setting that says how much they take.
const SIZE: &str = "max.message.bytes";
/// Largest result that is to be expected, in bytes: a thousand lines, each with its SKU and its location. It is Kafka's
/// own setting for topics.
const RESULT_BYTES: u64 = 1_048_588;

/// The largest record that a topic takes, where it says so.
pub(super) fn largest_record(settings: &Result<TopicSettings, String>) -> Option<u64> {
    settings.as_ref().ok()?.get(SIZE)?.parse().ok()
}

/// Warns where a dead letter could not be kept whole, or a result not be published. Where Kafka does not say, nothing is said:
/// that is a matter of what this user may see, and [`check_kept`] has said it.
async fn check_sizes(settings: &Settings) {
    let topics = &settings.topics;
    let names = [
        &*topics.orders_topic,
        &topics.adjustments_topic,
        &topics.dead_letter_topic,
        &topics.accepted_topic,
        &topics.rejected_topic,
    ];
    let Ok(described) = settings_of(&settings.kafka, &names).await else { return };
    let sizes: Vec<Option<u64>> = described.iter().map(largest_record).collect();
    let [orders, adjustments, letters, ref results @ ..] = sizes[..] else { return };
    for (topic, size) in [(names[0], orders), (names[1], adjustments)] {
        if let (Some(size), Some(letters)) = (size, letters)
            && letters < size + LETTER_ROOM
        {
            tracing::warn!(
                "a record of {topic} may be too large to be kept whole as a dead letter: {topic} takes {size} bytes \
                 ({SIZE}), {} {letters}. It would be kept without its value. Give the latter {} or more",
                names[2],
                size + LETTER_ROOM
            );
        }
    }
    for (topic, size) in names[3..].iter().zip(results) {
        if let Some(size) = size.filter(|size| *size < RESULT_BYTES) {
            tracing::warn!(
                "a result may be too large for {topic}, which takes {size} bytes ({SIZE}); the partition of its order \
                 would stop. Give it {RESULT_BYTES} or more"
            );
        }
    }
}
