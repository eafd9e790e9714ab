//! What docs/formats.md shows is read as it says.

use std::fs;

use stock_verifier::event::{Header, Reading, Record, read_command};
use stock_verifier::ledger::{Command, Offset, Source, TopicPartition};
use stock_verifier::mapping::{Mapping, PRESETS};

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

/// A record as `kcat -J` prints it.
fn printed(text: &str) -> Record {
    let printed: serde_json::Value = serde_json::from_str(text).unwrap();
    let headers = printed["headers"].as_array().cloned().unwrap_or_default();
    let header = |pair: &[serde_json::Value]| Header {
        name: pair[0].as_str().unwrap().to_owned(),
        value: Some(pair[1].as_str().unwrap().as_bytes().to_vec()),
    };
    Record {
        source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: printed["key"].as_str().map(|key| key.as_bytes().to_vec()),
        value: Some(printed["payload"].to_string().into_bytes()),
        headers: headers.chunks(2).map(header).collect(),
        timestamp_ms: None,
        decoded: None,
    }
}

#[test]
fn each_recipe_makes_the_command_below_it_and_passes_over_what_is_of_another_kind() {
    let blocks = blocks("Recipes");
    let recipes = blocks.chunks(3);
    assert_eq!(recipes.len(), 6);
    for recipe in recipes {
        let [
            Block { text: record, language: "json" },
            Block { text: program, language: "jq" },
            Block { text: command, .. },
        ] = recipe
        else {
            panic!("a record, a program and a command")
        };
        let mapping =
            Mapping::compile("docs/formats.md", program).unwrap_or_else(|error| panic!("{error}\n{program}"));
        let made = stock_verifier::event::read_record(&printed(record), Some(&mapping));
        assert_eq!(made, Reading::Command(read(command.trim())), "{program}");
        let other = record.replace("Placed", "Paid").replace("OrderSubmitted", "OrderPaid");
        let other =
            other.replace("OrderCreatedEvent", "OrderPaidEvent").replace("order_created", "order_paid");
        let other = other.replace("Unshipped", "Shipped").replace("\"orderCreated\"", "\"orderPaid\"");
        assert_ne!(&other, record, "{program}");
        let made = stock_verifier::event::read_record(&printed(&other), Some(&mapping));
        assert_eq!(made, Reading::Ignored, "{program}");
    }
}

#[test]
fn the_commands_about_mappings_are_taken_and_the_built_in_ones_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let order = r#"{"type":"order.created","order_id":"o-1","lines":[{"sku":"MUG","quantity":2}]}"#;
    fs::write(folder.path().join("orders.jsonl"), order).unwrap();
    fs::write(folder.path().join("shop.jq"), ".").unwrap();
    let mut commands = 0;
    for Block { text, .. } in blocks("Mappings") {
        for line in text.lines() {
            let mut command = program();
            command.current_dir(folder.path()).args(line.split_whitespace().skip(1));
            if !line.contains("orders.jsonl") {
                // Runs on servers, which other tests let it do: here only that it takes these arguments.
                command.arg("--help");
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            commands += 1;
        }
    }
    assert_eq!(commands, 4);
    let section = FORMATS.split("\n## ").find(|section| section.starts_with("Mappings")).unwrap();
    let named: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for preset in PRESETS {
        assert!(named.contains(&preset.name), "{} is not in the table", preset.name);
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
