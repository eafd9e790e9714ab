//! What was gathered of Kafka, to be judged: an answer, or why there is none, for each question.

use std::collections::{BTreeMap, HashMap};

use crate::kafka::Operations;
use crate::kafka::admin::{Settings, TopicSettings};
use crate::kafka::examiner::{ApiVersions, Cluster, LogOffsets};
use crate::kafka::groups::GroupDescription;
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, TopicPartition};

/// An answer, or why there is none.
pub(super) type Known<T> = Result<T, String>;

/// What was gathered of a cluster that answers.
#[derive(Debug)]
pub(super) struct KafkaFacts {
    /// Brokers and topics.
    pub(super) cluster: Cluster,
    /// What each broker can do, by its name.
    pub(super) api_versions: BTreeMap<String, ApiVersions>,
    /// The settings of the verifier's topics, by name.
    pub(super) settings: BTreeMap<String, Known<TopicSettings>>,
    /// The settings of a broker.
    pub(super) broker: Known<Settings>,
    /// Which topics the names of those that are read mean.
    pub(super) described: Known<BTreeMap<String, Described>>,
    /// What this user may do with each topic; `None` where it may not know of it.
    pub(super) allowed: Known<BTreeMap<String, Option<Operations>>>,
    /// The verifier's group.
    pub(super) group: Known<GroupDescription>,
    /// The other groups with members, and whether there are more.
    pub(super) others: Known<(Vec<GroupDescription>, bool)>,
    /// What the group committed of the topics that are read, each by itself.
    pub(super) committed: Known<HashMap<TopicPartition, Known<Option<NextOffset>>>>,
    /// Partitions whose committed offsets are in a transaction that stays open: the first of them.
    pub(super) pending: Known<Vec<TopicPartition>>,
    /// Where the logs of the verifier's topics are.
    pub(super) offsets: Known<HashMap<TopicPartition, LogOffsets>>,
    /// Where transactions are open, and since when, in milliseconds since 1970; `None` where that is not known.
    pub(super) open: Vec<OpenTransaction>,
    /// Whether a transactional id of this instance may be used.
    pub(super) trial: Result<(), TrialFailure>,
    /// What time it was by this machine's clock, in milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// A transaction that was open when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenTransaction {
    /// Where.
    pub(super) at: TopicPartition,
    /// Its first record.
    pub(super) from: i64,
    /// When that was produced, in milliseconds since 1970; `None` where that is not known.
    pub(super) since_ms: Option<i64>,
}

/// Why a transactional id could not be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrialFailure {
    /// The id.
    pub(super) id: String,
    /// Whether Kafka refuses it, or says nothing.
    pub(super) refused: bool,
    /// Why.
    pub(super) why: String,
}

#[cfg(test)]
impl KafkaFacts {
    /// Of a cluster of which nothing is known.
    pub(super) fn unknown() -> Self {
        let why = || "not asked".to_owned();
        Self {
            cluster: Cluster::default(),
            api_versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            broker: Err(why()),
            described: Err(why()),
            allowed: Err(why()),
            group: Err(why()),
            others: Err(why()),
            committed: Err(why()),
            pending: Err(why()),
            offsets: Err(why()),
            open: Vec::new(),
            trial: Err(TrialFailure { id: String::new(), refused: false, why: why() }),
            now_ms: 0,
        }
    }
}

/// Topics with short names.
#[cfg(test)]
pub(super) fn short_names() -> crate::config::TopicArgs {
    let name = str::to_owned;
    crate::config::TopicArgs {
        orders_topic: name("o"),
        adjustments_topic: name("a"),
        accepted_topic: name("s.a"),
        rejected_topic: name("s.r"),
        levels_topic: name("s.l"),
        dead_letter_topic: name("d"),
    }
}
