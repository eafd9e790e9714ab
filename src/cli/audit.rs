//! `stock-verifier audit`: proves that the ledger's invariants hold, or says where they do not.

mod repair;

use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use tokio::task::block_in_place;

use super::findings::{mismatch, mismatches_as_json, report_as_json, subject, what};
use super::gate::redis_settings;
use super::open::{Access, FEW_CONNECTIONS, open_ledger};
use super::progress::Shown;
use crate::config::{DatabaseArgs, KafkaArgs, RedisArgs, RegistryArgs, TopicArgs};
use crate::console;
use crate::gate::audit as cache_audit;
use crate::gate::cache::RedisCache;
use crate::kafka::topic_ids::Described;
use crate::kafka::topics::Topics;
use crate::ledger::{Stamp, TopicPartition};
use crate::replay::compare;
use crate::replay::decision_verifier;
use crate::replay::finding::{AuditReport, Finding, PositionMismatch};
use crate::replay::record_filter::{RecordFilter, zone_missing};
use crate::replay::scope::Scope;
use crate::store::{Audit, OVERDUE, OverdueHolds, Store};

/// Findings of one invariant that are shown; --json has more.
const MOST_SHOWN: usize = 50;

/// The arguments of `audit`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct AuditArgs {
    /// Also compare the ledger's positions with what the group committed in Kafka (invariant 6)
    #[arg(long, env = "STOCK_VERIFIER_OFFSETS")]
    offsets: bool,

    /// Also hold the ledger against the topics: what was asked, and what readers of committed records see (invariants 4 to 6)
    #[arg(long = "topics", env = "STOCK_VERIFIER_TOPICS")]
    with_topics: bool,

    /// Also compare what the gates keep in Redis with the ledger, at rest: each stored level, and each piece that is subtracted
    /// for an entry
    #[arg(long, env = "STOCK_VERIFIER_CACHE")]
    cache: bool,

    /// Of invariants 4 and 5, only what was decided then or later: a date-time with its zone, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Stamp>,

    /// Repair what can be derived: levels from their movements, each with a ledger line that says so; with --topics,
    /// results that were never published; with --cache, what is in Redis
    #[arg(long)]
    repair: bool,

    /// Print JSON instead of a report for people
    #[arg(long)]
    json: bool,

    /// The consumer group that shares the orders
    #[arg(long, env = "STOCK_VERIFIER_GROUP", value_name = "GROUP", default_value = "stock-verifier")]
    group: String,

    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

fn parse_since(text: &str) -> Result<Stamp, String> {
    if let Some(stamp) = Stamp::read(text) {
        return Ok(stamp);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        zone_missing(text).unwrap_or_else(|| {
            "expected a date-time with its zone (2026-11-22T18:00:00Z), or how long ago (2h)".to_owned()
        })
    })?;
    let now = jiff::Timestamp::now().as_microsecond();
    Ok(Stamp(now.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))))
}

/// What an audit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditStatus {
    /// Every invariant that was looked at holds.
    Holds,
    /// At least one does not.
    Broken,
}

impl From<AuditStatus> for ExitCode {
    /// 0 when all hold, 1 when one does not.
    fn from(verdict: AuditStatus) -> Self {
        match verdict {
            AuditStatus::Holds => Self::SUCCESS,
            AuditStatus::Broken => Self::FAILURE,
        }
    }
}

/// Everything an audit looked at and found.
#[derive(Debug, Default, Serialize)]
pub struct AuditOutcome {
    /// What the database's own questions came to.
    #[serde(flatten)]
    pub ledger: Audit,
    /// What deciding everything again came to, and what was published, if the topics were read.
    #[serde(serialize_with = "report_as_json")]
    pub again: AuditReport,
    /// Whether the topics were read.
    pub with_topics: bool,
    /// Where ledger and Kafka do not agree how far each partition is done; `None` when it was not looked at.
    #[serde(serialize_with = "mismatches_as_json")]
    pub apart: Option<Vec<PositionMismatch>>,
    /// What in the gates' cache is not what the ledger says; `None` when it was not looked at.
    pub cache: Option<Vec<String>>,
    /// What was repaired.
    pub repairs: Vec<String>,
}

