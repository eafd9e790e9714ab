//! Questions that Citus wants in other words: it takes no `FOR UPDATE` over several shards, and no lateral join of the
//! whole.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};

use super::super::failure::failed;
use super::super::rows::{self, BATCH_SEQUENCES, PgStamp, limit_column};
use super::super::{gate, orders};
use super::turn;
use crate::ledger::{CommandKey, Decision, Item, Map};
use crate::store::examination::{FollowerRow, MOST_FOLLOWERS_LOOKED_AT};
use crate::store::{DatedMovement, DueHold, Followers, MOST_LEASE, StoreError, StoredMovement};

/// The coordinator's time in microseconds since 1970. Bound to statements: the nodes' clocks decide nothing.
async fn now(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let now: PgStamp = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await
        .map_err(failed("asking the database for the time"))?;
    Ok(now.0.0)
}

/// A time of so many microseconds, given by its parameter. As `orders.rs` writes it.
macro_rules! time {
    ($parameter:literal) => {
        concat!(
            "(to_timestamp(",
            $parameter,
            " / 1000000) + ",
            $parameter,
            " % 1000000 * interval '1 microsecond')"
        )
    };
}

/// What holds that are over, and nobody has asked for, are: `$1` now, `$2` the longest lease in seconds.
macro_rules! is_due {
    () => {
        concat!(
            "expires_at <= ",
            time!("$1::bigint"),
            " AND (asked_until IS NULL OR asked_until <= ",
            time!("$1::bigint"),
            " OR asked_until > ",
            time!("$1::bigint"),
            " + $2::bigint * interval '1 second')"
        )
    };
}

/// As [`orders::take_due_holds`]: looked for, and only where there are some taken, behind the gate.
pub(in super::super) async fn take_due_holds(
    connection: &mut PgConnection,
    limit: usize,
    lease: Duration,
) -> Result<Vec<DueHold>, StoreError> {
    let doing = failed("taking due holds");
    let most_lease = i64::try_from(MOST_LEASE.as_secs()).unwrap_or(i64::MAX);
    let due: Vec<String> = sqlx::query_scalar(concat!(
        "SELECT order_id FROM holds WHERE ",
        is_due!(),
        " ORDER BY expires_at LIMIT $3"
    ))
    .bind(now(connection).await?)
    .bind(most_lease)
    .bind(limit_column(limit))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = turn::begin(connection).await?;
    let taken = sqlx::query(concat!(
        "UPDATE holds SET asked_until = ",
        time!("$1::bigint"),
        " + $3::bigint * interval '1 microsecond' WHERE order_id = ANY($4) AND ",
        is_due!(),
        " RETURNING order_id, topic, partition"
    ))
    .bind(now(&mut transaction).await?)
    .bind(most_lease)
    .bind(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX))
    .bind(due)
    .fetch_all(&mut *transaction)
    .await
    .map_err(&doing)?
    .iter()
    .map(orders::due_hold)
    .collect::<Result<_, _>>()?;
    transaction.commit().await.map_err(doing)?;
    Ok(taken)
}

/// As [`orders::take_unannounced`], once no batch is under way: what it noted is seen before the level that it left is.
pub(in super::super) async fn take_unannounced(
    connection: &mut PgConnection,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    let doing = failed("taking levels to announce");
    let mut transaction = connection.begin_with(gate::BEGIN_SHARED).await.map_err(&doing)?;
    let taken = orders::take_unannounced(&mut transaction, limit).await?;
    transaction.commit().await.map_err(doing)?;
    Ok(taken)
}

/// Brings the BRIN indexes of all shards up to date.
pub(in super::super) const SUMMARISE: &str = "SELECT count(*)
     FROM UNNEST(ARRAY['decisions', 'movements']) AS of (name), run_command_on_shards(of.name,
         $$SELECT sum(brin_summarize_new_values(indexrelid))
           FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
           WHERE indrelid = '%s'::regclass AND amname = 'brin'$$)";

/// Batches whose decisions are looked at for commands that follow orders: as [`followers`](super::super::followers) does,
/// but by the ledger's order, since each shard has last blocks of its own.
const LAST_BATCHES: i64 = 20;

