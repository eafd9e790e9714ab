//! Where partitions begin: what Kafka and the ledger say of them, and what both are told before anything is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use super::ownership::Ownership;
use super::ports::GroupMember;
use super::recovery::{self, KnownOffsets, Start, UnsafeStart};
use crate::kafka::consumer::Watermarks;
use crate::kafka::topic_ids::Described;
use crate::kafka::{self, JoinedAnew};
use crate::ledger::{HeldProgram, NextOffset, TopicId, TopicPartition};
use crate::mapping::{Mappings, Programs};
use crate::store::{LedgerWriter, Position, StoreError};

/// Longest wait for a topic that is not there: one just made is not known to every broker yet, and the group waits.
const ABSENT_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for it.
const ABSENT_LOOK: Duration = Duration::from_millis(100);
/// What stands for the id of a topic that was never known.
const UNKNOWN_TOPIC: &str = "unknown";

/// Takes partitions over.
pub(super) struct TakeOver {
    /// The ledger.
    pub store: Arc<dyn LedgerWriter>,
    /// Which partitions are stopped.
    pub ownership: Arc<Ownership>,
    /// Whether to go on where records are gone.
    pub accept_data_loss: bool,
    /// What reads records from now on.
    pub mappings: Mappings,
}

/// A partition that can be read from here on.
pub(super) struct Begun {
    /// Which.
    pub at: TopicPartition,
    /// Where.
    pub start: Start,
    /// What was known of it.
    pub known: KnownOffsets,
    /// Which topic its name means; `None` where Kafka does not say.
    pub topic_id: Option<TopicId>,
}

/// Partitions taken over.
#[derive(Default)]
pub(super) struct TakenOver {
    /// As what member of the group.
    pub taken_as: String,
    /// Those whose next record is there.
    pub begun: Vec<Begun>,
    /// Those that Kafka does not know.
    pub left_out: Vec<TopicPartition>,
    /// Which topic each name means; `None` where Kafka does not say.
    pub topics: HashMap<Arc<str>, Option<TopicId>>,
    /// Which programs read their records.
    pub programs: Programs,
}

impl TakenOver {
    /// Where each partition is read from.
    pub(super) fn start_offsets(&self) -> Vec<(TopicPartition, NextOffset)> {
        self.begun.iter().map(|begun| (begun.at.clone(), begun.start.from)).collect()
    }
}

impl TakeOver {
    /// Finds where each partition begins, and tells the group and the ledger. A partition whose next record is gone is left
    /// out, and so is one that Kafka does not know.
    pub(super) async fn take_over<M: GroupMember>(
        &self,
        member: &M,
        partitions: &[TopicPartition],
    ) -> Result<TakenOver, Failure> {
        // First: whoever is another member by the end of this may have been none while it asked.
        let taken_as = member.id();
        let mut committed = member.committed(partitions).await?;
        let topics = ask_topics(member, partitions).await?;
        // One that was just added is not known to every broker yet. And who comes back within its session is given what it
        // had, also of a topic made anew with fewer partitions.
        let (mut wanted, left_out): (Vec<_>, Vec<_>) =
            partitions.iter().cloned().partition(|at| topics[&at.topic].has(at.partition));
        for at in &left_out {
            tracing::warn!(
                partition = %at,
                "left out: Kafka does not know this partition. It was just added, and is read once Kafka does; or its \
                 topic was made anew with fewer"
            );
        }
        let ledger = self.store.all_positions().await?;
        wanted.retain(|at| !self.ownership.is_stopped(at));
        let watermarks = member.watermarks(&wanted).await?;
        let mut begun = Vec::with_capacity(wanted.len());
        for (at, Watermarks { low, high }) in wanted.into_iter().zip(watermarks) {
            let topic_id = topics[&at.topic].id();
            let known = KnownOffsets {
                committed: committed.take(&at)?,
                ledger: ledger.get(&at).map(|position| position.next),
                published: ledger.get(&at).and_then(|position| position.published),
                replaced: is_replaced(&at, topic_id, &ledger),
                low,
                high,
            };
            match recovery::start_offset(known, self.accept_data_loss) {
                Ok(start) => {
                    self.ownership.stopped().resume(&at);
                    begun.push(Begun { at, start, known, topic_id: topic_id.cloned() });
                }
                Err(why @ UnsafeStart::LedgerBehind { .. }) => {
                    return Err(Failure::Refused { at, why });
                }
                Err(why @ UnsafeStart::OutOfRange { .. }) => {
                    tracing::error!(partition = %at, "stopped: {why}");
                    self.ownership.stopped().stop_for_now(&at, why.to_string());
                }
                Err(why @ UnsafeStart::TopicReplaced { .. }) => {
                    let was = ledger.get(&at).and_then(|was| was.topic_id.as_ref()).map(TopicId::as_str);
                    let now = topic_id.map(TopicId::as_str);
                    tracing::error!(partition = %at, was, now, "stopped: {why}");
                    self.ownership.stopped().stop_for_now(&at, why.to_string());
                }
            }
        }
        if member.id() != taken_as {
            return Err(kafka::Error::from(JoinedAnew).into());
        }
        // Where data loss was accepted first: what was committed before must not be held against the new position, by
        // another instance or should this process end between the two.
        let goes_back = |begun: &Begun| begun.known.committed.is_some_and(|was| was > begun.start.ledger);
        let (first, rest): (Vec<&Begun>, Vec<&Begun>) =
            begun.iter().partition(|begun| begun.known.replaced || goes_back(begun));
        commit_start_offsets(member, &first).await?;
        for Begun { at, start, topic_id, .. } in &begun {
            self.set_position(at, *start, ledger.get(at), topic_id.as_ref()).await?;
        }
        commit_start_offsets(member, &rest).await?;
        let topics = topics.into_iter().map(|(name, topic)| (name, topic.id().cloned())).collect();
        let programs = self.hold_programs(&begun).await?;
        Ok(TakenOver { taken_as, begun, left_out, topics, programs })
    }

