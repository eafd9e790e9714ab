//! What waits to be done: holds that are over, levels to announce.

use std::time::Duration;

use async_trait::async_trait;

use super::failure::database;
use super::{SqliteStore, now, orders};
use crate::ledger::{Item, Stamp};
use crate::store::{DueHold, OverdueHolds, StoreError, WorkQueue};

#[async_trait]
impl WorkQueue for SqliteStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let mut conn = self.writer.acquire().await.map_err(database("taking due holds"))?;
        let now = now();
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        orders::take_due_holds(&mut conn, limit, now, Stamp(now.0.saturating_add(lease))).await
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("looking for overdue holds"))?;
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        orders::overdue_holds(&mut conn, Stamp(now().0.saturating_sub(by))).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        let mut conn = self.writer.acquire().await.map_err(database("taking levels to announce"))?;
        orders::take_unannounced(&mut conn, limit).await
    }
}
