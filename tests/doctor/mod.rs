//! `stock-verifier doctor` on real servers: well is well, and each fault that is made is found, with what to do.

mod database;
mod kafka;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::scene::Scene;
use crate::support::wait;

/// Longest wait for anything a test waits for.
const SOON: Duration = Duration::from_secs(60);
/// What doctor promises to take at most, 10 s, and what its start, its end and each of its timers come late on a machine that
/// other tests keep busy.
const MOST: Duration = Duration::from_secs(10 + 5);

/// What a finding says where an answer came too late.
const LATE: [&str; 3] = ["no answer within", "says nothing for", "imed out"];

/// What doctor came to.
struct Report {
    status: Option<i32>,
    json: Value,
}

impl Report {
    /// Runs it. It keeps its promise of time, whatever it finds.
    #[track_caller]
    fn of(mut command: Command) -> Self {
        let begun = Instant::now();
        let output = command.arg("--json").output().expect("it runs");
        let took = begun.elapsed();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(took < MOST, "it took {took:?}: {log}");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        Self { status: output.status.code(), json }
    }

    /// Runs it until all of it was answered in time, which on a busy machine it is not always: it says so then.
    #[track_caller]
    fn answered(command: impl Fn() -> Command) -> Self {
        wait::value("doctor is answered in time", SOON, || {
            let report = Self::of(command());
            let findings = report.json["findings"].as_array().expect("findings");
            let is_late = |finding: &Value| LATE.iter().any(|late| finding.to_string().contains(late));
            if findings.iter().any(is_late) { None } else { Some(report) }
        })
    }

    /// The findings of this severity, as check, finding and advice.
    fn all(&self, severity: &str) -> Vec<(String, String, String)> {
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let findings = self.json["findings"].as_array().expect("findings").iter();
        findings
            .filter(|finding| finding["severity"] == severity)
            .map(|finding| (text(finding, "check"), text(finding, "what"), text(finding, "advice")))
            .collect()
    }

    /// Whether there is such a finding, with these words in it or in its advice.
    fn has(&self, severity: &str, check: &str, words: &[&str]) -> bool {
        self.all(severity).iter().any(|(of, what, advice)| {
            of == check && words.iter().all(|word| what.contains(word) || advice.contains(word))
        })
    }

    /// Expects it, and the exit status that belongs to it.
    #[track_caller]
    fn finds(&self, severity: &str, check: &str, words: &[&str]) -> &Self {
        assert!(self.has(severity, check, words), "no {severity} {check} with {words:?}: {:#}", self.json);
        let is_wrong = ["warning", "error"].iter().any(|severity| !self.all(severity).is_empty());
        assert_eq!(self.status, Some(i32::from(is_wrong)), "{:#}", self.json);
        self
    }

    /// Expects nothing to be wrong.
    #[track_caller]
    fn is_well(&self) -> &Self {
        assert_eq!(self.status, Some(0), "{:#}", self.json);
        assert!(self.all("warning").is_empty() && self.all("error").is_empty(), "{:#}", self.json);
        self
    }
}

/// Doctor with the scene's settings, answered in time.
#[track_caller]
fn doctor(scene: &Scene) -> Report {
    Report::answered(|| scene.tool(&["doctor"]))
}

/// A scene in which nothing is wrong.
fn healthy() -> Scene {
    let scene = Scene::new(1);
    scene.set_topics_as_created();
    scene
}

#[test]
fn a_healthy_setup_is_well_and_says_what_was_looked_at() {
    let scene = healthy();
    let report = doctor(&scene);
    report.is_well();
    for check in [
        "database.connection",
        "database.version",
        "database.settings",
        "database.isolation",
        "database.standbys",
        "database.connections",
        "database.clock",
        "database.permissions",
        "database.locks",
        "database.migrations",
        "database.writable",
        "ledger.group",
        "ledger.holds",
        "ledger.positions",
        "kafka.connection",
        "kafka.topics",
        "kafka.replication",
        "kafka.brokers",
        "kafka.partitions",
        "kafka.partitioner",
        "kafka.compaction",
        "kafka.sizes",
        "kafka.permissions",
        "kafka.group",
        "kafka.second_group",
        "kafka.retention",
        "kafka.release",
        "kafka.transactions",
        "kafka.offsets",
        "kafka.transactional_id",
    ] {
        report.finds("ok", check, &[]);
    }
    report.finds("ok", "kafka.release", &["Kafka 4.2"]);
    let output = scene.tool(&["doctor"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("ok        PostgreSQL ") && text.contains("0 errors, 0 warnings"), "{text}");
}

#[test]
fn what_cannot_be_done_has_a_status_of_its_own() {
    let mut without = crate::support::process::program();
    let output = without.arg("doctor").output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && log.contains("--database-url"), "{log}");
}
