//! Sessions of this program that hold locks and do nothing.
//!
//! PostgreSQL ends a statement that takes too long and a transaction that sits idle, but neither while it waits for its
//! client inside `COPY … FROM STDIN`. A process that is stopped or frozen there, or cut off from a server that does not
//! know it, keeps its batch's locks without a limit: no other instance gets at its SKUs, and nobody through the gate
//! whom it must not share it with. So whoever waited for a lock in vain looks for such sessions and ends them, as
//! PostgreSQL would have done. Their batches are undone whole; when their process comes back it applies them again.

use std::time::Duration;

use sqlx::Row as _;

use super::failure::failed;
use super::gate;
use super::session::{APPLICATION_NAME, IDLE_TIMEOUT, STATEMENT_TIMEOUT, Session};
use crate::causes;
use crate::store::StoreError;

/// Longest time for looking: it is only worth it where the database answers.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Ends them. On a connection of its own: a pool may have none left. What fails is looked at again after the next wait.
pub(super) async fn end_stuck(session: &Session) {
    match tokio::time::timeout(LOOK_LIMIT, try_end_stuck(session)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                "sessions that hold locks and do nothing cannot be looked for: {}",
                causes::of(&error)
            );
        }
        Err(_) => tracing::warn!("looking for sessions that hold locks and do nothing took too long"),
    }
}

async fn try_end_stuck(session: &Session) -> Result<(), StoreError> {
    let doing = failed("ending sessions that hold locks and do nothing");
    let mut connection = session.connect(&[]).await?;
    // A batch holds its share of the gate, whatever it does; a snapshot that is read at leisure does not.
    let stuck = sqlx::query(
        "SELECT pid, coalesce(host(client_addr), 'this host') AS address, usename::text AS role,
                state = 'active' AS copies, extract(epoch FROM clock_timestamp() - state_change)::bigint AS seconds,
                CASE WHEN pg_has_role(usesysid, 'USAGE') THEN pg_terminate_backend(pid) ELSE false END AS ended
         FROM pg_stat_activity AS session
         WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()
               AND wait_event = 'ClientRead'
               AND (state = 'active' AND query LIKE 'COPY %'
                        AND state_change < clock_timestamp() - $2 * interval '1 second'
                    OR state LIKE 'idle in transaction%'
                        AND state_change < clock_timestamp() - $3 * interval '1 second')
               AND EXISTS (SELECT FROM pg_locks AS gate
                           WHERE gate.pid = session.pid AND gate.granted AND gate.locktype = 'advisory'
                                 AND gate.database = session.datid AND gate.objsubid = 1
                                 AND (gate.classid::bigint << 32 | gate.objid::bigint) = $4)",
    )
    .bind(APPLICATION_NAME)
    .bind(STATEMENT_TIMEOUT.as_secs_f64())
    .bind(IDLE_TIMEOUT.as_secs_f64())
    .bind(gate::GATE)
    .fetch_all(&mut connection)
    .await
    .map_err(&doing)?;
    for row in &stuck {
        let pid: i32 = row.try_get("pid").map_err(&doing)?;
        let address: &str = row.try_get("address").map_err(&doing)?;
        let role: &str = row.try_get("role").map_err(&doing)?;
        let seconds: i64 = row.try_get("seconds").map_err(&doing)?;
        let doing_what =
            if row.try_get("copies").map_err(&doing)? { "in mid-COPY" } else { "in mid-transaction" };
        if row.try_get("ended").map_err(&doing)? {
            tracing::warn!(
                pid,
                address,
                "ended the session of an instance that was silent {doing_what} for {seconds} s and held locks: it is \
                 stopped, frozen or cut off"
            );
        } else {
            tracing::warn!(
                pid,
                address,
                role,
                "a session of an instance is silent {doing_what} since {seconds} s and holds locks, but belongs to \
                 another role: end it with pg_terminate_backend, or let all instances have one role"
            );
        }
    }
    Ok(())
}
