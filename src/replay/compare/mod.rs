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
use super::published::{Named, Names, Sums, Wrong};
use super::scope::{LedgerView, Positions, Scope, published_part};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::TopicPartition;
use crate::store::LedgerHistory;
use comparison::{Comparison, Over};
use pieces::where_pieces_are;
use retained::{results_since, shortened};

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
