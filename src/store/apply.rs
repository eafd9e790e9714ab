//! Applying a batch: begin, lock and read, decide in memory, write, commit. The steps, written once; each database does
//! them its own way behind [`LedgerTx`]. The module of each lists its statements.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Advance, Applied, CommandBatch, StoreError};
use crate::ledger::{
    Action, Changes, CommandKey, CommandKind, Decision, Id, Item, Level, Map, NextOffset, OrderState,
    Request, Sequenced, Sequences, Set, TopicPartition, View, decide,
};

/// What is thought of a batch's command ids before they are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdLookup {
    /// All are new, so that only cancellations made before their orders need to be looked up. When one is not new, the
    /// database's key for decisions refuses it, and the whole batch.
    New,
    /// Some may have been decided before: all are looked up.
    Any,
}

/// Items of a batch that have no level yet.
pub(super) struct UnknownItems<'a> {
    /// Which, sorted.
    pub(super) items: Vec<&'a Item>,
    /// Whether the batch may state the first level of one of them.
    pub(super) may_begin: bool,
}

impl<'a> UnknownItems<'a> {
    /// Those of a batch's items that were not found.
    fn of(batch: &CommandBatch, items: &[&'a Item], found: &Map<Item, Level>) -> Option<Self> {
        let begins = |request: &Request| match &request.command.action {
            Action::Receive { item, .. } | Action::Set { item, .. } => !found.contains_key(item),
            _ => false,
        };
        let unknown = Self::to_begin(items, found)?;
        Some(Self { may_begin: batch.requests.iter().any(begins), ..unknown })
    }

    /// Those of the items that were not found, all to be given a level.
    pub(super) fn to_begin(items: &[&'a Item], found: &Map<Item, Level>) -> Option<Self> {
        if items.len() == found.len() {
            return None;
        }
        let items = items.iter().copied().filter(|item| !found.contains_key(*item)).collect();
        Some(Self { items, may_begin: true })
    }
}

/// What applying a batch needs of a database: one transaction. Its methods are called in the order they stand in. What
/// was done is undone when it is dropped before [`LedgerTx::commit`].
#[async_trait]
pub(super) trait LedgerTx<'c>: Sized + Send {
    /// What a transaction is begun on.
    type Connection: Send;

    /// Begins, so that no batch that commits later can have missed what this one will write. With it the decisions there
    /// are of the orders that the batch's commands follow: they name the levels to lock. A database with many writers
    /// may look them up before it begins; who locks what they name finds out when they changed meanwhile.
    async fn begin(
        connection: &'c mut Self::Connection,
        batch: &CommandBatch,
        followed: &[&Id],
    ) -> Result<(Self, Map<CommandKey, Arc<Decision>>), StoreError>;

    /// Locks the levels of these items, sorted and each once, and reads them; unknown ones are absent.
    async fn lock_levels(&mut self, items: &[&Item]) -> Result<Map<Item, Level>, StoreError>;

    /// Meets all who have items without a level, where there are other writers. Such items have nothing to lock, yet who
    /// found none must draw its ledger sequences before who states the first: so each waits here for the other's end.
    /// Answers with the levels of those that have one by now, locked.
    async fn meet_at_items(&mut self, _: UnknownItems<'_>) -> Result<Map<Item, Level>, StoreError> {
        Ok(Map::default())
    }

    /// Locks the positions of these partitions and reads them; one that the ledger never saw is absent.
    async fn lock_positions(
        &mut self,
        advances: &[Advance],
    ) -> Result<HashMap<TopicPartition, NextOffset>, StoreError>;

    /// Reads the decisions already made for these ids, and draws the batch's ledger sequences: [`super::MAX_BATCH`] of
    /// them. Sees everything that earlier holders of the locks committed.
    async fn read_decisions(
        &mut self,
        ids: &[&Id],
        lookup: IdLookup,
    ) -> Result<(Map<CommandKey, Arc<Decision>>, Sequenced), StoreError>;

    /// Fills in what these orders gave back, and their holds. The locks on their levels keep both as they are.
    async fn read_orders(&mut self, orders: &mut Map<Id, OrderState>) -> Result<(), StoreError>;

    /// Writes what was decided, and the positions. `items` are those whose levels were locked last.
    async fn write(
        &mut self,
        batch: &CommandBatch,
        items: &[&Item],
        changes: &Changes,
    ) -> Result<(), StoreError>;

    /// Makes it durable, and seen by others.
    async fn commit(self) -> Result<(), StoreError>;
}

/// A batch being applied. Boxed, so that who awaits it need not know that each step of its database can be sent: the
/// compiler cannot see that through a lifetime (rust-lang/rust#100013).
pub(super) type Applying<'c> = Pin<Box<dyn Future<Output = Result<Applied, StoreError>> + Send + 'c>>;

/// Applies a batch: one try.
pub(super) fn apply<'c, T: LedgerTx<'c> + 'c>(
    connection: &'c mut T::Connection,
    batch: &'c CommandBatch,
    ids: IdLookup,
) -> Applying<'c> {
    Box::pin(async move {
        let (mut tx, begun) = begin::<T>(connection, batch).await?;
        let items = begun.items(batch);
        let locked = Locked::of(&mut tx, batch, &begun, &items, ids).await?;
        let sequences = Sequences::From(locked.next);
        let changes = locked.decide(batch, sequences);
        tx.write(batch, &items, &changes).await?;
        tx.commit().await?;
        Ok(applied(changes))
    })
}

