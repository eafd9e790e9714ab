//! A decided batch: what it publishes, in portions, and what it counts.

use super::batch::{Batch, NoCommand, OfRecord, PendingRecord};
use super::ownership::Ownership;
use crate::event::{Channel, Fault, FaultCode, Outgoing, Record, dead_letter, read_strictly, result};
use crate::kafka::transactional::{Refusal, RefusalCode};
use crate::ledger::{NextOffset, Outcome, Source, TopicPartition};
use crate::store::Applied;

/// What became of a record.
#[derive(Debug)]
enum Answer {
    /// It asked nothing.
    NoCommand(NoCommand),
    /// The ledger's answer to its command.
    Outcome(Outcome),
}

/// What a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordEnd {
    /// An accept event.
    Accepted,
    /// A reject event.
    Rejected,
    /// A result republished after a crash.
    Republished,
    /// A dead letter.
    DeadLetter(FaultCode),
    /// Nothing: a repetition.
    Absorbed,
    /// Nothing: its mapping gives nothing for it.
    Ignored,
}

/// A record with what it came to.
#[derive(Debug)]
pub struct EndedRecord {
    /// The record.
    pub source: Source,
    /// When it was produced, in milliseconds since 1970; `None` where it does not say.
    pub produced_ms: Option<i64>,
    /// What it came to.
    pub end: RecordEnd,
    /// The result or dead letter, if there is one.
    pub event: Option<Outgoing>,
}

/// A batch whose records all have their answer.
#[derive(Debug)]
pub struct Decided {
    /// What of it is not published yet; its slices say how far each partition is once all is.
    batch: Batch<EndedRecord>,
    /// The connection epoch it was applied in.
    epoch: u64,
}

/// As much of a batch as is published in one transaction.
pub struct Portion<'a> {
    /// The results and dead letters.
    pub events: Vec<&'a Outgoing>,
    /// How far each partition is published by them.
    pub offsets: Vec<(TopicPartition, NextOffset)>,
    /// The records it ends.
    pub ended: &'a [EndedRecord],
}

/// A partition whose results cannot be published from a record on.
#[derive(Debug)]
pub struct Stuck {
    /// The record.
    pub source: Source,
    /// The topic that its result or dead letter is for.
    pub topic: String,
    /// The size of that, in bytes.
    pub bytes: usize,
    /// Why Kafka refuses it.
    pub why: RefusalCode,
}

impl OfRecord for EndedRecord {
    fn source(&self) -> &Source {
        &self.source
    }
}

impl Decided {
    /// Joins the records with their answers, given over a connection of this epoch.
    #[must_use]
    pub fn new(pending: Batch<PendingRecord>, applied: Applied, epoch: u64) -> Self {
        let mut outcomes = applied.outcomes.into_iter();
        let batch = pending.map(|PendingRecord { record, no_command, is_mapped }| {
            let answer = match no_command {
                Some(no_command) => Answer::NoCommand(no_command),
                // Holds because a store answers every request, in their order.
                None => Answer::Outcome(outcomes.next().expect("one outcome for each request")),
            };
            end(record, answer, is_mapped)
        });
        Self { batch, epoch }
    }

    /// Drops what was read from partitions that changed hands meanwhile; `false` when nothing is left.
    pub fn drop_ended(&mut self, ownership: &Ownership) -> bool {
        self.batch.drop_ended(ownership)
    }

    /// The connection epoch in which it was applied.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How far each partition is published by this batch.
    #[must_use]
    pub fn offsets(&self) -> Vec<(TopicPartition, NextOffset)> {
        self.batch.slices.iter().map(|slice| (slice.at.clone(), slice.next)).collect()
    }

