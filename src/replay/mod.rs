//! What was decided, looked at again: compared, republished, asked again, rebuilt, and tried with other levels.
//!
//! Everything here walks the ledger in its own order ([`replay_state`]), or the topics in theirs ([`reader`](crate::kafka::reader)), or both side by
//! side ([`join`]): the ledger says in which order the records of all partitions were decided, and the topics hold what
//! was asked. [`record_filter`] says which records are meant.
//!
//! * [`decision_verifier`]: whether the rules decide the same again; [`compare`]: with the topics, and whether what was published is
//!   what is stored. The audit and `replay diff` are both this.
//! * [`republish`] publishes stored decisions again; [`reprocess`] asks commands again.
//! * [`rebuild`] makes a ledger again; [`simulate`] decides with other levels.

pub mod compare;
pub mod decision_verifier;
pub mod finding;
pub mod incarnations;
pub mod join;
mod levels;
mod placement;
pub mod published;
pub mod rebuild;
pub mod reconciler;
pub mod record_filter;
pub mod replay_state;
pub mod reprocess;
pub mod republish;
mod rows;
pub mod scope;
pub mod simulate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

/// How far a long work is, for whoever shows it; and whether it shall end early.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    stop: CancellationToken,
}

/// The work was stopped by Ctrl-C between two steps that are each whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped, with nothing half done")]
pub struct Stopped;

impl Progress {
    /// One that ends the work when `stop` is cancelled.
    #[must_use]
    pub fn until(stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { stop, ..Shared::default() }))
    }

    /// So much is to be done, more or less.
    pub fn expect(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// So much more is done.
    ///
    /// # Errors
    /// [`Stopped`] when the work shall end here.
    pub fn add(&self, done: usize) -> Result<(), Stopped> {
        self.0.done.fetch_add(done as u64, Ordering::Relaxed);
        if self.0.stop.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }

    /// What is done, and what there is to do.
    #[must_use]
    pub fn so_far(&self) -> (u64, u64) {
        (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }
}
