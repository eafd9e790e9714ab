//! What the documents show is what the program does.

mod formats;
mod links;

use std::collections::BTreeSet;
use std::process::Command;

use stock_verifier::event::schema::documents;
use stock_verifier::event::types::COMMAND_TYPES;

use crate::support::database::{Database, unique};
use crate::support::servers::Servers;

const README: &str = include_str!("../../README.md");
const CONTRIBUTING: &str = include_str!("../../CONTRIBUTING.md");
const MAKEFILE: &str = include_str!("../../Makefile");
const CONTRACT: &str = include_str!("../../docs/contract.md");
const FORMATS: &str = include_str!("../../docs/formats.md");

/// The lines of a document's code blocks in this language.
fn shown(document: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}");
    let mut inside = false;
    let lines = document.lines().filter(|line| {
        let was_inside = inside;
        inside = if inside { !line.starts_with("```") } else { **line == fence };
        was_inside && inside
    });
    lines.collect()
}

#[test]
fn every_event_shown_is_one_by_its_schema() {
    let (readme, contract) = (shown(README, "json"), shown(CONTRACT, "json"));
    assert!(readme.len() >= 3 && contract.len() >= 25, "{} and {} events", readme.len(), contract.len());
    for text in readme.into_iter().chain(contract) {
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
        shown(README, "sh").into_iter().filter_map(|line| line.strip_prefix("stock-verifier ")).collect();
    assert!(commands.len() >= 5, "the README shows {} commands", commands.len());
    let group = unique("readme");
    let topics = ["ORDERS", "ADJUSTMENTS", "ACCEPTED", "REJECTED", "LEVELS", "DEAD_LETTER"]
        .map(|topic| (format!("STOCK_VERIFIER_{topic}_TOPIC"), unique("readme")));
    for command in commands {
        let arguments = command.split('#').next().unwrap().split_whitespace();
        let mut process = Command::new(env!("CARGO_BIN_EXE_stock-verifier"));
        process
            .current_dir(folder.path())
            .args(arguments)
            .env("STOCK_VERIFIER_BROKERS", &servers.brokers)
            .env("STOCK_VERIFIER_DATABASE_URL", database.url())
            .env("STOCK_VERIFIER_GROUP", &group)
            .envs(topics.clone());
        if command.starts_with("run ") {
            // Runs until stopped, which other tests let it do: here only that it takes these arguments.
            process.arg("--help");
        }
        let output = process.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_contract_lists_every_command_every_reason_and_no_other() {
    let listed = |heading: &str| -> BTreeSet<&str> {
        let section = CONTRACT.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| row.split('`').next().expect("a word")).collect()
    };
    let commands: BTreeSet<&str> = listed("Orders").union(&listed("Stock")).copied().collect();
    assert_eq!(commands, COMMAND_TYPES.into_iter().collect());
    let schema = documents().into_iter().find(|document| document.name == "order.rejected").unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema.text).unwrap();
    let reasons = schema["$defs"]["Reason"]["oneOf"].as_array().unwrap();
    let reasons = reasons.iter().map(|reason| reason["properties"]["reason"]["const"].as_str().unwrap());
    assert_eq!(listed("Reasons"), reasons.collect());
}

#[test]
fn contributing_names_every_target_of_the_makefile_and_no_other() {
    let named: BTreeSet<&str> = shown(CONTRIBUTING, "sh")
        .into_iter()
        .filter_map(|line| line.strip_prefix("make ")?.split_whitespace().next())
        .collect();
    let there: BTreeSet<&str> = MAKEFILE
        .lines()
        .filter(|line| line.contains("## ") && line.starts_with(|first: char| first.is_ascii_lowercase()))
        .map(|line| line.split(':').next().unwrap())
        .filter(|target| *target != "help")
        .collect();
    assert!(there.len() >= 12, "{there:?}");
    assert_eq!(named, there);
    for target in there {
        // Only shows what it would run. Refused where the target is not there.
        let output = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--dry-run", target])
            .output()
            .unwrap();
        assert!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
        let phony = MAKEFILE.lines().find(|line| line.starts_with(".PHONY:")).unwrap();
        assert!(phony.split_whitespace().any(|word| word == target), "{target} is not in .PHONY");
    }
}
