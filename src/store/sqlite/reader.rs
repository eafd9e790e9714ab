//! What is asked for by key.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::failure::database;
use super::levels::{self, item_levels};
use super::{SqliteStore, orders, rows};
use crate::ledger::{CommandKey, Decision, Id, Item, Seq, Sku};
use crate::store::{ItemLevel, LedgerReader, StoreError, StoredOrder, stored_order};

#[async_trait]
impl LedgerReader for SqliteStore {
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        let levels = match of {
            Some(skus) => levels::read_of_skus(&mut conn, &skus.iter().collect()).await?,
            None => levels::read_all(&mut conn).await?,
        };
        Ok(item_levels(levels))
    }

    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        levels::read(&mut conn, &items.iter().collect()).await.map(item_levels)
    }

    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        levels::read_after(&mut conn, after, limit).await.map(item_levels)
    }

    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("reading a decision"))?;
        let mut found = rows::read_decisions(&mut conn, &BTreeSet::from([&of.id])).await?;
        Ok(found.remove(of).map(Arc::unwrap_or_clone))
    }

    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let mut moment = self.readers.begin().await.map_err(database("reading an order"))?;
        let found = rows::read_decisions(&mut moment, &BTreeSet::from([id])).await?;
        let decisions = stored_order::about(id, found);
        if decisions.is_empty() {
            return Ok(None);
        }
        let mut state = stored_order::bare_state(id, &decisions)?;
        orders::read_lines(&mut moment, &mut state).await?;
        orders::read_holds(&mut moment, &mut state).await?;
        let mut movements = Vec::new();
        for seq in stored_order::sequences(&decisions) {
            movements.extend(rows::read_movements_between(&mut moment, Seq(seq.0 - 1), seq).await?);
        }
        Ok(Some(StoredOrder { decisions, state: state.remove(id), movements }))
    }
}
