//! The audit of a ledger in memory: what a database is asked in SQL, looked for by hand.

mod decisions;
mod levels;
mod orders;
#[cfg(test)]
mod tests;

use super::chain::chains;
use super::ledger::Ledger;
use crate::store::audit::MOST_FINDINGS;
use crate::store::{Audit, Breach};

/// What a check looks for: one more than is reported, to know whether there are more.
const LIMIT: usize = MOST_FINDINGS as usize + 1;

/// Proves, or names where it does not hold, what the ledger alone can prove.
pub(super) fn audit(ledger: &Ledger) -> Audit {
    let mut audit = Audit {
        skus: ledger.levels.len() as u64,
        movements: ledger.movements.values().map(|moved| moved.len() as u64).sum(),
        decisions: ledger.decisions.len() as u64,
        positions: ledger.next_offsets(),
        findings: Vec::new(),
    };
    let chains = chains(ledger);
    let (read, unreadable) = decisions::read(ledger);
    let given = orders::given_back(&read);

    add(&mut audit, 1, levels::below_their_limit(ledger));
    add(&mut audit, 1, levels::were_below_every_limit(ledger, &read));
    add(&mut audit, 2, levels::broken_chains(&chains));
    add(&mut audit, 2, levels::not_where_the_chain_ends(ledger, &chains));
    add(&mut audit, 2, levels::without_movements(ledger, &chains));
    add(&mut audit, 3, decisions::made_twice(ledger));
    add(&mut audit, 3, unreadable.into_iter());
    add(&mut audit, 3, decisions::movements_not_decided(ledger, &read));
    add(&mut audit, 3, decisions::lines_not_moved(ledger, &read));
    add(&mut audit, 3, orders::gave_back_what_they_never_had(ledger));
    add(&mut audit, 3, orders::noted_otherwise_than_given(ledger, &given));
    add(&mut audit, 3, orders::noted_otherwise_than_taken(ledger, &read));
    add(&mut audit, 3, orders::holds_open_or_not(ledger, &read));
    audit
}

fn add(audit: &mut Audit, invariant: u8, found: impl Iterator<Item = Breach>) {
    audit.add(invariant, found.take(LIMIT).collect());
}
