//! A ledger, made again from the topics.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::task::block_in_place;

use super::Progress;
use super::incarnations::{Incarnations, check_same};
use super::join::Join;
use super::replay_state::{Entry, PAGE, Pages};
use super::rows::{RowComparison, compare_rows};
use super::scope::{Scope, check_fits, check_schema, too_slow};
use crate::event::{Reading, Record, read_mapped_as_decided, read_record};
use crate::kafka::reader::{OffsetRange, Reader};
use crate::kafka::topics::Topics;
use crate::ledger::{
    Action, Command, Decision, HeldProgram, NextOffset, Outcome, Request, Seq, Sequenced, Stamp, TopicId,
    TopicPartition, reconstruct,
};
use crate::mapping::{Mappings, Programs};
use crate::store::{Advance, CommandBatch, LedgerAdmin, LedgerHistory, Position, Snapshot, Store};

/// What was made again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RebuildReport {
    /// Decisions the new ledger had from before: the rebuild was interrupted, and went on.
    pub found: u64,
    /// Decisions made again now.
    pub restored: u64,
    /// Rows compared with the old ledger, of all tables.
    pub compared: u64,
    /// Where the two differ; the first hundred.
    pub differences: Vec<String>,
    /// Whether it was done, or only looked at.
    pub executed: bool,
}

/// Makes `into` the ledger that the topics describe.
///
/// Following the old ledger, each record is decided at the ledger sequence and time it was decided before, and the two are
/// compared to the row in the end. Without one, records are decided in the order of their timestamps, at their
/// timestamps: each partition's in its own order, so that every rule holds; but which of two orders came first, where
/// they were on different partitions, may come out otherwise than it did. They are read by these `mappings` then.
///
/// # Errors
/// When records were deleted, `into` holds something else, or something cannot be read or written.
pub async fn rebuild(
    old: Option<&dyn LedgerHistory>,
    into: &dyn Store,
    scope: Scope<'_>,
    mappings: &Mappings,
    execute: bool,
    progress: &Progress,
) -> Result<RebuildReport> {
    if let Some(old) = old {
        scope.check_group(old).await?;
    }
    let topics = block_in_place(|| scope.connect())?;
    let begun = Begun::of(into).await?;
    let mut report = RebuildReport { found: begun.decisions, executed: execute, ..RebuildReport::default() };
    let Plan { mut old, ranges, incarnations, held, end } =
        Plan::make(old, into, &topics, scope, mappings, &begun).await?;
    let topic_ids = topic_ids(&topics, scope, &incarnations, end.keys())?;
    progress.expect(ranges.iter().map(OffsetRange::span).sum());
    if !execute {
        report.restored = ranges.iter().map(OffsetRange::span).sum();
        return Ok(report);
    }

    into.hold_programs(&held).await?;
    let Begun { last, positions, .. } = begun;
    let mut restorer = Restorer { into, positions, programs: Programs::of(&held)?, restored: 0 };
    match &mut old {
        Some(old) => restorer.follow(&mut **old, &topics, &ranges, &incarnations, last, progress).await?,
        None => restorer.by_time(scope, &topics, &ranges, last, progress).await?,
    }
    report.restored = restorer.restored;
    state_positions(into, end, &restorer.positions, &topic_ids).await?;
    if let Some(old) = &mut old {
        let RowComparison { compared, differences } =
            compare_rows(&mut **old, &mut *into.snapshot().await?).await?;
        report.compared = compared;
        report.differences = differences;
    }
    Ok(report)
}

/// What the new ledger has from before: nothing, or what a rebuild left that was interrupted.
struct Begun {
    decisions: u64,
    /// The last ledger sequence of them.
    last: Option<Seq>,
    positions: HashMap<TopicPartition, NextOffset>,
}

