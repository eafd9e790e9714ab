//! The whole ledger against what is known of it, before anything is applied to a database that was connected to anew.
//!
//! A failover can lose commits whose results are published. The position of a batch's own partitions would show it, but
//! the stock they moved is shared by all: a batch of another partition would sell it again. So after every new
//! connection all positions are compared, with the offsets the group committed and with what this process applied.
//!
//! What remains open is a result on its way out at that very moment: exactness over a failover needs a standby that a
//! commit waits for (`synchronous_standby_names`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::progress::Progress;
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::kafka::topic_ids::{Described, describe};
use crate::ledger::{NextOffset, TopicId, TopicPartition};
use crate::store::{Position, Store, StoreError};

/// Longest wait for Kafka's answer to one question; the next try asks again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the group committed for a partition; `None` where it never did. Kafka can answer for some partitions and not for
/// others, and "cannot say" is not "never".
///
/// # Errors
/// When Kafka said nothing of this partition.
pub(super) fn committed(list: &TopicPartitionList, at: &TopicPartition) -> Result<Option<NextOffset>> {
    let cannot = || format!("cannot read the committed offset of {at}");
    let element = list
        .find_partition(&at.topic, at.partition)
        .ok_or(KafkaError::OffsetFetch(rdkafka::error::RDKafkaErrorCode::UnknownPartition))
        .with_context(cannot)?;
    element.error().with_context(cannot)?;
    Ok(element_offset(&element))
}

fn element_offset(element: &TopicPartitionListElem<'_>) -> Option<NextOffset> {
    match element.offset() {
        Offset::Offset(offset) => Some(NextOffset(offset)),
        _ => None,
    }
}

/// Says nothing: what matters is said by who asks.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "asking for committed offsets");
    }
}

impl ConsumerContext for Quiet {}

/// Asks what the group committed, without being a member of it. Every call blocks.
struct GroupOffsets {
    consumer: BaseConsumer<Quiet>,
    topics: Vec<String>,
}

/// What the group committed for each partition of the topics, and which topic it is of.
type Committed = HashMap<TopicPartition, (Option<TopicId>, NextOffset)>;

impl GroupOffsets {
    fn new(kafka: &KafkaArgs, group: &GroupArgs, topics: &TopicArgs) -> Result<Self> {
        let mut config = kafka.client()?;
        kafka.overlay(&mut config);
        config
            .set("client.id", "stock-verifier-offsets")
            .set("group.id", &group.group)
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            // Offsets of an open transaction are not waited for: under load there is always one. What was committed
            // before it is what a ledger must have at least.
            .set("isolation.level", "read_uncommitted")
            .remove("group.instance.id");
        let consumer = config.create_with_context(Quiet).context("the Kafka configuration is refused")?;
        let topics = topics.read().map(str::to_owned).to_vec();
        Ok(Self { consumer, topics })
    }

    fn ask(&self) -> Result<Committed> {
        // Serves the callbacks, which would pile up.
        let _ = self.consumer.poll(Duration::ZERO);
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let described = describe(self.consumer.client(), &names, ANSWER_LIMIT)?;
        let mut wanted = TopicPartitionList::new();
        for (name, described) in names.iter().zip(&described) {
            if let Described::There { partitions, .. } = described {
                for partition in 0..*partitions {
                    wanted.add_partition(name, partition);
                }
            }
        }
        let answer = self
            .consumer
            .committed_offsets(wanted, ANSWER_LIMIT)
            .context("cannot read the committed offsets")?;
        let mut all = Committed::new();
        for element in answer.elements() {
            let at = TopicPartition::new(element.topic(), element.partition());
            if let Some(next) = committed(&answer, &at)? {
                let index = names.iter().position(|name| *name == element.topic());
                let topic_id = index.and_then(|index| described[index].id().cloned());
                all.insert(at, (topic_id, next));
            }
        }
        Ok(all)
    }
}

/// Compares the whole ledger with what is known of it, once for each new connection, for all pipelines of the process.
pub struct Comparison {
    store: Arc<dyn Store>,
    group: Arc<GroupOffsets>,
    progress: Arc<Progress>,
    /// The connection epoch that was compared last.
    compared: Mutex<Option<u64>>,
}