/// How the newest commands that follow orders stand to these.
pub(in super::super) async fn followers(connection: &mut PgConnection) -> Result<Followers, sqlx::Error> {
    let last: i64 =
        sqlx::query_scalar("SELECT last_value FROM ledger_seq").fetch_one(&mut *connection).await?;
    let rows: Vec<FollowerRow> = sqlx::query_as(
        r#"SELECT follower.order_id, follower.kind, follower.topic, follower.partition, created.partition AS of_order
           FROM (SELECT seq, kind, topic, partition,
                        CASE WHEN kind IN (3, 4, 6) THEN detail::json ->> 'order_id' ELSE id END AS order_id
                 FROM decisions
                 WHERE seq > $1 AND kind IN (2, 3, 4, 5, 6) AND partition IS NOT NULL
                 ORDER BY seq DESC LIMIT $2) AS follower
           JOIN decisions AS created ON created.id = follower.order_id COLLATE "C" AND created.kind = 1
                                        AND created.topic = follower.topic
           ORDER BY follower.seq DESC"#,
    )
    .bind(last - LAST_BATCHES * BATCH_SEQUENCES)
    .bind(MOST_FOLLOWERS_LOOKED_AT)
    .fetch_all(connection)
    .await?;
    Ok(Followers::of(rows))
}

/// The decisions that follow these orders under ids of their own: of each the newest so many.
pub(in super::super) async fn following(
    connection: &mut PgConnection,
    orders: &[&str],
    limit: usize,
) -> Result<Vec<Decision>, StoreError> {
    sqlx::query(
        r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
           FROM (SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at,
                        row_number() OVER (PARTITION BY (detail::json ->> 'order_id') COLLATE "C"
                                           ORDER BY seq DESC) AS number
                 FROM decisions
                 WHERE kind IN (3, 4, 6)
                       AND (detail::json ->> 'order_id') COLLATE "C" = ANY($1::text[])) AS numbered
           WHERE number <= $2"#,
    )
    .bind(orders)
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await
    .map_err(failed("reading orders"))?
    .iter()
    .map(|row| rows::decision(row, 0))
    .collect()
}

/// When a movement was decided, and the topic of its record.
type DecidedAt = (PgStamp, Option<Arc<str>>);

/// A page of a SKU's movements before this version and location, at one location or at all, each with its decision.
pub(in super::super) async fn movements(
    connection: &mut PgConnection,
    sku: &str,
    location: Option<String>,
    before: (i64, String),
    limit: usize,
) -> Result<Vec<DatedMovement>, StoreError> {
    let doing = failed("reading the movements");
    let page: Vec<StoredMovement> = sqlx::query(
        r#"SELECT seq, sku, location, version, quantity, balance, kind, id, partition, "offset" FROM movements
           WHERE sku = $1::text AND ($2::text IS NULL OR location = $2::text)
                 AND (version, location) < ($3::bigint, $4::text)
           ORDER BY version DESC, location DESC LIMIT $5::bigint"#,
    )
    .bind(sku)
    .bind(location)
    .bind(before.0)
    .bind(before.1)
    .bind(limit_column(limit))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?
    .iter()
    .map(|row| rows::movement(row, 0))
    .collect::<Result<_, _>>()?;
    let ids: Vec<&str> = page.iter().map(|movement| movement.cause.id.as_str()).collect();
    let decided = sqlx::query("SELECT id, kind, decided_at, topic FROM decisions WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await
        .map_err(&doing)?;
    let mut decisions: Map<(String, i16), DecidedAt> = Map::default();
    for row in &decided {
        let key = (row.try_get("id").map_err(&doing)?, row.try_get("kind").map_err(&doing)?);
        let topic: Option<&str> = row.try_get("topic").map_err(&doing)?;
        decisions.insert(key, (row.try_get("decided_at").map_err(&doing)?, topic.map(Arc::from)));
    }
    let dated = page.into_iter().map(|movement| {
        let CommandKey { id, kind } = &movement.cause;
        let decision = decisions.get(&(id.as_str().to_owned(), kind.number()));
        let (decided_at, topic) = match decision {
            Some((at, topic)) => (Some(at.0), topic.clone()),
            None => (None, None),
        };
        DatedMovement { movement, decided_at, topic }
    });
    Ok(dated.collect())
}
