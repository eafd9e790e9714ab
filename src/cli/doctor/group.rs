//! What is wrong with the group, with what this user may do, and between the ledger's positions and the group's offsets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::diagnosis::Diagnosis;
use super::facts::{KafkaFacts, Known};
use crate::cli::retention::{Kept, Risk, risk};
use crate::config::TopicArgs;
use crate::kafka::Operation;
use crate::kafka::admin::Lag;
use crate::kafka::examiner::LogOffsets;
use crate::kafka::groups::{GroupDescription, MemberDescription};
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::Position;

/// What verifiers call themselves in a group begins so.
const CLIENT_ID: &str = "stock-verifier-";
/// Where the advice about permissions stands.
const PERMISSIONS: &str = "kafka.permissions";

/// The topics that a verifier uses.
pub(super) struct Used<'a> {
    /// What each is for.
    pub(super) topics: &'a TopicArgs,
    /// Those that must be there.
    pub(super) names: &'a [String],
    /// Whether it reads the levels again that it publishes, to answer prechecks from them.
    pub(super) follows_levels: bool,
}

impl Used<'_> {
    /// What it must be allowed with one of them.
    fn needed(&self, name: &str) -> &'static [Operation] {
        if name == self.topics.orders_topic {
            // The end of holds is asked for there.
            &[Operation::Read, Operation::Write]
        } else if name == self.topics.adjustments_topic {
            &[Operation::Read]
        } else if name == self.topics.levels_topic && self.follows_levels {
            &[Operation::Read, Operation::Write]
        } else {
            &[Operation::Write]
        }
    }
}

/// All of it but the positions.
pub(super) fn judge(facts: &KafkaFacts, used: &Used<'_>, group: &str) -> Vec<Diagnosis> {
    let mut diagnoses = permissions(facts, used, group);
    diagnoses.push(members(&facts.group, group));
    diagnoses.extend(others(&facts.others, used.topics));
    diagnoses.extend(retention(facts, used.topics));
    diagnoses
}

fn permissions(facts: &KafkaFacts, used: &Used<'_>, group: &str) -> Vec<Diagnosis> {
    let names = used.names;
    let advice = "Grant it as docs/permissions.md has it for the verifier; or, if this is another user than the \
                  verifier's, run doctor with the settings of `run`";
    let mut diagnoses = Vec::new();
    match &facts.allowed {
        Ok(allowed) => {
            let lacking = |name: &String| {
                let has = (*allowed.get(name)?)?;
                let lacks: Vec<String> = used
                    .needed(name)
                    .iter()
                    .filter(|operation| !has.has(**operation))
                    .map(|operation| format!("{operation:?}"))
                    .collect();
                (!lacks.is_empty()).then(|| format!("{} on {name}", lacks.join(" and ")))
            };
            let lacks: Vec<String> = names.iter().filter_map(lacking).collect();
            if !lacks.is_empty() {
                diagnoses.push(Diagnosis::error(
                    PERMISSIONS,
                    format!("this user lacks {}", lacks.join(", ")),
                    advice,
                ));
            }
            let silent = |name: &&String| {
                facts.cluster.topics.contains_key(*name) && !matches!(allowed.get(*name), Some(Some(_)))
            };
            let silent: Vec<&str> = names.iter().filter(silent).map(String::as_str).collect();
            if !silent.is_empty() {
                diagnoses.push(Diagnosis::unknown(
                    PERMISSIONS,
                    &format!("what this user may do with {}", silent.join(", ")),
                    &"the broker does not say",
                    "Newer brokers do (Kafka 2.3 and later)",
                ));
            }
        }
        Err(why) => {
            diagnoses.push(Diagnosis::unknown(
                PERMISSIONS,
                "what this user may do with the topics",
                why,
                "Look again",
            ));
        }
    }
    if let Ok(GroupDescription { operations: Some(operations), .. }) = &facts.group
        && !operations.has(Operation::Read)
    {
        diagnoses.push(Diagnosis::error(
            PERMISSIONS,
            format!("this user lacks Read on group {group}"),
            advice,
        ));
    }
    let is_known =
        |name: &String| facts.allowed.as_ref().is_ok_and(|known| matches!(known.get(name), Some(Some(_))));
    // What is not there is said already, and nobody knows whether it may be written.
    if diagnoses.is_empty() && names.iter().all(is_known) {
        diagnoses.push(Diagnosis::ok(PERMISSIONS, "this user may read and write the topics as `run` does"));
    }
    diagnoses
}

