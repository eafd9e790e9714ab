//! All that is in the ledger, at one moment.

use async_trait::async_trait;

use super::failure::failed;
use super::{PostgresStore, audit, read};
use crate::store::{Audit, LedgerHistory, Snapshot, StoreError};

#[async_trait]
impl LedgerHistory for PostgresStore {
    async fn group(&self) -> Result<Option<String>, StoreError> {
        self.with(async |connection| {
            sqlx::query_scalar("SELECT name FROM ledger_group")
                .fetch_optional(connection)
                .await
                .map_err(failed("reading whose ledger it is"))
        })
        .await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let layout = self.layout().await?;
        // Only the owner may, and nobody on a standby: then what follows may be slow.
        if let Err(error) =
            self.at_leisure(async |connection| read::summarise(connection, layout).await).await
        {
            tracing::debug!(%error, "the indexes by ledger sequence are not brought up to date; reading may be slow");
        }
        Ok(Box::new(read::PostgresSnapshot::begin(&self.pool, layout).await?))
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let layout = self.layout().await?;
        let session = self.pool.session();
        self.at_leisure(async |connection| audit::audit(connection, layout, &session).await).await
    }
}
