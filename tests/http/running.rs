//! The read API of a running verifier.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use stock_verifier::http::bounds::{MAX_PAGE, MAX_WAIT};

use super::client::Client;
use crate::support::database::{run_on, unique};
use crate::support::kafka::{order, sent};
use crate::support::postgres::Postgres;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
pub const LISTEN: [&str; 2] = ["--http-listen", "127.0.0.1:0"];

const PAGE: &str = include_str!("../../docs/http.md");

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Who asks this verifier.
pub fn client(verifier: &mut Verifier) -> Client {
    const SAID: &str = "metrics at http://";
    verifier.said(SAID, SOON);
    // The end of the log may come in the middle of a line.
    let address = wait::value("the address is there", SOON, || {
        let log = verifier.log();
        let (said, _) = log.split(SAID).nth(1)?.split_once('\n')?;
        said.split_whitespace().next().map(str::to_owned)
    });
    Client::new(&address)
}

fn ready(client: &Client, is_ready: bool) -> Value {
    wait::value("readiness is known", SOON, || {
        let answer = client.try_send("GET", "/readyz", None)?;
        assert_eq!(answer.status == 200, answer.body["ready"] == true, "{}", answer.text);
        (answer.body["ready"] == is_ready).then_some(answer.body)
    })
}

/// The same with the members that are another each time made equal.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let varies = ["as_of", "age_seconds", "decided_at", "topic", "next"].contains(&name.as_str());
                (name.clone(), if varies { json!("…") } else { masked(value) })
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

/// What the page shows: each request with the answer below it.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    let pairs = blocks.windows(2).filter(|pair| pair[0].starts_with("sh\n"));
    pairs.map(|pair| (pair[0], pair[1].strip_prefix("json\n").expect("an answer"))).collect()
}

#[test]
fn a_running_verifier_answers_as_its_page_shows() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120), ("TSHIRT-M", 57)]);
    let mut verifier = scene.start("a", &LISTEN);
    let client = client(&mut verifier);
    // Waited for before it is produced.
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.get("/v1/orders/o-1001?wait=30s")
    });
    scene.produce(&[order("o-1001", &[("TSHIRT-M", 2), ("MUG", 1)])]);
    let verdict = waiting.join().unwrap();
    assert_eq!((verdict.status, &verdict.body["standing"]), (200, &json!("accepted")), "{}", verdict.text);

    let examples = examples();
    assert!(examples.len() >= 5, "{}", examples.len());
    for (request, answer) in examples {
        let path = request.split("http://localhost:8080").nth(1).unwrap().split('\'').next().unwrap();
        let body = request.split("-d '").nth(1).map(|rest| rest.split('\'').next().unwrap());
        let got = match body {
            Some(body) => client.post_text(path, body),
            None => client.get(path),
        };
        let shown: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(masked(&got.body), masked(&shown), "{request}");
    }
    for (row, bound) in
        [("movements of a page", MAX_PAGE), ("`wait` (whole seconds", MAX_WAIT.as_secs() as usize)]
    {
        let line = PAGE.lines().find(|line| line.contains(row)).unwrap();
        assert!(line.contains(&bound.to_string()), "{line}");
    }
    let metrics = client.get("/metrics");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text.contains("stock_verifier_decisions_total"), "{}", metrics.text);
    ready(&client, true);
    // The verdict is told once it is decided, which is before it is published.
    scene.done(SOON);
    verifier.stop();
}

