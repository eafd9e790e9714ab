//! The signals that stop a command which goes on until it is told to.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and Ctrl-C. Heard from when this is made until it is dropped: one that comes while nobody waits for it is not
/// lost.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Hears them from here on.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next. A wait that is cut short loses none.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
