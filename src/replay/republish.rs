//! Stored decisions, republished.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::incarnations::Incarnations;
use super::record_filter::Met;
use super::scope::{LedgerView, Scope, published_part, too_slow};
use super::{Progress, Stopped};
use crate::config::TopicArgs;
use crate::event::{Outgoing, Reading, Record, read_record, result};
use crate::kafka::reader::OffsetRange;
use crate::kafka::transactional::{PublishError, PublishRequest, Publisher};
use crate::ledger::{Id, NextOffset, TopicPartition};
use crate::store::{LedgerHistory, Snapshot};

/// Events of one transaction at most.
const PAGE: usize = 5_000;
/// Most tries of one transaction.
const TRIES: usize = 5;

/// What is republished.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepublishReport {
    /// Records looked at.
    pub records: u64,
    /// Decisions published as accepted.
    pub accepted: u64,
    /// Decisions published as rejected.
    pub rejected: u64,
    /// Chosen records that made no decision: repeats and dead letters.
    pub without_decision: u64,
    /// Whether it was done, or only looked at.
    pub executed: bool,
    /// Ids and SKUs that were named, and that no record has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Where to go on, when it was stopped.
    #[serde(skip)]
    pub stopped_at: Option<BTreeMap<TopicPartition, NextOffset>>,
}

/// Publishes the chosen decisions again: the same bytes with the same ids, page by page in a transaction each; or only says
/// what it would publish.
///
/// # Errors
/// When something cannot be read or published, or the ledger does not fit the topics.
pub async fn republish(
    store: &dyn LedgerHistory,
    scope: Scope<'_>,
    to_topic: Option<&str>,
    execute: bool,
    progress: &Progress,
) -> Result<RepublishReport> {
    let look = scope.look(store, &scope.sources()).await?;
    look.check_fits()?;
    let LedgerView { topics, ranges, committed, positions, programs, incarnations, mut snapshot, .. } = look;
    // What is decided and not published yet, the verifier itself publishes.
    let ranges = published_part(ranges, &positions, &committed);
    progress.expect(ranges.iter().map(OffsetRange::span).sum());

    let mut publisher = if execute {
        let mut names: TopicArgs = scope.topics.clone();
        if let Some(topic) = to_topic {
            block_in_place(|| topics.partitions(topic))?;
            topic.clone_into(&mut names.accepted_topic);
            topic.clone_into(&mut names.rejected_topic);
        }
        // One id for all: two at once would publish everything twice, so the second ends the first.
        let mut publisher = Publisher::new(scope.kafka, &names, &format!("{}-replay", scope.group))?;
        block_in_place(|| publisher.init_transactions(&CancellationToken::new()))?;
        Some(publisher)
    } else {
        None
    };

    let mut report = RepublishReport { executed: execute, ..RepublishReport::default() };
    let mut reached: BTreeMap<TopicPartition, NextOffset> =
        ranges.iter().map(|range| (range.at.clone(), range.from)).collect();
    let mut met = Met::default();
    let mut reader = block_in_place(|| topics.read(&ranges))?;
    loop {
        let mut page = Vec::new();
        block_in_place(|| {
            while page.len() < PAGE
                && let Some(record) = reader.take_next()?
            {
                page.push(record);
            }
            anyhow::Ok(())
        })?;
        if page.is_empty() {
            report.unknown = met.unmet(scope.filter);
            return Ok(report);
        }
        let read = page.len();
        let ends: Vec<_> =
            page.iter().map(|record| (record.source.at.clone(), record.source.offset.next())).collect();
        let page: Vec<(Record, Reading)> = block_in_place(|| {
            let read = |record: Record| {
                scope.check_readable(&record)?;
                let reading = read_record(&record, programs.reading(&record.source));
                if reading == Reading::TooSlow {
                    return Err(too_slow(&record));
                }
                Ok((record, reading))
            };
            page.into_iter().map(read).collect::<Result<_>>()
        })?;
        let events = events_of(&mut *snapshot, scope, &incarnations, page, &mut report, &mut met).await?;
        if let Some(publisher) = &mut publisher {
            block_in_place(|| publish(publisher, &events))?;
        }
        report.records += read as u64;
        reached.extend(ends);
        if let Err(Stopped) = progress.add(read) {
            report.stopped_at = Some(reached);
            return Ok(report);
        }
    }
}

/// The events of those records of a page that are chosen and made a decision.
async fn events_of(
    snapshot: &mut dyn Snapshot,
    scope: Scope<'_>,
    incarnations: &Incarnations,
    page: Vec<(Record, Reading)>,
    report: &mut RepublishReport,
    met: &mut Met,
) -> Result<Vec<Outgoing>> {
    let mut commands = Vec::new();
    for (record, reading) in page {
        match reading.command() {
            Ok(command) if scope.filter.wants_command(&command) => {
                met.command(scope.filter, &command);
                commands.push((record, command.key));
            }
            Ok(_) => {}
            Err(_) => report.without_decision += u64::from(!scope.filter.looks_inside()),
        }
    }
    let ids: HashSet<&Id> = commands.iter().map(|(_, key)| &key.id).collect();
    let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
    let mut events = Vec::with_capacity(commands.len());
    for (record, key) in commands {
        let own = known.get(&key).filter(|decision| {
            decision.source.as_ref() == Some(&record.source) && incarnations.is_of_last(decision)
        });
        match own {
            Some(decision) => {
                *(if decision.accepted { &mut report.accepted } else { &mut report.rejected }) += 1;
                events.push(result(decision, record.key.as_deref(), record.trace()));
            }
            None => report.without_decision += 1,
        }
    }
    Ok(events)
}

/// Publishes events in one transaction.
fn publish(publisher: &mut Publisher, events: &[Outgoing]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let events: Vec<&Outgoing> = events.iter().collect();
    for _ in 0..TRIES {
        match publisher.publish(&PublishRequest { events: &events, offsets: &[], group: &[] }) {
            Ok(()) => return Ok(()),
            Err(PublishError::Fenced(_)) => {
                bail!("another replay took over; only one can publish at a time")
            }
            Err(error @ PublishError::Refused(_)) => {
                return Err(anyhow::Error::new(error).context("everything before it is published"));
            }
            Err(error) => {
                tracing::warn!(%error, "publishing again");
                publisher
                    .init_transactions(&CancellationToken::new())
                    .context("the producer could not be made anew")?;
            }
        }
    }
    bail!("a transaction failed {TRIES} times; everything before it is published")
}
