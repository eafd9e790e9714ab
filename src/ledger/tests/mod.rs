//! Decisions against a model that is too plain to be wrong: one command at a
//! time, loops and ordered maps, content compared as content, not by digest.

mod generate;
mod model;
mod properties;
mod replay_state;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::*;

/// A SKU and where; the empty text is the default location.
type Thing = (&'static str, &'static str);

/// What is asked for, as a producer wrote it: in any order, a thing maybe twice.
type Lines = Vec<(Thing, i64)>;

/// What a generated record asks for; whom it is about is beside it.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    Order { lines: Lines, partial: bool, hold: Option<i64> },
    Cancel,
    Return { order: &'static str, lines: Lines },
    Confirm { order: &'static str, lines: Option<Lines> },
    Release,
    Extend { order: &'static str, by: i64 },
    Due,
    Invalid { kind: CommandKind, faults: u32 },
    Receive { thing: Thing, pieces: i64 },
    Adjust { thing: Thing, by: i64 },
    Set { thing: Thing, available: i64, expected: Option<i64> },
    Limit { thing: Thing, backorder: i64, most: Option<i64> },
}

impl Ask {
    fn kind(&self) -> CommandKind {
        match self {
            Self::Order { .. } => CommandKind::OrderCreated,
            Self::Cancel => CommandKind::OrderCancelled,
            Self::Return { .. } => CommandKind::OrderReturned,
            Self::Confirm { .. } => CommandKind::OrderConfirmed,
            Self::Release => CommandKind::OrderReleased,
            Self::Extend { .. } => CommandKind::HoldExtended,
            Self::Due => CommandKind::HoldExpired,
            Self::Invalid { kind, .. } => *kind,
            Self::Receive { .. } | Self::Adjust { .. } | Self::Set { .. } | Self::Limit { .. } => {
                CommandKind::Adjustment
            }
        }
    }

    fn command(&self, own: &str) -> Command {
        let own = id(own);
        match self {
            Self::Order { lines, partial, hold } => {
                let policy = if *partial { Policy::Partial } else { Policy::AllOrNone };
                let hold = hold.map(seconds);
                Command::order_created(own, bounded(lines), Terms { policy, hold })
            }
            Self::Cancel => Command::order_cancelled(own),
            Self::Return { order, lines } => Command::order_returned(own, id(order), bounded(lines)),
            Self::Confirm { order, lines } => {
                Command::order_confirmed(own, id(order), lines.as_ref().map(bounded))
            }
            Self::Release => Command::order_released(own),
            Self::Extend { order, by } => Command::hold_extended(own, id(order), seconds(*by)),
            Self::Due => Command::hold_expired(own),
            Self::Invalid { kind, faults } => {
                Command::invalid(own, *kind, reasons(*faults), format!("raw {faults}").as_bytes())
            }
            Self::Receive { thing, pieces } => {
                Command::stock_received(own, item(*thing), Quantity::new(*pieces).unwrap())
            }
            Self::Adjust { thing, by } => Command::stock_adjusted(own, item(*thing), *by),
            Self::Set { thing, available, expected } => {
                Command::stock_set(own, item(*thing), *available, *expected)
            }
            Self::Limit { thing, backorder, most } => {
                Command::limits_set(own, item(*thing), Limits { backorder: *backorder, order: *most })
            }
        }
    }
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn item((sku, location): Thing) -> Item {
    let location = (!location.is_empty()).then(|| Location::new(location).unwrap());
    Item { sku: Sku::new(sku).unwrap(), location }
}

fn bounded(lines: &Lines) -> Vec<(Item, Quantity)> {
    lines.iter().map(|(thing, pieces)| (item(*thing), Quantity::new(*pieces).unwrap())).collect()
}

fn seconds(number: i64) -> HoldSeconds {
    HoldSeconds::new(number).unwrap()
}

fn reasons(faults: u32) -> Vec<Reason> {
    (1..=faults)
        .map(|line| Reason::InvalidOrder { line: Some(line), detail: "is wrong".to_owned() })
        .collect()
}

/// A record: whom it is about, what it asks, where it stands, and whether the ledger's position is beyond it.
#[derive(Debug, Clone)]
struct Record {
    id: &'static str,
    ask: Ask,
    source: Option<Source>,
    below: bool,
}

/// Records decided together, and when.
type Batch<'a> = (Stamp, &'a [Record]);

/// The levels before the first record.
type Start = BTreeMap<Thing, Level>;

/// What deciding gave, whatever batches it was done in, and what a store then has.
#[derive(Debug, Default, PartialEq)]
struct Run {
    outcomes: Vec<Outcome>,
    decisions: Vec<Arc<Decision>>,
    movements: Vec<Movement>,
    levels: BTreeMap<Item, Level>,
    /// Every accepted order.
    orders: BTreeMap<Id, OrderState>,
    by_key: HashMap<CommandKey, Arc<Decision>>,
}

/// Decides batches, each seeing what those before wrote.
fn run(start: &Start, batches: &[Batch<'_>]) -> Run {
    let mut run = Run::default();
    run.levels.extend(start.iter().map(|(thing, level)| (item(*thing), *level)));
    for (now, records) in batches {
        run.batch(*now, records);
    }
    run
}

impl Run {
    /// What a store does: reads what the batch needs and no more, decides, writes.
    fn batch(&mut self, now: Stamp, records: &[Record]) {
        let requests: Vec<_> = records
            .iter()
            .map(|record| Request { command: record.ask.command(record.id), source: record.source.clone() })
            .collect();
        let below = |request: &Request| {
            let index = requests.iter().position(|known| std::ptr::eq(known, request));
            records[index.expect("one of the requests")].below
        };
        let first = Seq(100 + i64::try_from(self.decisions.len()).unwrap());
        let changes = decide(
            self.view(&requests),
            &requests,
            below,
            Sequences::From(Sequenced { seq: first, at: now }),
        );

        assert_eq!(changes.outcomes.len(), records.len(), "one outcome for each request");
        assert!(changes.levels.is_sorted_by(|a, b| a.0 < b.0), "levels are sorted, each once");
        assert!(changes.orders.is_sorted_by(|a, b| a.0 < b.0), "orders are sorted, each once");
        for decision in &changes.decisions {
            assert_eq!(decision.decided_at, now);
            if decision.accepted && decision.key.kind == CommandKind::OrderCreated {
                self.orders.insert(decision.key.id.clone(), OrderState::of(decision).unwrap());
            }
            assert!(self.by_key.insert(decision.key.clone(), Arc::clone(decision)).is_none());
        }
        self.levels.extend(changes.levels);
        self.orders.extend(changes.orders);
        self.outcomes.extend(changes.outcomes);
        self.decisions.extend(changes.decisions);
        self.movements.extend(changes.movements);
    }

    fn view(&self, requests: &[Request]) -> View {
        let commands = || requests.iter().map(|request| &request.command);
        let followed: BTreeSet<&Id> = commands().filter_map(Command::follows).collect();
        let ids: BTreeSet<&Id> = commands().map(|command| &command.key.id).chain(followed.clone()).collect();
        let orders: Map<Id, OrderState> =
            followed.into_iter().filter_map(|id| Some((id.clone(), self.orders.get(id)?.clone()))).collect();
        let items: BTreeSet<&Item> = commands()
            .flat_map(Command::items)
            .chain(orders.values().flat_map(|order| order.lines.iter().map(|line| &line.item)))
            .collect();
        let levels =
            items.into_iter().filter_map(|item| Some((item.clone(), *self.levels.get(item)?))).collect();
        let decisions = self
            .by_key
            .iter()
            .filter(|(key, _)| ids.contains(&key.id))
            .map(|(key, decision)| (key.clone(), Arc::clone(decision)))
            .collect();
        View { levels, decisions, orders }
    }
}
