//! Faults of the database.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::{Report, SOON, doctor, healthy};
use crate::support::database::{Database, boolean_on, run_on, unique};
use crate::support::postgres::{Postgres, with_lib};
use crate::support::process::program;
use crate::support::proxy::{Act, Proxy, Wire};
use crate::support::servers::Servers;
use crate::support::wait;

#[test]
fn settings_of_the_database_are_judged_each_with_what_to_do() {
    let scene = healthy();
    let name = scene.database.name().to_owned();
    let set = |setting: &str| scene.database.run(&format!("ALTER DATABASE {name} SET {setting}"));

    set("default_transaction_isolation = 'repeatable read'");
    doctor(&scene).is_well().finds(
        "note",
        "database.isolation",
        &["repeatable read", "RESET default_transaction_isolation"],
    );
    set("synchronous_commit = off");
    doctor(&scene).finds(
        "error",
        "database.settings",
        &["synchronous_commit is off", "SET synchronous_commit = on"],
    );
    scene.database.run(&format!("ALTER DATABASE {name} RESET ALL"));
    set("default_transaction_read_only = on");
    doctor(&scene).finds("error", "database.writable", &["default_transaction_read_only", "waits"]);
    run_on(
        &Servers::shared().database_url,
        &format!("ALTER DATABASE {name} RESET ALL; ALTER DATABASE {name} CONNECTION LIMIT 5"),
    );
    doctor(&scene).finds("warning", "database.connections", &["opens up to 6", "Raise max_connections"]);
    // What doctor itself has open is not counted: as many as a `run` needs are enough, and one fewer is not.
    let limit = |most: i64| {
        run_on(&Servers::shared().database_url, &format!("ALTER DATABASE {name} CONNECTION LIMIT {most}"));
    };
    for (left, severity) in [(6, "ok"), (5, "warning")] {
        // The sessions of the doctor before may not be gone yet.
        wait::until("connections are left to others", SOON, || {
            let others = scene.database.number(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND usesysid IS NOT NULL",
            );
            limit(others + left);
            doctor(&scene).has(severity, "database.connections", &[&format!("{left} connections are left")])
        });
    }
    limit(5);
    // Reads have connections of their own.
    let reads = ["doctor", "--http-listen", "127.0.0.1:0", "--workers", "2"];
    Report::answered(|| scene.tool_on(&reads, &scene.database.url())).finds(
        "warning",
        "database.connections",
        &["opens up to 13"],
    );
}

#[test]
fn a_ledger_without_tables_or_of_another_group_is_named() {
    let scene = healthy();
    let empty = Database::empty(&Servers::shared().database_url);
    let report = Report::answered(|| scene.tool_on(&["doctor"], &empty.url()));
    report.finds("error", "database.migrations", &["no stock ledger yet", "stock-verifier migrate"]);

    scene.database.run("INSERT INTO ledger_group (name) VALUES ('another')");
    doctor(&scene).finds("error", "ledger.group", &["\"another\"", "--take-over-ledger"]);
}

#[test]
fn an_overdue_hold_is_named() {
    let scene = healthy();
    scene.database.run("INSERT INTO holds (expires_at, order_id) VALUES (now() - interval '1 hour', 'h-1')");
    doctor(&scene).finds("warning", "ledger.holds", &["1 holds", "h-1", "docs/replay.md"]);
}

#[test]
fn a_transaction_that_is_idle_and_holds_the_ledgers_locks_is_named_with_its_session() {
    let scene = healthy();
    scene.stock(&[("MUG", 5)]);
    scene.database.holding("SELECT 1 FROM levels FOR UPDATE", || {
        wait::until("it is open for long", SOON, || {
            let words = ["idle in a transaction", "levels", "pg_terminate_backend"];
            doctor(&scene).has("error", "database.locks", &words)
        });
    });
    doctor(&scene).is_well().finds("ok", "database.locks", &[]);
}

#[test]
fn a_table_that_is_locked_keeps_nothing_else_from_being_looked_at() {
    let scene = healthy();
    scene.database.holding("LOCK TABLE ledger_group", || {
        let look = || Report::of(scene.tool(&["doctor"]));
        wait::until("nothing else is without an answer", SOON, || {
            let report = look();
            report.finds("note", "ledger.group", &["no answer within", "lock"]);
            report.has("ok", "ledger.holds", &[])
        });
        wait::until("the lock is named", SOON, || {
            look().has("error", "database.locks", &["ledger_group", "pg_terminate_backend"])
        });
    });
}

