//! Wall clocks that jump: clocks decide nothing but when a hold is over, and that is the database's alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use stock_verifier::kafka::transactional::EXIT_HUNG;
use stock_verifier::store::sqlite::SqliteStore;
use stock_verifier::store::{LedgerAdmin as _, LedgerWriter as _};

use crate::support::clock::Clock;
use crate::support::kafka::{Sent, sent};
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::{Private, heavy, wait_for};
use crate::support::{batch, set, stream, wait};

/// Longer than a hold that is over is left to an instance that asked for its end and is gone: 30 s.
const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 4;
/// After so long without an end, Kafka waits for its clock.
const KAFKA_STALLED: Duration = Duration::from_secs(20);

/// How far a clock is ahead of the time after each jump, in seconds: an hour forth, two hours back, and again. Kafka takes
/// records that are just as far ahead, and none that are further (message.timestamp.after.max.ms).
const JUMPS: [i64; 4] = [3_600, -3_600, 3_600, -3_600];
/// So that a jump finds a transaction open.
const SMALL_BATCHES: [&str; 2] = ["--batch-max-orders", "20"];
/// Further ahead than Kafka takes records.
const TOO_FAR: i64 = 7_200;
/// A hold that an instance an hour ahead would take for over.
const LONG_HOLD: i64 = 1_800;

fn command(partition: i32, value: &Value) -> Sent {
    sent(value["order_id"].as_str().expect("an order id"), value.to_string()).to(partition)
}

/// An order for one mug.
fn created(partition: i32, order_id: &str, hold_seconds: Option<i64>) -> Sent {
    let mut value =
        json!({"type": "order.created", "order_id": order_id, "lines": [{"sku": "MUG", "quantity": 1}]});
    if let Some(seconds) = hold_seconds {
        value["hold_seconds"] = seconds.into();
    }
    command(partition, &value)
}

/// What it reads of both topics, and how often it lost a partition. It may begin to read one again that it has.
fn share(scene: &Scene, verifier: &Verifier) -> ([BTreeSet<i32>; 2], usize) {
    let topics = [scene.orders(), scene.topic("adjustments")];
    (topics.map(|topic| verifier.reads(&topic)), verifier.log().matches("handed over partition").count())
}

#[test]
fn an_instance_whose_clock_jumps_goes_on_or_is_started_again_and_ends_no_hold() {
    const EACH: usize = 100;
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000_000)]);
    let clock = Clock::new();
    // So that who is started again is back within its session, however busy the machine is.
    let patient = ["-X", "session.timeout.ms=60000"];
    let start = || {
        let mut command = scene.command("jumping", &patient);
        command.envs(clock.environment());
        scene.launch(command, "jumping")
    };
    let mut running = [start(), scene.start("steady", &patient)];
    wait::until("each has half of both topics", SOON, || {
        let half = usize::try_from(PARTITIONS / 2).expect("few");
        running.iter().all(|one| share(&scene, one).0.iter().all(|read| read.len() == half))
    });
    let shared = share(&scene, &running[1]);
    let live = |running: &mut [Verifier]| {
        for verifier in &mut *running {
            assert!(
                verifier.ended().is_none(),
                "{} did not live through it:\n{}",
                verifier.name(),
                verifier.log()
            );
        }
        assert_eq!(share(&scene, &running[1]), shared, "what the other reads is as it was");
    };
    let partition = |number: usize| i32::try_from(number).expect("few") % PARTITIONS;
    let orders = |round: usize, part: &str, hold_seconds: Option<i64>| -> Vec<Sent> {
        let order = |number| created(partition(number), &format!("{part}-{round}-{number}"), hold_seconds);
        (0..EACH).map(order).collect()
    };
    for (round, seconds) in JUMPS.into_iter().enumerate() {
        scene.produce(&orders(round, "before", None));
        scene.produce(&orders(round, "held", Some(LONG_HOLD)));
        scene.produce(&orders(round, "soon", Some(1)));
        clock.is_ahead(seconds);
        let jumped = Instant::now();
        scene.produce(&orders(round, "after", None));
        if seconds < 0 {
            // Set back: librdkafka's waits would last two hours longer.
            let [jumping, _] = &mut running;
            assert_eq!(jumping.wait(SOON).code(), Some(EXIT_HUNG), "{}", jumping.log());
            assert!(jumping.log().contains("clock was set back"), "{}", jumping.log());
            *jumping = start();
        }
        scene.done(SOON);
        println!("{seconds}: published after {:?}", jumped.elapsed());
        wait::until("the short holds have ended, and no other", SOON, || {
            scene.database.number("SELECT count(*) FROM holds") == ((round + 1) * EACH) as i64
        });
        println!("{seconds}: ended after {:?}", jumped.elapsed());
        live(&mut running);
    }
    // Who holds may confirm, since only the database's clock says that a hold is over.
    for round in 0..JUMPS.len() {
        let confirmed = |number: usize| {
            let order = format!("held-{round}-{number}");
            command(partition(number), &json!({"type": "order.confirmed", "order_id": order}))
        };
        scene.produce(&(0..EACH).map(confirmed).collect::<Vec<_>>());
    }
    scene.done(SOON);
    live(&mut running);
    running.into_iter().for_each(Verifier::stop);
    let ended = |kind: &str| scene.published("accepted").iter().filter(|event| event["type"] == kind).count();
    assert_eq!(ended("hold.expired"), JUMPS.len() * EACH);
    assert_eq!(ended("confirmation.accepted"), JUMPS.len() * EACH);
    assert_eq!(scene.published("rejected"), [] as [Value; 0]);
    let taken = (JUMPS.len() * EACH * 3) as i64;
    assert_eq!(scene.database.number("SELECT available FROM levels"), 1_000_000 - taken);
    // No time in the ledger is the instance's.
    let hours = "SELECT extract(epoch FROM max(decided_at) - min(decided_at))::bigint / 1800 FROM decisions";
    assert_eq!(scene.database.number(hours), 0);
    scene.prove_levels();
    scene.prove_rest();
    scene.prove_again();
}

