//! Records that made no decision: how each must have ended.

use std::collections::HashSet;

use anyhow::Result;

use super::super::decision_verifier::DecisionVerifier;
use super::super::finding::Finding;
use super::super::published::Event;
use super::super::reconciler::Reconciler;
use super::super::scope::too_slow;
use super::comparison::{Comparison, ResultOf};
use crate::event::{Fault, FaultCode, Reading, Record, dead_letter, read_record, read_strictly};
use crate::ledger::{Action, Command, Decision, Id};
use crate::store::Snapshot;

impl<R: Reconciler> Comparison<'_, R> {
    /// Records that made no decision: each must have ended as the contract says.
    pub(super) async fn others(
        &mut self,
        snapshot: &mut dyn Snapshot,
        verifier: &mut DecisionVerifier,
        records: Vec<Record>,
    ) -> Result<()> {
        let read_records = self.read(records)?;
        let ids: HashSet<&Id> =
            read_records.iter().filter_map(|(_, command)| Some(&command.as_ref().ok()?.key.id)).collect();
        let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
        for (record, command) in read_records {
            match &command {
                Ok(command) => self.met.command(self.over.scope.filter, command),
                Err(fault) => self.meet_faulty(&record, fault),
            }
            let wanted = match &command {
                Ok(command) => self.over.scope.filter.wants_command(command),
                Err(_) => !self.over.scope.filter.looks_inside(),
            };
            if !wanted {
                continue;
            }
            match command {
                Err(fault) => {
                    self.allow_letter(&record, Some(fault.code));
                    self.expect_letter(verifier, record, &fault, "read");
                }
                Ok(command) => {
                    let first = known.get(&command.key).map(|decision| &**decision);
                    self.expect_end(verifier, record, command, first);
                }
            }
        }
        Ok(())
    }

    /// Reads records as the verifier does; those that their mapping gives nothing for are counted, and left out.
    fn read(&mut self, records: Vec<Record>) -> Result<Vec<(Record, Result<Command, Fault>)>> {
        let mut read_records = Vec::with_capacity(records.len());
        for record in records {
            let command = match read_record(&record, self.over.programs.reading(&record.source)) {
                Reading::Command(command) => Ok(command),
                Reading::Faulty(fault) => Err(fault),
                Reading::Ignored => {
                    self.ignored += 1;
                    continue;
                }
                Reading::TooSlow => return Err(too_slow(&record)),
            };
            read_records.push((record, command));
        }
        Ok(read_records)
    }

    /// How a command must have ended whose id was decided `first` from another record, or never.
    fn expect_end(
        &mut self,
        verifier: &mut DecisionVerifier,
        record: Record,
        command: Command,
        first: Option<&Decision>,
    ) {
        match first {
            Some(first) if first.source.as_ref() == Some(&record.source) => {
                // Decided of an earlier topic's record at the same offset: taken for that one, and republished. The first
                // time it was published with that one's key.
                if !self.over.incarnations.is_of_last(first) && verifier.counts(first) {
                    self.expect_result(&mut verifier.report, first, ResultOf::GoneRecord);
                }
            }
            // Refused for its key, and not decided by an earlier version.
            _ if let Err(fault) = record.check_key() => {
                self.expect_letter(verifier, record, &fault, "read");
            }
            Some(first) if first.is_of(&command) => {
                verifier.report.absorbed += 1;
                self.allow_letter(&record, None);
            }
            Some(first) => {
                self.allow_letter(&record, None);
                let fault = Fault::order_conflict(first.source.as_ref());
                self.expect_letter(verifier, record, &fault, "decide");
            }
            // An earlier version read no command from it.
            None if !self.is_mapped(&record)
                && let Err(fault) = read_strictly(&record) =>
            {
                self.expect_letter(verifier, record, &fault, "read");
            }
            None if command.action == Action::Expire => verifier.report.absorbed += 1,
            None => {
                verifier.report.add(Finding::Undecided { key: command.key, record: record.source });
            }
        }
    }

    /// Whether a mapping read a record: no earlier version did it otherwise.
    fn is_mapped(&self, record: &Record) -> bool {
        self.over.programs.reading(&record.source).is_some()
    }

    /// A record that is no command is about an id where it is keyed by it, as far as anybody can say.
    fn meet_faulty(&mut self, record: &Record, fault: &Fault) {
        let filter = self.over.scope.filter;
        let key =
            record.key.as_deref().and_then(|key| str::from_utf8(key).ok()).and_then(|key| Id::new(key).ok());
        if let Some(id) = key.filter(|id| filter.ids.contains(id)) {
            self.met.id(filter, &id);
            self.remark(|| format!("record {}, whose key is {id}, is a dead letter: {fault}", record.source));
        }
    }

    /// What is a command now, or a dead letter of this class, may have been another dead letter of an earlier version: nobody
    /// can tell which version met it.
    fn allow_letter(&mut self, record: &Record, now: Option<FaultCode>) {
        if !self.is_mapped(record)
            && let Err(fault) = read_strictly(record)
            && now != Some(fault.code)
            && let Some(event) = Event::expected(&dead_letter(record.clone(), &fault, "read"))
        {
            self.reconciler.allow(event);
        }
    }

    fn expect_letter(
        &mut self,
        verifier: &mut DecisionVerifier,
        record: Record,
        fault: &Fault,
        stage: &'static str,
    ) {
        verifier.report.dead_letters += 1;
        if let Some(event) = Event::expected(&dead_letter(record, fault, stage)) {
            if self.over.scope.filter.looks_inside() {
                self.meant.insert(event.id.clone());
            }
            if self.over.letters_are_gone {
                self.reconciler.expect_excused(event);
            } else {
                self.reconciler.expect(event);
            }
        }
    }
}
