//! Reading the ledger back, in its order, as it was at one moment.
//!
//! Ledger sequences are kept by BRIN indexes: the tables are append-only,
//! so ledger sequences follow the rows' order on disk closely, and such an index costs
//! a batch next to nothing. What it cannot do is sort; so each page is a
//! bounded range of sequences, of which the index names the few blocks.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection, Postgres, Row};

use super::connection::Pool;
use super::distributed::{self, Layout, Moment, Placements};
use super::failure::failed;
use super::rows::{BATCH_SEQUENCES, PgStamp, damaged, limit_column};
use super::{gate, orders, programs, rows};
use crate::ledger::{
    CommandKey, Decision, HeldProgram, Hold, Id, Item, Map, NextOffset, OrderStock, Seq, TopicId,
    TopicPartition,
};
use crate::store::{Incarnation, ItemLevel, Snapshot, StoreError, StoredMovement, StoredOrder, stored_order};

/// Most sequences looked through at once: a thousand batches, for ledgers whose batches are small.
const LONGEST_RANGE: i64 = 1_000 * BATCH_SEQUENCES;

/// A read-only transaction that sees the ledger as it was when it began.
pub(super) struct PostgresSnapshot {
    connection: PoolConnection<Postgres>,
    /// Sequences looked through at once: as many as hold about one page, since all rows of a range are read and sorted.
    range: i64,
    /// Where the shards of a distributed ledger are.
    placements: Option<Placements>,
}

impl PostgresSnapshot {
    pub(super) async fn begin(pool: &Pool, layout: Layout) -> Result<Self, StoreError> {
        let mut connection = pool.acquire().await?;
        let moment = match layout {
            Layout::Plain => None,
            Layout::Distributed => Some(Moment::hold(&pool.session()).await?),
        };
        // Of no use to anybody else: what its transaction sees and sets is its own.
        connection.close_on_drop();
        connection
            .execute(
                // It holds no locks, and its reader may have much to do between two pages.
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0",
            )
            .await
            .map_err(failed("beginning to read the ledger"))?;
        let placements = match moment {
            None => None,
            Some(moment) => Some(moment.seen_by(&mut connection).await?),
        };
        Ok(Self { connection, range: BATCH_SEQUENCES, placements })
    }

    /// Refuses what was read of shards that moved. Asked where most is read.
    async fn check_placements(&mut self) -> Result<(), StoreError> {
        match &mut self.placements {
            None => Ok(()),
            Some(placements) => placements.check().await,
        }
    }
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    async fn count(&mut self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM decisions")
            .fetch_one(&mut *self.connection)
            .await
            .map_err(failed("counting the decisions"))?;
        Ok(count.unsigned_abs())
    }

