//! Settings: a flag is stronger than the environment, and that is stronger than the file.

use std::process::Command;
use std::time::Duration;

use crate::support::process::program;
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

/// Everything in a file, under the names of the flags.
fn from_file(scene: &Scene, more: &str) -> Command {
    let file = scene.file("settings.toml");
    let text = format!(
        "brokers = {:?}\ndatabase-url = {:?}\ngroup = \"{}-file\"\ninstance-id = \"from-file\"\n\
         orders-topic = {:?}\naccepted-topic = {:?}\nrejected-topic = {:?}\nlevels-topic = {:?}\n\
         dead-letter-topic = {:?}\nadjustments-topic = {:?}\nbatch-max-orders = 100\nbatch-max-bytes = \"1MiB\"\nbatch-max-age = \"5ms\"\nstop-timeout = \"30s\"\n{more}",
        scene.kafka.brokers,
        scene.database.url(),
        scene.name,
        scene.topic("orders"),
        scene.topic("accepted"),
        scene.topic("rejected"),
        scene.topic("levels"),
        scene.topic("dead"),
        scene.topic("adjustments"),
    );
    std::fs::write(&file, text).expect("written");
    let mut command = program();
    command.arg("run").env("STOCK_VERIFIER_CONFIG", file);
    command
}

/// The command runs in this group.
#[track_caller]
fn runs_in(scene: &Scene, command: Command, group: &str) {
    let mut verifier = scene.launch(command, group);
    verifier.said(&format!("group=\"{}-{group}\"", scene.name), SOON);
    verifier.stop();
}

/// The command is refused for this word.
#[track_caller]
fn refused(scene: &Scene, command: Command, word: &str) {
    let mut verifier = scene.launch(command, "refused");
    let status = verifier.wait(SOON);
    let log = verifier.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    assert!(log.contains(word), "{word} is not in {log}");
}

#[test]
fn a_flag_is_stronger_than_the_environment_and_that_is_stronger_than_the_file() {
    let scene = Scene::new(1);
    runs_in(&scene, from_file(&scene, ""), "file");
    let by_environment = || {
        let mut command = from_file(&scene, "");
        command.env("STOCK_VERIFIER_GROUP", format!("{}-environment", scene.name));
        // The ledger is of the group before.
        command.env("STOCK_VERIFIER_TAKE_OVER_LEDGER", "true");
        command
    };
    runs_in(&scene, by_environment(), "environment");
    let mut by_flag = by_environment();
    by_flag.args(["--group", &format!("{}-flag", scene.name)]);
    runs_in(&scene, by_flag, "flag");
}

#[test]
fn properties_come_from_flags_environment_and_file() {
    let scene = Scene::new(1);
    // A property that does not exist is named in the refusal, which shows that it arrived.
    refused(
        &scene,
        from_file(&scene, "[property]\n\"no.such.file.property\" = 1\n"),
        "no.such.file.property",
    );
    let mut command = from_file(&scene, "");
    command.env("STOCK_VERIFIER_PROPERTY", "linger.ms=1\nno.such.environment.property=1");
    refused(&scene, command, "no.such.environment.property");
    let mut command = from_file(&scene, "");
    command.args(["-X", "linger.ms=1", "-X", "no.such.flag.property=1"]);
    refused(&scene, command, "no.such.flag.property");
    let mut command = from_file(&scene, "");
    command.args(["-X", "enable.auto.commit=true"]);
    refused(&scene, command, "enable.auto.commit is set by the verifier itself");
    // Under another name that librdkafka has for it, too.
    let mut command = from_file(&scene, "");
    command.args(["-X", "metadata.broker.list=127.0.0.1:1"]);
    refused(&scene, command, "metadata.broker.list is set by the verifier itself");
    // And good ones are taken.
    runs_in(&scene, from_file(&scene, "[property]\n\"statistics.interval.ms\" = 0\n"), "file");
}

#[test]
fn plain_database_url_is_read_when_its_own_is_not_set() {
    let scene = Scene::new(1);
    let mut command = scene.command_without_database("a", &[]);
    command.env("DATABASE_URL", scene.database.url());
    let mut verifier = scene.launch(command, "plain");
    verifier.said("verifying", SOON);
    verifier.stop();
    let mut command = scene.command_without_database("a", &[]);
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    command.env("STOCK_VERIFIER_DATABASE_URL", scene.database.url());
    let mut verifier = scene.launch(command, "own");
    verifier.said("verifying", SOON);
    verifier.stop();
}

/// `audit` with the scene's database in a variable.
fn audit(scene: &Scene) -> Command {
    let mut command = program();
    command.arg("audit").env("STOCK_VERIFIER_DATABASE_URL", scene.database.url());
    command.env("STOCK_VERIFIER_BROKERS", &scene.kafka.brokers).env("STOCK_VERIFIER_GROUP", &scene.name);
    command
}

