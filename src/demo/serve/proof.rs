//! The six invariants of a ledger that was served. What the rules decided they decide again, in the ledger's order, as
//! `audit` does; results are compared by their sum.

use std::fmt::Write as _;

use anyhow::Result;
use indicatif::HumanCount;

use super::super::proof::Claim;
use super::readback::{EventSum, ReadBack};
use crate::event::{TraceContext, result};
use crate::ledger::{NextOffset, Seq};
use crate::observe::Tally;
use crate::replay::Progress;
use crate::replay::decision_verifier::ledger_alone;
use crate::store::{BrokenInvariant, Store, StoreError};

/// Decisions read at once.
const PAGE: usize = 5_000;

/// Proves the six invariants, or says where they do not hold.
///
/// # Errors
/// When the ledger cannot be read.
pub(super) async fn prove(store: &dyn Store, read: &ReadBack) -> Result<[Claim; 6]> {
    let mut claims = [
        Claim::new(1, "No level is below zero"),
        Claim::new(2, "Every level is the sum of its movements, each following from the one before"),
        Claim::new(3, "Every command has exactly one decision, which moved what it says"),
        Claim::new(4, "Every decision was published exactly once, as the ledger has it"),
        Claim::new(5, "Every rejection was justified and every acceptance possible, in the ledger's order"),
        Claim::new(6, "The ledger stands behind everything that was asked"),
    ];
    let progress = Progress::default();
    let (audit, again, expected) =
        tokio::try_join!(async { Ok(store.audit().await?) }, ledger_alone(store, None, &progress), async {
            Ok(expected(store).await?)
        })?;
    for BrokenInvariant { invariant, what } in &audit.findings {
        claims[usize::from(*invariant) - 1].fault(format_args!("{what}"));
    }
    for finding in &again.findings {
        claims[usize::from(finding.invariant()) - 1].fault(format_args!("{finding:?}"));
    }
    let levels = HumanCount(audit.skus);
    claims[0].looked_at = format!("{levels} levels");
    claims[1].looked_at = format!("{} movements of {levels} SKUs, added up", HumanCount(audit.movements));
    claims[2].looked_at = format!("{} decisions", HumanCount(audit.decisions));
    claims[4].looked_at = format!("{} decisions made again by the rules", HumanCount(again.decisions));
    published(&mut claims[3], expected, read);
    let claim = &mut claims[5];
    for (at, end) in &read.ends {
        let position = audit.positions.get(at).copied().unwrap_or(NextOffset(0));
        let asked = read.produced.get(at).copied().unwrap_or(NextOffset(0));
        claim.expect(
            (asked..=*end).contains(&position),
            format_args!("{at} was asked up to {asked} and ends at {end}, the ledger stands at {position}"),
        );
    }
    claim.expect(!read.ends.is_empty(), format_args!("no partition was read"));
    claim.looked_at = format!("{} partitions", read.ends.len());
    Ok(claims)
}

/// What must have been published.
async fn expected(store: &dyn Store) -> Result<EventSum, StoreError> {
    let mut sum = EventSum::default();
    let mut snapshot = store.snapshot().await?;
    let mut after = Seq::START;
    loop {
        let decisions = snapshot.decisions_after(after, PAGE).await?;
        let Some(last) = decisions.last() else { return Ok(sum) };
        after = last.seq;
        // The sample stock is an operator's, and published by nobody.
        for decision in decisions.iter().filter(|decision| decision.source.is_some()) {
            let event = result(decision, None, TraceContext::NONE);
            sum.add(
                event.channel,
                decision.key.to_string().as_bytes(),
                event.value.as_deref().unwrap_or_default(),
            );
        }
    }
}

fn published(claim: &mut Claim, expected: EventSum, read: &ReadBack) {
    for fault in &read.faults {
        claim.fault(format_args!("{fault}"));
    }
    claim.expect(
        expected.events == read.results.events,
        format_args!(
            "{} decisions are to be published, {} results were",
            expected.events, read.results.events
        ),
    );
    claim.expect(expected == read.results, format_args!("what was published is not what the ledger says"));
    claim.looked_at = format!("{} results read back, and their sum", HumanCount(read.results.events));
}

/// What happened, for a person to read.
pub(super) fn summary(total: &Tally, claims: &[Claim]) -> String {
    let mut text = format!(
        "\n{} accepted, {} rejected, {} dead letters, {} repetitions absorbed\n\nProved from the ledger and the topics\n\n",
        HumanCount(total.accepted),
        HumanCount(total.rejected),
        HumanCount(total.dead_letters),
        HumanCount(total.absorbed)
    );
    for Claim { number, claim, looked_at, faults, shown } in claims {
        let mark = if *faults == 0 { "✓" } else { "✗" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {mark} {number}. {claim}\n       {looked_at}");
        for fault in shown {
            let _ = writeln!(text, "       ✗ {fault}");
        }
    }
    text
}
