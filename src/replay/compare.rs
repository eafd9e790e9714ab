//! The ledger against its topics: whether what was asked decides the same again, and what was published is what is stored.

use std::collections::HashSet;

use anyhow::{Result, bail};
use serde::Deserialize;
use tokio::task::block_in_place;

use super::Progress;
use super::decision_verifier::DecisionVerifier;
use super::finding::{AuditReport, Finding, PositionMismatch};
use super::incarnations::{Gone, Incarnations};
use super::join::{Join, Page};
use super::levels::PublishedLevels;
use super::placement::{OnAnotherPartition, Placement};
use super::published::{
    Event, EventId, Named, Names, Reconciler, Sums, Wrong, letter_class, letter_of, time_of,
};
use super::record_filter::Met;
use super::replay_state::{Entry, Pages};
use super::scope::{LedgerView, Positions, Scope, check_schema, published_part};
use crate::event::{
    Channel, Fault, FaultCode, Reading, Record, TraceContext, dead_letter, read_mapped_as_decided,
    read_record, read_strictly, result,
};
use crate::kafka::reader::{OffsetRange, Reader};
use crate::kafka::topics::Topics;
use crate::ledger::{
    Action, Command, CommandKey, CommandKind, Decision, Id, Item, Movement, NextOffset, Offset, OrderState,
    Reason, Seq, Source, Stamp, Step, TopicPartition,
};
use crate::mapping::{MapError, Programs};
use crate::store::{LedgerHistory, Snapshot};

/// Compares the ledger with its topics: decides the chosen records again, each at its ledger sequence, and
/// holds what was published against what is stored.
///
/// Batches may go on meanwhile: what is not published yet is left out.
///
/// # Errors
/// When something cannot be read, an open transaction hides results, records that are meant were deleted, the ledger is behind Kafka or ahead of the
/// topics' ends, or the work was stopped.
pub async fn with_topics(
    store: &dyn LedgerHistory,
    scope: Scope<'_>,
    progress: &Progress,
) -> Result<AuditReport> {
    let levels = published_levels(store, scope).await?;
    let look = scope.look(store, &scope.sources()).await?;
    let LedgerView {
        topics,
        ranges: chosen,
        running,
        committed,
        positions,
        programs,
        incarnations,
        replaced,
        mut snapshot,
    } = look;
    let partitions: Vec<TopicPartition> = chosen.iter().map(|range| range.at.clone()).collect();

    let of_these = |all: &Positions| -> Positions {
        all.iter().filter(|(at, _)| partitions.contains(at)).map(|(at, next)| (at.clone(), *next)).collect()
    };
    let mut verifier = DecisionVerifier::new(scope.since);
    for mismatch in standing(&of_these(&positions), &of_these(&committed), running) {
        verifier.report.add(Finding::Positions(mismatch));
    }
    let mut ranges = published_part(chosen, &positions, &committed);
    for topic in replaced {
        // Nothing of that topic is decided, and what is decided has its records no more.
        let partitions = topic.partitions();
        for range in &mut ranges {
            if range.at.topic == topic.topic && partitions.contains(&range.at.partition) {
                range.to = range.from;
            }
        }
        verifier.report.add(Finding::Topic(topic));
    }
    // After the committed offsets were read: all that they say was published is below the topics' ends now.
    let names = scope.topics;
    block_in_place(|| {
        topics.settle(&[&names.accepted_topic, &names.rejected_topic, &names.dead_letter_topic])
    })?;
    let since = block_in_place(|| results_since(&topics, &scope, &mut verifier.report))?;
    verifier.since = scope.since.max(since);

    let total: u64 = ranges.iter().map(OffsetRange::span).sum();
    progress.expect(total * 2 + snapshot.count().await?);
    let deleted = block_in_place(|| shortened(&topics, &names.dead_letter_topic))?;
    let over = Over {
        topics: &topics,
        scope,
        ranges: &ranges,
        positions: &positions,
        programs: &programs,
        incarnations: &incarnations,
        letters_are_gone: !deleted.is_empty(),
    };
    let mut comparison = Comparison::new(over, Sums::default());
    comparison.levels = levels;
    verifier = comparison.walk(&mut *snapshot, verifier, progress).await?;
    verifier.report.notes.extend(comparison.notes());
    let misplaced = std::mem::take(&mut comparison.misplaced);
    verifier.report.notes.extend(where_pieces_are(&mut *snapshot, misplaced).await?);
    verifier.report.unknown = comparison.met.unmet(scope.filter);
    if let Some(levels) = comparison.levels.take() {
        levels.report(running, &mut verifier.report);
    }
    if scope.filter.is_everything() {
        verifier.end(&mut *snapshot).await?;
    }
    let placements;
    (verifier.report.published, placements) = comparison.read_published(progress, verifier.since)?;
    if scope.filter.is_everything() {
        report_placements(placements, &mut verifier.report);
    }
    let (uneven, more) = comparison.reconciler.uneven();
    if uneven.is_empty() {
        return Ok(verifier.report);
    }
    if more {
        verifier.report.notes.push("so much differs that only some of it is named".to_owned());
    }
    // Once more, for the names alone.
    let mut comparison = Comparison::new(over, Names::of(uneven));
    let again = DecisionVerifier::new(verifier.since);
    comparison.walk(&mut *snapshot, again, progress).await?;
    comparison.read_published(progress, verifier.since)?;
    let Named { wrong, excused_results: excused, excused_letters } = comparison.reconciler.named();
    for (event, wrong) in wrong {
        verifier.report.add(Finding::Published { event, wrong });
    }
    if excused > 0 {
        verifier.report.notes.push(format!(
            "{excused} results of earlier topics of their names were never published, and cannot be now: their records \
             are gone"
        ));
    }
    if excused_letters > 0 {
        let gone: Vec<String> =
            deleted.iter().map(|whole| format!("{} before offset {}", whole.at, whole.from)).collect();
        verifier.report.notes.push(format!(
            "{excused_letters} dead letters are not there: their topic was shortened (retention?): {}",
            gone.join(", ")
        ));
    }
    Ok(verifier.report)
}

