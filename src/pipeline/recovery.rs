//! The start offset of a partition: pure, from the two positions and what the log still holds.

use crate::ledger::NextOffset;

/// What is known of a partition when it is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownOffsets {
    /// What the group committed; `None` when it never did, or Kafka forgot.
    pub committed: Option<NextOffset>,
    /// How far the ledger applied it; `None` when it never saw it.
    pub ledger: Option<NextOffset>,
    /// Whether the ledger's position is of another topic of this name: both ids are known, and they differ.
    pub replaced: bool,
    /// How far results are known to be published; `None` where an earlier version wrote the position.
    pub published: Option<NextOffset>,
    /// The first record the log still holds.
    pub low: NextOffset,
    /// The end of the log.
    pub high: NextOffset,
}

impl std::fmt::Display for KnownOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { committed, ledger, low, high, .. } = *self;
        let (committed, ledger) = (Shown(committed), Shown(ledger));
        write!(
            f,
            "the ledger had {ledger}, the group had committed {committed}, the topic holds {low} to {high}"
        )
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first record to read.
    pub from: NextOffset,
    /// The ledger's position. Records from `from` up to here are published from
    /// their stored decisions; from here on they are decided.
    pub ledger: NextOffset,
    /// Whether the ledger must be given this position first: it never saw the
    /// partition, or its records are gone and that was accepted.
    pub set_position: bool,
}

/// Why not to begin: going on could lose or repeat a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeStart {
    /// The database went back in time, or it is another one.
    #[error(
        "Kafka has committed offset {committed}, but the ledger is only at {}: the database went back in time \
         (a restored backup?) or is not the one this group used. Results may be out that the ledger does not \
         know, so nothing is decided. Look with `stock-verifier audit --topics`; restore a newer backup, or make the \
         ledger again with `stock-verifier replay rebuild`",
        Shown(*.ledger)
    )]
    LedgerBehind {
        /// What the group committed.
        committed: NextOffset,
        /// Where the ledger is.
        ledger: Option<NextOffset>,
    },
    /// Another topic has this name now.
    #[error(
        "this topic was made anew: the ledger is at {} of another topic of this name, which was deleted. What of that \
         one was not decided is gone with it, and nothing of this one, which holds {low} to {high}, is decided. If the \
         database is from before the topic was made anew (a restored backup?), restore a newer one. Else start with \
         --accept-data-loss to decide all of the new topic, from {low} on",
        Shown(*.ledger)
    )]
    TopicReplaced {
        /// Where the ledger is in the topic that was; `None` on a partition that it did not have.
        ledger: Option<NextOffset>,
        /// The first record of the topic that is.
        low: NextOffset,
        /// Its end.
        high: NextOffset,
    },
    /// The log no longer holds what comes next.
    #[error(
        "the next record to read is {from}, but the topic holds {low} to {high}: records were {}. Start with \
         --accept-data-loss to go on from {low}",
        if from < low { "deleted before they were read (retention?)" } else { "lost, or the topic was made anew" }
    )]
    OutOfRange {
        /// The next record to read.
        from: NextOffset,
        /// The first record the log still holds.
        low: NextOffset,
        /// The end of the log.
        high: NextOffset,
    },
}

struct Shown(Option<NextOffset>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(position) => position.fmt(f),
            None => f.write_str("no position at all"),
        }
    }
}

