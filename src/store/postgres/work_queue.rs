//! What waits to be done: holds that are over, levels to announce.

use std::time::Duration;

use async_trait::async_trait;

use super::distributed::{self, Layout};
use super::{PostgresStore, orders};
use crate::ledger::Item;
use crate::store::{DueHold, OverdueHolds, StoreError, WorkQueue};

#[async_trait]
impl WorkQueue for PostgresStore {
    async fn take_due_holds(&self, limit: usize, lease: Duration) -> Result<Vec<DueHold>, StoreError> {
        let layout = self.layout().await?;
        let taken = self
            .with(async |connection| match layout {
                Layout::Plain => orders::take_due_holds(connection, limit, lease).await,
                Layout::Distributed => distributed::take_due_holds(connection, limit, lease).await,
            })
            .await;
        self.settle_after(layout, &taken).await;
        taken
    }

    async fn overdue_holds(&self, by: Duration) -> Result<Option<OverdueHolds>, StoreError> {
        self.with(async |connection| orders::overdue_holds(connection, by).await).await
    }

    async fn take_unannounced(&self, limit: usize) -> Result<Vec<Item>, StoreError> {
        let layout = self.layout().await?;
        self.with(async |connection| match layout {
            Layout::Plain => orders::take_unannounced(connection, limit).await,
            Layout::Distributed => distributed::take_unannounced(connection, limit).await,
        })
        .await
    }
}
