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

use tokio::sync::Mutex;

use super::failure::Failure;
use super::ports::{GroupCommitted, GroupOffsets};
use super::progress::{self, Progress};
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::{LedgerWriter, Position, StoreError};

/// Compares the whole ledger with what is known of it, once for each new connection, for all pipelines of the process.
pub struct Comparison {
    store: Arc<dyn LedgerWriter>,
    group: Box<dyn GroupOffsets>,
    progress: Arc<Progress>,
    /// The connection epoch that was compared last.
    compared: Mutex<Option<u64>>,
}

impl Comparison {
    /// Of this ledger with what its group committed.
    #[must_use]
    pub fn new(store: Arc<dyn LedgerWriter>, group: Box<dyn GroupOffsets>, progress: Arc<Progress>) -> Self {
        Self { store, group, progress, compared: Mutex::default() }
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
    pub async fn epoch(&self) -> Result<u64, Failure> {
        let mut compared = self.compared.lock().await;
        if let Some(epoch) = *compared
            && epoch == self.store.connection_epoch()
        {
            return Ok(epoch);
        }
        // What is known first: the ledger only grows meanwhile, and so does what is known, by what another pipeline applies
        // or begins to read.
        let committed = self.group.committed().await?;
        let known = self.progress.known();
        let (epoch, ledger) = self.store.applying_positions().await?;
        let behind = progress::ahead_of(&known, &ledger).or_else(|| ahead_of(&committed, &ledger));
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
    committed: &GroupCommitted,
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
    use async_trait::async_trait;

    use super::*;
    use crate::kafka;
    use crate::ledger::{HeldProgram, TopicId};
    use crate::pipeline::progress::Known;
    use crate::store::{Advance, Applied, CommandBatch};

    fn orders() -> TopicPartition {
        TopicPartition::new("orders", 4)
    }

    struct NothingCommitted;

    #[async_trait]
    impl GroupOffsets for NothingCommitted {
        async fn committed(&self) -> Result<GroupCommitted, kafka::Error> {
            Ok(GroupCommitted::new())
        }
    }

    /// A ledger that another pipeline of this process applies a batch to, right after its positions were read.
    struct MovesOn(Arc<Progress>);

    #[async_trait]
    impl LedgerWriter for MovesOn {
        async fn applying_positions(&self) -> Result<(u64, HashMap<TopicPartition, Position>), StoreError> {
            let was = NextOffset(800);
            let read = Position { next: was, published: None, topic_id: None };
            let next = NextOffset(1_000);
            self.0.applied(&[Advance { at: orders(), expected: was, next, applied: None, published: None }]);
            Ok((1, HashMap::from([(orders(), read)])))
        }

        fn connection_epoch(&self) -> u64 {
            1
        }

        async fn claim_group(&self, _: &str, _: bool) -> Result<(), StoreError> {
            unreachable!("nobody asks")
        }

        async fn positions(
            &self,
            _: &[TopicPartition],
        ) -> Result<HashMap<TopicPartition, Position>, StoreError> {
            unreachable!("nobody asks")
        }

        async fn all_positions(&self) -> Result<HashMap<TopicPartition, Position>, StoreError> {
            unreachable!("nobody asks")
        }

        async fn set_position(
            &self,
            _: &TopicPartition,
            _: Option<&Position>,
            _: &Position,
        ) -> Result<(), StoreError> {
            unreachable!("nobody asks")
        }

        async fn hold_programs(&self, _: &[HeldProgram]) -> Result<Vec<HeldProgram>, StoreError> {
            unreachable!("nobody asks")
        }

        async fn apply(&self, _: &CommandBatch) -> Result<Applied, StoreError> {
            unreachable!("nobody asks")
        }
    }

    #[tokio::test]
    async fn what_another_pipeline_applies_while_the_ledger_is_compared_is_no_ledger_gone_back_in_time() {
        let progress = Arc::new(Progress::default());
        let known = NextOffset(800);
        progress.begin(&orders(), Known { topic_id: None, applied: known, published: known });
        let store = Arc::new(MovesOn(Arc::clone(&progress)));
        let comparison = Comparison::new(store, Box::new(NothingCommitted), progress);
        assert_eq!(comparison.epoch().await.ok(), Some(1));
    }

    #[test]
    fn a_committed_offset_beyond_the_ledger_counts_for_its_own_topic_alone() {
        let at = TopicPartition::new("orders", 0);
        let committed =
            |id: Option<&str>| GroupCommitted::from([(at.clone(), (id.map(TopicId::new), NextOffset(7)))]);
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
