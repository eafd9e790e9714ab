//! What is wrong with transactions: a Kafka that loses their ends, one that hangs, an id that may not be used.

use std::collections::BTreeMap;

use super::diagnosis::Diagnosis;
use super::facts::{KafkaFacts, Known, OpenTransaction, TrialFailure};
use crate::kafka::examiner::ApiVersions;
use crate::ledger::TopicPartition;

/// How long a transaction may be open, in milliseconds: Kafka ends one of a verifier after 10 s, and looks every some
/// seconds.
const OPEN_LONG_MS: i64 = 30_000;

/// What is said of open transactions.
const TRANSACTIONS: &str = "kafka.transactions";

/// All of it.
pub(super) fn judge(facts: &KafkaFacts) -> Vec<Diagnosis> {
    let mut diagnoses = vec![release(&facts.api_versions)];
    match &facts.offsets {
        Ok(_) => diagnoses.extend(hanging(&facts.open, facts.now_ms)),
        Err(why) => diagnoses.push(Diagnosis::unknown(
            TRANSACTIONS,
            "transactions that hang",
            why,
            "Look again; or by hand: kafka-transactions.sh find-hanging",
        )),
    }
    diagnoses.push(pending(&facts.pending));
    diagnoses.push(trial(&facts.trial));
    diagnoses
}

/// Which Kafka a broker is, as far as it says: only by what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Release {
    /// Before 2.8, which gave topics their ids.
    WithoutTopicIds,
    /// Before 4.2.
    Before42,
    /// 4.2.
    V42,
    /// 4.3, which loses ends.
    V43,
    /// 4.4 or newer: 4.4.0 loses ends, and nothing tells it from what comes after.
    V44OrNewer,
}

/// Numbers of kinds of requests in Kafka's protocol.
mod api {
    /// `Metadata`; 10 and newer know the ids of topics.
    pub(super) const METADATA: i16 = 3;
    /// `ApiVersions`; 5 came with 4.4.
    pub(super) const API_VERSIONS: i16 = 18;
    /// `WriteTxnMarkers`; 2 came with 4.2.
    pub(super) const WRITE_TXN_MARKERS: i16 = 27;
    /// `DescribeLogDirs`; 5 came with 4.3.
    pub(super) const DESCRIBE_LOG_DIRS: i16 = 35;
}

impl Release {
    fn of(versions: &ApiVersions) -> Self {
        let newest = |kind| versions.get(&kind).copied().unwrap_or(-1);
        if newest(api::API_VERSIONS) >= 5 {
            Self::V44OrNewer
        } else if newest(api::DESCRIBE_LOG_DIRS) >= 5 {
            Self::V43
        } else if newest(api::WRITE_TXN_MARKERS) >= 2 {
            Self::V42
        } else if newest(api::METADATA) >= 10 {
            Self::Before42
        } else {
            Self::WithoutTopicIds
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::WithoutTopicIds => "Kafka before 2.8",
            Self::Before42 => "Kafka before 4.2",
            Self::V42 => "Kafka 4.2",
            Self::V43 => "Kafka 4.3",
            Self::V44OrNewer => "Kafka 4.4 or newer",
        }
    }
}

fn release(brokers: &BTreeMap<String, ApiVersions>) -> Diagnosis {
    let check = "kafka.release";
    let lost = "Kafka 4.3.0 to 4.4.0 can lose the end of a transaction when a broker restarts, and readers then stand still";
    let releases: Vec<(&String, Release)> =
        brokers.iter().map(|(name, versions)| (name, Release::of(versions))).collect();
    let newest = releases.iter().max_by_key(|(_, release)| *release);
    let oldest = releases.iter().min_by_key(|(_, release)| *release);
    let advice = "Use Kafka 4.2, or one newer than 4.4.0 that is known to be free of it; docs/replay.md, Offsets cannot be \
                  read, says how to know a transaction that lost its end, and what to do";
    match (newest, oldest) {
        (Some((broker, Release::V43)), _) => {
            Diagnosis::warning(check, format!("{broker} is Kafka 4.3: {lost}"), advice)
        }
        (Some((broker, Release::V44OrNewer)), _) => Diagnosis::warning(
            check,
            format!("{broker} is Kafka 4.4 or newer, and nothing tells 4.4.0 from what comes after: {lost}"),
            advice,
        ),
        (_, Some((broker, Release::WithoutTopicIds))) => Diagnosis::note(
            check,
            format!(
                "{broker} is {}: it has no topic ids, so a topic made anew is not noticed",
                Release::WithoutTopicIds.name()
            ),
            "Use Kafka 4.2, which the verifier is tested with",
        ),
        (_, Some((_, release))) => {
            Diagnosis::ok(check, format!("{} by what its brokers can do", release.name()))
        }
        _ => Diagnosis::unknown(
            check,
            "which Kafka this is",
            &"no broker said what it can do",
            format!("Look by hand (kafka-broker-api-versions.sh): {lost}"),
        ),
    }
}

