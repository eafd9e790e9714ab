//! What a batch is decided on.

use std::sync::Arc;

use super::stock::Levels;
use super::{CommandKey, CommandKind, Decision, Id, Map, OrderState};

/// What the ledger says about a batch's items and command ids, read under its locks.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// Levels of the batch's items, and of those of the orders it follows; an item that is not in here is unknown.
    pub levels: Levels,
    /// Decisions already made for the batch's command ids, and for the ids of the orders it follows, of every kind.
    pub decisions: Map<CommandKey, Arc<Decision>>,
    /// The accepted orders that commands of the batch follow; see [`super::Command::follows`].
    pub orders: Map<Id, OrderState>,
}

impl View {
    /// The decision of this kind for an order, if there is one and it was accepted.
    pub(super) fn accepted(&self, order_id: &Id, kind: CommandKind) -> Option<&Arc<Decision>> {
        self.decisions.get(&CommandKey { id: order_id.clone(), kind }).filter(|decision| decision.accepted)
    }
}
