//! Gathers facts of Kafka: all at once, since each waits for answers, and none longer than it may.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::task::spawn_blocking;

use super::DoctorArgs;
use super::facts::{KafkaFacts, Known, OpenTransaction, TrialFailure};
use crate::cli::retention::Kept;
use crate::kafka::admin::{Settings, broker_settings, settings_within};
use crate::kafka::examiner::{Cluster, Examiner, LogOffsets};
use crate::ledger::{NextOffset, TopicPartition};

/// What is added to a transactional id of this instance for the trial. Those in use end with a worker's number, or with
/// `-b` after it, so nobody is fenced.
const TRIAL: &str = "-doctor";
/// Most open transactions that are looked into: one tells as much as many.
const MOST_OPEN: usize = 3;
/// How long after the first look for open transactions the second is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long offsets must be in an open transaction to be worth a word.
const PENDING_LIMIT: Duration = Duration::from_millis(1500);
/// The pause between two looks for them.
const PENDING_PAUSE: Duration = Duration::from_millis(100);
/// Added to a call's own limit before it is not waited for any longer.
pub(super) const SLACK: Duration = Duration::from_millis(500);

/// Connects, and says why not.
///
/// # Errors
/// When the settings cannot be used, or nobody answers.
pub(super) async fn connect(
    args: &DoctorArgs,
    connect: Duration,
    look: Duration,
) -> Result<(Arc<Examiner>, Cluster)> {
    let (kafka, group) = (args.kafka.clone(), args.group.group.clone());
    let begun = Instant::now();
    let connected = spawn_blocking(move || {
        let examiner = Examiner::new(&kafka, &group, look)?;
        // Its own limit comes first: it knows why nobody answers.
        let cluster = examiner.cluster(connect.saturating_sub(begun.elapsed()))?;
        anyhow::Ok((Arc::new(examiner), cluster))
    });
    match tokio::time::timeout(connect + SLACK, connected).await {
        Ok(connected) => connected.map_err(anyhow::Error::from)?,
        Err(_) => anyhow::bail!("no answer within {connect:?}"),
    }
}

