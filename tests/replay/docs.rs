//! Every command of docs/replay.md does what it says.

use std::time::Duration;

use crate::replay::{lived, run};
use crate::support::kafka::order;
use crate::support::process::Verifier;

/// Longest wait for a verifier to begin.
const LIMIT: Duration = Duration::from_secs(60);

const RUNBOOK: &str = include_str!("../../docs/replay.md");

#[test]
fn every_command_of_the_runbook_works() {
    let scene = lived(200);
    // The customer's, whose answer the runbook looks for.
    scene.produce(&[order("o-1001", &[("SKU-001", 1)])]);
    let verifier = scene.start("a", &[]);
    scene.done(LIMIT);
    verifier.stop();
    // Doctor would find something else.
    scene.set_topics_as_created();
    let again = scene.topic("again");
    scene.kafka.create(&again, 1);
    std::fs::write(scene.file("stock.csv"), "sku,available\nSKU-001,10\n").unwrap();
    std::fs::write(scene.file("patch.json"), r#"{"type":"order.created"}"#).unwrap();
    std::fs::write(scene.file("headers.json"), r#"{"ce_type":"order.created"}"#).unwrap();
    std::fs::write(scene.file("shop.jq"), ".").unwrap();
    let letters = scene.kafka.read(&scene.topic("dead"));
    let line = serde_json::json!({"record": letters[0].source.to_string(), "patch": {"order_id": "o-9"}});
    std::fs::write(scene.file("repairs.jsonl"), line.to_string()).unwrap();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in RUNBOOK.lines() {
        inside = if inside { line != "```" } else { line == "```sh" };
        if let Some(command) = line.strip_prefix("stock-verifier ").filter(|_| inside) {
            let command = command.split('#').next().unwrap().replace("stock.again", &again);
            commands.push(command.replace("--mapping orders=", &format!("--mapping {}=", scene.orders())));
        }
    }
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut process = scene.tool(&words);
        process.current_dir(scene.file("stock.csv").parent().unwrap());
        if words[0] == "run" {
            // It runs until it is stopped.
            let mut verifier = Verifier::start(process, &command, scene.file("runbook.log"));
            verifier.said("reading", LIMIT);
            verifier.stop();
            continue;
        }
        let (status, out, log) = run(process);
        assert_eq!(status, 0, "{command}\n{out}\n{log}");
    }
    assert!(scene.kafka.count(&again) > 200, "what was republished is there");
    scene.kafka.delete_if_there(&[&again]);
}
