//! The gates that batches pass, and how their transactions begin.
//!
//! Two batches meet at the levels' locks. Where there is no level to meet at, they meet at a gate, an advisory lock.
//!
//! Commands of one order are on one partition, and so never in two batches at once. A producer that does not key its
//! records breaks that: an order and its cancellation may then be decided by two instances at the same time, and
//! neither sees the other, since a cancellation does not know the SKUs of an order that is not decided yet. So every batch
//! passes a gate that it shares with all others, and a batch that is about to remember such a cancellation has it for
//! itself. So has one with a return, say, of an order that is not decided, or was rejected and came by another partition: the
//! return is rejected, and must stand before an order or a cancellation that is decided at the same time.
//!
//! An item that has no level is the other case: an order for it is rejected, and must stand before the item's first level
//! in the ledger's order. So a batch that found no level for one of its items passes a second gate, the items'. It shares
//! it with all that found none, and has it for itself where it may state a first level. ARCHITECTURE.md says why that keeps
//! the order, and why nobody waits there in a circle.

use std::sync::Arc;

use sqlx::{Executor as _, PgConnection};

use super::failure::failed;
use super::levels::{self, LevelRows};
use crate::ledger::{Action, CommandKey, CommandKind, Decision, Item, Level, Map, Request, Set, Source};
use crate::store::apply::UnknownItems;
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

/// Through the items' gate, whose number is the next one: shared with all that found no level for an item,
const MEET_SHARED: &str = "SELECT pg_advisory_xact_lock_shared(7309940776305091938)";
/// or alone until the batch ends.
const MEET_ALONE: &str = "SELECT pg_advisory_xact_lock(7309940776305091938)";

/// How a batch's transaction begins, by what the orders that its commands follow are decided to be.
pub(super) fn begin_of(batch: &CommandBatch, decided: &Map<CommandKey, Arc<Decision>>) -> &'static str {
    if meets_order_at_gate(batch, decided) { BEGIN_ALONE } else { BEGIN_SHARED }
}

/// Passes the items' gate, after the levels that there are were locked and before ledger sequences are drawn. Locks the
/// levels that items have by now, as [`levels::lock`] does.
///
/// # Errors
/// [`StoreError::ConcurrentChange`] when somebody else has one of these: who does may wait at this gate.
pub(super) async fn meet_at_items(
    connection: &mut PgConnection,
    unknown: &UnknownItems<'_>,
) -> Result<(Map<Item, Level>, LevelRows), StoreError> {
    let meet = if unknown.may_begin { MEET_ALONE } else { MEET_SHARED };
    connection.execute(meet).await.map_err(failed("waiting for who states first levels"))?;
    // A statement of its own, whose snapshot holds what was committed while the batch waited. Nothing is added to that while
    // the batch has the gate.
    let begun = levels::count(connection, &unknown.items).await?;
    if begun == 0 {
        return Ok((Map::default(), vec![None; unknown.items.len()]));
    }
    let (found, rows) = levels::lock_free(connection, &unknown.items).await?;
    if found.len() == begun { Ok((found, rows)) } else { Err(StoreError::ConcurrentChange) }
}

/// Whether the batch follows an order at whose levels it does not meet who decides it: one that is not decided; or one that
/// was rejected, and another partition's, from which it may be cancelled at the same time. Not where the order is in the
/// batch itself: another instance that decides it too meets this batch's decision.
fn meets_order_at_gate(batch: &CommandBatch, decided: &Map<CommandKey, Arc<Decision>>) -> bool {
    let mut unmet: Set<CommandKey> = batch
        .requests
        .iter()
        .filter_map(|Request { command, source }| {
            let order = CommandKey { id: command.follows()?.clone(), kind: CommandKind::OrderCreated };
            let is_met = match decided.get(&order) {
                // A verifier asks it by itself, and only of an order that has a hold.
                _ if command.action == Action::Expire => true,
                // What comes by one partition is decided one after the other anyway.
                Some(decision) => {
                    decision.accepted || are_of_one_partition(decision.source.as_ref(), source.as_ref())
                }
                None => false,
            };
            (!is_met).then_some(order)
        })
        .collect();
    if !unmet.is_empty() {
        for request in &batch.requests {
            unmet.remove(&request.command.key);
        }
    }
    !unmet.is_empty()
}

fn are_of_one_partition(one: Option<&Source>, other: Option<&Source>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.at == other.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Command, Digest, Id, Offset, Seq, Stamp, TopicPartition};

    /// A command that came by this partition.
    fn by(partition: i32, command: Command) -> Request {
        let at = TopicPartition::new("orders", partition);
        Request { command, source: Some(Source { at, offset: Offset(7) }) }
    }

    #[test]
    fn only_what_does_not_meet_its_order_elsewhere_has_the_gate_alone() {
        let id = || Id::new("o-1").unwrap();
        let key = CommandKey { id: id(), kind: CommandKind::OrderCreated };
        let decided = |accepted| {
            let Request { source, .. } = by(0, Command::order_cancelled(id()));
            let decision = Decision {
                key: key.clone(),
                seq: Seq(1),
                decided_at: Stamp(0),
                digest: Digest([0; 16]),
                accepted,
                detail: "{}".to_owned(),
                source,
            };
            Map::from_iter([(key.clone(), Arc::new(decision))])
        };
        let is_alone = |partition, command: Command, decided: &Map<CommandKey, Arc<Decision>>| {
            let batch = CommandBatch { requests: vec![by(partition, command)], ..CommandBatch::default() };
            begin_of(&batch, decided) == BEGIN_ALONE
        };
        let released = || Command::order_released(id());
        assert!(is_alone(0, released(), &Map::default()), "nobody knows the order");
        assert!(!is_alone(1, released(), &decided(true)), "its levels are locked");
        assert!(
            !is_alone(0, released(), &decided(false)),
            "it was rejected, and all else of it comes by this partition"
        );
        assert!(is_alone(1, released(), &decided(false)), "a cancellation may come by the other");
    }

    #[test]
    fn each_gate_has_one_number() {
        for begin in [BEGIN_SHARED, BEGIN_ALONE, BEGIN_READING] {
            assert!(begin.contains(&format!("({GATE})")), "{begin}");
        }
        for meet in [MEET_SHARED, MEET_ALONE] {
            assert!(meet.contains(&format!("({})", GATE + 1)), "{meet}");
        }
    }
}