fn members(found: &Known<GroupDescription>, group: &str) -> Diagnosis {
    let check = "kafka.group";
    match found {
        Ok(GroupDescription { members, .. }) if members.is_empty() => {
            Diagnosis::ok(check, format!("group {group} has no members: no verifier runs"))
        }
        Ok(GroupDescription { members, state, .. }) => {
            if let Some((client_id, hosts)) = shared_name(members) {
                return Diagnosis::error(
                    check,
                    format!(
                        "{client_id:?} is in group {group} from several hosts ({hosts}): two instances with one name \
                         fence each other"
                    ),
                    "Give each instance its own --instance-id",
                );
            }
            let hosts: BTreeSet<&str> = members.iter().map(|member| member.host.as_str()).collect();
            Diagnosis::ok(
                check,
                format!("group {group} is {state}: {} members on {} hosts", members.len(), hosts.len()),
            )
        }
        Err(why) => Diagnosis::error(
            check,
            format!("group {group} cannot be seen: {why}"),
            "Allow this user to read it (ACL: Read on the group), as docs/permissions.md has it",
        ),
    }
}

/// A client id that is in use on several hosts, and those. Workers of one instance share one.
fn shared_name(members: &[MemberDescription]) -> Option<(&str, String)> {
    let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in members {
        hosts.entry(&member.client_id).or_default().insert(&member.host);
    }
    let (client_id, hosts) = hosts.into_iter().find(|(_, hosts)| hosts.len() > 1)?;
    Some((client_id, hosts.into_iter().collect::<Vec<_>>().join(", ")))
}

fn others(found: &Known<(Vec<GroupDescription>, bool)>, topics: &TopicArgs) -> Vec<Diagnosis> {
    let check = "kafka.second_group";
    let (groups, more) = match found {
        Ok(found) => found,
        Err(why) => {
            return vec![Diagnosis::unknown(
                check,
                "other groups on the same topics",
                why,
                "Allow this user to see groups (ACL: Describe)",
            )];
        }
    };
    let mut diagnoses = Vec::new();
    for group in groups {
        let reads = |topic: &str| group.members.iter().any(|member| member.partitions.contains_key(topic));
        if !topics.read().iter().any(|topic| reads(topic)) {
            continue;
        }
        let verifier = group.members.iter().find(|member| member.client_id.starts_with(CLIENT_ID));
        let hosts: BTreeSet<&str> = group.members.iter().map(|member| member.host.as_str()).collect();
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
        diagnoses.push(match verifier {
            Some(verifier) => Diagnosis::error(
                check,
                format!(
                    "a second group of verifiers, {:?} ({} on {hosts}), reads the same topics: every order is decided \
                     by both",
                    group.name, verifier.client_id
                ),
                "Stop one of the two, or give it topics and a ledger of its own; all instances of one shop have one --group",
            ),
            None => Diagnosis::note(
                check,
                format!("group {:?} reads the same topics, from {hosts}; it is none of verifiers by its client ids", group.name),
                "Nothing, if it only reads",
            ),
        });
    }
    if *more {
        diagnoses.push(Diagnosis::note(
            check,
            "there are more groups than are looked into",
            "Look at the others by hand",
        ));
    }
    if diagnoses.is_empty() {
        diagnoses.push(Diagnosis::ok(check, "no other group that this user may see reads the same topics"));
    }
    diagnoses
}

