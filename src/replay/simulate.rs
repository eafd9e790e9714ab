//! What would have happened with other levels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::task::block_in_place;

use super::Progress;
use super::incarnations::check_same;
use super::join::Join;
use super::replay_state::{Entry, Pages};
use super::scope::{LedgerView, Scope, check_schema};
use crate::event::{Record, read_mapped_as_decided};
use crate::kafka::reader::OffsetRange;
use crate::ledger::{
    Action, Command, CommandKind, Decision, Id, Item, Level, Limits, Outcome, Request, Seq, Sequenced, Stamp,
    reconstruct,
};
use crate::mapping::Programs;
use crate::store::sqlite::SqliteStore;
use crate::store::{CommandBatch, LedgerAdmin as _, LedgerHistory};

/// Unreadable commands that are named; the rest is only counted.
const MOST_FAULTS: usize = 100;

/// Levels stated at once.
const LEVELS_PAGE: usize = 10_000;

/// What one SKU sold, and would have sold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sold {
    /// Pieces that accepted orders took then.
    pub then: i64,
    /// Pieces they would have taken.
    pub now: i64,
}

/// What happened, and what would have.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SimulationReport {
    /// Orders decided.
    pub orders: u64,
    /// Orders rejected then.
    pub rejected_then: u64,
    /// Orders that would have been rejected.
    pub rejected_now: u64,
    /// Orders accepted then.
    pub accepted_then: u64,
    /// Orders that would have been accepted.
    pub accepted_now: u64,
    /// Orders rejected then that would have been accepted.
    pub gained: u64,
    /// Orders accepted then that would have been rejected.
    pub lost: u64,
    /// What each SKU sold, where it differs or the file names it.
    #[serde(serialize_with = "by_name")]
    pub sold: BTreeMap<Item, Sold>,
    /// What was not asked again, from the first chosen record on.
    pub left_out: LeftOut,
}

/// Commands that a simulation passed over, by why.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LeftOut {
    /// Chosen ones that cannot be read any more: with these it says less than it was asked for.
    pub unreadable: u64,
    /// The first of them, each with why.
    pub faults: Vec<String>,
    /// Stock commands for items whose levels the file states.
    pub stated: u64,
    /// Those of records that were not chosen, decided between two that were.
    pub not_chosen: u64,
    /// Operators' own that were rejected then: what they asked for is not kept.
    pub rejected_own: u64,
}

impl LeftOut {
    fn unreadable(&mut self, entry: &Entry, why: &str) {
        self.unreadable += 1;
        if self.faults.len() < MOST_FAULTS {
            let key = &entry.decision.key;
            self.faults.push(match &entry.decision.source {
                Some(source) => format!("{key}, {source}: {why}"),
                None => format!("{key}: {why}"),
            });
        }
    }
}

/// Why a command is not asked again.
enum PassedOver {
    Unreadable(String),
    NotChosen,
    RejectedOwn,
}

fn by_name<S: serde::Serializer>(sold: &BTreeMap<Item, Sold>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Row<'a> {
        sku: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<&'a str>,
        #[serde(flatten)]
        sold: Sold,
    }
    serializer.collect_seq(sold.iter().map(|(item, sold)| Row {
        sku: item.sku.as_str(),
        location: item.location.as_ref().map(crate::ledger::Location::as_str),
        sold: *sold,
    }))
}