#[test]
fn a_switch_is_said_in_a_variable_as_people_say_it() {
    let scene = Scene::new(1);
    let left_out = "--offsets reads what Kafka has";
    for (text, on) in [
        ("1", true),
        ("yes", true),
        ("on", true),
        ("true", true),
        ("TRUE\n", true),
        ("0", false),
        ("no", false),
        ("off", false),
        ("false", false),
        ("", false),
        (" \n", false),
    ] {
        let output = audit(&scene).env("STOCK_VERIFIER_OFFSETS", text).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text:?}: {output:?}");
        assert_eq!(said.contains(left_out), !on, "{text:?}: {said}");
    }
    let output = audit(&scene).env("STOCK_VERIFIER_OFFSETS", "perhaps").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = from_file(&scene, "offsets = \"no\"\n").arg("--help").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    let scene = Scene::new(1);
    let page = program().arg("settings").output().expect("it runs").stdout;
    let page = String::from_utf8(page).expect("UTF-8");
    let variables: Vec<&str> =
        page.split('`').filter(|word| word.starts_with("STOCK_VERIFIER_") && !word.contains(' ')).collect();
    assert!(variables.len() > 25, "{variables:?}");
    for nothing in ["", "\n"] {
        let mut command = program();
        command.envs(variables.iter().map(|name| (name, nothing)));
        command.args(["audit", "--offsets", "--brokers", &scene.kafka.brokers, "--group", &scene.name]);
        command.env("DATABASE_URL", scene.database.url());
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_end_of_a_line_is_no_part_of_a_variable() {
    let scene = Scene::new(1);
    let mut command = program();
    command.arg("run");
    let password = scene.file("password");
    let url = url::Url::parse(&scene.database.url()).expect("a URL");
    std::fs::write(&password, format!("{}\n", url.password().expect("a password"))).expect("written");
    let settings = scene.file("settings.toml");
    std::fs::write(&settings, format!("group = \" {}-file \\n\"\ninstance-id = \"\"\n", scene.name))
        .expect("written");
    for (name, value) in [
        ("CONFIG", settings.display().to_string()),
        ("BROKERS", scene.kafka.brokers.clone()),
        ("DATABASE_URL", scene.database.url()),
        ("DATABASE_PASSWORD_FILE", password.display().to_string()),
        ("ORDERS_TOPIC", scene.topic("orders")),
        ("ACCEPTED_TOPIC", scene.topic("accepted")),
        ("REJECTED_TOPIC", scene.topic("rejected")),
        ("LEVELS_TOPIC", scene.topic("levels")),
        ("DEAD_LETTER_TOPIC", scene.topic("dead")),
        ("ADJUSTMENTS_TOPIC", scene.topic("adjustments")),
        ("BATCH_MAX_AGE", "5ms".to_owned()),
        ("BATCH_MAX_BYTES", "1MiB".to_owned()),
        ("BATCH_MAX_ORDERS", "100".to_owned()),
        ("WORKERS", "1".to_owned()),
        ("GROUP_PROTOCOL", "classic".to_owned()),
        ("LOG_FORMAT", "pretty".to_owned()),
        ("PROPERTY", "linger.ms=1\r\n\n compression.codec=zstd".to_owned()),
        ("MIGRATE", "yes".to_owned()),
    ] {
        command.env(format!("STOCK_VERIFIER_{name}"), value + " \r\n");
    }
    runs_in(&scene, command, "file");
}

#[test]
fn a_setting_that_does_not_exist_is_named_and_so_is_its_file() {
    let scene = Scene::new(1);
    refused(&scene, from_file(&scene, "grup = \"x\"\n"), "grup is not a setting");
    refused(&scene, from_file(&scene, "grup = \"x\"\n"), "settings.toml");
    refused(&scene, from_file(&scene, "this is no TOML"), "settings.toml");
    let mut command = scene.command("a", &[]);
    command.args(["--config", "/no/such/file.toml"]);
    refused(&scene, command, "/no/such/file.toml");
}

#[test]
fn topics_are_created_once_and_levels_are_compacted() {
    let scene = Scene::new(1);
    let prefix = format!("{}.new", scene.name);
    let create = || {
        let mut command = program();
        command.args(["topics", "create", "--brokers", &scene.kafka.brokers, "--partitions", "3"]);
        for which in ["orders", "adjustments", "accepted", "rejected", "levels", "dead-letter"] {
            command.args([format!("--{which}-topic"), format!("{prefix}.{which}")]);
        }
        let mut done = scene.launch(command, "topics");
        assert_eq!(done.wait(SOON).code(), Some(0), "{}", done.log());
        done.log()
    };
    assert_eq!(create().matches("created ").count(), 6);
    assert_eq!(create().matches("exists ").count(), 6);
    // The broker may know them a moment after the controller has made them.
    for which in ["orders", "levels"] {
        let topic = format!("{prefix}.{which}");
        wait::until("the topic is known", SOON, || scene.kafka.partitions(&topic) > 0);
    }
    assert_eq!(scene.kafka.partitions(&format!("{prefix}.orders")), 3);
    assert_eq!(scene.kafka.config(&format!("{prefix}.levels"), "cleanup.policy"), "compact");
    assert_eq!(scene.kafka.config(&format!("{prefix}.orders"), "cleanup.policy"), "delete");
    for which in ["orders", "adjustments", "accepted", "rejected", "levels", "dead-letter"] {
        scene.kafka.delete_if_there(&[&format!("{prefix}.{which}")]);
    }
}

/// A symbol that the allocator does not look for would be ignored in silence.
#[cfg(target_os = "linux")]
#[test]
fn the_allocator_has_the_settings_that_main_gives_it() {
    let output = program().arg("--version").env("MALLOC_CONF", "stats_print:true").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    for setting in ["opt.narenas: 2\n", "opt.dirty_decay_ms: 1000 "] {
        assert!(said.contains(setting), "{setting:?} is not in {said}");
    }
}