/// Names results that do not stand where they belong.
fn report_placements(placements: Vec<Placement>, report: &mut AuditReport) {
    for placement in placements {
        let (elsewhere, note) = placement.end();
        report.notes.extend(note);
        for OnAnotherPartition { event, at, belongs_on, .. } in elsewhere {
            let wrong = Wrong::Misplaced { at, belongs_on };
            report.add(Finding::Published { event, wrong });
        }
    }
}

/// What the levels topic says, where everything is compared. Before the ledger is looked at.
async fn published_levels(store: &dyn LedgerHistory, scope: Scope<'_>) -> Result<Option<PublishedLevels>> {
    if !scope.filter.is_everything() {
        return Ok(None);
    }
    // Another group's ledger is refused first.
    scope.check_group(store).await?;
    let topic = &scope.topics.levels_topic;
    block_in_place(|| PublishedLevels::read(&Topics::connect(scope.kafka, scope.group)?, topic)).map(Some)
}

/// Where ledger and Kafka do not agree how far a partition is done. While a verifier is `running` the ledger may be
/// ahead: what is decided is published a moment later.
#[must_use]
pub fn standing(ledger: &Positions, committed: &Positions, running: bool) -> Vec<PositionMismatch> {
    let mut all: Vec<&TopicPartition> = ledger.keys().chain(committed.keys()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
        .filter_map(|at| {
            let agrees = match (ledger.get(at), committed.get(at)) {
                (Some(ledger), Some(committed)) => ledger == committed || running && ledger > committed,
                // Nothing was there, or what was is written off.
                (None | Some(NextOffset(0)), None) => true,
                (Some(_), None) => running,
                (None, Some(_)) => false,
            };
            (!agrees).then(|| PositionMismatch {
                at: at.clone(),
                ledger: ledger.get(at).copied(),
                committed: committed.get(at).copied(),
            })
        })
        .collect()
}

/// Results older than the oldest that every partition still has cannot be compared: when the last of them was decided.
fn results_since(topics: &Topics, scope: &Scope<'_>, report: &mut AuditReport) -> Result<Option<Stamp>> {
    let mut since = None;
    for topic in [&scope.topics.accepted_topic, &scope.topics.rejected_topic] {
        for whole in topics.whole_topic(topic)? {
            if whole.from == NextOffset(0) {
                continue;
            }
            let mut reader = topics.read(std::slice::from_ref(&whole))?;
            let first = reader.pop(&whole.at)?.as_ref().and_then(time_of);
            // With nothing left, nothing older than now can be compared.
            let first = first.unwrap_or_else(|| Stamp(jiff::Timestamp::now().as_microsecond()));
            // Those published again may stand between younger ones.
            since = since.max(Some(first.plus_seconds(RETENTION_SLACK_SECONDS)));
        }
    }
    if let Some(since) = since {
        report.notes.push(format!(
            "results were deleted from the result topics (retention?): compared is what was decided from {} on",
            since.rfc3339()
        ));
    }
    Ok(since)
}

/// The partitions of a topic whose first records are deleted.
fn shortened(topics: &Topics, topic: &str) -> Result<Vec<OffsetRange>> {
    let mut whole = topics.whole_topic(topic)?;
    whole.retain(|range| range.from > NextOffset(0));
    Ok(whole)
}

/// How far results of one partition may stand out of the order of their decisions.
const RETENTION_SLACK_SECONDS: i64 = 60;

/// Remarks about ids that were named, at most: of few ids there are few, and a file may name many.
const MOST_REMARKS: usize = 100;

/// What stands where a decision was made.
enum Found {
    /// Its record, and how it reads.
    Own(Box<Record>, Result<Command, Fault>),
    /// The record of another command, there.
    Another(Source),
    /// Nothing, there.
    Nothing(Source),
    /// It is not read, or its topic is gone.
    Unread,
}

/// What a comparison is over.
#[derive(Clone, Copy)]
struct Over<'a> {
    topics: &'a Topics,
    scope: Scope<'a>,
    ranges: &'a [OffsetRange],
    positions: &'a Positions,
    programs: &'a Programs,
    incarnations: &'a Incarnations,
    /// Whether dead letters were deleted from their topic, nobody knows which.
    letters_are_gone: bool,
}

