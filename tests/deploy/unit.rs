//! The systemd units.

use std::fs;
use std::process::Command;

use crate::support::postgres::with_lib;

const VERIFIER: &str = include_str!("../../deploy/systemd/stock-verifier.service");
const GATE: &str = include_str!("../../deploy/systemd/stock-verifier-gate.service");
const UNITS: [(&str, &str); 2] =
    [("stock-verifier.service", VERIFIER), ("stock-verifier-gate.service", GATE)];
/// Where the units have the program.
const INSTALLED: &str = "/usr/local/bin/stock-verifier";
/// The most exposure, in tenths, that `systemd-analyze security` may find: it calls up to 2.0 fine.
const MOST_EXPOSURE: &str = "15";
/// With this begins what a unit says of how its process is shut in.
const SHUT_IN_FROM: &str = "DynamicUser=yes";

/// What a unit sets this to.
fn value<'a>(unit: &'a str, name: &str) -> &'a str {
    let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
#[ignore = "needs systemd: tests/run --all"]
fn systemd_takes_the_units_and_finds_little_that_they_could_do_harm_with() {
    with_lib("ensure systemd >&2");
    let directory = tempfile::tempdir().expect("a directory");
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    for (name, text) in UNITS {
        let unit = directory.path().join(name);
        assert!(text.contains(INSTALLED));
        fs::write(&unit, text.replace(INSTALLED, env!("CARGO_BIN_EXE_stock-verifier"))).expect("written");
        for words in [&["verify", "--man=no"][..], &["security", "--offline=true", "--no-pager", &threshold]]
        {
            let done = Command::new("systemd-analyze").args(words).arg(&unit).output().expect("it runs");
            let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{name}: {words:?}: {said}");
            // An unknown setting is only a warning.
            assert!(
                !said.contains("Unknown") && !said.contains("Failed to parse"),
                "{name}: {words:?}: {said}"
            );
        }
    }
}

#[test]
fn each_unit_waits_longer_than_its_process_and_knows_its_exit_statuses() {
    // A verifier's, and a gate's.
    let stops: Vec<&str> = super::SETTINGS.lines().filter(|line| line.contains("`--stop-timeout")).collect();
    assert_eq!(stops.len(), UNITS.len(), "{stops:?}");
    assert!(stops.iter().all(|line| line.contains("| `10s` |")), "{stops:?}");
    for (name, unit) in UNITS {
        assert_eq!(value(unit, "TimeoutStopSec"), "20s", "{name}");
        assert_eq!(value(unit, "SuccessExitStatus"), "75", "{name}");
    }
    assert_eq!(value(VERIFIER, "RestartPreventExitStatus"), "3");
    // A gate has no partition that could be stopped.
    assert!(!GATE.contains("RestartPreventExitStatus"));
}

#[test]
fn a_gate_is_shut_in_as_a_verifier_is() {
    let shut_in = |unit: &'static str| {
        let (_, from) = unit.split_once(SHUT_IN_FROM).expect("it is shut in");
        from.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    assert_eq!(shut_in(GATE), shut_in(VERIFIER));
    assert!(shut_in(GATE).len() > 20);
}

#[test]
fn each_unit_names_a_command_and_variables_that_it_has() {
    for ((name, unit), command) in UNITS.into_iter().zip(["run", "gate"]) {
        let words: Vec<&str> = value(unit, "ExecStart").split_whitespace().collect();
        assert_eq!(words[..3], [INSTALLED, command, "--config"], "{name}");
        let (variable, _) = value(unit, "Environment").split_once('=').expect("a variable");
        assert!(super::variables_of(command).contains(variable), "{name}: {variable}");
        // What it names is loaded, from where the steps at the top put it.
        let (_, credential) = value(unit, "Environment").split_once("=%d/").expect("a credential");
        let (loaded, file) = value(unit, "LoadCredential").split_once(':').expect("a file");
        assert_eq!(loaded, credential, "{name}");
        for installed in [file, words[3]] {
            let step = unit.lines().find(|line| line.starts_with("#   install") && line.ends_with(installed));
            assert!(step.is_some(), "{name}: {installed} is installed by no step");
        }
    }
}
