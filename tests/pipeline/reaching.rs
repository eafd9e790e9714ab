//! Ways to reach PostgreSQL that production uses: passwords, sockets, IPv6, several servers, TLS, a pooler.

use std::process::Command;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{LedgerAdmin as _, LedgerReader as _, StoreError};

use crate::support::database::{Database, run_on, unique};
use crate::support::kafka::{Sent, order};
use crate::support::postgres::{PgBouncer, Postgres};
use crate::support::process::program;
use crate::support::scene::Scene;
use crate::support::servers::{Servers, setting, wait_for};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);

/// `stock get` of this URL with a password from this file.
fn get(url: &str, password: &std::path::Path) -> Command {
    let mut command = program();
    command.args(["stock", "--database-url", url, "--database-password-file"]).arg(password).arg("get");
    command
}

#[track_caller]
fn succeeds(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The URL without a password, of another user.
fn of_user(url: &str, user: &str) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    url.set_username(user).expect("a user");
    url.set_password(None).expect("a password");
    url.into()
}

/// What a new session says of this.
fn says(url: &str, what: &str) -> bool {
    wait_for(async {
        let mut connection = PgConnection::connect(url).await.expect("it is reached");
        sqlx::query_scalar(&format!("SELECT {what}")).fetch_one(&mut connection).await.expect(what)
    })
}

#[test]
fn any_password_can_be_in_a_file() {
    let shared = Servers::shared().database_url;
    let database = Database::fresh(&shared);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    let role = unique("role");
    run_on(&shared, &format!("CREATE ROLE {role} SUPERUSER LOGIN"));
    for password in ["abc%41def", "x%2Fy", "a b", " around ", "passwört€", "#?/@:%", "two\nlines"] {
        run_on(&shared, &format!("ALTER ROLE {role} PASSWORD '{password}'"));
        for end in ["", "\n", "\r\n"] {
            std::fs::write(&file, format!("{password}{end}")).expect("written");
            succeeds(get(&of_user(&database.url(), &role), &file));
        }
    }
    // One line's end is the editor's; a second is the password's.
    run_on(&shared, &format!("ALTER ROLE {role} PASSWORD E'ends\\n'"));
    std::fs::write(&file, "ends\n\n").expect("written");
    succeeds(get(&of_user(&database.url(), &role), &file));
    std::fs::write(&file, "\n").expect("written");
    let refused = get(&database.url(), &file).output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("is empty"), "{said}");
    run_on(&shared, &format!("DROP ROLE {role}"));
}

#[test]
fn a_server_is_reached_by_its_socket_by_ipv6_and_among_others_that_are_away() {
    let postgres = Postgres::start("stock");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, postgres.password()).expect("written");
    let (port, socket) = (postgres.port(), postgres.socket().display().to_string());
    let mut migrate = program();
    migrate.args(["migrate", "--database-url", &postgres.url()]);
    succeeds(migrate);
    let escaped = socket.replace('/', "%2F");
    for url in [
        format!("postgres://stock@/stock?host={socket}&port={port}"),
        format!("postgres:///stock?host={socket}&port={port}&user=stock"),
        format!("postgres://stock@{escaped}:{port}/stock"),
        format!("postgres://stock@[::1]:{port}/stock"),
        format!("postgres://stock@127.0.0.1:1,127.0.0.1:{port}/stock"),
        format!("postgres://stock@[::1]:1,[::1]:{port}/stock?target_session_attrs=primary"),
        format!("postgres:///stock?host=/nowhere,{socket}&port=1,{port}&user=stock"),
    ] {
        // Again where one of several servers took longer than its three seconds, as it does on a busy machine.
        wait::until(&url, SOON, || {
            let done = get(&url, &file).output().expect("it runs");
            println!("{url}: {}", String::from_utf8_lossy(&done.stderr));
            done.status.success()
        });
    }
    let nobody = format!("postgres://stock@127.0.0.1:1,127.0.0.1:{port}/stock?target_session_attrs=standby");
    wait::until("it says that none will do, and why not each", SOON, || {
        let refused = get(&nobody, &file).output().expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr);
        println!("{said}");
        ["none of its servers will do", "127.0.0.1:1: ", "no standby"].iter().all(|word| said.contains(word))
    });
}

