//! What is asked for by key while batches go on.

use async_trait::async_trait;

use crate::ledger::{CommandKey, Decision, Id, Item, Sku};
use crate::store::{ItemLevel, StoreError, StoredOrder};

/// Reads what there is now. Changes nothing. A store reads on connections that nothing else uses, so that many who ask
/// hold up no batch, and nobody who decides holds up them.
#[async_trait]
pub trait LedgerReader: Send + Sync + 'static {
    /// Levels of these SKUs at every location, or of all SKUs, sorted by item; unknown ones are absent.
    async fn levels(&self, of: Option<&[Sku]>) -> Result<Vec<ItemLevel>, StoreError>;

    /// Levels of these items, in no order; unknown ones are absent.
    async fn levels_of(&self, items: &[Item]) -> Result<Vec<ItemLevel>, StoreError>;

    /// The next levels after an item, sorted by item, at most `limit`: none are left when it returns none.
    async fn levels_after(&self, after: Option<&Item>, limit: usize) -> Result<Vec<ItemLevel>, StoreError>;

    /// The decision of a command; `None` where there is none.
    async fn decision(&self, of: &CommandKey) -> Result<Option<Decision>, StoreError>;

    /// What is kept of one order, all of the same moment; `None` where nothing is.
    async fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError>;
}