/// Decides the chosen records again, in the order they were decided in, as if the named items had had these levels when
/// the first of them was decided. Stock commands for those items are left out, since the levels say what there is; other
/// items begin with what they had. In a ledger of its own, which is thrown away.
///
/// # Errors
/// When something cannot be read, records that are meant were deleted, or the work was stopped.
pub async fn simulate(
    store: &dyn LedgerHistory,
    scope: Scope<'_>,
    levels: &BTreeMap<Item, i64>,
    progress: &Progress,
) -> Result<SimulationReport> {
    let look = scope.look(store, &scope.sources()).await?;
    check_same(&look.replaced)?;
    let LedgerView { topics, ranges, programs, incarnations, mut snapshot, .. } = look;
    progress.expect(snapshot.count().await? + ranges.iter().map(OffsetRange::span).sum::<u64>());
    let directory = tempfile::tempdir().context("cannot make a directory for the simulation's ledger")?;
    let file = directory.path().join("simulation.db");
    let ledger = SqliteStore::open(&format!("sqlite://{}", file.display())).await?;
    ledger.migrate().await?;

    let mut simulation = Simulation {
        ledger,
        levels,
        before: HashMap::new(),
        begun: false,
        report: SimulationReport::default(),
    };
    let reader = block_in_place(|| topics.read(&ranges))?;
    let mut join = Join::new(Pages::after(&mut *snapshot, Seq::START), reader, &ranges, &incarnations);
    let mut not_chosen = 0;
    while let Some(page) = join.next().await? {
        let done = page.decided.len() + page.others.len();
        let mut steps = Vec::with_capacity(page.decided.len());
        for (entry, record) in page.decided {
            let within = join.source_read(&entry).is_some();
            if !within && !simulation.begun && steps.is_empty() {
                simulation.pass(&entry);
                continue;
            }
            match asked(&entry, record.as_ref(), within, &programs)? {
                Ok(command) => {
                    simulation.report.left_out.not_chosen += std::mem::take(&mut not_chosen);
                    steps.push((command, entry.decision));
                }
                Err(PassedOver::Unreadable(why)) => simulation.report.left_out.unreadable(&entry, &why),
                // Those after the last chosen one are none of the simulation's.
                Err(PassedOver::NotChosen) => not_chosen += 1,
                Err(PassedOver::RejectedOwn) => simulation.report.left_out.rejected_own += 1,
            }
        }
        simulation.go_on(steps).await?;
        progress.add(done)?;
    }
    let Simulation { ledger, report, .. } = simulation;
    ledger.close().await;
    Ok(report)
}

/// What a decision's command asked for.
fn asked(
    entry: &Entry,
    record: Option<&Record>,
    within: bool,
    programs: &Programs,
) -> Result<Result<Command, PassedOver>> {
    let decision = &entry.decision;
    if decision.source.is_none() {
        if !decision.accepted {
            return Ok(Err(PassedOver::RejectedOwn));
        }
        let action = reconstruct(decision, None, |_| 0);
        return Ok(action
            .map(|action| Command {
                key: decision.key.clone(),
                digest: decision.digest,
                action,
                refused_as: None,
            })
            .ok_or_else(|| {
                PassedOver::Unreadable("its decision is not what this program writes".to_owned())
            }));
    }
    if !within {
        return Ok(Err(PassedOver::NotChosen));
    }
    let Some(record) = record else {
        return Ok(Err(PassedOver::Unreadable("its record is not there any more".to_owned())));
    };
    let read = read_mapped_as_decided(record, decision, programs.reading(&record.source)).command();
    if read.is_err() {
        check_schema(record)?;
    }
    Ok(read.map_err(PassedOver::Unreadable))
}

/// What was stated for one version of a level ends as it did then. Versions count movements, and a simulation makes others:
/// it begins with one for each item, whatever came before, and orders end otherwise.
fn stated_as_then(command: Command, then: &Decision) -> Command {
    let Action::Set { item, available, expected_version: Some(_) } = &command.action else { return command };
    let action = if then.accepted {
        Action::Set { item: item.clone(), available: *available, expected_version: None }
    } else if let Ok(reasons) = then.reasons() {
        Action::Refuse(reasons)
    } else {
        return command;
    };
    Command { action, ..command }
}

struct Simulation<'a> {
    ledger: SqliteStore,
    levels: &'a BTreeMap<Item, i64>,
    /// What there was before the first chosen record.
    before: HashMap<Item, Level>,
    begun: bool,
    report: SimulationReport,
}

