//! What a comparison found, as text and as JSON.

use serde::{Serialize, Serializer};

use crate::ledger::{DecisionExcerpt, Differs, Hold, Limits, Movement, Source};
use crate::replay::finding::{AuditReport, Finding, PositionMismatch, WrongLevel};
use crate::replay::reconciler::Wrong;

/// A comparison's report, as it is printed for machines.
#[derive(Serialize)]
pub(super) struct ReportJson<'a> {
    decisions: u64,
    absorbed: u64,
    dead_letters: u64,
    published: u64,
    /// Results that are not compared, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    unretained: Option<u64>,
    differing: u64,
    missing: u64,
    extra: u64,
    findings: Vec<FindingJson>,
    notes: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown: &'a [String],
}

/// A finding, as it is printed for machines.
#[derive(Serialize)]
struct FindingJson {
    invariant: u8,
    class: &'static str,
    subject: String,
    what: String,
}

impl<'a> From<&'a AuditReport> for ReportJson<'a> {
    fn from(report: &'a AuditReport) -> Self {
        let findings = report.findings.iter().map(|finding| FindingJson {
            invariant: finding.invariant(),
            class: finding.class().name(),
            subject: subject(finding),
            what: what(finding),
        });
        Self {
            decisions: report.decisions,
            absorbed: report.absorbed,
            dead_letters: report.dead_letters,
            published: report.published,
            unretained: (report.unretained > 0).then_some(report.unretained),
            differing: report.differing,
            missing: report.missing,
            extra: report.extra,
            findings: findings.collect(),
            notes: &report.notes,
            unknown: &report.unknown,
        }
    }
}

/// For serde: a report within what else is printed.
pub(super) fn report_as_json<S: Serializer>(report: &AuditReport, serializer: S) -> Result<S::Ok, S::Error> {
    ReportJson::from(report).serialize(serializer)
}

/// For serde: a line for each partition of which ledger and Kafka do not agree.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
pub(super) fn mismatches_as_json<S: Serializer>(
    mismatches: &Option<Vec<PositionMismatch>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    mismatches.as_ref().map(|all| all.iter().map(mismatch).collect::<Vec<_>>()).serialize(serializer)
}

/// What a finding is about: a command, an event, an item, an order, a topic, a partition.
pub(super) fn subject(finding: &Finding) -> String {
    match finding {
        Finding::Published { event, .. } => event.to_string(),
        Finding::Undecided { key, .. }
        | Finding::NoCommand { key, .. }
        | Finding::AnotherCommand { key, .. }
        | Finding::NoRecord { key, .. }
        | Finding::Decided { key, .. }
        | Finding::BeyondPosition { key, .. }
        | Finding::OfNoRecord { key }
        | Finding::TornBatch { key, .. }
        | Finding::OutOfOrder { key, .. } => key.to_string(),
        Finding::ItemLimits { item, .. } => format!("SKU {item}"),
        Finding::OpenHold { order_id, .. } => format!("order {order_id}"),
        Finding::PublishedLevel { item: Some(item), .. } => format!("level of SKU {item}"),
        Finding::PublishedLevel { item: None, record, .. } => format!("record {record}"),
        Finding::Positions(PositionMismatch { at, .. }) => at.to_string(),
        Finding::Topic(replaced) => format!("topic {}", replaced.topic),
    }
}

