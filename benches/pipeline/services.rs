//! The real servers that the contestants use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::usage::Watched;

/// Where the servers are. Those the benchmark started are stopped and wiped when this is dropped.
pub struct Services {
    pub brokers: String,
    pub database_url: String,
    pub redis_url: Option<String>,
    /// Where PostgreSQL's programs are, where the environment says so.
    pub postgres_programs: Option<PathBuf>,
    /// A directory on the disk the servers write to.
    pub disk: PathBuf,
    /// The servers' processes, where the environment says which they are, and this one.
    pub watched: Vec<Watched>,
    pub stop: Stop,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services")
}

fn call(state: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(script())
        .args(arguments)
        .env("STOCK_VERIFIER_SERVICES_DIR", state)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script().display()))?;
    if !output.status.success() {
        bail!("tests/services {} failed", arguments.join(" "));
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Services {
    /// The servers that the environment names, or else new ones.
    pub fn find_or_start() -> Result<Self> {
        let mut variables: HashMap<String, String> =
            std::env::vars().filter(|(_, value)| !value.is_empty()).collect();
        let started = if variables.contains_key("KAFKA_BROKERS") && variables.contains_key("DATABASE_URL") {
            None
        } else {
            // Not a private directory: the user postgres must get in.
            let state = std::env::temp_dir().join(format!("stock-verifier-bench-{}", std::process::id()));
            call(&state, &["start", "--with-redis"])?;
            let exports = call(&state, &["env"])?;
            variables = exports
                .lines()
                .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            Some(state)
        };
        let of = |name| variables.get(name).cloned();
        let path = |name| of(name).map(PathBuf::from);
        let needed = |name| of(name).with_context(|| format!("{name} is not set"));
        let state = path("STOCK_VERIFIER_SERVICES_DIR");
        let pid_files = [
            ("kafka", path("KAFKA_PID_FILE")),
            ("postgres", path("PG_DATA").map(|data| data.join("postmaster.pid"))),
            ("redis", state.as_ref().map(|state| state.join("redis/redis.pid"))),
        ];
        let watched = pid_files
            .into_iter()
            .filter_map(|(name, file)| Some(Watched { name, pid: first_number(&file?)? }))
            .chain([Watched { name: "bench", pid: std::process::id() }])
            .collect();
        Ok(Self {
            brokers: needed("KAFKA_BROKERS")?,
            database_url: needed("DATABASE_URL")?,
            redis_url: of("REDIS_URL"),
            postgres_programs: path("PG_BIN"),
            disk: state.unwrap_or_else(std::env::temp_dir),
            watched,
            stop: Stop(started),
        })
    }
}

fn first_number(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
}

/// What ends the servers that the benchmark started, and does nothing to others.
#[derive(Debug, Clone)]
pub struct Stop(Option<PathBuf>);

impl Stop {
    pub fn now(&self) {
        if let Some(state) = &self.0
            && let Err(error) = call(state, &["stop", "--wipe"])
        {
            eprintln!("the servers in {} could not be stopped: {error:#}", state.display());
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.now();
    }
}
