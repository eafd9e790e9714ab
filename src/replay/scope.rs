//! What a replay works on, and how it first looks at it.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};
use tokio::task::block_in_place;

use super::incarnations::{Incarnations, Replaced, check_same};
use super::record_filter::RecordFilter;
use crate::config::{KafkaArgs, RegistryArgs, TopicArgs};
use crate::event::{Record, missing_schema};
use crate::kafka::reader::OffsetRange;
use crate::kafka::topics::Topics;
use crate::ledger::{NextOffset, Stamp, TopicPartition};
use crate::mapping::{MapError, Programs};
use crate::registry::Registry;
use crate::store::{LedgerHistory, Snapshot};

/// Where each partition is done up to: in the ledger, or as Kafka has it.
pub type Positions = HashMap<TopicPartition, NextOffset>;

/// What a replay works on.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// How to reach Kafka.
    pub kafka: &'a KafkaArgs,
    /// The topics.
    pub topics: &'a TopicArgs,
    /// Where schemas are looked up that values are written by.
    pub registry: &'a RegistryArgs,
    /// Whether the verifier has none, so that what is written by a registry's schemas is a dead letter.
    pub without_registry: bool,
    /// The group whose committed offsets say what is published.
    pub group: &'a str,
    /// Which records.
    pub filter: &'a RecordFilter,
    /// Only what was decided then or later.
    pub since: Option<Stamp>,
}

/// The chosen records and the ledger, looked at in the one order in which a verifier may go on meanwhile: what is published,
/// then the ledger, which holds all of that.
pub(super) struct LedgerView {
    pub(super) topics: Topics,
    pub(super) ranges: Vec<OffsetRange>,
    /// Whether a verifier is at work.
    pub(super) running: bool,
    pub(super) committed: Positions,
    pub(super) positions: Positions,
    /// Which programs read the records.
    pub(super) programs: Programs,
    /// Which topics the ledger's decisions are of.
    pub(super) incarnations: Incarnations,
    /// Those of the chosen topics that are not these.
    pub(super) replaced: Vec<Replaced>,
    pub(super) snapshot: Box<dyn Snapshot>,
}

impl<'a> Scope<'a> {
    /// The topics that commands come by.
    pub(super) fn sources(&self) -> [&'a str; 2] {
        [&self.topics.orders_topic, &self.topics.adjustments_topic]
    }

    /// A client that decodes what it reads. Blocks.
    pub(super) fn connect(&self) -> Result<Topics> {
        Ok(Topics::connect(self.kafka, self.group)?.decoding(Registry::named(self.registry)?))
    }

    /// Refuses a record that cannot be read without a schema registry, where none is named: the record alone does not say
    /// whether it was decided.
    ///
    /// # Errors
    /// Names the schema, and what to do.
    pub(super) fn check_readable(&self, record: &Record) -> Result<()> {
        match missing_schema(record).filter(|_| !self.without_registry) {
            Some(id) => bail!(
                "record {} is written by schema {id} of a schema registry: name that with --schema-registry-url, as the \
                 verifier does. If the verifier has none, say so with --without-schema-registry: such records are dead \
                 letters then",
                record.source
            ),
            None => Ok(()),
        }
    }

    /// Refuses another group than the ledger's: its committed offsets say nothing of what this ledger's group published.
    ///
    /// # Errors
    /// Names the group the ledger is of.
    pub async fn check_group(&self, store: &dyn LedgerHistory) -> Result<()> {
        match store.group().await? {
            Some(owner) if owner != self.group => bail!(
                "this ledger is of consumer group {owner:?}, not {:?}: give --group {owner}, or the other group's \
                 database",
                self.group
            ),
            _ => Ok(()),
        }
    }