fn retention(facts: &KafkaFacts, topics: &TopicArgs) -> Vec<Diagnosis> {
    let check = "kafka.retention";
    let (offsets, committed) = match (&facts.offsets, &facts.committed) {
        (Ok(offsets), Ok(committed)) => (offsets, committed),
        (Err(why), _) | (_, Err(why)) => {
            return vec![Diagnosis::unknown(
                check,
                "how far the group is from what retention deletes",
                why,
                "Allow this user to read the topics and the group, or look again",
            )];
        }
    };
    let mut diagnoses = Vec::new();
    for topic in topics.read() {
        let mut found: Vec<(i32, Loss)> = offsets
            .iter()
            .filter(|(at, _)| &*at.topic == topic)
            .filter_map(|(at, log)| {
                let next = committed.get(at)?.as_ref().ok()?.as_ref()?;
                let kept = facts.settings.get(topic)?.as_ref().ok().map(Kept::of);
                Some((at.partition, loss(*next, *log, kept)?))
            })
            .collect();
        found.sort_unstable();
        for kind in [Loss::Gone, Loss::Age, Loss::Size] {
            let numbers: Vec<String> = found
                .iter()
                .filter(|(_, loss)| *loss == kind)
                .map(|(number, _)| number.to_string())
                .collect();
            if !numbers.is_empty() {
                diagnoses.push(of_loss(check, kind, topic, &numbers.join(", ")));
            }
        }
    }
    let unread: Vec<String> =
        committed.iter().filter_map(|(at, next)| Some(format!("{at}: {}", next.as_ref().err()?))).collect();
    if let Some(first) = unread.first() {
        diagnoses.push(Diagnosis::unknown(
            check,
            &format!("the committed offsets of {} partitions", unread.len()),
            first,
            "Look again; where it stays so, a transaction hangs in __consumer_offsets (docs/replay.md, Offsets cannot be \
             read)",
        ));
    }
    let is_known = |topic: &str| offsets.keys().any(|at| &*at.topic == topic);
    if diagnoses.is_empty() && topics.read().into_iter().all(is_known) {
        diagnoses.push(Diagnosis::ok(check, "nothing that is not read yet is near its end"));
    }
    diagnoses
}

/// Why unread records are lost, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Gone,
    Age,
    Size,
}

fn loss(next: NextOffset, log: LogOffsets, kept: Option<Kept>) -> Option<Loss> {
    if next.0 < log.low {
        return Some(Loss::Gone);
    }
    let lag = Lag { low: log.low, next: next.0, high: log.high, young: log.young };
    match risk(lag, kept?)? {
        Risk::Age => Some(Loss::Age),
        Risk::Size => Some(Loss::Size),
    }
}

fn of_loss(check: &'static str, loss: Loss, topic: &str, numbers: &str) -> Diagnosis {
    match loss {
        Loss::Gone => Diagnosis::error(
            check,
            format!("{topic}[{numbers}]: records were deleted before the group read them"),
            "Send them again where their producer has them; then start once with --accept-data-loss, which goes on from \
             the earliest record left",
        ),
        Loss::Age => Diagnosis::warning(
            check,
            format!("{topic}[{numbers}]: records that are not read yet are older than half of retention.ms"),
            format!("Raise retention.ms of {topic}, or start more instances"),
        ),
        Loss::Size => Diagnosis::warning(
            check,
            format!("{topic}[{numbers}]: more than half of what retention.bytes keeps is not read yet"),
            format!("Raise retention.bytes of {topic}, or start more instances"),
        ),
    }
}

