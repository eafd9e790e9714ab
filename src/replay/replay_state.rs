//! The ledger in its own order, page by page, each decision with its movements.

use std::sync::Arc;

use anyhow::Result;

use crate::ledger::{Decision, Movement, Seq};
use crate::store::{Snapshot, StoredMovement};

/// Decisions read at once.
pub const PAGE: usize = 10_000;

/// A decision with what it moved.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The decision.
    pub decision: Arc<Decision>,
    /// Its movements, sorted by item.
    pub movements: Vec<Movement>,
}

/// Decisions of a range of the ledger's order.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// The ledger sequence before the range.
    after: Seq,
    /// The decisions, in their order.
    pub decisions: Vec<Arc<Decision>>,
}

/// Reads a ledger in its order.
pub struct Pages<'a> {
    snapshot: &'a mut dyn Snapshot,
    after: Seq,
}

impl<'a> Pages<'a> {
    /// From the beginning, or from after a ledger sequence.
    pub fn after(snapshot: &'a mut dyn Snapshot, after: Seq) -> Self {
        Self { snapshot, after }
    }

    /// The snapshot that is read.
    pub fn snapshot(&mut self) -> &mut dyn Snapshot {
        self.snapshot
    }

    /// The next page without its movements, which are asked for by [`Pages::movements`].
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn next_decisions(&mut self) -> Result<Decisions> {
        let after = self.after;
        let decisions = self.snapshot.decisions_after(after, PAGE).await?;
        self.after = decisions.last().map_or(after, |decision| decision.seq);
        Ok(Decisions { after, decisions: decisions.into_iter().map(Arc::new).collect() })
    }

    /// A page with its movements.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn movements(&mut self, page: Decisions) -> Result<Vec<Entry>> {
        let Some(last) = page.decisions.last().map(|decision| decision.seq) else { return Ok(Vec::new()) };
        let movements = self.snapshot.movements_between(page.after, last).await?;
        Ok(join(page.decisions, movements))
    }

    /// The next page; none are left when it is empty. A movement without a decision is passed over: the audit's own
    /// questions name it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn next(&mut self) -> Result<Vec<Entry>> {
        let page = self.next_decisions().await?;
        self.movements(page).await
    }
}

/// Gives each decision its movements; both are in the ledger's order.
fn join(decisions: Vec<Arc<Decision>>, movements: Vec<StoredMovement>) -> Vec<Entry> {
    let mut movements = movements.into_iter().peekable();
    decisions
        .into_iter()
        .map(|decision| {
            while movements.next_if(|movement| movement.seq < decision.seq).is_some() {}
            let mut own = Vec::new();
            while let Some(movement) = movements.next_if(|movement| movement.seq == decision.seq) {
                own.push(Movement {
                    item: movement.item,
                    version: movement.version,
                    quantity: movement.quantity,
                    balance: movement.balance,
                    cause: movement.cause,
                    seq: movement.seq,
                    source: decision.source.clone(),
                });
            }
            Entry { decision, movements: own }
        })
        .collect()
}
