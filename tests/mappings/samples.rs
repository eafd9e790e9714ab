//! What the built-in mappings make of samples: each line of NAME/input.jsonl comes to that of NAME/output.jsonl.

use std::fs;
use std::path::{Path, PathBuf};

use stock_verifier::mapping::PRESETS;

use crate::support::process::program;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mappings").join(name)
}

/// Exit status, and the lines of `mapping test --json` without the names of the records.
fn tested(words: &[&str]) -> (i32, Vec<String>) {
    let output =
        program().args(["mapping", "test", "--json"]).args(words).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let without_name = |line: &str| {
        let (start, rest) = line.split_once("\"record\":\"").expect("a record's name");
        let (_, rest) = rest.split_once("\",").expect("the end of its name");
        format!("{start}{rest}")
    };
    (output.status.code().unwrap_or_else(|| panic!("{said}")), lines.lines().map(without_name).collect())
}

#[test]
fn each_sample_comes_to_what_stands_beside_it() {
    for preset in PRESETS {
        let folder = folder(preset.name);
        let (input, output) = (folder.join("input.jsonl"), folder.join("output.jsonl"));
        let mapping = format!("preset:{}", preset.name);
        let (_, lines) = tested(&["--mapping", &mapping, input.to_str().unwrap()]);
        let expected = fs::read_to_string(&output).unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(lines.len(), fs::read_to_string(&input).unwrap().lines().count(), "{}", preset.name);
        for (number, (line, expected)) in lines.iter().zip(&expected).enumerate() {
            assert_eq!(line, expected, "{}, line {}", preset.name, number + 1);
        }
        assert_eq!(lines.len(), expected.len(), "{}", preset.name);
        // Good ones, ignored ones and bad ones, each of which the samples must have.
        for outcome in ["command", "ignored", "dead_letter"] {
            let outcome = format!("\"outcome\":\"{outcome}\"");
            assert!(
                preset.name == "dapr" || lines.iter().any(|line| line.contains(&outcome)),
                "{} has no {outcome}",
                preset.name
            );
        }
    }
}

