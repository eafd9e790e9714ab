//! `stock-verifier audit`: proves from the ledger that its invariants hold, or says where they do not.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::task::spawn_blocking;

use super::{FEW_CONNECTIONS, open_ledger};
use crate::config::{DatabaseArgs, KafkaArgs};
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::{Audit, Finding, Store};

/// Longest wait for committed offsets: longer than a transaction can stay open.
const COMMITTED_LIMIT: Duration = Duration::from_secs(30);

/// The arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    kafka: KafkaArgs,

    /// Also compare the ledger's positions with what the group committed in Kafka (invariant 6)
    #[arg(long, env = "STOCK_VERIFIER_OFFSETS")]
    offsets: bool,

    /// The consumer group that shares the orders
    #[arg(long, env = "STOCK_VERIFIER_GROUP", value_name = "GROUP", default_value = "stock-verifier")]
    group: String,
}

/// Where each partition is done up to: in the ledger, or as Kafka has it.
pub type Positions = HashMap<TopicPartition, NextOffset>;

/// What an audit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every invariant that was looked at holds.
    Holds,
    /// At least one does not.
    Broken,
}

impl From<Verdict> for ExitCode {
    /// 0 when all hold, 1 when one does not.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Holds => Self::SUCCESS,
            Verdict::Broken => Self::FAILURE,
        }
    }
}

/// Audits the ledger the settings name.
///
/// # Errors
/// When the database cannot be reached, or has no ledger of this version.
pub async fn run(args: AuditArgs) -> Result<ExitCode> {
    let store = open_ledger(&args.database, FEW_CONNECTIONS, false).await?;
    let verdict = audit(&args, &store).await;
    store.close().await;
    Ok(verdict?.into())
}

/// Audits, and prints the report.
async fn audit(args: &AuditArgs, store: &Arc<dyn Store>) -> Result<Verdict> {
    let start = Instant::now();
    let audit = store.audit().await?;
    let committed = if args.offsets {
        let partitions: Vec<TopicPartition> = audit.positions.keys().cloned().collect();
        let mut config = args.kafka.client()?;
        config.set("group.id", &args.group).set("isolation.level", "read_committed");
        args.kafka.overlay(&mut config);
        Some(spawn_blocking(move || committed(&config, &partitions)).await??)
    } else {
        None
    };
    let mut out = io::stdout().lock();
    let verdict = report(&mut out, &audit, committed.as_ref()).context("cannot write the report")?;
    writeln!(out, "Took {:.1?}.", start.elapsed()).context("cannot write the report")?;
    Ok(verdict)
}

/// What the group committed of these partitions. Waits for a transaction that is open, as long as one can be.
fn committed(config: &ClientConfig, partitions: &[TopicPartition]) -> Result<Positions> {
    let consumer: BaseConsumer = config.create().context("the Kafka configuration is refused")?;
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    let offsets = consumer
        .committed_offsets(list, COMMITTED_LIMIT)
        .context("no committed offsets from Kafka: it is away, or a transaction stays open")?;
    let committed = offsets.elements().into_iter().filter_map(|element| {
        let next = element.offset().to_raw().filter(|offset| *offset >= 0)?;
        Some((TopicPartition::new(element.topic(), element.partition()), NextOffset(next)))
    });
    Ok(committed.collect())
}

/// Writes the report of an audit.
///
/// # Errors
/// When `out` cannot be written.
pub fn report(out: &mut impl Write, audit: &Audit, committed: Option<&Positions>) -> io::Result<Verdict> {
    writeln!(
        out,
        "Audited {} SKUs, {} movements, {} decisions, {} partitions.\n",
        audit.skus,
        audit.movements,
        audit.decisions,
        audit.positions.len()
    )?;
    let mut broken = Vec::new();
    for (invariant, claim) in CLAIMS {
        let findings: Vec<&Finding> =
            audit.findings.iter().filter(|finding| finding.invariant == *invariant).collect();
        let texts = findings.iter().map(|finding| finding.what.as_str());
        if !write_claim(out, *invariant, claim, texts)? {
            broken.push(*invariant);
        }
    }
    match committed {
        None => writeln!(out, "–  6  {POSITIONS}: not compared; --offsets reads what Kafka has")?,
        Some(committed) => {
            let apart = compare_positions(&audit.positions, committed);
            if !write_claim(out, 6, POSITIONS, apart.iter().map(String::as_str))? {
                broken.push(6);
            }
        }
    }
    writeln!(out)?;
    if broken.is_empty() {
        writeln!(out, "All hold.")?;
        return Ok(Verdict::Holds);
    }
    for invariant in &broken {
        writeln!(out, "Invariant {invariant}: {}", advice(*invariant))?;
    }
    Ok(Verdict::Broken)
}

/// The invariants a database alone can prove, by their number in the design.
const CLAIMS: &[(u8, &str)] = &[
    (1, "No level is or ever was below zero"),
    (2, "Each level is the sum of its movements, and each movement follows from the one before"),
    (3, "Each command has one decision, and moved exactly what its decision tells"),
];

const POSITIONS: &str = "The ledger and Kafka agree how far each partition is done";

fn advice(invariant: u8) -> &'static str {
    match invariant {
        6 => {
            "a running verifier tells decided batches a moment later, so audit it at rest. At rest, a ledger ahead \
             is put right by starting the verifier; a ledger behind is a database that went back in time: restore \
             a newer backup."
        }
        _ => {
            "the verifier only appends, so something else changed these tables: a hand, a script, a partial \
             restore. Stop the verifier, keep a copy, and compare with a backup; `stock-verifier stock set` states \
             a counted level as a movement of its own."
        }
    }
}

/// Writes an invariant with what breaks it; whether it holds.
fn write_claim<'a>(
    out: &mut impl Write,
    invariant: u8,
    claim: &str,
    findings: impl Iterator<Item = &'a str>,
) -> io::Result<bool> {
    let findings: Vec<&str> = findings.collect();
    let mark = if findings.is_empty() { '✓' } else { '✗' };
    writeln!(out, "{mark}  {invariant}  {claim}")?;
    for finding in &findings {
        writeln!(out, "        {finding}")?;
    }
    Ok(findings.is_empty())
}

/// Says of each partition where ledger and Kafka differ; sorted.
fn compare_positions(ledger: &Positions, committed: &Positions) -> Vec<String> {
    let mut all: Vec<&TopicPartition> = ledger.keys().chain(committed.keys()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
        .filter_map(|at| match (ledger.get(at), committed.get(at)) {
            (Some(ledger), Some(committed)) if ledger == committed => None,
            (Some(ledger), Some(committed)) => {
                Some(format!("{at}: the ledger is at {ledger}, Kafka's committed offset is {committed}"))
            }
            (Some(ledger), None) => {
                Some(format!("{at}: the ledger is at {ledger}, Kafka has no committed offset"))
            }
            (None, Some(committed)) => {
                Some(format!("{at}: the ledger was never here, Kafka's committed offset is {committed}"))
            }
            (None, None) => None,
        })
        .collect()
}
