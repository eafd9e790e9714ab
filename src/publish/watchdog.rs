//! Ends the process when a call into librdkafka does not come back.
//!
//! `send_offsets_to_transaction` has hung for ever (librdkafka#5456, #5511).
//! Such a call cannot be cancelled; but everything decided is in the ledger,
//! so the way out is to end and be started again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Exit status when a call hung: EX_UNAVAILABLE of sysexits.h, so that a supervisor starts the process again.
pub const EXIT_HUNG: i32 = 69;
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(500);

/// Watches one thread's calls.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds since `started` at which the call under way is overdue; 0 when none is.
    overdue_at: AtomicU64,
}

impl Watchdog {
    /// Starts watching; stops when dropped.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let shared = Arc::new(Shared { started: Instant::now(), overdue_at: AtomicU64::new(0) });
        let watched = Arc::downgrade(&shared);
        let name = name.to_owned();
        std::thread::spawn(move || watch(&name, &watched));
        Self { shared }
    }

    /// Makes a call that must come back within `limit`.
    pub fn guard<T>(&self, limit: Duration, call: impl FnOnce() -> T) -> T {
        let overdue_at = (self.shared.started.elapsed() + limit).as_millis();
        self.shared.overdue_at.store(u64::try_from(overdue_at).unwrap_or(u64::MAX), Ordering::SeqCst);
        let result = call();
        self.shared.overdue_at.store(0, Ordering::SeqCst);
        result
    }
}

fn watch(name: &str, watched: &Weak<Shared>) {
    while let Some(shared) = watched.upgrade() {
        let overdue_at = shared.overdue_at.load(Ordering::SeqCst);
        if overdue_at != 0 && shared.started.elapsed().as_millis() > u128::from(overdue_at) {
            tracing::error!(
                "a Kafka call of {name} hangs; ending the process: what it decided is told after the restart"
            );
            std::process::exit(EXIT_HUNG);
        }
        drop(shared);
        std::thread::sleep(LOOK);
    }
}
