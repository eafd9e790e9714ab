//! The ledger's past: what levels and orders were at each ledger sequence, and whether the rules decide the same
//! there again.

use std::sync::Arc;

use super::decide::order_state;
use super::{
    Adjusted, Changes, Command, CommandKey, CommandKind, Decision, Hold, Id, Item, Level, Map, Movement,
    OrderState, Outcome, Request, Seq, Sequenced, Sequences, Set, View, decide, reconstruct,
};

/// A decision of the past.
#[derive(Debug, Clone)]
pub struct Step {
    /// The decision, as stored.
    pub decision: Arc<Decision>,
    /// What it moved, as stored, sorted by item.
    pub movements: Vec<Movement>,
    /// The command, read again from its record; `None` where there is no record, and the decision says what was asked.
    pub command: Option<Command>,
}

/// A decision that the rules do not make again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The command.
    pub key: CommandKey,
    /// Its decision's ledger sequence.
    pub seq: Seq,
    /// How what the rules decide differs from what is stored.
    pub how: Differs,
}

/// How what the rules decide differs from what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    /// The hold was not over, so nothing is decided; this is stored.
    NotDue(DecisionExcerpt),
    /// The same command is decided twice.
    Twice,
    /// Its record asks for something else than what was decided.
    Content,
    /// Another decision.
    Decision {
        /// As stored.
        stored: DecisionExcerpt,
        /// As the rules make it.
        again: DecisionExcerpt,
    },
    /// The same decision, other movements.
    Movements {
        /// As stored.
        stored: Vec<Movement>,
        /// As the rules make them.
        again: Vec<Movement>,
    },
}

/// Longest part of a decision's detail that an excerpt has, in bytes.
const EXCERPT: usize = 300;

/// The beginning of a decision, for people: of a whole one, a cart of a thousand lines would fill the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionExcerpt {
    /// Whether it was accepted.
    pub accepted: bool,
    /// The beginning of its detail.
    pub detail: String,
    /// Whether the detail goes on.
    pub is_cut: bool,
}

impl DecisionExcerpt {
    fn of(decision: &Decision) -> Self {
        let detail = &decision.detail;
        let end =
            (0..=EXCERPT.min(detail.len())).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or(0);
        Self { accepted: decision.accepted, detail: detail[..end].to_owned(), is_cut: end < detail.len() }
    }
}

/// What was, up to a ledger sequence.
///
/// Holds a level for each item, and an order's state for each that held or gave something back: some 300 bytes each.
#[derive(Debug, Default)]
pub struct ReplayState {
    levels: Map<Item, Level>,
    orders: Map<Id, OrderState>,
    /// Cancellations that found nothing to give back: perhaps of orders that came later.
    cancelled: Set<Id>,
}

impl ReplayState {
    /// The level of an item; `None` when it was unknown.
    #[must_use]
    pub fn level(&self, item: &Item) -> Option<Level> {
        self.levels.get(item).copied()
    }

    /// The open hold of an order.
    #[must_use]
    pub fn hold(&self, order_id: &Id) -> Option<&Hold> {
        self.orders.get(order_id).and_then(|order| order.hold.as_ref())
    }

    /// The orders whose decisions must be at hand to go on with these steps.
    #[must_use]
    pub fn needs(&self, steps: &[Step]) -> Set<Id> {
        let follows = |step: &Step| match &step.command {
            Some(command) => command.follows().cloned(),
            None => step.decision.follows(),
        };
        let cancelled = |step: &&Step| {
            step.decision.key.kind == CommandKind::OrderCreated
                && self.cancelled.contains(&step.decision.key.id)
        };
        steps
            .iter()
            .filter_map(follows)
            .chain(steps.iter().filter(cancelled).map(|step| step.decision.key.id.clone()))
            .collect()
    }

    /// Decides the next steps again, in their order, and compares: where the rules decide otherwise, what is stored
    /// counts for what follows. `known` holds all decisions of the orders that [`ReplayState::needs`] names.
    pub fn go_on(&mut self, steps: &[Step], known: &Map<CommandKey, Arc<Decision>>) -> Vec<Difference> {
        let mut differences = Vec::new();
        self.compare(steps, known, &mut differences);
        differences
    }

