//! What keeps a verifier from starting, and what it says then. No secret is ever said.

use std::process::Command;
use std::time::Duration;

use crate::support::database::{Database, run_on};
use crate::support::kafka::order;
use crate::support::process::program;
use crate::support::scene::Scene;
use crate::support::servers::{Servers, setting};

/// Longer than it waits for brokers that do not answer.
const SOON: Duration = Duration::from_secs(60);
const WRONG: &str = "Wr0ngSecret4711";

/// The command ends with status 1, its log says these words, and neither a secret nor the database's password.
#[track_caller]
fn refused(scene: &Scene, mut command: Command, words: &[&str]) {
    // Everything that could be logged is.
    command.env("RUST_LOG", "trace");
    let mut program = scene.launch(command, "refused");
    let status = program.wait(SOON);
    let log = program.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let last =
        log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("no error in\n{log}"));
    for word in words {
        assert!(last.contains(word), "{word:?} is not in {last}");
    }
    assert!(!log.contains(WRONG), "a secret was logged");
    let url = url::Url::parse(&scene.database.url()).expect("a URL");
    let password = url.password().expect("a password");
    assert!(!log.contains(password), "the database's password was logged");
}

/// The scene's `run`, with another database URL.
fn on_database(scene: &Scene, url: &str) -> Command {
    let mut command = scene.command_without_database("a", &[]);
    command.args(["--database-url", url]);
    command
}

#[test]
fn synchronous_commit_off_is_refused() {
    let scene = Scene::new(1);
    let words = ["synchronous_commit is off", "ALTER ROLE"];
    let url = format!("{}?options=-c%20synchronous_commit%3Doff", scene.database.url());
    refused(&scene, on_database(&scene, &url), &words);
    run_on(
        &Servers::shared().database_url,
        &format!("ALTER DATABASE {} SET synchronous_commit = off", scene.database.name()),
    );
    refused(&scene, scene.command("a", &[]), &words);
    // The URL's options can set it right where the database's setting cannot be changed.
    let url = format!("{}?options=-c%20synchronous_commit%3Don", scene.database.url());
    let mut verifier = scene.launch(on_database(&scene, &url), "durable");
    verifier.said("verifying", SOON);
    verifier.stop();
}

#[test]
fn missing_topics_are_all_named_with_the_command_that_creates_them() {
    let scene = Scene::new(1);
    scene.kafka.delete(&scene.topic("accepted"));
    scene.kafka.delete(&scene.topic("dead"));
    let (accepted, dead) = (scene.topic("accepted"), scene.topic("dead"));
    refused(&scene, scene.command("a", &[]), &["missing", &accepted, &dead, "stock-verifier topics create"]);
}

#[test]
fn a_wrong_database_password_is_said_but_not_shown() {
    let scene = Scene::new(1);
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    url.set_password(Some(WRONG)).expect("a password");
    refused(
        &scene,
        on_database(&scene, url.as_str()),
        &["PostgreSQL", "password authentication failed", "--database-url"],
    );
    // The same from a file.
    std::fs::write(scene.file("password"), format!("{WRONG}\n")).expect("written");
    let file = scene.file("password");
    let command = scene.command("a", &["--database-password-file", file.to_str().expect("UTF-8")]);
    refused(&scene, command, &["password authentication failed", "--database-password-file"]);
}

#[test]
fn a_database_password_can_come_from_a_file() {
    let scene = Scene::new(1);
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    std::fs::write(scene.file("password"), format!("{}\n", url.password().expect("a password")))
        .expect("written");
    url.set_password(None).expect("no password");
    let mut command = on_database(&scene, url.as_str());
    command.arg("--database-password-file").arg(scene.file("password"));
    let mut verifier = scene.launch(command, "from-file");
    verifier.said("verifying", SOON);
    verifier.stop();
}

#[test]
fn a_topic_created_a_moment_later_is_waited_for() {
    let scene = Scene::new(1);
    let dead = scene.topic("dead");
    scene.kafka.delete(&dead);
    let mut verifier = scene.start("a", &[]);
    // Long enough for it to have looked once; were it not, the test would only prove less.
    std::thread::sleep(Duration::from_millis(700));
    // It waits for three seconds, which making a topic may take: so it looks again only when the topic is there.
    verifier.signal("STOP");
    scene.kafka.create(&dead, 1);
    verifier.signal("CONT");
    verifier.said("verifying", SOON);
    verifier.stop();
}

