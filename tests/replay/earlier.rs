//! A ledger of the last version that refused `"quantity":"2"`, `2.0` and ids that are numbers: what it decided stands.
//!
//! The files beside were recorded from that version (fe864c8): the ledger it left, the records it read and all it published.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Row as _};

use super::run;
use crate::support::kafka::{Sent, header, sent};
use crate::support::scene::Scene;
use crate::support::servers::wait_for;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
/// Stands for the names of the topics in what was recorded.
const NAME: &str = "NAME";

/// What a shop sent: the partition, the key and the value of each.
fn orders() -> Vec<Sent> {
    let mug = |quantity: &str| format!(r#"[{{"sku":"MUG","quantity":{quantity}}}]"#);
    let created =
        |id: &str, lines: &str| format!(r#"{{"type":"order.created","order_id":{id},"lines":{lines}}}"#);
    let first = |key: &str, value: String| sent(key, value).to(0);
    let second = |key: &str, value: String| sent(key, value).to(1);
    vec![
        first("o-1", created("\"o-1\"", &mug("\"2\""))),
        first("o-2", created("\"o-2\"", r#"[{"sku":"MUG","quantity":2.0},{"sku":"MUG","quantity":1.5}]"#)),
        first("1003", created("1003", &mug("1"))),
        first("o-4", created("\"o-4\"", &mug("4"))),
        first(
            "o-4",
            format!(r#"{{"type":"order.returned","return_id":"r-1","order_id":"o-4","lines":{}}}"#, mug("\"1\"")),
        ),
        first("o-1", created("\"o-1\"", &mug("\"2\""))),
        first("o-1", created("\"o-1\"", &mug("2"))),
        second("o-5", r#"{"type":"order.created","order_id":"o-5","hold_seconds":"900","lines":[{"sku":"MUG","quantity":1}]}"#.to_owned()),
        second("o-6", format!("[{}]", created("\"o-6\"", &mug("1")))),
        second("o-7", format!(r#"{{"schema":{{}},"payload":{}}}"#, created("\"o-7\"", &mug("1")))),
        second("o-8", format!("\u{1}0123456789abcdef{}", created("\"o-8\"", &mug("1")))),
    ]
}

fn adjustments() -> Vec<Sent> {
    let received = |id: &str, quantity: &str| {
        sent(
            "MUG",
            format!(
                r#"{{"type":"stock.received","adjustment_id":"{id}","sku":"MUG","quantity":{quantity}}}"#
            ),
        )
        .to(0)
    };
    vec![received("a-1", "100"), received("a-2", "\"5\"")]
}

/// The ledger, opened by the test.
struct Ledger {
    file: std::path::PathBuf,
    url: String,
}

impl Ledger {
    fn of(scene: &Scene) -> Self {
        let file = scene.file("ledger.db");
        Self { url: format!("sqlite://{}", file.display()), file }
    }

    fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.file).create_if_missing(true);
        wait_for(options.connect()).expect("opened")
    }

    fn run(&self, sql: &str) {
        let mut connection = self.connect();
        wait_for(sqlx::raw_sql(sql).execute(&mut connection)).expect("done");
        wait_for(sqlx::Connection::close(connection)).expect("closed");
    }

    fn number(&self, sql: &str) -> i64 {
        wait_for(sqlx::query(sql).fetch_one(&mut self.connect())).expect("a number").get(0)
    }
}

/// Everything that is read and published, as it was recorded.
fn replay_topics(scene: &Scene) {
    let recorded = include_str!("earlier/records.jsonl").replace(NAME, &scene.name);
    let mut topics: std::collections::BTreeMap<String, Vec<Sent>> = std::collections::BTreeMap::new();
    for line in recorded.lines() {
        let line: Value = serde_json::from_str(line).expect("as it was recorded");
        let text = |name: &str| line[name].as_str().expect("a text");
        let partition = i32::try_from(line["partition"].as_i64().expect("a number")).expect("small");
        let record = sent(text("key"), text("value")).to(partition);
        let headers = line["headers"].as_array().expect("headers").iter();
        let record = headers.fold(record, |record, header| {
            record
                .header(header[0].as_str().expect("a name"), header[1].as_str().expect("a value").as_bytes())
        });
        topics.entry(text("topic").to_owned()).or_default().push(record);
    }
    for (topic, records) in topics {
        scene.kafka.produce(&scene.topic(&topic), &records);
    }
}

/// The audit, the replay and a rebuild find nothing that was decided otherwise.
fn is_as_it_was(scene: &Scene, ledger: &Ledger, new: &str) {
    for words in [&["audit", "--topics"][..], &["replay", "diff"]] {
        let (status, out, log) = run(scene.tool_on(words, &ledger.url));
        assert_eq!(status, 0, "{words:?}\n{out}\n{log}");
    }
    let into = format!("sqlite://{}", scene.file(new).display());
    let mut rebuild = scene.tool_on(&["replay", "rebuild", "--into", &into, "--execute"], &ledger.url);
    rebuild.arg("--json");
    let (status, out, log) = run(rebuild);
    assert_eq!(status, 0, "{out}\n{log}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["differences"], json!([]), "{out}");
    assert_eq!(report["restored"], json!(ledger.number("SELECT count(*) FROM decisions")), "{out}");
}

#[test]
fn what_the_version_before_refused_for_how_it_was_written_stays_refused() {
    let scene = Scene::new(2);
    let ledger = Ledger::of(&scene);
    ledger.run(&include_str!("earlier/ledger.sql").replace(NAME, &scene.name));
    replay_topics(&scene);
    for (topic, partition, next) in [("orders", 0, 7), ("orders", 1, 4), ("adjustments", 0, 2)] {
        scene.kafka.commit(scene.group(), &scene.topic(topic), partition, next);
    }
    let (status, out, log) = run({
        let mut migrate = crate::support::process::program();
        migrate.args(["migrate", "--database-url", &ledger.url]);
        migrate
    });
    assert_eq!(status, 0, "{out}\n{log}");
    is_as_it_was(&scene, &ledger, "before.db");

    // The very same values again, another that is written so, and what was a dead letter.
    let mut command = scene.command_without_database("a", &[]);
    command.args(["--database-url", &ledger.url]);
    let verifier = scene.launch(command, "a");
    let before = orders();
    let again = |index: usize| before[index].clone();
    let new = r#"{"type":"order.created","order_id":"o-9","lines":[{"sku":"MUG","quantity":"2"}]}"#;
    scene.produce(&[
        again(0),
        again(1),
        again(4),
        again(2),
        sent("o-9", new).to(0),
        again(7),
        again(8),
        again(9),
    ]);
    scene.kafka.produce(&scene.topic("adjustments"), &[adjustments()[1].clone()]);
    let committed = |topic: &str| scene.kafka.committed(scene.group(), &scene.topic(topic));
    wait::until("everything is published", SOON, || {
        committed("orders") == [Some(12), Some(7)] && committed("adjustments")[0] == Some(3)
    });
    verifier.stop();
    scene.transactions_ended(SOON);

    let ids = |topic: &str| -> Vec<String> {
        let records = scene.kafka.read(&scene.topic(topic));
        let mut ids: Vec<String> =
            records.iter().filter_map(|record| header(record, "ce_id").map(str::to_owned)).collect();
        ids.sort();
        ids
    };
    assert_eq!(
        ids("accepted"),
        [
            "adjustment/a-1",
            "order.created/1003",
            "order.created/o-4",
            "order.created/o-6",
            "order.created/o-7",
            "order.created/o-9"
        ]
    );
    assert_eq!(
        ids("rejected"),
        [
            "adjustment/a-2",
            "order.created/o-1",
            "order.created/o-2",
            "order.created/o-5",
            "order.returned/r-1"
        ]
    );
    assert_eq!(scene.kafka.read(&scene.topic("dead")).len(), 5, "what was there before, and no more");
    // 100, less 4, 1, 1, 1 and 2.
    assert_eq!(ledger.number("SELECT available FROM levels WHERE sku = 'MUG'"), 91);
    is_as_it_was(&scene, &ledger, "after.db");
}