/// Audits the ledger the settings name. Exit status: 0 all hold, 1 one does not.
///
/// # Errors
/// When it could not be done, or was stopped.
pub async fn run(args: AuditArgs) -> Result<ExitCode> {
    audit_and_report(&args).await.map(ExitCode::from)
}

async fn audit_and_report(args: &AuditArgs) -> Result<AuditStatus> {
    args.topics.check()?;
    let access = if args.repair { Access::Write } else { Access::Read };
    let store = open_ledger(&args.database, FEW_CONNECTIONS, access).await?;
    let begun = Instant::now();
    let shown = Shown::new("auditing");
    let mut repairs = Vec::new();
    let outcome = audit(args, &store, &shown, &mut repairs).await;
    drop(shown);
    store.close().await;
    let outcome = match outcome {
        Ok(outcome) => AuditOutcome { repairs, ..outcome },
        Err(error) => {
            // There is no report that would say so, and the ledger is another one than before.
            for repair in &repairs {
                console::say(&format!("Repaired: {repair}"));
            }
            return Err(error);
        }
    };
    if args.json {
        let text = serde_json::to_string_pretty(&outcome).context("the report cannot be written")?;
        console::print(&(text + "\n"))?;
        return Ok(outcome.verdict());
    }
    let mut text = Vec::new();
    let verdict = report(&mut text, &outcome).context("the report cannot be written")?;
    writeln!(text, "Took {:.1?}.", begun.elapsed()).context("the report cannot be written")?;
    console::print(&String::from_utf8_lossy(&text))?;
    Ok(verdict)
}

/// Audits. What was repaired is added to `repairs`, also where it ends with an error.
async fn audit(
    args: &AuditArgs,
    store: &Arc<dyn Store>,
    shown: &Shown,
    repairs: &mut Vec<String>,
) -> Result<AuditOutcome> {
    if args.repair {
        repair::levels(&**store, repairs).await?;
    }
    let filter = RecordFilter::all();
    let scope = Scope {
        kafka: &args.kafka,
        topics: &args.topics,
        registry: &args.registry,
        without_registry: false,
        group: &args.group,
        filter: &filter,
        since: args.since,
    };
    let again = async {
        if !args.with_topics {
            return decision_verifier::ledger_alone(&**store, args.since, &shown.progress).await;
        }
        let again = compare::with_topics(&**store, scope, &shown.progress).await?;
        if args.repair {
            let published = repair::results(&**store, scope, &again.findings, &shown.progress).await?;
            if !published.is_empty() {
                repairs.extend(published);
                return compare::with_topics(&**store, scope, &shown.progress).await;
            }
        }
        Ok(again)
    };
    // Before the ledger is looked at, which is never behind them then.
    let kafka = if args.offsets || args.with_topics {
        scope.check_group(&**store).await?;
        let known = store.snapshot().await?.positions().await?;
        Some(block_in_place(|| {
            let topics = Topics::connect(&args.kafka, &args.group)?;
            let mut partitions: HashSet<TopicPartition> = known.into_keys().collect();
            // Those too that the ledger knows nothing of: what was committed there it has lost.
            let sources = [&*args.topics.orders_topic, &*args.topics.adjustments_topic];
            for (topic, described) in sources.into_iter().zip(topics.describe(&sources)?) {
                if described != Described::Absent {
                    partitions.extend(topics.partitions(topic)?);
                }
            }
            let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
            anyhow::Ok((topics.group_is_running(&args.group)?, topics.committed(&partitions)?))
        })?)
    } else {
        None
    };
    // Side by side: the database answers its questions while the rules decide again.
    let (ledger, again) = tokio::try_join!(async { Ok(store.audit().await?) }, again)?;
    let mut outcome =
        AuditOutcome { ledger, again, with_topics: args.with_topics, ..AuditOutcome::default() };
    if args.cache {
        outcome.cache = Some(look_at_cache(args, store, repairs).await?);
    }
    outcome.again.notes.extend(store.overdue_holds(OVERDUE).await?.as_ref().map(overdue_note));
    if let Some((running, committed)) = kafka {
        outcome.apart = Some(compare::standing(&outcome.ledger.positions, &committed, running));
    }
    Ok(outcome)
}