#[test]
fn among_several_servers_the_one_that_can_be_written_is_found_again_after_a_failover() {
    let database = Database::fresh(&Servers::shared().database_url);
    let first = Postgres::start(database.name());
    let second = url::Url::parse(&database.url()).expect("a URL");
    let url = first.url().replace(
        &format!(":{}/", first.port()),
        &format!(":{},127.0.0.1:{}/", first.port(), second.port().expect("a port")),
    );
    let url = format!("{url}?target_session_attrs=read-write");
    let few = Connections { batches: 1, readers: 1, others: 1 };
    let open =
        |url: String| wait_for(async move { PostgresStore::open(&url, few).await }).expect("it is reached");
    wait_for(open(first.url()).migrate()).expect("migrated");
    for (server, available) in [(first.url(), 1), (database.url(), 2)] {
        run_on(
            &server,
            &format!(
                "INSERT INTO levels (sku, location, available, version, backorder_limit)
                 VALUES ('MUG', '', {available}, 1, 0)"
            ),
        );
    }
    let available_of = |store: &PostgresStore| -> Result<i64, StoreError> {
        Ok(wait_for(store.levels(None))?.first().expect("one level").level.available)
    };
    // Again where the first took longer than its three seconds, as it does on a busy machine.
    let store = wait::value("the first answers", SOON, || {
        let store = open(url.clone());
        (available_of(&store).expect("an answer") == 1).then_some(store)
    });
    let available = || available_of(&store);
    // Demoted: it lives, and takes no writes. Connections are ended, as a server that starts anew does.
    run_on(&first.url(), "ALTER SYSTEM SET default_transaction_read_only = on");
    run_on(&first.url(), "SELECT pg_reload_conf()");
    let read_only = "current_setting('default_transaction_read_only')::boolean";
    wait::until("new sessions are read-only", SOON, || says(&first.url(), read_only));
    let name = database.name();
    run_on(
        &first.url(),
        &format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        ),
    );
    wait::until("the second is found", SOON, || available().is_ok_and(|available| available == 2));
    // And gone altogether: it stays found.
    drop(first);
    assert_eq!(available().expect("the second answers"), 2);
    wait_for(store.close());
}

/// What a warning of a password that goes unencrypted says.
const PLAINTEXT: &str = "is not encrypted";

#[test]
fn tls_is_verified_when_asked_for_and_its_absence_is_warned_of() {
    let postgres = Postgres::start("stock");
    let mut migrate = program();
    migrate.args(["migrate", "--database-url", &postgres.url()]);
    succeeds(migrate);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, postgres.password()).expect("written");
    let port = postgres.port();
    let authority = setting("KAFKA_SSL_CA");
    let verified = format!("sslmode=verify-full&sslrootcert={authority}");
    for host in ["localhost", "127.0.0.1"] {
        let said = succeeds(get(&format!("postgres://stock@{host}:{port}/stock?{verified}"), &file));
        assert!(!said.contains(PLAINTEXT), "{said}");
    }
    // It has no certificate for this address, and a stranger's is none either.
    for url in [
        format!("postgres://stock@[::1]:{port}/stock?{verified}"),
        format!("postgres://stock@127.0.0.1:{port}/stock?sslmode=verify-full"),
    ] {
        let refused = get(&url, &file).output().expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    }
    // 0.0.0.0 is this machine, but no address that says so: it stands for another host.
    let other = format!("postgres://stock@0.0.0.0:{port}/stock");
    let said = succeeds(get(&format!("{other}?sslmode=disable"), &file));
    assert_eq!(said.matches(PLAINTEXT).count(), 1, "{said}");
    assert!(said.contains("verify-full") && said.contains("0.0.0.0"), "{said}");
    // TLS is used where the server has it.
    let said = succeeds(get(&other, &file));
    assert!(!said.contains(PLAINTEXT), "{said}");
    run_on(&postgres.url(), "ALTER SYSTEM SET ssl = off");
    run_on(&postgres.url(), "SELECT pg_reload_conf()");
    wait::until("it has no TLS", SOON, || !says(&postgres.url(), "current_setting('ssl')::boolean"));
    let said = succeeds(get(&other, &file));
    assert_eq!(said.matches(PLAINTEXT).count(), 1, "{said}");
    // Nobody is on the way.
    for near in [
        format!("postgres://stock@127.0.0.1:{port}/stock?sslmode=disable"),
        format!("postgres://stock@localhost:{port}/stock"),
        format!("postgres://stock@/stock?host={}&port={port}", postgres.socket().display()),
    ] {
        let said = succeeds(get(&near, &file));
        assert!(!said.contains(PLAINTEXT), "{said}");
    }
}

