//! The six invariants, each proved from the ledger and the topics as they were read back.
//!
//! What is a question of sets of rows, the store's own audit asks the database.
//! Nothing here shares code with what decided: the model below takes one
//! order at a time with a map of numbers, and results are written by serde
//! from the published shapes, not by the code that published them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use indicatif::HumanCount;

use super::readback::{Evidence, Input, Letter, fingerprint};
use crate::event::schema::{
    OrderAccepted, OrderAcceptedType, OrderRejected, OrderRejectedType, RecordSource,
};
use crate::event::{Channel, FaultCode};
use crate::ledger::{
    AcceptedLine, Action, Adjusted, AdjustedLine, Command, CommandKey, CommandKind, Decision, Digest, Item,
    OrderLine, Reason, Seq, Source, Terms,
};
use crate::store::{Audit, BrokenInvariant, ItemLevel, Store, StoreError, StoredMovement};

/// Decisions read at once.
const PAGE: usize = 5_000;
/// Faults of one invariant that are kept to be shown.
const MAX_SHOWN: usize = 5;

/// What one invariant's proof found.
#[derive(Debug)]
pub struct Claim {
    /// Its number in the design.
    pub number: u8,
    /// What it says.
    pub claim: &'static str,
    /// What was looked at.
    pub looked_at: String,
    /// How many findings contradict it.
    pub faults: usize,
    /// The first of them.
    pub shown: Vec<String>,
}

impl Claim {
    pub(super) fn new(number: u8, claim: &'static str) -> Self {
        Self { number, claim, looked_at: String::new(), faults: 0, shown: Vec::new() }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults == 0
    }

    pub(super) fn fault(&mut self, what: fmt::Arguments<'_>) {
        self.faults += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(what.to_string());
        }
    }

    pub(super) fn expect(&mut self, holds: bool, otherwise: fmt::Arguments<'_>) {
        if !holds {
            self.fault(otherwise);
        }
    }
}

/// What happened to an item.
#[derive(Debug, Default, Clone, Copy)]
pub struct Demand {
    /// Pieces ordered.
    pub wanted: i64,
    /// Pieces taken by accepted orders.
    pub taken: i64,
    /// Pieces left.
    pub left: i64,
}

/// The verdicts, and what the reading showed beside them.
#[derive(Debug)]
pub struct Proof {
    /// One for each invariant, in their order.
    pub verdicts: [Claim; 6],
    /// Orders accepted.
    pub accepted: u64,
    /// Orders rejected.
    pub rejected: u64,
    /// Orders that name a reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The demand for each item that has stock.
    pub demand: HashMap<Item, Demand>,
    /// Dead letters by their kind.
    pub letters: BTreeMap<String, u64>,
}

impl Proof {
    /// Whether every invariant holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(Claim::holds)
    }
}

/// A proof under way.
struct Prover<'a> {
    evidence: &'a Evidence,
    proof: Proof,
    /// The naive model: pieces of each item after the decisions so far.
    model: HashMap<Item, i64>,
    decided: HashMap<CommandKey, (Digest, Option<Source>)>,
    published: u64,
}

/// Proves the six invariants, or says where they do not hold.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn prove(store: &dyn Store, evidence: &Evidence) -> Result<Proof, StoreError> {
    let mut prover = Prover::new(evidence);
    // Side by side: the database answers its questions while the model decides.
    let (audit, ()) = tokio::try_join!(store.audit(), prover.walk(store))?;
    prover.levels(store.levels(None).await?);
    prover.records();
    prover.results();
    prover.audit(&audit);
    Ok(prover.finish())
}

