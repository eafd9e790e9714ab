//! A client that asks, and never reads or joins.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupInfo;

use super::closing::BoundedClose;
use super::consumer::Watermarks;
use super::elections::wait_for_coordinator;
use super::error::{Doing as _, Error};
use super::groups::{self, GroupDescription};
use super::offsets::{self, CommittedOffsets, list};
use super::password::WithPassword;
use super::topic_ids::{Described, describe};
use crate::config::KafkaArgs;
use crate::ledger::{NextOffset, TopicPartition};

/// Longest wait for an answer; who asks again gets another.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Says nothing: what matters is said by who asks.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "asking Kafka");
    }
}

impl ConsumerContext for Quiet {}

/// Asks about topics, a group's members and what it committed. Every call blocks, for some seconds at most.
pub struct Asker(BoundedClose<WithPassword<BaseConsumer<Quiet>>>);

impl Asker {
    /// Asks under this client id. `group` is whose committed offsets it can ask for; it does not become a member.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, client_id: &str, group: Option<&str>) -> Result<Self> {
        let mut config = kafka.client()?;
        kafka.overlay(&mut config);
        config
            .set("client.id", client_id)
            // Asking must not make a topic that is gone.
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            // Offsets of an open transaction are not waited for: under load there is always one. What was committed
            // before it is what a ledger must have at least.
            .set("isolation.level", "read_uncommitted")
            .remove("group.instance.id");
        if let Some(group) = group {
            config.set("group.id", group);
        }
        let client = config.create_with_context(Quiet).context("the Kafka configuration is refused")?;
        Ok(Self(BoundedClose::new(WithPassword::consumer(client))))
    }

    /// Serves the callbacks, which would pile up.
    fn serve(&self) {
        let _ = self.0.poll(Duration::ZERO);
    }

    /// Which topics these names mean.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn describe(&self, names: &[&str]) -> Result<Vec<Described>, Error> {
        self.serve();
        describe(self.0.client(), names, ANSWER_LIMIT).doing(|| "cannot ask for topics")
    }

    /// The first offset that a partition's log still holds, and its end.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks, Error> {
        self.serve();
        let (low, high) = offsets::watermarks(&self.0, at, ANSWER_LIMIT)
            .doing(|| format!("cannot read the first and last offset of {at}"))?;
        Ok(Watermarks { low: NextOffset(low), high: NextOffset(high) })
    }

    /// What the group committed for these partitions.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self, partitions: &[TopicPartition]) -> Result<CommittedOffsets, Error> {
        self.serve();
        let answer = self.0.committed_offsets(list(partitions), ANSWER_LIMIT);
        Ok(CommittedOffsets::of_answer(&answer.doing(|| "cannot read the committed offsets")?))
    }

    /// A group, as Kafka describes it. Needs the permission to describe it, which its members have.
    ///
    /// # Errors
    /// When Kafka does not answer, or does not describe it.
    pub fn group(&self, name: &str) -> Result<GroupDescription> {
        self.serve();
        let found = groups::describe(self.0.client(), &[name], ANSWER_LIMIT);
        let found = found.doing(|| "cannot ask for the group")?;
        let group = found.into_iter().next().context("the answer leaves the group out")?;
        group.map_err(|why| anyhow::anyhow!(why))
    }

    /// The client ids of a group's members.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn members(&self, group: &str) -> Result<Vec<String>, Error> {
        self.serve();
        let groups =
            wait_for_coordinator(ANSWER_LIMIT, || self.0.fetch_group_list(Some(group), ANSWER_LIMIT))
                .doing(|| "cannot read the group's members")?;
        let members = groups.groups().iter().flat_map(GroupInfo::members);
        Ok(members.map(|member| member.client_id().to_owned()).collect())
    }
}
