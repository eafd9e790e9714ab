//! A database that takes no writes for a while: a disk nearly full, a failover.

use std::time::{Duration, Instant};

use crate::support::database::run_on;
use crate::support::kafka::order;
use crate::support::process::Verifier;
use crate::support::scene::Scene;
use crate::support::servers::Servers;

const SOON: Duration = Duration::from_secs(60);

fn set_read_only(scene: &Scene, setting: &str) {
    let name = scene.database.name();
    run_on(
        &Servers::shared().database_url,
        &format!(
            "ALTER DATABASE {name} {setting} default_transaction_read_only{}",
            match setting {
                "SET" => " = on",
                _ => "",
            }
        ),
    );
}

fn orders(scene: &Scene, prefix: &str) {
    let records: Vec<_> =
        (0..100).map(|number| order(&format!("{prefix}-{number}"), &[("MUG", 1)])).collect();
    scene.produce(&records);
}

/// It says so, and not much more often than every few seconds while that lasts.
#[track_caller]
fn says_so_seldom(verifier: &mut Verifier, begun: Instant) {
    verifier.said("read-only", SOON);
    // Not to wait for something, but to see how much is said in this time.
    std::thread::sleep(Duration::from_secs(8));
    let log = verifier.log();
    let warnings = log
        .lines()
        .filter(|line| (line.contains("WARN") || line.contains("ERROR")) && !line.contains("librdkafka"))
        .count();
    let most = 4 + begun.elapsed().as_secs() as usize;
    assert!(warnings <= most, "{warnings} warnings in {:?}\n{log}", begun.elapsed());
    assert!(verifier.ended().is_none(), "it ended\n{log}");
}

#[test]
fn a_verifier_started_while_the_database_is_read_only_waits_until_it_is_not() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000)]);
    set_read_only(&scene, "SET");
    orders(&scene, "o");
    let begun = Instant::now();
    let mut verifier = scene.start("a", &[]);
    says_so_seldom(&mut verifier, begun);
    assert!(verifier.log().contains("default_transaction_read_only"), "{}", verifier.log());
    set_read_only(&scene, "RESET");
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, 100);
}

#[test]
fn a_verifier_whose_database_becomes_read_only_goes_on_when_it_is_not() {
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 1_000)]);
    let mut verifier = scene.start("a", &[]);
    orders(&scene, "o");
    scene.done(SOON);
    set_read_only(&scene, "SET");
    scene.database.disconnect_all();
    let begun = Instant::now();
    orders(&scene, "p");
    says_so_seldom(&mut verifier, begun);
    // And takes partitions over meanwhile, from nobody.
    let mut second = scene.start("b", &[]);
    second.said("read-only", SOON);
    set_read_only(&scene, "RESET");
    scene.done(SOON);
    second.said("verifying", SOON);
    orders(&scene, "q");
    scene.done(SOON);
    verifier.stop();
    second.stop();
    assert_eq!(scene.prove().accepted, 300);
}