/// Compares the gates' cache with the ledger, and puts it right where that was asked for. Answers with what is left.
async fn look_at_cache(
    args: &AuditArgs,
    store: &Arc<dyn Store>,
    repairs: &mut Vec<String>,
) -> Result<Vec<String>> {
    let cache = RedisCache::new(&redis_settings(&args.redis)?).context("--redis-url names no Redis")?;
    let away = "the cache cannot be compared (check --redis-url, and --redis-password-file)";
    let mut found = cache_audit::compare(&cache, &**store).await.context(away)?;
    if args.repair && !found.is_empty() {
        cache_audit::repair(&cache, &**store, &found).await.context(away)?;
        let left = cache_audit::compare(&cache, &**store).await.context(away)?;
        let repaired = found.iter().filter(|difference| !left.contains(difference));
        repairs.extend(repaired.map(|difference| format!("in the cache, {difference}")));
        found = left;
    }
    Ok(found.iter().map(ToString::to_string).collect())
}

/// No invariant is broken by it: the ledger is right, and what it waits for was not decided yet.
fn overdue_note(overdue: &OverdueHolds) -> String {
    let OverdueHolds { count, oldest, since } = overdue;
    format!(
        "{count} holds are over since more than {OVERDUE:?} and have not ended, the oldest of order {oldest} since {}: \
         their stock is not given back. They end once a verifier runs, has read its backlog, and may write to the orders \
         topic",
        since.rfc3339()
    )
}

impl AuditOutcome {
    /// What was found of one invariant.
    fn findings(&self, invariant: u8) -> Vec<String> {
        let ledger = self.ledger.findings.iter().filter(|found| found.invariant == invariant);
        let again = self.again.findings.iter().filter(|found| found.invariant() == invariant);
        let apart = self.apart.iter().flatten();
        // Where a partition stands, both have looked.
        let is_apart = |found: &Finding| match found {
            Finding::Positions(found) => apart.clone().any(|apart| apart.at == found.at),
            _ => false,
        };
        let ledger = ledger.map(|found| found.what.to_string());
        let again = again
            .filter(|found| !is_apart(found))
            .map(|found| format!("{}: {}", subject(found), what(found)));
        let apart = apart.clone().filter(|_| invariant == 6).map(mismatch);
        ledger.chain(again).chain(apart).collect()
    }

    fn verdict(&self) -> AuditStatus {
        let cache_holds = self.cache.as_ref().is_none_or(Vec::is_empty);
        if cache_holds && (1..=6).all(|invariant| self.findings(invariant).is_empty()) {
            AuditStatus::Holds
        } else {
            AuditStatus::Broken
        }
    }
}

/// Writes the report of an audit.
///
/// # Errors
/// When `out` cannot be written.
pub fn report(out: &mut impl Write, outcome: &AuditOutcome) -> io::Result<AuditStatus> {
    let audit = &outcome.ledger;
    writeln!(
        out,
        "Audited {} SKUs, {} movements, {} decisions, {} partitions.\n",
        audit.skus,
        audit.movements,
        audit.decisions,
        audit.positions.len()
    )?;
    for repair in &outcome.repairs {
        writeln!(out, "Repaired: {repair}")?;
    }
    let mut broken = Vec::new();
    for (invariant, claim) in CLAIMS {
        let left_out = match invariant {
            4 if !outcome.with_topics => Some("--topics reads what was asked and published"),
            4 if outcome.again.is_all_unretained() && outcome.findings(4).is_empty() => {
                Some("all that was published is deleted from its topics (retention?)")
            }
            6 if outcome.apart.is_none() => Some("--offsets reads what Kafka has"),
            _ => None,
        };
        if let Some(how) = left_out {
            writeln!(out, "–  {invariant}  {claim}: not compared; {how}")?;
        } else if !write_claim(out, &invariant.to_string(), claim, &outcome.findings(*invariant))? {
            broken.push(*invariant);
        }
    }
    let cache_holds = match &outcome.cache {
        None => true,
        Some(found) => write_claim(out, "C", CACHE_CLAIM, found)?,
    };
    for note in &outcome.again.notes {
        writeln!(out, "\nNote: {note}.")?;
    }
    writeln!(out)?;
    if broken.is_empty() && cache_holds {
        writeln!(out, "All hold.")?;
        return Ok(AuditStatus::Holds);
    }
    for invariant in &broken {
        writeln!(out, "Invariant {invariant}: {}", advice(*invariant))?;
    }
    if !cache_holds {
        writeln!(out, "Cache: {CACHE_ADVICE}")?;
    }
    Ok(AuditStatus::Broken)
}