/// The ledger's positions against the group's offsets, and against the topics that there are. The offsets were read
/// first: a ledger that is in order is never behind them.
pub(super) fn judge_positions(
    facts: &KafkaFacts,
    topics: &TopicArgs,
    positions: &HashMap<TopicPartition, Position>,
) -> Vec<Diagnosis> {
    let check = "ledger.positions";
    let mut diagnoses = identity(facts, topics, positions);
    let committed = match &facts.committed {
        Ok(committed) => committed,
        Err(why) => {
            diagnoses.push(Diagnosis::unknown(check, "the group's committed offsets", why, "Look again"));
            return diagnoses;
        }
    };
    let runs = facts.group.as_ref().is_ok_and(|group| !group.members.is_empty());
    let (mut behind, mut ahead, mut without) = (Vec::new(), 0_i64, Vec::new());
    let mut sorted: Vec<_> = committed.iter().collect();
    sorted.sort_unstable_by_key(|(at, _)| *at);
    for (at, next) in sorted {
        let Ok(next) = next else { continue };
        match (next, positions.get(at)) {
            (Some(next), Some(position)) if position.next < *next => {
                behind.push(format!("{at} is at {}, committed is {next}", position.next));
            }
            // Where a partition begins is committed before anything of it is decided.
            (Some(next), None)
                if next.0 > 0
                    && facts
                        .offsets
                        .as_ref()
                        .ok()
                        .and_then(|logs| logs.get(at))
                        .is_none_or(|log| next.0 > log.low) =>
            {
                behind.push(format!("{at} is not in the ledger, committed is {next}"));
            }
            (Some(next), Some(position)) => ahead += position.next.0 - next.0,
            (None, Some(position)) if position.next.0 > 0 => without.push(at.to_string()),
            _ => {}
        }
    }
    if !behind.is_empty() {
        diagnoses.push(Diagnosis::error(
            check,
            format!(
                "the ledger is behind what the group committed, the database went back in time: {}",
                behind.join("; ")
            ),
            "Restore a newer backup, or make the ledger again: docs/replay.md, The verifier refuses to start",
        ));
    }
    if !without.is_empty() {
        diagnoses.push(Diagnosis::warning(
            check,
            format!("the group's offsets are gone, though the ledger has positions: {}", without.join(", ")),
            "Check --group. If it is right, `run` goes on from the ledger, and publishes again what it does not know to be \
             published",
        ));
    }
    if ahead > 0 && !runs {
        diagnoses.push(Diagnosis::note(
            check,
            format!("{ahead} records are decided and not known to be published, and no verifier runs"),
            "The next start publishes them",
        ));
    }
    if diagnoses.is_empty() {
        diagnoses.push(Diagnosis::ok(
            check,
            if ahead > 0 {
                format!("the ledger is {ahead} records ahead of the group's offsets: they are on their way")
            } else {
                "the ledger's positions are the group's offsets".to_owned()
            },
        ));
    }
    diagnoses
}