/// A comparison with the topics under way.
struct Comparison<'a, R> {
    over: Over<'a>,
    /// Decisions met whose records went with an earlier topic.
    gone: Gone,
    reconciler: R,
    /// The events that are meant, where records are chosen by what they say.
    meant: HashSet<EventId>,
    /// What of that was met.
    met: Met,
    /// What a person should know of the ids that were named.
    remarks: Vec<String>,
    /// Lines that asked for pieces which the order does not have there.
    misplaced: Vec<Misplaced>,
    /// What the levels topic says, where it is looked at.
    levels: Option<PublishedLevels>,
    /// Records that their mapping gives nothing for.
    ignored: u64,
}

/// A line of a return or a confirmation that asks for an item of which its order has nothing.
struct Misplaced {
    key: CommandKey,
    order_id: Id,
    item: Item,
}

/// Where orders have the pieces that were looked for at another location.
async fn where_pieces_are(snapshot: &mut dyn Snapshot, misplaced: Vec<Misplaced>) -> Result<Vec<String>> {
    let ids: HashSet<&Id> = misplaced.iter().map(|line| &line.order_id).collect();
    let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
    let said = misplaced.iter().filter_map(|Misplaced { key, order_id, item }| {
        let created = known.get(&CommandKey { id: order_id.clone(), kind: CommandKind::OrderCreated })?;
        let taken = OrderState::of(created).ok()?.lines;
        let elsewhere = taken.iter().filter(|line| line.item.sku == item.sku && line.item != *item);
        let elsewhere: Vec<String> =
            elsewhere.map(|line| format!("{} of {}", line.deducted, at_location(&line.item))).collect();
        (!elsewhere.is_empty()).then(|| {
            format!(
                "{key} names {}, of which order {order_id} took nothing; it took {}",
                at_location(item),
                elsewhere.join(", ")
            )
        })
    });
    Ok(said.collect())
}

