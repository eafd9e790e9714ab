//! What is asked for by key.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{PostgresStore, read, rows};
use crate::ledger::{CommandKey, Decision, Id, Item, Sku};
use crate::store::{ItemLevel, LedgerReader, StoreError, StoredOrder};

#[async_trait]
impl LedgerReader for PostgresStore {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let wanted: Option<Vec<&str>> = of.map(|skus| skus.iter().map(Sku::as_str).collect());
        self.read(async |connection| {
            let found = sqlx::query(
                "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
                 WHERE $1::text[] IS NULL OR sku = ANY($1) ORDER BY sku, location",
            )
            .bind(wanted)
            .fetch_all(connection)
            .await;
            rows::levels(found)
        })
        .await
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let items: BTreeSet<&Item> = items.iter().collect();
        let (skus, locations) = rows::item_columns(items.into_iter());
        self.read(async |connection| {
            let found = sqlx::query(
                "SELECT sku, location, available, version, backorder_limit, order_limit
                 FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location) JOIN levels USING (sku, location)",
            )
            .bind(skus)
            .bind(locations)
            .fetch_all(connection)
            .await;
            rows::levels(found)
        })
        .await
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        self.read(async |connection| read::levels_after(connection, after, limit).await).await
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        self.read(async |connection| read::decision(connection, of).await).await
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let layout = self.layout().await?;
        self.read(async |connection| read::order(connection, id, layout).await).await
    }
}