#[test]
fn two_shops_in_one_topic_have_ids_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orders.jsonl");
    let order = |shop: &str| {
        format!(
            r#"{{"topic":"orders","headers":["X-Shopify-Topic","orders/cancelled","X-Shopify-Shop-Domain","{shop}"],"payload":{{"id":1001,"line_items":[]}}}}"#
        )
    };
    let nobodys = r#"{"id":1001,"line_items":[],"cancelled_at":"2026-01-02T03:04:05Z"}"#;
    fs::write(&file, format!("{}\n{}\n\n{nobodys}\n", order("mugs.example"), order("hats.example"))).unwrap();
    let (status, lines) = tested(&["--mapping", "preset:shopify?id={shop}-{id}", file.to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(lines[0].contains("\"command\":\"order.cancelled/mugs.example-1001\""), "{}", lines[0]);
    assert!(lines[1].contains("\"command\":\"order.cancelled/hats.example-1001\""), "{}", lines[1]);
    assert!(lines[2].contains("nothing says which shop this is of"), "{}", lines[2]);
    let (status, lines) = tested(&["--mapping", "preset:shopify", file.to_str().unwrap()]);
    assert_eq!(status, 0);
    assert!(lines.iter().all(|line| line.contains("\"command\":\"order.cancelled/1001\"")), "{lines:?}");
}

#[test]
fn what_follows_the_orders_of_two_shops_and_their_adjustments_have_ids_of_their_own_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orders.jsonl");
    // The same of each shop, and once of nobody's.
    let of_shops = |record: &dyn Fn(&str) -> String| {
        let records = [r#","shop":"mugs""#, r#","shop":"hats""#, ""].map(record).join("\n");
        fs::write(&file, records + "\n").unwrap();
    };
    let commands = |preset: &str| {
        let (status, lines) =
            tested(&["--mapping", &format!("preset:{preset}?id={{shop}}-{{id}}"), file.to_str().unwrap()]);
        assert_eq!(status, 1, "{lines:?}");
        lines
    };
    for (kind, fields, id) in [
        (
            "order.returned",
            r#""return_id":"r-1","lines":[{"sku":"MUG","quantity":1}]"#,
            "order.returned/SHOP-r-1",
        ),
        ("order.confirmed", r#""confirmation_id":"c-1""#, "order.confirmed/SHOP-c-1"),
        ("order.confirmed", r#""confirmation_id":null"#, "order.confirmed/SHOP-o-1"),
        ("order.hold_extended", r#""extension_id":"e-1","hold_seconds":60"#, "order.hold_extended/SHOP-e-1"),
        ("stock.received", r#""adjustment_id":7,"sku":"MUG","quantity":1"#, "adjustment/SHOP-7"),
    ] {
        let data = |shop: &str| {
            let order = if kind.starts_with("order.") { r#""order_id":"o-1","# } else { "" };
            format!("{{{order}{fields}{shop}}}")
        };
        of_shops(&|shop: &str| {
            format!(
                r#"{{"topic":"orders","payload":{{"specversion":"1.0","id":"1","source":"shop","type":"{kind}","data":{}}}}}"#,
                data(shop)
            )
        });
        let by_dapr = commands("dapr");
        of_shops(&|shop: &str| {
            format!(r#"{{"topic":"orders","headers":["eventType","{kind}"],"payload":{}}}"#, data(shop))
        });
        for lines in [by_dapr, commands("debezium-outbox")] {
            for (line, shop) in lines.iter().zip(["mugs", "hats"]) {
                let command = format!("\"command\":\"{}\"", id.replace("SHOP", shop));
                assert!(line.contains(&command), "{command} is not in {line}");
            }
            assert!(lines[2].contains("nothing says which shop this is of"), "{}", lines[2]);
        }
    }
}

#[test]
fn a_program_of_ones_own_is_tested_as_a_table_and_refused_with_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good.jq"), directory.path().join("bad.jq"));
    let records = directory.path().join("records.jsonl");
    fs::write(&good, "if .n == 0 then empty else {type: \"order.created\", order_id: .id, lines: [{sku: .sku, quantity: .n}]} end")
        .unwrap();
    fs::write(&bad, "# one line\n{type: \"order.created\", order_id: oder(.id)}").unwrap();
    fs::write(&records, "{\"id\":\"o-1\",\"sku\":\"MUG\",\"n\":2}\n{\"n\":0}\n{\"id\":\"o-2\",\"sku\":\"MUG\",\"n\":0.5}\n{\"id\":\"o-3\"\n")
        .unwrap();
    let run = |mapping: &Path, more: &[&str]| {
        let mut command = program();
        command.args(["mapping", "test", "--mapping"]).arg(mapping).arg(&records).args(more);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, table, _) = run(&good, &[]);
    assert_eq!(status, Some(1));
    for part in [
        "order.created/o-1",
        "ignored",
        "refused",
        "invalid_order",
        "not JSON",
        "4 records: 1 commands, 1 ignored, 2 ",
    ] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let (status, _, said) = run(&bad, &[]);
    assert_eq!(status, Some(2));
    assert!(said.contains("bad.jq:2:35: undefined filter oder"), "{said}");
    let (status, _, said) = run(Path::new("preset:shopfy"), &[]);
    assert_eq!(status, Some(2));
    assert!(said.contains("there is no built-in mapping \"shopfy\"; there are commercetools"), "{said}");
}

#[test]
fn the_built_in_mappings_are_listed_and_shown_as_programs_that_can_be_used() {
    let output = program().args(["mapping", "list"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for preset in PRESETS {
        assert!(list.contains(preset.name) && list.contains(preset.summary()), "{list}");
        assert!(preset.summary().len() > 20, "{}", preset.summary());
        let shown = program().args(["mapping", "show", preset.name]).output().unwrap();
        let file = directory.path().join("shown.jq");
        fs::write(&file, &shown.stdout).unwrap();
        assert!(
            String::from_utf8(shown.stdout).unwrap().contains("https://"),
            "{} names its source",
            preset.name
        );
        let input = folder(preset.name).join("input.jsonl");
        let by = |mapping: &str| tested(&["--mapping", mapping, input.to_str().unwrap()]);
        assert_eq!(by(file.to_str().unwrap()), by(&format!("preset:{}", preset.name)));
    }
}
