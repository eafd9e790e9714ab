//! Deciding a batch: one pass, in order, over what the store read.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::stock::{self, Change, Levels};
use super::view::View;
use super::{
    Action, Command, CommandKind, Decision, Hold, Id, Item, Level, Limits, Movement, OrderLine, OrderState,
    OrderStock, OrderTaken, Reason, Rejected, Seq, Set, Source, Stamp, Terms, order,
};

/// One command of a batch, with where it came from.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// The record it came from; `None` for an operator's own command.
    pub source: Option<Source>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Decided now: to be written and published.
    Decided(Arc<Decision>),
    /// Decided before, from this very record: to be republished.
    Republished(Arc<Decision>),
    /// The same command, same content, from another record: absorbed.
    Repeated,
    /// The same command id with other content: a dead letter.
    Conflict {
        /// The record that made the first decision, where it had one.
        first: Option<Source>,
    },
    /// A hold that was to end does not, for now or ever: absorbed.
    NotDue,
    /// The ledger's position says this record was applied, yet it has no decision: a dead letter.
    Undecided,
}

/// What a batch changes, and the outcome of each of its commands, in their order.
#[derive(Debug, Default)]
pub struct Changes {
    /// One for each request.
    pub outcomes: Vec<Outcome>,
    /// Decisions made now, in the ledger's order.
    pub decisions: Vec<Arc<Decision>>,
    /// Movements made now, in the ledger's order.
    pub movements: Vec<Movement>,
    /// Levels that changed, with their new value; sorted by item, each once.
    pub levels: Vec<(Item, Level)>,
    /// Orders whose state must be kept or changed, with their new state; sorted by id, each once.
    pub orders: Vec<(Id, OrderState)>,
}

/// A ledger sequence, and the time it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequenced {
    /// Where.
    pub seq: Seq,
    /// When.
    pub at: Stamp,
}

/// The ledger sequences of what is decided.
#[derive(Debug, Clone, Copy)]
pub enum Sequences<'a> {
    /// One after the other from here on, all at this time.
    From(Sequenced),
    /// Those it had before: one for each request.
    Given(&'a [Sequenced]),
}

impl Sequences<'_> {
    /// The ledger sequence of this request, when so many are decided before it.
    fn of(self, index: usize, decided: usize) -> Sequenced {
        match self {
            Self::From(Sequenced { seq, at }) => {
                Sequenced { seq: Seq(seq.0 + i64::try_from(decided).unwrap_or(i64::MAX)), at }
            }
            Self::Given(given) => given[index],
        }
    }
}

/// Decides requests in their order, as if each were alone.
///
/// `below_position` says whether a request's record lies below the ledger's
/// position: such a record was applied before and is answered
/// from its stored decision, never decided.
pub fn decide(
    mut view: View,
    requests: &[Request],
    below_position: impl Fn(&Request) -> bool,
    sequences: Sequences<'_>,
) -> Changes {
    let mut changes = Changes {
        outcomes: Vec::with_capacity(requests.len()),
        decisions: Vec::with_capacity(requests.len()),
        movements: Vec::with_capacity(requests.len()),
        ..Changes::default()
    };
    let followed: Set<&Id> = requests.iter().filter_map(|request| request.command.follows()).collect();
    let mut touched = BTreeSet::new();
    view.decisions.reserve(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let command = &request.command;
        let Sequenced { seq, at: now } = sequences.of(index, changes.decisions.len());
        let outcome = if let Some(first) = view.decisions.get(&command.key) {
            meet_again(first, request)
        } else if below_position(request) {
            // A hold that did not end then leaves no decision.
            if command.action == Action::Expire { Outcome::NotDue } else { Outcome::Undecided }
        } else if let Some(verdict) = apply(&mut view, request, now) {
            touched.extend(verdict.touches.clone());
            let decision = Arc::new(record(&mut changes.movements, request, verdict, seq, now));
            if decision.accepted
                && decision.key.kind == CommandKind::OrderCreated
                && followed.contains(&decision.key.id)
                && !view.orders.contains_key(&decision.key.id)
            {
                view.orders.insert(decision.key.id.clone(), order_state(&decision));
            }
            view.decisions.insert(command.key.clone(), Arc::clone(&decision));
            changes.decisions.push(Arc::clone(&decision));
            Outcome::Decided(decision)
        } else {
            Outcome::NotDue
        };
        changes.outcomes.push(outcome);
    }
    changes.levels = last_levels(&changes.movements, &view.levels);
    changes.orders =
        touched.into_iter().filter_map(|id| view.orders.remove(&id).map(|order| (id, order))).collect();
    changes
}

pub(super) fn order_state(created: &Decision) -> OrderState {
    // Holds because this program wrote the text just now.
    OrderState::of(created).expect("a decision just made is readable")
}

/// A command id that already has its decision.
///
/// The record that made it comes first: it is republished whatever its content
/// reads as today, so that a new version of this program that reads a record
/// otherwise still says what an older one decided of it.
fn meet_again(first: &Arc<Decision>, request: &Request) -> Outcome {
    if first.source.is_some() && first.source == request.source {
        Outcome::Republished(Arc::clone(first))
    } else if first.is_of(&request.command) {
        Outcome::Repeated
    } else {
        Outcome::Conflict { first: first.source.clone() }
    }
}

/// What is decided of a command.
struct Verdict {
    accepted: bool,
    moved: Vec<Change>,
    detail: String,
    /// The order whose state changes with it.
    touches: Option<Id>,
}

