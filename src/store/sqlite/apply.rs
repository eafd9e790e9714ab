//! Applying a batch within the transaction that has the file's write lock: read, decide in memory, write. The module above
//! lists the statements.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sqlx::SqliteConnection;

use super::{database, now, orders, rows};
use crate::ledger::{
    CommandKey, Decision, Id, Item, Map, NextOffset, OrderState, Sequenced, Sequences, TopicPartition, View,
    decide,
};
use crate::store::{
    Applied, CommandBatch, StoreError, find_positions, followed_orders, is_below, order_states,
};

/// Applies a batch.
pub(super) async fn apply(conn: &mut SqliteConnection, batch: &CommandBatch) -> Result<Applied, StoreError> {
    let read = Found::read(conn, batch).await?.read_stock(conn, batch).await?;
    let sequences = Sequences::From(read.next);
    read.decide_and_write(conn, batch, sequences).await
}

/// What a batch finds, before the levels.
pub(super) struct Found {
    positions: HashMap<TopicPartition, NextOffset>,
    decisions: Map<CommandKey, Arc<Decision>>,
    /// The accepted orders that the batch's commands follow.
    states: Map<Id, OrderState>,
}

impl Found {
    pub(super) async fn read(conn: &mut SqliteConnection, batch: &CommandBatch) -> Result<Self, StoreError> {
        let found = rows::read_positions(conn, batch.advances.iter().map(|advance| &advance.at))
            .await
            .map_err(database("reading positions"))?;
        let positions = find_positions(found, &batch.advances)?;

        let followed = followed_orders(batch);
        let own = batch.requests.iter().map(|request| &request.command.key.id);
        let ids: BTreeSet<&Id> = own.chain(followed.iter().copied()).collect();
        let decisions = rows::read_decisions(conn, &ids).await?;
        let states = order_states(&decisions, &followed)?;
        Ok(Self { positions, decisions, states })
    }

    /// The items whose levels the batch may change.
    pub(super) fn items<'a>(&'a self, batch: &'a CommandBatch) -> BTreeSet<&'a Item> {
        let asked = batch.requests.iter().flat_map(|request| request.command.items());
        let taken = self.states.values().flat_map(|state| state.lines.iter().map(|line| &line.item));
        asked.chain(taken).collect()
    }

    /// Reads levels and what orders have, and draws the batch's ledger sequences.
    pub(super) async fn read_stock(
        mut self,
        conn: &mut SqliteConnection,
        batch: &CommandBatch,
    ) -> Result<Read, StoreError> {
        let levels = rows::read_levels(conn, &self.items(batch)).await?.into_iter().collect();
        orders::read_lines(conn, &mut self.states).await?;
        orders::read_holds(conn, &mut self.states).await?;
        let Self { positions, decisions, states: orders } = self;
        let held: HashSet<Id> =
            orders.iter().filter(|(_, state)| state.hold.is_some()).map(|(id, _)| id.clone()).collect();
        // The write lock is held, so nobody else draws the same sequences.
        let seq = rows::next_seq(conn).await.map_err(database("drawing ledger sequences"))?;
        let next = Sequenced { seq, at: now() };
        Ok(Read { view: View { levels, decisions, orders }, positions, held, next })
    }
}

/// What a batch decides on.
pub(super) struct Read {
    view: View,
    positions: HashMap<TopicPartition, NextOffset>,
    /// The orders that hold something.
    held: HashSet<Id>,
    /// The first of the ledger sequences drawn for it, and its time.
    pub(super) next: Sequenced,
}

impl Read {
    pub(super) async fn decide_and_write(
        self,
        conn: &mut SqliteConnection,
        batch: &CommandBatch,
        sequences: Sequences<'_>,
    ) -> Result<Applied, StoreError> {
        let below = |request: &_| is_below(&self.positions, request);
        let changes = decide(self.view, &batch.requests, below, sequences);

        rows::write_levels(conn, &changes.levels).await?;
        rows::write_decisions(conn, &changes.decisions).await?;
        rows::write_movements(conn, &changes.movements).await?;
        orders::write_lines(conn, &changes.orders).await?;
        orders::write_holds(conn, &changes.orders, &self.held).await?;
        orders::write_unannounced(conn, &changes.movements).await?;
        rows::advance_positions(conn, &batch.advances).await?;
        Ok(Applied { outcomes: changes.outcomes, levels: changes.levels })
    }
}