    /// Whether all of it was published.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.batch.records.is_empty()
    }

    /// The next so many records, with offsets that cover them and nothing after them.
    #[must_use]
    pub fn portion(&self, most: usize) -> Portion<'_> {
        let ends = &self.batch.records[..most.min(self.batch.records.len())];
        let offsets = if ends.len() == self.batch.records.len() {
            self.offsets()
        } else {
            let published = |at: &TopicPartition| ends.iter().rfind(|end| end.source.at == *at);
            let published = self.batch.slices.iter().filter_map(|slice| Some((slice, published(&slice.at)?)));
            published.map(|(slice, end)| (slice.at.clone(), end.source.offset.next())).collect()
        };
        let events = ends.iter().filter_map(|end| end.event.as_ref()).collect();
        Portion { events, offsets, ended: ends }
    }

    /// Forgets so many records: they are published.
    pub fn published(&mut self, records: usize) {
        self.batch.records.drain(..records);
        if self.is_published() {
            self.batch.slices.clear();
        }
    }

    /// Does what can be done about refused events of the portion that comes next: a dead letter too large for its topic is
    /// made smaller. What cannot be published at all is left out, with everything after it in its partition.
    pub fn handle_refusals(&mut self, refusals: Vec<Refusal>) -> Vec<Stuck> {
        let with_event: Vec<usize> = self
            .batch
            .records
            .iter()
            .enumerate()
            .filter(|(_, end)| end.event.is_some())
            .map(|(index, _)| index)
            .collect();
        let mut stuck: Vec<Stuck> = Vec::new();
        for refusal in refusals {
            let EndedRecord { source, event, .. } = &mut self.batch.records[with_event[refusal.index]];
            let Some(event) = event else { continue };
            let bytes = event.size();
            if refusal.is_for_size() && event.channel == Channel::DeadLetter && event.shorten() {
                tracing::warn!(
                    partition = %source.at, offset = %source.offset, bytes, topic = refusal.topic,
                    "a dead letter is too large for its topic (max.message.bytes): it is published without its value"
                );
                continue;
            }
            // The refusals come in no order; a partition stops at its first.
            let here = Stuck { source: source.clone(), topic: refusal.topic, bytes, why: refusal.why };
            match stuck.iter_mut().find(|known| known.source.at == here.source.at) {
                Some(known) if known.source.offset > here.source.offset => *known = here,
                Some(_) => {}
                None => stuck.push(here),
            }
        }
        for Stuck { source, .. } in &stuck {
            self.batch.records.retain(|end| end.source.at != source.at || end.source.offset < source.offset);
            for slice in self.batch.slices.iter_mut().filter(|slice| slice.at == source.at) {
                slice.next = NextOffset(source.offset.0);
            }
        }
        stuck
    }
}

/// What a record's answer is to the outside: a result, a dead letter, or nothing.
fn end(record: Record, answer: Answer, is_mapped: bool) -> EndedRecord {
    let (source, produced_ms) = (record.source.clone(), record.timestamp_ms);
    let (end, event) = publish(record, answer, is_mapped);
    EndedRecord { source, produced_ms, end, event }
}

fn publish(record: Record, answer: Answer, is_mapped: bool) -> (RecordEnd, Option<Outgoing>) {
    let outcome = match answer {
        Answer::NoCommand(NoCommand::Faulty(fault)) => return letter(record, &fault, "read"),
        Answer::NoCommand(NoCommand::Ignored) => return (RecordEnd::Ignored, None),
        Answer::Outcome(Outcome::Decided(decision)) => {
            let published = if decision.accepted { RecordEnd::Accepted } else { RecordEnd::Rejected };
            return (published, Some(result(&decision, record.key.as_deref(), record.trace())));
        }
        Answer::Outcome(Outcome::Republished(decision)) => {
            return (RecordEnd::Republished, Some(result(&decision, record.key.as_deref(), record.trace())));
        }
        Answer::Outcome(outcome) => outcome,
    };
    // Read before and refused for its key; or else it would be decided.
    if let Err(fault) = record.check_key() {
        return letter(record, &fault, "read");
    }
    let fault = match outcome {
        Outcome::Conflict { first } => Fault::order_conflict(first.as_ref()),
        // What an earlier version read no command from was a dead letter, perhaps not published yet. None had mappings.
        Outcome::Undecided if !is_mapped && let Err(fault) = read_strictly(&record) => {
            return letter(record, &fault, "read");
        }
        Outcome::Undecided => Fault::undecided_below_position(),
        Outcome::Repeated | Outcome::NotDue | Outcome::Decided(_) | Outcome::Republished(_) => {
            return (RecordEnd::Absorbed, None);
        }
    };
    letter(record, &fault, "decide")
}