#[test]
fn an_instance_too_far_ahead_for_kafka_names_the_clocks_and_stops_no_partition() {
    const EACH: usize = 100;
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", 1_000)]);
    let clock = Clock::new();
    clock.is_ahead(TOO_FAR);
    let start = || {
        let mut command = scene.command("ahead", &[]);
        command.envs(clock.environment());
        scene.launch(command, "ahead")
    };
    let order = |number: usize| {
        created(i32::try_from(number).expect("few") % PARTITIONS, &format!("o-{number}"), None)
    };
    scene.produce(&(0..EACH).map(order).collect::<Vec<_>>());
    let mut ahead = start();
    ahead.said("Kafka refuses the time of records: this host's clock", SOON);
    // Set right it ends, as whenever a clock is set back; the next one goes on.
    clock.is_ahead(0);
    assert_eq!(ahead.wait(SOON).code(), Some(EXIT_HUNG), "{}", ahead.log());
    assert!(!ahead.log().contains("stopped:"), "{}", ahead.log());
    let ahead = start();
    scene.done(SOON);
    ahead.stop();
    assert_eq!(scene.published("accepted").len(), EACH);
    scene.prove_levels();
    scene.prove_rest();
    scene.prove_again();
}

/// Set forth, Kafka ends an open transaction for its age, which its producer may be told as a fence. That may be all of them.
fn start_again_if_fenced(scene: &Scene, verifier: &mut Verifier, seconds: i64) {
    if verifier.ended().is_none() {
        return;
    }
    let log = verifier.log();
    assert!(log.contains("uses transactional id"), "{} ended:\n{log}", verifier.name());
    println!("{seconds}: {} took it for a fence, and is started again", verifier.name());
    *verifier = scene.start(if verifier.name() == "a" { "a" } else { "b" }, &SMALL_BATCHES);
}

#[test]
fn servers_whose_clocks_jump_lose_and_repeat_nothing() {
    const ORDERS: usize = 4_000;
    heavy();
    let seed = stream::seed();
    let clock = Clock::new();
    let private = Private::start_by(&clock);
    let scene = Scene::on(&private.servers(), PARTITIONS);
    let stream = stream::make(seed, ORDERS, PARTITIONS);
    scene.stock(&stream.stock);
    let mut running = ["a", "b"].map(|instance| scene.start(instance, &SMALL_BATCHES));
    let part = stream.records.len().div_ceil(JUMPS.len());
    for (number, (records, seconds)) in stream.records.chunks(part).zip(JUMPS).enumerate() {
        scene.produce(records);
        let moment = (number * part + records.len() / 4) as i64;
        wait::until("the work goes on", LONG, || scene.database.applied() > moment);
        clock.is_ahead(seconds);
        let jumped = Instant::now();
        // Kafka waits by the wall clock too: set back while it ends a transaction, it may say for two hours that it still does
        // (CONCURRENT_TRANSACTIONS). Who sees that starts it again.
        if seconds < 0 && !wait::is_soon(KAFKA_STALLED, || scene.is_published(&scene.orders())) {
            println!("{seconds}: Kafka stalled, and is started again");
            private.kill("kafka");
            private.restart();
        }
        wait::until("everything is decided and published", LONG, || {
            for verifier in &mut running {
                start_again_if_fenced(&scene, verifier, seconds);
            }
            scene.is_published(&scene.orders())
        });
        scene.done(LONG);
        println!("{seconds}: published after {:?}", jumped.elapsed());
    }
    // A jump can have put one out of its group, which joins again.
    running.into_iter().for_each(Verifier::stop_among_others);
    let ends = scene.prove();
    assert_eq!(ends.accepted + ends.rejected, ORDERS);
    drop(scene);
}

