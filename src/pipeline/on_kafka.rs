//! The ports on a real Kafka: what blocks there is waited for here.
//!
//! A call that blocks is made where it is, and the runtime's other tasks go on elsewhere meanwhile
//! ([`block_in_place`]): what it borrows need not be copied. So a verifier needs a runtime of several threads.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use tokio::task::{block_in_place, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::Portion;
use super::ports::{GroupCommitted, GroupOffsets, RecordSource, ResultSink};
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::kafka;
use crate::kafka::asker::Asker;
use crate::kafka::consumer::{
    Consumer, Incoming, MemberName, Memberships, NotSpeaking, StartOffsets, Watermarks,
};
use crate::kafka::offsets::CommittedOffsets;
use crate::kafka::topic_ids::Described;
use crate::kafka::transactional::{InitError, PublishError, PublishRequest, Publisher};
use crate::ledger::{NextOffset, TopicPartition};

impl RecordSource for Memberships {
    type Member = Arc<Consumer>;

    fn members(&self) -> Vec<Arc<Consumer>> {
        Self::members(self).to_vec()
    }

    async fn next(&mut self, records: bool) -> Incoming {
        Self::next(self, records).await
    }

    async fn close(self) {
        if spawn_blocking(move || Self::close(self)).await.is_err() {
            tracing::error!("closing the consumers panicked");
        }
    }
}

impl super::ports::GroupMember for Arc<Consumer> {
    type Name = MemberName;

    fn topics(&self) -> &[Arc<str>] {
        self.member().topics()
    }

    fn id(&self) -> String {
        self.member().id()
    }

    fn set_taken_as(&self, id: String) {
        self.member().set_taken_as(id);
    }

    fn was_taken_as(&self, id: &str) -> bool {
        self.member().was_taken_as(id)
    }

    fn name(&self) -> Result<MemberName, NotSpeaking> {
        self.member().speaking()
    }

    fn is_settled(&self) -> bool {
        self.member().is_settled()
    }

    fn is_static(&self) -> bool {
        Consumer::is_static(self)
    }

    fn is_dead(&self) -> bool {
        Consumer::is_dead(self)
    }

    fn unsubscribe(&self) {
        Consumer::unsubscribe(self);
    }

    async fn has_left(&self) -> bool {
        block_in_place(|| Consumer::has_left(self))
    }

    async fn committed(&self, of: &[TopicPartition]) -> Result<CommittedOffsets, kafka::Error> {
        block_in_place(|| self.member().committed(of))
    }

    async fn watermarks(&self, of: &[TopicPartition]) -> Result<Vec<Watermarks>, kafka::Error> {
        block_in_place(|| self.member().watermarks(of))
    }

    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>, kafka::Error> {
        block_in_place(|| self.member().describe(names))
    }

    async fn commit(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<(), kafka::Error> {
        block_in_place(|| self.member().commit(offsets))
    }

    async fn read_only(&self, from: StartOffsets) -> Result<u64, kafka::Error> {
        Consumer::read_only(self, from).await
    }
}

impl ResultSink for Publisher {
    type Name = MemberName;

    async fn init_transactions(&mut self, stop: &CancellationToken) -> Result<(), InitError> {
        block_in_place(|| Self::init_transactions(self, stop))
    }

    async fn publish(&mut self, portion: &Portion<'_>, names: &[MemberName]) -> Result<(), PublishError> {
        let request = PublishRequest { events: &portion.events, offsets: &portion.offsets, group: names };
        block_in_place(|| Self::publish(self, &request))
    }
}

/// Asks what the group committed with a client of its own.
pub(super) struct AskedGroup {
    asker: Asker,
    topics: Vec<String>,
}

impl AskedGroup {
    /// For the topics that commands come by.
    ///
    /// # Errors
    /// When the Kafka configuration is refused.
    pub(super) fn new(kafka: &KafkaArgs, group: &GroupArgs, topics: &TopicArgs) -> Result<Self> {
        let asker = Asker::new(kafka, "stock-verifier-offsets", Some(&group.group))?;
        Ok(Self { asker, topics: topics.read().map(str::to_owned).to_vec() })
    }

    fn ask(&self) -> Result<GroupCommitted, kafka::Error> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let described = self.asker.describe(&names)?;
        let mut wanted = Vec::new();
        for (name, described) in names.iter().zip(&described) {
            if let Described::There { partitions, .. } = described {
                wanted.extend((0..*partitions).map(|partition| TopicPartition::new(*name, partition)));
            }
        }
        let committed = self.asker.committed(&wanted)?.all()?;
        let topic_id = |at: &TopicPartition| {
            let index = names.iter().position(|name| **name == *at.topic)?;
            described[index].id().cloned()
        };
        Ok(committed.into_iter().map(|(at, next)| (at.clone(), (topic_id(&at), next))).collect())
    }
}

#[async_trait]
impl GroupOffsets for AskedGroup {
    async fn committed(&self) -> Result<GroupCommitted, kafka::Error> {
        block_in_place(|| self.ask())
    }
}
