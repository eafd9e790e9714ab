//! Commands asked again, through the normal path.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::task::block_in_place;

use super::published::{letter_class, letter_of};
use super::record_filter::Met;
use super::scope::{LedgerView, Scope};
use super::{Progress, Stopped};
use crate::event::{
    Channel, ERROR_HEADERS, Header, OMITTED_HEADERS, Outgoing, OutgoingHeader, Record, Repair, read_record,
};
use crate::kafka::reader::OffsetRange;
use crate::kafka::sender::{Lost, Sender};
use crate::kafka::topics::Topics;
use crate::ledger::{Action, Id, NextOffset, Source, TopicPartition};
use crate::mapping::{Mapping, Mappings, Programs};
use crate::store::{LedgerHistory, Snapshot};

/// Commands sent at once.
const PAGE: usize = 5_000;
/// What is said when some of a page did not arrive.
const PARTLY_SENT: &str = "not all commands of this page were sent; sending them again does no harm";
/// Refusals that are shown; all are counted.
const MOST_SHOWN: usize = 100;

/// Headers that say where a command that is asked again first stood.
pub const ORIGIN_HEADERS: [&str; 3] =
    ["stock_verifier.replay.topic", "stock_verifier.replay.partition", "stock_verifier.replay.offset"];

/// Where commands come from.
#[derive(Debug, Clone)]
pub enum From {
    /// The orders and adjustments as they came.
    Sources,
    /// The dead letters, of these error classes or of any.
    DeadLetters(BTreeSet<String>),
}

/// How the chosen records are repaired first.
#[derive(Debug, Clone)]
pub enum Repairs {
    /// All alike; maybe not at all.
    Alike(Repair),
    /// Each by itself, by where it stands or by where it first stood. Others are left out.
    Each(HashMap<Source, Repair>),
}

impl Repairs {
    /// Whether records are changed before anybody knows what they say.
    fn change(&self) -> bool {
        match self {
            Self::Alike(repair) => !repair.is_empty(),
            Self::Each(_) => true,
        }
    }

    /// The repair of a record, and by what it was named; `None` where it is not meant.
    fn of<'a>(&'a self, record: &'a Source, origin: &'a Source) -> Option<(&'a Repair, Option<&'a Source>)> {
        match self {
            Self::Alike(repair) => Some((repair, None)),
            Self::Each(repairs) => {
                [record, origin].into_iter().find_map(|named| Some((repairs.get(named)?, Some(named))))
            }
        }
    }

    /// The records that were named, less these.
    fn unused(&self, used: &HashSet<Source>) -> Vec<String> {
        let Self::Each(repairs) = self else { return Vec::new() };
        let mut unused: Vec<&Source> = repairs.keys().filter(|named| !used.contains(named)).collect();
        unused.sort_by_key(|named| (&named.at, named.offset));
        unused.into_iter().map(|named| format!("record {named}")).collect()
    }
}

/// What is asked again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReprocessReport {
    /// Records looked at.
    pub records: u64,
    /// Commands that were sent, to be decided.
    pub sent: u64,
    /// Commands left out since they are decided: asked again they would change nothing.
    pub decided: u64,
    /// Records left out since they cannot be decided: they would be dead letters again.
    pub faulty: u64,
    /// Why, of the first hundred.
    pub faults: Vec<String>,
    /// Whether it was done, or only looked at.
    pub executed: bool,
    /// Ids and SKUs that were named, and that no record has; and records that were named to be repaired, and are not
    /// there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Where to go on, when it was stopped.
    #[serde(skip)]
    pub stopped_at: Option<BTreeMap<TopicPartition, NextOffset>>,
}

