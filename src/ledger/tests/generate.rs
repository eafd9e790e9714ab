//! Records as they might come: few things and few ids, so that commands meet.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{CommandKind, Level, Limits, MAX_QUANTITY, Offset, Source, TopicPartition};
use super::model::sums;
use super::{Ask, Lines, Record, Start, Thing};

/// Ids of orders and of everything else.
const IDS: [&str; 9] = ["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9"];

/// Most of them have stock to begin with, one of them only if a command brings some.
const THINGS: [Thing; 7] =
    [("A", ""), ("A", "north"), ("B", ""), ("B", "north"), ("C", ""), ("C", "north"), ("D", "")];

/// Longest a generated hold lasts, and longest a batch waits, in seconds: holds end within a run.
const LONGEST: i64 = 6;

pub(super) fn thing() -> impl Strategy<Value = Thing> {
    select(&THINGS[..])
}

/// Mostly small, now and then as large as can be.
pub(super) fn pieces() -> impl Strategy<Value = i64> {
    prop_oneof![24 => 1..8_i64, 1 => Just(MAX_QUANTITY), 1 => Just(MAX_QUANTITY - 1)]
}

fn lines(most: usize) -> impl Strategy<Value = Lines> {
    prop::collection::vec((thing(), pieces()), 1..=most)
}

fn id() -> impl Strategy<Value = &'static str> {
    select(&IDS[..])
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    let available = prop_oneof![6 => 0..30_i64, 1 => Just(MAX_QUANTITY), 1 => Just(0)];
    let signed = (pieces(), any::<bool>()).prop_map(|(pieces, found)| if found { pieces } else { -pieces });
    let hold = || prop::option::weighted(0.6, 1..=LONGEST);
    let kind = select(&CommandKind::ALL[..]);
    prop_oneof![
        20 => (lines(5), prop::bool::weighted(0.3), hold())
            .prop_map(|(lines, partial, hold)| Ask::Order { lines, partial, hold }),
        3 => Just(Ask::Cancel),
        5 => (id(), lines(3)).prop_map(|(order, lines)| Ask::Return { order, lines }),
        4 => (id(), prop::option::of(lines(3))).prop_map(|(order, lines)| Ask::Confirm { order, lines }),
        3 => Just(Ask::Release),
        3 => (id(), 1..=LONGEST).prop_map(|(order, by)| Ask::Extend { order, by }),
        5 => Just(Ask::Due),
        1 => (kind, 1..4_u32).prop_map(|(kind, faults)| Ask::Invalid { kind, faults }),
        2 => (thing(), pieces()).prop_map(|(thing, pieces)| Ask::Receive { thing, pieces }),
        2 => (thing(), signed).prop_map(|(thing, by)| Ask::Adjust { thing, by }),
        2 => (thing(), available, prop::option::of(0..5_i64))
            .prop_map(|(thing, available, expected)| Ask::Set { thing, available, expected }),
        2 => (thing(), 0..8_i64, prop::option::of(1..8_i64))
            .prop_map(|(thing, backorder, most)| Ask::Limit { thing, backorder, most }),
    ]
}

/// Where a generated record's content and source come from.
#[derive(Debug, Clone)]
enum Origin {
    /// A record of its own.
    Fresh,
    /// An operator's command, from no record.
    Operator,
    /// An earlier record, read again.
    SameRecord(Index),
    /// An earlier record's content, its lines the other way round, in a record of its own.
    SameContent(Index),
}

/// What a follow-up is made to fit: one of the orders before it, and how much of each of its lines.
type Aim = Option<(Index, i64)>;

pub(super) fn records() -> impl Strategy<Value = Vec<Record>> {
    let origin = prop_oneof![
        12 => Just(Origin::Fresh),
        1 => Just(Origin::Operator),
        2 => any::<Index>().prop_map(Origin::SameRecord),
        2 => any::<Index>().prop_map(Origin::SameContent),
    ];
    let aim = prop::option::weighted(0.8, (any::<Index>(), 1..=4_i64));
    let drawn = (id(), ask(), aim, origin, prop::bool::weighted(0.05));
    prop::collection::vec(drawn, 1..60).prop_map(|drawn| {
        let mut records: Vec<Record> = Vec::new();
        for (offset, (id, ask, aim, origin, below)) in (0..).zip(drawn) {
            let own = Some(Source { at: TopicPartition::new("orders", 0), offset: Offset(offset) });
            let record = match origin {
                Origin::SameRecord(index) if !records.is_empty() => {
                    Record { below, ..index.get(&records).clone() }
                }
                Origin::SameContent(index) if !records.is_empty() => {
                    let Record { id, ask, .. } = index.get(&records).clone();
                    Record { id, ask: turned(ask), source: own, below }
                }
                Origin::Operator => aimed(Record { id, ask, source: None, below: false }, aim, &records),
                _ => aimed(Record { id, ask, source: own, below }, aim, &records),
            };
            records.push(record);
        }
        records
    })
}

/// The same, its lines the other way round.
pub(super) fn turned(mut ask: Ask) -> Ask {
    if let Ask::Order { lines, .. } | Ask::Return { lines, .. } | Ask::Confirm { lines: Some(lines), .. } =
        &mut ask
    {
        lines.reverse();
    }
    ask
}

/// A follow-up that speaks of an order that came before it, and of what that asked for, as most do.
fn aimed(mut record: Record, aim: Aim, before: &[Record]) -> Record {
    let orders: Vec<(&'static str, &Lines)> = before
        .iter()
        .filter_map(|record| match &record.ask {
            Ask::Order { lines, .. } => Some((record.id, lines)),
            _ => None,
        })
        .collect();
    let Some((index, part)) = aim.filter(|_| !orders.is_empty()) else { return record };
    let (id, asked) = *index.get(&orders);
    match &mut record.ask {
        Ask::Cancel | Ask::Release | Ask::Due => record.id = id,
        Ask::Extend { order, .. } | Ask::Confirm { order, lines: None } => *order = id,
        Ask::Return { order, lines } | Ask::Confirm { order, lines: Some(lines) } => {
            *order = id;
            *lines = sums(asked)
                .into_iter()
                .map(|(thing, pieces)| (thing, (pieces * part / 4).clamp(1, MAX_QUANTITY)))
                .collect();
            lines.truncate(usize::try_from(part).expect("a few"));
        }
        _ => {}
    }
    record
}

/// The levels to begin with: some plenty, some scarce, some with limits, one full to the bound, two unknown.
pub(super) fn start() -> impl Strategy<Value = Start> {
    (0..40_i64, 0..10_i64, 0..200_i64, 0..6_i64, 1..8_i64).prop_map(|(a, b, c, backorder, most)| {
        let level = |available, backorder, order| Level {
            available,
            version: 1,
            limits: Limits { backorder, order },
        };
        BTreeMap::from([
            (THINGS[0], level(a, 0, None)),
            (THINGS[1], level(b, 0, None)),
            (THINGS[2], level(c, 0, Some(most))),
            (THINGS[3], level(MAX_QUANTITY, 0, None)),
            (THINGS[4], level(b, backorder, None)),
        ])
    })
}

/// Where records are cut into batches, and how many seconds pass before each.
pub(super) fn cuts() -> impl Strategy<Value = Vec<(usize, i64)>> {
    prop::collection::vec((0..60_usize, 0..=LONGEST), 0..8).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}
