//! One moment of all nodes, for who reads the whole ledger.
//!
//! Citus has no snapshot across nodes: each takes its own when it is first read. So the gate is held alone until all have,
//! which is some milliseconds; then nothing is half written on any.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::Instant;

use super::super::failure::failed;
use super::super::gate;
use super::super::session::Session;
use super::settle;
use crate::store::StoreError;

/// Longest wait for what is in doubt: Citus looks for it every minute, unless it is told otherwise.
const DOUBT_LIMIT: Duration = Duration::from_secs(90);
/// How often to look.
const LOOK: Duration = Duration::from_secs(1);

/// What is prepared on some node, or a node that does not answer; only asked while no batch runs.
const IN_DOUBT: &str = "SELECT nodename || ':' || nodeport FROM run_command_on_all_nodes(
         $$SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()$$) AS said
     JOIN pg_dist_node USING (nodeid) WHERE NOT said.success OR said.result <> '0' ORDER BY 1 LIMIT 1";

/// Where each shard is, as one text.
const PLACEMENTS: &str = "SELECT coalesce(string_agg(shardid || '@' || groupid, ',' ORDER BY placementid), '') FROM pg_dist_placement";

/// The gate, held alone while nothing is in doubt. Released when it is dropped.
pub(in super::super) struct Moment(PgConnection);

impl Moment {
    /// Waits for it.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] when a node stays in doubt, or does not answer.
    pub(in super::super) async fn hold(session: &Session) -> Result<Self, StoreError> {
        let doing = failed("waiting for a moment at which no batch is under way");
        let begun = Instant::now();
        loop {
            let mut connection = session.connect(&[]).await?;
            connection.execute(sqlx::raw_sql(gate::BEGIN_ALONE)).await.map_err(&doing)?;
            let node: Option<String> =
                sqlx::query_scalar(IN_DOUBT).fetch_optional(&mut connection).await.map_err(&doing)?;
            let Some(node) = node else { return Ok(Self(connection)) };
            // Batches go on meanwhile, if they can.
            let _ = connection.close().await;
            if begun.elapsed() > DOUBT_LIMIT {
                return Err(StoreError::InDoubt { node });
            }
            settle(session).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets each node take its snapshot for this reader's transaction: it is read now. Each is read by one connection
    /// (`session.rs`), so what is read of it later is of the same snapshot. Then batches go on.
    pub(in super::super) async fn seen_by(self, reader: &mut PgConnection) -> Result<Placements, StoreError> {
        let doing = failed("beginning to read the ledger on all nodes");
        let Self(mut connection) = self;
        let were = sqlx::query_scalar(PLACEMENTS).fetch_one(&mut connection).await.map_err(&doing)?;
        reader
            .execute(sqlx::raw_sql(
                "SELECT count(*) FROM (SELECT 1 FROM levels LIMIT 1) AS any_level;
                 SELECT count(*) FROM (SELECT 1 FROM decisions LIMIT 1) AS any_decision",
            ))
            .await
            .map_err(&doing)?;
        connection.execute("ROLLBACK").await.map_err(&doing)?;
        Ok(Placements { connection, were })
    }
}

/// Where the shards were when a reader began. One that is moved is read where it is then, by a snapshot in which it is empty
/// there.
pub(in super::super) struct Placements {
    connection: PgConnection,
    were: String,
}

impl Placements {
    /// Refuses what was read where a shard was moved meanwhile.
    ///
    /// # Errors
    /// [`StoreError::ShardMoved`].
    pub(in super::super) async fn check(&mut self) -> Result<(), StoreError> {
        let are: String = sqlx::query_scalar(PLACEMENTS)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("looking where the shards are"))?;
        if are == self.were { Ok(()) } else { Err(StoreError::ShardMoved) }
    }
}
