//! How far a long work is: a bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::EXIT_INTERRUPTED;
use crate::console;
use crate::replay::Progress;

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Work that is shown, and that Ctrl-C ends between two steps. Hidden when dropped.
pub(super) struct Shown {
    /// What the work reports its progress to.
    pub(super) progress: Progress,
    shower: JoinHandle<()>,
}

impl Shown {
    /// Shows on stderr how far a work is; on a terminal under this name.
    pub(super) fn new(what: &'static str) -> Self {
        Self::stopping(what, "stopping after this step (a second Ctrl-C ends at once)")
    }

    /// The same of work that says something of its own at the first Ctrl-C.
    pub(super) fn stopping(what: &'static str, stopping: &'static str) -> Self {
        let stop = CancellationToken::new();
        let progress = Progress::until(stop.clone());
        let shower = tokio::spawn(show(progress.clone(), what, stopping, stop));
        Self { progress, shower }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.shower.abort();
    }
}

async fn show(progress: Progress, what: &'static str, stopping: &'static str, stop: CancellationToken) {
    let terminal = std::io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let bar = ProgressBar::no_length().with_message(what);
        match ProgressStyle::with_template(
            "{msg} {bar:32} {human_pos} of about {human_len}  {per_sec}  {eta} left",
        ) {
            Ok(style) => bar.with_style(style.progress_chars("█▌░")),
            Err(_) => bar,
        }
    });
    let _clear = bar.clone().map(Clear);
    let begun = Instant::now();
    let mut tick = tokio::time::interval(if terminal { BAR_EVERY } else { LINE_EVERY });
    tick.tick().await;
    loop {
        tokio::select! {
            Ok(()) = tokio::signal::ctrl_c() => {
                if stop.is_cancelled() {
                    std::process::exit(EXIT_INTERRUPTED.into());
                }
                console::say(stopping);
                stop.cancel();
            }
            _ = tick.tick() => {
                let (done, total) = progress.so_far();
                if let Some(bar) = &bar {
                    bar.set_length(total.max(done));
                    bar.set_position(done);
                } else {
                    let rate = done / begun.elapsed().as_secs().max(1);
                    console::say(&format!("{what}: {done} of about {}, {rate} a second", total.max(done)));
                }
            }
        }
    }
}

/// Takes the bar off the terminal when the work is done.
struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
