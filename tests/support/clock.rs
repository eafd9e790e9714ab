//! The wall clock of a process, made to jump.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::preloaded::compile;

/// What the processes started with its environment take for the time.
pub struct Clock {
    directory: tempfile::TempDir,
    seconds: std::fs::File,
}

impl Clock {
    /// One that shows the time as it is.
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("stock-verifier-clock.").tempdir().expect("a directory");
        // PostgreSQL reads it too, and is another user.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), readable).expect("permissions");
        let seconds = std::fs::File::create(directory.path().join("seconds")).expect("a file");
        let clock = Self { directory, seconds };
        clock.is_ahead(0);
        compile(&clock.library(), "jumping_clock.c");
        clock
    }

    /// From now on it is so many seconds ahead of the real time, or behind it.
    pub fn is_ahead(&self, seconds: i64) {
        self.seconds.write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
    }

    /// The environment of a process that goes by it.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("JUMPING_CLOCK", self.directory.path().join("seconds"))]
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("jumping_clock.so")
    }
}