fn hanging(open: &[OpenTransaction], now_ms: i64) -> Vec<Diagnosis> {
    let check = TRANSACTIONS;
    let mut diagnoses: Vec<Diagnosis> = open
        .iter()
        .filter_map(|transaction| {
            let OpenTransaction { at, from, since_ms } = transaction;
            let advice = format!(
                "Whose it is: kafka-transactions.sh describe-producers --topic {} --partition {} (the one with \
                 CurrentTransactionStartOffset {from}). Wait for its end; or, if it hangs, end it: kafka-transactions.sh \
                 abort --topic {} --partition {} --start-offset {from}",
                at.topic, at.partition, at.topic, at.partition
            );
            let Some(since) = since_ms else {
                let what = format!("a transaction is open on {at} from offset {from}; since when is not known");
                return Some(Diagnosis::note(check, what, advice));
            };
            let age = now_ms.saturating_sub(*since);
            (age >= OPEN_LONG_MS).then(|| {
                let what = format!(
                    "a transaction is open on {at} for {} s, from offset {from} on: readers of committed records see \
                     nothing after it",
                    age / 1000
                );
                Diagnosis::error(check, what, advice)
            })
        })
        .collect();
    if diagnoses.is_empty() {
        diagnoses.push(Diagnosis::ok(check, "no transaction is open for long on the topics that are there"));
    }
    diagnoses
}

/// Offsets that no reader of committed offsets gets: a verifier that starts waits for them.
fn pending(found: &Known<Vec<TopicPartition>>) -> Diagnosis {
    let check = "kafka.offsets";
    match found {
        Ok(partitions) if partitions.is_empty() => {
            Diagnosis::ok(check, "no transaction keeps the group's offsets open")
        }
        Ok(partitions) => {
            let named: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            Diagnosis::warning(
                check,
                format!(
                    "an open transaction has the group's offsets of {}, for more than a second: who starts there waits for \
                     its end",
                    named.join(", ")
                ),
                "Look again after half a minute: Kafka ends a verifier's that was killed within that. One that stays hangs in \
                 __consumer_offsets: find it with kafka-transactions.sh find-hanging, and end it with abort (docs/replay.md, \
                 Offsets cannot be read)",
            )
        }
        Err(why) => Diagnosis::unknown(
            check,
            "whether an open transaction has the group's offsets",
            why,
            "Look again; or by hand: kafka-transactions.sh find-hanging",
        ),
    }
}

/// What the ids of all instances begin with: the group and its colon, or what the user gave in its place.
fn prefix(id: &str) -> &str {
    id.find(':').map_or_else(|| id.strip_suffix("-0-doctor").unwrap_or(id), |colon| &id[..=colon])
}

fn trial(tried: &Result<(), TrialFailure>) -> Diagnosis {
    let check = "kafka.transactional_id";
    match tried {
        Ok(()) => Diagnosis::ok(check, "this user may use transactional ids of this instance"),
        Err(TrialFailure { id, refused: true, why }) => Diagnosis::error(
            check,
            format!(
                "this user may not use the transactional id {id:?}, made for this trial like those of `run`: {why}"
            ),
            format!(
                "Allow Write and Describe on the prefix (kafka-acls --transactional-id {} --resource-pattern-type prefixed, \
                 docs/permissions.md). Where each id of `run` is allowed by itself, this is no fault",
                prefix(id)
            ),
        ),
        Err(TrialFailure { why, .. }) => Diagnosis::unknown(
            check,
            "whether this user may use transactional ids",
            why,
            "Look again; where it stays so, the coordinator of transactions is away (the topic __transaction_state)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::*;

    #[test]
    fn a_release_is_told_by_what_it_can_do() {
        // As kafka-clients of these releases have it.
        let before = [(3, 13), (18, 4), (27, 1), (35, 4)];
        let v42 = [(3, 13), (18, 4), (27, 2), (35, 4)];
        let v43 = [(3, 13), (18, 4), (27, 2), (35, 5)];
        let v44 = [(3, 13), (18, 5), (27, 2), (35, 5)];
        let table = [
            (vec![before], Severity::Ok, "before 4.2"),
            (vec![v42], Severity::Ok, "Kafka 4.2"),
            (vec![v42, v43], Severity::Warning, "broker 1 is Kafka 4.3"),
            (vec![v44, v42], Severity::Warning, "broker 0 is Kafka 4.4"),
            (vec![[(3, 9), (18, 3), (27, 0), (35, 2)]], Severity::Note, "no topic ids"),
            (vec![], Severity::Note, "cannot look"),
        ];
        for (brokers, severity, word) in table {
            let brokers = brokers
                .into_iter()
                .enumerate()
                .map(|(number, versions)| (format!("broker {number}"), versions.into_iter().collect()))
                .collect();
            let found = release(&brokers);
            assert!(found.severity == severity && found.what.contains(word), "{brokers:?}: {found:?}");
        }
    }

    #[test]
    fn a_transaction_hangs_when_it_is_open_for_long() {
        let open = |since_ms| OpenTransaction { at: TopicPartition::new("t", 3), from: 17, since_ms };
        let judged = |since_ms| hanging(&[open(since_ms)], 100_000).remove(0);
        assert_eq!(judged(Some(99_000)).severity, Severity::Ok);
        assert_eq!(judged(None).severity, Severity::Note);
        let hangs = judged(Some(10_000));
        assert!(hangs.severity == Severity::Error && hangs.what.contains("for 90 s"), "{hangs:?}");
        assert!(hangs.advice.unwrap().contains("--topic t --partition 3 --start-offset 17"));
    }

    #[test]
    fn an_id_that_is_refused_is_an_error_and_a_broker_that_is_away_is_none() {
        let failure =
            |refused| TrialFailure { id: "g:a-0-doctor".to_owned(), refused, why: "why".to_owned() };
        assert_eq!(trial(&Ok(())).severity, Severity::Ok);
        let refused = trial(&Err(failure(true)));
        assert_eq!(refused.severity, Severity::Error);
        assert!(refused.advice.unwrap().contains("--transactional-id g: --resource"));
        assert_eq!(prefix("by-hand-0-doctor"), "by-hand");
        assert_eq!(trial(&Err(failure(false))).severity, Severity::Note);
    }
}
