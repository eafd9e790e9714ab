//! Clients are closed within a bound.
//!
//! librdkafka joins the threads of all brokers before a client has ended, and where one is away, or has just gone, that can take
//! for ever (librdkafka#4519, #4674): a command that has done its work would not end, nor would a verifier that is to be started
//! again. So a client is closed on a thread of its own, and left to it when that takes too long.

use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;

/// Longest wait for a client to close. It takes some milliseconds where all brokers are there, and 5 s where a group's coordinator
/// does not answer the member that leaves (`rd_kafka_LeaveGroupRequest`). What hangs keeps its threads and some MiB: a loop that
/// makes clients leaves one behind in so long at most.
const CLOSE_LIMIT: Duration = Duration::from_secs(7);

/// A client that is closed when this is dropped, which takes [`CLOSE_LIMIT`] at most. It is used like the client itself.
pub(super) struct BoundedClose<C: Send + 'static> {
    /// `None` only within `drop`.
    client: Option<C>,
    limit: Duration,
}

impl<C: Send + 'static> BoundedClose<C> {
    pub(super) fn new(client: C) -> Self {
        Self { client: Some(client), limit: CLOSE_LIMIT }
    }

    /// Closed without anybody waiting for it: for a client that has nothing to finish.
    pub(super) fn unwaited(mut self) -> Self {
        self.limit = Duration::ZERO;
        self
    }

    /// Makes a client.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn of<X: ClientContext>(config: &ClientConfig, context: X) -> Result<Self>
    where
        C: FromClientConfigAndContext<X>,
    {
        config.create_with_context(context).map(Self::new).context("the Kafka configuration is refused")
    }
}

impl<C: Send + 'static> Deref for BoundedClose<C> {
    type Target = C;

    fn deref(&self) -> &C {
        // Holds because only `drop` takes it, after which nobody has this.
        self.client.as_ref().expect("a client that is not closed")
    }
}

impl<C: Send + 'static> Drop for BoundedClose<C> {
    fn drop(&mut self) {
        let client = self.client.take();
        let (closed, wait) = mpsc::sync_channel::<()>(1);
        let closing = thread::Builder::new().name("close".to_owned()).spawn(move || {
            drop(client);
            drop(closed);
        });
        // Without a thread it is closed here, with what was to run on it.
        let is_waited_for = closing.is_ok() && !self.limit.is_zero();
        if is_waited_for && wait.recv_timeout(self.limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a client of Kafka does not close within {:?}, and is left behind", self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    /// Closes when it is told to.
    struct Client(mpsc::Receiver<()>, Arc<AtomicBool>);

    impl Drop for Client {
        fn drop(&mut self) {
            let _ = self.0.recv();
            self.1.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_client_is_closed_before_whoever_drops_it_goes_on() {
        let (close, told) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let client = BoundedClose::new(Client(told, Arc::clone(&closed)));
        drop(close);
        drop(client);
        assert!(closed.load(Ordering::SeqCst), "nobody waited for it");
    }

    #[test]
    fn a_client_that_does_not_close_is_left_behind() {
        let (close, told) = mpsc::channel::<()>();
        let closed = Arc::new(AtomicBool::new(false));
        let client = BoundedClose::new(Client(told, Arc::clone(&closed)));
        let begun = Instant::now();
        drop(client);
        assert!(
            begun.elapsed() >= CLOSE_LIMIT,
            "it had {CLOSE_LIMIT:?}, and was left after {:?}",
            begun.elapsed()
        );
        assert!(!closed.load(Ordering::SeqCst), "it does not close, and was waited for");
        drop(close);
    }

    #[test]
    fn a_client_that_nobody_waits_for_is_closed_all_the_same() {
        let (close, told) = mpsc::channel::<()>();
        let closed = Arc::new(AtomicBool::new(false));
        drop(BoundedClose::new(Client(told, Arc::clone(&closed))).unwaited());
        drop(close);
        let deadline = Instant::now() + CLOSE_LIMIT;
        while !closed.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "it is never closed");
            thread::yield_now();
        }
    }
}
