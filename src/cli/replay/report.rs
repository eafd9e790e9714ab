//! Reports for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::cli::findings::{subject, what};
use crate::replay::finding::{AuditReport, Finding};
use crate::replay::{rebuild, reprocess, republish, simulate};

/// SKUs shown by a simulation; --json has all.
const MOST_SKUS: usize = 50;
/// Findings shown; --json has more.
const MOST_FINDINGS: usize = 100;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// Differences, one under the other: an explanation does not fit into a column.
fn findings(out: &mut String, findings: &[Finding]) {
    for finding in findings.iter().take(MOST_FINDINGS) {
        let (class, invariant) = (finding.class().name(), finding.invariant());
        let _ = writeln!(out, "  {class} (invariant {invariant})  {}: {}", subject(finding), what(finding));
    }
    if findings.len() > MOST_FINDINGS {
        let _ = writeln!(out, "  … and more; --json has {} of them", findings.len());
    }
}

/// The report of `replay diff`.
pub(super) fn diff(report: &AuditReport) -> String {
    let mut out = String::new();
    let mut counts = table(&["same", "differing", "missing", "extra"]);
    let same = report.decisions.saturating_sub(report.differing + report.missing);
    counts.add_row([same, report.differing, report.missing, report.extra]);
    let _ = writeln!(out, "{counts}");
    let _ = writeln!(
        out,
        "{} decisions decided again, {} events read back; {} repeats absorbed, {} dead letters.",
        report.decisions, report.published, report.absorbed, report.dead_letters
    );
    findings(&mut out, &report.findings);
    for note in &report.notes {
        let _ = writeln!(out, "Note: {note}.");
    }
    out + &unknown(&report.unknown)
}

/// Says what was named and is not there.
fn unknown(unknown: &[String]) -> String {
    let line = |what: &String| {
        format!("Nothing is known of {what}: check how it is written, and which records were chosen.\n")
    };
    unknown.iter().map(line).collect()
}

fn done(executed: bool) -> &'static str {
    if executed { "" } else { "Nothing was changed; --execute does it.\n" }
}

/// The report of `replay republish`.
pub(super) fn republish(report: &republish::RepublishReport) -> String {
    let mut counts =
        table(&["records", "published as accepted", "published as rejected", "without a decision"]);
    counts.add_row([report.records, report.accepted, report.rejected, report.without_decision]);
    format!("{counts}\n{}{}", done(report.executed), unknown(&report.unknown))
}

/// The report of `replay reprocess`.
pub(super) fn reprocess(report: &reprocess::ReprocessReport) -> String {
    let sent = if report.executed { "sent" } else { "to be sent" };
    let mut counts = table(&["records", sent, "decided already", "faulty"]);
    counts.add_row([report.records, report.sent, report.decided, report.faulty]);
    let mut out = format!("{counts}\n");
    for fault in &report.faults {
        let _ = writeln!(out, "  left out: {fault}");
    }
    out + done(report.executed) + &unknown(&report.unknown)
}

/// The report of `replay rebuild`.
pub(super) fn rebuild(report: &rebuild::RebuildReport, followed: bool) -> String {
    if !report.executed {
        return format!(
            "{} decisions are there already, about {} records are to be read.\n{}",
            report.found,
            report.restored,
            done(false)
        );
    }
    let mut out = format!("{} decisions found, {} restored.\n", report.found, report.restored);
    if !followed {
        out += "Not compared: there is no old ledger to compare with.\n";
    } else if report.differences.is_empty() {
        let _ = writeln!(out, "{} rows compared: the two ledgers are equal.", report.compared);
    } else {
        let _ = writeln!(out, "{} rows compared; these differ:", report.compared);
        for difference in &report.differences {
            let _ = writeln!(out, "  {difference}");
        }
    }
    out
}

/// The report of `replay simulate`.
pub(super) fn simulate(report: &simulate::SimulationReport) -> String {
    let mut counts = table(&["", "accepted", "rejected", "gained", "lost"]);
    let then = [report.accepted_then, report.rejected_then].map(|count| count.to_string());
    counts.add_row(std::iter::once("then".to_owned()).chain(then));
    let now = [report.accepted_now, report.rejected_now, report.gained, report.lost];
    counts.add_row(std::iter::once("now".to_owned()).chain(now.map(|count| count.to_string())));
    let mut sold = table(&["SKU", "sold then", "would have sold", "difference"]);
    let mut rows: Vec<_> = report.sold.iter().collect();
    rows.sort_by_key(|(_, sold)| std::cmp::Reverse((sold.now - sold.then).abs()));
    for (item, pieces) in rows.iter().take(MOST_SKUS) {
        let difference = pieces.now - pieces.then;
        sold.add_row([
            item.to_string(),
            pieces.then.to_string(),
            pieces.now.to_string(),
            format!("{difference:+}"),
        ]);
    }
    for column in 1..4 {
        if let Some(column) = sold.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = format!("{counts}\n{sold}\n");
    if rows.len() > MOST_SKUS {
        let _ = writeln!(out, "… and {} more SKUs; --json has all.", rows.len() - MOST_SKUS);
    }
    left_out(&mut out, &report.left_out);
    out
}

/// What a simulation did not ask again.
fn left_out(out: &mut String, left_out: &simulate::LeftOut) {
    let kinds = [
        (left_out.stated, "stock commands for SKUs in the file"),
        (left_out.not_chosen, "commands of records that were not chosen, decided between those that were"),
        (left_out.rejected_own, "of operators' own commands, rejected then: what they asked for is not kept"),
        (left_out.unreadable, "chosen commands that cannot be read any more"),
    ];
    for (count, what) in kinds.iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(out, "Left out: {count} {what}.");
    }
    for fault in &left_out.faults {
        let _ = writeln!(out, "  {fault}");
    }
}
