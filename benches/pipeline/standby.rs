//! A streaming standby of the benchmark's PostgreSQL, on this machine.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Stopped, and its files removed, when dropped.
pub struct Standby {
    bin: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
}

/// As the user whose PostgreSQL it is: it refuses to run as root.
fn run(program: &Path, arguments: &[&str], directory: &Path) -> Result<()> {
    let is_root = std::fs::metadata("/proc/self")?.uid() == 0;
    let mut command = if is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command
        .args(arguments)
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Standby {
    /// A copy of all that the server at this URL has, which follows it.
    pub fn start(bin: &Path, database_url: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // The other user makes its directory in it.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut from = url::Url::parse(database_url)?;
        from.set_path("");
        let copy = ["-D", "data", "--write-recovery-conf", "--checkpoint=fast", "-d", from.as_str()];
        run(&bin.join("pg_basebackup"), &copy, directory.path())?;
        let standby = Self { bin: bin.to_owned(), directory, port };
        let options = format!("-c port={port}");
        standby.control(&["-l", "log", "-s", "-w", "-o", &options, "start"])?;
        Ok(standby)
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        run(&self.bin.join("pg_ctl"), &[&["-D", "data"], arguments].concat(), self.directory.path())
    }

    /// The URL of its copy of this database.
    pub fn url_of(&self, database_url: &str) -> Result<String> {
        let mut url = url::Url::parse(database_url)?;
        url.set_port(Some(self.port)).map_err(|()| anyhow::anyhow!("a URL without a port"))?;
        Ok(url.into())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Err(error) = self.control(&["-s", "-m", "immediate", "stop"]) {
            eprintln!("the standby could not be stopped: {error:#}");
        }
    }
}