impl<'a> Prover<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let verdicts = [
            Claim::new(1, "No level is below zero"),
            Claim::new(2, "Every level is the sum of its movements, each following from the one before"),
            Claim::new(3, "Every command has exactly one decision, every deduction its order line"),
            Claim::new(
                4,
                "Every decision was published exactly once, as the ledger has it; no record is unanswered",
            ),
            Claim::new(5, "Every rejection was justified and every acceptance possible, one at a time"),
            Claim::new(6, "At rest, the ledger stands at the end of every partition"),
        ];
        let proof = Proof {
            verdicts,
            accepted: 0,
            rejected: 0,
            reasons: BTreeMap::new(),
            demand: HashMap::new(),
            letters: BTreeMap::new(),
        };
        Self { evidence, proof, model: HashMap::new(), decided: HashMap::new(), published: 0 }
    }

    /// Invariant `number`, from 1.
    fn verdict(&mut self, number: usize) -> &mut Claim {
        &mut self.proof.verdicts[number - 1]
    }

    /// Decides everything again, in the ledger's order.
    async fn walk(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut snapshot = store.snapshot().await?;
        let mut after = Seq::START;
        loop {
            let decisions = snapshot.decisions_after(after, PAGE).await?;
            let Some(through) = decisions.last().map(|decision| decision.seq) else { return Ok(()) };
            // With the records they name, which the replay's pages leave out.
            let movements = snapshot.movements_between(after, through).await?;
            for decision in &decisions {
                let begin = movements.partition_point(|movement| movement.seq < decision.seq);
                let end = movements.partition_point(|movement| movement.seq <= decision.seq);
                self.decision(decision, &movements[begin..end]);
            }
            after = through;
        }
    }

    fn decision(&mut self, decision: &Decision, movements: &[StoredMovement]) {
        let key = &decision.key;
        let known = (decision.digest, decision.source.clone());
        self.decided.insert(key.clone(), known);
        match key.kind {
            CommandKind::Adjustment => self.adjustment(decision, movements),
            CommandKind::OrderCreated => self.order(decision, movements),
            CommandKind::OrderCancelled
            | CommandKind::OrderReturned
            | CommandKind::OrderConfirmed
            | CommandKind::OrderReleased
            | CommandKind::HoldExtended
            | CommandKind::HoldExpired => {
                self.verdict(3).fault(format_args!("{key} was decided, and nobody asked for such a thing"));
            }
        }
    }

    /// Sample stock: it states levels, so the model takes them as they are stated.
    fn adjustment(&mut self, decision: &Decision, movements: &[StoredMovement]) {
        for movement in movements {
            self.model.insert(movement.item.clone(), movement.balance);
        }
        let lines = movements.iter().map(|movement| AdjustedLine {
            sku: movement.item.sku.clone(),
            location: movement.item.location.clone(),
            quantity: movement.quantity,
            balance: movement.balance,
            version: movement.version,
        });
        let expected = Adjusted { lines: lines.collect(), limits: None };
        let same = serde_json::from_str::<Adjusted>(&decision.detail).is_ok_and(|stored| stored == expected);
        self.verdict(3).expect(
            decision.accepted && same,
            format_args!("{} says {}, and its movements another", decision.key, decision.detail),
        );
    }

    fn order(&mut self, decision: &Decision, movements: &[StoredMovement]) {
        let key = &decision.key;
        let Some(command) = self.command(decision) else {
            self.verdict(3)
                .fault(format_args!("{key} was decided, but the record it names did not ask for it"));
            return;
        };
        let expected = self.take_one(&command.action);
        match &expected {
            Ok(_) => self.proof.accepted += 1,
            Err(reasons) => {
                self.proof.rejected += 1;
                let mut names: Vec<_> = reasons.iter().map(Reason::name).collect();
                names.sort_unstable();
                names.dedup();
                for name in names {
                    *self.proof.reasons.entry(name).or_default() += 1;
                }
            }
        }
        let as_expected = match (&expected, decision.accepted) {
            (Ok(lines), true) => decision.accepted_lines().is_ok_and(|stored| stored == *lines),
            (Err(reasons), false) => decision.reasons().is_ok_and(|stored| stored == *reasons),
            _ => false,
        };
        self.verdict(5).expect(
            as_expected,
            format_args!(
                "{key} was {} with {}; one at a time it is {expected:?}",
                if decision.accepted { "accepted" } else { "rejected" },
                decision.detail
            ),
        );
        self.deductions(decision, movements, command);
        self.result(decision, command);
    }

    /// The command that a decision's record asked.
    fn command(&self, decision: &Decision) -> Option<&'a Command> {
        let source = decision.source.as_ref()?;
        let input = self.input(source)?;
        let command = input.command.as_ref().ok()?;
        (command.key == decision.key && command.digest == decision.digest).then_some(command)
    }

    fn input(&self, source: &Source) -> Option<&'a Input> {
        self.evidence.inputs.get(&source.at)?.get(usize::try_from(source.offset.0).ok()?)
    }

    /// The naive model: takes one order, all of it or nothing, and says what must have been decided.
    fn take_one(&mut self, action: &Action) -> Result<Vec<AcceptedLine>, Vec<Reason>> {
        if let Action::Refuse(reasons) = action {
            return Err(reasons.clone());
        }
        let lines = lines_of(action);
        let mut reasons = Vec::new();
        for OrderLine { item, quantity } in lines {
            let (sku, location, requested) = (item.sku.clone(), item.location.clone(), *quantity);
            match self.model.get(item).copied() {
                None => reasons.push(Reason::UnknownSku { sku, location, requested }),
                Some(available) if available < requested => {
                    reasons.push(Reason::InsufficientStock { sku, location, requested, available });
                }
                Some(_) => {}
            }
        }
        for OrderLine { item, quantity } in lines.iter().filter(|line| self.model.contains_key(&line.item)) {
            let demand = self.proof.demand.entry(item.clone()).or_default();
            demand.wanted += quantity;
            demand.taken += if reasons.is_empty() { *quantity } else { 0 };
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let mut taken = Vec::with_capacity(lines.len());
        for OrderLine { item, quantity } in lines {
            if let Some(available) = self.model.get_mut(item) {
                *available -= quantity;
                let (sku, location) = (item.sku.clone(), item.location.clone());
                let line =
                    AcceptedLine { sku, location, quantity: *quantity, balance: *available, backordered: 0 };
                taken.push(line);
            }
        }
        Ok(taken)
    }

    /// An accepted order deducts exactly its lines, a rejected one nothing. In the demo nothing comes back.
    fn deductions(&mut self, decision: &Decision, movements: &[StoredMovement], command: &Command) {
        let lines = if decision.accepted { lines_of(&command.action) } else { &[] };
        let record = decision.source.as_ref().map(|source| (source.at.partition, source.offset));
        let same = lines.len() == movements.len()
            && lines.iter().zip(movements).all(|(line, movement)| {
                line.item == movement.item
                    && line.quantity == -movement.quantity
                    && movement.cause == decision.key
                    && movement.record == record
            });
        self.verdict(3)
            .expect(same, format_args!("the movements of {} are not the lines it ordered", decision.key));
    }

    /// A decision's result was read back exactly once, byte for byte what the published types make of the ledger.
    fn result(&mut self, decision: &Decision, command: &Command) {
        let id = decision.key.to_string();
        let Some(expected) = result_value(decision) else {
            self.verdict(4).fault(format_args!("the stored detail of {id} is no list of lines or reasons"));
            return;
        };
        let channel = if decision.accepted { Channel::Accepted } else { Channel::Rejected };
        let expected = fingerprint(channel, command.key.id.as_str().as_bytes(), &expected);
        let published = self.evidence.results.get(&id).map_or(&[][..], Vec::as_slice);
        let verdict = self.verdict(4);
        match published {
            [one] if *one == expected => {}
            [_] => verdict.fault(format_args!("the result of {id} does not say what the ledger says")),
            published => verdict.fault(format_args!("{id} has {} results", published.len())),
        }
        self.published += u64::from(!published.is_empty());
    }

    /// Every record of the orders' topic ended as exactly one of: a result, a dead letter, an absorbed repetition.
    fn records(&mut self) {
        let evidence = self.evidence;
        let mut letters_due = 0;
        let (mut records, mut absorbed) = (0_u64, 0_u64);
        for (at, inputs) in &evidence.inputs {
            for (offset, input) in (0_i64..).zip(inputs) {
                records += 1;
                let source = Source { at: at.clone(), offset: crate::ledger::Offset(offset) };
                let due = match &input.command {
                    Err(fault) => Some(fault.code),
                    Ok(command) => match self.decided.get(&command.key) {
                        None => {
                            let key = &command.key;
                            self.verdict(3).fault(format_args!("{key} at {source} was never decided"));
                            continue;
                        }
                        Some((digest, _)) if *digest != command.digest => Some(FaultCode::OrderConflict),
                        Some((_, Some(first))) if *first == source => None,
                        Some(_) => {
                            absorbed += 1;
                            None
                        }
                    },
                };
                letters_due += usize::from(due.is_some());
                self.letter(&source, input, due);
            }
        }
        let letters: usize = evidence.letters.values().map(Vec::len).sum();
        self.verdict(4)
            .expect(letters == letters_due, format_args!("{letters} dead letters, {letters_due} are due"));
        let looked_at = format!(
            "{} records in: {} orders decided and published, {letters_due} dead letters, {} repetitions absorbed",
            HumanCount(records),
            HumanCount(self.published),
            HumanCount(absorbed)
        );
        self.verdict(4).looked_at = looked_at;
    }

    fn letter(&mut self, source: &Source, input: &Input, due: Option<FaultCode>) {
        let letters = self.evidence.letters.get(source).map_or(&[][..], Vec::as_slice);
        let as_due = match (due, letters) {
            (None, []) => true,
            (Some(code), [Letter { class, fingerprint }]) => {
                class == code.name() && *fingerprint == input.as_letter
            }
            _ => false,
        };
        for letter in letters {
            *self.proof.letters.entry(letter.class.clone()).or_default() += 1;
        }
        self.verdict(4).expect(
            as_due,
            format_args!(
                "{source} has {} dead letters; due is {}",
                letters.len(),
                due.map_or("none", FaultCode::name)
            ),
        );
    }

    /// No result is of something that was never decided.
    fn results(&mut self) {
        let evidence = self.evidence;
        let published = evidence.results.len() as u64;
        let decided = self.published;
        self.verdict(4).expect(
            published == decided,
            format_args!(
                "{published} commands have results, {decided} decisions of orders are published by them"
            ),
        );
        for fault in &evidence.faults {
            self.verdict(4).fault(format_args!("{fault}"));
        }
    }

    /// The demo states no limits, so that nothing may be below zero, whatever the ledger says that was allowed.
    fn levels(&mut self, levels: Vec<ItemLevel>) {
        for ItemLevel { item, level, .. } in levels {
            self.verdict(1).expect(level.available >= 0, format_args!("{item} has {}", level.available));
            if let Some(demand) = self.proof.demand.get_mut(&item) {
                demand.left = level.available;
            }
        }
    }

    /// What the database answered, and where its positions stand.
    fn audit(&mut self, audit: &Audit) {
        for BrokenInvariant { invariant, what } in &audit.findings {
            self.verdict(usize::from(*invariant)).fault(format_args!("{what}"));
        }
        let ends = &self.evidence.ends;
        for (at, end) in ends {
            let position = audit.positions.get(at);
            self.verdict(6).expect(
                position == Some(end),
                format_args!("{at} ends at {end}, the ledger stands at {position:?}"),
            );
        }
        self.verdict(6).expect(!ends.is_empty(), format_args!("no partition was read"));
        self.verdict(1).looked_at = format!("{} levels", HumanCount(audit.skus));
        self.verdict(2).looked_at =
            format!("{} movements of {} SKUs, added up", HumanCount(audit.movements), HumanCount(audit.skus));
        self.verdict(3).looked_at = format!("{} decisions, stock and orders", HumanCount(audit.decisions));
        self.verdict(6).looked_at = format!(
            "{} partitions (committed offsets are not looked at: this broker keeps none of a transaction)",
            ends.len()
        );
    }

    fn finish(mut self) -> Proof {
        let orders = HumanCount(self.proof.accepted + self.proof.rejected);
        self.verdict(5).looked_at =
            format!("{orders} orders decided again by a naive model, in the ledger's order");
        self.proof
    }
}

/// The lines of a plain order: the demo sends no other command, and no order on other terms.
fn lines_of(action: &Action) -> &[OrderLine] {
    match action {
        Action::Take { lines, terms } if *terms == Terms::default() => lines,
        _ => &[],
    }
}

/// A result's value as serde writes the published type; `None` when the ledger's text cannot be read.
fn result_value(decision: &Decision) -> Option<Vec<u8>> {
    let order_id = decision.key.id.clone();
    let source = decision.source.as_ref().map(RecordSource::from);
    if decision.accepted {
        let lines = decision.accepted_lines().ok()?;
        serde_json::to_vec(&OrderAccepted {
            kind: OrderAcceptedType::OrderAccepted,
            order_id,
            lines,
            short: Vec::new(),
            expires_at: None,
            source,
        })
        .ok()
    } else {
        let reasons = decision.reasons().ok()?;
        serde_json::to_vec(&OrderRejected {
            kind: OrderRejectedType::OrderRejected,
            order_id,
            reasons,
            source,
        })
        .ok()
    }
}
