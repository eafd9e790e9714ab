//! Deciding a batch: one pass, in order, over what the store read.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    AcceptedLine, Action, AdjustedLine, Command, CommandKey, CommandKind, Decision, Level, MAX_QUANTITY,
    Movement, OrderLine, Reason, Seq, Sku, Source, Stamp,
};

/// One command of a batch, with where it came from.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// The record it came from; `None` for an operator's own command.
    pub source: Option<Source>,
}

/// What the ledger says about a batch's SKUs and command ids, read under its locks.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// Levels of the batch's SKUs; a SKU that is not in here is unknown.
    pub levels: HashMap<Sku, Level>,
    /// Decisions already made for the batch's command ids.
    pub decisions: HashMap<CommandKey, Arc<Decision>>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Decided now: to be written and told.
    Decided(Arc<Decision>),
    /// Decided before, from this very record: to be told again.
    ToldAgain(Arc<Decision>),
    /// The same command, same content, from another record: absorbed.
    Repeated,
    /// The same command id with other content: a dead letter.
    Conflict {
        /// The record that made the first decision, where it had one.
        first: Option<Source>,
    },
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
    /// Levels that changed, with their new value; sorted by SKU, each once.
    pub levels: Vec<(Sku, Level)>,
}

/// Decides requests in their order, as if each were alone.
///
/// `below_position` says whether a request's record lies below the ledger's
/// position: such a record was applied before and is answered
/// from its stored decision, never decided. `first` is the ledger place of
/// the first decision made here; `now` is when.
pub fn decide(
    mut view: View,
    requests: &[Request],
    below_position: impl Fn(&Request) -> bool,
    first: Seq,
    now: Stamp,
) -> Changes {
    let mut changes = Changes {
        outcomes: Vec::with_capacity(requests.len()),
        decisions: Vec::with_capacity(requests.len()),
        movements: Vec::with_capacity(requests.len()),
        levels: Vec::new(),
    };
    view.decisions.reserve(requests.len());
    let mut seq = first;
    for request in requests {
        let command = &request.command;
        let outcome = if let Some(first) = view.decisions.get(&command.key) {
            meet_again(first, request)
        } else if below_position(request) {
            Outcome::Undecided
        } else {
            let verdict = apply(&mut view.levels, &command.action);
            let decision = Arc::new(record(&mut changes.movements, request, verdict, seq, now));
            seq.0 += 1;
            view.decisions.insert(command.key.clone(), Arc::clone(&decision));
            changes.decisions.push(Arc::clone(&decision));
            Outcome::Decided(decision)
        };
        changes.outcomes.push(outcome);
    }
    changes.levels = last_levels(&changes.movements);
    changes
}

/// A command id that already has its decision.
///
/// The record that made it comes first: it is told again whatever its content
/// reads as today, so that a new version of this program that reads a record
/// otherwise still tells what an older one decided of it.
fn meet_again(first: &Arc<Decision>, request: &Request) -> Outcome {
    if first.source.is_some() && first.source == request.source {
        Outcome::ToldAgain(Arc::clone(first))
    } else if first.digest != request.command.digest {
        Outcome::Conflict { first: first.source.clone() }
    } else {
        Outcome::Repeated
    }
}

/// A level's change by one command.
struct Change {
    sku: Sku,
    quantity: i64,
    level: Level,
}

type Verdict = Result<Vec<Change>, Vec<Reason>>;

/// Changes the levels and says how, or leaves them all alone and says why.
fn apply(levels: &mut HashMap<Sku, Level>, action: &Action) -> Verdict {
    match action {
        Action::Take(lines) => take(levels, lines),
        Action::Refuse(reasons) => Err(reasons.clone()),
        Action::Receive { sku, quantity } => add(levels, sku, quantity.get()),
        Action::Adjust { sku, by } => adjust(levels, sku, *by),
        Action::Set { sku, available, expected_version } => set(levels, sku, *available, *expected_version),
    }
}

fn take(levels: &mut HashMap<Sku, Level>, lines: &[OrderLine]) -> Verdict {
    let reasons: Vec<Reason> = lines
        .iter()
        .filter_map(|line| match levels.get(&line.sku) {
            None => Some(Reason::UnknownSku { sku: line.sku.clone(), requested: line.quantity }),
            Some(level) if level.available < line.quantity => Some(Reason::InsufficientStock {
                sku: line.sku.clone(),
                requested: line.quantity,
                available: level.available,
            }),
            Some(_) => None,
        })
        .collect();
    if !reasons.is_empty() {
        return Err(reasons);
    }
    Ok(lines.iter().map(|line| shift(levels, &line.sku, -line.quantity)).collect())
}

