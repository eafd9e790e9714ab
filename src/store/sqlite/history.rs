//! All that is in the ledger, at one moment.

use async_trait::async_trait;

use super::failure::database;
use super::read::SqliteSnapshot;
use super::{SqliteStore, audit};
use crate::store::{Audit, LedgerHistory, Snapshot, StoreError};

#[async_trait]
impl LedgerHistory for SqliteStore {
    async fn group(&self) -> Result<Option<String>, StoreError> {
        let doing = "reading whose ledger it is";
        let mut conn = self.readers.acquire().await.map_err(database(doing))?;
        sqlx::query_scalar("SELECT name FROM ledger_group")
            .fetch_optional(&mut *conn)
            .await
            .map_err(database(doing))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let transaction = self.readers.begin().await.map_err(database("beginning to read the ledger"))?;
        Ok(Box::new(SqliteSnapshot(transaction)))
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let mut conn = self.readers.acquire().await.map_err(database("auditing the ledger"))?;
        audit::audit(&mut conn).await
    }
}