/// Everything else, within `look`.
pub(super) async fn gather(
    args: &DoctorArgs,
    examiner: &Arc<Examiner>,
    cluster: Cluster,
    look: Duration,
) -> KafkaFacts {
    let names = args.topic_names();
    let there: Vec<String> =
        names.iter().filter(|name| cluster.topics.contains_key(*name)).cloned().collect();
    let read = args.topics.read().map(str::to_owned);
    let partitions = partitions_of(&cluster, &there);
    let read_partitions: Vec<TopicPartition> =
        partitions.iter().filter(|at| read.iter().any(|name| **name == *at.topic)).cloned().collect();
    let trial_id = format!("{}{TRIAL}", args.group.transactional_id(0));
    let some_broker = cluster.brokers.first().copied().unwrap_or_default();

    let known: Vec<String> = read.iter().filter(|name| there.contains(name)).cloned().collect();
    let ((settings, offsets, open), broker, described, allowed, group, others, committed, pending, trial) = tokio::join!(
        async {
            let begun = Instant::now();
            let settings = settings(args, &there, look / 2).await;
            let left = look.saturating_sub(begun.elapsed());
            let (offsets, open) = tokio::time::timeout(left, logs(examiner, partitions, &settings, left))
                .await
                .unwrap_or_else(|_| (Err(format!("no answer within {look:?}")), Vec::new()));
            (settings, offsets, open)
        },
        async {
            let found = broker_settings(&args.kafka, some_broker, look / 2).await;
            found.map_err(|error| format!("{error:#}")).flatten()
        },
        ask(look, examiner, move |examiner| {
            Ok(known.iter().cloned().zip(examiner.topics(&refs(&known))?).collect())
        }),
        ask(look, examiner, {
            let names = names.clone();
            move |examiner| Ok(names.iter().cloned().zip(examiner.allowed(&refs(&names))?).collect())
        }),
        ask(look, examiner, Examiner::group),
        ask(look, examiner, Examiner::other_groups),
        ask(look, examiner, {
            let partitions = read_partitions.clone();
            move |examiner| committed(examiner, partitions)
        }),
        ask(look, examiner, move |examiner| pending(examiner, &read_partitions)),
        trial(look, examiner, trial_id),
    );
    // Last: who was asked anything has said by now what it can do.
    let api_versions = ask(look, examiner, |examiner| Ok(examiner.api_versions())).await.unwrap_or_default();
    KafkaFacts {
        cluster,
        api_versions,
        settings,
        broker,
        described,
        allowed,
        group,
        others,
        committed,
        pending,
        offsets,
        open,
        trial,
        now_ms: now_ms(),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn partitions_of(cluster: &Cluster, topics: &[String]) -> Vec<TopicPartition> {
    let of = |topic: &String| {
        let layout = cluster.topics.get(topic).map(Vec::as_slice).unwrap_or_default();
        layout.iter().map(|at| TopicPartition::new(topic.as_str(), at.partition)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}

/// Asks on a thread of its own, and waits for it within a bound. One that hangs ends with the process.
async fn ask<T: Send + 'static>(
    limit: Duration,
    examiner: &Arc<Examiner>,
    question: impl FnOnce(&Examiner) -> Result<T> + Send + 'static,
) -> Known<T> {
    let examiner = Arc::clone(examiner);
    match tokio::time::timeout(limit, spawn_blocking(move || question(&examiner))).await {
        Ok(Ok(answer)) => answer.map_err(|error| format!("{error:#}")),
        Ok(Err(panicked)) => Err(panicked.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

async fn settings(args: &DoctorArgs, there: &[String], limit: Duration) -> BTreeMap<String, Known<Settings>> {
    let described = match settings_within(&args.kafka, &refs(there), limit).await {
        Ok(described) => described,
        Err(error) => there.iter().map(|_| Err(format!("{error:#}"))).collect(),
    };
    there.iter().cloned().zip(described).collect()
}

fn committed(
    examiner: &Examiner,
    partitions: Vec<TopicPartition>,
) -> Result<HashMap<TopicPartition, Known<Option<NextOffset>>>> {
    let mut found = examiner.committed(&partitions)?;
    let each = partitions.into_iter().map(|at| {
        let next = found.take(&at).map_err(|error| error.to_string());
        (at, next)
    });
    Ok(each.collect())
}

/// Partitions whose offsets are in a transaction that stays open, the first few. Under load there is always one that has
/// some, but then what is committed moves.
fn pending(examiner: &Examiner, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let before = committed(examiner, partitions.to_vec())?;
    let begun = Instant::now();
    let mut open = examiner.in_open_transactions(partitions)?;
    while !open.is_empty() && begun.elapsed() < PENDING_LIMIT {
        std::thread::sleep(PENDING_PAUSE);
        open = examiner.in_open_transactions(&open)?;
    }
    if open.is_empty() {
        return Ok(open);
    }
    let after = committed(examiner, open.clone())?;
    open.retain(|at| matches!((before.get(at), after.get(at)), (Some(Ok(was)), Some(Ok(is))) if was == is));
    open.sort_unstable();
    open.truncate(MOST_OPEN);
    Ok(open)
}

async fn trial(limit: Duration, examiner: &Arc<Examiner>, id: String) -> Result<(), TrialFailure> {
    let tried = id.clone();
    let answer = ask(limit, examiner, move |examiner| examiner.try_transactional_id(&tried));
    match answer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let refused = error.is_final_for_producer();
            Err(TrialFailure { id, refused, why: format!("{:#}", anyhow::Error::from(error)) })
        }
        Err(why) => Err(TrialFailure { id, refused: false, why }),
    }
}

/// Where the logs are, and since when transactions are open.
async fn logs(
    examiner: &Arc<Examiner>,
    partitions: Vec<TopicPartition>,
    settings: &BTreeMap<String, Known<Settings>>,
    limit: Duration,
) -> (Known<HashMap<TopicPartition, LogOffsets>>, Vec<OpenTransaction>) {
    let begun = Instant::now();
    let young_since = |topic: &str| {
        let kept = settings.get(topic).and_then(|settings| settings.as_ref().ok()).map(Kept::of);
        kept.map_or(0, Kept::young_since)
    };
    let wanted: Vec<(TopicPartition, i64)> =
        partitions.into_iter().map(|at| (at.clone(), young_since(&at.topic))).collect();
    let offsets = match ask(limit, examiner, move |examiner| examiner.offsets(&wanted)).await {
        Ok(offsets) => offsets,
        Err(why) => return (Err(why), Vec::new()),
    };
    let mut hidden: Vec<(TopicPartition, i64)> = offsets
        .iter()
        .filter(|(_, log)| log.stable < log.high)
        .map(|(at, log)| (at.clone(), log.stable))
        .collect();
    if hidden.is_empty() {
        return (Ok(offsets), Vec::new());
    }
    // Under load some transaction is always open, but each for milliseconds.
    tokio::time::sleep(LOOK_AGAIN).await;
    let partitions: Vec<TopicPartition> = hidden.iter().map(|(at, _)| at.clone()).collect();
    let now = match ask(limit, examiner, move |examiner| examiner.stable(&partitions)).await {
        Ok(now) => now,
        Err(why) => return (Err(why), Vec::new()),
    };
    hidden.retain(|(at, from)| now.get(at).is_none_or(|now| now == from));
    hidden.sort_unstable();
    let each = (limit.saturating_sub(begun.elapsed()) / 2) / u32::try_from(MOST_OPEN).unwrap_or(1);
    let mut open = Vec::new();
    for (number, (at, from)) in hidden.into_iter().enumerate() {
        let partition = at.clone();
        let produced = ask(limit, examiner, move |examiner| {
            if number < MOST_OPEN { examiner.produced_at(&partition, from, each) } else { Ok(None) }
        });
        open.push(OpenTransaction { at, from, since_ms: produced.await.ok().flatten() });
    }
    (Ok(offsets), open)
}
