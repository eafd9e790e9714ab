//! What is asked for by key while batches go on.

use async_trait::async_trait;

use crate::ledger::{Item, Sku};
use crate::store::{ItemLevel, StoreError};

/// Reads levels as they are now. Changes nothing.
#[async_trait]
pub trait LedgerReader: Send + Sync + 'static {
    /// Levels of these SKUs at every location, or of all SKUs, sorted by item; unknown ones are absent.
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError>;

    /// Levels of these items, in no order; unknown ones are absent.
    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError>;

    /// The next levels after an item, sorted by item, at most `limit`: none are left when it returns none.
    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError>;
}
