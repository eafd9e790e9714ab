//! What the documents show is what the program does.

use std::process::Command;

use stock_verifier::event::schema::documents;

use crate::support::database::{Database, unique};
use crate::support::servers::Servers;

const README: &str = include_str!("../../README.md");

/// The lines of the README's code blocks in this language.
fn shown(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}");
    let mut inside = false;
    let lines = README.lines().filter(|line| {
        let was_inside = inside;
        inside = if inside { !line.starts_with("```") } else { **line == fence };
        was_inside && inside
    });
    lines.collect()
}

#[test]
fn every_event_in_the_readme_is_one_by_its_schema() {
    let events = shown("json");
    assert!(events.len() >= 3, "the README shows {} events", events.len());
    for text in events {
        let event: serde_json::Value = serde_json::from_str(text).unwrap();
        let kind = event["type"].as_str().unwrap();
        let document = documents().into_iter().find(|document| document.name == kind).unwrap();
        let schema = serde_json::from_str(&document.text).unwrap();
        if let Err(error) = jsonschema::validator_for(&schema).unwrap().validate(&event) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn every_command_in_the_readme_does_what_it_says() {
    let servers = Servers::shared();
    let database = Database::empty(&servers.database_url);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stock.csv"), "sku,available\nMUG,500\nTSHIRT-M,40\n").unwrap();
    let commands: Vec<&str> =
        shown("sh").into_iter().filter_map(|line| line.strip_prefix("stock-verifier ")).collect();
    assert!(commands.len() >= 5, "the README shows {} commands", commands.len());
    for command in commands {
        let arguments = command.split('#').next().unwrap().split_whitespace();
        let mut process = Command::new(env!("CARGO_BIN_EXE_stock-verifier"));
        process
            .current_dir(folder.path())
            .args(arguments)
            .env("STOCK_VERIFIER_BROKERS", &servers.brokers)
            .env("STOCK_VERIFIER_DATABASE_URL", database.url())
            .env("STOCK_VERIFIER_GROUP", unique("readme"));
        for topic in ["ORDERS", "ADJUSTMENTS", "ACCEPTED", "REJECTED", "LEVELS", "DEAD_LETTER"] {
            process.env(format!("STOCK_VERIFIER_{topic}_TOPIC"), unique("readme"));
        }
        if command.starts_with("run ") {
            // Runs until stopped, which other tests let it do: here only that it takes these arguments.
            process.arg("--help");
        }
        let output = process.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
