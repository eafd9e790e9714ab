//! The words of [`LedgerQueries`](super::LedgerQueries), and how an order's life is put together of what a store read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{StoreError, StoredMovement, apply, stored_order};
use crate::ledger::{
    CommandKey, CommandKind, Decision, Id, Location, Map, Offset, OrderState, Seq, Source, Stamp,
};

/// Most decisions with ids of their own that are read of one order (returns, confirmations, extensions): the newest. Far
/// above any real order's, and it bounds an answer whatever a producer sends.
pub const MAX_FOLLOWERS: usize = 1_000;

/// An answer, and the moment it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// What was read.
    pub value: T,
    /// By the ledger's clock: all that was committed until then is in it; what came later may be.
    pub at: Stamp,
    /// How long before it was asked for that moment was, at most: zero where the ledger itself answered.
    pub behind: Duration,
}

impl<T> AsOf<T> {
    /// The ledger's own answer.
    pub fn new(value: T, at: Stamp) -> Self {
        Self { value, at, behind: Duration::ZERO }
    }
}

/// All decisions about one order, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLife {
    /// In the ledger's order, those with ids of their own too; of these the newest [`MAX_FOLLOWERS`].
    pub decisions: Vec<Arc<Decision>>,
    /// What it took, what came back of it, and its open hold; `None` where it was not accepted.
    pub state: Option<OrderState>,
}

impl OrderLife {
    /// The decision of the order itself; `None` where only others about it came so far.
    #[must_use]
    pub fn verdict(&self) -> Option<&Arc<Decision>> {
        self.decisions.iter().find(|decision| decision.key.kind == CommandKind::OrderCreated)
    }
}

/// A movement, and when it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedMovement {
    /// The movement.
    pub movement: StoredMovement,
    /// When its decision was made; `None` where the ledger lost that, which the audit names.
    pub decided_at: Option<Stamp>,
    /// The topic of the record that it came from.
    pub topic: Option<Arc<str>>,
}

impl DatedMovement {
    /// The record it came from; `None` for an operator's own command.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        let (partition, offset): (i32, Offset) = self.movement.record?;
        let topic = Arc::clone(self.topic.as_ref()?);
        Some(Source { at: crate::ledger::TopicPartition { topic, partition }, offset })
    }
}

/// Where a page of movements ended: each store goes on by the part that it has an index for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovementCursor {
    /// The version that the last movement gave its level.
    pub version: i64,
    /// Its decision.
    pub seq: Seq,
    /// Its location.
    pub location: Option<Location>,
}

impl MovementCursor {
    /// Right after this movement.
    #[must_use]
    pub fn after(movement: &StoredMovement) -> Self {
        Self { version: movement.version, seq: movement.seq, location: movement.item.location.clone() }
    }
}

/// Lives of orders while a store reads them: their states are filled in last.
pub(super) struct Lives {
    lives: Map<Id, OrderLife>,
    /// Those of accepted orders, as their decisions left them, until a store has filled in what came back and is held.
    pub(super) states: Map<Id, OrderState>,
}

impl Lives {
    /// Of the decisions under the orders' ids (`own`) and of those that follow them under ids of their own.
    pub(super) fn of(
        ids: &[Id],
        own: Map<CommandKey, Arc<Decision>>,
        following: Vec<Decision>,
    ) -> Result<Self, StoreError> {
        let wanted: Vec<&Id> = ids.iter().collect();
        let states = apply::order_states(&own, &wanted)?;
        let mut by_id: Map<Id, Map<CommandKey, Arc<Decision>>> = Map::default();
        for (key, decision) in own {
            by_id.entry(key.id.clone()).or_default().insert(key, decision);
        }
        let mut found: Map<Id, BTreeMap<Seq, Arc<Decision>>> = Map::default();
        for (id, decisions) in by_id {
            let about = stored_order::about(&id, decisions);
            if !about.is_empty() {
                found.insert(id, about.into_iter().map(|decision| (decision.seq, decision)).collect());
            }
        }
        for decision in following {
            // One whose text cannot be read any more follows none; the audit names it.
            if let Some(id) = decision.follows() {
                found.entry(id).or_default().insert(decision.seq, Arc::new(decision));
            }
        }
        let lives = found.into_iter().map(|(id, decisions)| {
            (id, OrderLife { decisions: decisions.into_values().collect(), state: None })
        });
        Ok(Self { lives: lives.collect(), states })
    }

    /// With their states, now that those are filled in.
    pub(super) fn finish(self) -> Map<Id, OrderLife> {
        let Self { mut lives, mut states } = self;
        for (id, life) in &mut lives {
            life.state = states.remove(id);
        }
        lives
    }
}
