//! What neighbours ask while batches go on, each answer with the moment that it is of.

use async_trait::async_trait;

use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};
use crate::store::{AsOf, DatedMovement, ItemLevel, MovementCursor, OrderLife, StoreError};

/// Reads for those who asked from outside: bounded answers, found by an index each. Changes nothing. A store reads on
/// connections that deciding does not use.
#[async_trait]
pub trait LedgerQueries: Send + Sync + 'static {
    /// The moment an answer given now would be of. For probes: the least that can be asked.
    async fn moment(&self) -> Result<Stamp, StoreError>;

    /// Levels of a SKU at every location, sorted by location, at most `limit`; none of an unknown one.
    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError>;

    /// Levels of these items, in no order; unknown ones are absent.
    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError>;

    /// What is kept of these orders, all of the same moment; those of which nothing is are absent. A fixed number of
    /// statements, whatever their number.
    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError>;

    /// The next movements of a SKU before one, at most `limit`: at one location (`Some(None)` is the default one) or at
    /// all (`None`). Those of each location come newest first; how those of several are mixed is the store's own.
    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError>;
}