impl Verdict {
    fn accepted(moved: Vec<Change>, published: &impl Serialize) -> Self {
        Self { accepted: true, moved, detail: json(published), touches: None }
    }

    fn rejected(order_id: Option<Id>, reasons: Vec<Reason>) -> Self {
        let detail = json(&Rejected { order_id, reasons });
        Self { accepted: false, moved: Vec::new(), detail, touches: None }
    }

    /// Of a command that changes one level.
    fn adjusted(change: Result<Change, Reason>, limits: Option<Limits>) -> Self {
        match change {
            Ok(change) => {
                let published = stock::adjusted(&change, limits);
                Self::accepted(vec![change], &published)
            }
            Err(reason) => Self::rejected(None, vec![reason]),
        }
    }

    /// Of a command that goes on with an order's life. `published_id` is the order's, where the command's is another.
    fn followed<T: Serialize>(
        order_id: &Id,
        published_id: Option<&Id>,
        followed: order::Followed<T>,
    ) -> Self {
        match followed {
            Ok((moved, published)) => {
                Self { touches: Some(order_id.clone()), ..Self::accepted(moved, &published) }
            }
            Err(reasons) => Self::rejected(published_id.cloned(), reasons),
        }
    }
}

/// Changes the view and says how, or leaves it alone and says why; `None` when there is nothing to decide.
fn apply(view: &mut View, request: &Request, now: Stamp) -> Option<Verdict> {
    let id = &request.command.key.id;
    let levels = &mut view.levels;
    Some(match &request.command.action {
        Action::Take { lines, terms } => take(view, request, lines, *terms, now),
        Action::Refuse(reasons) => Verdict::rejected(None, reasons.clone()),
        Action::Cancel => Verdict::followed(id, None, Ok(order::cancel(view, id))),
        Action::Return { order_id, lines } => {
            Verdict::followed(order_id, Some(order_id), order::take_back(view, order_id, lines, now))
        }
        Action::Confirm { order_id, lines } => {
            let confirmed = order::confirm(view, order_id, lines.as_deref(), now);
            Verdict::followed(order_id, Some(order_id), confirmed)
        }
        Action::Release => Verdict::followed(id, None, order::release(view, id, now)),
        Action::Extend { order_id, by } => {
            Verdict::followed(order_id, Some(order_id), order::extend(view, order_id, *by, now))
        }
        Action::Expire => Verdict::followed(id, None, Ok(order::expire(view, id, now)?)),
        Action::Receive { item, quantity } => {
            Verdict::adjusted(stock::add(levels, item, quantity.get()), None)
        }
        Action::Adjust { item, by } => Verdict::adjusted(stock::adjust(levels, item, *by), None),
        Action::Set { item, available, expected_version } => {
            Verdict::adjusted(stock::set(levels, item, *available, *expected_version), None)
        }
        Action::Limit { item, limits } => {
            Verdict::adjusted(stock::limit(levels, item, *limits), Some(*limits))
        }
    })
}

fn take(view: &mut View, request: &Request, lines: &[OrderLine], terms: Terms, now: Stamp) -> Verdict {
    let id = &request.command.key.id;
    if order::is_cancelled(view, id) {
        return Verdict::rejected(None, vec![Reason::OrderCancelled]);
    }
    let (moved, short) = match stock::take(&mut view.levels, lines, terms.policy) {
        Ok(taken) => taken,
        Err(reasons) => return Verdict::rejected(None, reasons),
    };
    let expires_at = terms.hold.map(|length| now.plus_seconds(length.get()));
    let published = OrderTaken {
        lines: moved.iter().map(Change::taken).collect(),
        short,
        expires_at: expires_at.map(Stamp::rfc3339),
    };
    let mut verdict = Verdict::accepted(moved, &published);
    if let Some(expires_at) = expires_at {
        let at = request.source.as_ref().map(|source| source.at.clone());
        let lines = published.lines.into_iter().map(OrderStock::from).collect();
        view.orders.insert(id.clone(), OrderState { lines, hold: Some(Hold { expires_at, at }) });
        verdict.touches = Some(id.clone());
    }
    verdict
}

/// Makes the decision and appends its movements.
fn record(
    movements: &mut Vec<Movement>,
    request: &Request,
    verdict: Verdict,
    seq: Seq,
    now: Stamp,
) -> Decision {
    movements.extend(verdict.moved.into_iter().map(|change| Movement {
        item: change.item,
        version: change.version,
        quantity: change.quantity,
        balance: change.balance,
        cause: request.command.key.clone(),
        seq,
        source: request.source.clone(),
    }));
    Decision {
        key: request.command.key.clone(),
        seq,
        digest: request.command.digest,
        accepted: verdict.accepted,
        detail: verdict.detail,
        source: request.source.clone(),
        decided_at: now,
    }
}

fn json(value: &impl Serialize) -> String {
    // Holds because the types are structs and enums of strings and integers: no map with odd keys, no failing impl.
    serde_json::to_string(value).expect("plain data is always valid JSON")
}

/// The last level of each item that moved, sorted: stores lock and write in this order.
fn last_levels(movements: &[Movement], levels: &Levels) -> Vec<(Item, Level)> {
    // Each once before sorting: in a batch that one item is hot in, that is what sorting would spend its time on.
    let moved: Set<&Item> = movements.iter().map(|movement| &movement.item).collect();
    // Holds because a movement changed the level just now.
    let mut last: Vec<(Item, Level)> = moved.into_iter().map(|item| (item.clone(), levels[item])).collect();
    last.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    last
}
