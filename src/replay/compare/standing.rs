//! Whether ledger and Kafka agree how far each partition is done.

use super::super::finding::PositionMismatch;
use super::super::scope::Positions;
use crate::ledger::{NextOffset, TopicPartition};

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
