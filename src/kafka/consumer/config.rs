//! How a member of the group is configured: what it reads, how much it prefetches, whether it is static.

use anyhow::Result;
use rdkafka::ClientConfig;

use crate::config::{GroupArgs, GroupProtocol, KafkaArgs, TopicArgs};

/// Records prefetched at most, and KiB of them: what bounds memory while a backlog drains.
const PREFETCH_RECORDS: &str = "20000";
const PREFETCH_KIB: &str = "16384";
/// The same of adjustments: few as a rule, and a pipeline's memory is for its orders.
const PREFETCH_ADJUSTMENTS: &str = "2000";
const PREFETCH_ADJUSTMENTS_KIB: &str = "1024";
/// Largest fetch, in bytes. A fetch is compressed: orders grow to some ten times of it when it is opened, all at once,
/// so 8 MiB made for 160 MB resident and 1 MiB makes for 60, and no slower. A larger record comes all the same, alone.
const FETCH_MAX_BYTES: &str = "1048576";
/// Longest that a fetch waits at the broker where nothing comes. What is asked on the same connection waits behind it, a
/// rewind's questions among them; so less than the default of 500 ms.
const FETCH_WAIT_MS: &str = "100";
/// How often librdkafka says how far the logs reach, in milliseconds: what a lag is measured by.
const STATISTICS_MS: &str = "5000";
/// The property that makes a member static.
const STATIC_ID: &str = "group.instance.id";

/// What a membership of the group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The orders' topic.
    Orders,
    /// The adjustments' topic.
    Adjustments,
    /// Both, as up to 0.1.
    Both,
}

impl Role {
    /// Its name in ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Adjustments => "adjustments",
            Self::Both => "both",
        }
    }

    pub(super) fn topics(self, topics: &TopicArgs) -> Vec<&str> {
        match self {
            Self::Orders => vec![&topics.orders_topic],
            Self::Adjustments => vec![&topics.adjustments_topic],
            Self::Both => vec![&topics.orders_topic, &topics.adjustments_topic],
        }
    }
}

/// What a client of a group calls itself. A member's role is in it: others see it in the group.
#[must_use]
pub fn client_id(group: &GroupArgs, role: Option<Role>) -> String {
    let role = role.map_or_else(String::new, |role| format!("-{}", role.name()));
    format!("stock-verifier-{}{role}", group.instance())
}

/// A member's configuration.
///
/// # Errors
/// When a password file cannot be read.
pub fn consumer_config(kafka: &KafkaArgs, group: &GroupArgs, role: Role) -> Result<ClientConfig> {
    let mut config = kafka.client()?;
    let (records, kib) = match role {
        Role::Orders | Role::Both => (PREFETCH_RECORDS, PREFETCH_KIB),
        Role::Adjustments => (PREFETCH_ADJUSTMENTS, PREFETCH_ADJUSTMENTS_KIB),
    };
    config
        .set("client.id", client_id(group, Some(role)))
        .set("group.id", &group.group)
        // Offsets travel in the producer's transactions only.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside the log is never answered by silently jumping.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("queued.min.messages", records)
        .set("queued.max.messages.kbytes", kib)
        .set("fetch.max.bytes", FETCH_MAX_BYTES)
        // The default of a second would be a pause in every drain of a backlog.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS)
        .set("statistics.interval.ms", STATISTICS_MS);
    match group.group_protocol {
        GroupProtocol::Classic => {
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", "10000")
                .set("heartbeat.interval.ms", "2000");
        }
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    kafka.overlay(&mut config);
    if kafka.sets("client.id") {
        // The role stays in it, or others could not tell what this member is.
        let by_hand = config.get("client.id").unwrap_or_default().to_owned();
        config.set("client.id", format!("{by_hand}-{}", role.name()));
    }
    Ok(config)
}

/// Makes a membership static, so that whoever comes back within the session finds its partitions as they were and nobody
/// has to wait for the one that is gone. Returns what the group is to call it.
///
/// Not with the consumer protocol, where Kafka refuses the successor of a member that was killed for as long as the
/// session lasts, and librdkafka takes that refusal for final. Who sets an id by hand has it, for each membership.
pub(super) fn make_static(
    config: &mut ClientConfig,
    group: &GroupArgs,
    worker: usize,
    role: Role,
) -> Option<String> {
    let id = match config.get(STATIC_ID) {
        Some(by_hand) => by_hand.to_owned(),
        None if group.group_protocol == GroupProtocol::Classic => group.instance().to_owned(),
        None => String::new(),
    };
    if id.is_empty() {
        config.remove(STATIC_ID);
        return None;
    }
    let id = format!("{id}-{worker}-{}", role.name());
    config.set(STATIC_ID, &id);
    Some(id)
}
