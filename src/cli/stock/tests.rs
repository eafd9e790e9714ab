//! Where a commit's answer is lost, the store tries again, and finds its own command decided: what became of that is said
//! all the same.

use async_trait::async_trait;

use super::adjust::{AdjustArgs, MoveArgs, adjust};
use super::state::{LimitsArgs, SetArgs, limits, set};
use crate::ledger::Stamp;
use crate::store::memory::MemoryStore;
use crate::store::{Applied, CommandBatch, Layer, Layered, LedgerWriter as _, StoreError, VerifierStore};

/// A ledger that answers as where the answer to each first commit was lost.
struct LosesAnswers(MemoryStore);

#[async_trait]
impl Layer for LosesAnswers {
    fn inner(&self) -> &dyn VerifierStore {
        &self.0
    }

    async fn apply(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        self.0.apply(batch).await?;
        self.0.apply(batch).await
    }
}

fn level(available: i64, expected_version: Option<i64>) -> SetArgs {
    SetArgs { sku: "MUG".to_owned(), available, location: None, expected_version, json: false }
}

fn found(by: i64) -> AdjustArgs {
    AdjustArgs { sku: "MUG".to_owned(), by, common: MoveArgs::default() }
}

#[tokio::test]
async fn a_command_whose_commits_answer_was_lost_is_rejected_where_its_decision_is() {
    let store = Layered(LosesAnswers(MemoryStore::new(|| Stamp(0))));
    let text = set(level(12, None), &store).await.unwrap();
    assert!(text.contains("12"), "{text}");
    let text = adjust(found(1), &store).await.unwrap();
    assert!(text.contains("13") && !text.contains("decided before"), "{text}");

    let error = set(level(5, Some(4)), &store).await.unwrap_err().to_string();
    assert_eq!(error, "not set: MUG has version 2 now, with 13 available");
    let error = adjust(found(-14), &store).await.unwrap_err().to_string();
    assert_eq!(error, "not adjusted: 14 pieces of MUG cannot be missing where 13 are");
    let unknown = LimitsArgs {
        sku: "HAT".to_owned(),
        location: None,
        backorder_limit: 5,
        order_limit: None,
        json: false,
    };
    let error = limits(unknown, &store).await.unwrap_err().to_string();
    assert_eq!(error, "not limited: no stock of HAT was ever recorded, so set its level first");
}