fn letter(record: Record, fault: &Fault, stage: &'static str) -> (RecordEnd, Option<Outgoing>) {
    (RecordEnd::DeadLetter(fault.code), Some(dead_letter(record, fault, stage)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FaultCode, OMITTED_VALUE_SHA256};
    use crate::ledger::Offset;
    use crate::pipeline::batch::Slice;
    use crate::pipeline::ownership::InFlight;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("orders", partition)
    }

    /// A batch of records that no command can be read from, at these partitions and offsets.
    fn batch(at_offsets: &[(i32, i64)]) -> Decided {
        let ownership = Ownership::default();
        let mut slices: Vec<Slice> = Vec::new();
        let mut records = Vec::new();
        for (partition, offset) in at_offsets {
            let next = NextOffset(offset + 1);
            match slices.iter_mut().find(|slice| slice.at == at(*partition)) {
                Some(slice) => slice.next = next,
                None => slices.push(Slice {
                    at: at(*partition),
                    generation: ownership.begin(&at(*partition)),
                    expected: NextOffset(*offset),
                    next,
                }),
            }
            let source = Source { at: at(*partition), offset: Offset(*offset) };
            let value = Some(vec![b'x'; 10_000]);
            let record =
                Record { source, key: None, value, headers: Vec::new(), timestamp_ms: None, decoded: None };
            let no_command = Some(NoCommand::Faulty(Fault::new(FaultCode::NotJson, "no JSON")));
            records.push(PendingRecord { record, no_command, is_mapped: false });
        }
        let ticket = InFlight::default().enter();
        Decided::new(Batch { slices, records, ticket }, Applied::default(), 0)
    }

    fn offsets(portion: &Portion<'_>) -> Vec<(i32, i64)> {
        portion.offsets.iter().map(|(at, next)| (at.partition, next.0)).collect()
    }

    fn refused(index: usize, why: RefusalCode) -> Refusal {
        Refusal { index, topic: "dead".to_owned(), why }
    }

    #[test]
    fn a_portions_offsets_cover_its_records_and_nothing_after_them() {
        let mut batch = batch(&[(0, 7), (1, 3), (0, 8), (2, 5), (1, 9)]);
        let portion = batch.portion(3);
        assert_eq!((offsets(&portion), portion.events.len()), (vec![(0, 9), (1, 4)], 3));
        batch.published(3);
        let portion = batch.portion(3);
        assert_eq!((offsets(&portion), portion.events.len()), (vec![(0, 9), (1, 10), (2, 6)], 2));
        batch.published(2);
        assert!(batch.is_published() && batch.offsets().is_empty());
    }

    #[test]
    fn a_dead_letter_refused_for_its_size_is_published_without_its_value_and_refused_again_stops_its_partition()
     {
        let mut batch = batch(&[(0, 7), (1, 3), (0, 8), (0, 9)]);
        let too_large = || vec![refused(2, RefusalCode::TOO_LARGE)];
        assert!(batch.handle_refusals(too_large()).is_empty());
        {
            let letter = batch.portion(9).events[2];
            assert_eq!(letter.value, None);
            assert!(letter.headers.iter().any(|header| header.name == OMITTED_VALUE_SHA256));
        }
        let stuck = batch.handle_refusals(too_large());
        let [Stuck { source, .. }] = &stuck[..] else { panic!("{stuck:?}") };
        assert_eq!((source.at.partition, source.offset), (0, Offset(8)));
        let portion = batch.portion(9);
        assert_eq!((offsets(&portion), portion.events.len()), (vec![(0, 8), (1, 4)], 2));
    }

    #[test]
    fn a_partition_stops_at_its_first_record_that_cannot_be_published() {
        let mut batch = batch(&[(0, 7), (1, 3), (0, 8), (1, 4)]);
        let why = RefusalCode::NOT_PERMITTED;
        let stuck = batch.handle_refusals(vec![refused(3, why), refused(2, why), refused(0, why)]);
        let mut stopped: Vec<_> = stuck.iter().map(|s| (s.source.at.partition, s.source.offset.0)).collect();
        stopped.sort_unstable();
        assert_eq!(stopped, [(0, 7), (1, 4)]);
        assert_eq!(offsets(&batch.portion(9)), [(0, 7), (1, 4)]);
    }
}
