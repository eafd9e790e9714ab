//! A comparison under way: what it is over, and what it has met.

use std::collections::HashSet;

use super::super::finding::AuditReport;
use super::super::incarnations::{Gone, Incarnations};
use super::super::levels::PublishedLevels;
use super::super::published::{Event, EventId};
use super::super::reconciler::Reconciler;
use super::super::record_filter::Met;
use super::super::scope::{Positions, Scope};
use super::pieces::Misplaced;
use super::retained::{Kept, Retained};
use crate::event::{Record, TraceContext, result};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{Decision, Source};
use crate::mapping::Programs;

/// Remarks about ids that were named, at most: of few ids there are few, and a file may name many.
pub(super) const MOST_REMARKS: usize = 100;

/// What a comparison is over.
#[derive(Clone, Copy)]
pub(super) struct Over<'a> {
    pub(super) topics: &'a Topics,
    pub(super) scope: Scope<'a>,
    pub(super) ranges: &'a [OffsetRange],
    pub(super) positions: &'a Positions,
    pub(super) programs: &'a Programs,
    pub(super) incarnations: &'a Incarnations,
    /// From when on results are there still.
    pub(super) retained: &'a Retained,
    /// Whether dead letters were deleted from their topic, nobody knows which.
    pub(super) letters_are_gone: bool,
}

/// The record that a result is of.
#[derive(Clone, Copy)]
pub(super) enum ResultOf<'r> {
    /// This one.
    Record(&'r Record),
    /// One that is gone. Its result was published all the same, with a key and headers that nobody knows.
    GoneRecord,
    /// One that went with an earlier topic. The same, unless the topic was deleted first.
    EarlierTopic,
}

/// A comparison with the topics under way.
pub(super) struct Comparison<'a, R> {
    pub(super) over: Over<'a>,
    /// Decisions met whose records went with an earlier topic.
    pub(super) gone: Gone,
    pub(super) reconciler: R,
    /// The events that are meant, where records are chosen by what they say.
    pub(super) meant: HashSet<EventId>,
    /// What of that was met.
    pub(super) met: Met,
    /// What a person should know of the ids that were named.
    pub(super) remarks: Vec<String>,
    /// Lines that asked for pieces which the order does not have there.
    pub(super) misplaced: Vec<Misplaced>,
    /// What the levels topic says, where it is looked at.
    pub(super) levels: Option<PublishedLevels>,
    /// Records that their mapping gives nothing for.
    pub(super) ignored: u64,
}

impl<'a, R: Reconciler> Comparison<'a, R> {
    pub(super) fn new(over: Over<'a>, reconciler: R) -> Self {
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

    /// What is to be said beside the findings.
    pub(super) fn notes(&mut self) -> Vec<String> {
        let mut notes: Vec<String> = self.gone.notes().collect();
        notes.append(&mut self.remarks);
        if self.ignored > 0 {
            notes
                .push(format!("{} records were ignored: their mapping gives nothing for them", self.ignored));
        }
        notes
    }

    /// Adds a remark, while there is room.
    pub(super) fn remark(&mut self, remark: impl FnOnce() -> String) {
        if self.remarks.len() < MOST_REMARKS {
            self.remarks.push(remark());
        }
    }

    /// This decision's result should be there, as far as nothing as old is deleted.
    pub(super) fn expect_result(&mut self, report: &mut AuditReport, decision: &Decision, of: ResultOf<'_>) {
        let (outgoing, is_known) = match of {
            ResultOf::Record(record) => (result(decision, record.key.as_deref(), record.trace()), true),
            ResultOf::GoneRecord | ResultOf::EarlierTopic => {
                (result(decision, None, TraceContext::NONE), false)
            }
        };
        let Some(event) = Event::expected(&outgoing) else { return };
        let event = if is_known { event } else { event.of_a_record_that_is_gone() };
        let key = outgoing.key.as_deref().filter(|_| is_known);
        if self.over.scope.filter.looks_inside() {
            self.meant.insert(event.id.clone());
        }
        let kept = self.over.retained.keeps(outgoing.channel, key, decision.decided_at);
        let looked_for = if kept == Kept::No { &mut report.unretained } else { &mut report.results };
        *looked_for += 1;
        match (kept, of) {
            (Kept::No, _) => self.reconciler.expect_unretained(event),
            (Kept::Yes, ResultOf::Record(_) | ResultOf::GoneRecord) => self.reconciler.expect(event),
            (Kept::Yes, ResultOf::EarlierTopic) | (Kept::Perhaps, _) => {
                self.reconciler.expect_excused(event);
            }
        }
    }

    pub(super) fn is_read(&self, source: &Source) -> bool {
        self.over.ranges.iter().any(|range| range.at == source.at && range.holds(source.offset))
    }
}