#[test]
fn a_role_that_may_only_read_is_told_what_it_lacks() {
    let scene = healthy();
    let role = unique("reader");
    scene.database.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'a-password-of-a-test';
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE SELECT ON holds FROM {role}"
    ));
    let mut url = url::Url::parse(&scene.database.url()).expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("a-password-of-a-test")).expect("a password");
    let report = Report::answered(|| scene.tool_on(&["doctor"], url.as_str()));
    report.finds(
        "error",
        "database.permissions",
        &["INSERT on decisions", "USAGE on ledger_seq", "SELECT on holds", "docs/permissions.md"],
    );
    // What it may not see is not taken for well.
    report.finds("note", "ledger.holds", &["cannot look", "permission denied"]);
    scene.database.holding("LOCK TABLE levels IN ROW EXCLUSIVE MODE", || {
        let report = Report::answered(|| scene.tool_on(&["doctor"], url.as_str()));
        report.finds("note", "database.locks", &["levels", "may not see", "pg_monitor"]);
    });
    scene.database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_database_that_is_away_or_says_nothing_is_an_error_in_time() {
    let scene = healthy();
    let report = Report::answered(|| scene.tool_on(&["doctor"], "postgres://stock@127.0.0.1:1/stock"));
    report.finds("error", "database.connection", &["refused", "--database-url"]);
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let report = Report::of(scene.tool_on(&["doctor"], &format!("postgres://stock@{address}/stock")));
    report.finds("error", "database.connection", &["says nothing", "--database-url"]);
}

#[test]
fn a_file_is_looked_at_as_far_as_it_fits() {
    let scene = healthy();
    let url = format!("sqlite://{}", scene.file("ledger.db").display());
    let missing = Report::answered(|| scene.tool_on(&["doctor"], &url));
    missing.finds("error", "database.connection", &["there is no ledger at", "stock-verifier migrate"]);
    let mut migrate = program();
    assert!(migrate.args(["migrate", "--database-url", &url]).status().expect("it runs").success());
    let report = Report::answered(|| scene.tool_on(&["doctor"], &url));
    report.is_well();
    for check in
        ["database.settings", "database.locks", "database.migrations", "ledger.group", "ledger.holds"]
    {
        report.finds("ok", check, &[]);
    }
    // Another process has its write lock.
    crate::support::servers::wait_for(async {
        let mut other =
            <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.expect("the file is opened");
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("locked");
        let report = Report::of(scene.tool_on(&["doctor"], &url));
        report.finds("error", "database.locks", &["write lock", "fuser"]);
    });
}

#[test]
fn a_prepared_transaction_is_named_with_how_to_end_it() {
    let scene = healthy();
    let postgres = Postgres::start_with("stock", "max_prepared_transactions = 5");
    let url = postgres.url();
    let mut migrate = program();
    assert!(migrate.args(["migrate", "--database-url", &url]).status().expect("it runs").success());
    run_on(&url, "BEGIN; LOCK TABLE levels IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'shop-7'");
    wait::until("it is prepared for long", SOON, || {
        let report = Report::of(scene.tool_on(&["doctor"], &url));
        let is_named =
            report.has("error", "database.locks", &["\"shop-7\"", "levels", "ROLLBACK PREPARED 'shop-7'"]);
        // On a busy machine it may have to say that it could not look, or not even connect.
        let is_unknown = report.has("note", "database.locks", &["cannot look"])
            || report.has("error", "database.connection", &["says nothing"]);
        assert!(is_named || is_unknown || report.has("ok", "database.locks", &[]), "{:#}", report.json);
        // A server whose disk may forget what it was told.
        is_named && report.has("warning", "database.settings", &["fsync is off", "postgresql.conf"])
    });
    run_on(&url, "ROLLBACK PREPARED 'shop-7'");
    wait::until("nothing is prepared any more", SOON, || {
        Report::of(scene.tool_on(&["doctor"], &url)).has("ok", "database.locks", &[])
    });
}

/// A server with a ledger, and its URL.
fn server_with(more: &str) -> (Postgres, String) {
    let postgres = Postgres::start_with("stock", more);
    let url = postgres.url();
    let mut migrate = program();
    assert!(migrate.args(["migrate", "--database-url", &url]).status().expect("it runs").success());
    (postgres, url)
}

