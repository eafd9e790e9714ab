//! What neighbours ask, each answer with its moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use super::ledger::{Ledger, item_level};
use crate::ledger::{CommandKind, Decision, Id, Item, Location, Map, Seq, Sku, Stamp};
use crate::store::queries::Lives;
use crate::store::{
    AsOf, DatedMovement, ItemLevel, LedgerQueries, MAX_FOLLOWERS, MovementCursor, OrderLife, StoreError,
    StoredMovement,
};

impl Ledger {
    /// The decisions with ids of their own that follow this order, the newest first.
    fn following(&self, order: &Id) -> impl Iterator<Item = Decision> {
        let kinds = [CommandKind::OrderReturned, CommandKind::OrderConfirmed, CommandKind::HoldExtended];
        let follows = move |decision: &&Arc<Decision>| {
            kinds.contains(&decision.key.kind) && decision.follows().as_ref() == Some(order)
        };
        self.decisions.values().rev().filter(follows).map(|decision| Decision::clone(decision))
    }

    fn lives(&self, ids: &[Id]) -> Result<Map<Id, OrderLife>, StoreError> {
        let wanted: Vec<&Id> = ids.iter().collect();
        let own = self.decisions_of(&wanted);
        let known: BTreeSet<&Id> = own.keys().map(|key| &key.id).collect();
        let following = known.into_iter().flat_map(|id| self.following(id).take(MAX_FOLLOWERS)).collect();
        let mut lives = Lives::of(ids, own, following)?;
        for (id, state) in &mut lives.states {
            if let Some(kept) = self.orders.get(id) {
                state.clone_from(kept);
            }
        }
        Ok(lives.finish())
    }

    fn dated(&self, movement: &StoredMovement) -> DatedMovement {
        let decision = self.decisions.get(&movement.seq);
        let topic = decision.and_then(|decision| decision.source.as_ref());
        DatedMovement {
            movement: movement.clone(),
            decided_at: decision.map(|decision| decision.decided_at),
            topic: topic.map(|source| Arc::clone(&source.at.topic)),
        }
    }
}

#[async_trait]
impl LedgerQueries for MemoryStore {
    async fn moment(&self) -> Result<Stamp, StoreError> {
        Ok(self.now())
    }

    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let at = self.now();
        let ledger = self.ledger();
        let of_sku = ledger.levels.iter().filter(|(item, _)| item.sku == *sku);
        Ok(AsOf::new(of_sku.take(limit).map(item_level).collect(), at))
    }

    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let at = self.now();
        let items: BTreeSet<&Item> = items.iter().collect();
        let ledger = self.ledger();
        let found = items.into_iter().filter_map(|item| ledger.levels.get_key_value(item));
        Ok(AsOf::new(found.map(item_level).collect(), at))
    }

    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
        let at = self.now();
        Ok(AsOf::new(self.ledger().lives(ids)?, at))
    }

    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
        let at = self.now();
        let end = before.map_or((Seq::END, None), |cursor| (cursor.seq, cursor.location.as_ref()));
        let ledger = self.ledger();
        let all = ledger.movements.values().rev().flat_map(|moved| moved.iter().rev());
        let of_sku = all.filter(|movement| {
            movement.item.sku == *sku
                && location.is_none_or(|location| movement.item.location.as_ref() == location)
                && (movement.seq, movement.item.location.as_ref()) < end
        });
        Ok(AsOf::new(of_sku.take(limit).map(|movement| ledger.dated(movement)).collect(), at))
    }
}
