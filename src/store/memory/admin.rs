//! What an operator does to a ledger. There are no tables to make or to check, and nothing to close.

use async_trait::async_trait;

use super::MemoryStore;
use super::chain::{chains, level_after};
use super::tx::MemoryTx;
use crate::ledger::Sequenced;
use crate::store::{Applied, CommandBatch, ItemLevel, LedgerAdmin, MOST_REPAIRED, StoreError, offline};

#[async_trait]
impl LedgerAdmin for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn repairable_levels(&self) -> Result<Vec<ItemLevel>, StoreError> {
        let ledger = self.copy();
        let whole = chains(&ledger).into_iter().filter(|(_, chain)| chain.breaks().next().is_none());
        let wrong = whole.filter_map(|(item, chain)| {
            let stored = ledger.levels.get(item);
            let level = level_after(Some(chain.newest()), stored);
            (stored != Some(&level)).then(|| ItemLevel { item: item.clone(), level })
        });
        Ok(wrong.take(usize::from(MOST_REPAIRED)).collect())
    }

    async fn repair(&self, batch: &CommandBatch) -> Result<Applied, StoreError> {
        offline::repair::<MemoryTx<'_>>(&mut self.clone(), batch).await
    }

    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError> {
        offline::restore::<MemoryTx<'_>>(&mut self.clone(), batch, sequences).await
    }

    async fn close(&self) {}
}