/// What was found, and what should be.
pub(super) fn what(finding: &Finding) -> String {
    match finding {
        Finding::Published { wrong, .. } => published(wrong),
        Finding::Undecided { record, .. } => {
            format!("its record {record} is done, but no decision is stored")
        }
        Finding::NoCommand { fault, .. } => format!("it is decided, but its record is no command: {fault}"),
        Finding::AnotherCommand { record, .. } => format!(
            "it is decided from {record}, where the topic has the record of another command (a topic made anew?)"
        ),
        Finding::NoRecord { record, .. } => {
            format!("it is decided from {record}, where the topic has no record")
        }
        Finding::Decided { how, .. } => differs(how),
        Finding::ItemLimits { now, decided, .. } => {
            format!("its limits are {}, its decisions left {}", limits(*now), limits(*decided))
        }
        Finding::OpenHold { now, decided, .. } => open_hold(now, decided),
        Finding::PublishedLevel { record, wrong, .. } => published_level(record, *wrong),
        Finding::OfNoRecord { .. } => {
            "it is decided, but of no record, and so published nowhere: an operator's own commands are about levels alone"
                .to_owned()
        }
        Finding::TornBatch { seq, after, .. } => format!(
            "its batch has ledger sequence {after} and then {seq}: a decision between them is missing, or was moved"
        ),
        Finding::Positions(mismatch) => positions(mismatch),
        Finding::Topic(replaced) => replaced.to_string(),
        Finding::OutOfOrder { record, after, .. } => {
            format!(
                "its record {record} has a later ledger sequence than the one at offset {after}, which comes after it"
            )
        }
        Finding::BeyondPosition { record, position, .. } => {
            format!("it was decided from {record}, but the ledger's position there is {position}")
        }
    }
}

/// How an open hold differs from what its decisions say.
fn open_hold(now: &Hold, decided: &Hold) -> String {
    let mut how = Vec::new();
    if now.expires_at != decided.expires_at {
        how.push(format!(
            "its hold ends at {}, its decisions say {}",
            now.expires_at.rfc3339(),
            decided.expires_at.rfc3339()
        ));
    }
    if now.at != decided.at {
        let at =
            |hold: &Hold| hold.at.as_ref().map_or_else(|| "no partition".to_owned(), ToString::to_string);
        how.push(format!("its hold's end is asked for on {}, its order came by {}", at(now), at(decided)));
    }
    how.join("; ")
}

/// What is wrong with the last record of an item on the levels topic.
fn published_level(at: &Source, wrong: WrongLevel) -> String {
    match wrong {
        WrongLevel::Foreign => format!("the last record of its key, {at}, is no level"),
        WrongLevel::Otherwise { version, available } => format!(
            "the last record of its key, {at}, is not what was published of version {version}, which left {available}"
        ),
        WrongLevel::Unknown { version, newest } => {
            format!(
                "the last record of its key, {at}, says version {version}; the ledger's newest is {newest}"
            )
        }
    }
}

/// Limits by their names in the contract.
fn limits(Limits { backorder, order }: Limits) -> String {
    let order = order.map_or_else(|| "none".to_owned(), |order| order.to_string());
    format!("backorder_limit {backorder} and order_limit {order}")
}

/// A partition and how far it is done, in one line.
pub(super) fn mismatch(mismatch: &PositionMismatch) -> String {
    format!("{}: {}", mismatch.at, positions(mismatch))
}

fn positions(PositionMismatch { ledger, committed, .. }: &PositionMismatch) -> String {
    let kafka = committed.map_or_else(
        || "Kafka has no committed offset".to_owned(),
        |committed| format!("Kafka's committed offset is {committed}"),
    );
    match ledger {
        Some(ledger) => format!("the ledger is at {ledger}, {kafka}"),
        None => format!("the ledger was never here, {kafka}"),
    }
}

fn published(wrong: &Wrong) -> String {
    let list = |sources: &[Source]| sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match wrong {
        Wrong::Missing => "it was never published".to_owned(),
        Wrong::Altered(at) => format!("what was published at {at} is not what the ledger has"),
        Wrong::Envelope(at) => format!(
            "what was published at {at} says what the ledger has, but its key or a header is not what belongs to it"
        ),
        Wrong::Misplaced { at, belongs_on } => {
            format!("it stands at {at}, and its key belongs on partition {belongs_on}")
        }
        Wrong::Repeated(at) => format!("it was published {} times: {}", at.len(), list(at)),
        Wrong::Unknown(at) => {
            format!("it was published at {}, but the ledger has no such decision", list(at))
        }
    }
}

fn differs(how: &Differs) -> String {
    match how {
        Differs::NotDue(stored) => format!("the hold was not over; stored: {}", excerpt(stored)),
        Differs::Twice => "it is decided twice".to_owned(),
        Differs::Content => "its record asks for something else than what was decided".to_owned(),
        Differs::Decision { stored, again } => {
            format!("stored: {}; the rules: {}", excerpt(stored), excerpt(again))
        }
        Differs::Movements { stored, again } => {
            format!("its movements are {}; the rules: {}", movements(stored), movements(again))
        }
    }
}

