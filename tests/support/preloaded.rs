//! Code that a process is started with, by `LD_PRELOAD`.

use std::path::Path;
use std::process::Command;

/// Makes a library of this file of tests/support.
///
/// # Panics
/// When it cannot be compiled.
pub fn compile(library: &Path, file: &str) {
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .arg(library)
        .arg(format!("{}/tests/support/{file}", env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cc can be run: librdkafka was built with it");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}
