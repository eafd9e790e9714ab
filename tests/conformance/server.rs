//! What a PostgreSQL server, its roles and its databases can be set to, and what else can be in a database.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use stock_verifier::ledger::Id;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{
    CommandBatch, LedgerAdmin as _, LedgerHistory as _, LedgerReader as _, LedgerWriter as _, StoreError,
    WorkQueue as _,
};

use super::{expect_no_findings, levels};
use crate::on_every_database;
use crate::support::database::unique;
use crate::support::servers::setting;
use crate::support::{TestDatabase, batch, cancelled, order, set, words};

// Its table of migrations is damaged by SQL.
on_every_database![another_programs_migrations_are_not_taken_for_ours];

/// Longest wait for what takes milliseconds.
const SOON: Duration = Duration::from_secs(8);

/// A database's name, from its URL.
fn name_of(database: &TestDatabase) -> String {
    let url = url::Url::parse(&database.url()).expect("a URL");
    url.path().trim_start_matches('/').to_owned()
}

/// A store on the database by a URL with these options.
async fn with_options(database: &TestDatabase, options: &str) -> PostgresStore {
    let mut url = url::Url::parse(&database.url()).expect("a URL");
    url.query_pairs_mut().append_pair("options", options);
    PostgresStore::open(url.as_str(), Connections { batches: 2, readers: 2, others: 2 }).await.expect("opens")
}

/// States a setting for everyone who connects to the database from now on.
async fn set_default(database: &TestDatabase, setting: &str) {
    set_defaults(database, &[setting]).await;
}

/// The same of several, by one session: it began before any of them, so none of them ends it.
async fn set_defaults(database: &TestDatabase, settings: &[&str]) {
    let name = name_of(database);
    let statements: Vec<_> =
        settings.iter().map(|setting| format!("ALTER DATABASE {name} SET {setting}")).collect();
    database.execute(&statements.join("; ")).await;
}

