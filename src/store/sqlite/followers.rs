//! How the newest commands that follow orders stand to these, for who looks for faults.

use super::SqliteStore;
use super::failure::database;
use crate::store::examination::{FollowerRow, MOST_FOLLOWERS_LOOKED_AT};
use crate::store::{Answer, Followers};

/// The newest decisions that are looked through, however large the ledger is.
const DECISIONS: i64 = 20_000;

/// Reads the newest decisions, and looks up the orders of those that follow one.
pub(super) async fn read(store: &SqliteStore) -> Answer<Followers> {
    let doing = "looking where commands that follow orders stand";
    let mut conn = store.readers.acquire().await.map_err(database(doing))?;
    // Cancellations and releases have their order's id; returns, confirmations and extensions one of their own.
    let rows: Vec<FollowerRow> = sqlx::query_as(
        "SELECT follower.order_id, follower.kind, follower.topic, follower.partition, created.partition AS of_order
         FROM (SELECT seq, kind, topic, partition,
                      CASE WHEN kind IN (3, 4, 6) THEN detail ->> 'order_id' ELSE id END AS order_id
               FROM (SELECT * FROM decisions ORDER BY seq DESC LIMIT ?1)
               WHERE kind IN (2, 3, 4, 5, 6) AND partition IS NOT NULL LIMIT ?2) AS follower
         JOIN decisions AS created ON created.id = follower.order_id AND created.kind = 1
                                      AND created.topic = follower.topic
         ORDER BY follower.seq DESC",
    )
    .bind(DECISIONS)
    .bind(MOST_FOLLOWERS_LOOKED_AT)
    .fetch_all(&mut *conn)
    .await
    .map_err(database(doing))?;
    Ok(Followers::of(rows))
}
