//! What is wrong with the topics, judged by what Kafka says of them.

use std::collections::BTreeMap;

use super::diagnosis::Diagnosis;
use super::facts::KafkaFacts;
use crate::cli::start_checks::{self, Remark};
use crate::config::TopicArgs;
use crate::kafka::admin::Settings;
use crate::kafka::examiner::PartitionLayout;

/// What is to be known of the settings of `run`.
pub(super) struct Wanted<'a> {
    /// The names of the topics.
    pub(super) topics: &'a TopicArgs,
    /// Those that must be there.
    pub(super) names: Vec<String>,
    /// Whether the topics of commands may be compacted.
    pub(super) accept_compacted: bool,
    /// Pipelines of one instance.
    pub(super) workers: usize,
    /// The largest record that producers send, where the user set it.
    pub(super) largest_sent: Option<u64>,
}

/// Where most that librdkafka's settings name stands.
const LAYOUT: &str = "kafka.replication";

/// All of it.
pub(super) fn judge(facts: &KafkaFacts, wanted: &Wanted<'_>) -> Vec<Diagnosis> {
    let mut diagnoses = missing(facts, wanted);
    let there: Vec<(&str, &[PartitionLayout])> = wanted
        .names
        .iter()
        .filter_map(|name| Some((name.as_str(), facts.cluster.topics.get(name)?.as_slice())))
        .collect();
    diagnoses.extend(replication(facts, &there, there.len() == wanted.names.len()));
    diagnoses.extend(counts(facts, wanted));
    diagnoses.extend(kept(facts, wanted));
    diagnoses.extend(sizes(facts, wanted));
    diagnoses
}

fn missing(facts: &KafkaFacts, wanted: &Wanted<'_>) -> Vec<Diagnosis> {
    let missing: Vec<&str> = wanted
        .names
        .iter()
        .filter(|name| !facts.cluster.topics.contains_key(*name))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return vec![Diagnosis::ok("kafka.topics", format!("all {} topics are there", wanted.names.len()))];
    }
    vec![Diagnosis::error(
        "kafka.topics",
        format!("missing, or not to be seen by this user: {}", missing.join(", ")),
        "Create what is missing with `stock-verifier topics create`, name other topics, or allow this user to see them \
         (docs/permissions.md)",
    )]
}

fn replication(facts: &KafkaFacts, there: &[(&str, &[PartitionLayout])], are_all: bool) -> Vec<Diagnosis> {
    let brokers = facts.cluster.brokers.len();
    let mut diagnoses = Vec::new();
    for (topic, layout) in there {
        let settings = known(facts, topic);
        let least = settings.and_then(|settings| settings.number("min.insync.replicas"));
        diagnoses.extend(replication_of(topic, layout, least, brokers));
        if brokers > 1
            && settings.and_then(|settings| settings.get("unclean.leader.election.enable")) == Some("true")
        {
            diagnoses.push(Diagnosis::warning(
                LAYOUT,
                format!(
                    "{topic} may be led by a copy that lacks records (unclean.leader.election.enable): what was acknowledged \
                     can be lost, and offsets mean other records then"
                ),
                "Set its unclean.leader.election.enable to false",
            ));
        }
    }
    let unread =
        facts.settings.iter().filter_map(|(topic, settings)| Some((topic, settings.as_ref().err()?)));
    if let Some((topic, why)) = unread.into_iter().next() {
        diagnoses.push(Diagnosis::unknown(
            LAYOUT,
            &format!("min.insync.replicas of {topic}"),
            why,
            "Allow this user to read the settings of topics (ACL: DescribeConfigs)",
        ));
    }
    if diagnoses.is_empty() && are_all {
        diagnoses.push(Diagnosis::ok(
            LAYOUT,
            match brokers {
                1 => "every partition is led; there is one broker, so nothing is copied".to_owned(),
                _ => format!("every partition is led and copied, on {brokers} brokers"),
            },
        ));
    }
    diagnoses.push(broker_settings(facts, brokers));
    diagnoses
}

