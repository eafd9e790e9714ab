//! What docs/formats.md shows is read as it says.

use std::fs;

use stock_verifier::event::{Record, read_command};
use stock_verifier::ledger::{Command, Offset, Source, TopicPartition};

use super::FORMATS;
use crate::support::process::program;

/// A code block, and its language.
struct Block {
    language: &'static str,
    text: &'static str,
}

/// The code blocks of a section, in their order.
fn blocks(heading: &str) -> Vec<Block> {
    let section = FORMATS.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let parts = section.split("```").skip(1).step_by(2);
    parts
        .map(|part| {
            let (language, text) = part.split_once('\n').expect("a block of more than one line");
            Block { language, text }
        })
        .collect()
}

fn read(value: &str) -> Command {
    let record = Record {
        source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: None,
        decoded: None,
    };
    // What an earlier version made of it is not what it says.
    Command { refused_as: None, ..read_command(&record).unwrap_or_else(|fault| panic!("{value}: {fault}")) }
}

#[test]
fn the_lines_of_a_block_are_one_command() {
    let blocks: Vec<Block> = ["Numbers", "Wrappings"].into_iter().flat_map(blocks).collect();
    assert!(blocks.len() >= 3);
    for Block { text, .. } in blocks {
        let mut lines = text.lines();
        let plain = read(lines.next().expect("a command"));
        let mut others = 0;
        for line in lines {
            assert_eq!(read(line), plain, "{line}");
            others += 1;
        }
        assert!(others > 0, "nothing beside {plain:?}");
    }
}

#[test]
fn the_feeds_are_imported_by_the_commands_below_them() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("sqlite://{}", folder.path().join("ledger.db").display());
    let (mut feed, mut commands) = ("", 0);
    for Block { language, text } in blocks("Stock feeds") {
        if language != "sh" {
            feed = text;
            continue;
        }
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            fs::write(folder.path().join(words[2]), feed).unwrap();
            let mut command = program();
            command.current_dir(folder.path()).args(&words).env("STOCK_VERIFIER_DATABASE_URL", &ledger);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            commands += 1;
        }
    }
    assert!(commands >= 4);
    let output = program().args(["stock", "--database-url", &ledger, "get", "--json"]).output().unwrap();
    let levels: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let available = |sku: &str| {
        levels.as_array().unwrap().iter().find(|level| level["sku"] == sku).unwrap()["available"].clone()
    };
    assert_eq!(
        ["MUG", "TSHIRT-M", "0042", "HAT"].map(available),
        [618, 40, 1250, 12].map(serde_json::Value::from)
    );
}