    async fn last_seq(&mut self) -> Result<Option<Seq>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(seq) FROM decisions")
            .fetch_one(&mut *self.connection)
            .await
            .map_err(failed("reading the last decision's ledger sequence"))?;
        Ok(last.map(Seq))
    }

    async fn positions(&mut self) -> Result<HashMap<TopicPartition, NextOffset>, StoreError> {
        sqlx::query("SELECT topic, partition, next_offset FROM positions")
            .fetch_all(&mut *self.connection)
            .await
            .map_err(failed("reading the positions"))?
            .iter()
            .map(|row| rows::position(row).map_err(failed("reading the positions")))
            .collect()
    }

    async fn incarnations(&mut self) -> Result<Vec<Incarnation>, StoreError> {
        let rows: Vec<(String, i32, i64, String)> = sqlx::query_as(
            "SELECT topic, partition, from_seq, topic_id FROM topic_incarnations
             ORDER BY topic, partition, from_seq",
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(failed("reading the topics' ids"))?;
        Ok(rows
            .into_iter()
            .map(|(topic, partition, from, topic_id)| Incarnation {
                at: TopicPartition::new(topic, partition),
                topic_id: TopicId::new(topic_id),
                from: Seq(from),
            })
            .collect())
    }

    async fn programs(&mut self) -> Result<Vec<HeldProgram>, StoreError> {
        programs::all(&mut self.connection).await
    }

    async fn decisions_after(&mut self, after: Seq, limit: usize) -> Result<Vec<Decision>, StoreError> {
        let mut after = after.0;
        loop {
            let through = after.saturating_add(self.range);
            let found = decisions_between(&mut self.connection, after, through, limit).await?;
            self.check_placements().await?;
            if found.len() >= limit {
                self.range = (self.range / 2).max(BATCH_SEQUENCES);
            } else if found.len() < limit / 4 {
                self.range = (self.range * 2).min(LONGEST_RANGE);
            }
            // A range may be empty: batches that failed drew their sequences all the same.
            if !found.is_empty() || last_drawn(&mut self.connection).await? <= through {
                return Ok(found);
            }
            after = through;
        }
    }

    async fn movements_between(
        &mut self,
        after: Seq,
        through: Seq,
    ) -> Result<Vec<StoredMovement>, StoreError> {
        sqlx::query(
            r#"SELECT seq, sku, location, version, quantity, balance, kind, id, partition, "offset"
               FROM movements WHERE seq > $1 AND seq <= $2 ORDER BY seq, sku, location"#,
        )
        .bind(after.0)
        .bind(through.0)
        .fetch_all(&mut *self.connection)
        .await
        .map_err(failed("reading the movements"))?
        .iter()
        .map(|row| rows::movement(row, 0))
        .collect()
    }

    async fn decisions_of(&mut self, ids: &[&Id]) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
        decisions_of(&mut self.connection, ids).await
    }

    async fn levels_after(
        &mut self,
        after: Option<&Item>,
        limit: usize,
    ) -> Result<Vec<ItemLevel>, StoreError> {
        let found = levels_after(&mut self.connection, after, limit).await?;
        self.check_placements().await?;
        Ok(found)
    }

    async fn order_lines_after(
        &mut self,
        after: Option<(&Id, &Item)>,
        limit: usize,
    ) -> Result<Vec<(Id, OrderStock)>, StoreError> {
        let doing = failed("reading the orders' lines");
        sqlx::query(
            "SELECT order_id, sku, location, deducted, returned FROM order_lines
             WHERE (order_id, sku, location) > ($1, $2, $3) ORDER BY order_id, sku, location LIMIT $4",
        )
        // No id is empty, so this is before every one.
        .bind(after.map_or("", |(id, _)| id.as_str()))
        .bind(after.map_or("", |(_, item)| item.sku.as_str()))
        .bind(after.map_or("", |(_, item)| rows::location_column(item)))
        .bind(limit_column(limit))
        .fetch_all(&mut *self.connection)
        .await
        .map_err(&doing)?
        .iter()
        .map(|row| {
            let stock = OrderStock {
                item: rows::item(row)?,
                deducted: row.try_get("deducted").map_err(&doing)?,
                returned: row.try_get("returned").map_err(&doing)?,
            };
            Ok((order_id(row)?, stock))
        })
        .collect()
    }

    async fn holds_after(&mut self, after: Option<&Id>, limit: usize) -> Result<Vec<(Id, Hold)>, StoreError> {
        let doing = failed("reading the holds");
        sqlx::query(
            "SELECT order_id, topic, partition, expires_at
             FROM holds WHERE order_id > $1 ORDER BY order_id LIMIT $2",
        )
        .bind(after.map_or("", Id::as_str))
        .bind(limit_column(limit))
        .fetch_all(&mut *self.connection)
        .await
        .map_err(&doing)?
        .iter()
        .map(|row| {
            let expires_at = row.try_get::<PgStamp, _>("expires_at").map_err(&doing)?.0;
            Ok((order_id(row)?, Hold { expires_at, at: orders::hold_partition(row).map_err(&doing)? }))
        })
        .collect()
    }
}

/// Brings the BRIN indexes up to date: what they have not summarised yet is read whole for every page, so that reading a
/// ledger just written would take the square of its time. PostgreSQL does it by itself, but some time later.
pub(super) async fn summarise(connection: &mut PgConnection, layout: Layout) -> Result<(), StoreError> {
    sqlx::query(match layout {
        Layout::Plain => {
            "SELECT brin_summarize_new_values('decisions_by_seq'), brin_summarize_new_values('movements_by_seq')"
        }
        Layout::Distributed => distributed::SUMMARISE,
    })
    .execute(connection)
    .await
    .map_err(failed("bringing the indexes by ledger sequence up to date"))?;
    Ok(())
}

