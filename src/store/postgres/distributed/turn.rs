//! A batch's turn: the gate for itself, and no batch before it in doubt.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection, Postgres, Transaction};

use super::super::failure::failed;
use super::super::gate;
use super::super::session::Session;
use crate::causes;
use crate::store::StoreError;

/// Waits for who is in doubt on a node, five seconds on each; then [`settle`] is worth a try. A session's own
/// `lock_timeout` does not reach the nodes; one that is propagated does. Each is a message of its own: Citus hands on the
/// text of the whole message.
const TURN: [&str; 3] = [
    "SET LOCAL citus.propagate_set_commands = 'local'",
    "SET LOCAL lock_timeout = '5s'",
    "UPDATE node_barrier SET batches = batches + 1",
];

/// Longest time to ask for a settlement. It asks every node, and one of them may be away.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Begins the transaction of a batch, and of whatever else writes to the nodes.
pub(super) async fn begin(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, StoreError> {
    let mut transaction =
        connection.begin_with(gate::BEGIN_ALONE).await.map_err(failed("beginning a transaction"))?;
    let doing = failed("waiting until no batch is in doubt on any node");
    for message in TURN {
        transaction.execute(sqlx::raw_sql(message)).await.map_err(&doing)?;
    }
    Ok(transaction)
}

/// Asks the coordinator to settle what is in doubt, instead of waiting until it does so by itself. On a connection of its
/// own. What fails is tried again after the next wait.
pub(in super::super) async fn settle(session: &Session) {
    match tokio::time::timeout(SETTLE_LIMIT, try_settle(session)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(settled)) => tracing::warn!(settled, "settled transactions that were in doubt on a node"),
        Ok(Err(error)) => tracing::warn!(
            "a batch waits for a transaction that is in doubt on a node, and this role cannot settle it (GRANT EXECUTE ON \
             FUNCTION recover_prepared_transactions()); Citus does, after citus.recover_2pc_interval: {}",
            causes::of(&error)
        ),
        Err(_) => tracing::warn!("settling transactions that are in doubt on a node took too long"),
    }
}

async fn try_settle(session: &Session) -> Result<i32, StoreError> {
    let mut connection = session.connect(&[]).await?;
    let settled = sqlx::query_scalar("SELECT recover_prepared_transactions()")
        .fetch_one(&mut connection)
        .await
        .map_err(failed("settling transactions in doubt"));
    // It has said what it was asked for; how it ends changes nothing.
    let _ = connection.close().await;
    settled
}
