//! Whoever reads what is printed may have seen enough: `stock get | head -2`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::process::program;
use crate::support::scene::Scene;

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Nobody reads what the command prints, and then not what it says either: it ends with this status all the same.
#[track_caller]
fn ends_quietly(status: i32, mut command: Command) {
    command.stdin(Stdio::null());
    let output = command.stdout(closed()).stderr(Stdio::piped()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!log.contains("panicked") && !log.contains("pipe"), "{command:?}: {log}");
    assert_eq!(output.status.code(), Some(status), "{command:?}: {log}");
    let ended = command.stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(ended.code(), Some(status), "{command:?}, with nobody to hear it either");
}

fn on_a_file(folder: &Path, words: &[&str]) -> Command {
    let mut command = program();
    command.current_dir(folder).args(words).env("STOCK_VERIFIER_DATABASE_URL", "sqlite://ledger.db");
    command
}

#[test]
fn a_command_ends_quietly_when_nobody_reads_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    let rows: Vec<_> = (0..9_000).map(|number| format!("SKU-{number},5")).collect();
    std::fs::write(folder.path().join("stock.csv"), format!("sku,available\n{}", rows.join("\n"))).unwrap();
    for words in [
        &["migrate"][..],
        &["stock", "import", "stock.csv", "--dry-run"],
        &["stock", "import", "stock.csv"],
        &["stock", "get"],
        &["stock", "get", "--json"],
        &["stock", "export"],
        &["stock", "set", "MUG", "1"],
        &["stock", "receive", "MUG", "1"],
        &["stock", "adjust", "MUG", "-1"],
        &["stock", "limits", "MUG"],
        &["audit"],
        &["audit", "--json"],
        &["schema"],
        &["schema", "--list"],
        &["settings"],
        &["--help"],
        &["run", "--help"],
        &["help", "replay"],
        &["--version"],
        &["demo", "--orders", "100"],
    ] {
        ends_quietly(0, on_a_file(folder.path(), words));
    }
    // What is wrong keeps its status.
    ends_quietly(1, on_a_file(folder.path(), &["stock", "get", "NOBODY"]));
    ends_quietly(2, on_a_file(folder.path(), &["stock", "got"]));
    ends_quietly(2, on_a_file(folder.path(), &["audit", "--database-url", "sqlite://nowhere.db"]));
}

#[test]
fn a_command_on_kafka_ends_quietly_when_nobody_reads_what_it_prints() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 5)]);
    let levels = scene.file("levels.csv");
    std::fs::write(&levels, "sku,available\nMUG,5\n").unwrap();
    let new = format!("sqlite://{}", scene.file("new.db").display());
    for words in [
        &["replay", "diff"][..],
        &["replay", "diff", "--json"],
        &["replay", "republish"],
        &["replay", "reprocess"],
        &["replay", "rebuild", "--into", &new],
        &["replay", "simulate", "--levels", levels.to_str().unwrap()],
        &["audit", "--topics"],
    ] {
        ends_quietly(0, scene.tool(words));
    }
    ends_quietly(0, scene.topics(&["topics", "create"]));
    // A dead letter may be larger than its topic takes.
    ends_quietly(1, scene.topics(&["topics", "check"]));
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for words in [["settings"], ["schema"]] {
        let output = program().args(words).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {log}");
        assert!(log.contains("cannot write to standard output: No space left"), "{words:?}: {log}");
    }
}
