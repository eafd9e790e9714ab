//! What an operator does to a ledger, and nothing that runs does.

use async_trait::async_trait;
use secrecy::SecretString;

use crate::ledger::Sequenced;
use crate::store::{Applied, CommandBatch, ItemLevel, StoreError};

/// Opens, checks, repairs and makes a ledger again, and closes it.
#[async_trait]
pub trait LedgerAdmin: Send + Sync + 'static {
    /// Creates or updates the tables.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Checks that the tables are those of this program, and that the database is set as the ledger needs it.
    async fn check(&self) -> Result<(), StoreError>;

    /// Checks that the database takes writes now. Reading a ledger needs none.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], which may pass.
    async fn check_writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The levels that are not what their movements say, though those are one chain: each as it should be. No more
    /// than some twenty thousand at once.
    async fn repairable_levels(&self) -> Result<Vec<ItemLevel>, StoreError>;

    /// Applies a batch as [`LedgerWriter::apply`](super::LedgerWriter::apply) does, after it made the levels of the batch's items follow from their newest
    /// movements, in the same transaction.
    async fn repair(&self, batch: &CommandBatch) -> Result<Applied, StoreError>;

    /// Applies a batch as [`LedgerWriter::apply`](super::LedgerWriter::apply) does, but at the ledger sequences its decisions had before: one for each request, and
    /// each request is decided. For making a ledger again; none other may write to it meanwhile.
    async fn restore(&self, batch: &CommandBatch, sequences: &[Sequenced]) -> Result<Applied, StoreError>;

    /// Connects with this password from here on; connections that there are stay. Nothing to a store without one.
    fn set_password(&self, _password: &SecretString) {}

    /// Ends every connection.
    async fn close(&self);
}
