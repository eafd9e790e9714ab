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
        &["stock", "limits", "MUG", "--json"],
        &["stock", "watch", "MUG"],
        &["stock", "watch", "MUG", "--json"],
        &["audit"],
        &["audit", "--json"],
        &["schema"],
        &["schema", "--list"],
        &["schema", "--list", "--json"],
        &["completions", "bash"],
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
    ends_quietly(1, on_a_file(folder.path(), &["stock", "watch", "NOBODY"]));
    ends_quietly(1, on_a_file(folder.path(), &["orders", "show", "o-1"]));
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

/// What a command writes to a terminal, with these variables besides.
fn on_a_terminal(folder: &Path, words: &str, variables: &[(&str, &str)]) -> String {
    // `script` gives it a terminal of its own, for what it prints and for what it says.
    let mut command = Command::new("script");
    let program = env!("CARGO_BIN_EXE_stock-verifier");
    command
        .args(["-qec", &format!("{program} {words}"), "/dev/null"])
        .current_dir(folder)
        .stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command.env("STOCK_VERIFIER_DATABASE_URL", "sqlite://ledger.db").envs(variables.iter().copied());
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let import = folder.path().join("stock.csv");
    // Long enough for a bar, whose lines are moved over and never coloured.
    let rows: Vec<_> = (0..100_001).map(|number| format!("SKU-{number},5")).collect();
    std::fs::write(&import, format!("sku,available\n{}", rows.join("\n"))).unwrap();
    // A colour or another look: ESC [ … m.
    let coloured = |text: &str| {
        let mut parts = text.split("\u{1b}[").skip(1);
        parts.any(|part| {
            part.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';').starts_with('m')
        })
    };
    // The log, what clap says, help, a table, a bar.
    let commands =
        ["stock import stock.csv", "stock get NOBODY", "stock got", "run --help", "stock get SKU-1", "audit"];
    for words in commands {
        let plain = on_a_terminal(folder.path(), words, &[("NO_COLOR", "1")]);
        assert!(!plain.is_empty() && !coloured(&plain), "{words}: {plain:?}");
    }
    for words in ["stock get NOBODY", "stock got", "run --help"] {
        for variables in [&[][..], &[("NO_COLOR", "")]] {
            let text = on_a_terminal(folder.path(), words, variables);
            assert!(coloured(&text), "{words} {variables:?}: {text:?}");
        }
    }
}

#[test]
fn completions_name_every_command_for_every_shell() {
    for (shell, begins) in [
        ("bash", "_stock__verifier()"),
        ("zsh", "#compdef stock-verifier"),
        ("fish", "# Print an optspec"),
        ("powershell", "\nusing namespace"),
        ("elvish", "\nuse builtin;"),
    ] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.starts_with(begins), "{shell}: {}", script.lines().take(3).collect::<String>());
        for word in ["reprocess", "watch", "accept-data-loss", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(program().args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
    // Bash itself reads it, and completes by it.
    let script = "source <(\"$PROGRAM\" completions bash)
        COMP_WORDS=(stock-verifier stock wa) COMP_CWORD=2 COMP_LINE='stock-verifier stock wa'
        _stock__verifier stock-verifier wa stock; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["--norc", "-c", script])
        .env("PROGRAM", env!("CARGO_BIN_EXE_stock-verifier"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "watch", "{output:?}");
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