/// Decides where to begin.
///
/// # Errors
/// [`UnsafeStart`] when going on could lose or repeat a result.
pub fn start_offset(positions: KnownOffsets, accept_data_loss: bool) -> Result<Start, UnsafeStart> {
    let KnownOffsets { committed, ledger, published, low, high, replaced } = positions;
    if replaced {
        // What the group committed may be of either topic: Kafka forgets offsets with their topic, but not those that
        // were on their way, and a backup may be older than the topic. So they say nothing here.
        return if accept_data_loss {
            Ok(Start { from: low, ledger: low, set_position: true })
        } else {
            Err(UnsafeStart::TopicReplaced { ledger, low, high })
        };
    }
    let (from, expected) = match (committed, ledger) {
        (Some(committed), Some(ledger)) if committed <= ledger => (committed, ledger),
        // A group that committed the very beginning has published nothing.
        (Some(NextOffset(0)), None) => (NextOffset(0), NextOffset(0)),
        (Some(committed), _) => return Err(UnsafeStart::LedgerBehind { committed, ledger }),
        // The group's offsets are gone. Publishing twice is better than never: whoever reads drops repeated ids.
        (None, Some(ledger)) => (published.map_or(ledger, |published| published.min(ledger)), ledger),
        (None, None) => (low, low),
    };
    let set_position = ledger.is_none();
    if (low..=high).contains(&from) {
        Ok(Start { from, ledger: expected, set_position })
    } else if !accept_data_loss {
        Err(UnsafeStart::OutOfRange { from, low, high })
    } else if from < low && low <= expected {
        // What is gone was decided already; only its result may be lost.
        Ok(Start { from: low, ledger: expected, set_position })
    } else {
        // From the earliest record left, whether retention took some or the topic was made anew: a command
        // decided before is known by its id and not decided again.
        Ok(Start { from: low, ledger: low, set_position: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(committed: Option<i64>, ledger: Option<i64>) -> KnownOffsets {
        KnownOffsets {
            committed: committed.map(NextOffset),
            ledger: ledger.map(NextOffset),
            replaced: false,
            published: None,
            low: NextOffset(10),
            high: NextOffset(100),
        }
    }

    fn replaced(committed: Option<i64>, ledger: Option<i64>) -> KnownOffsets {
        KnownOffsets { replaced: true, ..at(committed, ledger) }
    }

    fn start(from: i64, ledger: i64, set_position: bool) -> Start {
        Start { from: NextOffset(from), ledger: NextOffset(ledger), set_position }
    }

    #[test]
    fn equal_positions_go_on() {
        assert_eq!(start_offset(at(Some(50), Some(50)), false), Ok(start(50, 50, false)));
    }

    #[test]
    fn a_ledger_ahead_begins_at_the_committed_offset_and_publishes_from_the_ledger() {
        assert_eq!(start_offset(at(Some(40), Some(50)), false), Ok(start(40, 50, false)));
    }

    #[test]
    fn a_ledger_behind_is_refused_even_when_data_loss_is_accepted() {
        for accept in [false, true] {
            let why = start_offset(at(Some(51), Some(50)), accept).unwrap_err();
            assert!(matches!(why, UnsafeStart::LedgerBehind { .. }));
        }
    }

    #[test]
    fn a_ledger_that_never_saw_a_committed_partition_is_refused() {
        let why = start_offset(at(Some(51), None), false).unwrap_err();
        assert!(why.to_string().contains("no position at all"), "{why}");
    }

    #[test]
    fn without_a_committed_offset_the_ledger_says_where() {
        assert_eq!(start_offset(at(None, Some(50)), false), Ok(start(50, 50, false)));
    }

    #[test]
    fn without_a_committed_offset_what_is_not_known_to_be_published_is_published() {
        let gone = |published| KnownOffsets { published: Some(NextOffset(published)), ..at(None, Some(50)) };
        assert_eq!(start_offset(gone(40), false), Ok(start(40, 50, false)));
        assert_eq!(start_offset(gone(50), false), Ok(start(50, 50, false)));
        // Never beyond what is decided.
        assert_eq!(start_offset(gone(60), false), Ok(start(50, 50, false)));
        // What the group committed counts more.
        let there = KnownOffsets { published: Some(NextOffset(40)), ..at(Some(45), Some(50)) };
        assert_eq!(start_offset(there, false), Ok(start(45, 50, false)));
    }

    #[test]
    fn without_any_position_it_begins_at_the_earliest_record() {
        assert_eq!(start_offset(at(None, None), false), Ok(start(10, 10, true)));
    }

    #[test]
    fn deleted_records_need_accepted_data_loss() {
        let why = start_offset(at(Some(5), Some(5)), false).unwrap_err();
        assert!(why.to_string().contains("--accept-data-loss"), "{why}");
        assert_eq!(start_offset(at(Some(5), Some(5)), true), Ok(start(10, 10, true)));
    }

    #[test]
    fn deleted_records_that_were_decided_leave_the_ledger_where_it_is() {
        assert_eq!(start_offset(at(Some(5), Some(50)), true), Ok(start(10, 50, false)));
    }

    #[test]
    fn another_topic_of_the_name_is_refused_wherever_the_positions_are() {
        for committed in [None, Some(0), Some(5), Some(50), Some(51), Some(500)] {
            for ledger in [None, Some(0), Some(5), Some(10), Some(50), Some(100), Some(500)] {
                let positions = replaced(committed, ledger);
                let why = start_offset(positions, false).unwrap_err();
                assert!(matches!(why, UnsafeStart::TopicReplaced { .. }), "{positions:?}: {why}");
                assert!(why.to_string().contains("--accept-data-loss"), "{why}");
                // And then all of it is new, whatever of the old one was decided or committed.
                assert_eq!(start_offset(positions, true), Ok(start(10, 10, true)), "{positions:?}");
            }
        }
    }

    #[test]
    fn a_topic_made_anew_that_is_too_short_is_noticed_without_an_id_too() {
        let why = start_offset(at(Some(500), Some(500)), false).unwrap_err();
        assert!(why.to_string().contains("made anew"), "{why}");
        assert_eq!(start_offset(at(Some(500), Some(500)), true), Ok(start(10, 10, true)));
    }
}
