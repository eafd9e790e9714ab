//! What of the topics is deleted, and so cannot be compared.

use anyhow::Result;

use super::super::finding::AuditReport;
use super::super::published::time_of;
use super::super::scope::Scope;
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{NextOffset, Stamp};

/// How far results of one partition may stand out of the order of their decisions.
const RETENTION_SLACK_SECONDS: i64 = 60;

/// Results older than the oldest that every partition still has cannot be compared: when the last of them was decided.
pub(super) fn results_since(
    topics: &Topics,
    scope: &Scope<'_>,
    report: &mut AuditReport,
) -> Result<Option<Stamp>> {
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
pub(super) fn shortened(topics: &Topics, topic: &str) -> Result<Vec<OffsetRange>> {
    let mut whole = topics.whole_topic(topic)?;
    whole.retain(|range| range.from > NextOffset(0));
    Ok(whole)
}
