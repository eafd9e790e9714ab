//! What ends a stage, or makes it wait.

use crate::kafka;
use crate::ledger::TopicPartition;
use crate::mapping::NotCompiled;
use crate::store::StoreError;

use super::recovery::UnsafeStart;

/// Why partitions could not be taken over, or a batch not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Kafka did not do what was asked.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The database did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Going on with a partition could lose or repeat a result.
    #[error("{at} is refused")]
    Refused {
        /// The partition.
        at: TopicPartition,
        /// Why.
        #[source]
        why: UnsafeStart,
    },
    /// A topic that commands come by is gone.
    #[error(
        "topic {0} does not exist any more: what of it was not decided is gone. Create it with \
         `stock-verifier topics create`, then start with --accept-data-loss"
    )]
    TopicGone(String),
    /// What read records before cannot be had any more.
    #[error("a mapping that the ledger keeps does not compile any more")]
    Mapping(#[source] NotCompiled),
}

impl Failure {
    /// Whether it is only that Kafka or the database cannot be asked now.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.may_pass(),
            Self::Store(store) => store.is_transient(),
            Self::Refused { .. } | Self::TopicGone(_) | Self::Mapping(_) => false,
        }
    }

    /// Whether the database was connected to anew, so that the ledger must be compared first.
    #[must_use]
    pub fn is_reconnected(&self) -> bool {
        matches!(self, Self::Store(StoreError::Reconnected))
    }
}
