//! How the newest commands that follow orders stand to these, for who looks for faults.

use sqlx::PgConnection;

use super::distributed::{self, Layout};
use super::failure::failed;
use crate::store::examination::{FollowerRow, MOST_FOLLOWERS_LOOKED_AT};
use crate::store::{Answer, Followers};

/// Decisions are only ever added, so the newest stand in the last blocks of their table: so many of those, some 20,000
/// decisions, are read, however large the ledger is. The ledger's order has no index that finds the newest.
const BLOCKS: i64 = 500;

/// Reads the last blocks of the decisions, and looks up the orders of those that follow one.
pub(super) async fn read(connection: &mut PgConnection, layout: Layout) -> Answer<Followers> {
    let doing = failed("looking where commands that follow orders stand");
    if layout == Layout::Distributed {
        return distributed::followers(connection).await.map_err(doing);
    }
    let first: i64 = sqlx::query_scalar(
        "SELECT greatest(pg_relation_size('decisions') / current_setting('block_size')::bigint - $1, 0)",
    )
    .bind(BLOCKS)
    .fetch_one(&mut *connection)
    .await
    .map_err(&doing)?;
    // Cancellations and releases have their order's id; returns, confirmations and extensions one of their own.
    let rows: Vec<FollowerRow> = sqlx::query_as(
        "SELECT follower.order_id, follower.kind, follower.topic, follower.partition, created.partition AS of_order
         FROM (SELECT seq, kind, topic, partition,
                      CASE WHEN kind IN (3, 4, 6) THEN detail::json ->> 'order_id' ELSE id END AS order_id
               FROM decisions
               WHERE ctid >= $1::text::tid AND kind IN (2, 3, 4, 5, 6) AND partition IS NOT NULL
               ORDER BY seq DESC LIMIT $2) AS follower
         JOIN decisions AS created ON created.id = follower.order_id COLLATE \"C\" AND created.kind = 1
                                      AND created.topic = follower.topic
         ORDER BY follower.seq DESC",
    )
    .bind(format!("({first},0)"))
    .bind(MOST_FOLLOWERS_LOOKED_AT)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    Ok(Followers::of(rows))
}