/// An item, with the name of the default location where it is there.
fn at_location(item: &Item) -> String {
    if item.location.is_some() { item.to_string() } else { format!("{item} at the default location") }
}

impl<'a, R: Reconciler> Comparison<'a, R> {
    fn new(over: Over<'a>, reconciler: R) -> Self {
        Self {
            over,
            gone: Gone::default(),
            reconciler,
            meant: HashSet::new(),
            met: Met::default(),
            remarks: Vec::new(),
            misplaced: Vec::new(),
            levels: None,
            ignored: 0,
        }
    }

    /// Walks the ledger and the topics, notes what should have been published, and judges.
    async fn walk(
        &mut self,
        snapshot: &mut dyn Snapshot,
        mut verifier: DecisionVerifier,
        progress: &Progress,
    ) -> Result<DecisionVerifier> {
        let reader = block_in_place(|| self.over.topics.read(self.over.ranges))?;
        let mut join =
            Join::new(Pages::after(snapshot, Seq::START), reader, self.over.ranges, self.over.incarnations);
        while let Some(Page { decided, mut others }) = join.next().await? {
            let done = decided.len() + others.len();
            let mut steps = Vec::with_capacity(decided.len());
            let mut meant = HashSet::new();
            for (entry, record) in decided {
                let read = record.map(|record| {
                    let mapping = self.over.programs.reading(&record.source);
                    (read_mapped_as_decided(&record, &entry.decision, mapping).as_before(), record)
                });
                if let Some((Err(_), record)) = &read {
                    check_schema(record)?;
                }
                let found = match read {
                    // It is of some other topic: that record ended, or did not, by itself.
                    Some((Ok(command), record)) if command.key != entry.decision.key => {
                        let found = Found::Another(record.source.clone());
                        others.push(record);
                        found
                    }
                    Some((command, record)) => Found::Own(Box::new(record), command),
                    None => join
                        .source_read(&entry)
                        .map_or(Found::Unread, |source| Found::Nothing(source.clone())),
                };
                steps.push(self.step(&mut verifier, entry, found, &mut meant));
            }
            let known = verifier.known_to(join.pages().snapshot(), &steps).await?;
            verifier = block_in_place(|| verifier.go_on(&steps, &known, |seq| meant.contains(&seq)));
            self.others(join.pages().snapshot(), &mut verifier, others).await?;
            progress.add(done)?;
        }
        Ok(verifier)
    }

    /// A decision with its record: what it should have published, and what is decided again.
    fn step(
        &mut self,
        verifier: &mut DecisionVerifier,
        entry: Entry,
        found: Found,
        meant: &mut HashSet<Seq>,
    ) -> Step {
        let Entry { decision, movements } = entry;
        self.meet(&decision, &movements, &found);
        let is_of_last = self.over.incarnations.is_of_last(&decision);
        verifier.check_order(&decision, is_of_last);
        if let Some(levels) = &mut self.levels {
            for movement in &movements {
                levels.meet(movement);
            }
        }
        if is_of_last {
            self.check_place(verifier, &decision);
        } else {
            self.of_an_earlier_topic(verifier, &decision);
        }
        let wanted = match &found {
            Found::Unread => false,
            Found::Own(_, Ok(command)) => self.over.scope.filter.wants_command(command),
            Found::Own(_, Err(_)) | Found::Another(_) | Found::Nothing(_) => {
                !self.over.scope.filter.looks_inside()
            }
        };
        let filter = self.over.scope.filter;
        if decision.source.is_none()
            && decision.key.kind != CommandKind::Adjustment
            && verifier.counts(&decision)
            && (filter.is_everything() || filter.ids.contains(&decision.key.id))
        {
            verifier.report.add(Finding::OfNoRecord { key: decision.key.clone() });
        }
        let counts = wanted && verifier.counts(&decision);
        verifier.report.decisions += u64::from(counts);
        // An operator's own, and those whose record is deleted, are judged by what they say themselves.
        if counts || self.over.scope.filter.is_everything() {
            meant.insert(decision.seq);
        }
        if counts {
            let key = || decision.key.clone();
            let finding = match &found {
                Found::Own(_, Ok(_)) | Found::Unread => None,
                Found::Own(_, Err(fault)) => Some(Finding::NoCommand { key: key(), fault: fault.clone() }),
                Found::Another(record) => {
                    Some(Finding::AnotherCommand { key: key(), record: record.clone() })
                }
                Found::Nothing(record) => Some(Finding::NoRecord { key: key(), record: record.clone() }),
            };
            if let Some(finding) = finding {
                verifier.report.add(finding);
            }
            let event = match &found {
                Found::Own(record, Ok(_)) => {
                    Event::expected(&result(&decision, record.key.as_deref(), record.trace()))
                }
                Found::Own(_, Err(_)) | Found::Unread => None,
                // It was published all the same.
                Found::Another(_) | Found::Nothing(_) => {
                    Event::expected(&result(&decision, None, TraceContext::NONE))
                        .map(Event::of_a_record_that_is_gone)
                }
            };
            if let Some(event) = event {
                self.expect(event);
            }
        }
        let command = if let Found::Own(_, Ok(command)) = found { Some(command) } else { None };
        Step { decision, movements, command }
    }