/// Sends the chosen commands that are not decided yet to where they came from, repaired first; or only says what it would
/// send.
///
/// # Errors
/// When something cannot be read or sent.
pub async fn reprocess(
    store: &dyn LedgerHistory,
    scope: Scope<'_>,
    from: &From,
    repairs: &Repairs,
    mappings: &Mappings,
    execute: bool,
    progress: &Progress,
) -> Result<ReprocessReport> {
    let names = scope.topics;
    let look = match from {
        From::Sources => scope.look(store, &scope.sources()).await?,
        From::DeadLetters(_) => scope.look(store, &[&names.dead_letter_topic]).await?,
    };
    if matches!(from, From::Sources) {
        look.check_fits()?;
    }
    let LedgerView { topics, ranges, positions, programs, mut snapshot, .. } = look;
    progress.expect(ranges.iter().map(OffsetRange::span).sum());
    // Made only to send: an idempotent producer asks Kafka for an id at once, which who only looks may not have.
    let sender = if execute { Some(Arc::new(Sender::new(scope.kafka, names)?)) } else { None };

    let mut report = ReprocessReport { executed: execute, ..ReprocessReport::default() };
    let mut ends: BTreeMap<TopicPartition, NextOffset> =
        ranges.iter().map(|range| (range.at.clone(), range.from)).collect();
    let mut met = Met::default();
    let mut used = HashSet::new();
    let mut reader = block_in_place(|| topics.read(&ranges))?;
    loop {
        let mut page = Vec::new();
        let mut read = 0;
        block_in_place(|| {
            // Few may be wanted of many that are read: a stop is heard, and the bar moves, all the same.
            while page.len() < PAGE
                && read < PAGE
                && let Some(record) = reader.take_next()?
            {
                read += 1;
                ends.insert(record.source.at.clone(), record.source.offset.next());
                // What is not decided yet will be, without being asked again.
                let waits = matches!(from, From::Sources)
                    && !positions
                        .get(&record.source.at)
                        .is_some_and(|next| next.covers(record.source.offset));
                if !waits {
                    page.extend(wanted(from, record));
                }
            }
            anyhow::Ok(())
        })?;
        if read == 0 {
            report.unknown = met.unmet(scope.filter);
            report.unknown.extend(repairs.unused(&used));
            return Ok(report);
        }
        report.records += read as u64;
        let readers = Readers { mappings, programs: &programs };
        let page =
            block_in_place(|| repaired(scope, readers, &topics, page, repairs, &mut used, &mut report))?;
        let commands = commands_of(&mut *snapshot, scope, readers, page, &mut report, &mut met).await?;
        report.sent += commands.len() as u64;
        if let Some(sender) = sender.as_ref().filter(|_| !commands.is_empty()) {
            let lost = sender.send(commands).await.context(PARTLY_SENT)?;
            if let Some(Lost { error, .. }) = lost.into_iter().next() {
                return Err(error).context(PARTLY_SENT);
            }
        }
        if let Err(Stopped) = progress.add(read) {
            report.stopped_at = Some(ends);
            return Ok(report);
        }
    }
}

/// By what a record is read that was a dead letter, or is asked again.
#[derive(Clone, Copy)]
struct Readers<'a> {
    /// What is given now.
    mappings: &'a Mappings,
    /// What read its topic before.
    programs: &'a Programs,
}

impl<'a> Readers<'a> {
    /// The mapping given for the topic that it came from, for that reads it when it is sent there; else what reads the
    /// partition's records last.
    fn of(self, origin: &Source) -> Option<&'a Mapping> {
        let given = self.mappings.of_topic(&origin.at.topic).map(|mapping| &**mapping);
        given.or_else(|| self.programs.last(&origin.at))
    }
}

/// The record with the source it first had, if it is meant.
fn wanted(from: &From, record: Record) -> Option<(Record, Source)> {
    match from {
        From::Sources => {
            let source = record.source.clone();
            Some((record, source))
        }
        From::DeadLetters(classes) => {
            let class = letter_class(&record).unwrap_or_default();
            if !classes.is_empty() && !classes.contains(class) {
                return None;
            }
            // One that does not say where it is from was not written by this program.
            let source = letter_of(&record)?;
            Some((record, source))
        }
    }
}

