//! Reading the ledger back, in its order, as it was at one moment: a copy.

use std::collections::HashMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use async_trait::async_trait;

use super::ledger::Ledger;
use super::{MemoryStore, audit};
use crate::ledger::{
    CommandKey, Decision, HeldProgram, Hold, Id, Item, Map, NextOffset, OrderStock, Seq, TopicPartition,
};
use crate::store::{Audit, Incarnation, ItemLevel, LedgerHistory, Snapshot, StoreError, StoredMovement};

#[async_trait]
impl LedgerHistory for MemoryStore {
    async fn group(&self) -> Result<Option<String>, StoreError> {
        Ok(self.ledger().group.clone())
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(MemorySnapshot(self.copy())))
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        Ok(audit::audit(&self.copy()))
    }
}

/// A copy of what was committed.
struct MemorySnapshot(Ledger);

#[async_trait]
impl Snapshot for MemorySnapshot {
    async fn count(&mut self) -> Result<u64, StoreError> {
        Ok(self.0.decisions.len() as u64)
    }

    async fn last_seq(&mut self) -> Result<Option<Seq>, StoreError> {
        Ok(self.0.decisions.last_key_value().map(|(seq, _)| *seq))
    }

    async fn positions(&mut self) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        Ok(self.0.next_offsets())
    }

    async fn incarnations(&mut self) -> Result<Vec<Incarnation>, StoreError> {
        Ok(self.0.incarnations())
    }

    async fn programs(&mut self) -> Result<Vec<HeldProgram>, StoreError> {
        Ok(self.0.programs.clone())
    }

    async fn decisions_after(&mut self, after: Seq, limit: usize) -> Result<Vec<Decision>, StoreError> {
        let next = self.0.decisions.range((Excluded(after), Unbounded)).take(limit);
        Ok(next.map(|(_, decision)| Decision::clone(decision)).collect())
    }

    async fn movements_between(
        &mut self,
        after: Seq,
        through: Seq,
    ) -> Result<Vec<StoredMovement>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let between = self.0.movements.range((Excluded(after), Included(through)));
        Ok(between.flat_map(|(_, moved)| moved).cloned().collect())
    }

    async fn decisions_of(&mut self, ids: &[&Id]) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
        Ok(self.0.decisions_of(ids))
    }

    async fn levels_after(
        &mut self,
        after: Option<&Item>,
        limit: usize,
    ) -> Result<Vec<ItemLevel>, StoreError> {
        Ok(self.0.levels_after(after, limit))
    }

    async fn order_lines_after(
        &mut self,
        after: Option<(&Id, &Item)>,
        limit: usize,
    ) -> Result<Vec<(Id, OrderStock)>, StoreError> {
        let from = after.map_or(Unbounded, |(id, _)| Included(id));
        let lines = self.0.orders.range::<Id, _>((from, Unbounded)).flat_map(|(id, state)| {
            let gave_back = state.lines.iter().filter(|line| line.returned != 0);
            gave_back.map(move |line| (id, line))
        });
        let next = lines.filter(|(id, line)| after.is_none_or(|after| (*id, &line.item) > after));
        Ok(next.take(limit).map(|(id, line)| (id.clone(), line.clone())).collect())
    }

    async fn holds_after(&mut self, after: Option<&Id>, limit: usize) -> Result<Vec<(Id, Hold)>, StoreError> {
        let from = after.map_or(Unbounded, Excluded);
        let open = self.0.orders.range::<Id, _>((from, Unbounded));
        let open = open.filter_map(|(id, state)| Some((id.clone(), state.hold.clone()?)));
        Ok(open.take(limit).collect())
    }
}
