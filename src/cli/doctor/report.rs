//! Findings as they are printed.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::diagnosis::{Diagnosis, Severity};

/// What `--json` prints. Members may come; none goes or changes its meaning.
#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    /// The worst of the diagnoses.
    status: Severity,
    errors: usize,
    warnings: usize,
    notes: usize,
    #[serde(rename = "findings")]
    diagnoses: &'a [Diagnosis],
}

/// All diagnoses, the worst last: that is what stands above the prompt.
pub(super) fn sort(diagnoses: &mut [Diagnosis]) {
    // Stable: of one severity, in the order in which they were looked at.
    diagnoses.sort_by_key(|diagnosis| diagnosis.severity);
}

/// The worst of them.
pub(super) fn worst(diagnoses: &[Diagnosis]) -> Severity {
    diagnoses.iter().map(|diagnosis| diagnosis.severity).max().unwrap_or(Severity::Ok)
}

fn count(diagnoses: &[Diagnosis], severity: Severity) -> usize {
    diagnoses.iter().filter(|diagnosis| diagnosis.severity == severity).count()
}

/// For machines.
pub(super) fn json(diagnoses: &[Diagnosis]) -> serde_json::Result<String> {
    let report = ReportJson {
        status: worst(diagnoses),
        errors: count(diagnoses, Severity::Error),
        warnings: count(diagnoses, Severity::Warning),
        notes: count(diagnoses, Severity::Note),
        diagnoses,
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n")
}

/// For people.
pub(super) fn text(diagnoses: &[Diagnosis], took: Duration) -> String {
    let mut text = String::new();
    // Writing to a String does not fail, here and below.
    for diagnosis in diagnoses {
        let _ = writeln!(text, "{:<9} {} ({})", diagnosis.severity.word(), diagnosis.what, diagnosis.check);
        if let Some(advice) = &diagnosis.advice {
            let _ = writeln!(text, "          -> {advice}");
        }
    }
    let [errors, warnings, notes, well] =
        [Severity::Error, Severity::Warning, Severity::Note, Severity::Ok].map(|of| count(diagnoses, of));
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

    fn diagnoses() -> Vec<Diagnosis> {
        let mut diagnoses = vec![
            Diagnosis::error("kafka.topics", "orders is missing", "create it"),
            Diagnosis::ok("database.version", "PostgreSQL 15.4"),
            Diagnosis::note("kafka.release", "cannot look", "allow it"),
        ];
        sort(&mut diagnoses);
        diagnoses
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
        assert_eq!(text(&diagnoses(), Duration::from_millis(500)), expected);
    }

    #[test]
    fn a_report_for_machines_has_its_members_and_words() {
        let json: serde_json::Value = serde_json::from_str(&json(&diagnoses()).unwrap()).unwrap();
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
        assert_eq!(worst(&diagnoses()), Severity::Error);
    }
}