/// The decisions of every kind for these ids.
async fn decisions_of(
    connection: &mut PgConnection,
    ids: &[&Id],
) -> Result<Map<CommandKey, Arc<Decision>>, StoreError> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    sqlx::query(
        r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
           FROM decisions WHERE id = ANY($1)"#,
    )
    .bind(ids)
    .fetch_all(connection)
    .await
    .map_err(failed("reading the decisions"))?
    .iter()
    .map(|row| rows::decision(row, 0).map(|decision| (decision.key.clone(), Arc::new(decision))))
    .collect()
}

/// The decision of one command.
pub(super) async fn decision(
    connection: &mut PgConnection,
    of: &CommandKey,
) -> Result<Option<Decision>, StoreError> {
    sqlx::query(
        r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
           FROM decisions WHERE id = $1 AND kind = $2"#,
    )
    .bind(of.id.as_str())
    .bind(of.kind.number())
    .fetch_optional(connection)
    .await
    .map_err(failed("reading a decision"))?
    .as_ref()
    .map(|row| rows::decision(row, 0))
    .transpose()
}

/// One order, all of the same moment.
pub(super) async fn order(
    connection: &mut PgConnection,
    id: &Id,
    layout: Layout,
) -> Result<Option<StoredOrder>, StoreError> {
    let doing = failed("reading an order");
    let begin = match layout {
        Layout::Plain => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        // Its movements are on other nodes than it.
        Layout::Distributed => gate::BEGIN_READING,
    };
    let mut moment = connection.begin_with(begin).await.map_err(&doing)?;
    let decisions = stored_order::about(id, decisions_of(&mut moment, &[id]).await?);
    if decisions.is_empty() {
        moment.rollback().await.map_err(&doing)?;
        return Ok(None);
    }
    let mut state = stored_order::bare_state(id, &decisions)?;
    orders::read_states(&mut moment, &mut state).await?;
    let sequences: Vec<i64> = stored_order::sequences(&decisions).into_iter().map(|seq| seq.0).collect();
    let movements = sqlx::query(
        r#"SELECT seq, sku, location, version, quantity, balance, kind, id, partition, "offset"
           FROM movements WHERE seq = ANY($1) ORDER BY seq, sku, location"#,
    )
    .bind(sequences)
    .fetch_all(&mut *moment)
    .await
    .map_err(&doing)?
    .iter()
    .map(|row| rows::movement(row, 0))
    .collect::<Result<_, _>>()?;
    moment.rollback().await.map_err(&doing)?;
    Ok(Some(StoredOrder { decisions, state: state.remove(id), movements }))
}

/// The first decisions of a range of the ledger's order.
async fn decisions_between(
    connection: &mut PgConnection,
    after: i64,
    through: i64,
    limit: usize,
) -> Result<Vec<Decision>, StoreError> {
    sqlx::query(
        r#"SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
           FROM decisions WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"#,
    )
    .bind(after)
    .bind(through)
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await
    .map_err(failed("reading the decisions"))?
    .iter()
    .map(|row| rows::decision(row, 0))
    .collect()
}

/// The last ledger sequence any batch can have drawn.
async fn last_drawn(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let last_batch: i64 = sqlx::query_scalar("SELECT last_value FROM ledger_seq")
        .fetch_one(connection)
        .await
        .map_err(failed("reading the ledger's last sequence"))?;
    Ok(last_batch.saturating_add(BATCH_SEQUENCES))
}

/// The next levels, sorted by item.
pub(super) async fn levels_after(
    connection: &mut PgConnection,
    after: Option<&Item>,
    limit: usize,
) -> Result<Vec<ItemLevel>, StoreError> {
    let found = sqlx::query(
        "SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
         WHERE (sku, location) > ($1, $2) ORDER BY sku, location LIMIT $3",
    )
    // No SKU is empty, so this is before every one.
    .bind(after.map_or("", |item| item.sku.as_str()))
    .bind(after.map_or("", rows::location_column))
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await;
    rows::levels(found)
}

fn order_id(row: &PgRow) -> Result<Id, StoreError> {
    let id: &str = row.try_get("order_id").map_err(failed("reading an order's id"))?;
    Id::new(id).map_err(|error| damaged(format!("an order whose id {error}")))
}
