//! What is kept: the tables of a database, as maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::ledger::{
    Changes, CommandKey, CommandKind, Decision, HeldProgram, Id, Item, Level, Map, NextOffset, OrderState,
    Seq, Stamp, TopicId, TopicPartition,
};
use crate::store::programs::with_change;
use crate::store::{
    Advance, DueHold, Incarnation, ItemLevel, MAX_BATCH, Position, StoreError, StoredMovement, StoredOrder,
    first_seq_of, stored_order,
};

/// What is committed.
#[derive(Default, Clone)]
pub(super) struct Ledger {
    pub(super) group: Option<String>,
    pub(super) levels: BTreeMap<Item, Level>,
    /// In the ledger's order.
    pub(super) decisions: BTreeMap<Seq, Arc<Decision>>,
    /// Where each command's decision stands.
    sequences: Map<CommandKey, Seq>,
    /// What each decision moved, by item.
    pub(super) movements: BTreeMap<Seq, Vec<StoredMovement>>,
    /// Orders that held or gave something back.
    pub(super) orders: BTreeMap<Id, OrderState>,
    /// Until when the end of a hold is somebody's to ask for.
    pub(super) asked_until: Map<Id, Stamp>,
    pub(super) positions: HashMap<TopicPartition, Position>,
    /// Which topic a partition's decisions are of, from a ledger sequence on.
    incarnations: BTreeMap<(TopicPartition, Seq), TopicId>,
    /// Which programs read the records of each partition, sorted by partition and offset.
    pub(super) programs: Vec<HeldProgram>,
    pub(super) unannounced: BTreeSet<Item>,
    /// The last ledger sequence drawn.
    pub(super) drawn: i64,
}

/// What a batch's transaction writes when it commits.
#[derive(Default)]
pub(super) struct Writes {
    /// Levels made to follow from their movements, before the batch was decided.
    pub(super) repaired: Map<Item, Level>,
    pub(super) changes: Changes,
    pub(super) advances: Vec<Advance>,
}

impl Ledger {
    /// The decision of a command.
    pub(super) fn decision(&self, of: &CommandKey) -> Option<&Arc<Decision>> {
        self.decisions.get(self.sequences.get(of)?)
    }

    /// The decisions of every kind for these ids.
    pub(super) fn decisions_of(&self, ids: &[&Id]) -> Map<CommandKey, Arc<Decision>> {
        ids.iter()
            .flat_map(|id| CommandKind::ALL.into_iter().map(|kind| CommandKey { id: (*id).clone(), kind }))
            .filter_map(|key| self.decision(&key).map(Arc::clone).map(|decision| (key, decision)))
            .collect()
    }