fn excerpt(DecisionExcerpt { accepted, detail, is_cut }: &DecisionExcerpt) -> String {
    let word = if *accepted { "accepted" } else { "rejected" };
    format!("{word} {detail}{}", if *is_cut { "…" } else { "" })
}

fn movements(movements: &[Movement]) -> String {
    let of = |movement: &Movement| {
        format!(
            "{} {:+} to {} (version {})",
            movement.item, movement.quantity, movement.balance, movement.version
        )
    };
    if movements.is_empty() {
        "none".to_owned()
    } else {
        movements.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Fault, FaultCode};
    use crate::ledger::{CommandKey, CommandKind, Id, NextOffset, Offset, Seq, Sku, Stamp, TopicPartition};
    use crate::replay::published::EventId;

    use super::*;

    fn key() -> CommandKey {
        CommandKey { id: Id::new("o-1").expect("an id"), kind: CommandKind::OrderCreated }
    }

    fn at(offset: i64) -> Source {
        Source { at: TopicPartition::new("orders", 3), offset: Offset(offset) }
    }

    fn mismatch(ledger: Option<i64>, committed: Option<i64>) -> Finding {
        let at = TopicPartition::new("orders", 3);
        Finding::Positions(PositionMismatch {
            at,
            ledger: ledger.map(NextOffset),
            committed: committed.map(NextOffset),
        })
    }

    fn of_event(event: EventId, wrong: Wrong) -> Finding {
        Finding::Published { event, wrong }
    }

    #[test]
    fn a_finding_names_its_subject_and_says_what_was_found() {
        let excerpt = |accepted, is_cut| DecisionExcerpt { accepted, detail: "{}".to_owned(), is_cut };
        let decided = |how| Finding::Decided { key: key(), how };
        let mug: crate::ledger::Item = Sku::new("MUG").expect("a SKU").into();
        let moved = Movement {
            item: mug.clone(),
            version: 2,
            quantity: -3,
            balance: 5,
            cause: key(),
            seq: crate::ledger::Seq(1),
            source: None,
        };
        let limits = Limits { backorder: 2, order: None };
        let hold = |end, partition| Hold {
            expires_at: Stamp(end),
            at: Some(TopicPartition::new("orders", partition)),
        };
        let open_hold = |now, decided| {
            let order_id = Id::new("o-1").expect("an id");
            Finding::OpenHold { order_id, now, decided }
        };
        let item = Some(mug.clone());
        let level = |wrong| Finding::PublishedLevel { item: item.clone(), record: at(1), wrong };
        let findings = [
            of_event(EventId::Result(key()), Wrong::Missing),
            of_event(EventId::DeadLetter(at(1)), Wrong::Altered(at(2))),
            of_event(EventId::Result(key()), Wrong::Envelope(at(2))),
            of_event(EventId::Result(key()), Wrong::Misplaced { at: at(2), belongs_on: 5 }),
            of_event(EventId::Unknown("x".to_owned()), Wrong::Repeated(vec![at(1), at(2)])),
            of_event(EventId::Unknown("x".to_owned()), Wrong::Unknown(vec![at(1), at(2)])),
            Finding::Undecided { key: key(), record: at(1) },
            Finding::NoCommand { key: key(), fault: Fault::new(FaultCode::NotUtf8, "not UTF-8") },
            Finding::AnotherCommand { key: key(), record: at(1) },
            Finding::NoRecord { key: key(), record: at(1) },
            decided(Differs::NotDue(excerpt(true, true))),
            decided(Differs::Twice),
            decided(Differs::Content),
            decided(Differs::Decision { stored: excerpt(true, true), again: excerpt(false, false) }),
            decided(Differs::Movements { stored: vec![moved.clone(), moved], again: Vec::new() }),
            Finding::ItemLimits { item: mug, now: limits, decided: Limits::default() },
            open_hold(hold(0, 3), hold(1_000_000, 3)),
            open_hold(hold(0, 4), hold(0, 3)),
            level(WrongLevel::Foreign),
            level(WrongLevel::Otherwise { version: 2, available: 7 }),
            level(WrongLevel::Unknown { version: 9, newest: 2 }),
            Finding::OfNoRecord { key: key() },
            Finding::TornBatch { key: key(), seq: Seq(12), after: Seq(10) },
            mismatch(Some(9), Some(8)),
            mismatch(Some(3), None),
            mismatch(None, Some(1)),
            Finding::BeyondPosition { key: key(), record: at(9), position: NextOffset(4) },
            Finding::OutOfOrder { key: key(), record: at(3), after: Offset(7) },
        ];
        let lines = findings.iter().map(|finding| {
            let class = finding.class().name();
            format!("{} {class} {}: {}", finding.invariant(), subject(finding), what(finding))
        });
        let expected = "\
4 missing order.created/o-1: it was never published
4 differing dead letter of orders[3]@1: what was published at orders[3]@2 is not what the ledger has
4 differing order.created/o-1: what was published at orders[3]@2 says what the ledger has, but its key or a header is not what belongs to it
4 differing order.created/o-1: it stands at orders[3]@2, and its key belongs on partition 5
4 extra x: it was published 2 times: orders[3]@1, orders[3]@2
4 extra x: it was published at orders[3]@1, orders[3]@2, but the ledger has no such decision
4 missing order.created/o-1: its record orders[3]@1 is done, but no decision is stored
4 extra order.created/o-1: it is decided, but its record is no command: not_utf8: not UTF-8
4 extra order.created/o-1: it is decided from orders[3]@1, where the topic has the record of another command (a topic made anew?)
4 extra order.created/o-1: it is decided from orders[3]@1, where the topic has no record
5 differing order.created/o-1: the hold was not over; stored: accepted {}…
5 differing order.created/o-1: it is decided twice
5 differing order.created/o-1: its record asks for something else than what was decided
5 differing order.created/o-1: stored: accepted {}…; the rules: rejected {}
5 differing order.created/o-1: its movements are MUG -3 to 5 (version 2), MUG -3 to 5 (version 2); the rules: none
5 differing SKU MUG: its limits are backorder_limit 2 and order_limit none, its decisions left backorder_limit 0 and order_limit none
5 differing order o-1: its hold ends at 1970-01-01T00:00:00.000000Z, its decisions say 1970-01-01T00:00:01.000000Z
5 differing order o-1: its hold's end is asked for on orders[4], its order came by orders[3]
4 differing level of SKU MUG: the last record of its key, orders[3]@1, is no level
4 differing level of SKU MUG: the last record of its key, orders[3]@1, is not what was published of version 2, which left 7
4 extra level of SKU MUG: the last record of its key, orders[3]@1, says version 9; the ledger's newest is 2
4 extra order.created/o-1: it is decided, but of no record, and so published nowhere: an operator's own commands are about levels alone
5 missing order.created/o-1: its batch has ledger sequence 10 and then 12: a decision between them is missing, or was moved
6 differing orders[3]: the ledger is at 9, Kafka's committed offset is 8
6 differing orders[3]: the ledger is at 3, Kafka has no committed offset
6 differing orders[3]: the ledger was never here, Kafka's committed offset is 1
6 differing order.created/o-1: it was decided from orders[3]@9, but the ledger's position there is 4
5 differing order.created/o-1: its record orders[3]@3 has a later ledger sequence than the one at offset 7, which comes after it";
        assert_eq!(lines.collect::<Vec<_>>().join("\n"), expected);
    }

    #[test]
    fn a_report_for_machines_has_its_members_in_their_order() {
        let report = AuditReport {
            missing: 1,
            findings: vec![of_event(EventId::Result(key()), Wrong::Missing)],
            ..AuditReport::default()
        };
        let json = serde_json::to_string(&ReportJson::from(&report)).expect("JSON");
        assert_eq!(
            json,
            r#"{"decisions":0,"absorbed":0,"dead_letters":0,"published":0,"differing":0,"missing":1,"extra":0,"#.to_owned()
                + r#""findings":[{"invariant":4,"class":"missing","subject":"order.created/o-1","what":"it was never published"}],"notes":[]}"#
        );
    }
}
