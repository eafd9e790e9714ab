//! The gate that batches pass, and how their transactions begin.
//!
//! Commands of one order are on one partition, and so never in two batches at once. A producer that does not key its
//! records breaks that: an order and its cancellation may then be decided by two instances at the same time, and
//! neither sees the other. Every other pair meets at the levels' locks; this one has none, since a cancellation does
//! not know the SKUs of an order that is not decided yet. So every batch passes a gate that it shares with all others,
//! and a batch that is about to remember such a cancellation has it for itself. So has one that states the first level
//! of an item, which orders for it cannot meet either.

use std::sync::Arc;

use sqlx::PgConnection;

use super::{failed, rows};
use crate::ledger::{Action, CommandKey, CommandKind, Decision, Id, Item, Map, Set};
use crate::store::{CommandBatch, StoreError};

/// The gate's number, this program's own among advisory locks.
pub(super) const GATE: i64 = 7_309_940_776_305_091_937;

/// How a batch begins: one message, whatever is usual on this server, for this role or database.
///
/// Each statement sees what was committed before it: with another isolation, what was decided while the batch waited
/// at the gate or for a lock would go unseen. And no result is published before its decision is durable here and on
/// whatever standby a commit waits for; who asked for more than that (`remote_apply`) keeps it. Not `READ WRITE`: who
/// made the database read-only, as when its disk is nearly full, means us too.
macro_rules! begin {
    ($($gate:literal)?) => {
        concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT ",
            $($gate,)?
            "set_config('synchronous_commit',
                 CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
        )
    };
}
/// Through the gate, which many batches pass at once.
pub(super) const BEGIN_SHARED: &str = begin!("pg_advisory_xact_lock_shared(7309940776305091937), ");
/// Alone behind the gate until the batch ends.
pub(super) const BEGIN_ALONE: &str = begin!("pg_advisory_xact_lock(7309940776305091937), ");
/// What is no batch needs no gate.
pub(super) const BEGIN: &str = begin!();
/// Reads, once no batch of a distributed ledger is under way, and holds up the next.
pub(super) const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SELECT pg_advisory_xact_lock_shared(7309940776305091937)";

/// How a batch's transaction begins, by what the orders that its commands follow are decided to be.
pub(super) async fn begin_of(
    connection: &mut PgConnection,
    batch: &CommandBatch,
    decided: &Map<CommandKey, Arc<Decision>>,
) -> Result<&'static str, StoreError> {
    let alone = remembers_cancellation(batch, decided) || begins_items(connection, batch).await?;
    Ok(if alone { BEGIN_ALONE } else { BEGIN_SHARED })
}

/// Whether the batch cancels an order that is neither decided yet nor in the batch itself: with the latter another
/// instance that decides it too meets this batch's decision.
fn remembers_cancellation(batch: &CommandBatch, decided: &Map<CommandKey, Arc<Decision>>) -> bool {
    let created = |id: &Id| CommandKey { id: id.clone(), kind: CommandKind::OrderCreated };
    let mut unknown: Set<CommandKey> = batch
        .requests
        .iter()
        .filter(|request| request.command.action == Action::Cancel)
        .map(|request| created(&request.command.key.id))
        .filter(|key| !decided.contains_key(key))
        .collect();
    if !unknown.is_empty() {
        for request in &batch.requests {
            unknown.remove(&request.command.key);
        }
    }
    !unknown.is_empty()
}

/// Whether the batch states the first level of an item. There is no level yet that would make batches meet: an order for
/// it could be rejected at a later ledger sequence than this, without having seen it.
async fn begins_items(connection: &mut PgConnection, batch: &CommandBatch) -> Result<bool, StoreError> {
    let begun: Set<&Item> = batch
        .requests
        .iter()
        .filter_map(|request| match &request.command.action {
            Action::Receive { item, .. } | Action::Set { item, .. } => Some(item),
            _ => None,
        })
        .collect();
    if begun.is_empty() {
        return Ok(false);
    }
    let (skus, locations) = rows::item_columns(begun.iter().copied());
    let known: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location)
                              JOIN levels USING (sku, location)",
    )
    .bind(skus)
    .bind(locations)
    .fetch_one(connection)
    .await
    .map_err(failed("looking up items"))?;
    Ok(usize::try_from(known) != Ok(begun.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_has_one_number() {
        for begin in [BEGIN_SHARED, BEGIN_ALONE, BEGIN_READING] {
            assert!(begin.contains(&format!("({GATE})")), "{begin}");
        }
    }
}
