//! What failures are called in labels.

use crate::kafka::transactional::PublishError;
use crate::store::StoreError;

/// All that [`end_name`] says.
pub(super) const ENDS: [&str; 6] = ["committed", "aborted", "refused", "too_many", "producer_lost", "fenced"];

/// What became of a transaction, in a label.
pub(super) fn end_name(published: &Result<(), PublishError>) -> &'static str {
    match published {
        Ok(()) => "committed",
        Err(PublishError::Aborted(_)) => "aborted",
        Err(PublishError::Refused(_)) => "refused",
        Err(PublishError::TooMany(_)) => "too_many",
        Err(PublishError::ProducerLost(_)) => "producer_lost",
        Err(PublishError::Fenced(_)) => "fenced",
    }
}

/// All that [`error_name`] says.
pub(super) const ERRORS: [&str; 9] = [
    "away",
    "refused",
    "read_only",
    "reconnected",
    "concurrent_change",
    "ledger_behind",
    "previous_not_committed",
    "damaged",
    "unsuitable",
];

/// What a failure of the database is called in a label.
pub(super) fn error_name(error: &StoreError) -> &'static str {
    match error {
        StoreError::Database { retry: true, .. } => "away",
        StoreError::Database { retry: false, .. } => "refused",
        StoreError::ReadOnly { .. } => "read_only",
        StoreError::Reconnected => "reconnected",
        StoreError::ConcurrentChange | StoreError::PositionChanged { .. } => "concurrent_change",
        StoreError::LedgerBehind { .. } => "ledger_behind",
        StoreError::PreviousNotCommitted { .. } => "previous_not_committed",
        StoreError::Damaged { .. } => "damaged",
        _ => "unsuitable",
    }
}
