//! A ledger as version 0.1 left it, killed in the middle of its work, opened by this one.
//!
//! The files beside were recorded from that version: the rows it wrote, the records it read, and all it published.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Row as _};
use stock_verifier::event::{Header, Record};

use crate::support::database::Database;
use crate::support::kafka::{Sent, sent};
use crate::support::scene::Scene;
use crate::support::servers::{Servers, wait_for};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
/// Stands for the names of the topics in what was recorded.
const NAME: &str = "NAME";
/// Partition 1 of the orders is decided up to 6 and published up to here.
const TOLD: i64 = 3;

/// A record of one of the topics.
#[derive(Debug, Deserialize)]
struct Recorded {
    topic: String,
    partition: i32,
    key: String,
    headers: Vec<(String, String)>,
    value: String,
}

impl Recorded {
    fn sent(&self) -> Sent {
        let headers = self.headers.iter();
        headers.fold(sent(&self.key, self.value.clone()).to(self.partition), |sent, (name, value)| {
            sent.header(name, value.as_bytes())
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Whether that version was killed before it published this.
    fn is_unpublished(&self, orders: &str) -> bool {
        let dead = |what| self.header(&format!("__connect.errors.{what}")).map(str::to_owned);
        let (topic, partition, offset) = if self.topic == "dead" {
            (dead("topic"), dead("partition"), dead("offset"))
        } else if let Ok(Value::Object(event)) = serde_json::from_str(&self.value)
            && let Some(source) = event.get("source")
        {
            let text = |name: &str| Some(source[name].to_string().replace('"', ""));
            (text("topic"), text("partition"), text("offset"))
        } else {
            return false;
        };
        let offset = offset.and_then(|offset| offset.parse::<i64>().ok());
        topic.as_deref() == Some(orders) && partition.as_deref() == Some("1") && offset >= Some(TOLD)
    }

    fn is(&self, record: &Record) -> bool {
        let header = |(name, value): &(String, String)| Header {
            name: name.clone(),
            value: Some(value.clone().into_bytes()),
        };
        record.key.as_deref() == Some(self.key.as_bytes())
            && record.value.as_deref() == Some(self.value.as_bytes())
            && record.headers == self.headers.iter().map(header).collect::<Vec<_>>()
    }
}

fn succeeds(mut command: Command) -> String {
    let done = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{command:?}: {text}");
    text
}

/// Opens the ledger of this URL; `numbers` answers a query of it.
fn goes_on(scene: &Scene, url: &str, recorded: &str, numbers: impl Fn(&str) -> Vec<i64>) {
    let orders = scene.orders();
    let recorded: Vec<Recorded> = recorded
        .replace(NAME, &scene.name)
        .lines()
        .map(|line| serde_json::from_str(line).expect("as it was recorded"))
        .collect();
    let (unpublished, there): (Vec<_>, Vec<_>) =
        recorded.iter().partition(|record| record.is_unpublished(&orders));
    assert_eq!(unpublished.len(), 3, "two results and a dead letter");
    let mut topics: BTreeMap<&str, Vec<Sent>> = BTreeMap::new();
    for record in there {
        topics.entry(&record.topic).or_default().push(record.sent());
    }
    for (topic, records) in topics {
        scene.kafka.produce(&scene.topic(topic), &records);
    }
    let adjustments = scene.topic("adjustments");
    scene.kafka.commit(scene.group(), &orders, 0, 8);
    scene.kafka.commit(scene.group(), &orders, 1, TOLD);
    // What the group committed of the other partition of adjustments is gone.
    scene.kafka.commit(scene.group(), &adjustments, 0, 1);

    let start = |instance: &str| {
        let mut command = scene.command_without_database(instance, &[]);
        command.args(["--database-url", url]);
        scene.launch(command, instance)
    };
    let mut before = start("before");
    assert_eq!(before.wait(SOON).code(), Some(1), "{}", before.log());
    assert!(before.log().contains("stock-verifier migrate"), "{}", before.log());
    let mut migrate = crate::support::process::program();
    migrate.args(["migrate", "--database-url", url]);
    succeeds(migrate);
    assert_eq!(
        numbers("SELECT count(*) FROM positions WHERE topic_id IS NULL AND published_offset IS NULL"),
        [4]
    );

    let mut verifier = start("a");
    let returned = |id: &str, quantity: i64| {
        let lines = json!([{"sku": "MUG", "quantity": quantity}]);
        let value = json!({"type": "order.returned", "order_id": "o-1", "return_id": id, "lines": lines});
        sent("o-1", value.to_string()).to(0)
    };
    scene.produce(&[returned("r-1", 1), returned("r-8", 3), returned("r-9", 2)]);
    let committed = |topic: &str| scene.kafka.committed(scene.group(), topic);
    // The hold that is over since then is asked for on its order's partition, once.
    wait::until("everything is published", SOON, || committed(&orders) == [Some(11), Some(7)]);
    // Where its position is, since nobody said how far it was published. It may be assigned after the orders.
    wait::until("the adjustments are where they were", SOON, || {
        committed(&adjustments) == [Some(1), Some(1)]
    });
    wait::until("the level of the operator's last command is published", SOON, || {
        scene.published("levels").iter().any(|level| level["sku"] == "CAP")
    });
    assert!(verifier.ended().is_none(), "{}", verifier.log());
    verifier.stop();
    scene.transactions_ended(SOON);

    let mut published = Vec::new();
    for topic in ["accepted", "rejected", "dead"] {
        let records = scene.kafka.read(&scene.topic(topic));
        for known in recorded.iter().filter(|known| known.topic == topic) {
            let same = records.iter().filter(|record| known.is(record)).count();
            assert_eq!(same, 1, "{known:?} is there once, byte for byte");
        }
        published.extend(records);
    }
    let of_topics = |record: &&Recorded| !["orders", "adjustments"].contains(&&*record.topic);
    assert_eq!(
        published.len(),
        recorded.iter().filter(of_topics).count() + 3,
        "two returns and a hold's end"
    );
    let ids: Vec<_> =
        published.iter().filter_map(|record| crate::support::kafka::header(record, "ce_id")).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an id was published twice");
    let new = ["return.accepted", "return.rejected", "hold.expired"].map(|kind| {
        let of_kind = |event: &&Value| event["type"] == kind;
        scene.published("accepted").iter().chain(&scene.published("rejected")).filter(of_kind).count()
    });
    assert_eq!(new, [2, 2, 1]);
    assert_eq!(numbers("SELECT available FROM levels ORDER BY sku"), [7, 0, 99, 17]);
    assert_eq!(
        numbers("SELECT count(*) FROM positions WHERE topic_id IS NULL"),
        [0],
        "they adopt the topic's id"
    );
    assert_eq!(
        numbers("SELECT count(*) FROM positions WHERE published_offset = next_offset"),
        [4],
        "how far it is published"
    );
    let audit = succeeds(scene.tool_on(&["audit", "--topics"], url));
    println!("{audit}");
}

#[test]
fn a_postgresql_ledger_of_version_0_1_goes_on_where_it_was_killed() {
    let mut scene = Scene::new(2);
    scene.database = Database::empty(&Servers::shared().database_url);
    scene.database.run(include_str!("../../migrations/postgres/0001_ledger.sql"));
    scene.database.run(&include_str!("from_0_1/postgres.sql").replace(NAME, &scene.name));
    let numbers = |sql: &str| {
        let rows = scene.database.rows(sql);
        rows.iter().map(|row| row.get(0)).collect()
    };
    goes_on(&scene, &scene.database.url(), include_str!("from_0_1/postgres.jsonl"), numbers);
}

#[test]
fn a_sqlite_ledger_of_version_0_1_goes_on_where_it_was_killed() {
    let scene = Scene::new(2);
    let file = scene.file("ledger.db");
    let connect = || -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        wait_for(options.connect()).expect("opened")
    };
    let mut connection = connect();
    for sql in [
        include_str!("../../migrations/sqlite/0001_ledger.sql"),
        &include_str!("from_0_1/sqlite.sql").replace(NAME, &scene.name),
    ] {
        wait_for(sqlx::raw_sql(sql).execute(&mut connection)).expect("made");
    }
    wait_for(sqlx::Connection::close(connection)).expect("closed");
    let numbers = |sql: &str| {
        let rows = wait_for(sqlx::query(sql).fetch_all(&mut connect())).expect("read");
        rows.iter().map(|row| row.get(0)).collect()
    };
    let url = format!("sqlite://{}", file.display());
    goes_on(&scene, &url, include_str!("from_0_1/sqlite.jsonl"), numbers);
}
