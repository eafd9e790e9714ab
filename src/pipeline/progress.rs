//! How far this process knows each partition to be applied and published, whoever of its pipelines had it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ledger::{NextOffset, TopicId, TopicPartition};
use crate::store::{Advance, LedgerWriter, Position, StoreError};

/// What is known of each partition since it was begun. Grows by the partitions of the topics that are read.
#[derive(Debug, Default)]
pub struct Progress(Mutex<HashMap<TopicPartition, Known>>);

/// What is known of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which topic of this name it is of; `None` where Kafka did not say.
    pub topic_id: Option<TopicId>,
    /// Where the ledger was at least.
    pub applied: NextOffset,
    /// Every result of records below it is published.
    pub published: NextOffset,
}

impl Known {
    /// Whether it can be of the same topic as a position in the ledger.
    fn may_be_of(&self, position: &Position) -> bool {
        match (&self.topic_id, &position.topic_id) {
            (Some(known), Some(stored)) => known == stored,
            _ => true,
        }
    }
}

/// A partition that a ledger's positions are behind of, with what was known before they were read and what the ledger has.
pub(super) fn ahead_of(
    known: &HashMap<TopicPartition, Known>,
    ledger: &HashMap<TopicPartition, Position>,
) -> Option<(TopicPartition, NextOffset, NextOffset)> {
    known.iter().find_map(|(at, known)| {
        let found = match ledger.get(at) {
            Some(position) if !known.may_be_of(position) => return None,
            Some(position) => position.next,
            None => NextOffset(0),
        };
        (found < known.applied).then(|| (at.clone(), known.applied, found))
    })
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Known>> {
        // Every change is one insert, or one number set: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is read from here on; what was known of it before counts no more.
    pub(super) fn begin(&self, at: &TopicPartition, known: Known) {
        self.lock().insert(at.clone(), known);
    }

    /// A batch was applied.
    pub fn applied(&self, advances: &[Advance]) {
        let mut all = self.lock();
        for advance in advances {
            if let Some(known) = all.get_mut(&advance.at) {
                known.applied = known.applied.max(advance.next);
            }
        }
    }

    /// A batch was published.
    pub fn published(&self, offsets: &[(TopicPartition, NextOffset)]) {
        let mut all = self.lock();
        for (at, next) in offsets {
            if let Some(known) = all.get_mut(at) {
                known.published = known.published.max(*next);
            }
        }
    }

    /// The partitions of which something is applied and not published, as far as this process knows.
    #[must_use]
    pub fn unpublished(&self) -> Vec<TopicPartition> {
        let all = self.lock();
        all.iter().filter(|(_, known)| known.published < known.applied).map(|(at, _)| at.clone()).collect()
    }

    /// Says in a batch how far its partitions are applied, which the ledger must not be behind of, and how far they are
    /// published, so that the ledger keeps it at no cost of its own.
    pub fn note_progress(&self, advances: &mut [Advance]) {
        let all = self.lock();
        for advance in advances {
            let known = all.get(&advance.at);
            advance.applied = known.map(|known| known.applied);
            advance.published = known.map(|known| known.published);
        }
    }

    /// What is known now.
    pub(super) fn known(&self) -> HashMap<TopicPartition, Known> {
        self.lock().clone()
    }

    /// Writes how far results are published where the ledger does not know it yet: a stop has no next batch to say it.
    ///
    /// # Errors
    /// When the database cannot be asked. Nothing is wrong then: what is not known is published again, should the group
    /// lose its offsets.
    pub async fn keep(&self, store: &dyn LedgerWriter) -> Result<(), StoreError> {
        let known = self.known();
        let ledger = store.all_positions().await?;
        for (at, known) in known {
            let Some(was) = ledger.get(&at).filter(|was| known.may_be_of(was)) else { continue };
            let published = known.published.min(was.next);
            if was.published.is_some_and(|stored| stored >= published) {
                continue;
            }
            let now = Position { published: Some(published), ..was.clone() };
            match store.set_position(&at, Some(was), &now).await {
                // Whoever has the partition now says it with the next batch.
                Ok(()) | Err(StoreError::PositionChanged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(topic_id: Option<&str>, applied: i64) -> Known {
        Known {
            topic_id: topic_id.map(TopicId::new),
            applied: NextOffset(applied),
            published: NextOffset(applied),
        }
    }

    fn advance(at: &TopicPartition, expected: i64, next: i64) -> Advance {
        let (expected, next) = (NextOffset(expected), NextOffset(next));
        Advance { at: at.clone(), expected, next, applied: None, published: None }
    }

    fn ledger(at: &TopicPartition, topic_id: Option<&str>, next: i64) -> HashMap<TopicPartition, Position> {
        let position =
            Position { next: NextOffset(next), published: None, topic_id: topic_id.map(TopicId::new) };
        [(at.clone(), position)].into()
    }

    #[test]
    fn a_ledger_that_lacks_what_was_applied_is_behind() {
        let at = TopicPartition::new("orders", 0);
        let progress = Progress::default();
        progress.begin(&at, known(Some("first"), 10));
        progress.applied(&[advance(&at, 10, 20)]);
        let behind = |found| Some((at.clone(), NextOffset(20), NextOffset(found)));
        assert_eq!(ahead_of(&progress.known(), &ledger(&at, Some("first"), 20)), None);
        assert_eq!(ahead_of(&progress.known(), &ledger(&at, Some("first"), 19)), behind(19));
        assert_eq!(ahead_of(&progress.known(), &ledger(&at, None, 19)), behind(19));
        assert_eq!(ahead_of(&progress.known(), &HashMap::new()), behind(0));
        // Another instance began a topic made anew.
        assert_eq!(ahead_of(&progress.known(), &ledger(&at, Some("second"), 5)), None);
    }

    #[test]
    fn a_batch_says_how_far_its_partitions_are_applied_and_published() {
        let at = TopicPartition::new("orders", 0);
        let progress = Progress::default();
        progress.begin(&at, known(None, 10));
        progress
            .published(&[(at.clone(), NextOffset(15)), (TopicPartition::new("orders", 1), NextOffset(3))]);
        let mut advances = [advance(&at, 20, 30)];
        progress.note_progress(&mut advances);
        assert_eq!(advances[0].applied, Some(NextOffset(10)));
        assert_eq!(advances[0].published, Some(NextOffset(15)));
        assert!(progress.unpublished().is_empty(), "it is published further than it is known to be applied");
        progress.applied(&advances);
        assert_eq!(progress.unpublished(), [advances[0].at.clone()]);
        progress.published(&[(advances[0].at.clone(), NextOffset(30))]);
        assert!(progress.unpublished().is_empty());
    }
}