    /// The next levels after an item.
    pub(super) fn levels_after(&self, after: Option<&Item>, limit: usize) -> Vec<ItemLevel> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.levels.range::<Item, _>((from, Unbounded)).take(limit).map(item_level).collect()
    }

    /// What is kept of one order.
    pub(super) fn order(&self, id: &Id) -> Result<Option<StoredOrder>, StoreError> {
        let decisions = stored_order::about(id, self.decisions_of(&[id]));
        if decisions.is_empty() {
            return Ok(None);
        }
        let bare = stored_order::bare_state(id, &decisions)?.remove(id);
        let state = bare.map(|bare| self.orders.get(id).cloned().unwrap_or(bare));
        let sequences = stored_order::sequences(&decisions);
        let movements = sequences.iter().filter_map(|seq| self.movements.get(seq)).flatten().cloned();
        Ok(Some(StoredOrder { decisions, state, movements: movements.collect() }))
    }

    /// How far every partition is applied.
    pub(super) fn next_offsets(&self) -> HashMap<TopicPartition, NextOffset> {
        self.positions.iter().map(|(at, position)| (at.clone(), position.next)).collect()
    }

    /// Which topics the decisions of each partition are of, sorted by partition and ledger sequence.
    pub(super) fn incarnations(&self) -> Vec<Incarnation> {
        let known = self.incarnations.iter();
        known
            .map(|((at, from), topic_id)| Incarnation {
                at: at.clone(),
                topic_id: topic_id.clone(),
                from: *from,
            })
            .collect()
    }

    /// Orders whose hold is over at this time, the longest over first, with its end.
    pub(super) fn holds_over(&self, at: Stamp) -> Vec<(Stamp, DueHold)> {
        let mut over: Vec<(Stamp, DueHold)> = self
            .orders
            .iter()
            .filter_map(|(id, state)| Some((id, state.hold.as_ref()?)))
            .filter(|(_, hold)| hold.expires_at <= at)
            .map(|(id, hold)| (hold.expires_at, DueHold { order_id: id.clone(), at: hold.at.clone() }))
            .collect();
        // Stable: those that are over since the same moment stay in the order of their ids.
        over.sort_by_key(|(end, _)| *end);
        over
    }

    /// States a position if it still is what it `was`, and notes a new id of its topic.
    pub(super) fn set_position(
        &mut self,
        at: &TopicPartition,
        was: Option<&Position>,
        now: &Position,
    ) -> Result<(), StoreError> {
        if self.positions.get(at) != was {
            return Err(StoreError::PositionChanged { at: at.clone() });
        }
        self.positions.insert(at.clone(), now.clone());
        if let Some(topic_id) = &now.topic_id
            && was.and_then(|was| was.topic_id.as_ref()) != Some(topic_id)
        {
            let from = first_seq_of(was, Seq(self.drawn + 1));
            self.incarnations.insert((at.clone(), from), topic_id.clone());
        }
        Ok(())
    }

    /// States which program reads these partitions from these offsets on; all that is kept then.
    pub(super) fn hold_programs(&mut self, now: &[HeldProgram]) -> Vec<HeldProgram> {
        for now in now {
            self.programs = with_change(std::mem::take(&mut self.programs), now);
        }
        self.programs.clone()
    }

    /// Draws a batch's ledger sequences. The first of them.
    pub(super) fn draw(&mut self) -> Seq {
        let first = Seq(self.drawn + 1);
        // Holds because a batch has no more, and a ledger in memory has few.
        self.drawn += i64::try_from(MAX_BATCH).expect("a hundred thousand");
        first
    }

    /// Lets the next batch begin after this ledger sequence.
    pub(super) fn draw_through(&mut self, last: Seq) {
        self.drawn = self.drawn.max(last.0);
    }

    /// Writes what a batch's transaction has to write: all of it or, where a ledger sequence is taken, nothing.
    pub(super) fn commit(&mut self, writes: Writes) -> Result<(), StoreError> {
        let Writes { repaired, changes, advances } = writes;
        if let Some(taken) = changes.decisions.iter().find(|made| self.decisions.contains_key(&made.seq)) {
            return Err(StoreError::Damaged {
                what: format!("a decision at ledger sequence {} already", taken.seq),
            });
        }
        self.levels.extend(repaired);
        self.levels.extend(changes.levels);
        for made in changes.decisions {
            self.sequences.insert(made.key.clone(), made.seq);
            self.decisions.insert(made.seq, made);
        }
        for (id, state) in changes.orders {
            self.asked_until.remove(&id);
            self.orders.insert(id, state);
        }
        for movement in &changes.movements {
            if movement.source.is_none() {
                self.unannounced.insert(movement.item.clone());
            }
            // By item, as the lines of a decision are.
            self.movements.entry(movement.seq).or_default().push(StoredMovement::of(movement));
        }
        for Advance { at, next, published, .. } in advances {
            let position =
                self.positions.entry(at).or_insert(Position { next, published: None, topic_id: None });
            position.next = position.next.max(next);
            position.published = position.published.max(published);
        }
        Ok(())
    }
}

pub(super) fn item_level((item, level): (&Item, &Level)) -> ItemLevel {
    ItemLevel { item: item.clone(), level: *level }
}