fn replication_of(
    topic: &str,
    layout: &[PartitionLayout],
    least_in_sync: Option<i64>,
    brokers: usize,
) -> Vec<Diagnosis> {
    let mut diagnoses = Vec::new();
    let which = |fits: &dyn Fn(&PartitionLayout) -> bool| {
        let numbers: Vec<String> =
            layout.iter().filter(|at| fits(at)).map(|at| at.partition.to_string()).collect();
        (!numbers.is_empty()).then(|| format!("{topic}[{}]", numbers.join(", ")))
    };
    if let Some(which) = which(&|at| !at.led) {
        diagnoses.push(Diagnosis::error(
            LAYOUT,
            format!("{which} has no leader: nothing of it can be read or written"),
            "Bring the broker back that has it (kafka-topics.sh --describe shows which)",
        ));
    }
    let least = usize::try_from(least_in_sync.unwrap_or(1)).unwrap_or(1);
    let copies = layout.iter().map(|at| at.replicas).min().unwrap_or(1);
    if least > copies {
        diagnoses.push(Diagnosis::error(
            LAYOUT,
            format!(
                "{topic}: min.insync.replicas is {least}, with {copies} copies: nothing can be written to it"
            ),
            format!(
                "Give it more copies (kafka-reassign-partitions.sh), or set its min.insync.replicas to {}",
                copies.saturating_sub(1).max(1)
            ),
        ));
        return diagnoses;
    }
    if let Some(which) = which(&|at| at.led && at.in_sync < least) {
        diagnoses.push(Diagnosis::error(
            LAYOUT,
            format!("{which} has fewer copies in sync than min.insync.replicas ({least}): nothing can be written to it"),
            "Bring the brokers back that are away, or find why they do not keep up",
        ));
    } else if let Some(which) = which(&|at| at.led && at.in_sync < at.replicas) {
        diagnoses.push(Diagnosis::warning(
            LAYOUT,
            format!("{which} has copies that are not in sync"),
            "Bring the brokers back that are away, or find why they do not keep up",
        ));
    }
    if brokers > 1 && copies == 1 {
        diagnoses.push(Diagnosis::warning(
            LAYOUT,
            format!("{topic} has one copy, on {brokers} brokers: when its broker is away, so is it, and with its disk it is gone"),
            "Give it three copies (kafka-reassign-partitions.sh), with min.insync.replicas 2",
        ));
    } else if copies > 1 && least == copies {
        diagnoses.push(Diagnosis::warning(
            LAYOUT,
            format!("{topic}: min.insync.replicas is {least}, as many as there are copies: with any broker away nothing can be written"),
            format!("Set its min.insync.replicas to {}", copies - 1),
        ));
    } else if copies > 2 && least_in_sync == Some(1) {
        diagnoses.push(Diagnosis::warning(
            LAYOUT,
            format!("{topic}: min.insync.replicas is 1: what is acknowledged may be on one broker alone, and be lost with it"),
            "Set its min.insync.replicas to 2",
        ));
    }
    diagnoses
}

/// What transactions and offsets rest on, which are topics of Kafka's own.
fn broker_settings(facts: &KafkaFacts, brokers: usize) -> Diagnosis {
    let check = "kafka.brokers";
    let own = ["transaction.state.log.replication.factor", "offsets.topic.replication.factor"];
    let is_told = |settings: &&Settings| own.iter().all(|name| settings.number(name).is_some());
    let told = facts.broker.as_ref().map_err(String::as_str);
    let settings =
        match told.and_then(|settings| Some(settings).filter(is_told).ok_or("Kafka leaves them out")) {
            Ok(settings) => settings,
            Err(why) => {
                return Diagnosis::unknown(
                    check,
                    "the brokers' own settings (copies of transactions and offsets)",
                    &why,
                    "Allow this user to read them (ACL: DescribeConfigs on the cluster), or look at \
                 transaction.state.log.replication.factor and offsets.topic.replication.factor by hand",
                );
            }
        };
    let few: Vec<String> = own
        .iter()
        .filter_map(|name| Some((name, settings.number(name)?)))
        .filter(|(_, copies)| brokers > 1 && *copies < 2)
        .map(|(name, copies)| format!("{name} is {copies}"))
        .collect();
    if few.is_empty() {
        return Diagnosis::ok(check, "the brokers' settings for transactions and offsets");
    }
    Diagnosis::warning(
        check,
        format!("{}, on {brokers} brokers: with one broker away no result can be published", few.join(", ")),
        "Set both to 3 before the first use; the topics __transaction_state and __consumer_offsets that are there keep \
         theirs until they are reassigned",
    )
}