#[test]
fn reads_are_answered_from_a_replica_that_is_named_while_it_is_fresh() {
    let scene = Scene::new(1);
    let primary = Postgres::start("stock");
    let url = primary.url();
    for command in
        [&["migrate", "--database-url", &url][..], &["stock", "--database-url", &url, "set", "MUG", "5"]]
    {
        let done = program().args(command).output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let standby = Postgres::standby_of(&primary);
    let replica = standby.url();
    let more = ["--database-url", &url, "--read-database-url", &replica, "--read-max-lag", "4s"];
    let command = scene.command_without_database("a", &[&LISTEN[..], &more[..]].concat());
    let mut verifier = scene.launch(command, "a");
    let client = client(&mut verifier);
    verifier.said("reads go to this replica", SOON);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    let verdict = client.get("/v1/orders/o-1?wait=30s");
    assert_eq!(verdict.body["standing"], "accepted", "{}", verdict.text);
    // It stands still: what it has is answered, until that is too old.
    run_on(&replica, "SELECT pg_wal_replay_pause()");
    scene.produce(&[order("o-2", &[("MUG", 1)])]);
    verifier.said("not reading from this replica: it is", SOON);
    // On a busy machine a fresh replica may be left for a moment too: what counts is that it does not stay with the old.
    assert_eq!(client.get("/v1/orders/o-2?wait=30s").body["standing"], "accepted");
    let stock = wait::value("both are taken off", SOON, || {
        let stock = client.get("/v1/stock/MUG");
        (stock.body["levels"][0]["available"] == 3).then_some(stock)
    });
    assert_eq!(stock.header("stock-as-of"), stock.body["as_of"]);
    ready(&client, true);
    verifier.stop();
}

#[test]
fn prechecks_are_answered_from_the_levels_topic_where_that_is_asked_for() {
    // Of many partitions, most are idle: asking where each ends must not take longer than what is known counts.
    let scene = Scene::new(12);
    let mut primary = Postgres::start("stock");
    let url = primary.url();
    for command in
        [&["migrate", "--database-url", &url][..], &["stock", "--database-url", &url, "set", "MUG", "5"]]
    {
        let done = program().args(command).output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let more = ["--database-url", &url, "--precheck-from", "levels-topic", "--levels-delay", "100ms"];
    let command = scene.command_without_database("a", &[&LISTEN[..], &more[..]].concat());
    let mut verifier = scene.launch(command, "a");
    let client = client(&mut verifier);
    let available = |sku: &str| {
        let body = json!({"lines": [{"sku": sku, "quantity": 100}]}).to_string();
        let answer = client.post_text("/v1/precheck", &body);
        (answer.status, answer.body["lines"][0]["reason"]["available"].as_i64())
    };
    let from_memory = || {
        let metrics = client.get("/metrics").text;
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("stock_verifier_prechecks_total{source=\"levels-topic\"} "));
        count.and_then(|count| count.parse::<u64>().ok()).expect("it counts what it answers from memory")
    };
    // The first answer is the database's: what was asked for it is kept for half a minute.
    for (id, left) in [("o-1", 3), ("o-2", 1)] {
        scene.produce(&[order(id, &[("MUG", 2)])]);
        assert_eq!(client.get(&format!("/v1/orders/{id}?wait=30s")).body["standing"], "accepted");
        wait::until("it is answered from memory, with the level that was published last", SOON, || {
            let before = from_memory();
            available("MUG") == (200, Some(left)) && from_memory() > before
        });
    }
    primary.kill();
    // What is followed counts for some seconds after it was compared with the topic's ends, which takes longer on a busy machine:
    // then the database is asked.
    wait::until("it is answered from memory", SOON, || available("MUG") == (200, Some(1)));
    let unknown = available("CUP").0;
    assert!(matches!(unknown, 503 | 504), "what is not known there the database is asked for: {unknown}");
    primary.start_again();
    ready(&client, true);
    verifier.stop();
}

#[test]
fn at_sighup_the_logs_level_and_the_files_of_secrets_are_read_again() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let shared = Servers::shared().database_url;
    let role = unique("role");
    run_on(&shared, &format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'first'"));
    let mut url = url::Url::parse(&scene.database.url()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(None).unwrap();
    let (settings, password, token) =
        (scene.file("settings.toml"), scene.file("password"), scene.file("token"));
    let write = |log: &str, secret: &str| {
        std::fs::write(&settings, format!("log = \"{log}\"\n")).unwrap();
        std::fs::write(&password, secret).unwrap();
        std::fs::write(&token, format!("token-{secret}")).unwrap();
    };
    write("info", "first");
    let (settings, password, token) = (text(&settings), text(&password), text(&token));
    let more = [
        &LISTEN[..],
        &["--config", settings, "--database-url", url.as_str(), "--database-password-file", password],
        &["--http-token-file", token],
    ]
    .concat();
    let mut verifier = scene.launch(scene.command_without_database("a", &more), "a");
    let client = client(&mut verifier);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    assert_eq!(client.with_token("token-first").get("/v1/stock/MUG").status, 200);
    assert!(!verifier.log().contains("DEBUG"), "{}", verifier.log());

    run_on(&shared, &format!("ALTER ROLE {role} PASSWORD 'second'"));
    write("info,stock_verifier=debug", "second");
    verifier.signal("HUP");
    verifier.said("read again at SIGHUP", SOON);
    // Every connection from here on needs the new password.
    scene.database.disconnect_all();
    scene.produce(&[order("o-2", &[("MUG", 1)])]);
    scene.done(SOON);
    assert!(verifier.log().contains("DEBUG decided"), "{}", verifier.log());
    let new = client.with_token("token-second");
    wait::until("reads have the new password too", SOON, || new.get("/v1/stock/MUG").status == 200);
    assert_eq!(client.with_token("token-first").get("/v1/stock/MUG").status, 401);

    // What is wrong changes nothing.
    write("=", "");
    std::fs::write(token, "").unwrap();
    verifier.signal("HUP");
    for what in ["the log's level", "the password of the database", "the token of HTTP"] {
        verifier.said(&format!("{what} cannot be read again, and stays as it is"), SOON);
    }
    scene.produce(&[order("o-3", &[("MUG", 1)])]);
    scene.done(SOON);
    assert_eq!(client.with_token("token-second").get("/v1/stock/MUG").status, 200);
    verifier.stop();
    run_on(&shared, &format!("DROP ROLE {role}"));
}

#[test]
fn who_waits_on_an_instance_that_does_not_decide_gets_the_verdict_too() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let mut first = scene.start("a", &LISTEN);
    wait::until("it has the partition", SOON, || first.reads(&scene.orders()).len() == 1);
    let mut second = scene.start("b", &LISTEN);
    let asked: Vec<Client> = vec![client(&mut first), client(&mut second)];
    let waiting: Vec<_> = asked
        .into_iter()
        .map(|client| {
            std::thread::spawn(move || {
                // The second one joins meanwhile, which takes longer on a busy machine.
                wait::value("it is decided", SOON, || {
                    let verdict = client.get("/v1/orders/o-1?wait=30s");
                    (verdict.status != 404).then_some(verdict)
                })
            })
        })
        .collect();
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    for verdict in waiting {
        assert_eq!(verdict.join().unwrap().body["standing"], "accepted");
    }
    first.stop_among_others();
    second.stop();
}

#[test]
fn readiness_says_that_the_database_is_away_and_liveness_does_not_depend_on_it() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let mut verifier = scene.start("a", &LISTEN);
    let client = client(&mut verifier);
    let before = ready(&client, true);
    scene.database.let_in(false);
    scene.database.disconnect_all();
    // Kafka may be too slow for once.
    let away = wait::value("the database alone is away", SOON, || {
        let away = ready(&client, false);
        let dependencies = away["dependencies"].as_array().unwrap();
        let states: Vec<_> = dependencies.iter().map(|one| (&one["name"], &one["state"])).collect();
        let wanted = [(&json!("database"), &json!("down")), (&json!("kafka"), &json!("up"))];
        (states == wanted).then(|| away.clone())
    });
    assert!(away["dependencies"][0]["since"].as_str() > before["dependencies"][0]["since"].as_str());
    assert_eq!(client.get("/livez").status, 200);
    let read = client.get("/v1/stock/MUG");
    assert!([503, 504].contains(&read.status), "{}", read.text);
    scene.database.let_in(true);
    ready(&client, true);
    assert_eq!(client.get("/v1/stock/MUG").status, 200, "it comes back by itself");
    verifier.stop();
}