/// A ledger in a file, whose clock is its process's own.
struct File(std::path::PathBuf);

impl File {
    fn url(&self) -> String {
        format!("sqlite://{}", self.0.display())
    }

    /// The answer to a query, beside whoever has the ledger open.
    fn number(&self, sql: &str) -> i64 {
        wait_for(async {
            let options = SqliteConnectOptions::new().filename(&self.0).read_only(true);
            let mut connection = options.connect().await.expect("opened");
            let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql);
            sqlx::Connection::close(connection).await.expect("closed");
            number
        })
    }
}

#[test]
fn a_ledger_in_a_file_whose_clock_jumps_stays_exact_and_ends_holds_by_that_clock() {
    const EACH: usize = 20;
    const BOTH: i32 = 2;
    let scene = Scene::new(BOTH);
    let (file, clock) = (File(scene.file("ledger.db")), Clock::new());
    wait_for(async {
        let store = SqliteStore::open(&file.url()).await.expect("made");
        store.migrate().await.expect("migrated");
        store.apply(&batch(vec![set("all", "MUG", 1_000, None)])).await.expect("stock is set");
        store.close().await;
    });
    let start = || {
        let mut command = scene.command_without_database("jumping", &["--no-levels"]);
        command.args(["--database-url", &file.url()]).envs(clock.environment());
        scene.launch(command, "jumping")
    };
    let mut running = start();
    let orders = |part: &str, hold_seconds: Option<i64>| {
        let order = |number| {
            let at = i32::try_from(number).expect("few") % BOTH;
            created(at, &format!("{part}-{number}"), hold_seconds)
        };
        scene.produce(&(0..EACH).map(order).collect::<Vec<_>>());
    };
    let done = || {
        wait::until("all is decided and published", SOON, || {
            let ends = scene.kafka.ends(&scene.orders(), "read_committed");
            let committed = scene.kafka.try_committed(scene.group(), &scene.orders());
            committed.is_ok_and(|committed| {
                committed.iter().zip(&ends).all(|(committed, end)| committed.unwrap_or(0) == *end)
            })
        });
    };
    let holds = |left: usize| {
        wait::until("holds end by the ledger's clock", SOON, || {
            file.number("SELECT count(*) FROM holds") == left as i64
        });
    };
    orders("over", Some(LONG_HOLD));
    orders("plain", None);
    done();
    // An hour forth, what was held for half an hour is over.
    clock.is_ahead(JUMPS[0]);
    orders("held", Some(LONG_HOLD));
    orders("soon", Some(1));
    done();
    holds(EACH);
    // Two hours back, the process ends. The next one decides at earlier times, by which no hold from before is over.
    clock.is_ahead(JUMPS[1]);
    assert_eq!(running.wait(SOON).code(), Some(EXIT_HUNG), "{}", running.log());
    running = start();
    orders("back", Some(1));
    orders("kept", None);
    done();
    holds(EACH);
    let confirmed = |number: usize| {
        let at = i32::try_from(number).expect("few") % BOTH;
        command(at, &json!({"type": "order.confirmed", "order_id": format!("held-{number}")}))
    };
    scene.produce(&(0..EACH).map(confirmed).collect::<Vec<_>>());
    done();
    holds(0);
    done();
    running.stop();

    let ended = |kind: &str| scene.published("accepted").iter().filter(|event| event["type"] == kind).count();
    assert_eq!(ended("order.accepted"), 6 * EACH);
    assert_eq!(ended("hold.expired"), 3 * EACH);
    assert_eq!(ended("confirmation.accepted"), EACH);
    assert_eq!(scene.published("rejected"), [] as [Value; 0]);
    assert_eq!(file.number("SELECT available FROM levels"), 1_000 - 3 * EACH as i64);
    // Sequences go on whatever the times say.
    let back = "SELECT count(*) FROM (SELECT decided_at - lag(decided_at) OVER (ORDER BY seq) AS since FROM decisions)
                WHERE since < -3600 * 1000000";
    assert_eq!(file.number(back), 1, "the times went back once");
    let audit = scene.tool_on(&["audit", "--topics"], &file.url()).output().expect("the program runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}
