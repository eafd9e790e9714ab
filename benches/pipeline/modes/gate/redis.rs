//! A Redis of the benchmark's own, as Debian has it, which it may kill.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What docs/gate.md tells to run, and its log is not rewritten in the middle of a measurement.
const SETTINGS: [&str; 8] =
    ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];
/// Longest wait for a start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Killed, and its files removed, when dropped.
pub struct Redis {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = spawn(&directory, port)?;
        let redis = Self { child, directory, port };
        redis.wait()?;
        Ok(redis)
    }

    /// SIGKILL, and a start with the files that are there.
    pub fn restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.directory, self.port)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) =
            self.connection().and_then(|mut redis| Ok(redis::cmd("PING").exec(&mut redis)?))
        {
            if begun.elapsed() > START_LIMIT {
                return Err(error).context("Redis does not answer");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    pub fn connection(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(self.url())?.get_connection()?)
    }

    /// Its version and how it was started.
    pub fn about(&self) -> Result<String> {
        let info: String = redis::cmd("INFO").arg("server").query(&mut self.connection()?)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let Some(version) = version else { bail!("Redis does not say its version") };
        Ok(format!(
            "Redis {} {}",
            version.trim(),
            SETTINGS.map(|word| if word.is_empty() { "''" } else { word }).join(" ")
        ))
    }
}

fn spawn(directory: &tempfile::TempDir, port: u16) -> Result<Child> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(directory.path())
        .args(SETTINGS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot run redis-server (apt-get install redis-server)")
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
