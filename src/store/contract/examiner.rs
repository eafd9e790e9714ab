//! What who looks for faults asks of a ledger.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::{Answer, Examination, Followers};

/// Looks at a ledger and its database for what is wrong, or soon will be. Changes nothing, and holds no lock that
/// anybody waits for.
#[async_trait]
pub trait LedgerExaminer: Send + Sync + 'static {
    /// All that can be known within `limit`; the parts that are not answered by then say so.
    async fn examine(&self, limit: Duration) -> Examination;

    /// On which partitions the newest commands stand that follow an order, against their orders. A bounded number of them,
    /// whatever the ledger's size.
    async fn followers(&self) -> Answer<Followers>;
}
