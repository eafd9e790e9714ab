//! The contracts of a ledger database, one for each kind of user. Each user takes the smallest that it needs, so that its
//! parameters say what it can do.
//!
//! | contract | users |
//! |---|---|
//! | [`LedgerWriter`] | the pipeline, which decides; `stock`, which states levels; the gate, for positions |
//! | [`LedgerReader`] | the level feed; the gate; `stock get` and `stock export` |
//! | [`WorkQueue`] | the level feed and the expiry of holds |
//! | [`LedgerQueries`] | the read API over HTTP; `stock watch`, `orders show` |
//! | [`LedgerHistory`] | replay and audit |
//! | [`LedgerAdmin`] | the commands that make, check, repair and close a ledger |
//! | [`LedgerExaminer`] | `doctor` |
//!
//! So a running verifier needs the first three: [`VerifierStore`].

mod admin;
mod examiner;
mod history;
mod queries;
mod reader;
mod work_queue;
mod writer;

pub use admin::LedgerAdmin;
pub use examiner::LedgerExaminer;
pub use history::{LedgerHistory, Snapshot};
pub use queries::LedgerQueries;
pub use reader::LedgerReader;
pub use work_queue::WorkQueue;
pub use writer::LedgerWriter;

/// What a running verifier needs: it decides, says what there is, and takes what waits.
pub trait VerifierStore: LedgerWriter + LedgerReader + WorkQueue {}

impl<T: LedgerWriter + LedgerReader + WorkQueue> VerifierStore for T {}

/// A ledger database: all contracts together, for who opens one and hands it on.
pub trait Store: VerifierStore + LedgerQueries + LedgerHistory + LedgerAdmin {}

impl<T: VerifierStore + LedgerQueries + LedgerHistory + LedgerAdmin> Store for T {}

/// The same of a database that can also be looked at for faults.
pub trait ExaminedStore: Store + LedgerExaminer {}

impl<T: Store + LedgerExaminer> ExaminedStore for T {}