/// The invariants, by their number in ARCHITECTURE.md.
const CLAIMS: &[(u8, &str)] = &[
    (1, "No level is or ever was below what was allowed: zero, or its backorder limit"),
    (2, "Each level is the sum of its movements, and each movement follows from the one before"),
    (3, "Each command has one decision, and moved exactly what its decision says"),
    (4, "Each decision was published exactly once as the ledger has it, and each record ended as it should"),
    (5, "The rules decide the same again, each command at its ledger sequence"),
    (6, "The ledger and Kafka agree how far each partition is done"),
];

/// What holds of the gates' cache at rest. No invariant of the ledger: it is never decided by.
const CACHE_CLAIM: &str = "The gates' cached amounts are the ledger's levels less the entries that are open";
const CACHE_ADVICE: &str = "while orders are decided, levels that are on their way differ: look again at rest. What differs then, \
     `stock-verifier audit --cache --repair` puts right.";

fn advice(invariant: u8) -> &'static str {
    match invariant {
        6 => {
            "a ledger ahead, with no verifier running, is put right by starting one; a ledger behind is a database \
             that went back in time: restore a newer backup, or see `stock-verifier replay rebuild`."
        }
        4 => {
            "results that are missing are republished by `stock-verifier replay republish --execute`; `stock-verifier \
             replay diff` says more about single records. Results that are altered or published twice stay: tell readers \
             to drop repeated ids."
        }
        2 => {
            "something else changed these tables: a hand, a script, a partial restore. Stop the verifier and keep a \
             copy; `stock-verifier audit --repair` makes levels follow from their movements again, and `stock-verifier \
             replay rebuild` makes a ledger from the topics to compare with."
        }
        _ => {
            "the verifier only appends, so something else changed these tables: a hand, a script, a partial \
             restore. Stop the verifier, keep a copy, and compare with a backup; `stock-verifier stock set` states \
             a counted level as a movement of its own."
        }
    }
}

/// Writes an invariant with what breaks it; whether it holds.
fn write_claim(out: &mut impl Write, invariant: &str, claim: &str, findings: &[String]) -> io::Result<bool> {
    let mark = if findings.is_empty() { '✓' } else { '✗' };
    writeln!(out, "{mark}  {invariant}  {claim}")?;
    for finding in findings.iter().take(MOST_SHOWN) {
        writeln!(out, "        {finding}")?;
    }
    if findings.len() > MOST_SHOWN {
        writeln!(out, "        … and more; --json has {} of them", findings.len())?;
    }
    Ok(findings.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_zone_or_as_how_long_ago() {
        let utc = parse_since("2026-11-22T18:00:00Z").unwrap();
        assert_eq!(parse_since("2026-11-22T19:00:00+01:00"), Ok(utc));
        assert!(parse_since("2h").unwrap() < parse_since("1h").unwrap());
        assert!(parse_since("2026-11-22").unwrap_err().contains("write 2026-11-22T00:00:00Z for UTC"));
        assert!(parse_since("yesterday").unwrap_err().contains("(2026-11-22T18:00:00Z)"));
    }
}
