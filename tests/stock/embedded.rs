//! Which commands may create a ledger in a SQLite file, and what the others say.

use std::path::Path;
use std::process::Command;

use crate::support::process::program;
use crate::support::servers::wait_for;
use crate::support::{TestDatabase, batch, set};

/// Commands that only read, and those that write to a ledger that is there.
const MAKE_NONE: [&[&str]; 17] = [
    &["audit"],
    &["audit", "--json"],
    &["audit", "--repair"],
    &["stock", "get"],
    &["stock", "watch", "MUG"],
    &["orders", "show", "o-1"],
    &["stock", "export"],
    &["stock", "receive", "MUG", "1"],
    &["stock", "adjust", "MUG", "-1"],
    &["stock", "set", "MUG", "1"],
    &["stock", "limits", "MUG"],
    &["replay", "diff"],
    &["replay", "republish", "--execute"],
    &["replay", "reprocess", "--execute"],
    &["replay", "rebuild", "--into", "sqlite://new.db"],
    &["replay", "simulate", "--levels", "stock.csv"],
    // Nothing answers at the brokers' usual address: the ledger comes first.
    &["run"],
];

/// Runs the program in this folder on the ledger of this name: its exit status, and what it says on stderr.
fn run(folder: &Path, words: &[&str], ledger: &str) -> (Option<i32>, String) {
    let output = command(folder, words, ledger).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn command(folder: &Path, words: &[&str], ledger: &str) -> Command {
    let mut command = program();
    command.current_dir(folder).args(words).env("STOCK_VERIFIER_DATABASE_URL", format!("sqlite://{ledger}"));
    command.env("STOCK_VERIFIER_BROKERS", "127.0.0.1:1");
    command
}

/// What is in a folder, without the two files that SQLite keeps beside a ledger: they may stay for a moment after all have
/// closed it.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".db-wal") && !name.ends_with(".db-shm"));
    names.sort();
    names
}

/// A folder with a list of levels, and nothing else.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stock.csv"), "sku,available\nMUG,7\n").unwrap();
    folder
}

#[test]
fn a_mistyped_path_is_an_error_that_names_it_and_nothing_is_created() {
    let folder = folder();
    for words in MAKE_NONE {
        let (status, log) = run(folder.path(), words, "typo.db");
        let expected = if matches!(words[0], "audit" | "replay") { 2 } else { 1 };
        assert_eq!(status, Some(expected), "{words:?}: {log}");
        let typo = folder.path().join("typo.db").display().to_string();
        assert!(log.contains(&format!("there is no ledger at {typo}")), "{words:?}: {log}");
        assert!(log.contains("stock-verifier migrate"), "{words:?}: {log}");
        assert_eq!(names(folder.path()), ["stock.csv"], "{words:?}");
    }
}

#[test]
fn a_file_without_a_ledger_is_left_as_it_is() {
    let folder = folder();
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    for words in MAKE_NONE {
        let (status, log) = run(folder.path(), words, "empty.db");
        assert_ne!(status, Some(0), "{words:?}: {log}");
        assert!(log.contains("empty.db: the database has no stock ledger yet"), "{words:?}: {log}");
    }
    std::fs::write(folder.path().join("text.db"), "This is no database, but a text.\n".repeat(99)).unwrap();
    let (status, log) = run(folder.path(), &["audit"], "text.db");
    assert_eq!(status, Some(2), "{log}");
    assert!(log.contains("text.db") && log.contains("not a database"), "{log}");
}

#[test]
fn what_may_create_a_ledger_says_that_it_did() {
    for words in [&["migrate"][..], &["stock", "import", "stock.csv"], &["run", "--migrate"]] {
        let folder = folder();
        let said = format!("created the ledger {}", folder.path().join("new.db").display());
        let (_, log) = run(folder.path(), words, "new.db");
        assert!(log.contains(&said), "{words:?}: {log}");
        // Once.
        let (status, log) = run(folder.path(), &["migrate"], "new.db");
        assert!(status == Some(0) && !log.contains("created"), "{words:?}: {log}");
        let (status, log) = run(folder.path(), &["audit"], "new.db");
        assert_eq!(status, Some(0), "{words:?}: {log}");
    }
}

#[test]
fn a_dry_run_of_an_import_creates_no_ledger() {
    let folder = folder();
    let words = ["stock", "import", "stock.csv", "--dry-run"];
    let output = command(folder.path(), &words, "new.db").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("There is no ledger yet: an import creates it.\n"), "{text}");
    assert!(text.contains("1 of items that are not known yet"), "{text}");
    assert_eq!(names(folder.path()), ["stock.csv"]);
}

#[test]
fn an_outdated_ledger_is_updated_only_by_who_was_asked_to() {
    let database = TestDatabase::sqlite();
    wait_for(async {
        database.ledger().await.close().await;
        database.execute("DELETE FROM _sqlx_migrations WHERE version > 1").await;
    });
    let TestDatabase::Sqlite { folder } = &database else { unreachable!("it is a file") };
    std::fs::write(folder.path().join("stock.csv"), "sku,available\nMUG,7\n").unwrap();
    let file = folder.path().join("ledger.db");
    let before = std::fs::read(&file).unwrap();
    for words in MAKE_NONE.into_iter().chain([&["stock", "import", "stock.csv"][..]]) {
        let (status, log) = run(folder.path(), words, "ledger.db");
        assert_ne!(status, Some(0), "{words:?}: {log}");
        assert!(log.contains("ledger.db: the stock ledger is at version 1"), "{words:?}: {log}");
        assert!(log.contains("run `stock-verifier migrate`"), "{words:?}: {log}");
        assert_eq!(names(folder.path()), ["ledger.db", "stock.csv"], "{words:?}");
        assert!(std::fs::read(&file).unwrap() == before, "{words:?} changed the file");
    }
}

#[test]
fn reading_leaves_the_ledger_as_it_was() {
    let database = TestDatabase::sqlite();
    wait_for(async {
        let store = database.ledger().await;
        store.apply(&batch(vec![set("a-1", "MUG", 7, None)])).await.unwrap();
        store.close().await;
        // As a copy that another tool made may be. Who writes makes it a log again, who reads does not.
        database.execute("PRAGMA journal_mode = DELETE").await;
    });
    let TestDatabase::Sqlite { folder } = &database else { unreachable!("it is a file") };
    let file = folder.path().join("ledger.db");
    let before = std::fs::read(&file).unwrap();
    for words in [&["audit"][..], &["stock", "get"]] {
        let (status, log) = run(folder.path(), words, "ledger.db");
        assert_eq!(status, Some(0), "{words:?}: {log}");
        assert_eq!(names(folder.path()), ["ledger.db"], "{words:?}");
        assert!(std::fs::read(&file).unwrap() == before, "{words:?} changed the file");
    }
    let (status, log) = run(folder.path(), &["stock", "set", "MUG", "8"], "ledger.db");
    assert_eq!(status, Some(0), "{log}");
    let (status, log) = run(folder.path(), &["audit"], "ledger.db");
    assert_eq!((status, names(folder.path())), (Some(0), vec!["ledger.db".to_owned()]), "{log}");
}