/// Waits until so many sessions wait for a lock.
pub(super) async fn waiting(connection: &mut PgConnection, number: i64) {
    let begun = std::time::Instant::now();
    loop {
        let now: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *connection)
        .await
        .expect("activity");
        if now == number {
            return;
        }
        assert!(begun.elapsed() < SOON, "{now} sessions wait for a lock, not {number}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The text of an error and of all that caused it.
fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_sees_a_cancellation_decided_while_it_waited_whatever_isolation_is_usual_there() {
    let database = Arc::new(TestDatabase::postgres_migrated().await);
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "CUP", 10, None)])).await.unwrap();
    store.close().await;
    set_default(&database, "default_transaction_isolation = 'repeatable read'").await;

    let mut holder = PgConnection::connect(&database.url()).await.unwrap();
    let mut looker = PgConnection::connect(&database.url()).await.unwrap();
    holder.execute("BEGIN; SELECT 1 FROM levels WHERE sku = 'CUP' FOR UPDATE").await.unwrap();
    // The cancellation waits for the cup, with the gate for itself; its order waits at the gate.
    let (one, other) = (database.open().await, database.open().await);
    let cancelling =
        tokio::spawn(
            async move { one.apply(&batch(vec![cancelled("o-1"), order("o-2", &[("CUP", 1)])])).await },
        );
    waiting(&mut looker, 1).await;
    let ordering = tokio::spawn(async move { other.apply(&batch(vec![order("o-1", &[("MUG", 1)])])).await });
    waiting(&mut looker, 2).await;
    holder.execute("ROLLBACK").await.unwrap();

    let cancelled = cancelling.await.unwrap().unwrap();
    let ordered = ordering.await.unwrap().unwrap();
    assert_eq!(words(&cancelled.outcomes), ["accepted", "accepted"]);
    assert_eq!(words(&ordered.outcomes), ["rejected"], "its stock is taken, and nothing will give it back");
    let store = database.open().await;
    assert_eq!(levels(&*store).await, [("CUP".into(), 9, 2), ("MUG".into(), 10, 1)]);
    expect_no_findings(&*store).await;
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_durable_whatever_is_usual_there() {
    let database = TestDatabase::postgres_migrated().await;
    let store = database.ledger().await;
    store.close().await;
    // Asked by the commit itself, of the transaction it ends.
    database
        .execute(
            "CREATE TABLE seen (durability text);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER look AFTER INSERT ON decisions DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
    for (number, (usual, expected)) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ]
    .into_iter()
    .enumerate()
    {
        set_default(&database, &format!("synchronous_commit = {usual}")).await;
        let store = database.open().await;
        store.apply(&batch(vec![set(&format!("a-{number}"), "MUG", 10, None)])).await.unwrap();
        store.close().await;
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let seen: Vec<String> = sqlx::query_scalar("DELETE FROM seen RETURNING durability")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(seen, [expected], "where {usual} is usual");
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_encoding_is_refused_before_anything_is_made() {
    let (server, name) = (setting("DATABASE_URL"), unique("sv_test"));
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let create =
        format!("CREATE DATABASE {name} ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    connection.execute(&*create).await.unwrap();
    let database = TestDatabase::Postgres { server, name };
    let store = database.open().await;
    let refused = store.migrate().await.unwrap_err();
    for word in ["server_encoding", "WIN1252", "UTF8", "CREATE DATABASE"] {
        assert!(whole(&refused).contains(word), "{word} is not in: {}", whole(&refused));
    }
    assert!(!refused.is_transient());
    assert!(matches!(store.check().await, Err(StoreError::Unsuitable { .. })));
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0, "migrate refused, and yet made tables");
    store.close().await;
    drop(connection);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_correctness_rests_on_are_checked_or_set() {
    let database = TestDatabase::postgres_migrated().await;
    let store = database.ledger().await;
    store.close().await;
    // What cannot be set for a session without harm is refused, with what to do.
    for (setting, words) in [
        ("session_replication_role = replica", &["session_replication_role", "replica", "origin"][..]),
        ("zero_damaged_pages = on", &["zero_damaged_pages", "ALTER DATABASE"]),
        ("synchronous_commit = off", &["synchronous_commit is off", "ALTER ROLE"]),
    ] {
        set_default(&database, setting).await;
        let store = database.open().await;
        let refusals = [store.check().await.unwrap_err(), store.migrate().await.unwrap_err()];
        for refused in &refusals {
            for word in words {
                assert!(whole(refused).contains(word), "{word} is not in: {}", whole(refused));
            }
        }
        store.close().await;
        database
            .execute(&format!(
                "ALTER DATABASE {} RESET {}",
                name_of(&database),
                setting.split_once(' ').expect("a name").0
            ))
            .await;
    }
    // What the connection sets for itself counts, whatever is usual there. Two of these would end sessions of this test's
    // own on a busy machine.
    let settings = [
        "statement_timeout = 1",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "row_security = on",
        "client_encoding = LATIN1",
        "idle_session_timeout = 1000",
    ];
    set_defaults(&database, &settings).await;
    let store = database.open().await;
    store.check().await.unwrap();
    // Long enough for a session to be ended that sits idle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    store.apply(&batch(vec![set("a-1", "杯", 10, None), order("o-1", &[("杯", 3)])])).await.unwrap();
    assert_eq!(levels(&*store).await, [("杯".into(), 7, 2)]);
    expect_no_findings(&*store).await;
    store.close().await;
    database.remove().await;
}

/// What is answered once no connection is left that began while the database was read-only.
async fn once_given_up<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    // As many as a pool has.
    for _ in 0..8 {
        match ask().await {
            Err(error) if error.is_transient() => {}
            answer => return answer.unwrap(),
        }
    }
    ask().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_named_can_be_read_and_is_written_once_it_can_be() {
    let database = TestDatabase::postgres_migrated().await;
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    store.close().await;
    set_default(&database, "default_transaction_read_only = on").await;
    let store = database.open().await;
    store.check().await.unwrap();
    assert_eq!(levels(&*store).await.len(), 1);
    let refused = store.check_writable().await.unwrap_err();
    for word in ["read-only", "default_transaction_read_only", "ALTER"] {
        assert!(whole(&refused).contains(word), "{word} is not in: {}", whole(&refused));
    }
    assert!(refused.is_transient(), "an operator may end it at any time");
    assert!(matches!(store.migrate().await, Err(StoreError::ReadOnly { .. })));
    // Every way of writing finds out.
    assert!(store.take_unannounced(1).await.unwrap_err().is_transient());
    assert!(store.take_due_holds(1, SOON).await.unwrap_err().is_transient());
    assert!(store.apply(&batch(vec![order("o-1", &[("MUG", 1)])])).await.unwrap_err().is_transient());

    database
        .execute(&format!(
            "BEGIN READ WRITE; ALTER DATABASE {} RESET default_transaction_read_only; COMMIT",
            name_of(&database)
        ))
        .await;
    // The pool's connections began while it was read-only, and stay so: each is given up when it says so. As a rule there is
    // one.
    once_given_up(async || store.check_writable().await).await;
    once_given_up(async || store.take_unannounced(1).await).await;
    once_given_up(async || store.take_due_holds(1, SOON).await).await;
    once_given_up(async || store.apply(&batch(vec![order("o-1", &[("MUG", 1)])])).await).await;
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_a_compared_batch_its_connection_is_said_and_not_only_that_there_is_a_new_one() {
    let database = TestDatabase::postgres_migrated().await;
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    set_default(&database, "default_transaction_read_only = on").await;
    let mut one = batch(vec![order("o-1", &[("MUG", 1)])]);
    // The connection there is began when it was not; a new one is asked for as a lost one would be.
    for _ in 0..10 {
        match store.applying_positions().await {
            Ok((epoch, _)) => one.epoch = Some(epoch),
            // Of a connection that was ended below.
            Err(lost) => {
                assert!(lost.is_transient(), "{}", whole(&lost));
                continue;
            }
        }
        match store.apply(&one).await {
            Ok(_) => {
                database
                    .execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                         WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    )
                    .await;
                one = batch(vec![order("o-2", &[("MUG", 1)])]);
            }
            Err(refused) if whole(&refused).contains("read-only") => {
                assert!(refused.is_transient());
                store.close().await;
                database.remove().await;
                return;
            }
            Err(StoreError::Reconnected) => {}
            Err(refused) => assert!(refused.is_transient(), "{}", whole(&refused)),
        }
    }
    panic!("it never said that the database is read-only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_may_take_longer_than_a_batch() {
    let database = TestDatabase::postgres().await;
    // Each statement that makes something says under which limits it ran.
    database
        .execute(
            "CREATE TABLE limits (statement text, lock text, idle text);
             CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO limits VALUES (current_setting('statement_timeout'), current_setting('lock_timeout'),
                                            current_setting('idle_in_transaction_session_timeout'));
             END $$;
             CREATE EVENT TRIGGER look ON ddl_command_end EXECUTE FUNCTION look()",
        )
        .await;
    // Long enough for this test's own statements.
    set_default(&database, "statement_timeout = '1min'").await;
    let store = database.open().await;
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.close().await;
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let limits: Vec<(String, String)> = sqlx::query_as("SELECT DISTINCT statement, lock FROM limits")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let [(statement, lock)] = &limits[..] else { panic!("{limits:?}") };
    assert_eq!(statement, "0", "an index on a large ledger could never be built");
    assert_ne!(lock, "0", "a lock that somebody holds would be waited for without a bound");
    drop(connection);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_another_within_a_bound_and_says_for_what() {
    let database = TestDatabase::postgres().await;
    let store = database.open().await;
    let mut holder = PgConnection::connect(&database.url()).await.unwrap();
    // As another process does that migrates, and is frozen.
    holder.execute("BEGIN; CREATE TABLE _sqlx_migrations (version bigint)").await.unwrap();
    let refused = store.migrate().await.unwrap_err();
    for word in ["migrat", "lock", "another"] {
        assert!(whole(&refused).contains(word), "{word} is not in: {}", whole(&refused));
    }
    holder.execute("ROLLBACK").await.unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.close().await;
    database.remove().await;
}

async fn another_programs_migrations_are_not_taken_for_ours(database: Arc<TestDatabase>) {
    let ours = database.ledger().await;
    ours.check().await.unwrap();
    // Its first migration has a number of ours, and something else in it.
    let foreign = "DELETE FROM _sqlx_migrations;
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (1, 'of a shop', true, 'abc', 0)";
    for more in [
        "",
        // More of them, one of which has a number that none of ours will have for long.
        "; INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
           VALUES (20240101000000, 'of a shop', true, 'def', 0)",
        // It numbers by date alone.
        "; UPDATE _sqlx_migrations SET version = 20240101000001",
    ] {
        database.execute(&format!("{foreign}{more}")).await;
        let store = database.open().await;
        let refusals = [store.check().await.unwrap_err(), store.migrate().await.unwrap_err()];
        for refused in &refusals {
            assert!(matches!(refused, StoreError::Foreign { .. }), "{refused:?}");
            assert!(!refused.is_transient());
            for word in ["another program", "_sqlx_migrations", "a database of its own"] {
                assert!(refused.to_string().contains(word), "{word} is not in: {refused}");
            }
        }
        store.close().await;
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_can_have_a_schema_of_its_own_beside_another_program() {
    let database = TestDatabase::postgres().await;
    database
        .execute(
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
                 installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
                 checksum bytea NOT NULL, execution_time bigint NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (1, 'of a shop', now(), true, 'abc', 0);
             CREATE TABLE levels (of_the_shop text); CREATE TABLE decisions (of_the_shop text)",
        )
        .await;
    let store = with_options(&database, "-c search_path=stock").await;
    let refused = store.migrate().await.unwrap_err();
    for word in ["search_path", "CREATE SCHEMA"] {
        assert!(whole(&refused).contains(word), "{word} is not in: {}", whole(&refused));
    }
    database.execute("CREATE SCHEMA stock").await;
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let applied = store
        .apply(&batch(vec![
            set("a-1", "MUG", 10, None),
            order("o-1", &[("MUG", 3)]),
            cancelled("o-1"),
            order("o-2", &[("MUG", 2)]),
        ]))
        .await
        .unwrap();
    assert_eq!(words(&applied.outcomes), ["accepted"; 4]);
    assert_eq!(levels(&store).await, [("MUG".into(), 8, 4)]);
    assert_eq!(store.snapshot().await.unwrap().count().await.unwrap(), 4);
    expect_no_findings(&store).await;
    store.close().await;
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let here: i64 =
        sqlx::query_scalar("SELECT count(*) FROM stock.decisions").fetch_one(&mut connection).await.unwrap();
    assert_eq!(here, 4);
    drop(connection);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_ours_frozen_in_mid_copy_is_ended_and_no_other() {
    let database = TestDatabase::postgres_migrated().await;
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    // A reader of ours, idle in its transaction for as long as it likes.
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.count().await.unwrap(), 1);

    let session = async |name: &str, begin: &str| {
        let options: sqlx::postgres::PgConnectOptions = database.url().parse().unwrap();
        let mut session = PgConnection::connect_with(&options.application_name(name)).await.unwrap();
        session.execute(begin).await.unwrap();
        session
    };
    let gate = "BEGIN; SELECT pg_advisory_xact_lock_shared(7309940776305091937)";
    let levels_too = format!("{gate}; SELECT FROM levels FOR NO KEY UPDATE");
    let copy = "COPY decisions FROM STDIN WITH (FORMAT binary)";
    let mut frozen = session("stock-verifier", &levels_too).await;
    let mut somebody = session("psql", gate).await;
    let somebodys = somebody.copy_in_raw(copy).await.unwrap();
    let begun = std::time::Instant::now();
    let mut copying = frozen.copy_in_raw(copy).await.unwrap();

    let applied = store.apply(&batch(vec![order("o-1", &[("MUG", 1)])])).await.unwrap();
    assert_eq!(words(&applied.outcomes), ["accepted"]);
    assert!(begun.elapsed() >= Duration::from_secs(30), "ended after {:?}", begun.elapsed());
    // The header alone, which nobody is there to read.
    let sent = async {
        copying.send(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff"[..]).await?;
        copying.finish().await
    };
    sent.await.unwrap_err();
    assert_eq!(snapshot.count().await.unwrap(), 1, "the reader sees what it saw");
    somebodys.abort("enough").await.unwrap();
    somebody.execute("ROLLBACK").await.unwrap();
    expect_no_findings(&*store).await;
    store.close().await;
    drop(snapshot);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_wait_among_themselves_and_hold_up_nobody_who_decides() {
    let database = TestDatabase::postgres_migrated().await;
    database.ledger().await.close().await;
    let one = Connections { batches: 1, readers: 1, others: 1 };
    let store = Arc::new(PostgresStore::open(&database.url(), one).await.unwrap());
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), order("o-1", &[("MUG", 1)])])).await.unwrap();
    let mut holder = PgConnection::connect(&database.url()).await.unwrap();
    // Which an order is read from, and a plain one does not touch.
    holder.execute("BEGIN; LOCK TABLE order_lines").await.unwrap();
    let id = Id::new("o-1").unwrap();
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (store, id) = (Arc::clone(&store), id.clone());
            tokio::spawn(async move { store.order(&id).await })
        })
        .collect();
    let mut looker = PgConnection::connect(&database.url()).await.unwrap();
    waiting(&mut looker, 1).await;
    store.apply(&batch(vec![order("o-2", &[("MUG", 1)])])).await.unwrap();
    store.all_positions().await.unwrap();
    store.take_unannounced(1).await.unwrap();
    assert!(asking.iter().all(|one| !one.is_finished()), "they wait for the table");
    holder.execute("ROLLBACK").await.unwrap();
    for one in asking {
        assert!(one.await.unwrap().unwrap().is_some());
    }
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_work_alone_does_not_cost_the_connection() {
    let database = TestDatabase::postgres_migrated().await;
    database.ledger().await.close().await;
    // As a verifier has it: as many connections for batches as there are pipelines.
    let one = Connections { batches: 1, readers: 1, others: 1 };
    let store = Arc::new(PostgresStore::open(&database.url(), one).await.unwrap());
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), order("o-1", &[("MUG", 1)])])).await.unwrap();
    let epoch = store.connection_epoch();
    // Taken for new, it is refused by its key, after levels were written; and looked up by the second try.
    let again =
        store.apply(&batch(vec![order("o-1", &[("MUG", 1)]), order("o-2", &[("MUG", 1)])])).await.unwrap();
    assert_eq!(words(&again.outcomes), ["repeated", "accepted"]);
    assert_eq!(store.connection_epoch(), epoch, "the ledger would be compared anew each time");
    // A session that is of no more use does.
    database
        .execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    let compared_batch = || {
        let order = batch(vec![order("o-4", &[("MUG", 1)])]);
        CommandBatch { epoch: Some(store.connection_epoch()), ..order }
    };
    let (mut compared, mut lost) = (0, 0);
    let applied = loop {
        match store.apply(&compared_batch()).await {
            Err(StoreError::Reconnected) => compared += 1,
            // Unless the pool has noticed it already.
            Err(error) if error.is_transient() && lost == 0 => lost += 1,
            applied => break applied.unwrap(),
        }
        assert!(
            compared < 5,
            "being asked to compare the ledger costs the very connection it is compared for"
        );
    };
    assert_eq!(words(&applied.outcomes), ["accepted"]);
    assert_eq!(compared, 1);
    assert!(store.connection_epoch() > epoch);
    store.close().await;
    expect_no_findings(&*database.open().await).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_undoes_its_batch_and_does_not_cost_the_connection() {
    let database = TestDatabase::postgres_migrated().await;
    database.ledger().await.close().await;
    let one = Connections { batches: 1, readers: 1, others: 1 };
    let store = PostgresStore::open(&database.url(), one).await.unwrap();
    let mug = |id: &str| batch(vec![order(id, &[("MUG", 1)])]);
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    store.apply(&mug("o-1")).await.unwrap();
    // Looked at by the commit, which fails then.
    database
        .execute("ALTER TABLE decisions ADD CONSTRAINT once UNIQUE (digest) DEFERRABLE INITIALLY DEFERRED")
        .await;
    let epoch = store.connection_epoch();
    let refused = store.apply(&mug("o-2")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Database { doing: "committing a batch", .. }), "{refused:?}");
    database.execute("ALTER TABLE decisions DROP CONSTRAINT once").await;
    assert_eq!(words(&store.apply(&mug("o-2")).await.unwrap().outcomes), ["accepted"]);
    assert_eq!(store.connection_epoch(), epoch);
    assert_eq!(levels(&store).await, [("MUG".into(), 8, 3)]);
    expect_no_findings(&store).await;
    store.close().await;
    database.remove().await;
}