impl Comparison {
    /// With a client of its own.
    ///
    /// # Errors
    /// When the Kafka configuration is refused.
    pub fn new(
        kafka: &KafkaArgs,
        group: &GroupArgs,
        topics: &TopicArgs,
        store: Arc<dyn Store>,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let group = Arc::new(GroupOffsets::new(kafka, group, topics)?);
        Ok(Self { store, group, progress, compared: Mutex::default() })
    }

    /// How far this process knows each partition to be.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The connection epoch in which the ledger has all that is known of it: batches may be applied in it. Asks nobody
    /// while there was no new connection.
    ///
    /// # Errors
    /// [`StoreError::LedgerBehind`] when the database went back in time; else Kafka or the database cannot be asked now.
    pub async fn epoch(&self) -> Result<u64> {
        let mut compared = self.compared.lock().await;
        if let Some(epoch) = *compared
            && epoch == self.store.connection_epoch()
        {
            return Ok(epoch);
        }
        // What is known first: the ledger only grows meanwhile.
        let group = Arc::clone(&self.group);
        let committed =
            spawn_blocking(move || group.ask()).await.context("asking for offsets panicked")??;
        let (epoch, ledger) = self.store.applying_positions().await?;
        let behind = self.progress.ahead_of(&ledger).or_else(|| ahead_of(&committed, &ledger));
        if let Some((at, expected, found)) = behind {
            return Err(StoreError::LedgerBehind { at, expected, found }.into());
        }
        tracing::debug!(epoch, partitions = ledger.len(), "the ledger was compared after a new connection");
        *compared = Some(epoch);
        Ok(epoch)
    }

    /// Whether a batch was applied over a connection before the last one: what it did may be lost.
    #[must_use]
    pub fn is_outdated(&self, epoch: u64) -> bool {
        self.store.connection_epoch() != epoch
    }
}

/// A partition whose committed offset is beyond the ledger's position. Not of a topic that was made anew: nothing of such
/// a one is decided until that is accepted, and then what is committed is set first.
fn ahead_of(
    committed: &Committed,
    ledger: &HashMap<TopicPartition, Position>,
) -> Option<(TopicPartition, NextOffset, NextOffset)> {
    committed.iter().find_map(|(at, (topic_id, next))| {
        let found = match ledger.get(at) {
            Some(position) => {
                if let (Some(now), Some(was)) = (topic_id, &position.topic_id)
                    && now != was
                {
                    return None;
                }
                position.next
            }
            None => NextOffset(0),
        };
        (found < *next).then(|| (at.clone(), *next, found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_does_not_say_of_a_partition_is_not_never() {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 0, Offset::Offset(7)).unwrap();
        list.add_partition_offset("orders", 1, Offset::Invalid).unwrap();
        let of = |partition| committed(&list, &TopicPartition::new("orders", partition));
        assert_eq!(of(0).unwrap(), Some(NextOffset(7)));
        assert_eq!(of(1).unwrap(), None);
        let error = of(2).unwrap_err();
        assert!(error.downcast_ref::<KafkaError>().is_some(), "it is tried again: {error:#}");
    }

    #[test]
    fn a_committed_offset_beyond_the_ledger_counts_for_its_own_topic_alone() {
        let at = TopicPartition::new("orders", 0);
        let committed =
            |id: Option<&str>| Committed::from([(at.clone(), (id.map(TopicId::new), NextOffset(7)))]);
        let ledger = |next, id: Option<&str>| {
            let position =
                Position { next: NextOffset(next), published: None, topic_id: id.map(TopicId::new) };
            HashMap::from([(at.clone(), position)])
        };
        let behind = |found| Some((at.clone(), NextOffset(7), NextOffset(found)));
        assert_eq!(ahead_of(&committed(Some("a")), &ledger(7, Some("a"))), None);
        assert_eq!(ahead_of(&committed(Some("a")), &ledger(6, Some("a"))), behind(6));
        assert_eq!(ahead_of(&committed(None), &ledger(6, Some("a"))), behind(6));
        assert_eq!(ahead_of(&committed(Some("b")), &ledger(6, Some("a"))), None);
        assert_eq!(ahead_of(&committed(Some("a")), &HashMap::new()), behind(0));
    }
}
