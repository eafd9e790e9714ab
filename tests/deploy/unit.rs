//! The systemd unit.

use std::fs;
use std::process::Command;

use crate::support::postgres::with_lib;

const UNIT: &str = include_str!("../../deploy/systemd/stock-verifier.service");
/// Where the unit has the program.
const INSTALLED: &str = "/usr/local/bin/stock-verifier";
/// The most exposure, in tenths, that `systemd-analyze security` may find: it calls up to 2.0 fine.
const MOST_EXPOSURE: &str = "15";

#[test]
#[ignore = "needs systemd: tests/run --all"]
fn systemd_takes_the_unit_and_finds_little_that_it_could_do_harm_with() {
    with_lib("ensure systemd >&2");
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("stock-verifier.service");
    assert!(UNIT.contains(INSTALLED));
    fs::write(&unit, UNIT.replace(INSTALLED, env!("CARGO_BIN_EXE_stock-verifier"))).expect("written");
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    for words in [&["verify", "--man=no"][..], &["security", "--offline=true", "--no-pager", &threshold]] {
        let done = Command::new("systemd-analyze").args(words).arg(&unit).output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {said}");
        // An unknown setting is only a warning.
        assert!(!said.contains("Unknown") && !said.contains("Failed to parse"), "{words:?}: {said}");
    }
}

#[test]
fn the_unit_waits_longer_than_the_verifier_and_knows_its_exit_statuses() {
    let value = |name: &str| {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name}"))
    };
    let page = include_str!("../../docs/configuration.md");
    let stops = page.lines().find(|line| line.contains("`--stop-timeout")).expect("the flag");
    assert!(stops.contains("| `10s` |"), "{stops}");
    assert_eq!(value("TimeoutStopSec"), "20s");
    assert_eq!((value("SuccessExitStatus"), value("RestartPreventExitStatus")), ("75", "3"));
}
