//! The rules one by one, with the very text that is published.

mod orders;
mod stock;

use super::*;

const MUG: Thing = ("MUG", "");
const HAT: Thing = ("HAT", "");
const MUG_NORTH: Thing = ("MUG", "north");

/// A ledger that is asked one command at a time, at a time of the test's choice.
struct Ledger {
    run: Run,
    now: Stamp,
    asked: i64,
}

impl Ledger {
    /// Levels as an operator set them, at second 0.
    fn with(levels: &[(Thing, i64)]) -> Self {
        let level = |available| Level { available, version: 1, limits: Limits::default() };
        let start = levels.iter().map(|(thing, pieces)| (*thing, level(*pieces))).collect();
        Self { run: run(&start, &[]), now: Stamp(0), asked: 0 }
    }

    fn at(&mut self, seconds: i64) -> &mut Self {
        self.now = Stamp(0).plus_seconds(seconds);
        self
    }

    /// What is published about a command that comes in a record of its own; or what became of it, where nothing is published.
    #[track_caller]
    fn ask(&mut self, id: &'static str, ask: Ask) -> String {
        self.asked += 1;
        let source = Source { at: TopicPartition::new("orders", 7), offset: Offset(self.asked) };
        self.record(Record { id, ask, source: Some(source), below: false })
    }

    #[track_caller]
    fn record(&mut self, record: Record) -> String {
        self.run.batch(self.now, &[record]);
        match self.run.outcomes.last().unwrap() {
            Outcome::Decided(decision) => {
                assert_eq!(decision.accepted, !decision.detail.contains(r#""reasons""#));
                decision.detail.clone()
            }
            other => format!("{other:?}"),
        }
    }

    fn available(&self, thing: Thing) -> i64 {
        self.run.levels[&item(thing)].available
    }
}

fn order(lines: &[(Thing, i64)]) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: false, hold: None }
}

fn partial(lines: &[(Thing, i64)]) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: true, hold: None }
}

fn hold(lines: &[(Thing, i64)], seconds: i64) -> Ask {
    Ask::Order { lines: lines.to_vec(), partial: false, hold: Some(seconds) }
}

fn back(order: &'static str, lines: &[(Thing, i64)]) -> Ask {
    Ask::Return { order, lines: lines.to_vec() }
}

fn confirm(order: &'static str) -> Ask {
    Ask::Confirm { order, lines: None }
}

fn confirm_only(order: &'static str, lines: &[(Thing, i64)]) -> Ask {
    Ask::Confirm { order, lines: Some(lines.to_vec()) }
}

fn limits(thing: Thing, backorder: i64, most: Option<i64>) -> Ask {
    Ask::Limit { thing, backorder, most }
}

#[test]
fn every_part_of_the_content_is_in_the_digest() {
    let (one, two) = (vec![(MUG, 1)], vec![(MUG, 2)]);
    let set = |thing, available, expected| Ask::Set { thing, available, expected };
    let asks = [
        order(&one),
        order(&two),
        order(&[(HAT, 1)]),
        order(&[(MUG_NORTH, 1)]),
        order(&[(MUG, 1), (HAT, 1)]),
        // The same letters, cut in other places.
        order(&[(("MU", "Gnorth"), 1)]),
        order(&[(("MUGnorth", ""), 1)]),
        partial(&one),
        hold(&one, 1),
        hold(&one, 2),
        Ask::Cancel,
        Ask::Release,
        Ask::Due,
        back("o", &one),
        back("o", &two),
        back("p", &one),
        confirm("o"),
        confirm("p"),
        confirm_only("o", &one),
        confirm_only("o", &two),
        confirm_only("p", &one),
        Ask::Extend { order: "o", by: 1 },
        Ask::Extend { order: "o", by: 2 },
        Ask::Extend { order: "p", by: 1 },
        Ask::Invalid { kind: CommandKind::OrderCreated, faults: 1 },
        Ask::Invalid { kind: CommandKind::OrderCreated, faults: 2 },
        Ask::Receive { thing: MUG, pieces: 1 },
        Ask::Receive { thing: MUG, pieces: 2 },
        Ask::Receive { thing: MUG_NORTH, pieces: 1 },
        Ask::Adjust { thing: MUG, by: 1 },
        Ask::Adjust { thing: MUG, by: -1 },
        Ask::Adjust { thing: MUG_NORTH, by: 1 },
        set(MUG, 1, None),
        set(MUG, 2, None),
        set(MUG, 1, Some(0)),
        set(MUG, 1, Some(1)),
        set(MUG_NORTH, 1, None),
        limits(MUG, 0, None),
        limits(MUG, 1, None),
        limits(MUG, 0, Some(1)),
        limits(MUG, 0, Some(2)),
        limits(MUG_NORTH, 0, None),
    ];
    let mut digests = HashMap::new();
    for ask in &asks {
        if let Some(other) = digests.insert(ask.command("i").digest, ask) {
            panic!("{ask:?} has the digest of {other:?}");
        }
    }
}
