//! A PostgreSQL of one test, reached in all ways, and a `PgBouncer` in front of any.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stock_verifier::store::LedgerAdmin as _;
use stock_verifier::store::postgres::{Connections, PostgresStore};

use super::database::run_on;
use super::servers::{setting, wait_for};
use super::wait;

/// Longest time until a server answers.
const STARTS_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait until one ends that was asked to.
const ENDS_LIMIT: Duration = Duration::from_secs(10);

/// A server's process in a directory of its own. Both are gone when it is dropped.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts it as a user who is not root, which these servers refuse to be.
    fn start(directory: tempfile::TempDir, port: u16, mut command: Command) -> Self {
        let log = fs::File::create(directory.path().join("log")).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        Self { child, directory, port }
    }

    /// Waits until it answers at this URL.
    #[track_caller]
    fn answers(&mut self, url: &str) {
        wait::until("the server answers", STARTS_LIMIT, || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{}", fs::read_to_string(self.log()).unwrap_or_default());
            wait_for(<sqlx::PgConnection as sqlx::Connection>::connect(url)).is_ok()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: PostgreSQL takes its children along. Its data is thrown away. PgBouncer has no ear for it where the
        // tests were started by somebody who ignores it.
        let _ = Command::new("kill").args(["-s", "QUIT", &self.child.id().to_string()]).status();
        let since = Instant::now();
        while since.elapsed() < ENDS_LIMIT && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- the log of a server ----\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// Runs a line with what tests/lib.sh has; what it prints.
pub fn with_lib(line: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let done = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!(". '{root}/tests/lib.sh'; {line}")])
        .output()
        .expect("bash can be run");
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8").trim().to_owned()
}

/// A directory that the servers' user may have, and a port that is free as long as it is there.
pub fn place() -> (tempfile::TempDir, u16) {
    let directory = tempfile::Builder::new().prefix("stock-verifier-server.").tempdir().expect("a directory");
    let port = with_lib(&format!("free_port '{}'", directory.path().display()));
    (directory, port.parse().expect("a port"))
}

/// Gives a path to the servers' user.
pub fn give(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    if let Some((user, group)) = other_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may");
    }
}

/// The user postgres, where this is root.
fn other_user() -> Option<(u32, u32)> {
    (with_lib("id -u") == "0").then(|| {
        let ids = with_lib("id -u postgres; id -g postgres");
        let (user, group) = ids.split_once('\n').expect("two numbers");
        (user.parse().expect("a number"), group.parse().expect("a number"))
    })
}