#[test]
fn a_pooler_that_lends_whole_sessions_is_as_good_as_the_server() {
    // Settings given when connecting are refused by the one, and dropped without a word by the other.
    for more in ["", "ignore_startup_parameters = options, extra_float_digits"] {
        let scene = Scene::new(1);
        scene.stock(&[("MUG", 1_000)]);
        scene.database.run(
            "CREATE TABLE seen (isolation text, lock text, statement text);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('transaction_isolation'), current_setting('lock_timeout'),
                                          current_setting('statement_timeout'));
                 RETURN NULL;
             END $$;
             CREATE TRIGGER look AFTER INSERT ON decisions EXECUTE FUNCTION look()",
        );
        let bouncer = PgBouncer::start("session", more);
        let url = bouncer.url(scene.database.name());
        let mut command = scene.command_without_database("a", &["--migrate"]);
        command.args(["--database-url", &url]);
        let verifier = scene.launch(command, "pooled");
        let orders: Vec<Sent> = (0..20).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
        scene.produce(&orders);
        scene.done(SOON);
        verifier.stop();
        assert_eq!(scene.prove().accepted, 20);
        let unlike = "SELECT count(*) FROM seen WHERE (lock, statement) IS DISTINCT FROM ('10s', '30s')";
        assert!(scene.database.number("SELECT count(*) FROM seen") > 0);
        assert_eq!(scene.database.number(unlike), 0, "time-outs hold there too");
        let fresh = Database::empty(&Servers::shared().database_url);
        let mut migrate = program();
        migrate.args(["migrate", "--database-url", &bouncer.url(fresh.name())]);
        succeeds(migrate);
    }
}

#[test]
fn a_pooler_that_lends_a_session_for_less_is_refused_with_what_to_do() {
    let scene = Scene::new(1);
    for mode in ["transaction", "statement"] {
        for more in ["", "ignore_startup_parameters = options, extra_float_digits"] {
            let bouncer = PgBouncer::start(mode, more);
            let url = bouncer.url(scene.database.name());
            for words in [&["stock", "get"][..], &["migrate"], &["audit"]] {
                let mut command = program();
                command.args(words).env("STOCK_VERIFIER_DATABASE_URL", &url);
                let refused = command.output().expect("it runs");
                let said = String::from_utf8_lossy(&refused.stderr);
                assert!(matches!(refused.status.code(), Some(1 | 2)), "{mode}, {words:?}: {said}");
                for word in ["pool_mode", "session", "PgBouncer"] {
                    assert!(said.contains(word), "{mode}, {words:?}: {word} is not in {said}");
                }
            }
            let mut command = scene.command_without_database("a", &[]);
            command.args(["--database-url", &url]);
            let mut verifier = scene.launch(command, "pooled");
            assert_eq!(verifier.wait(SOON).code(), Some(1), "{}", verifier.log());
            assert!(verifier.log().contains("pool_mode = session"), "{}", verifier.log());
        }
    }
}