impl Begun {
    async fn of(into: &dyn Store) -> Result<Self> {
        // A rebuild claims nothing: what has a group has a verifier, or had one, and is decided in by it.
        if let Some(group) = into.group().await? {
            bail!(
                "the ledger that --into names is in use, by consumer group {group}: name an empty database"
            );
        }
        let mut found = into.snapshot().await?;
        let last = found.last_seq().await?;
        let decisions = found.count().await?;
        // Without decisions where it was interrupted after dead letters alone.
        let positions = found.positions().await?;
        Ok(Self { decisions, last, positions })
    }
}

/// What is read to make the new ledger.
struct Plan {
    /// The old ledger, where it is followed.
    old: Option<Box<dyn Snapshot>>,
    /// The records that the new one has not.
    ranges: Vec<OffsetRange>,
    /// Which topics the old one's decisions are of.
    incarnations: Incarnations,
    /// What reads which record.
    held: Vec<HeldProgram>,
    /// How far each partition is done then.
    end: HashMap<TopicPartition, NextOffset>,
}

impl Plan {
    async fn make(
        old: Option<&dyn LedgerHistory>,
        into: &dyn Store,
        topics: &Topics,
        scope: Scope<'_>,
        mappings: &Mappings,
        begun: &Begun,
    ) -> Result<Self> {
        let mut partitions = Vec::new();
        for source in scope.sources() {
            partitions.extend(block_in_place(|| topics.partitions(source))?);
        }
        let committed = block_in_place(|| topics.committed(&partitions))?;
        // One look for all of it, after the offsets and before the topics' ends: a verifier may go on meanwhile.
        let mut old = match old {
            Some(old) => Some(old.snapshot().await?),
            None => None,
        };
        let mut ranges = Vec::new();
        for at in &partitions {
            let whole = block_in_place(|| topics.whole(at))?;
            check_whole(topics, &whole)?;
            ranges.push(whole);
        }
        let (incarnations, held, end) = if let Some(old) = &mut old {
            let end = old.positions().await?;
            let incarnations = Incarnations::of(old.incarnations().await?);
            let held = old.programs().await?;
            check_same(&block_in_place(|| incarnations.replaced(topics, &scope.sources(), &end))?)?;
            block_in_place(|| check_fits(topics, &ranges, &committed, &end))?;
            check_same_beginning(&mut **old, into, begun.last).await?;
            // What is not decided yet is for the verifier to decide.
            for range in &mut ranges {
                range.to = range.to.min(end.get(&range.at).copied().unwrap_or(NextOffset(0)));
            }
            (incarnations, held, end)
        } else {
            let end = ranges.iter().map(|range| (range.at.clone(), range.to)).collect();
            // Nobody knows what read which record: all by what is given now.
            (Incarnations::default(), held_by(mappings, &partitions), end)
        };
        for range in &mut ranges {
            range.from = begun.positions.get(&range.at).copied().unwrap_or(range.from).min(range.to);
        }
        Ok(Self { old, ranges, incarnations, held, end })
    }
}

/// States how far each partition is done: records at the end that made no decision, and marks of transactions, are done
/// too.
async fn state_positions(
    into: &dyn Store,
    end: HashMap<TopicPartition, NextOffset>,
    restored: &HashMap<TopicPartition, NextOffset>,
    topic_ids: &HashMap<TopicPartition, TopicId>,
) -> Result<()> {
    for (at, next) in end {
        let here = restored.get(&at).copied().unwrap_or(next);
        let was = into.positions(std::slice::from_ref(&at)).await?.remove(&at);
        let (published, known) = was.clone().map_or((None, None), |was| (was.published, was.topic_id));
        let topic_id = known.or_else(|| topic_ids.get(&at).cloned());
        let now = Position { next: next.max(here), published, topic_id };
        into.set_position(&at, was.as_ref(), &now).await?;
    }
    Ok(())
}

/// As if these had read all records of their topics.
fn held_by(mappings: &Mappings, partitions: &[TopicPartition]) -> Vec<HeldProgram> {
    let held = partitions.iter().filter_map(|at| {
        let program = mappings.of_topic(&at.topic)?.text().to_owned();
        Some(HeldProgram { at: at.clone(), from: NextOffset(0), program: Some(program) })
    });
    held.collect()
}

