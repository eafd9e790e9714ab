//! A comparison under way: what it is over, and what it has met.

use std::collections::HashSet;

use super::super::incarnations::{Gone, Incarnations};
use super::super::levels::PublishedLevels;
use super::super::published::{Event, EventId};
use super::super::reconciler::Reconciler;
use super::super::record_filter::Met;
use super::super::scope::{Positions, Scope};
use super::pieces::Misplaced;
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::Source;
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
    /// Whether dead letters were deleted from their topic, nobody knows which.
    pub(super) letters_are_gone: bool,
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

    pub(super) fn expect(&mut self, event: Event) {
        if self.over.scope.filter.looks_inside() {
            self.meant.insert(event.id.clone());
        }
        self.reconciler.expect(event);
    }

    pub(super) fn is_read(&self, source: &Source) -> bool {
        self.over.ranges.iter().any(|range| range.at == source.at && range.holds(source.offset))
    }
}