/// A tool of PostgreSQL that copies what a server writes, and ends when that is away, or this is dropped.
struct Copying(Child);

impl Copying {
    fn start(tool: &str, words: &[&str]) -> Self {
        let tool = format!("{}/{tool}", with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let mut command = Command::new(tool);
        command.arg("--no-loop").args(words).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it runs"))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_only_copies_the_log_or_follows_some_tables_is_taken_for_no_standby() {
    let scene = healthy();
    let (primary, url) = server_with("wal_level = logical");
    let folder = scene.file("copied");
    std::fs::create_dir(&folder).expect("a folder");
    let folder = folder.display().to_string();
    let _log = Copying::start("pg_receivewal", &["--directory", &folder, "--dbname", &url]);
    let slot = ["--slot", "shop", "--create-slot", "--start", "--file", "-", "--dbname", &url];
    let plugin =
        ["--plugin", "pgoutput", "--option", "proto_version=1", "--option", "publication_names=shop"];
    let _tables = Copying::start("pg_recvlogical", &[&slot[..], &plugin[..]].concat());
    wait::until("both copy", SOON, || boolean_on(&url, "SELECT count(*) = 2 FROM pg_stat_replication"));
    let look = || Report::answered(|| scene.tool_on(&["doctor"], &url));
    look().finds("ok", "database.standbys", &["no standby"]);
    let _standby = Postgres::standby_of(&primary);
    wait::until("the standby follows", SOON, || {
        look().has("warning", "database.standbys", &["1 standbys follow"])
    });
}

#[test]
fn commits_that_wait_for_more_standbys_than_there_are_are_named_and_none_is_told_to_be_ended() {
    let scene = healthy();
    let (primary, url) = server_with("");
    let _standby = Postgres::standby_of(&primary);
    let set = |setting: &str| {
        run_on(&url, &format!("ALTER SYSTEM SET synchronous_standby_names = '{setting}'"));
        run_on(&url, "SELECT pg_reload_conf()");
    };
    let look = || Report::answered(|| scene.tool_on(&["doctor"], &url));
    set("ANY 1 (walreceiver, elsewhere)");
    wait::until("a commit waits for the one that there is", SOON, || {
        look().has("ok", "database.standbys", &["ANY 1 (walreceiver, elsewhere)"])
    });
    set("ANY 2 (walreceiver, elsewhere)");
    wait::until("there are too few", SOON, || {
        look().has("error", "database.standbys", &["2 of them are needed, and 1 are connected", "Bring"])
    });
    let committing = std::thread::spawn({
        let url = url.clone();
        move || {
            run_on(
                &url,
                "INSERT INTO levels (sku, location, available, version, backorder_limit) VALUES ('MUG', '', 7, 1, 0)",
            );
        }
    });
    wait::until("the commit is named", SOON, || {
        let report = look();
        let all: Vec<_> = ["warning", "error"].iter().flat_map(|severity| report.all(severity)).collect();
        assert!(all.iter().all(|(.., advice)| !advice.contains("pg_terminate_backend")), "{all:?}");
        report.has("warning", "database.locks", &["waits for a synchronous standby", "Do not end it"])
    });
    set("");
    committing.join().expect("it is committed");
    wait::until("nothing waits any more", SOON, || look().has("ok", "database.locks", &[]));
}

#[test]
fn a_database_that_falls_silent_is_waited_for_within_the_time() {
    let scene = healthy();
    let shared = url::Url::parse(&scene.database.url()).expect("a URL");
    let upstream = format!("127.0.0.1:{}", shared.port().expect("a port"));
    // Settings are asked for in the middle.
    let proxy = Proxy::start(Wire::Postgres, "127.0.0.1:0", &upstream, |request| {
        let is_asked = request.windows(15).any(|part| part == b"ignore_checksum");
        if is_asked { Act::Silence } else { Act::Pass }
    });
    let mut url = shared.clone();
    url.set_port(Some(proxy.address.port())).expect("a port");
    let report = Report::of(scene.tool_on(&["doctor"], url.as_str()));
    assert!(proxy.acted() > 0, "nothing was asked");
    report.finds("ok", "database.connection", &[]).finds("ok", "kafka.connection", &[]);
    report.finds("note", "database.settings", &["no answer within", "Look again"]);
}