impl Simulation<'_> {
    async fn go_on(&mut self, steps: Vec<(Command, Arc<Decision>)>) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        if !self.begun {
            self.begun = true;
            self.begin().await?;
        }
        let (stated, steps): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|(command, _)| self.is_stated(command));
        self.report.left_out.stated += stated.len() as u64;
        let steps: Vec<_> =
            steps.into_iter().map(|(command, then)| (stated_as_then(command, &then), then)).collect();
        let sequences: Vec<Sequenced> =
            steps.iter().map(|(_, then)| Sequenced { seq: then.seq, at: then.decided_at }).collect();
        let requests = steps
            .iter()
            .map(|(command, then)| Request { command: command.clone(), source: then.source.clone() })
            .collect();
        let applied = self
            .ledger
            .restore(&CommandBatch { advances: Vec::new(), requests, epoch: None }, &sequences)
            .await?;
        for ((_, then), outcome) in steps.iter().zip(&applied.outcomes) {
            if let Outcome::Decided(now) = outcome
                && now.key.kind == CommandKind::OrderCreated
            {
                self.count(then, now);
            }
        }
        Ok(())
    }

    /// The commands that make an item what it was.
    fn statements(&self, item: &Item, available: i64, seq: Seq) -> Result<Vec<Command>> {
        // Ids that no producer is likely to choose.
        let id = |what: &str| Id::new(&format!("stock-verifier-simulation-{what}{seq}")).context("an id");
        let mut set = Command::stock_set(id("set")?, item.clone(), available.max(0), None);
        // No command says so, yet it was so: promised, and not there.
        set.action = Action::Set { item: item.clone(), available, expected_version: None };
        let mut commands = vec![set];
        if let Some(level) = self.before.get(item).filter(|level| level.limits != Limits::default()) {
            commands.push(Command::limits_set(id("limits")?, item.clone(), level.limits));
        }
        Ok(commands)
    }

    /// A decision from before the first chosen one.
    fn pass(&mut self, entry: &Entry) {
        let limits = match reconstruct(&entry.decision, None, |_| 0) {
            Some(Action::Limit { limits, .. }) if entry.decision.accepted => Some(limits),
            _ => None,
        };
        for movement in &entry.movements {
            let level = self.before.entry(movement.item.clone()).or_default();
            level.available = movement.balance;
            level.limits = limits.unwrap_or(level.limits);
        }
    }

    /// Whether the file says what this command would.
    fn is_stated(&self, command: &Command) -> bool {
        command.key.kind == CommandKind::Adjustment
            && !matches!(command.action, Action::Limit { .. })
            && command.items().any(|item| self.levels.contains_key(item))
    }

    /// States what there was.
    async fn begin(&mut self) -> Result<()> {
        let mut stated: BTreeMap<&Item, i64> =
            self.before.iter().map(|(item, level)| (item, level.available)).collect();
        stated.extend(self.levels.iter().map(|(item, available)| (item, *available)));
        let stated: Vec<_> = stated.into_iter().collect();
        // Before every sequence of the old ledger, which begins at 1; two for each item.
        let mut seq = Seq(-i64::try_from(stated.len() * 2).context("fewer items than that")?);
        for page in stated.chunks(LEVELS_PAGE) {
            let (mut requests, mut sequences) = (Vec::new(), Vec::new());
            for (item, available) in page {
                // Its limits in the same batch: a level below zero is nothing without them.
                for command in self.statements(item, *available, seq)? {
                    requests.push(Request { command, source: None });
                    sequences.push(Sequenced { seq, at: Stamp(0) });
                    seq.0 += 1;
                }
            }
            self.ledger
                .restore(&CommandBatch { advances: Vec::new(), requests, epoch: None }, &sequences)
                .await?;
        }
        for item in self.levels.keys() {
            self.report.sold.entry(item.clone()).or_default();
        }
        Ok(())
    }

    fn count(&mut self, then: &Decision, now: &Decision) {
        let report = &mut self.report;
        report.orders += 1;
        report.rejected_then += u64::from(!then.accepted);
        report.rejected_now += u64::from(!now.accepted);
        report.accepted_then += u64::from(then.accepted);
        report.accepted_now += u64::from(now.accepted);
        report.gained += u64::from(!then.accepted && now.accepted);
        report.lost += u64::from(then.accepted && !now.accepted);
        for (decision, is_now) in [(then, false), (now, true)] {
            if !decision.accepted {
                continue;
            }
            for line in decision.accepted_lines().unwrap_or_default() {
                let item = Item { sku: line.sku, location: line.location };
                let sold = report.sold.entry(item).or_default();
                *(if is_now { &mut sold.now } else { &mut sold.then }) += line.quantity;
            }
        }
    }
}
