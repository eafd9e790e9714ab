//! The ledger against its topics: whether what was asked decides the same again, and what was published is what is stored.
//!
//! `walk` goes over decisions and their records, `others` over the records that made none; both say what should have
//! been published, and `read_back` reads what was. What is under way is in `comparison`.

mod comparison;
mod others;
mod pieces;
mod read_back;
mod retained;
mod standing;
mod walk;

use anyhow::Result;
use tokio::task::block_in_place;

pub use self::standing::standing;

use super::Progress;
use super::decision_verifier::DecisionVerifier;
use super::finding::{AuditReport, Finding};
use super::levels::PublishedLevels;
use super::placement::{OnAnotherPartition, Placement};
use super::reconciler::{Named, Names, Sums, Wrong};
use super::scope::{LedgerView, Positions, Scope, published_part};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::TopicPartition;
use crate::store::{LedgerHistory, Snapshot};
use comparison::{Comparison, Over};
use pieces::where_pieces_are;
use retained::{Retained, shortened};

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
    let mut view = scope.look(store, &scope.sources()).await?;
    let mut verifier = DecisionVerifier::new(scope.since);
    let ranges = compared(&mut view, &mut verifier.report);
    // After the committed offsets were read: all that they say was published is below the topics' ends now.
    let names = scope.topics;
    block_in_place(|| {
        view.topics.settle(&[&names.accepted_topic, &names.rejected_topic, &names.dead_letter_topic])
    })?;
    let retained = block_in_place(|| Retained::look(&view.topics, names))?;
    verifier.report.notes.extend(retained.notes());

    let total: u64 = ranges.iter().map(OffsetRange::span).sum();
    progress.expect(total * 2 + view.snapshot.count().await?);
    let deleted = block_in_place(|| shortened(&view.topics, &names.dead_letter_topic))?;
    let over = Over {
        topics: &view.topics,
        scope,
        ranges: &ranges,
        positions: &view.positions,
        programs: &view.programs,
        incarnations: &view.incarnations,
        retained: &retained,
        letters_are_gone: !deleted.is_empty(),
    };
    let mut comparison = Comparison::new(over, Sums::default());
    comparison.levels = levels;
    let mut verifier =
        compare(&mut comparison, &mut *view.snapshot, verifier, view.running, progress).await?;
    let (uneven, more) = comparison.reconciler.uneven();
    if uneven.is_empty() {
        return Ok(verifier.report);
    }
    if more {
        verifier.report.notes.push("so much differs that only some of it is named".to_owned());
    }
    let by_name = Comparison::new(over, Names::of(uneven));
    let uneven = look_by_name(by_name, &mut *view.snapshot, progress).await?;
    report_named(uneven, &deleted, &mut verifier.report);
    Ok(verifier.report)
}

/// The records that are compared: of the chosen ones those whose results are published. Where the ledger and Kafka do not
/// agree how far a partition is done, or what its topic is, is reported.
fn compared(view: &mut LedgerView, report: &mut AuditReport) -> Vec<OffsetRange> {
    let chosen = std::mem::take(&mut view.ranges);
    let partitions: Vec<TopicPartition> = chosen.iter().map(|range| range.at.clone()).collect();
    let of_these = |all: &Positions| -> Positions {
        all.iter().filter(|(at, _)| partitions.contains(at)).map(|(at, next)| (at.clone(), *next)).collect()
    };
    for mismatch in standing(&of_these(&view.positions), &of_these(&view.committed), view.running) {
        report.add(Finding::Positions(mismatch));
    }
    let mut ranges = published_part(chosen, &view.positions, &view.committed);
    for topic in std::mem::take(&mut view.replaced) {
        // Nothing of that topic is decided, and what is decided has its records no more.
        let partitions = topic.partitions();
        for range in &mut ranges {
            if range.at.topic == topic.topic && partitions.contains(&range.at.partition) {
                range.to = range.from;
            }
        }
        report.add(Finding::Topic(topic));
    }
    ranges
}

/// Walks the ledger and its records, and reads back what was published. All that it finds is reported, but for the events
/// that are not as they should be: of those it has the sums.
async fn compare(
    comparison: &mut Comparison<'_, Sums>,
    snapshot: &mut dyn Snapshot,
    verifier: DecisionVerifier,
    running: bool,
    progress: &Progress,
) -> Result<DecisionVerifier> {
    let filter = comparison.over.scope.filter;
    let mut verifier = comparison.walk(&mut *snapshot, verifier, progress).await?;
    let unretained = verifier.report.unretained_note();
    verifier.report.notes.extend(unretained);
    verifier.report.notes.extend(comparison.notes());
    let misplaced = std::mem::take(&mut comparison.misplaced);
    verifier.report.notes.extend(where_pieces_are(&mut *snapshot, misplaced).await?);
    verifier.report.unknown = comparison.met.unmet(filter);
    if let Some(levels) = comparison.levels.take() {
        levels.report(running, &mut verifier.report);
    }
    if filter.is_everything() {
        verifier.end(snapshot).await?;
    }
    let (published, placements) = comparison.read_published(progress)?;
    verifier.report.published = published;
    if filter.is_everything() {
        report_placements(placements, &mut verifier.report);
    }
    Ok(verifier)
}

/// Walks once more, for the names alone of what is not even.
async fn look_by_name(
    mut comparison: Comparison<'_, Names>,
    snapshot: &mut dyn Snapshot,
    progress: &Progress,
) -> Result<Named> {
    let verifier = DecisionVerifier::new(comparison.over.scope.since);
    comparison.walk(snapshot, verifier, progress).await?;
    comparison.read_published(progress)?;
    Ok(comparison.reconciler.named())
}

/// Reports the events that are not as they should be, and notes those that cannot be any more: `deleted` are the dead
/// letters that are gone from their topic.
fn report_named(named: Named, deleted: &[OffsetRange], report: &mut AuditReport) {
    let Named { wrong, excused_results: excused, excused_letters } = named;
    for (event, wrong) in wrong {
        report.add(Finding::Published { event, wrong });
    }
    if excused > 0 {
        report.notes.push(format!(
            "{excused} results are not there, and their records are gone: they were never published, and cannot be now, \
             or were deleted (retention?)"
        ));
    }
    if excused_letters > 0 {
        let gone: Vec<String> =
            deleted.iter().map(|whole| format!("{} before offset {}", whole.at, whole.from)).collect();
        report.notes.push(format!(
            "{excused_letters} dead letters are not there: their topic was shortened (retention?): {}",
            gone.join(", ")
        ));
    }
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