    /// States which program reads each partition from the ledger's position on, before any record is read by it; what is
    /// below was read by what the ledger says. An instance that does not know yet that it lost a partition can decide one
    /// more batch past that position: if it has another mapping, those records count as read by this one.
    async fn hold_programs(&self, begun: &[Begun]) -> Result<Programs, Failure> {
        let now: Vec<HeldProgram> = begun
            .iter()
            .map(|Begun { at, start, .. }| HeldProgram {
                at: at.clone(),
                from: start.ledger,
                program: self.mappings.of_topic(&at.topic).map(|mapping| mapping.text().to_owned()),
            })
            .collect();
        let mut held = self.store.hold_programs(&now).await?;
        held.retain(|held| now.iter().any(|now| now.at == held.at));
        let mut programs = Programs::of(&held).map_err(Failure::Mapping)?;
        // The one that is compiled already, by its own name.
        for HeldProgram { at, from, program } in &now {
            if let (Some(_), Some(mapping)) = (program, self.mappings.of_topic(&at.topic)) {
                programs.hold_last(at, *from, mapping);
            }
        }
        Ok(programs)
    }

    /// States where the ledger is, and of which topic, where it does not know that yet.
    async fn set_position(
        &self,
        at: &TopicPartition,
        start: Start,
        was: Option<&Position>,
        topic_id: Option<&TopicId>,
    ) -> Result<(), StoreError> {
        let known = was.and_then(|was| was.topic_id.as_ref());
        let topic_id = topic_id.or(known).cloned();
        let now = match was {
            Some(was) if !start.set_position => Position { topic_id, ..was.clone() },
            _ => Position { next: start.ledger, published: Some(start.from), topic_id },
        };
        if was == Some(&now) {
            return Ok(());
        }
        let mut was = was.cloned();
        if let Some(before) =
            was.take_if(|was| was.topic_id.is_none() && now.topic_id.is_some() && now.next < was.next)
        {
            // An earlier version decided this of a topic whose id it did not know, and that topic is gone: without an id
            // of its own, those decisions would be taken for ones of the topic there is.
            let unknown = Position { topic_id: Some(TopicId::new(UNKNOWN_TOPIC)), ..before.clone() };
            self.store.set_position(at, Some(&before), &unknown).await?;
            was = Some(unknown);
        }
        self.store.set_position(at, was.as_ref(), &now).await
    }
}

/// Asks which topic each name means now, once for each. One that is not there is waited for, for a while.
async fn ask_topics<M: GroupMember>(
    member: &M,
    wanted: &[TopicPartition],
) -> Result<HashMap<Arc<str>, Described>, Failure> {
    let mut names: Vec<&str> = wanted.iter().map(|at| &*at.topic).collect();
    names.sort_unstable();
    names.dedup();
    let begun = Instant::now();
    loop {
        let described = member.describe(&names).await?;
        let absent = names.iter().zip(&described).find(|(_, topic)| **topic == Described::Absent);
        match absent {
            None => return Ok(names.iter().map(|name| Arc::from(*name)).zip(described).collect()),
            Some((name, _)) if begun.elapsed() > ABSENT_LIMIT => {
                return Err(Failure::TopicGone((*name).to_owned()));
            }
            Some(_) => tokio::time::sleep(ABSENT_LOOK).await,
        }
    }
}

/// Whether the ledger's position is of another topic than the one that has the name now. Where the ledger has no position,
/// those of the topic's other partitions say.
fn is_replaced(
    at: &TopicPartition,
    now: Option<&TopicId>,
    ledger: &HashMap<TopicPartition, Position>,
) -> bool {
    let is_other =
        |position: &Position| now.is_some_and(|now| position.topic_id.as_ref().is_some_and(|was| was != now));
    match ledger.get(at) {
        Some(position) => is_other(position),
        // Where nothing was applied, nothing is known of the topic.
        None => ledger.iter().any(|(other, position)| {
            other.topic == at.topic && position.next > NextOffset(0) && is_other(position)
        }),
    }
}

/// Commits where each partition begins whose committed offset says otherwise, before anything of it is decided.
///
/// Without that, a crash between deciding a partition's first batch and publishing it would leave a ledger ahead and no
/// committed offset; and then, reading from the ledger's position, those results would never be published.
async fn commit_start_offsets<M: GroupMember>(member: &M, begun: &[&Begun]) -> Result<(), Failure> {
    let differing: Vec<_> = begun
        .iter()
        .filter(|begun| begun.known.committed != Some(begun.start.from))
        .map(|begun| (begun.at.clone(), begun.start.from))
        .collect();
    Ok(member.commit(&differing).await?)
}
