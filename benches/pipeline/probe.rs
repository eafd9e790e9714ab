//! Is the machine quiet enough for a number to mean something?

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Writes of one probe. Odd, so that there is a middle one.
const WRITES: usize = 51;
/// Bytes of one write: a WAL page's.
const WRITE_BYTES: usize = 8192;
/// How long the processors are watched.
const WATCH: Duration = Duration::from_millis(400);

/// What the machine was like right before a measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Probe {
    /// Median time of a small write and fdatasync, in milliseconds.
    pub fdatasync_ms: f64,
    /// Share of the processors that others kept busy, 0 to 1.
    pub busy: f64,
}

/// Looks at the machine, with a scratch file in this directory.
pub fn probe(directory: &Path) -> Result<Probe> {
    let before = ticks()?;
    std::thread::sleep(WATCH);
    let after = ticks()?;
    let total = (after.0 - before.0).max(1);
    #[allow(clippy::cast_precision_loss)]
    let busy = 1.0 - (after.1 - before.1) as f64 / total as f64;
    Ok(Probe { fdatasync_ms: fdatasync(directory)?, busy })
}

fn fdatasync(directory: &Path) -> Result<f64> {
    let mut file = tempfile::Builder::new().prefix("probe").tempfile_in(directory)?;
    let file: &mut File = file.as_file_mut();
    let page = [1; WRITE_BYTES];
    file.write_all(&page)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        // In place, as a WAL segment is written: no change of the file's size to be journalled.
        file.seek(SeekFrom::Start(0))?;
        let start = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[WRITES / 2])
}

/// All ticks and idle ticks of the processors since the machine started.
fn ticks() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").context("no /proc/stat: the benchmark wants Linux")?;
    let line = text.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let idle = numbers.get(3).copied().unwrap_or(0) + numbers.get(4).copied().unwrap_or(0);
    // The guest fields are counted in user and nice already.
    Ok((numbers.iter().take(8).sum(), idle))
}