    /// Looks at the chosen records of these topics.
    ///
    /// # Errors
    /// When something cannot be read, or records that are meant were deleted.
    pub(super) async fn look(&self, store: &dyn LedgerHistory, of: &[&str]) -> Result<LedgerView> {
        self.check_group(store).await?;
        let (topics, ranges, running, committed) = block_in_place(|| {
            let topics = self.connect()?;
            let ranges = self.filter.ranges(&topics, of)?;
            let partitions: Vec<TopicPartition> = ranges.iter().map(|range| range.at.clone()).collect();
            let running = topics.group_is_running(self.group)?;
            let committed = topics.committed(&partitions)?;
            anyhow::Ok((topics, ranges, running, committed))
        })?;
        let mut snapshot = store.snapshot().await?;
        let positions = snapshot.positions().await?;
        let incarnations = Incarnations::of(snapshot.incarnations().await?);
        let programs = Programs::of(&snapshot.programs().await?)?;
        let replaced = block_in_place(|| incarnations.replaced(&topics, of, &positions))?;
        Ok(LedgerView {
            topics,
            ranges,
            running,
            committed,
            positions,
            programs,
            incarnations,
            replaced,
            snapshot,
        })
    }
}

/// Refuses a record of which something was decided, and which cannot be read without a schema registry: none is named now.
///
/// # Errors
/// Names the schema, and what to do.
pub(super) fn check_schema(record: &Record) -> Result<()> {
    match missing_schema(record) {
        Some(id) => bail!(
            "record {} was decided by schema {id} of a schema registry: name that with --schema-registry-url, as the \
             verifier does",
            record.source
        ),
        None => Ok(()),
    }
}

/// That a record's mapping takes too long for it. No verifier gets past such a record, so nothing else may either: what it
/// asks for must be neither guessed nor passed over.
pub(super) fn too_slow(record: &Record) -> anyhow::Error {
    anyhow!("{}: {}, so nobody can say how it should have ended", record.source, MapError::TooSlow)
}

impl LedgerView {
    /// Refuses a ledger that does not fit its topics: work on it would do harm.
    ///
    /// # Errors
    /// When the ledger is behind what Kafka committed, or ahead of a topic's end; or a topic is another one.
    pub(super) fn check_fits(&self) -> Result<()> {
        check_same(&self.replaced)?;
        block_in_place(|| check_fits(&self.topics, &self.ranges, &self.committed, &self.positions))
    }
}

/// The part of each range that is both decided and published.
pub(super) fn published_part(
    ranges: Vec<OffsetRange>,
    positions: &Positions,
    committed: &Positions,
) -> Vec<OffsetRange> {
    let done = |at: &TopicPartition| {
        let ledger = positions.get(at).copied().unwrap_or(NextOffset(0));
        ledger.min(committed.get(at).copied().unwrap_or(NextOffset(0)))
    };
    ranges
        .into_iter()
        .map(|range| OffsetRange { to: range.to.min(done(&range.at)).max(range.from), ..range })
        .collect()
}

/// Refuses a ledger that does not fit its topics: work on it would do harm.
///
/// # Errors
/// When the ledger is behind what Kafka committed, or ahead of a topic's end. `committed` must have been read before
/// `positions`: a verifier may go on meanwhile.
pub(super) fn check_fits(
    topics: &Topics,
    ranges: &[OffsetRange],
    committed: &Positions,
    positions: &Positions,
) -> Result<()> {
    for OffsetRange { at, .. } in ranges {
        let whole = topics.whole(at)?;
        let ledger = positions.get(at).copied();
        if let Some(committed) =
            committed.get(at).filter(|committed| ledger.is_none_or(|ledger| ledger < **committed))
        {
            bail!(
                "{at}: the ledger is {}, but Kafka's committed offset is {committed}: the database is behind (a \
                 restored backup?). Make it again with `stock-verifier replay rebuild`, or restore a newer backup",
                ledger.map_or_else(|| "not there at all".to_owned(), |ledger| format!("at {ledger}"))
            );
        }
        if let Some(ledger) = ledger.filter(|ledger| *ledger > whole.to) {
            bail!(
                "{at}: the ledger is at {ledger}, but the topic ends at {}: the database is ahead (another topic of \
                 this name, or one made anew?)",
                whole.to
            );
        }
    }
    Ok(())
}
