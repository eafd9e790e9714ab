//! How far it is: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::grouped;
use crate::tally::Tally;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows how many records are published.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins; `about` is how many records there will be, more or less.
    ///
    /// # Panics
    /// Never: the bar's template is a constant.
    #[must_use]
    pub(super) fn new(about: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            // Holds because the template is a constant that the tests' build has parsed.
            let style = ProgressStyle::with_template("  {bar:32} {human_pos:>9} of about {human_len}  {msg}")
                .expect("a valid template");
            ProgressBar::new(about).with_style(style.progress_chars("█▌░"))
        });
        let now = Instant::now();
        Self { bar, started: now, last_line: now }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, total: &Tally) {
        if let Some(bar) = &self.bar {
            bar.set_position(total.records());
            let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            bar.set_message(format!(
                "{} a second  {} accepted, {} rejected",
                grouped(total.records() * 1_000 / millis),
                grouped(total.accepted),
                grouped(total.rejected)
            ));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!(
                "  {:>3} s  {} published: {} accepted, {} rejected, {} dead letters, {} absorbed",
                self.started.elapsed().as_secs(),
                grouped(total.records()),
                grouped(total.accepted),
                grouped(total.rejected),
                grouped(total.dead_letters),
                grouped(total.absorbed)
            );
        }
    }

    /// Ends, and leaves no trace on a terminal: the summary says it all.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
