//! Where records come from, measured.

use std::sync::Arc;

use anyhow::Result;

use super::Metrics;
use super::metrics::number;
use crate::kafka;
use crate::kafka::consumer::{
    FetchedRecord, Incoming, LogEnd, NotSpeaking, Notice, StartOffsets, Watermarks,
};
use crate::kafka::offsets::CommittedOffsets;
use crate::kafka::topic_ids::Described;
use crate::ledger::{NextOffset, TopicPartition};
use crate::pipeline::ports::{GroupMember, RecordSource};

pub(super) struct MeasuredSource<S> {
    pub(super) inner: S,
    pub(super) metrics: Metrics,
}

impl<S> MeasuredSource<S> {
    fn records(&self, records: &[FetchedRecord]) {
        self.metrics.counters.records_read.inc_by(u64::from(number(records.len())));
        self.metrics.lags.read(records);
    }

    fn notice(&self, notice: &Notice) {
        let counters = &self.metrics.counters;
        match notice {
            Notice::Assigned(assigned) => {
                counters.partitions_assigned.inc_by(u64::from(number(assigned.partitions.len())));
            }
            Notice::Revoked(revoked) => {
                counters.partitions_revoked(revoked.are_lost, revoked.partitions.len());
                self.metrics.lags.gone(&revoked.partitions);
            }
            Notice::Paused => {
                counters.pauses.inc();
            }
            Notice::LogEnds(ends) => self.metrics.lags.ends(ends),
            Notice::Failed(_) | Notice::NotDone(_) => {
                counters.consumer_errors.inc();
            }
        }
    }
}

impl<S: RecordSource> RecordSource for MeasuredSource<S> {
    type Member = MeasuredMember<S::Member>;

    fn members(&self) -> Vec<Self::Member> {
        let measured = |inner| MeasuredMember { inner, metrics: self.metrics.clone() };
        self.inner.members().into_iter().map(measured).collect()
    }

    // Nothing is waited for after the wait within: one that is cut short loses nothing.
    async fn next(&mut self, records: bool) -> Incoming {
        let incoming = self.inner.next(records).await;
        match &incoming {
            Incoming::Records(records) => self.records(records),
            Incoming::Notice(_, notice) => self.notice(notice),
            Incoming::Ended => {}
        }
        incoming
    }

    async fn close(self) {
        self.inner.close().await;
    }
}

/// A membership of the group, measured.
#[derive(Clone)]
pub(super) struct MeasuredMember<M> {
    inner: M,
    metrics: Metrics,
}

impl<M: GroupMember> GroupMember for MeasuredMember<M> {
    type Name = M::Name;

    fn topics(&self) -> &[Arc<str>] {
        self.inner.topics()
    }

    fn may_own(&self, at: &TopicPartition) -> bool {
        self.inner.may_own(at)
    }

    fn id(&self) -> String {
        self.inner.id()
    }

    fn set_taken_as(&self, id: String) {
        self.inner.set_taken_as(id);
    }

    fn was_taken_as(&self, id: &str) -> bool {
        self.inner.was_taken_as(id)
    }

    fn name(&self) -> Result<M::Name, NotSpeaking> {
        self.inner.name()
    }

    fn is_settled(&self) -> bool {
        self.inner.is_settled()
    }

    fn is_static(&self) -> bool {
        self.inner.is_static()
    }

    fn is_dead(&self) -> bool {
        self.inner.is_dead()
    }

    fn unsubscribe(&self) {
        self.inner.unsubscribe();
    }

    async fn has_left(&self) -> bool {
        self.inner.has_left().await
    }

    async fn committed(&self, of: &[TopicPartition]) -> Result<CommittedOffsets, kafka::Error> {
        let committed = self.inner.committed(of).await?;
        for at in of {
            // Where the group committed nothing, its log's beginning says where it begins.
            self.metrics.lags.begun(at, committed.get(at).unwrap_or_default());
        }
        Ok(committed)
    }

    async fn watermarks(&self, of: &[TopicPartition]) -> Result<Vec<Watermarks>, kafka::Error> {
        let found = self.inner.watermarks(of).await?;
        for (at, Watermarks { low, high }) in of.iter().zip(&found) {
            self.metrics.lags.ends(&[LogEnd { at: at.clone(), end: *high, is_fetched: false }]);
            self.metrics.lags.published(&[(at.clone(), *low)]);
        }
        Ok(found)
    }

    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>, kafka::Error> {
        self.inner.describe(names).await
    }

    async fn commit(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<(), kafka::Error> {
        self.inner.commit(offsets).await
    }

    async fn read_only(&self, from: StartOffsets) -> Result<u64, kafka::Error> {
        self.metrics.counters.rewinds.inc();
        self.inner.read_only(from).await
    }
}