/// Whether the positions are of the topics that there are.
fn identity(
    facts: &KafkaFacts,
    topics: &TopicArgs,
    positions: &HashMap<TopicPartition, Position>,
) -> Vec<Diagnosis> {
    let check = "ledger.topics";
    let described = match &facts.described {
        Ok(described) => described,
        Err(why) => return vec![Diagnosis::unknown(check, "which topics these are", why, "Look again")],
    };
    let mut diagnoses = Vec::new();
    for (name, now) in described {
        let of_it = || positions.iter().filter(|(at, _)| &*at.topic == name.as_str());
        if let Some(id) = now.id()
            && let Some((at, was)) = of_it().find_map(|(at, position)| {
                Some((at, position.topic_id.as_ref().filter(|known| *known != id)?))
            })
        {
            diagnoses.push(Diagnosis::error(
                check,
                format!("{name} was made anew: {at} is of topic {was} in the ledger, and Kafka has {id} now"),
                "See docs/replay.md, The verifier says that a topic was made anew",
            ));
        } else if matches!(now, Described::There { .. })
            && let Some((at, _)) =
                of_it().filter(|(at, _)| !now.has(at.partition)).max_by_key(|(at, _)| at.partition)
        {
            diagnoses.push(Diagnosis::error(
                check,
                format!("{name} has fewer partitions than before: the ledger has a position of {at}"),
                "See docs/replay.md, The verifier says that a topic was made anew",
            ));
        }
    }
    let mut elsewhere: Vec<&str> =
        positions.keys().map(|at| &*at.topic).filter(|topic| !topics.read().contains(topic)).collect();
    elsewhere.sort_unstable();
    elsewhere.dedup();
    if !elsewhere.is_empty() {
        diagnoses.push(Diagnosis::note(
            check,
            format!(
                "the ledger also has positions of {}, which these settings do not read",
                elsewhere.join(", ")
            ),
            "Nothing, if the topics were renamed; else check --orders-topic and --adjustments-topic",
        ));
    }
    diagnoses
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::super::facts::short_names as topics;
    use super::*;
    use crate::kafka::Operations;
    use crate::ledger::TopicId;

    fn group(name: &str, client_id: &str, topic: &str) -> GroupDescription {
        let member = MemberDescription {
            client_id: client_id.to_owned(),
            host: "/10.0.0.1".to_owned(),
            partitions: BTreeMap::from([(topic.to_owned(), BTreeSet::from([0]))]),
        };
        GroupDescription {
            name: name.to_owned(),
            state: "Stable".to_owned(),
            members: vec![member],
            operations: None,
        }
    }

    fn facts(committed: Option<i64>, members: bool) -> KafkaFacts {
        let mut of = group("g", "stock-verifier-a-orders", "o");
        if !members {
            of.members.clear();
        }
        let at = TopicPartition::new("o", 0);
        KafkaFacts {
            described: Ok(BTreeMap::from([(
                "o".to_owned(),
                Described::There { id: Some(TopicId::new("now")), partitions: 1 },
            )])),
            group: Ok(of),
            others: Ok((Vec::new(), false)),
            committed: Ok(HashMap::from([(at.clone(), Ok(committed.map(NextOffset)))])),
            offsets: Ok(HashMap::from([(at, LogOffsets { low: 0, stable: 100, high: 100, young: 100 })])),
            ..KafkaFacts::unknown()
        }
    }

    fn position(next: i64, topic_id: &str) -> Position {
        Position { next: NextOffset(next), published: None, topic_id: Some(TopicId::new(topic_id)) }
    }

    #[test]
    fn positions_are_judged_against_what_the_group_committed() {
        let table = [
            (Some(7), true, Some(7), Severity::Ok),
            (Some(7), true, Some(9), Severity::Ok),
            (Some(7), false, Some(9), Severity::Note),
            (Some(7), true, Some(6), Severity::Error),
            (Some(7), true, None, Severity::Error),
            (Some(0), true, None, Severity::Ok),
            (None, true, None, Severity::Ok),
            (None, false, Some(9), Severity::Warning),
        ];
        for (committed, members, at, expected) in table {
            let positions =
                at.map(|next| (TopicPartition::new("o", 0), position(next, "now"))).into_iter().collect();
            let found = judge_positions(&facts(committed, members), &topics(), &positions);
            let worst = found.iter().map(|diagnosis| diagnosis.severity).max();
            assert_eq!(worst, Some(expected), "{committed:?}, {members}, {at:?}: {found:?}");
        }
    }

    #[test]
    fn a_topic_made_anew_or_with_fewer_partitions_is_an_error() {
        let judged = |at: i32, id: &str| {
            let positions = HashMap::from([(TopicPartition::new("o", at), position(0, id))]);
            judge_positions(&facts(None, true), &topics(), &positions)
        };
        let found = judged(0, "before");
        assert!(found[0].severity == Severity::Error && found[0].what.contains("made anew"), "{found:?}");
        let found = judged(4, "now");
        assert!(
            found[0].severity == Severity::Error && found[0].what.contains("fewer partitions"),
            "{found:?}"
        );
    }

    #[test]
    fn a_second_group_is_an_error_when_it_is_one_of_verifiers() {
        let table = [
            (group("x", "stock-verifier-b-orders", "o"), Severity::Error),
            (group("x", "analytics", "a"), Severity::Note),
            (group("x", "stock-verifier-b-orders", "elsewhere"), Severity::Ok),
        ];
        for (other, expected) in table {
            let found = others(&Ok((vec![other.clone()], false)), &topics());
            assert_eq!(found[0].severity, expected, "{other:?}: {found:?}");
        }
    }

    #[test]
    fn two_instances_of_one_name_are_an_error_and_two_workers_of_one_are_none() {
        let mut found = group("g", "stock-verifier-a-orders", "o");
        found.members.push(found.members[0].clone());
        assert_eq!(members(&Ok(found.clone()), "g").severity, Severity::Ok);
        found.members[1].host = "/10.0.0.2".to_owned();
        let judged = members(&Ok(found), "g");
        assert!(
            judged.severity == Severity::Error && judged.what.contains("/10.0.0.1, /10.0.0.2"),
            "{judged:?}"
        );
    }

    #[test]
    fn what_a_user_lacks_is_named_by_topic() {
        let mut facts = facts(None, true);
        let all = Operations::of(&[Operation::Read, Operation::Write]);
        let names: Vec<String> = topics().named().iter().map(|(_, name)| (*name).to_owned()).collect();
        let mut allowed: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), Some(all))).collect();
        facts.allowed = Ok(allowed.clone());
        let topics = topics();
        let used = |follows_levels| Used { topics: &topics, names: &names, follows_levels };
        assert_eq!(permissions(&facts, &used(false), "g")[0].severity, Severity::Ok);
        allowed.insert("o".to_owned(), Some(Operations::of(&[Operation::Read])));
        allowed.insert("a".to_owned(), Some(Operations::of(&[Operation::Read])));
        allowed.insert("d".to_owned(), Some(Operations::default()));
        facts.allowed = Ok(allowed);
        let found = permissions(&facts, &used(false), "g");
        assert_eq!(found[0].what, "this user lacks Write on o, Write on d");
        facts.group.as_mut().unwrap().operations = Some(Operations::default());
        assert_eq!(permissions(&facts, &used(false), "g")[1].what, "this user lacks Read on group g");
    }

    #[test]
    fn the_levels_must_be_read_where_prechecks_are_answered_from_them() {
        let mut facts = facts(None, true);
        let topics = topics();
        let names: Vec<String> = topics.named().iter().map(|(_, name)| (*name).to_owned()).collect();
        let all = Operations::of(&[Operation::Read, Operation::Write]);
        let mut allowed: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), Some(all))).collect();
        allowed.insert("s.l".to_owned(), Some(Operations::of(&[Operation::Write])));
        facts.allowed = Ok(allowed);
        let found = |follows_levels| {
            let used = Used { topics: &topics, names: &names, follows_levels };
            permissions(&facts, &used, "g").swap_remove(0)
        };
        assert_eq!(found(false).severity, Severity::Ok);
        assert_eq!(found(true).what, "this user lacks Read on s.l");
    }

    #[test]
    fn records_that_are_gone_or_soon_will_be_are_told_apart() {
        let log = |low, young| LogOffsets { low, stable: 100, high: 100, young };
        let hour = Kept { ms: Some(3_600_000), bytes: None };
        assert_eq!(loss(NextOffset(5), log(6, 0), Some(hour)), Some(Loss::Gone));
        assert_eq!(loss(NextOffset(5), log(6, 0), None), Some(Loss::Gone));
        assert_eq!(loss(NextOffset(5), log(0, 6), Some(hour)), Some(Loss::Age));
        assert_eq!(loss(NextOffset(5), log(0, 5), Some(hour)), None);
        let sized = Kept { ms: None, bytes: Some(1_000) };
        assert_eq!(loss(NextOffset(20), log(10, 100), Some(sized)), Some(Loss::Size));
    }
}
