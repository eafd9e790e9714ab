//! `stock watch`: the program follows a level on SQLite and PostgreSQL.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::on_every_database;
use crate::support::process::program;
use crate::support::{TestDatabase, batch, order, received, records, set};

on_every_database![
    a_level_is_followed_with_what_moved_it_at_every_location,
    one_location_is_followed_alone,
    of_many_changes_at_once_the_newest_are_shown_and_the_others_are_counted,
    an_unknown_sku_is_refused_with_what_to_do,
];

/// Longest wait for a line, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A program that follows a level. Killed when dropped.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

fn command(database: &TestDatabase, words: &[&str]) -> Command {
    let mut command = program();
    command.args(["stock", "watch", "--interval", "100ms"]).args(words);
    command.env("STOCK_VERIFIER_DATABASE_URL", database.url());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Watch {
    fn start(database: &TestDatabase, words: &[&str]) -> Self {
        let mut child = command(database, words).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines() {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(SOON).expect("a line")
    }

    #[track_caller]
    fn next_json(&self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    /// Ctrl-C: what it says and its exit status.
    fn interrupt(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_level_is_followed_with_what_moved_it_at_every_location(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT", 5, None)])).await.unwrap();
    let (json_lines, text_lines) =
        (Watch::start(&database, &["MUG", "--json"]), Watch::start(&database, &["MUG"]));
    let level = json_lines.next_json();
    assert_eq!(
        (&level["sku"], &level["available"], &level["version"]),
        (&json!("MUG"), &json!(10), &json!(1))
    );
    let text = text_lines.next();
    assert!(text.ends_with("MUG: 10 available, version 1"), "{text}");

    store
        .apply(&records(2, 7, vec![order("o-1", &[("MUG", 3), ("HAT", 1)]), order("o-2", &[("HAT", 1)])]))
        .await
        .unwrap();
    let moved = json_lines.next_json();
    assert!(moved["decided_at"].is_string(), "{moved}");
    assert_eq!(
        [
            &moved["sku"],
            &moved["quantity"],
            &moved["balance"],
            &moved["version"],
            &moved["cause"],
            &moved["source"]
        ],
        [
            &json!("MUG"),
            &json!(-3),
            &json!(7),
            &json!(2),
            &json!({"type": "order.created", "id": "o-1"}),
            &json!({"topic": "orders", "partition": 2, "offset": 7})
        ]
    );
    let text = text_lines.next();
    assert!(text.ends_with("MUG: -3 to 7, version 2  order.created o-1  orders[2]@7"), "{text}");

    // A location that is new comes in too.
    store.apply(&batch(vec![received("a-3", "MUG@BERLIN", 4)])).await.unwrap();
    let moved = json_lines.next_json();
    assert_eq!((&moved["location"], &moved["balance"]), (&json!("BERLIN"), &json!(4)), "{moved}");
    assert!(text_lines.next().contains("MUG at BERLIN: +4 to 4, version 1  adjustment a-3"));
    assert_eq!((json_lines.interrupt(), text_lines.interrupt()), (Some(0), Some(0)));
}

async fn one_location_is_followed_alone(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "MUG@BERLIN", 5, None)])).await.unwrap();
    let watch = Watch::start(&database, &["MUG", "--location", "BERLIN", "--json"]);
    assert_eq!(watch.next_json()["location"], "BERLIN");
    store
        .apply(&records(0, 0, vec![order("o-1", &[("MUG", 1)]), order("o-2", &[("MUG@BERLIN", 1)])]))
        .await
        .unwrap();
    let moved = watch.next_json();
    assert_eq!(moved["cause"]["id"], "o-2", "what moved elsewhere is not shown: {moved}");
    assert_eq!(watch.interrupt(), Some(0));
}

async fn of_many_changes_at_once_the_newest_are_shown_and_the_others_are_counted(
    database: Arc<TestDatabase>,
) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10_000, None)])).await.unwrap();
    let watch = Watch::start(&database, &["MUG", "--json"]);
    assert_eq!(watch.next_json()["version"], 1);
    // In one transaction, so that one look finds all of them.
    let many = (0..1_300).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
    store.apply(&records(0, 0, many)).await.unwrap();
    assert_eq!(watch.next_json(), json!({"sku": "MUG", "skipped": 300}));
    for version in 302..=1_301 {
        let moved = watch.next_json();
        assert_eq!(
            (&moved["version"], &moved["balance"]),
            (&json!(version), &json!(10_001 - version)),
            "{moved}"
        );
    }
    assert_eq!(watch.interrupt(), Some(0));
}

async fn an_unknown_sku_is_refused_with_what_to_do(database: Arc<TestDatabase>) {
    database.ledger().await;
    let mut watch = Watch::start(&database, &["MUG", "--location", "BERLIN"]);
    let status = watch.child.wait().unwrap();
    let mut said = String::new();
    watch.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("no stock of MUG at BERLIN was ever recorded: `stock-verifier stock get` lists"),
        "{said}"
    );
    let output = command(&database, &["MUG", "--interval", "1ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
