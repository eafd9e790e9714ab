//! What the audit finds, whatever the database. Each store brings its own [`Check`]s in SQL.

use std::collections::HashMap;

use serde::Serialize;

use super::breach::Breach;
use crate::ledger::{CommandKind, NextOffset, TopicPartition, check_detail};

/// Most findings one check reports: enough to see a pattern, and a ledger damaged everywhere stays readable.
pub(super) const MOST_FINDINGS: u8 = 20;

/// Something for which an invariant of the design does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenInvariant {
    /// Which invariant: 1 to 6.
    pub invariant: u8,
    /// What was found, and where.
    #[serde(serialize_with = "as_sentence")]
    pub what: Breach,
}

fn as_sentence<S: serde::Serializer>(what: &Breach, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(what)
}

/// What an audit looked at, and what it found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// How many SKUs have a level.
    pub skus: u64,
    /// How many movements there are.
    pub movements: u64,
    /// How many decisions there are.
    pub decisions: u64,
    /// The position of every partition, to be compared with Kafka's committed offsets.
    #[serde(serialize_with = "listed")]
    pub positions: HashMap<TopicPartition, NextOffset>,
    /// Where invariants do not hold; at most some twenty for each check, which then says that there are more.
    pub findings: Vec<BrokenInvariant>,
}

/// Positions as a list: a partition is no JSON key.
fn listed<S: serde::Serializer>(
    positions: &HashMap<TopicPartition, NextOffset>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Position<'a> {
        topic: &'a str,
        partition: i32,
        next_offset: NextOffset,
    }
    let mut sorted: Vec<_> = positions.iter().collect();
    sorted.sort_unstable();
    serializer.collect_seq(sorted.into_iter().map(|(at, next)| Position {
        topic: &at.topic,
        partition: at.partition,
        next_offset: *next,
    }))
}

/// A set-wise look for what must not be: a query of one text column, a [`Breach`] as JSON in a row for each finding, bounded
/// by its one parameter.
pub(super) struct Check {
    pub invariant: u8,
    pub sql: &'static str,
}

impl Check {
    /// What its rows say was found.
    pub(super) fn read(rows: &[String]) -> Result<Vec<Breach>, sqlx::Error> {
        let read =
            |row: &String| serde_json::from_str(row).map_err(|error| sqlx::Error::Decode(error.into()));
        rows.iter().map(read).collect()
    }
}

/// What to bind to a [`Check`]: one more than is reported, to know whether there are more.
pub(super) const LIMIT: i64 = MOST_FINDINGS as i64 + 1;

/// What is said of a decision whose detail cannot be read; nothing of one that can.
pub(super) fn unreadable_decision(id: &str, kind: i16, accepted: bool, detail: &str) -> Option<Breach> {
    let id = id.to_owned();
    let Some(known) = CommandKind::from_number(kind) else { return Some(Breach::KindUnknown { id, kind }) };
    let error = check_detail(known, accepted, detail).err()?;
    Some(Breach::Unreadable { id, why: error.to_string() })
}

impl Audit {
    /// Adds what one check found.
    pub(super) fn add(&mut self, invariant: u8, mut found: Vec<Breach>) {
        let more = found.len() > usize::from(MOST_FINDINGS);
        found.truncate(usize::from(MOST_FINDINGS));
        if more {
            found.push(Breach::More);
        }
        self.findings.extend(found.into_iter().map(|what| BrokenInvariant { invariant, what }));
    }

    /// Sets the counts, which a database gives signed.
    pub(super) fn count(&mut self, (skus, movements, decisions): (i64, i64, i64)) {
        self.skus = skus.unsigned_abs();
        self.movements = movements.unsigned_abs();
        self.decisions = decisions.unsigned_abs();
    }
}