#[test]
fn an_unreachable_database_is_said() {
    let scene = Scene::new(1);
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    url.set_port(Some(1)).expect("a port");
    refused(&scene, on_database(&scene, url.as_str()), &["PostgreSQL", "refused", "--database-url"]);
    url = url::Url::parse(&scene.database.url()).expect("a URL");
    url.set_path("no_such_database");
    refused(
        &scene,
        on_database(&scene, url.as_str()),
        &["no_such_database", "does not exist", "--database-url"],
    );
}

#[test]
fn no_database_at_all_is_said() {
    let scene = Scene::new(1);
    let mut command = program();
    command.args(["run", "--brokers", &scene.kafka.brokers]);
    refused(&scene, command, &["--database-url", "STOCK_VERIFIER_DATABASE_URL"]);
}

#[test]
fn an_unreachable_broker_is_said() {
    let scene = Scene::new(1);
    let command = scene.command_without_brokers("a", &["--brokers", "127.0.0.1:1"]);
    refused(&scene, command, &["Kafka", "127.0.0.1:1", "--brokers"]);
}

#[test]
fn a_wrong_sasl_password_is_said_but_not_shown() {
    let scene = Scene::new(1);
    let brokers = setting("KAFKA_SASL_BROKERS");
    let user = setting("KAFKA_SASL_USER");
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let mut command = scene.command_without_brokers("a", &["--brokers", &brokers]);
        command
            .args(["-X", "security.protocol=sasl_plaintext", "-X", &format!("sasl.mechanism={mechanism}")])
            .args(["-X", &format!("sasl.username={user}"), "-X", &format!("sasl.password={WRONG}")]);
        refused(&scene, command, &["Kafka", "uthentication", "sasl.*"]);
    }
}

#[test]
fn an_unmigrated_database_names_the_command_that_migrates_it() {
    let mut scene = Scene::new(1);
    scene.database = Database::empty(&Servers::shared().database_url);
    refused(&scene, scene.command("a", &[]), &["stock-verifier migrate", "--migrate"]);
    let mut verifier = scene.start("a", &["--migrate"]);
    verifier.said("verifying", SOON);
    verifier.stop();
}

#[test]
fn a_newer_database_is_refused() {
    let scene = Scene::new(1);
    scene.database.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999999999999, 'of the future', true, '', 0)",
    );
    let words = ["99999999999999", "newer", "run the newer program"];
    refused(&scene, scene.command("a", &[]), &words);
    refused(&scene, scene.command("a", &["--migrate"]), &words);
    let mut migrate = program();
    migrate.args(["migrate", "--database-url", &scene.database.url()]);
    refused(&scene, migrate, &words);
}

#[test]
fn a_newer_database_that_lets_this_program_run_is_used_and_left_as_it_is() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 1)]);
    scene.database.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999999999999, 'of the future oldest 3', true, '', 0)",
    );
    let migrations = || scene.database.number("SELECT count(*) FROM _sqlx_migrations");
    let before = migrations();
    let mut verifier = scene.start("a", &["--migrate"]);
    verifier.said("a newer program migrated the ledger, and lets this one run", SOON);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(migrations(), before);
}

#[test]
fn an_outdated_database_names_the_command_that_migrates_it() {
    let scene = Scene::new(1);
    scene.database.run("DELETE FROM _sqlx_migrations WHERE version > 1");
    refused(&scene, scene.command("a", &[]), &["this program needs", "stock-verifier migrate"]);
}

#[test]
fn a_second_process_under_the_same_instance_id_takes_over_and_the_first_says_so() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    let mut first = scene.start("a", &[]);
    scene.done(SOON);
    let mut second = scene.start("a", &[]);
    second.said("the group has a member of this instance's name", SOON);
    // Once it owns the partition or not: publishing under the old epoch is what shows it.
    let mut number = 1;
    crate::support::wait::until("the first is fenced", Duration::from_secs(60), || {
        number += 1;
        scene.produce(&[order(&format!("o-{number}"), &[("MUG", 1)])]);
        scene.done(SOON);
        first.ended().is_some()
    });
    assert_eq!(first.wait(SOON).code(), Some(1));
    assert!(first.log().contains("--instance-id"), "{}", first.log());
    scene.done(SOON);
    second.stop();
    scene.prove();
}