fn counts(facts: &KafkaFacts, wanted: &Wanted<'_>) -> Vec<Diagnosis> {
    let check = "kafka.partitions";
    let count = |topic: &str| facts.cluster.topics.get(topic).map(Vec::len);
    let topics = wanted.topics;
    let Some(orders) = count(&topics.orders_topic) else { return Vec::new() };
    let mut diagnoses = Vec::new();
    let other: BTreeMap<&str, usize> = [&*topics.accepted_topic, &topics.rejected_topic]
        .into_iter()
        .filter_map(|topic| Some((topic, count(topic)?)))
        .filter(|(_, partitions)| *partitions != orders)
        .collect();
    for (topic, partitions) in other {
        diagnoses.push(Diagnosis::note(
            check,
            format!(
                "{topic} has {partitions} partitions, and {} {orders}: the verifier does not mind, but who joins orders \
                 with their results by partition, as Kafka Streams does, cannot",
                topics.orders_topic
            ),
            format!("Give {topic} {orders} partitions, if anybody joins them; then keys go to other partitions than before"),
        ));
    }
    let members = facts.group.as_ref().map_or(0, |group| group.members.len());
    if orders < wanted.workers {
        diagnoses.push(Diagnosis::warning(
            check,
            format!("{} has {orders} partitions, and one instance {} workers: some get nothing", topics.orders_topic, wanted.workers),
            "Start fewer --workers, or give the topic more partitions while no order is on its way: keys go to other \
             partitions then",
        ));
    } else if diagnoses.is_empty() {
        let readers =
            if members > 0 { format!(", shared by {members} members of the group") } else { String::new() };
        diagnoses.push(Diagnosis::ok(check, format!("{orders} partitions of orders{readers}")));
    }
    diagnoses
}

fn kept(facts: &KafkaFacts, wanted: &Wanted<'_>) -> Vec<Diagnosis> {
    let topics = wanted.topics;
    let mut diagnoses = Vec::new();
    let read = topics.read();
    // A topic that is not there is said already.
    if read.iter().all(|topic| facts.settings.contains_key(*topic)) {
        let described = Ok(read.map(|topic| facts.settings[topic].clone()).into());
        let remarks = start_checks::judge_kept(read, wanted.accept_compacted, &described);
        let advice = "Set cleanup.policy to delete (kafka-configs.sh --alter)";
        diagnoses.extend(remarks.into_iter().map(|found| match found {
            // Somebody has said that it may be so.
            Remark::Warned(what) => Diagnosis::note("kafka.compaction", what, advice),
            found => remark("kafka.compaction", found, advice),
        }));
    }
    let levels = known(facts, &topics.levels_topic).filter(|_| wanted.names.contains(&topics.levels_topic));
    if levels.is_some_and(|settings| !is_compacted(settings)) {
        diagnoses.push(Diagnosis::warning(
            "kafka.compaction",
            format!(
                "{} is not compacted: levels that did not change for long are deleted from it, and who starts to follow \
                 it does not see them",
                topics.levels_topic
            ),
            format!("kafka-configs.sh --alter --topic {} --add-config cleanup.policy=compact", topics.levels_topic),
        ));
    }
    if diagnoses.is_empty() && read.iter().all(|topic| known(facts, topic).is_some()) {
        let levels = if levels.is_some() { ", levels are compacted" } else { "" };
        diagnoses.push(Diagnosis::ok("kafka.compaction", format!("commands are kept{levels}")));
    }
    if let Some(days) = known(facts, &topics.dead_letter_topic)
        .and_then(|settings| settings.number("retention.ms"))
        .filter(|ms| *ms >= 0)
        .map(|ms| ms / 86_400_000)
    {
        diagnoses.push(Diagnosis::note(
            "kafka.dead_letters",
            format!("{} deletes dead letters after {days} days, looked at or not", topics.dead_letter_topic),
            "Set its retention.ms to -1, as `topics create` does, or see to it that somebody looks in time",
        ));
    }
    diagnoses
}