fn command(program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// A PostgreSQL with a socket in the file system, TLS, and both versions of IP. User, password and database are those of
/// the shared one.
pub struct Postgres {
    server: Server,
    url: url::Url,
}

impl Postgres {
    /// Starts a streaming standby of another one, with all that it has.
    pub fn standby_of(primary: &Self) -> Self {
        let bin = PathBuf::from(with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let (directory, port) = place();
        let home = directory.path();
        give(home, 0o755);
        let mut from = primary.url.clone();
        from.set_path("");
        let copied = command(bin.join("pg_basebackup"), home)
            .args([
                "-D",
                "data",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                "-d",
                from.as_str(),
            ])
            .output()
            .expect("pg_basebackup can be run");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let settings = format!(
            "port = {port}\nunix_socket_directories = '{home}'\nssl = off\nwal_retrieve_retry_interval = 100ms\n",
            home = home.display()
        );
        let mut file =
            fs::OpenOptions::new().append(true).open(home.join("data/postgresql.conf")).expect("it is there");
        file.write_all(settings.as_bytes()).expect("written");
        let mut postgres = command(bin.join("postgres"), home);
        postgres.args(["-D", "data"]);
        let mut server = Server::start(directory, port, postgres);
        let mut url = primary.url.clone();
        url.set_port(Some(port)).expect("a port");
        server.answers(url.as_str());
        Self { server, url }
    }

    /// Copies it as an operator does, with `pg_basebackup`.
    pub fn backup(&self) -> Backup {
        let bin = PathBuf::from(with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let (directory, _) = place();
        give(directory.path(), 0o755);
        let mut from = self.url.clone();
        from.set_path("");
        let copied = command(bin.join("pg_basebackup"), directory.path())
            .args(["-D", "data", "--checkpoint=fast", "--no-sync", "-d", from.as_str()])
            .output()
            .expect("pg_basebackup can be run");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        Backup { directory, url: self.url.clone() }
    }

    /// Starts a server on a copy of this backup: as it was then, or, with an archive of the log, as far as that goes.
    pub fn restore(backup: &Backup, archive: Option<&Path>) -> Self {
        let bin = PathBuf::from(with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let (directory, port) = place();
        let home = directory.path();
        give(home, 0o755);
        let copied = Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .args([backup.directory.path().join("data"), home.join("data")])
            .status();
        assert!(copied.expect("cp can be run").success());
        let home = home.display();
        let log = archive.map_or_else(String::new, |archive| {
            let signal = directory.path().join("data/recovery.signal");
            fs::write(&signal, "").expect("written");
            give(&signal, 0o600);
            format!("restore_command = 'cp {}/%f %p'\n", archive.display())
        });
        let settings = format!(
            "port = {port}\nunix_socket_directories = '{home}'\nssl = off\narchive_mode = off\n{log}"
        );
        let conf = directory.path().join("data/postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(conf).expect("it is there");
        file.write_all(settings.as_bytes()).expect("written");
        let mut postgres = command(bin.join("postgres"), directory.path());
        postgres.args(["-D", "data"]);
        let mut server = Server::start(directory, port, postgres);
        let mut url = backup.url.clone();
        url.set_port(Some(port)).expect("a port");
        server.answers(url.as_str());
        let restored = Self { server, url };
        wait::until("it has replayed all there is", STARTS_LIMIT, || {
            !super::database::boolean_on(&restored.url(), "SELECT pg_is_in_recovery()")
        });
        restored
    }

    /// Stops it for good, without a word to who is connected; its data stays.
    pub fn kill(&mut self) {
        let _ = Command::new("kill").args(["-s", "QUIT", &self.server.child.id().to_string()]).status();
        let _ = self.server.child.wait();
    }

    /// Starts it again after [`Postgres::kill`].
    pub fn start_again(&mut self) {
        let bin = PathBuf::from(with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let mut postgres = command(bin.join("postgres"), self.server.directory.path());
        let log = fs::OpenOptions::new().append(true).open(self.server.log()).expect("its log");
        postgres.args(["-D", "data"]).stdin(Stdio::null());
        postgres.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.server.child = postgres.spawn().expect("the server starts");
        let url = self.url();
        self.server.answers(&url);
    }

    /// Starts it, with an empty database of this name.
    pub fn start(database: &str) -> Self {
        Self::start_with(database, "")
    }

    /// The same with more lines of its settings.
    pub fn start_with(database: &str, more: &str) -> Self {
        let bin = PathBuf::from(with_lib("ensure postgres >&2; echo \"$PG_BIN\""));
        let (directory, port) = place();
        let home = directory.path();
        give(home, 0o755);
        let mut url = url::Url::parse(&setting("DATABASE_URL")).expect("a URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(port)).expect("a port");
        let password = home.join("password");
        fs::write(&password, url.password().expect("a password")).expect("written");
        // The certificate of Kafka's servers is for this machine too.
        let certificates = PathBuf::from(setting("KAFKA_SSL_CA"));
        for name in ["server.key", "server.crt"] {
            fs::copy(certificates.with_file_name(name), home.join(name)).expect("tests/services made it");
            give(&home.join(name), 0o600);
        }
        give(&password, 0o600);
        let made = command(bin.join("initdb"), home)
            .args(["-D", "data", "-U", url.username(), "--pwfile=password", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .output()
            .expect("initdb can be run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1, ::1'\nunix_socket_directories = '{home}'\nssl = on\n\
             ssl_cert_file = '{home}/server.crt'\nssl_key_file = '{home}/server.key'\nfsync = off # thrown away\n{more}\n",
            home = home.display()
        );
        // In the file, not on the command line, so that ALTER SYSTEM is stronger.
        let mut file =
            fs::OpenOptions::new().append(true).open(home.join("data/postgresql.conf")).expect("it is there");
        file.write_all(settings.as_bytes()).expect("written");
        let mut postgres = command(bin.join("postgres"), home);
        postgres.args(["-D", "data"]);
        let mut server = Server::start(directory, port, postgres);
        url.set_path("postgres");
        server.answers(url.as_str());
        super::database::run_on(url.as_str(), &format!("CREATE DATABASE {database}"));
        url.set_path(database);
        Self { server, url }
    }

    /// Its URL by 127.0.0.1, password and all.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Its user's password.
    pub fn password(&self) -> &str {
        self.url.password().expect("there is one")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        self.server.directory.path()
    }
}

/// A copy of a server as `pg_basebackup` made it. Gone when it is dropped.
pub struct Backup {
    directory: tempfile::TempDir,
    url: url::Url,
}

/// A `PgBouncer` in front of the shared server.
pub struct PgBouncer {
    server: Server,
}

impl PgBouncer {
    /// Starts it with this mode, and more lines of its settings.
    pub fn start(pool_mode: &str, more: &str) -> Self {
        let program = with_lib("ensure pgbouncer >&2; PATH=$PATH:/usr/sbin command -v pgbouncer");
        let shared = url::Url::parse(&setting("DATABASE_URL")).expect("a URL");
        let (directory, port) = place();
        let home = directory.path();
        give(home, 0o755);
        let settings = home.join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host={} port={} user={} password={}\n[pgbouncer]\npool_mode = {pool_mode}\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n{more}\n",
                shared.host_str().expect("a host"),
                shared.port().expect("a port"),
                shared.username(),
                shared.password().expect("a password"),
            ),
        )
        .expect("written");
        give(&settings, 0o600);
        let mut pgbouncer = command(program, home);
        pgbouncer.arg("pgbouncer.ini");
        let mut bouncer = Self { server: Server::start(directory, port, pgbouncer) };
        wait::until("PgBouncer answers", STARTS_LIMIT, || {
            let ended = bouncer.server.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{}", fs::read_to_string(bouncer.server.log()).unwrap_or_default());
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        bouncer
    }

    /// The URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://stock@127.0.0.1:{}/{database}", self.server.port)
    }
}

/// A server with a ledger of seven mugs.
pub fn with_mugs() -> Postgres {
    let primary = Postgres::start("stock");
    let few = Connections { batches: 1, readers: 1, others: 1 };
    wait_for(async {
        let store = PostgresStore::open(&primary.url(), few).await.expect("it is reached");
        store.migrate().await.expect("migrated");
        store.close().await;
    });
    run_on(
        &primary.url(),
        "INSERT INTO levels (sku, location, available, version, backorder_limit) VALUES ('MUG', '', 7, 1, 0)",
    );
    primary
}
