//! One order as a ledger keeps it, put together of what a store read at one moment.

use std::sync::Arc;

use super::{StoreError, StoredMovement, apply};
use crate::ledger::{CommandKey, Decision, Id, Map, OrderState, Seq};

/// What a ledger keeps of one order, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOrder {
    /// The decisions under the order's own id, in the ledger's order: that it was created, cancelled, released, that its
    /// hold is over, and its confirmation where that has no id of its own. Returns and extensions have ids of their own:
    /// [`LedgerReader::decision`](super::LedgerReader::decision).
    pub decisions: Vec<Arc<Decision>>,
    /// What it took, what came back of it, and its open hold; `None` where it was not accepted.
    pub state: Option<OrderState>,
    /// What these decisions moved, in the ledger's order, and by item within a decision.
    pub movements: Vec<StoredMovement>,
}

/// Of all decisions of this id, those about the order of that id; in the ledger's order. A return or an adjustment may
/// have the same text as its id.
pub(super) fn about(id: &Id, found: Map<CommandKey, Arc<Decision>>) -> Vec<Arc<Decision>> {
    let mut decisions: Vec<Arc<Decision>> = found
        .into_values()
        .filter(|decision| decision.key.kind.has_id_of_order() || decision.follows().as_ref() == Some(id))
        .collect();
    decisions.sort_unstable_by_key(|decision| decision.seq);
    decisions
}

/// The order's state as its decision left it, for a store to fill in; empty where it was not accepted.
pub(super) fn bare_state(id: &Id, decisions: &[Arc<Decision>]) -> Result<Map<Id, OrderState>, StoreError> {
    let found = decisions.iter().map(|decision| (decision.key.clone(), Arc::clone(decision))).collect();
    apply::order_states(&found, &[id])
}

/// Where these decisions stand in the ledger.
pub(super) fn sequences(decisions: &[Arc<Decision>]) -> Vec<Seq> {
    decisions.iter().map(|decision| decision.seq).collect()
}