#[test]
fn a_partition_that_is_stopped_makes_it_unready_and_is_named() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 120)]);
    scene.kafka.set(&scene.topic("rejected"), "max.message.bytes", "4000");
    // At random, since what is alike is compressed.
    let mut random = StdRng::seed_from_u64(1);
    let unknown: Vec<String> =
        (0..200).map(|_| format!("{:x}-{:x}", random.random::<u128>(), random.random::<u128>())).collect();
    let lines: Vec<(&str, i64)> = unknown.iter().map(|sku| (sku.as_str(), 1)).collect();
    let mut verifier = scene.start("a", &LISTEN);
    let client = client(&mut verifier);
    ready(&client, true);
    scene.produce(&[order("o-1", &lines).to(1)]);
    let stopped = ready(&client, false);
    let named = &stopped["stopped_partitions"][0];
    assert_eq!((&named["topic"], &named["partition"]), (&json!(scene.orders()), &json!(1)), "{stopped}");
    assert_eq!(stopped["dependencies"][0]["state"], "up");
    assert_eq!(client.get("/livez").status, 200);
    verifier.signal("TERM");
    assert_eq!(verifier.wait(SOON).code(), Some(3));
}

#[test]
fn an_instance_that_was_told_to_stop_is_not_ready_while_it_finishes_what_is_in_hand() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let mut verifier = scene.start("a", &[LISTEN[0], LISTEN[1], "--stop-timeout", "60s"]);
    let client = client(&mut verifier);
    ready(&client, true);
    scene.joined(&verifier);
    scene.database.holding("LOCK TABLE decisions IN SHARE MODE", || {
        scene.produce(&[order("o-1", &[("MUG", 1)])]);
        wait::until("a batch waits for the lock", SOON, || {
            scene.database.number(
                "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
                 WHERE NOT granted AND d.datname = current_database()",
            ) > 0
        });
        verifier.signal("TERM");
        wait::until("it says that it stops, and the database is well", SOON, || {
            let stopping = ready(&client, false);
            stopping["stopping"] == true && stopping["dependencies"][0]["state"] == "up"
        });
    });
    assert_eq!(verifier.wait(SOON).code(), Some(0));
}