    /// Notes which of the ids and SKUs that were named a decision is about, be it chosen or not.
    fn meet(&mut self, decision: &Decision, movements: &[Movement], found: &Found) {
        let filter = self.over.scope.filter;
        if !filter.looks_inside() {
            return;
        }
        self.met.id(filter, &decision.key.id);
        for movement in movements {
            self.met.sku(filter, &movement.item.sku);
        }
        if let Found::Own(_, Ok(command)) = found {
            self.met.command(filter, command);
            if filter.wants_command(command) {
                self.look_for_pieces(decision, command);
            }
        } else if !filter.ids.is_empty()
            && let Some(order_id) = decision.follows()
        {
            self.met.id(filter, &order_id);
        }
    }

    /// A return or a confirmation may be rejected since it names no location, or another one than its order did.
    fn look_for_pieces(&mut self, decision: &Decision, command: &Command) {
        if decision.accepted
            || !matches!(decision.key.kind, CommandKind::OrderReturned | CommandKind::OrderConfirmed)
        {
            return;
        }
        let Some(order_id) = command.follows() else { return };
        for reason in decision.reasons().unwrap_or_default() {
            let (Reason::ReturnExceedsDeducted { sku, location, left: 0, .. }
            | Reason::LimitExceeded { sku, location, limit: 0, .. }) = reason
            else {
                continue;
            };
            if self.misplaced.len() < MOST_REMARKS {
                let (key, order_id) = (decision.key.clone(), order_id.clone());
                self.misplaced.push(Misplaced { key, order_id, item: Item { sku, location } });
            }
        }
    }

    /// What is to be said beside the findings.
    fn notes(&mut self) -> Vec<String> {
        let mut notes: Vec<String> = self.gone.notes().collect();
        notes.append(&mut self.remarks);
        if self.ignored > 0 {
            notes
                .push(format!("{} records were ignored: their mapping gives nothing for them", self.ignored));
        }
        notes
    }

    /// Adds a remark, while there is room.
    fn remark(&mut self, remark: impl FnOnce() -> String) {
        if self.remarks.len() < MOST_REMARKS {
            self.remarks.push(remark());
        }
    }

    /// What is decided lies below the partition's position.
    fn check_place(&mut self, verifier: &mut DecisionVerifier, decision: &Decision) {
        let Some(source) = &decision.source else { return };
        if let Some(position) = self.over.positions.get(&source.at)
            && !position.covers(source.offset)
        {
            verifier.report.add(Finding::BeyondPosition {
                key: decision.key.clone(),
                record: source.clone(),
                position: *position,
            });
        }
    }

