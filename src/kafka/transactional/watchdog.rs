//! Calls into librdkafka that do not come back. They cannot be cancelled.
//!
//! `send_offsets_to_transaction` is known to hang, whatever time-out it is
//! given (librdkafka#5456, #5511): when the group's coordinator is not
//! connected at that moment, as after a broker's restart. So it is made on a
//! thread that can be abandoned, with its producer; the producer made anew
//! fences that one. Any other call that hangs ends the process: everything
//! decided is in the ledger, so the way out is to be started again.
//!
//! So does a wall clock that is set back: librdkafka waits for moments of that
//! clock, so each wait lasts that much longer. A member at rest sends no
//! heartbeats then, nor is woken for what it reads, nor closed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// Exit status when a call hung: `EX_UNAVAILABLE` of `sysexits.h`, so that a supervisor starts the process again.
pub const EXIT_HUNG: i32 = 69;
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(500);
/// How far the wall clock may be set back at once: a member that waits so much longer is still within its session (45 s by
/// default), and a stop within its time.
const SET_BACK_MAX: Duration = Duration::from_secs(10);
/// Calls abandoned before it is time to begin anew: each keeps a producer, some threads and a few MiB.
const ABANDONED_MAX: usize = 8;

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
    /// Calls on threads of their own that have not come back. All but the newest were abandoned.
    apart: AtomicUsize,
}

impl Watchdog {
    /// Starts watching; stops when dropped.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            overdue_at: AtomicU64::new(0),
            apart: AtomicUsize::new(0),
        });
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

    /// Makes a call on a thread of its own, and abandons it when it does not come back within `limit`: `None`.
    pub fn abandon_after<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let shared = Arc::clone(&self.shared);
        shared.apart.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let result = call();
            shared.apart.fetch_sub(1, Ordering::SeqCst);
            // Nobody waits for it any more when it was abandoned.
            let _ = answer.send(result);
        });
        let answer = answered.recv_timeout(limit).ok();
        if answer.is_none() && self.shared.apart.load(Ordering::SeqCst) > ABANDONED_MAX {
            end("too many Kafka calls hang");
        }
        answer
    }
}

fn watch(name: &str, watched: &Weak<Shared>) {
    let mut clocks = Clocks { monotonic: Instant::now(), wall: SystemTime::now() };
    while let Some(shared) = watched.upgrade() {
        let overdue_at = shared.overdue_at.load(Ordering::SeqCst);
        if overdue_at != 0 && shared.started.elapsed().as_millis() > u128::from(overdue_at) {
            end(&format!("a Kafka call of {name} hangs"));
        }
        if let Some(back) = clocks.look(Instant::now(), SystemTime::now()) {
            end(&format!(
                "this machine's clock was set back by {back:.0?}, and Kafka calls wait that much longer"
            ));
        }
        drop(shared);
        std::thread::sleep(LOOK);
    }
}

/// What both clocks said at the last look.
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    /// By how much the wall clock was set back since the last look, if that is more than it may be.
    fn look(&mut self, monotonic: Instant, wall: SystemTime) -> Option<Duration> {
        let expected = self.wall.checked_add(monotonic.duration_since(self.monotonic));
        *self = Self { monotonic, wall };
        // An error says that it is not behind.
        expected?.duration_since(wall).ok().filter(|back| *back > SET_BACK_MAX)
    }
}

fn end(why: &str) -> ! {
    tracing::error!("{why}; ending the process: what it decided is published after the restart");
    std::process::exit(EXIT_HUNG);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_far_is_seen_once_and_one_that_goes_forth_is_not() {
        let (begun, wall) = (Instant::now(), SystemTime::now());
        let hour = Duration::from_secs(3_600);
        let mut clocks = Clocks { monotonic: begun, wall };
        let mut look = |seconds, wall| clocks.look(begun + Duration::from_secs(seconds), wall);
        assert_eq!(look(1, wall + Duration::from_secs(1)), None);
        assert_eq!(look(2, wall + hour), None, "forth");
        assert_eq!(look(2, wall + hour - SET_BACK_MAX), None, "corrected by a little");
        // Two hours, but for the eight seconds that it was behind by.
        assert_eq!(look(4, wall - hour), Some(hour + Duration::from_secs(3_592)), "back");
        assert_eq!(look(5, wall - hour), None, "seen already");
    }

    #[test]
    fn a_call_that_comes_back_is_answered() {
        let watchdog = Watchdog::start("a test");
        for number in 0..100 {
            assert_eq!(watchdog.abandon_after(Duration::from_secs(60), move || number), Some(number));
        }
        assert_eq!(watchdog.shared.apart.load(Ordering::SeqCst), 0, "none is left");
    }

    #[test]
    fn a_call_that_hangs_is_abandoned_and_counted_until_it_comes_back() {
        let watchdog = Watchdog::start("a test");
        let (let_go, held) = mpsc::channel::<()>();
        let answer = watchdog.abandon_after(Duration::from_millis(20), move || held.recv().is_ok());
        assert_eq!(answer, None);
        assert_eq!(watchdog.shared.apart.load(Ordering::SeqCst), 1);
        let_go.send(()).expect("it still waits");
        while watchdog.shared.apart.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}
