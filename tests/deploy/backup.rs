//! A base backup and an archive of the log, restored: to the last commit, and to an older moment.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::database::{boolean_on, run_on};
use crate::support::kafka::{order, sent};
use crate::support::postgres::Postgres;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::servers::{Servers, heavy};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

/// A server with an archive of its log, as docs/operations.md has it.
fn archiving(archive: &Path) -> Postgres {
    let page = super::PAGE;
    let setting = |name: &str| page.lines().find(|line| line.starts_with(name)).expect(name);
    let command =
        setting("archive_command").replace("/var/lib/stock-archive", archive.to_str().expect("UTF-8"));
    Postgres::start_with("stock", &format!("{}\n{command}\n", setting("archive_mode")))
}

/// So many orders of one mug each, named after this.
fn produce(scene: &Scene, name: &str, count: usize) {
    let orders: Vec<_> = (0..count).map(|number| order(&format!("{name}-{number}"), &[("MUG", 1)])).collect();
    scene.produce(&orders);
}

/// A verifier on this database.
fn start(scene: &Scene, url: &str) -> Verifier {
    let mut command = scene.command_without_database("a", &[]);
    command.args(["--database-url", url]);
    scene.launch(command, "a")
}

#[track_caller]
fn published(scene: &Scene, accepted: usize) {
    wait::until("everything is published", SOON, || scene.kafka.count(&scene.topic("accepted")) == accepted);
    scene.transactions_ended(SOON);
}

/// Runs one of the program's other commands on this database.
#[track_caller]
fn succeeds(scene: &Scene, words: &[&str], url: &str) -> String {
    let done = scene.tool_on(words, url).output().expect("it runs");
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{words:?}: {said}");
    said
}

#[test]
#[ignore = "needs a PostgreSQL of its own, backed up and restored twice: tests/run --all"]
fn a_backup_restored_to_the_last_commit_goes_on_and_one_of_an_older_moment_is_refused_and_rebuilt() {
    heavy();
    let archive = tempfile::tempdir().expect("a directory");
    // The server's user writes to it.
    std::fs::set_permissions(archive.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("permissions");
    let mut server = archiving(archive.path());
    let servers = Servers { database_url: server.url(), ..Servers::shared() };
    let scene = Scene::on(&servers, 2);
    let of = |postgres: &Postgres| {
        let mut url = url::Url::parse(&postgres.url()).expect("a URL");
        url.set_path(scene.database.name());
        url.to_string()
    };

    let mug = json!({"type": "stock.received", "adjustment_id": "a-1", "sku": "MUG", "quantity": 1000});
    scene.kafka.produce(&scene.topic("adjustments"), &[sent("MUG", mug.to_string())]);
    let verifier = start(&scene, &of(&server));
    published(&scene, 1);
    produce(&scene, "before", 100);
    published(&scene, 101);
    let backup = server.backup();
    produce(&scene, "after", 100);
    published(&scene, 201);
    verifier.stop();
    // What a standby or pg_receivewal does all the time: the end of the log is elsewhere too.
    run_on(&server.url(), "SELECT pg_switch_wal()");
    wait::until("the log's last file is archived", SOON, || {
        boolean_on(
            &server.url(),
            "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver",
        )
    });
    server.kill();

    // To the last commit: it goes on as after a crash.
    let newest = Postgres::restore(&backup, Some(archive.path()));
    let verifier = start(&scene, &of(&newest));
    produce(&scene, "later", 50);
    published(&scene, 251);
    verifier.stop();
    succeeds(&scene, &["audit", "--topics", "--offsets"], &of(&newest));

    // To an older moment: results are out that it does not know. Nothing is decided on it.
    let older = Postgres::restore(&backup, None);
    let mut refused = start(&scene, &of(&older));
    assert_eq!(refused.wait(SOON).code(), Some(1));
    let log = refused.log();
    for words in ["went back in time", "stock-verifier audit"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_eq!(scene.kafka.count(&scene.topic("accepted")), 251, "{log}");

    // Made again from the topics, which have everything: the shop's stock came by them too.
    let rebuilt = format!("sqlite://{}", scene.file("rebuilt.db").display());
    let words = ["replay", "rebuild", "--into", &rebuilt, "--from-topics-alone", "--execute"];
    succeeds(&scene, &words, &of(&older));
    let verifier = start(&scene, &rebuilt);
    produce(&scene, "again", 50);
    published(&scene, 301);
    verifier.stop();
    let audit = succeeds(&scene, &["audit", "--offsets"], &rebuilt);
    assert!(audit.contains("301 decisions"), "{audit}");
    let mut get = program();
    get.args(["stock", "--database-url", &rebuilt, "get", "MUG"]);
    let level = String::from_utf8(get.output().expect("it runs").stdout).expect("UTF-8");
    assert!(level.contains("700"), "{level}");
}
