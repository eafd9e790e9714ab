//! Batches decided on levels that are remembered: the reading goes, and nothing else.
//!
//! | # | step | where |
//! |---|---|---|
//! | 1 | take the levels of the batch's items from memory, and read those that are not there, without locks | a trip where some are not |
//! | 2 | decide, at ledger sequences from 0 on | in memory |
//! | 3 | begin, and pass the gate | a trip |
//! | 4 | lock all these levels in item order, compare each with what was decided on, and write them | one trip: the guard |
//! | 5 | lock and read the positions | a trip |
//! | 6 | read cancellations; draw the batch's ledger sequences, and put the decisions there | a trip |
//! | 7 | write positions, decisions, movements | as every batch |
//! | 8 | commit; what was written is what is remembered from here on | a trip |
//!
//! So what is locked, in which order, and what is looked at after that are as in [`super::apply`]; only that a level is
//! compared where it is, and not sent here and back. A batch that cannot go this way goes by [`super::apply`], the usual
//! way:
//!
//! * before it begins: where a verdict rests on more than levels ([`Command::rests_on_levels`]), an item has no level yet
//!   (that there is none is never remembered), or limits change;
//! * at the guard, when a level is not as remembered: somebody else wrote it. Then all is forgotten, and the next
//!   [`USUAL_BATCHES`] batches go the usual way at once;
//! * after it, when a record lies below its position (somebody else applied it, and all is forgotten too), or an order was
//!   cancelled before it came.
//!
//! An id that was decided before is refused by its key, here as there, and then ids are looked up for a while, the usual
//! way.
//!
//! Why it is exact: a verdict rests on the values of its levels, by a pure function; the guard compares all of them, each
//! in a row that is locked until the commit. So whatever is remembered, however old or wrong, what is written was decided
//! on what is there. What is remembered decides only how often the guard holds. ARCHITECTURE.md has the whole argument.

mod memory;

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::apply::{self, IdLookup, LedgerTx};
use super::{Applied, CommandBatch, StoreError};
use crate::ledger::{Changes, Id, Item, Level, Map, Sequences, View, decide};
use memory::Levels;

#[cfg(doc)]
use crate::ledger::Command;

/// Batches that go the usual way at once after a guard that did not hold. Such a batch is done twice, so where others write
/// the same levels all the time it costs a hundredth.
const USUAL_BATCHES: usize = 100;

/// A level that a batch was decided on, and what the batch makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedLevel<'a> {
    /// Which item's.
    pub(super) item: &'a Item,
    /// What it must be.
    pub(super) before: Level,
    /// What it is after the batch, with the same limits; the same in all where the batch does not move it.
    pub(super) after: Level,
}

/// What this way needs of a database besides.
#[async_trait]
pub(super) trait GuardedTx<'c>: LedgerTx<'c> {
    /// Reads the levels of these items, sorted and each once, without locks; unknown ones are absent.
    async fn read_levels(
        connection: &mut Self::Connection,
        items: &[&Item],
    ) -> Result<Map<Item, Level>, StoreError>;

    /// In place of [`LedgerTx::lock_levels`]: locks these levels, sorted by item and each once, in that order, compares them
    /// under the locks, and writes them, so that [`LedgerTx::write`] writes none. Whether every one was as
    /// expected; where not, the transaction is to be dropped.
    async fn move_levels(&mut self, levels: &[ExpectedLevel<'_>]) -> Result<bool, StoreError>;
}

/// What a session remembers between batches. It is of one connection: on another it has nothing.
#[derive(Debug, Default)]
pub(super) struct SessionMemory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    is_on: bool,
    /// The connection, by its epoch, that the levels were committed or read on.
    epoch: u64,
    /// `None` while a batch is under way, and after one that failed.
    levels: Option<Levels>,
    /// Batches left of [`USUAL_BATCHES`].
    usual_batches: usize,
}

impl SessionMemory {
    /// Whether levels are remembered from here on.
    pub(super) fn turn(&self, on: bool) {
        *self.kept() = Kept { is_on: on, ..Kept::default() };
    }

    /// Forgets all levels.
    pub(super) fn forget(&self) {
        self.kept().levels = None;
    }