/// The records of a page that are meant, repaired. `used` learns which were named.
fn repaired(
    scope: Scope<'_>,
    readers: Readers<'_>,
    topics: &Topics,
    page: Vec<(Record, Source)>,
    repairs: &Repairs,
    used: &mut HashSet<Source>,
    report: &mut ReprocessReport,
) -> Result<Vec<(Record, Source)>> {
    let mut repaired = Vec::with_capacity(page.len());
    for (mut record, origin) in page {
        if !repairs.change() && !scope.filter.wants(&record, readers.of(&origin)) {
            continue;
        }
        let source = record.source.clone();
        let Some((repair, named)) = repairs.of(&source, &origin) else { continue };
        used.extend(named.cloned());
        let done = if record.headers.iter().any(|header| header.name == OMITTED_HEADERS[0]) {
            Err(format!(
                "its value was left out, since it was too large for its topic: the record is {origin}, as long as that \
                 topic keeps it"
            ))
        } else {
            repair.apply(&mut record)
        };
        match done {
            Ok(()) => {
                if repairs.change() {
                    topics.decode(&mut record)?;
                }
                repaired.push((record, origin));
            }
            // Nobody knows what it is about.
            Err(_) if scope.filter.looks_inside() && named.is_none() => {}
            Err(why) => refuse(report, &record.source, &why),
        }
    }
    Ok(repaired)
}

/// The commands of a page that are chosen and not decided yet, ready to be sent.
async fn commands_of(
    snapshot: &mut dyn Snapshot,
    scope: Scope<'_>,
    readers: Readers<'_>,
    page: Vec<(Record, Source)>,
    report: &mut ReprocessReport,
    met: &mut Met,
) -> Result<Vec<(Outgoing, Option<TopicPartition>)>> {
    let mut commands = Vec::new();
    for (record, origin) in page {
        let command = block_in_place(|| read_record(&record, readers.of(&origin))).command();
        if let Ok(command) = &command {
            met.command(scope.filter, command);
        }
        match command {
            Ok(command) if !scope.filter.wants_command(&command) => {}
            // The verifier asks this by itself as long as it must.
            Ok(command) if command.action == Action::Expire => report.decided += 1,
            Ok(command) => commands.push((record, origin, command)),
            Err(_) if scope.filter.looks_inside() => {}
            Err(why) => refuse(report, &record.source, &why),
        }
    }
    let ids: HashSet<&Id> = commands.iter().map(|(_, _, command)| &command.key.id).collect();
    let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
    let mut sent = Vec::new();
    for (record, origin, command) in commands {
        match known.get(&command.key) {
            Some(first) if first.is_of(&command) => report.decided += 1,
            Some(_) => refuse(
                report,
                &record.source,
                &format!("{} is decided for other content; give it an id of its own", command.key),
            ),
            // Nobody would decide it there, and nobody would say so.
            None if !scope.sources().contains(&&*origin.at.topic) => refuse(
                report,
                &record.source,
                &format!(
                    "it is from {origin}, a topic that is not read (--orders-topic, --adjustments-topic)"
                ),
            ),
            None => sent.push((outgoing(record, &origin), Some(origin.at))),
        }
    }
    Ok(sent)
}

fn refuse(report: &mut ReprocessReport, source: &Source, why: &str) {
    report.faulty += 1;
    if report.faults.len() < MOST_SHOWN {
        report.faults.push(format!("{source}: {why}"));
    }
}

/// The record as it is sent: without the errors of the dead letter it was, and with its origin.
fn outgoing(record: Record, origin: &Source) -> Outgoing {
    let is_known = record.headers.iter().any(|header| header.name == ORIGIN_HEADERS[0]);
    let kept = record.headers.into_iter().filter(|header| !ERROR_HEADERS.contains(&header.name.as_str()));
    let mut headers: Vec<OutgoingHeader> = kept
        .map(|Header { name, value }| OutgoingHeader { name: Cow::Owned(name), value: value.map(Cow::Owned) })
        .collect();
    if !is_known {
        let values =
            [origin.at.topic.to_string(), origin.at.partition.to_string(), origin.offset.to_string()];
        headers.extend(ORIGIN_HEADERS.into_iter().zip(values).map(|(name, value)| OutgoingHeader {
            name: Cow::Borrowed(name),
            value: Some(Cow::Owned(value.into_bytes())),
        }));
    }
    Outgoing { channel: Channel::Orders, key: record.key, value: record.value, headers }
}