fn sizes(facts: &KafkaFacts, wanted: &Wanted<'_>) -> Vec<Diagnosis> {
    let check = "kafka.sizes";
    let names = start_checks::sized(wanted.topics);
    let described: Vec<_> = names
        .iter()
        .map(|name| facts.settings.get(*name).cloned().unwrap_or_else(|| Err("it is not there".to_owned())))
        .collect();
    let mut diagnoses: Vec<Diagnosis> = start_checks::judge_sizes(names, &described)
        .into_iter()
        .map(|found| {
            remark(check, found, "kafka-configs.sh --alter --topic … --add-config max.message.bytes=…")
        })
        .collect();
    if let Some(sent) = wanted.largest_sent {
        let larger: Vec<&str> = names[2..]
            .iter()
            .zip(&described[2..])
            .filter(|(_, settings)| start_checks::largest_record(settings).is_some_and(|takes| takes > sent))
            .map(|(name, _)| *name)
            .collect();
        if !larger.is_empty() {
            diagnoses.push(Diagnosis::warning(
                check,
                format!(
                    "-X message.max.bytes={sent} is less than {} take (max.message.bytes): a result or a dead letter \
                     between the two cannot be published",
                    larger.join(", ")
                ),
                "Leave -X message.max.bytes out: the verifier sends what the topics take",
            ));
        }
    }
    if diagnoses.is_empty() && described.iter().all(Result::is_ok) {
        diagnoses.push(Diagnosis::ok(check, "results and dead letters find room"));
    }
    diagnoses
}

fn known<'a>(facts: &'a KafkaFacts, topic: &str) -> Option<&'a Settings> {
    facts.settings.get(topic)?.as_ref().ok()
}

fn is_compacted(settings: &Settings) -> bool {
    settings.get("cleanup.policy").unwrap_or_default().split(',').any(|part| part.trim() == "compact")
}