/// Which topic each partition's decisions are of: as the old ledger has it, else as Kafka says.
fn topic_ids<'a>(
    topics: &Topics,
    scope: Scope<'_>,
    incarnations: &Incarnations,
    of: impl Iterator<Item = &'a TopicPartition>,
) -> Result<HashMap<TopicPartition, TopicId>> {
    let names = scope.sources();
    let described = block_in_place(|| topics.describe(&names))?;
    let now = |at: &TopicPartition| {
        let index = names.iter().position(|name| **name == *at.topic)?;
        described[index].id()
    };
    let ids = of.filter_map(|at| {
        let id = incarnations.topic_id(at).or_else(|| now(at))?;
        Some((at.clone(), id.clone()))
    });
    Ok(ids.collect())
}

/// Refuses a partition whose first records are gone.
fn check_whole(topics: &Topics, whole: &OffsetRange) -> Result<()> {
    if whole.from == NextOffset(0) {
        return Ok(());
    }
    let since = block_in_place(|| topics.first_timestamp(whole))?
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(String::new, |since| format!(", of {since}"));
    bail!(
        "{}: the records before offset {} were deleted (retention?); the first that is left is {}{since}. A ledger \
         cannot be made of what is left: restore a backup of the database instead, and start the verifier on it",
        whole.at,
        whole.from,
        whole.from
    );
}

/// Refuses to go on with a ledger that is not the beginning of the old one.
async fn check_same_beginning(
    old: &mut dyn Snapshot,
    into: &dyn LedgerHistory,
    last: Option<Seq>,
) -> Result<()> {
    let Some(last) = last else { return Ok(()) };
    let before = Seq(last.0 - 1);
    let here = into.snapshot().await?.decisions_after(before, 1).await?;
    let there = old.decisions_after(before, 1).await?;
    if here != there {
        bail!(
            "the ledger that --into names is not empty, and is not the beginning of this one: name an empty database"
        );
    }
    Ok(())
}

/// Writes the new ledger.
struct Restorer<'a> {
    into: &'a dyn LedgerAdmin,
    positions: HashMap<TopicPartition, NextOffset>,
    programs: Programs,
    restored: u64,
}

/// Commands with the ledger sequences of their decisions, and how far they take each partition.
#[derive(Default)]
struct Page {
    requests: Vec<Request>,
    sequences: Vec<Sequenced>,
    ends: BTreeMap<TopicPartition, NextOffset>,
}

impl Page {
    fn pass(&mut self, record: &Record) {
        self.ends.insert(record.source.at.clone(), record.source.offset.next());
    }
}