    /// Goes on with these steps if the rules decide all of them the same again, whatever they moved; else goes nowhere.
    /// For a caller who knows by other means that decisions and movements agree.
    #[must_use]
    pub fn go_on_if_same(&mut self, steps: &[Step], known: &Map<CommandKey, Arc<Decision>>) -> bool {
        let Some(first) = steps.first() else { return true };
        let changes = self.again(steps, first.decision.seq, known);
        let same =
            steps.iter().zip(&changes.outcomes).all(|(step, outcome)| difference(step, outcome).is_none());
        if same {
            self.adopt(steps, changes);
        }
        same
    }

    fn again(&self, steps: &[Step], first: Seq, known: &Map<CommandKey, Arc<Decision>>) -> Changes {
        let requests = self.requests(steps);
        let sequences: Vec<Sequenced> = steps
            .iter()
            .map(|step| Sequenced { seq: step.decision.seq, at: step.decision.decided_at })
            .collect();
        decide(self.view(&requests, first, known), &requests, |_| false, Sequences::Given(&sequences))
    }

    /// All at once, since nearly always nothing differs; where something does, each half by itself.
    fn compare(
        &mut self,
        steps: &[Step],
        known: &Map<CommandKey, Arc<Decision>>,
        differences: &mut Vec<Difference>,
    ) {
        let (first, last) = match steps {
            [] => return,
            [first, .., last] => (first, last),
            [only] => (only, only),
        };
        debug_assert!(first.decision.seq <= last.decision.seq);
        let changes = self.again(steps, first.decision.seq, known);
        if steps.iter().zip(&changes.outcomes).all(|(step, outcome)| difference(step, outcome).is_none())
            && moved_the_same(steps, &changes)
        {
            self.adopt(steps, changes);
        } else if steps.len() > 1 {
            // What one half decides the other must know.
            let mut known = known.clone();
            known.extend(steps.iter().map(|step| (step.decision.key.clone(), Arc::clone(&step.decision))));
            let (before, after) = steps.split_at(steps.len() / 2);
            self.compare(before, &known, differences);
            self.compare(after, &known, differences);
        } else {
            let how = difference(first, &changes.outcomes[0]).unwrap_or_else(|| Differs::Movements {
                stored: first.movements.clone(),
                again: changes.movements.clone(),
            });
            differences.push(Difference { key: first.decision.key.clone(), seq: first.decision.seq, how });
            self.adopt_stored(first, changes);
        }
    }

    fn requests(&self, steps: &[Step]) -> Vec<Request> {
        steps
            .iter()
            .map(|step| {
                let command = step.command.clone().unwrap_or_else(|| self.as_decided(&step.decision));
                Request { command, source: step.decision.source.clone() }
            })
            .collect()
    }

    fn as_decided(&self, decision: &Decision) -> Command {
        let follows = (decision.key.kind == CommandKind::HoldExtended).then(|| decision.follows()).flatten();
        let hold = follows.and_then(|order| self.orders.get(&order)).and_then(|order| order.hold.as_ref());
        let available = |item: &Item| self.levels.get(item).map_or(0, |level| level.available);
        Command {
            key: decision.key.clone(),
            digest: decision.digest,
            // A text that is not readable differs from whatever is decided of nothing.
            action: reconstruct(decision, hold, available).unwrap_or(super::Action::Refuse(Vec::new())),
            refused_as: None,
        }
    }

    /// What the rules may look at when they decide these, before `first`.
    fn view(&self, requests: &[Request], first: Seq, known: &Map<CommandKey, Arc<Decision>>) -> View {
        let mut view = View::default();
        for request in requests {
            for item in request.command.items() {
                self.see(&mut view, item);
            }
            let id = request.command.follows().unwrap_or(&request.command.key.id);
            let follows = request.command.follows().is_some();
            if !follows && !self.cancelled.contains(id) {
                continue;
            }
            for kind in CommandKind::ALL {
                let key = CommandKey { id: id.clone(), kind };
                if let Some(decision) = known.get(&key).filter(|decision| decision.seq < first) {
                    view.decisions.insert(key, Arc::clone(decision));
                }
            }
            if follows && let Some(state) = self.order(id, &view) {
                for line in &state.lines {
                    self.see(&mut view, &line.item);
                }
                view.orders.insert(id.clone(), state);
            }
        }
        view
    }

