//! What `run` checks of Kafka before it begins, so that a wrong setting is said at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::spawn_blocking;

use crate::causes;
use crate::config::{KafkaArgs, TopicArgs};
use crate::kafka::admin::{TopicList, TopicSettings, settings_of};
use crate::store::Store;

/// Longest wait for a topic to appear: one just created is not known to every broker yet.
const TOPICS_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for it.
const TOPICS_LOOK: Duration = Duration::from_millis(100);

/// The topics to look at, and where.
#[derive(Debug, Clone)]
pub(super) struct TopicsToCheck {
    /// Where.
    pub(super) kafka: KafkaArgs,
    /// Their names.
    pub(super) topics: TopicArgs,
    /// Whether levels are published.
    pub(super) levels: bool,
    /// Whether the topics of commands may be compacted.
    pub(super) accept_compacted: bool,
}

/// Something about the topics that a person should know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// `run` does not start.
    Refused(String),
    /// `run` starts and warns: a record may come for which there is no room, or one is lost.
    Warned(String),
    /// Kafka does not say.
    Unknown(String),
}

/// Which topics are there.
#[derive(Debug)]
pub(super) struct Topics {
    /// Those that are needed and there, with their numbers of partitions.
    pub(super) there: Vec<(String, usize)>,
    /// Those that are needed and not there.
    pub(super) missing: Vec<String>,
    /// Those that are needed and that this user may not see: whether they are there, Kafka does not say.
    pub(super) hidden: Vec<String>,
}

impl Topics {
    /// Whether all that are needed are there.
    pub(super) fn are_all_there(&self) -> bool {
        self.missing.is_empty() && self.hidden.is_empty()
    }
}

