//! The rules against the ledger, page by page: whether they decide the same again.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::task::{block_in_place, spawn_blocking};

use super::Progress;
use super::finding::{AuditReport, Finding};
use super::incarnations::Incarnations;
use super::replay_state::{PAGE, Pages};
use crate::ledger::{
    CommandKey, Decision, Difference, Map, Movement, Offset, ReplayState, Seq, Stamp, Step, TopicPartition,
};
use crate::store::{LedgerHistory, Snapshot};

/// The rules against the ledger, page by page.
pub(super) struct DecisionVerifier {
    past: ReplayState,
    pub(super) report: AuditReport,
    since: Option<Stamp>,
    /// The last record of each partition that made a decision so far, in the ledger's order.
    last: HashMap<TopicPartition, Offset>,
    /// The decision before, in the ledger's order: where it stands, and when it was made.
    before: Option<(Seq, Stamp)>,
}

/// Ledger sequences that one batch has at most between two of its decisions; more lie between two batches that were
/// decided in the same microsecond, as long as none has more than half as many decisions as a batch may have.
const MOST_TORN: i64 = 50_000;
/// A ledger made of the topics alone has its records' times, which are whole milliseconds, and gaps where a record
/// repeated another: it has no batches.
const MICROS_OF_RECORDS: i64 = 1_000;

impl DecisionVerifier {
    pub(super) fn new(since: Option<Stamp>) -> Self {
        Self {
            past: ReplayState::default(),
            report: AuditReport::default(),
            since,
            last: HashMap::new(),
            before: None,
        }
    }

    pub(super) fn counts(&self, decision: &Decision) -> bool {
        self.since.is_none_or(|since| decision.decided_at >= since)
    }

    /// The next decision in the ledger's order must be where it was made: the records of a partition are decided in their
    /// order, and a batch's decisions stand one after the other. One that was moved shows, and one that was taken out.
    /// `is_of_last` says whether its record is of the last topic of its name: offsets of others mean other records.
    pub(super) fn check_order(&mut self, decision: &Decision, is_of_last: bool) {
        let (seq, at) = (decision.seq, decision.decided_at);
        if let Some((after, at_before)) = self.before.replace((seq, at))
            && at == at_before
            && at.0 % MICROS_OF_RECORDS != 0
            && (2..MOST_TORN).contains(&(seq.0 - after.0))
            && self.counts(decision)
        {
            self.report.add(Finding::TornBatch { key: decision.key.clone(), seq, after });
        }
        if let Some(source) = decision.source.as_ref().filter(|_| is_of_last)
            && let Some(after) = self.last.insert(source.at.clone(), source.offset)
            && source.offset < after
            && self.counts(decision)
        {
            let (key, record) = (decision.key.clone(), source.clone());
            self.report.add(Finding::OutOfOrder { key, record, after });
        }
    }

    /// Decides a page again; differences of decisions that `meant` does not hold are not reported.
    pub(super) fn go_on(
        mut self,
        steps: &[Step],
        known: &Map<CommandKey, Arc<Decision>>,
        meant: impl Fn(Seq) -> bool,
    ) -> Self {
        for Difference { key, seq, how } in self.past.go_on(steps, known) {
            let counts = steps.iter().find(|step| step.decision.seq == seq);
            if meant(seq) && counts.is_none_or(|step| self.counts(&step.decision)) {
                self.report.add(Finding::Decided { key, how });
            }
        }
        self
    }

    /// What the walk came to, against the tables that say how things stand now.
    pub(super) async fn end(&mut self, snapshot: &mut dyn Snapshot) -> Result<()> {
        let mut after = None;
        loop {
            let page = snapshot.levels_after(after.as_ref(), PAGE).await?;
            for now in &page {
                let Some(level) = self.past.level(&now.item) else { continue };
                if level.limits != now.level.limits {
                    self.report.add(Finding::ItemLimits {
                        item: now.item.clone(),
                        now: now.level.limits,
                        decided: level.limits,
                    });
                }
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last.item),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let page = snapshot.holds_after(after.as_ref(), PAGE).await?;
            for (id, hold) in &page {
                let Some(known) = self.past.hold(id) else { continue };
                if known != hold {
                    self.report.add(Finding::OpenHold {
                        order_id: id.clone(),
                        now: hold.clone(),
                        decided: known.clone(),
                    });
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        Ok(())
    }

    /// What is known of the orders that these steps follow.
    pub(super) async fn known_to(
        &self,
        snapshot: &mut dyn Snapshot,
        steps: &[Step],
    ) -> Result<Map<CommandKey, Arc<Decision>>> {
        let needs = self.past.needs(steps);
        if needs.is_empty() {
            return Ok(Map::default());
        }
        Ok(snapshot.decisions_of(&needs.iter().collect::<Vec<_>>()).await?)
    }
}

fn steps(decisions: impl Iterator<Item = (Arc<Decision>, Vec<Movement>)>) -> Vec<Step> {
    decisions.map(|(decision, movements)| Step { decision, movements, command: None }).collect()
}

/// Decides the whole ledger again from what it says itself, in its own order.
///
/// That movements are what the decisions say is not looked at: the store's own audit asks the database.
///
/// # Errors
/// When the ledger cannot be read, or the work was stopped.
pub async fn ledger_alone(
    store: &dyn LedgerHistory,
    since: Option<Stamp>,
    progress: &Progress,
) -> Result<AuditReport> {
    let mut snapshot = store.snapshot().await?;
    progress.expect(snapshot.count().await?);
    let mut verifier = DecisionVerifier::new(since);
    let incarnations = Incarnations::of(snapshot.incarnations().await?);
    let mut pages = Pages::after(&mut *snapshot, Seq::START);
    let mut page = pages.next_decisions().await?;
    while !page.decisions.is_empty() {
        for decision in &page.decisions {
            verifier.check_order(decision, incarnations.is_of_last(decision));
        }
        let steps = steps(page.decisions.iter().map(|decision| (Arc::clone(decision), Vec::new())));
        let known = verifier.known_to(pages.snapshot(), &steps).await?;
        let count = steps.len();
        verifier.report.decisions +=
            steps.iter().filter(|step| verifier.counts(&step.decision)).count() as u64;
        // The next page is read while this one is decided.
        let deciding = spawn_blocking(move || {
            let same = verifier.past.go_on_if_same(&steps, &known);
            (verifier, same.then_some(()).ok_or(known))
        });
        let (judged, next) = tokio::join!(deciding, pages.next_decisions());
        let (judged, same) = judged.context("deciding again panicked")?;
        verifier = judged;
        if let Err(known) = same {
            // Seldom: now what is stored must count, movements and all.
            let entries = pages.movements(page).await?;
            let steps = self::steps(entries.into_iter().map(|entry| (entry.decision, entry.movements)));
            verifier = block_in_place(|| verifier.go_on(&steps, &known, |_| true));
        }
        page = next?;
        progress.add(count)?;
    }
    verifier.end(&mut *snapshot).await?;
    Ok(verifier.report)
}