    fn see(&self, view: &mut View, item: &Item) {
        if let Some(level) = self.levels.get(item) {
            view.levels.entry(item.clone()).or_insert(*level);
        }
    }

    fn order(&self, id: &Id, view: &View) -> Option<OrderState> {
        self.orders.get(id).cloned().or_else(|| {
            view.accepted(id, CommandKind::OrderCreated).and_then(|created| OrderState::of(created).ok())
        })
    }

    fn adopt(&mut self, steps: &[Step], changes: Changes) {
        self.levels.extend(changes.levels);
        self.orders.extend(changes.orders);
        for step in steps {
            let key = &step.decision.key;
            if key.kind == CommandKind::OrderCancelled && !self.orders.contains_key(&key.id) {
                self.cancelled.insert(key.id.clone());
            }
        }
    }

    /// What is stored counts, as far as it can be read.
    fn adopt_stored(&mut self, step: &Step, mut changes: Changes) {
        let decision = &step.decision;
        let agrees =
            matches!(&changes.outcomes[0], Outcome::Decided(again) if again.accepted == decision.accepted);
        if agrees {
            changes.levels.clear();
            self.adopt(std::slice::from_ref(step), changes);
        } else if decision.accepted
            && decision.key.kind == CommandKind::OrderCreated
            && OrderState::of(decision).is_ok()
        {
            self.orders.insert(decision.key.id.clone(), order_state(decision));
        }
        let limits = (decision.accepted && decision.key.kind == CommandKind::Adjustment)
            .then(|| serde_json::from_str::<Adjusted>(&decision.detail).ok()?.limits)
            .flatten();
        for movement in &step.movements {
            let level = self.levels.entry(movement.item.clone()).or_default();
            level.available = movement.balance;
            level.version = movement.version;
            level.limits = limits.unwrap_or(level.limits);
        }
    }
}

/// What tests look at, and begin from: a ledger's past begins with nothing.
#[cfg(test)]
impl ReplayState {
    /// The levels there are.
    pub(super) fn levels(&self) -> impl Iterator<Item = (&Item, &Level)> {
        self.levels.iter()
    }

    /// Makes levels what the caller says, as if they had been so.
    pub(super) fn assume(&mut self, levels: impl IntoIterator<Item = (Item, Level)>) {
        self.levels.extend(levels);
    }
}

/// How what the rules decide differs from what is stored.
fn difference(step: &Step, outcome: &Outcome) -> Option<Differs> {
    let stored = &step.decision;
    let again = match outcome {
        Outcome::Decided(again) => again,
        Outcome::NotDue => return Some(Differs::NotDue(DecisionExcerpt::of(stored))),
        // Only what a slice holds twice, which the ledger's key forbids.
        _ => return Some(Differs::Twice),
    };
    if again.digest != stored.digest {
        return Some(Differs::Content);
    }
    if again.accepted == stored.accepted && same_text(&again.detail, &stored.detail) {
        return None;
    }
    Some(Differs::Decision { stored: DecisionExcerpt::of(stored), again: DecisionExcerpt::of(again) })
}

/// Whether two details say the same, whoever's version wrote them.
fn same_text(again: &str, stored: &str) -> bool {
    again == stored
        || matches!(
            (serde_json::from_str::<serde_json::Value>(again), serde_json::from_str::<serde_json::Value>(stored)),
            (Ok(again), Ok(stored)) if again == stored
        )
}

fn moved_the_same(steps: &[Step], changes: &Changes) -> bool {
    let stored = steps.iter().flat_map(|step| &step.movements);
    stored.clone().count() == changes.movements.len()
        && stored.zip(&changes.movements).all(|(stored, again)| {
            stored.seq == again.seq
                && stored.item == again.item
                && (stored.version, stored.quantity, stored.balance)
                    == (again.version, again.quantity, again.balance)
        })
}