/// Checks that the brokers answer, that the topics are there, that they keep what was not read yet, and
/// that what is published finds room.
///
/// # Errors
/// When something is not as it must be; the message says what to do.
pub(super) async fn check(check: &TopicsToCheck) -> Result<()> {
    let found = find(check).await?;
    let mut wrong = Vec::new();
    if !found.missing.is_empty() {
        wrong.push(format!(
            "missing on {}: {}. Create what is missing with `stock-verifier topics create`, or name other topics",
            check.kafka.brokers,
            found.missing.join(", ")
        ));
    }
    if !found.hidden.is_empty() {
        wrong.push(format!(
            "on {} this user may not see {}, so whether it is there is not known. Allow it (ACL: Describe, which Read and \
             Write imply; docs/permissions.md has the lines), or name other topics",
            check.kafka.brokers,
            found.hidden.join(", ")
        ));
    }
    if !wrong.is_empty() {
        bail!(wrong.join(". "));
    }
    for remark in kept(check).await.into_iter().chain(sizes(check).await) {
        match remark {
            Remark::Refused(what) => bail!(what),
            Remark::Warned(what) | Remark::Unknown(what) => tracing::warn!("{what}"),
        }
    }
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

/// Looks for the topics, and waits a moment for those that are not there.
///
/// # Errors
/// When the brokers do not answer.
pub(super) async fn find(check: &TopicsToCheck) -> Result<Topics> {
    let check = check.clone();
    spawn_blocking(move || find_blocking(&check)).await.context("checking Kafka panicked")?
}

fn find_blocking(check: &TopicsToCheck) -> Result<Topics> {
    let list = TopicList::connect(&check.kafka)?;
    let topics = &check.topics;
    let needed = [
        &topics.orders_topic,
        &topics.adjustments_topic,
        &topics.accepted_topic,
        &topics.rejected_topic,
        &topics.dead_letter_topic,
    ];
    let levels = check.levels.then_some(&topics.levels_topic);
    let begun = Instant::now();
    loop {
        let mut found = Topics { there: Vec::new(), missing: Vec::new(), hidden: Vec::new() };
        // A look that began in time may be answered late, by what was known before: not the last one.
        let is_last = begun.elapsed() > TOPICS_LIMIT;
        let listed = list.partitions()?;
        for name in needed.into_iter().chain(levels) {
            match listed.get(name) {
                Some(partitions) => found.there.push((name.clone(), *partitions)),
                None => found.missing.push(name.clone()),
            }
        }
        if found.missing.is_empty() {
            return Ok(found);
        }
        if is_last {
            // Asked for by name, those that this user may not see are told apart.
            let hidden = list.hidden(&found.missing)?;
            found.missing.retain(|name| !hidden.contains(name));
            found.hidden = hidden;
            return Ok(found);
        }
        std::thread::sleep(TOPICS_LOOK);
    }
}

/// What Kafka says of the settings of some topics, in their order.
pub(super) type Described = anyhow::Result<Vec<Result<TopicSettings, String>>>;

/// Whether Kafka removes commands of a topic for newer ones with the same key: all of them count.
pub(super) async fn kept(check: &TopicsToCheck) -> Vec<Remark> {
    let topics = check.topics.read();
    judge_kept(topics, check.accept_compacted, &settings_of(&check.kafka, &topics).await)
}

/// The same, where it is known what Kafka says of them.
pub(super) fn judge_kept(topics: [&str; 2], accept_compacted: bool, described: &Described) -> Vec<Remark> {
    let unknown = |topics: &str, why: &dyn std::fmt::Display| {
        Remark::Unknown(format!(
            "cannot check whether {topics} keeps what was not read yet (cleanup.policy, retention.ms): {why}. To have \
             it checked, allow this user to read its settings (ACL: DescribeConfigs)"
        ))
    };
    let described = match described {
        Ok(described) => described,
        Err(error) => return vec![unknown(&topics.join(" and "), &causes::of(error.as_ref()))],
    };
    let remarks = topics.iter().zip(described).filter_map(|(topic, described)| {
        let settings = match described {
            Ok(settings) => settings,
            Err(error) => return Some(unknown(topic, &error)),
        };
        let policy = settings.get("cleanup.policy").unwrap_or_default();
        if !policy.split(',').any(|part| part.trim() == "compact") {
            return None;
        }
        Some(if accept_compacted {
            Remark::Warned(format!(
                "{topic}: this topic is compacted: commands are lost that Kafka removes before they are read"
            ))
        } else {
            Remark::Refused(format!(
                "topic {topic} is compacted (cleanup.policy={policy}): Kafka removes commands from it for newer ones \
                 with the same key, unread ones too, and nobody is told. Set its cleanup.policy to delete, with a \
                 retention.ms longer than any lag; or start with --accept-compacted-topics"
            ))
        })
    });
    remarks.collect()
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

/// Where a dead letter could not be kept whole, or a result not be published. Where Kafka does not say, nothing is said:
/// that is a matter of what this user may see, and [`kept`] has said it.
pub(super) async fn sizes(check: &TopicsToCheck) -> Vec<Remark> {
    let names = sized(&check.topics);
    settings_of(&check.kafka, &names)
        .await
        .map_or_else(|_| Vec::new(), |described| judge_sizes(names, &described))
}

/// The topics whose sizes must fit each other.
pub(super) fn sized(topics: &TopicArgs) -> [&str; 5] {
    [
        &topics.orders_topic,
        &topics.adjustments_topic,
        &topics.dead_letter_topic,
        &topics.accepted_topic,
        &topics.rejected_topic,
    ]
}

/// The same, where it is known what Kafka says of them.
pub(super) fn judge_sizes(names: [&str; 5], described: &[Result<TopicSettings, String>]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let sizes: Vec<Option<u64>> = described.iter().map(largest_record).collect();
    let [orders, adjustments, letters, ref results @ ..] = sizes[..] else { return remarks };
    for (topic, size) in [(names[0], orders), (names[1], adjustments)] {
        if let (Some(size), Some(letters)) = (size, letters)
            && letters < size + LETTER_ROOM
        {
            remarks.push(Remark::Warned(format!(
                "a record of {topic} may be too large to be kept whole as a dead letter: {topic} takes {size} bytes \
                 ({SIZE}), {} {letters}. It would be kept without its value. Give the latter {} or more",
                names[2],
                size + LETTER_ROOM
            )));
        }
    }
    for (topic, size) in names[3..].iter().zip(results) {
        if let Some(size) = size.filter(|size| *size < RESULT_BYTES) {
            remarks.push(Remark::Warned(format!(
                "a result may be too large for {topic}, which takes {size} bytes ({SIZE}); the partition of its order \
                 would stop. Give it {RESULT_BYTES} or more"
            )));
        }
    }
    remarks
}