/// Adds pieces, up to the largest level there may be.
fn add(levels: &mut HashMap<Sku, Level>, sku: &Sku, pieces: i64) -> Verdict {
    let limit = MAX_QUANTITY - levels.get(sku).map_or(0, |level| level.available);
    if pieces > limit {
        return Err(vec![Reason::LimitExceeded { sku: sku.clone(), requested: pieces, limit }]);
    }
    Ok(vec![shift(levels, sku, pieces)])
}

fn adjust(levels: &mut HashMap<Sku, Level>, sku: &Sku, by: i64) -> Verdict {
    let requested = by.abs();
    match levels.get(sku) {
        None => Err(vec![Reason::UnknownSku { sku: sku.clone(), requested }]),
        Some(_) if by > 0 => add(levels, sku, by),
        Some(level) if level.available < requested => {
            Err(vec![Reason::InsufficientStock { sku: sku.clone(), requested, available: level.available }])
        }
        Some(_) => Ok(vec![shift(levels, sku, by)]),
    }
}

fn set(levels: &mut HashMap<Sku, Level>, sku: &Sku, available: i64, expected: Option<i64>) -> Verdict {
    let level = levels.get(sku).copied().unwrap_or(Level { available: 0, version: 0 });
    if let Some(expected) = expected.filter(|expected| *expected != level.version) {
        return Err(vec![Reason::VersionMismatch { sku: sku.clone(), expected, actual: level.version }]);
    }
    Ok(vec![shift(levels, sku, available - level.available)])
}

/// Moves a level by a quantity the caller has checked.
fn shift(levels: &mut HashMap<Sku, Level>, sku: &Sku, quantity: i64) -> Change {
    let level = levels.entry(sku.clone()).or_insert(Level { available: 0, version: 0 });
    // Holds because levels stay within 0..=MAX_QUANTITY, sums of lines far below i64, and a version grows by one.
    level.available = level.available.checked_add(quantity).expect("a level is bounded");
    level.version = level.version.checked_add(1).expect("a version counts movements");
    Change { sku: sku.clone(), quantity, level: *level }
}

/// Makes the decision and appends its movements.
fn record(
    movements: &mut Vec<Movement>,
    request: &Request,
    verdict: Verdict,
    seq: Seq,
    now: Stamp,
) -> Decision {
    let accepted = verdict.is_ok();
    let detail = match verdict {
        Ok(changes) => {
            let detail = tell(request.command.key.kind, &changes);
            movements.extend(changes.into_iter().map(|change| Movement {
                sku: change.sku,
                version: change.level.version,
                quantity: change.quantity,
                balance: change.level.available,
                cause: request.command.key.clone(),
                seq,
                source: request.source.clone(),
            }));
            detail
        }
        Err(reasons) => json(&reasons),
    };
    Decision {
        key: request.command.key.clone(),
        seq,
        digest: request.command.digest,
        accepted,
        detail,
        source: request.source.clone(),
        decided_at: now,
    }
}

/// What is told of an accepted command.
fn tell(kind: CommandKind, changes: &[Change]) -> String {
    match kind {
        CommandKind::OrderCreated => json(
            &changes
                .iter()
                .map(|change| AcceptedLine {
                    sku: change.sku.clone(),
                    quantity: -change.quantity,
                    balance: change.level.available,
                })
                .collect::<Vec<_>>(),
        ),
        CommandKind::Adjustment => json(
            &changes
                .iter()
                .map(|change| AdjustedLine {
                    sku: change.sku.clone(),
                    quantity: change.quantity,
                    balance: change.level.available,
                    version: change.level.version,
                })
                .collect::<Vec<_>>(),
        ),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // Holds because the types are structs and enums of strings and integers: no map with odd keys, no failing impl.
    serde_json::to_string(value).expect("plain data is always valid JSON")
}

/// The last level of each SKU that moved, sorted: stores lock and write in this order.
fn last_levels(movements: &[Movement]) -> Vec<(Sku, Level)> {
    let mut last: HashMap<&Sku, Level> = HashMap::with_capacity(movements.len());
    for movement in movements {
        last.insert(&movement.sku, Level { available: movement.balance, version: movement.version });
    }
    let mut levels: Vec<_> = last.into_iter().map(|(sku, level)| (sku.clone(), level)).collect();
    levels.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    levels
}
