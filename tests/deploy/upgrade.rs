//! The version that landed before this one and this one, side by side on one ledger and in one group.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::database::Database;
use crate::support::kafka::{Sent, header, order, sent};
use crate::support::postgres::with_lib;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::servers::{Servers, heavy};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// Orders produced at once, by a client of their own: so some are always under way.
const AT_ONCE: usize = 50;
/// Migrations from before they named the oldest program; their names are stored, and stay.
const UNNAMED: u32 = 3;

#[test]
fn each_new_migration_names_the_oldest_program_that_may_run_on_it() {
    let of = |database: &str| -> BTreeMap<u32, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
        let names = fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        names.map(|name| (name.split_once('_').expect(&name).0.parse().expect(&name), name)).collect()
    };
    let migrations = of("postgres");
    assert_eq!(migrations, of("sqlite"), "one program, one number for both");
    let mut oldest_before = 0;
    for (version, name) in migrations.iter().filter(|(version, _)| **version > UNNAMED) {
        let oldest = name.strip_suffix(".sql").and_then(|name| name.rsplit_once("_oldest_"));
        let oldest: u32 = oldest.and_then(|(_, oldest)| oldest.parse().ok()).unwrap_or_else(|| {
            panic!("{name}: end the name with _oldest_N.sql, N the newest migration of the oldest program that may run")
        });
        assert!(
            (oldest_before..=*version).contains(&oldest),
            "{name}: what {oldest} may, one before could not"
        );
        oldest_before = oldest;
    }
}

/// The same arguments and environment for another program.
fn of_program(file: &str, command: &Command) -> Command {
    let mut other = Command::new(file);
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// Stops the producer however the test ends: it is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Orders of one mug each, of which every third is cancelled again, until told to stop. How many of both.
fn produce(scene: &Scene, stop: &AtomicBool) -> usize {
    let mut sent_so_far = 0;
    for first in (0..).step_by(AT_ONCE) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let mut records: Vec<Sent> = Vec::new();
        for number in first..first + AT_ONCE {
            let id = format!("o-{number}");
            records.push(order(&id, &[("MUG", 1)]));
            if number % 3 == 0 {
                records.push(sent(&id, json!({"type": "order.cancelled", "order_id": id}).to_string()));
            }
        }
        scene.produce(&records);
        sent_so_far += records.len();
    }
    sent_so_far
}

#[test]
#[ignore = "builds the version that landed before: tests/run --all"]
fn instances_are_replaced_one_by_one_while_orders_flow_and_nothing_is_lost_or_said_twice() {
    let old_program = with_lib("ensure last-landed >&2; echo \"$LAST_LANDED_PROGRAM\"");
    heavy();
    let mut scene = Scene::new(PARTITIONS);
    scene.database = Database::empty(&Servers::shared().database_url);
    let migrate = |file: Option<&str>| {
        let mut command = program();
        command.args(["migrate", "--database-url", &scene.database.url()]);
        if let Some(file) = file {
            command = of_program(file, &command);
        }
        let done = command.output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    migrate(Some(&old_program));
    scene.stock(&[("MUG", 1_000_000)]);
    let start_old = |name: &str| {
        scene.launch(of_program(&old_program, &scene.command(name, &[])), &format!("old-{name}"))
    };
    let shared = |one: &Verifier, other: &Verifier| {
        wait::until("both read", SOON, || {
            let (one, other) = (one.reads(&scene.orders()), other.reads(&scene.orders()));
            !one.is_empty() && !other.is_empty() && one.len() + other.len() == PARTITIONS as usize
        });
    };

    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let producer = threads.spawn(|| produce(&scene, &stop));
        let stopped = Stop(&stop);
        let (old_a, old_b) = (start_old("a"), start_old("b"));
        shared(&old_a, &old_b);
        // The tables first, while the old ones run.
        migrate(None);
        let begun = Instant::now();
        old_a.stop_among_others();
        let new_a = scene.start("a", &[]);
        shared(&new_a, &old_b);
        println!("one replaced after {:.1?}", begun.elapsed());
        let published = scene.kafka.count(&scene.topic("accepted"));
        wait::until("both versions publish side by side", SOON, || {
            scene.kafka.count(&scene.topic("accepted")) > published + 200
        });
        old_b.stop_among_others();
        let new_b = scene.start("b", &[]);
        shared(&new_a, &new_b);
        println!("both replaced after {:.1?}", begun.elapsed());
        drop(stopped);
        let sent = producer.join().expect("it produces");
        scene.done(SOON);
        for mut verifier in [new_a, new_b] {
            assert!(verifier.ended().is_none(), "{}", verifier.log());
            verifier.stop();
        }
        assert!(sent > 500, "{sent} records are too few to say anything");
        let results = scene.kafka.read(&scene.topic("accepted"));
        let ids: BTreeSet<_> = results.iter().filter_map(|result| header(result, "ce_id")).collect();
        assert_eq!((results.len(), ids.len()), (sent, sent), "each record has one result");
        scene.prove_levels();
        scene.prove_again();
    });
}