/// Begins a batch's transaction.
pub(super) async fn begin<'c, 'b, T: LedgerTx<'c>>(
    connection: &'c mut T::Connection,
    batch: &'b CommandBatch,
) -> Result<(T, Begun<'b>), StoreError> {
    let followed = followed_orders(batch);
    let (tx, decisions) = T::begin(connection, batch, &followed).await?;
    let orders = order_states(&decisions, &followed)?;
    Ok((tx, Begun { followed, orders }))
}

/// What a batch answers.
pub(super) fn applied(changes: Changes) -> Applied {
    Applied { outcomes: changes.outcomes, levels: changes.levels }
}

/// What is known when a batch begins.
pub(super) struct Begun<'b> {
    /// The orders that the batch's commands follow.
    followed: Vec<&'b Id>,
    /// Those of them that were accepted by then.
    orders: Map<Id, OrderState>,
}

impl Begun<'_> {
    /// The items whose levels the batch may change, sorted, each once.
    pub(super) fn items<'a>(&'a self, batch: &'a CommandBatch) -> Vec<&'a Item> {
        let followed = self.orders.values().flat_map(|order| order.lines.iter().map(|line| &line.item));
        // Each once before sorting, which compares texts.
        let items: Set<&Item> =
            batch.requests.iter().flat_map(|request| request.command.items()).chain(followed).collect();
        let mut items: Vec<&Item> = items.into_iter().collect();
        items.sort_unstable();
        items
    }
}

/// What a batch decides on, locked.
pub(super) struct Locked {
    view: View,
    positions: HashMap<TopicPartition, NextOffset>,
    /// The first of the ledger sequences drawn for it, and its time.
    pub(super) next: Sequenced,
}

impl Locked {
    /// Locks and reads.
    pub(super) async fn of<'c, T: LedgerTx<'c>>(
        tx: &mut T,
        batch: &CommandBatch,
        begun: &Begun<'_>,
        items: &[&Item],
        lookup: IdLookup,
    ) -> Result<Self, StoreError> {
        let followed = &begun.followed;
        let mut levels = tx.lock_levels(items).await?;
        if let Some(unknown) = UnknownItems::of(batch, items, &levels) {
            levels.extend(tx.meet_at_items(unknown).await?);
        }
        let positions = find_positions(tx.lock_positions(&batch.advances).await?, &batch.advances)?;
        let below = |request: &_| is_below(&positions, request);
        let lookup =
            if followed.is_empty() && !batch.requests.iter().any(below) { lookup } else { IdLookup::Any };
        let own = batch.requests.iter().map(|request| &request.command.key.id);
        let ids: Vec<&Id> = own.chain(followed.iter().copied()).collect();
        let (decisions, next) = tx.read_decisions(&ids, lookup).await?;
        let mut orders = order_states(&decisions, followed)?;
        if !are_locked(&orders, items) {
            return Err(StoreError::ConcurrentChange);
        }
        tx.read_orders(&mut orders).await?;
        Ok(Self { view: View { levels, decisions, orders }, positions, next })
    }

    /// Decides, in memory.
    pub(super) fn decide(self, batch: &CommandBatch, sequences: Sequences<'_>) -> Changes {
        decide(self.view, &batch.requests, |request| is_below(&self.positions, request), sequences)
    }
}

/// The position of each partition of a batch, where a partition the ledger never saw stands where it is expected.
///
/// # Errors
/// [`StoreError::LedgerBehind`] when one is below what the caller knows to be applied, else
/// [`StoreError::PreviousNotCommitted`] when one is below what the batch goes on from.
fn find_positions(
    mut found: HashMap<TopicPartition, NextOffset>,
    advances: &[Advance],
) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
    for Advance { at, expected, applied, .. } in advances {
        let found = *found.entry(at.clone()).or_insert(*expected);
        if found < *expected {
            let at = at.clone();
            return Err(match *applied {
                Some(applied) if found < applied => StoreError::LedgerBehind { at, expected: applied, found },
                _ => StoreError::PreviousNotCommitted { at, expected: *expected, found },
            });
        }
    }
    Ok(found)
}

/// Whether a request's record was applied before, by the positions read under the batch's locks.
fn is_below(positions: &HashMap<TopicPartition, NextOffset>, request: &Request) -> bool {
    request.source.as_ref().is_some_and(|source| {
        positions.get(&source.at).is_some_and(|position| position.covers(source.offset))
    })
}

/// The orders whose life this batch's commands go on with, sorted, each once.
fn followed_orders(batch: &CommandBatch) -> Vec<&Id> {
    let ids: BTreeSet<&Id> = batch.requests.iter().filter_map(|request| request.command.follows()).collect();
    ids.into_iter().collect()
}

/// The accepted ones of these orders as their decisions left them: nothing given back, and no hold.
pub(super) fn order_states(
    decisions: &Map<CommandKey, Arc<Decision>>,
    orders: &[&Id],
) -> Result<Map<Id, OrderState>, StoreError> {
    let mut states = Map::default();
    for id in orders {
        let key = CommandKey { id: (*id).clone(), kind: CommandKind::OrderCreated };
        if let Some(created) = decisions.get(&key).filter(|decision| decision.accepted) {
            let state = OrderState::of(created).map_err(|error| StoreError::Damaged {
                what: format!("a decision for order {id} that is not readable: {error}"),
            })?;
            states.insert(key.id, state);
        }
    }
    Ok(states)
}

/// Whether the levels of all these orders are among the locked items; not those of an order that another batch
/// decided after it was looked up.
fn are_locked(orders: &Map<Id, OrderState>, items: &[&Item]) -> bool {
    orders.values().flat_map(|order| &order.lines).all(|line| items.binary_search(&&line.item).is_ok())
}
