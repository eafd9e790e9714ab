//! A Redis of one test, which kills it as it likes.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use stock_verifier::gate::cache::{RedisCache, RedisSettings};

use super::database::unique;
use super::servers::wait_for;
use super::wait;

/// Names another server than Redis: Valkey's, say.
const SERVER: &str = "STOCK_VERIFIER_REDIS_SERVER";
/// Longest time until it answers.
const STARTS_LIMIT: Duration = Duration::from_secs(30);

/// Its process and its files, which are gone when it is dropped.
pub struct Redis {
    directory: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// One that loses nothing when it is killed.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these settings, as its command line has them.
    pub fn start_with(settings: &[&str]) -> Self {
        super::postgres::with_lib("ensure redis >&2");
        let (directory, port) = super::postgres::place();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut redis = Self { directory, port, settings, child: None };
        redis.restart();
        redis
    }

    /// A Sentinel that watches this one.
    pub fn sentinel(&self) -> Self {
        let (directory, port) = super::postgres::place();
        let config = directory.path().join("sentinel.conf");
        fs::write(&config, format!("sentinel monitor main 127.0.0.1 {} 1\n", self.port)).expect("written");
        let settings = vec!["--sentinel".to_owned()];
        let mut sentinel = Self { directory, port, settings, child: None };
        sentinel.restart_with(Some(&config));
        sentinel
    }

    /// Starts it again, on its port and with its files.
    pub fn restart(&mut self) {
        self.restart_with(None);
    }

    fn restart_with(&mut self, config: Option<&Path>) {
        let home = self.directory.path();
        let log = fs::File::options().create(true).append(true).open(home.join("log")).expect("a log file");
        let server = std::env::var_os(SERVER).unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(server);
        command.args(config);
        if config.is_none() {
            command.args(["--save", ""]);
        }
        let child = command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(home)
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("Redis starts");
        self.child = Some(child);
        wait::until("Redis answers", STARTS_LIMIT, || self.command(&["PING"]).as_deref() == Some("PONG"));
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Says nothing any more, and keeps its connections.
    pub fn fall_silent(&self) {
        let process = self.child.as_ref().expect("it runs").id().to_string();
        let stopped = Command::new("kill").args(["-STOP", &process]).status().expect("kill runs");
        assert!(stopped.success());
    }

    /// A replica of it, once it has all that this one has.
    pub fn replica(&self) -> Self {
        let replica = Self::start_with(&[
            "--replicaof",
            "127.0.0.1",
            &self.port.to_string(),
            "--repl-diskless-sync-delay",
            "0",
        ]);
        wait::until("the replica is in step", STARTS_LIMIT, || {
            replica
                .command(&["INFO", "replication"])
                .is_some_and(|info| info.contains("master_link_status:up"))
        });
        replica
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its files as they are, in another directory.
    pub fn backup(&self) -> tempfile::TempDir {
        let backup = tempfile::tempdir().expect("a directory");
        copy(&self.directory.path().join("appendonlydir"), backup.path());
        backup
    }

    /// Killed, and started again with older files.
    pub fn restore(&mut self, backup: &Path) {
        self.kill();
        let files = self.directory.path().join("appendonlydir");
        fs::remove_dir_all(&files).expect("its files are removed");
        fs::create_dir(&files).expect("a directory");
        copy(backup, &files);
        self.restart();
    }

    /// What a command answers; `None` when nobody does.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        let done =
            Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A cache in it that no other test has, with the name of its prefix.
    pub fn cache(&self) -> (RedisCache, String) {
        let prefix = format!("{}:", unique("gate"));
        (self.cache_of(&prefix), prefix)
    }

    /// The cache of this prefix.
    pub fn cache_of(&self, prefix: &str) -> RedisCache {
        let settings = RedisSettings {
            url: SecretString::from(self.url()),
            password: None,
            prefix: prefix.to_owned(),
            remember: Duration::from_secs(600),
        };
        wait_for(async { RedisCache::new(&settings) }).expect("a URL")
    }
}

/// An address that moves from one server to another, as that of a failover does. Connections that are open stay where they
/// are.
pub struct MovingAddress {
    /// Where it listens.
    pub address: SocketAddr,
    leads_to: Arc<Mutex<String>>,
}

impl MovingAddress {
    /// Leads to this one.
    pub fn of(redis: &Redis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let leads_to = Arc::new(Mutex::new(redis.address()));
        let led = Arc::clone(&leads_to);
        // Until the tests' process ends.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let to = led.lock().expect("nobody panicked").clone();
                let Ok(server) = TcpStream::connect(to) else { continue };
                pass(&client, &server);
                pass(&server, &client);
            }
        });
        Self { address, leads_to }
    }

    /// Leads who connects from now on to this one.
    pub fn move_to(&self, redis: &Redis) {
        *self.leads_to.lock().expect("nobody panicked") = redis.address();
    }
}

/// Passes on what comes from one to the other, until either ends.
fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
    let _ = to.set_nodelay(true);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