#[test]
fn a_token_from_a_file_is_required_and_is_shown_nowhere() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let file = scene.file("token");
    std::fs::write(&file, "hunter2-token\n").unwrap();
    let file = file.to_str().unwrap();
    let mut verifier = scene.start("a", &[LISTEN[0], LISTEN[1], "--http-token-file", file]);
    let client = client(&mut verifier);
    assert_eq!(client.get("/v1/stock/MUG").status, 401);
    assert_eq!(client.with_token("hunter2-token").get("/v1/stock/MUG").status, 200);
    assert_eq!(client.get("/livez").status, 200);
    let command = std::fs::read(format!("/proc/{}/cmdline", verifier.id())).unwrap();
    assert!(!String::from_utf8_lossy(&command).contains("hunter2-token"));
    assert!(!verifier.log().contains("hunter2-token"));
    verifier.stop();
    std::fs::write(file, "\n").unwrap();
    let mut refused = scene.start("a", &[LISTEN[0], LISTEN[1], "--http-token-file", file]);
    assert_eq!(refused.wait(SOON).code(), Some(1));
    assert!(refused.log().contains("the token file"), "{}", refused.log());
}

#[test]
fn an_address_that_is_taken_is_refused_at_the_start_and_named() {
    let scene = Scene::new(1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut verifier = scene.start("a", &["--http-listen", &address]);
    assert_eq!(verifier.wait(SOON).code(), Some(1));
    let log = verifier.log();
    assert!(log.contains(&address) && log.contains("--http-listen"), "{log}");
}

#[test]
fn a_stop_does_not_wait_for_who_waits() {
    let scene = Scene::new(1);
    let mut verifier = scene.start("a", &LISTEN);
    let client = client(&mut verifier);
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            std::thread::spawn(move || {
                client.try_send("GET", &format!("/v1/orders/o-{number}?wait=30s"), None)
            })
        })
        .collect();
    scene.produce(&[sent("x", "no JSON")]);
    scene.done(SOON);
    let begun = Instant::now();
    verifier.stop();
    assert!(begun.elapsed() < MAX_WAIT, "{:?}", begun.elapsed());
    for one in waiting {
        let answer = one.join().unwrap();
        assert!(answer.is_none_or(|answer| [404, 503].contains(&answer.status)));
    }
}