impl Restorer<'_> {
    /// At the ledger sequences of the old ledger.
    async fn follow(
        &mut self,
        old: &mut dyn Snapshot,
        topics: &Topics,
        ranges: &[OffsetRange],
        incarnations: &Incarnations,
        last: Option<Seq>,
        progress: &Progress,
    ) -> Result<()> {
        let reader = block_in_place(|| topics.read(ranges))?;
        let pages = Pages::after(old, last.unwrap_or(Seq::START));
        let mut join = Join::new(pages, reader, ranges, incarnations);
        while let Some(read) = join.next().await? {
            let mut page = Page::default();
            let done = read.decided.len() + read.others.len();
            for record in &read.others {
                page.pass(record);
            }
            for (entry, record) in read.decided {
                if let Some(record) = &record {
                    page.pass(record);
                }
                let decision = &entry.decision;
                page.sequences.push(Sequenced { seq: decision.seq, at: decision.decided_at });
                if let (Some(source), false) = (&decision.source, incarnations.is_of_last(decision)) {
                    bail!(
                        "{} was decided from {source}, which was in an earlier topic of this name: its record is gone. A \
                         ledger cannot be made of what is left: restore a backup of the database instead",
                        decision.key
                    );
                }
                page.requests.push(request(&entry, record, &self.programs)?);
            }
            self.write(page).await?;
            progress.add(done)?;
        }
        Ok(())
    }

    /// In the order of the records' timestamps.
    async fn by_time(
        &mut self,
        scope: Scope<'_>,
        topics: &Topics,
        ranges: &[OffsetRange],
        last: Option<Seq>,
        progress: &Progress,
    ) -> Result<()> {
        let mut reader = block_in_place(|| topics.read(ranges))?;
        let mut next = Sequenced { seq: Seq(last.unwrap_or(Seq::START).0 + 1), at: Stamp(0) };
        loop {
            let mut page = Page::default();
            let mut read = 0;
            block_in_place(|| {
                while read < PAGE
                    && let Some(record) = earliest(&mut reader, ranges)?
                {
                    read += 1;
                    page.pass(&record);
                    next.at = next.at.max(Stamp(record.timestamp_ms.unwrap_or(0).saturating_mul(1_000)));
                    scope.check_readable(&record)?;
                    match read_record(&record, self.programs.reading(&record.source)) {
                        Reading::Command(command) if record.check_key().is_ok() => {
                            page.requests.push(Request { command, source: Some(record.source) });
                            page.sequences.push(next);
                            next.seq.0 += 1;
                        }
                        // Dead letters, one of them for its key alone; and what asks for nothing.
                        Reading::Command(_) | Reading::Faulty(_) | Reading::Ignored => {}
                        Reading::TooSlow => return Err(too_slow(&record)),
                    }
                }
                anyhow::Ok(())
            })?;
            if read == 0 {
                return Ok(());
            }
            self.write(page).await?;
            progress.add(read)?;
        }
    }

    async fn write(&mut self, page: Page) -> Result<()> {
        let advances = page.ends.into_iter().map(|(at, next)| {
            let expected = self.positions.insert(at.clone(), next).unwrap_or(NextOffset(0));
            Advance { at, expected, next, applied: Some(expected), published: None }
        });
        let batch = CommandBatch { advances: advances.collect(), requests: page.requests, epoch: None };
        let applied =
            self.into.restore(&batch, &page.sequences).await.context("cannot write the new ledger")?;
        let decided = applied.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Decided(_)));
        self.restored += decided.count() as u64;
        Ok(())
    }
}

/// The command of a decision: of its record, or, where an operator gave it, of what the decision says.
fn request(entry: &Entry, record: Option<Record>, programs: &Programs) -> Result<Request> {
    let Decision { key, source, digest, .. } = &*entry.decision;
    let command = match (record, source) {
        (Some(record), _) => {
            let mapping = programs.reading(&record.source);
            match read_mapped_as_decided(&record, &entry.decision, mapping).as_before() {
                Ok(command) => command,
                Err(fault) => {
                    check_schema(&record)?;
                    let why =
                        format!("{key} was decided, but its record {} is no command now", record.source);
                    return Err(anyhow::Error::new(fault).context(why));
                }
            }
        }
        (None, Some(source)) => {
            bail!("{key} was decided from {source}, where the topic has no record any more")
        }
        (None, None) => {
            let action = if entry.decision.accepted {
                // An operator's command is about a level, so there is no hold and nothing rejected.
                reconstruct(&entry.decision, None, |_| 0)
            } else {
                entry.decision.reasons().ok().map(Action::Refuse)
            };
            let action = action.with_context(|| format!("the decision of {key} is not readable"))?;
            Command { key: key.clone(), digest: *digest, action, refused_as: None }
        }
    };
    Ok(Request { command, source: source.clone() })
}

/// The next record by timestamp, of all partitions.
fn earliest(reader: &mut Reader, ranges: &[OffsetRange]) -> Result<Option<Record>> {
    let mut first: Option<(i64, &TopicPartition)> = None;
    for range in ranges {
        if let Some(record) = reader.peek(&range.at)? {
            let time = record.timestamp_ms.unwrap_or(0);
            if first.is_none_or(|(earliest, _)| time < earliest) {
                first = Some((time, &range.at));
            }
        }
    }
    first.map_or(Ok(None), |(_, at)| reader.pop(at))
}
