//! What `migrate --citus` refuses, with what to do.

use crate::support::database::Database;
use crate::support::process::program;
use crate::support::servers::Servers;

/// Runs it, and expects a refusal of all these words.
fn expect_refusal(url: &str, more: &[&str], words: &[&str]) {
    let ended =
        program().args(["migrate", "--citus", "--database-url", url]).args(more).output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn a_server_without_citus_is_refused_with_what_to_do_and_nothing_is_made() {
    let database = Database::empty(&Servers::shared().database_url);
    let words =
        ["extension citus is not there", "13.0 or newer", "shared_preload_libraries", "CREATE EXTENSION"];
    expect_refusal(&database.url(), &[], &words);
    expect_refusal(&database.url(), &["--citus-shards", "8"], &words);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.number(tables), 0);
}

#[test]
fn a_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/ledger.db", folder.path().display());
    expect_refusal(&url, &[], &["--citus", "SQLite file"]);
}

#[test]
#[ignore = "needs a Citus cluster: CITUS_URL=… tests/run --all"]
fn citus_refuses_a_ledger_that_is_not_empty_a_worker_and_one_distributed_in_part() {
    let database = Database::undistributed_on_cluster();
    database.run("INSERT INTO levels VALUES ('MUG', '', 1, 1, 0, NULL)");
    expect_refusal(&database.url(), &[], &["not empty", "levels has rows", "replay rebuild --into"]);
    database.run("DELETE FROM levels; INSERT INTO positions VALUES ('orders', 0, 1)");
    expect_refusal(&database.url(), &[], &["positions has rows"]);
    database.run("DELETE FROM positions");

    let worker = database.other_nodes().remove(0);
    expect_refusal(&worker, &[], &["worker", "the coordinator"]);

    database.run("SELECT create_distributed_table('holds', 'order_id')");
    let words = ["right for 1 of 5 tables", "undistribute_table"];
    expect_refusal(&database.url(), &[], &words);
    // Whoever uses it is told the same.
    let got = program().args(["stock", "--database-url", &database.url(), "get"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&got.stderr).into_owned();
    assert!(!got.status.success() && words.iter().all(|word| said.contains(word)), "{said}");

    database.run("SELECT undistribute_table('holds')");
    for _ in 0..2 {
        let mut migrate = program();
        migrate.args(["migrate", "--citus", "--citus-shards", "4", "--database-url", &database.url()]);
        let migrated = migrate.output().expect("it runs");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }
    assert_eq!(
        database.number("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'levels'::regclass"),
        4
    );
}