    /// A decision whose record is gone with its topic. It was published all the same, unless the topic was deleted first.
    fn of_an_earlier_topic(&mut self, verifier: &DecisionVerifier, decision: &Decision) {
        self.gone.add(decision);
        // Results are looked at by the source they name, which two topics share.
        let is_looked_at = decision.source.as_ref().is_some_and(|source| self.is_read(source))
            && verifier.counts(decision)
            && !self.over.scope.filter.looks_inside();
        if is_looked_at && let Some(event) = Event::expected(&result(decision, None, TraceContext::NONE)) {
            self.reconciler.expect_excused(event.of_a_record_that_is_gone());
        }
    }

    fn expect(&mut self, event: Event) {
        if self.over.scope.filter.looks_inside() {
            self.meant.insert(event.id.clone());
        }
        self.reconciler.expect(event);
    }

    /// Records that made no decision: each must have ended as the contract says.
    async fn others(
        &mut self,
        snapshot: &mut dyn Snapshot,
        verifier: &mut DecisionVerifier,
        records: Vec<Record>,
    ) -> Result<()> {
        let mut read_records: Vec<(Record, Result<Command, Fault>)> = Vec::with_capacity(records.len());
        for record in records {
            let command = match read_record(&record, self.over.programs.reading(&record.source)) {
                Reading::Command(command) => Ok(command),
                Reading::Faulty(fault) => Err(fault),
                Reading::Ignored => {
                    self.ignored += 1;
                    continue;
                }
                Reading::TooSlow => {
                    bail!(
                        "{}: {}, so nobody can say how it should have ended",
                        record.source,
                        MapError::TooSlow
                    )
                }
            };
            read_records.push((record, command));
        }
        let ids: HashSet<&Id> =
            read_records.iter().filter_map(|(_, command)| Some(&command.as_ref().ok()?.key.id)).collect();
        let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
        for (record, command) in read_records {
            match &command {
                Ok(command) => self.met.command(self.over.scope.filter, command),
                Err(fault) => self.meet_faulty(&record, fault),
            }
            let wanted = match &command {
                Ok(command) => self.over.scope.filter.wants_command(command),
                Err(_) => !self.over.scope.filter.looks_inside(),
            };
            if !wanted {
                continue;
            }
            match command {
                Err(fault) => {
                    self.allow_letter(&record, Some(fault.code));
                    self.expect_letter(verifier, record, &fault, "read");
                }
                Ok(command) => match known.get(&command.key) {
                    Some(first) if first.source.as_ref() == Some(&record.source) => {
                        // Decided of an earlier topic's record at the same offset: taken for that one, and republished.
                        if !self.over.incarnations.is_of_last(first)
                            && let Some(event) =
                                Event::expected(&result(first, record.key.as_deref(), record.trace()))
                        {
                            // The first time it was published with that one's key.
                            self.expect(event.of_a_record_that_is_gone());
                        }
                    }
                    // Refused for its key, and not decided by an earlier version.
                    _ if let Err(fault) = record.check_key() => {
                        self.expect_letter(verifier, record, &fault, "read");
                    }
                    Some(first) if command.is_of(first) => {
                        verifier.report.absorbed += 1;
                        self.allow_letter(&record, None);
                    }
                    Some(first) => {
                        self.allow_letter(&record, None);
                        let fault = Fault::order_conflict(first.source.as_ref());
                        self.expect_letter(verifier, record, &fault, "decide");
                    }
                    // An earlier version read no command from it.
                    None if !self.is_mapped(&record)
                        && let Err(fault) = read_strictly(&record) =>
                    {
                        self.expect_letter(verifier, record, &fault, "read");
                    }
                    None if command.action == Action::Expire => verifier.report.absorbed += 1,
                    None => {
                        verifier.report.add(Finding::Undecided { key: command.key, record: record.source });
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether a mapping read a record: no earlier version did it otherwise.
    fn is_mapped(&self, record: &Record) -> bool {
        self.over.programs.reading(&record.source).is_some()
    }

    /// A record that is no command is about an id where it is keyed by it, as far as anybody can say.
    fn meet_faulty(&mut self, record: &Record, fault: &Fault) {
        let filter = self.over.scope.filter;
        let key =
            record.key.as_deref().and_then(|key| str::from_utf8(key).ok()).and_then(|key| Id::new(key).ok());
        if let Some(id) = key.filter(|id| filter.ids.contains(id)) {
            self.met.id(filter, &id);
            self.remark(|| format!("record {}, whose key is {id}, is a dead letter: {fault}", record.source));
        }
    }

    /// What is a command now, or a dead letter of this class, may have been another dead letter of an earlier version: nobody
    /// can tell which version met it.
    fn allow_letter(&mut self, record: &Record, now: Option<FaultCode>) {
        if !self.is_mapped(record)
            && let Err(fault) = read_strictly(record)
            && now != Some(fault.code)
            && let Some(event) = Event::expected(&dead_letter(record.clone(), &fault, "read"))
        {
            self.reconciler.allow(event);
        }
    }

    fn expect_letter(
        &mut self,
        verifier: &mut DecisionVerifier,
        record: Record,
        fault: &Fault,
        stage: &'static str,
    ) {
        verifier.report.dead_letters += 1;
        if let Some(event) = Event::expected(&dead_letter(record, fault, stage)) {
            if self.over.scope.filter.looks_inside() {
                self.meant.insert(event.id.clone());
            }
            if self.over.letters_are_gone {
                self.reconciler.expect_excused(event);
            } else {
                self.reconciler.expect(event);
            }
        }
    }

    /// Reads back all that was published of the ranges; how much that was, and where it stands.
    fn read_published(&mut self, progress: &Progress, since: Option<Stamp>) -> Result<(u64, Vec<Placement>)> {
        block_in_place(|| {
            let names = self.over.scope.topics;
            let (mut published, mut placements) = (0, Vec::new());
            for (topic, channel) in [
                (&names.accepted_topic, Channel::Accepted),
                (&names.rejected_topic, Channel::Rejected),
                (&names.dead_letter_topic, Channel::DeadLetter),
            ] {
                let whole = self.over.topics.whole_topic(topic)?;
                let mut reader: Reader = self.over.topics.read(&whole)?;
                let mut placement = Placement::new(whole.len());
                while let Some(record) = reader.take_next()? {
                    if self.is_published_of_these(channel, &record, since)
                        && let Some(event) = Event::found(channel, &record)
                        && (self.meant.contains(&event.id) || !self.over.scope.filter.looks_inside())
                        && (event.is_ours() || self.over.scope.filter.is_everything())
                    {
                        published += 1;
                        let of = if channel == Channel::DeadLetter {
                            letter_of(&record)
                        } else {
                            published_source(&record)
                        };
                        placement.see(&record, &event.id, of);
                        self.reconciler.find(event, &record.source);
                    }
                    progress.add(1)?;
                }
                placements.push(placement);
            }
            Ok((published, placements))
        })
    }

    /// Whether an event is of a record of the ranges, and young enough.
    fn is_published_of_these(&self, channel: Channel, event: &Record, since: Option<Stamp>) -> bool {
        if channel == Channel::DeadLetter {
            // What was decided and is lost is a finding of its own.
            return letter_class(event) != Some(FaultCode::UndecidedBelowPosition.name())
                && letter_of(event).is_some_and(|source| self.is_read(&source));
        }
        since.is_none_or(|since| time_of(event).is_none_or(|time| time >= since))
            && published_source(event).is_none_or(|source| self.is_read(&source))
    }

    fn is_read(&self, source: &Source) -> bool {
        self.over.ranges.iter().any(|range| range.at == source.at && range.holds(source.offset))
    }
}

/// The record that a result says it is of.
fn published_source(event: &Record) -> Option<Source> {
    #[derive(Deserialize)]
    struct Published<'a> {
        #[serde(borrow)]
        source: At<'a>,
    }
    #[derive(Deserialize)]
    struct At<'a> {
        #[serde(borrow)]
        topic: std::borrow::Cow<'a, str>,
        partition: i32,
        offset: i64,
    }
    let Published { source } = serde_json::from_slice(event.value.as_deref()?).ok()?;
    Some(Source { at: TopicPartition::new(&*source.topic, source.partition), offset: Offset(source.offset) })
}