    /// Takes what is remembered out, for one batch on the connection of this epoch.
    pub(super) fn take(&self, epoch: u64) -> Remembered<'_> {
        let mut kept = self.kept();
        let levels = if !kept.is_on {
            None
        } else if kept.usual_batches > 0 {
            kept.usual_batches -= 1;
            None
        } else {
            Some(kept.levels.take().filter(|_| kept.epoch == epoch).unwrap_or_default())
        };
        Remembered { memory: self, epoch, levels }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered, taken out for a batch. It is put back by a batch that was committed and acknowledged, and by nothing
/// else: whatever fails, is given up or gets no answer leaves nothing remembered.
pub(super) struct Remembered<'m> {
    memory: &'m SessionMemory,
    epoch: u64,
    /// `None` where this batch is to go the usual way, and leaves nothing.
    levels: Option<Levels>,
}

/// A batch on its way: what it answers, or `None` where nothing was written and it is to go the usual way.
type Trying<'c> = Pin<Box<dyn Future<Output = Result<Option<Applied>, StoreError>> + Send + 'c>>;

impl Remembered<'_> {
    /// Applies a batch on what is remembered, where it can go this way: one try.
    pub(super) fn apply<'c, T: GuardedTx<'c> + 'c>(
        &'c mut self,
        connection: &'c mut T::Connection,
        batch: &'c CommandBatch,
        ids: IdLookup,
    ) -> Trying<'c> {
        Box::pin(async move {
            let Some(levels) = self.levels.as_mut() else { return Ok(None) };
            if ids != IdLookup::New || !rests_on_levels(batch) {
                return Ok(None);
            }
            let none = Map::default();
            let items = apply::items(batch, &none);
            let Some(before) = recall::<T>(levels, connection, &items).await? else { return Ok(None) };
            let view = View {
                levels: items.iter().copied().cloned().zip(before.iter().copied()).collect(),
                ..View::default()
            };
            let mut changes = decide(view, &batch.requests, |_| false, Sequences::UNPLACED);
            let Some(expected) = expected(&items, &before, &changes) else { return Ok(None) };

            let (mut tx, _) = T::begin(connection, batch, &[]).await?;
            if !tx.move_levels(&expected).await? {
                tracing::debug!("a level is not as remembered: batches lock and read them for a while");
                self.memory.kept().usual_batches = USUAL_BATCHES;
                self.levels = None;
                return Ok(None);
            }
            let positions =
                apply::find_positions(tx.lock_positions(&batch.advances).await?, &batch.advances)?;
            if batch.advances.iter().any(|advance| positions[&advance.at] != advance.expected) {
                // Somebody else's batch, and so who knows which more.
                self.levels = Some(Levels::default());
                return Ok(None);
            }
            let own: Vec<&Id> = batch.requests.iter().map(|request| &request.command.key.id).collect();
            let (decisions, first) = tx.read_decisions(&own, IdLookup::New).await?;
            if !decisions.is_empty() {
                return Ok(None);
            }
            changes.place(first);
            tx.write(batch, &items, &changes).await?;
            tx.commit().await?;
            for level in &expected {
                levels.remember(level.item, level.after);
            }
            self.keep();
            Ok(Some(Applied { on_remembered: true, ..apply::applied(changes) }))
        })
    }

    /// Puts back what is remembered, as a batch left it that went the usual way and was committed.
    pub(super) fn after(mut self, applied: &Applied) {
        if let Some(levels) = &mut self.levels {
            for (item, level) in &applied.levels {
                levels.update(item, *level);
            }
        }
        self.keep();
    }

    fn keep(&mut self) {
        if let Some(levels) = self.levels.take() {
            let mut kept = self.memory.kept();
            (kept.epoch, kept.levels) = (self.epoch, Some(levels));
        }
    }
}

/// Whether all of a batch's verdicts rest on levels.
fn rests_on_levels(batch: &CommandBatch) -> bool {
    !batch.requests.is_empty() && batch.requests.iter().all(|request| request.command.rests_on_levels())
}

/// The levels of these items, from memory, or read where they are not there; `None` when one has none.
async fn recall<'c, T: GuardedTx<'c>>(
    levels: &mut Levels,
    connection: &mut T::Connection,
    items: &[&Item],
) -> Result<Option<Vec<Level>>, StoreError> {
    let unknown: Vec<&Item> = items.iter().copied().filter(|item| levels.get(item).is_none()).collect();
    if !unknown.is_empty() {
        for (item, level) in T::read_levels(connection, &unknown).await? {
            levels.remember(&item, level);
        }
    }
    Ok(items.iter().map(|item| levels.get(item)).collect())
}

/// What the guard is to compare and write: all levels of the batch's items, in their order. `None` when limits change.
fn expected<'a>(items: &[&'a Item], before: &[Level], changes: &Changes) -> Option<Vec<ExpectedLevel<'a>>> {
    let mut moved = changes.levels.iter().peekable();
    let expected = items.iter().zip(before).map(|(item, before)| {
        // Both in item order, and what moved is among the items.
        let after = moved.next_if(|(at, _)| at == *item).map_or(*before, |(_, after)| *after);
        (after.limits == before.limits).then_some(ExpectedLevel { item, before: *before, after })
    });
    expected.collect()
}
