//! Findings as they are printed.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::finding::{Finding, Severity};

/// What `--json` prints. Members may come; none goes or changes its meaning.
#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    /// The worst of the findings.
    status: Severity,
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: &'a [Finding],
}

/// All findings, the worst last: that is what stands above the prompt.
pub(super) fn sort(findings: &mut [Finding]) {
    // Stable: of one severity, in the order in which they were looked at.
    findings.sort_by_key(|finding| finding.severity);
}

/// The worst of them.
pub(super) fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

/// For machines.
pub(super) fn json(findings: &[Finding]) -> serde_json::Result<String> {
    let report = ReportJson {
        status: worst(findings),
        errors: count(findings, Severity::Error),
        warnings: count(findings, Severity::Warning),
        notes: count(findings, Severity::Note),
        findings,
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n")
}

/// For people.
pub(super) fn text(findings: &[Finding], took: Duration) -> String {
    let mut text = String::new();
    // Writing to a String does not fail, here and below.
    for finding in findings {
        let _ = writeln!(text, "{:<9} {} ({})", finding.severity.word(), finding.what, finding.check);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "          -> {advice}");
        }
    }
    let [errors, warnings, notes, well] =
        [Severity::Error, Severity::Warning, Severity::Note, Severity::Ok].map(|of| count(findings, of));
    let _ = writeln!(
        text,
        "{errors} errors, {warnings} warnings, {notes} notes, {well} ok. Took {:.1} s.",
        took.as_secs_f64()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let mut findings = vec![
            Finding::error("kafka.topics", "orders is missing", "create it"),
            Finding::ok("database.version", "PostgreSQL 15.4"),
            Finding::note("kafka.release", "cannot look", "allow it"),
        ];
        sort(&mut findings);
        findings
    }

    #[test]
    fn the_worst_comes_last_with_what_to_do_and_a_sum() {
        let expected = "\
ok        PostgreSQL 15.4 (database.version)
note      cannot look (kafka.release)
          -> allow it
error     orders is missing (kafka.topics)
          -> create it
1 errors, 0 warnings, 1 notes, 1 ok. Took 0.5 s.
";
        assert_eq!(text(&findings(), Duration::from_millis(500)), expected);
    }

    #[test]
    fn a_report_for_machines_has_its_members_and_words() {
        let json: serde_json::Value = serde_json::from_str(&json(&findings()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "status": "error", "errors": 1, "warnings": 0, "notes": 1,
            "findings": [
                {"severity": "ok", "check": "database.version", "what": "PostgreSQL 15.4", "advice": null},
                {"severity": "note", "check": "kafka.release", "what": "cannot look", "advice": "allow it"},
                {"severity": "error", "check": "kafka.topics", "what": "orders is missing", "advice": "create it"},
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn nothing_found_is_well() {
        assert_eq!(worst(&[]), Severity::Ok);
        assert_eq!(worst(&findings()), Severity::Error);
    }
}