fn remark(check: &'static str, remark: Remark, advice: &str) -> Diagnosis {
    match remark {
        Remark::Refused(what) => Diagnosis::error(check, what, advice),
        Remark::Warned(what) => Diagnosis::warning(check, what, advice),
        Remark::Unknown(what) => Diagnosis::note(check, what, "See docs/permissions.md"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::super::facts::short_names;
    use super::*;

    /// All topics, with these settings each.
    fn facts(settings: &[(&str, &str)]) -> KafkaFacts {
        let mut facts = KafkaFacts::unknown();
        let layout = PartitionLayout { partition: 0, led: true, replicas: 1, in_sync: 1 };
        facts.cluster.brokers = vec![1];
        for (_, name) in short_names().named() {
            facts.cluster.topics.insert(name.to_owned(), vec![layout]);
            facts.settings.insert(name.to_owned(), Ok(Settings::new(settings)));
        }
        facts
    }

    fn wanted(topics: &TopicArgs) -> Wanted<'_> {
        Wanted {
            topics,
            names: topics.named().iter().map(|(_, name)| (*name).to_owned()).collect(),
            accept_compacted: false,
            workers: 1,
            largest_sent: None,
        }
    }

    #[test]
    fn compaction_is_right_for_levels_and_wrong_for_commands_unless_it_is_accepted() {
        let topics = short_names();
        let severities = |facts: &KafkaFacts, wanted: &Wanted<'_>| -> Vec<Severity> {
            let found = kept(facts, wanted).into_iter();
            found
                .filter(|diagnosis| diagnosis.check == "kafka.compaction")
                .map(|diagnosis| diagnosis.severity)
                .collect()
        };
        let mut facts = facts(&[("cleanup.policy", "delete")]);
        assert_eq!(severities(&facts, &wanted(&topics)), [Severity::Warning]);
        let compacted = || Ok(Settings::new(&[("cleanup.policy", "compact,delete")]));
        facts.settings.insert("s.l".to_owned(), compacted());
        assert_eq!(severities(&facts, &wanted(&topics)), [Severity::Ok]);
        facts.settings.insert("a".to_owned(), compacted());
        assert_eq!(severities(&facts, &wanted(&topics)), [Severity::Error]);
        let accepting = Wanted { accept_compacted: true, ..wanted(&topics) };
        assert_eq!(severities(&facts, &accepting), [Severity::Note]);
        // What may not be seen is not well.
        facts.settings.insert("a".to_owned(), Err("not allowed".to_owned()));
        assert_eq!(severities(&facts, &wanted(&topics)), [Severity::Note]);
    }

    #[test]
    fn what_is_sent_must_not_be_smaller_than_what_the_topics_take() {
        let topics = short_names();
        let mut facts = facts(&[("max.message.bytes", "1048588")]);
        let roomy = Settings::new(&[("max.message.bytes", "2097152")]);
        facts.settings.insert("d".to_owned(), Ok(roomy));
        assert_eq!(sizes(&facts, &wanted(&topics))[0].severity, Severity::Ok);
        let small = Wanted { largest_sent: Some(1_500_000), ..wanted(&topics) };
        let found = sizes(&facts, &small);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].what.contains("is less than d take"), "{found:?}");
    }

    #[test]
    fn of_a_topic_that_is_not_there_nothing_is_said_to_be_well() {
        let topics = short_names();
        let mut facts = facts(&[]);
        facts.cluster.topics.clear();
        facts.settings.clear();
        let found = judge(&facts, &wanted(&topics));
        let well: Vec<_> = found.iter().filter(|diagnosis| diagnosis.severity == Severity::Ok).collect();
        assert!(well.is_empty(), "{well:?}");
        assert_eq!((found[0].check, found[0].severity), ("kafka.topics", Severity::Error));
    }

    #[test]
    fn an_unclean_election_is_warned_of_where_there_are_several_brokers() {
        let topics = short_names();
        let mut facts = facts(&[("unclean.leader.election.enable", "true")]);
        let warned = |facts: &KafkaFacts| {
            judge(facts, &wanted(&topics))
                .iter()
                .filter(|diagnosis| diagnosis.what.contains("unclean"))
                .count()
        };
        assert_eq!(warned(&facts), 0);
        facts.cluster.brokers = vec![1, 2, 3];
        assert_eq!(warned(&facts), 6);
    }

    #[test]
    fn copies_are_judged_by_what_a_broker_that_is_away_would_do() {
        let at = |led, replicas, in_sync| PartitionLayout { partition: 3, led, replicas, in_sync };
        let table = [
            (at(true, 1, 1), Some(1), 1, None),
            (at(true, 3, 3), Some(2), 3, None),
            (at(true, 3, 3), None, 3, None),
            (at(true, 3, 3), Some(1), 3, Some(Severity::Warning)),
            (at(true, 2, 2), Some(2), 3, Some(Severity::Warning)),
            (at(true, 1, 1), Some(1), 3, Some(Severity::Warning)),
            (at(true, 3, 2), Some(2), 3, Some(Severity::Warning)),
            (at(true, 3, 1), Some(2), 3, Some(Severity::Error)),
            (at(false, 3, 0), Some(2), 3, Some(Severity::Error)),
            (at(true, 1, 1), Some(2), 1, Some(Severity::Error)),
        ];
        for (layout, least, brokers, expected) in table {
            let found = replication_of("orders", &[layout], least, brokers);
            let worst = found.iter().map(|diagnosis| diagnosis.severity).max();
            assert_eq!(worst, expected, "{layout:?}, {least:?}, {brokers}: {found:?}");
        }
    }
}
