//! A decided batch: what it tells, and what it counts.

use crate::event::{Fault, Outgoing, Record, dead_letter, result};
use crate::intake::batch::{Slice, Unanswered, drop_ended};
use crate::intake::ownership::{Ownership, Ticket};
use crate::ledger::{NextOffset, Outcome, TopicPartition};
use crate::store::Applied;
use crate::tally::{Tally, Told};

/// What became of a record.
#[derive(Debug)]
enum Answer {
    /// No command could be read from it.
    Faulty(Fault),
    /// The ledger's answer to its command.
    Outcome(Outcome),
}

/// A batch whose records all have their answer.
#[derive(Debug)]
pub struct Decided {
    slices: Vec<Slice>,
    answers: Vec<(Record, Answer)>,
    /// The connection epoch it was applied in.
    epoch: u64,
    /// Counts the batch as under way until it is told.
    _ticket: Ticket,
}

impl Decided {
    /// Joins the records with their answers, given over a connection of this epoch.
    #[must_use]
    pub fn new(waiting: Unanswered, applied: Applied, epoch: u64) -> Self {
        let mut outcomes = applied.outcomes.into_iter();
        let answers = waiting
            .records
            .into_iter()
            .map(|(record, fault)| {
                let answer = match fault {
                    Some(fault) => Answer::Faulty(fault),
                    // Holds because a store answers every request, in their order.
                    None => Answer::Outcome(outcomes.next().expect("one outcome for each request")),
                };
                (record, answer)
            })
            .collect();
        Self { slices: waiting.slices, answers, epoch, _ticket: waiting.ticket }
    }

    /// Drops what was read from partitions that changed hands meanwhile; `false` when nothing is left.
    pub fn drop_ended(&mut self, ownership: &Ownership) -> bool {
        drop_ended(&mut self.slices, &mut self.answers, |(record, _)| record, ownership);
        !self.slices.is_empty()
    }

    /// The connection epoch in which it was applied.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How far each partition is told by this batch.
    #[must_use]
    pub fn offsets(&self) -> Vec<(TopicPartition, NextOffset)> {
        self.slices.iter().map(|slice| (slice.at.clone(), slice.next)).collect()
    }

    /// The results and dead letters, and what to count once they are told.
    pub fn events(&mut self) -> (Vec<Outgoing>, Tally) {
        let mut events = Vec::with_capacity(self.answers.len());
        let mut tally = Tally::default();
        for (record, answer) in self.answers.drain(..) {
            let produced_ms = record.timestamp_ms;
            let (told, event) = tell(record, answer);
            tally.count(told, produced_ms);
            events.extend(event);
        }
        (events, tally)
    }
}

/// What a record's answer is to the outside: a result, a dead letter, or nothing.
fn tell(record: Record, answer: Answer) -> (Told, Option<Outgoing>) {
    match answer {
        Answer::Faulty(fault) => (Told::DeadLetter, Some(dead_letter(record, &fault, "read"))),
        Answer::Outcome(Outcome::Decided(decision)) => {
            let told = if decision.accepted { Told::Accepted } else { Told::Rejected };
            (told, Some(result(&decision, record.key.as_deref(), record.traceparent())))
        }
        Answer::Outcome(Outcome::ToldAgain(decision)) => {
            (Told::Again, Some(result(&decision, record.key.as_deref(), record.traceparent())))
        }
        Answer::Outcome(Outcome::Repeated | Outcome::NotDue) => (Told::Absorbed, None),
        Answer::Outcome(Outcome::Conflict { first }) => {
            let fault = Fault::order_conflict(first.as_ref());
            (Told::DeadLetter, Some(dead_letter(record, &fault, "decide")))
        }
        Answer::Outcome(Outcome::Undecided) => {
            let fault = Fault::undecided_below_position();
            (Told::DeadLetter, Some(dead_letter(record, &fault, "decide")))
        }
    }
}
