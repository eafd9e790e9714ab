//! The summary: what happened, for a person to read.

use std::fmt::Write as _;

use indicatif::HumanCount;

use super::Played;
use super::proof::{Claim, Proof};

/// How many of the most wanted SKUs are shown.
const TOP: usize = 10;
/// Width of the longest bar.
const BAR: i64 = 24;

/// Writes the summary.
#[must_use]
pub(super) fn summary(played: &Played, proof: &Proof) -> String {
    let mut text = String::new();
    // Writing to a String does not fail, here and below.
    let _ = counts(&mut text, played, proof);
    let _ = wanted(&mut text, proof);
    let _ = verdicts(&mut text, proof);
    text
}

/// A number with its thousands apart, which can be padded.
fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

fn counts(text: &mut String, played: &Played, proof: &Proof) -> std::fmt::Result {
    let total = &played.total;
    let records = total.records();
    writeln!(text, "\nWhat became of {} records\n", grouped(records))?;
    let mut row = |name: &str, count: u64| {
        let permille = count * 1_000 / records.max(1);
        writeln!(text, "  {name:<28}{:>10}  {:>3}.{} %", grouped(count), permille / 10, permille % 10)
    };
    row("accepted", total.accepted)?;
    row("rejected", total.rejected)?;
    row("dead letters", total.dead_letters)?;
    row("repetitions absorbed", total.absorbed)?;
    if total.republished > 0 {
        row("republished", total.republished)?;
    }
    writeln!(text, "\n  Why orders were rejected (an order may have several reasons)")?;
    for (reason, orders) in &proof.reasons {
        writeln!(text, "    {reason:<26}{:>10}", grouped(*orders))?;
    }
    writeln!(text, "\n  Why records became dead letters")?;
    for (class, letters) in &proof.letters {
        writeln!(text, "    {class:<26}{:>10}", grouped(*letters))?;
    }
    let millis = u64::try_from(played.took.as_millis()).unwrap_or(u64::MAX).max(1);
    writeln!(text, "\nHow fast\n")?;
    writeln!(
        text,
        "  {} records a second: {} in {:.1} s, in {} partitions, with SQLite on this disk",
        grouped(records * 1_000 / millis),
        grouped(records),
        played.took.as_secs_f64(),
        super::broker::PARTITIONS
    )?;
    let [p50, p95, p99] = played.latencies.map(|latency| format!("{} ms", latency.as_millis()));
    writeln!(
        text,
        "  From produced to published, with the pipeline kept full: p50 {p50}, p95 {p95}, p99 {p99}"
    )
}

fn wanted(text: &mut String, proof: &Proof) -> std::fmt::Result {
    let mut items: Vec<_> = proof.demand.iter().collect();
    items.sort_unstable_by_key(|(item, demand)| (std::cmp::Reverse(demand.wanted), *item));
    items.truncate(TOP);
    let most = items.first().map_or(1, |(_, demand)| demand.wanted.max(1));
    writeln!(text, "\nThe {} most wanted SKUs\n", items.len())?;
    writeln!(text, "  {:<20}{:>9}{:>9}{:>9}", "", "wanted", "sold", "left")?;
    for (item, demand) in items {
        let length = |pieces: i64| usize::try_from(pieces * BAR / most).unwrap_or(0);
        let (sold, wanted) = (length(demand.taken), length(demand.wanted));
        writeln!(
            text,
            "  {:<20}{:>9}{:>9}{:>9}  {}{}{}",
            item.to_string(),
            grouped(demand.wanted.unsigned_abs()),
            grouped(demand.taken.unsigned_abs()),
            grouped(demand.left.unsigned_abs()),
            "█".repeat(sold),
            "░".repeat(wanted - sold.min(wanted)),
            if demand.left == 0 { "  sold out" } else { "" },
        )?;
    }
    Ok(())
}

fn verdicts(text: &mut String, proof: &Proof) -> std::fmt::Result {
    writeln!(text, "\nProved by reading the ledger and the topics back\n")?;
    for Claim { number, claim, looked_at, faults, shown } in &proof.verdicts {
        let mark = if *faults == 0 { "✓" } else { "✗" };
        writeln!(text, "  {mark} {number}. {claim}")?;
        writeln!(text, "       {looked_at}")?;
        for fault in shown {
            writeln!(text, "       ✗ {fault}")?;
        }
        if *faults > shown.len() {
            writeln!(text, "       … and {} more", faults - shown.len())?;
        }
    }
    writeln!(
        text,
        "\n  What this cannot prove: the broker in this process shows the records of undone transactions and\n  \
         keeps no offsets of a transaction, so here the ledger's position alone says how far all is decided.\n  \
         That each result is visible exactly once through crashes is shown on real Kafka, by the tests."
    )
}
