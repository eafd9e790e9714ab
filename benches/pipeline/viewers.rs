//! People who look at the live page.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};

/// They look until the verifier ends.
pub struct Viewers {
    count: usize,
    snapshots: Arc<AtomicU64>,
}

impl Viewers {
    /// So many look at the page of a verifier.
    pub fn of(address: &str, count: usize) -> Result<Self> {
        let snapshots = Arc::new(AtomicU64::new(0));
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).context("cannot look at the live page")?;
            write!(stream, "GET /v1/live HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
            let snapshots = Arc::clone(&snapshots);
            std::thread::spawn(move || {
                let lines = BufReader::new(stream).lines().map_while(Result::ok);
                let seen = lines.filter(|line| line.starts_with("data:"));
                seen.for_each(|_| {
                    snapshots.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
        Ok(Self { count, snapshots })
    }

    /// Fails where not each of them can have seen a snapshot: nothing would have been measured.
    pub fn have_seen_something(self) -> Result<()> {
        let seen = self.snapshots.load(Ordering::Relaxed);
        if seen < self.count as u64 {
            bail!("{} looked and saw {seen} snapshots", self.count);
        }
        Ok(())
    }
}
