//! Each decision with its record: what it should have published, and what is decided again.

use std::collections::HashSet;

use anyhow::Result;
use tokio::task::block_in_place;

use super::super::Progress;
use super::super::decision_verifier::DecisionVerifier;
use super::super::finding::Finding;
use super::super::join::{Join, Page};
use super::super::reconciler::Reconciler;
use super::super::replay_state::{Entry, Pages};
use super::super::scope::check_schema;
use super::comparison::{Comparison, MOST_REMARKS, ResultOf};
use super::pieces::Misplaced;
use crate::event::{Fault, Record, read_mapped_as_decided};
use crate::ledger::{Command, CommandKind, Decision, Item, Movement, Reason, Seq, Source, Step};
use crate::store::Snapshot;

/// What stands where a decision was made.
enum Found {
    /// Its record, and how it reads.
    Own(Box<Record>, Result<Command, Fault>),
    /// The record of another command, there.
    Another(Source),
    /// Nothing, there.
    Nothing(Source),
    /// It is not read, or its topic is gone.
    Unread,
}

impl<R: Reconciler> Comparison<'_, R> {
    /// Walks the ledger and the topics, notes what should have been published, and judges.
    pub(super) async fn walk(
        &mut self,
        snapshot: &mut dyn Snapshot,
        mut verifier: DecisionVerifier,
        progress: &Progress,
    ) -> Result<DecisionVerifier> {
        let reader = block_in_place(|| self.over.topics.read(self.over.ranges))?;
        let mut join =
            Join::new(Pages::after(snapshot, Seq::START), reader, self.over.ranges, self.over.incarnations);
        while let Some(Page { decided, mut others }) = join.next().await? {
            let done = decided.len() + others.len();
            let mut steps = Vec::with_capacity(decided.len());
            let mut meant = HashSet::new();
            for (entry, record) in decided {
                let read = record.map(|record| {
                    let mapping = self.over.programs.reading(&record.source);
                    (read_mapped_as_decided(&record, &entry.decision, mapping).as_before(), record)
                });
                if let Some((Err(_), record)) = &read {
                    check_schema(record)?;
                }
                let found = match read {
                    // It is of some other topic: that record ended, or did not, by itself.
                    Some((Ok(command), record)) if command.key != entry.decision.key => {
                        let found = Found::Another(record.source.clone());
                        others.push(record);
                        found
                    }
                    Some((command, record)) => Found::Own(Box::new(record), command),
                    None => join
                        .source_read(&entry)
                        .map_or(Found::Unread, |source| Found::Nothing(source.clone())),
                };
                steps.push(self.step(&mut verifier, entry, found, &mut meant));
            }
            let known = verifier.known_to(join.pages().snapshot(), &steps).await?;
            verifier = block_in_place(|| verifier.go_on(&steps, &known, |seq| meant.contains(&seq)));
            self.others(join.pages().snapshot(), &mut verifier, others).await?;
            progress.add(done)?;
        }
        Ok(verifier)
    }

    /// A decision with its record: what it should have published, and what is decided again.
    fn step(
        &mut self,
        verifier: &mut DecisionVerifier,
        entry: Entry,
        found: Found,
        meant: &mut HashSet<Seq>,
    ) -> Step {
        let Entry { decision, movements } = entry;
        self.meet(&decision, &movements, &found);
        let is_of_last = self.over.incarnations.is_of_last(&decision);
        verifier.check_order(&decision, is_of_last);
        if let Some(levels) = &mut self.levels {
            for movement in &movements {
                levels.meet(movement);
            }
        }
        if is_of_last {
            self.check_position(verifier, &decision);
        } else {
            self.of_an_earlier_topic(verifier, &decision);
        }
        let wanted = match &found {
            Found::Unread => false,
            Found::Own(_, Ok(command)) => self.over.scope.filter.wants_command(command),
            Found::Own(_, Err(_)) | Found::Another(_) | Found::Nothing(_) => {
                !self.over.scope.filter.looks_inside()
            }
        };
        let filter = self.over.scope.filter;
        if decision.source.is_none()
            && decision.key.kind != CommandKind::Adjustment
            && verifier.counts(&decision)
            && (filter.is_everything() || filter.ids.contains(&decision.key.id))
        {
            verifier.report.add(Finding::OfNoRecord { key: decision.key.clone() });
        }
        let counts = wanted && verifier.counts(&decision);
        verifier.report.decisions += u64::from(counts);
        // An operator's own, and those whose record is deleted, are judged by what they say themselves.
        if counts || self.over.scope.filter.is_everything() {
            meant.insert(decision.seq);
        }
        if counts {
            let key = || decision.key.clone();
            let finding = match &found {
                Found::Own(_, Ok(_)) | Found::Unread => None,
                Found::Own(_, Err(fault)) => Some(Finding::NoCommand { key: key(), fault: fault.clone() }),
                Found::Another(record) => {
                    Some(Finding::AnotherCommand { key: key(), record: record.clone() })
                }
                Found::Nothing(record) => Some(Finding::NoRecord { key: key(), record: record.clone() }),
            };
            if let Some(finding) = finding {
                verifier.report.add(finding);
            }
            let of = match &found {
                Found::Own(record, Ok(_)) => Some(ResultOf::Record(record)),
                Found::Own(_, Err(_)) | Found::Unread => None,
                Found::Another(_) | Found::Nothing(_) => Some(ResultOf::GoneRecord),
            };
            if let Some(of) = of {
                self.expect_result(&mut verifier.report, &decision, of);
            }
        }
        let command = if let Found::Own(_, Ok(command)) = found { Some(command) } else { None };
        Step { decision, movements, command }
    }

    /// Notes which of the ids and SKUs that were named a decision is about, be it chosen or not.
    fn meet(&mut self, decision: &Decision, movements: &[Movement], found: &Found) {
        let filter = self.over.scope.filter;
        if !filter.looks_inside() {
            return;
        }
        self.met.id(filter, &decision.key.id);
        for movement in movements {
            self.met.sku(filter, &movement.item.sku);
        }
        if let Found::Own(_, Ok(command)) = found {
            self.met.command(filter, command);
            if filter.wants_command(command) {
                self.look_for_pieces(decision, command);
            }
        } else if !filter.ids.is_empty()
            && let Some(order_id) = decision.follows()
        {
            self.met.id(filter, &order_id);
        }
    }

    /// A return or a confirmation may be rejected since it names no location, or another one than its order did.
    fn look_for_pieces(&mut self, decision: &Decision, command: &Command) {
        if decision.accepted
            || !matches!(decision.key.kind, CommandKind::OrderReturned | CommandKind::OrderConfirmed)
        {
            return;
        }
        let Some(order_id) = command.follows() else { return };
        for reason in decision.reasons().unwrap_or_default() {
            let (Reason::ReturnExceedsDeducted { sku, location, left: 0, .. }
            | Reason::LimitExceeded { sku, location, limit: 0, .. }) = reason
            else {
                continue;
            };
            if self.misplaced.len() < MOST_REMARKS {
                let (key, order_id) = (decision.key.clone(), order_id.clone());
                self.misplaced.push(Misplaced { key, order_id, item: Item { sku, location } });
            }
        }
    }

    /// What is decided lies below the partition's position.
    fn check_position(&mut self, verifier: &mut DecisionVerifier, decision: &Decision) {
        let Some(source) = &decision.source else { return };
        if let Some(position) = self.over.positions.get(&source.at)
            && !position.covers(source.offset)
        {
            verifier.report.add(Finding::BeyondPosition {
                key: decision.key.clone(),
                record: source.clone(),
                position: *position,
            });
        }
    }

    /// A decision whose record is gone with its topic.
    fn of_an_earlier_topic(&mut self, verifier: &mut DecisionVerifier, decision: &Decision) {
        self.gone.add(decision);
        // Results are looked at by the source they name, which two topics share.
        let is_looked_at = decision.source.as_ref().is_some_and(|source| self.is_read(source))
            && verifier.counts(decision)
            && !self.over.scope.filter.looks_inside();
        if is_looked_at {
            self.expect_result(&mut verifier.report, decision, ResultOf::EarlierTopic);
        }
    }
}
