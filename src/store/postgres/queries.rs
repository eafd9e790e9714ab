//! What neighbours ask, each answer with its moment. Each statement brings the moment along: `statement_timestamp()` is
//! taken before the statement's snapshot, so that what was committed until then is in it.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row};

use super::distributed::{self, Layout};
use super::failure::failed;
use super::rows::{self, PgStamp, limit_column};
use super::{PostgresStore, orders};
use crate::ledger::{CommandKey, Decision, Id, Item, Location, Map, Sku, Stamp};
use crate::store::queries::Lives;
use crate::store::{
    AsOf, DatedMovement, ItemLevel, LedgerQueries, MAX_FOLLOWERS, MovementCursor, OrderLife, StoreError,
};

/// The levels of a SKU, in the key's own order.
pub const STOCK: &str = "SELECT clock.at, found.*
     FROM (SELECT statement_timestamp() AS at) AS clock
     LEFT JOIN LATERAL (
         SELECT sku, location, available, version, backorder_limit, order_limit FROM levels
         WHERE sku = $1::text ORDER BY location LIMIT $2::bigint) AS found ON true
     ORDER BY found.location";

/// The levels of items.
pub const STOCK_OF: &str = "SELECT clock.at, found.*
     FROM (SELECT statement_timestamp() AS at) AS clock
     LEFT JOIN (
         SELECT sku, location, available, version, backorder_limit, order_limit
         FROM UNNEST($1::text[], $2::text[]) AS wanted (sku, location) JOIN levels USING (sku, location)
     ) AS found ON true";

/// The decisions under these ids.
pub const DECISIONS: &str = r#"SELECT clock.at, found.*
     FROM (SELECT statement_timestamp() AS at) AS clock
     LEFT JOIN (
         SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
         FROM decisions WHERE id = ANY($1::text[])) AS found ON true"#;

/// The decisions that follow these orders under ids of their own: of each the newest so many.
pub const FOLLOWING: &str = r#"SELECT found.* FROM UNNEST($1::text[]) AS wanted (order_id)
     CROSS JOIN LATERAL (
         SELECT id, kind, seq, digest, accepted, detail, topic, partition, "offset", decided_at
         FROM decisions
         WHERE kind IN (3, 4, 6) AND (detail::json ->> 'order_id') COLLATE "C" = wanted.order_id
         ORDER BY seq DESC LIMIT $2::bigint) AS found"#;

/// A page of a SKU's movements, in the order of the key turned round, each with its decision.
pub const MOVEMENTS: &str = r#"SELECT clock.at, found.*, decisions.decided_at, decisions.topic
     FROM (SELECT statement_timestamp() AS at) AS clock
     LEFT JOIN LATERAL (
         SELECT seq, sku, location, version, quantity, balance, kind, id, partition, "offset" FROM movements
         WHERE sku = $1::text AND ($2::text IS NULL OR location = $2::text)
               AND (version, location) < ($3::bigint, $4::text)
         ORDER BY version DESC, location DESC LIMIT $5::bigint) AS found ON true
     LEFT JOIN decisions ON decisions.id = found.id AND decisions.kind = found.kind
     ORDER BY found.version DESC, found.location DESC"#;

/// The moment of the answer that these rows are; there is always one.
fn moment(rows: &[PgRow]) -> Result<Stamp, StoreError> {
    let doing = failed("reading the moment of an answer");
    let first = rows.first().ok_or_else(|| doing(sqlx::Error::RowNotFound))?;
    first.try_get::<PgStamp, _>("at").map(|at| at.0).map_err(doing)
}

/// Whether a row has more than the moment.
fn is_found(row: &PgRow, column: usize) -> Result<bool, StoreError> {
    let value: Option<&str> = row.try_get(column).map_err(failed("reading an answer"))?;
    Ok(value.is_some())
}

fn levels(rows: &[PgRow]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
    let at = moment(rows)?;
    let mut value = Vec::new();
    for row in rows {
        if is_found(row, 1)? {
            let (item, level) = rows::level(row)?;
            value.push(ItemLevel { item, level });
        }
    }
    Ok(AsOf::new(value, at))
}

/// The moment of an answer that is about to be asked for, where it does not bring its own: on a distributed ledger that
/// would be by the clock of whichever node answers.
async fn moment_before(connection: &mut PgConnection, layout: Layout) -> Result<Option<Stamp>, StoreError> {
    if layout == Layout::Plain {
        return Ok(None);
    }
    let now = sqlx::query_scalar("SELECT statement_timestamp()").fetch_one(connection).await;
    now.map(|now: PgStamp| Some(now.0)).map_err(failed("asking the database for the time"))
}

/// The answer, of this moment where there is one.
fn of_moment<T>(answer: AsOf<T>, before: Option<Stamp>) -> AsOf<T> {
    AsOf { at: before.unwrap_or(answer.at), ..answer }
}

async fn lives(
    connection: &mut PgConnection,
    ids: &[Id],
    layout: Layout,
) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
    let doing = failed("reading orders");
    let before = moment_before(connection, layout).await?;
    let wanted: Vec<&str> = ids.iter().map(Id::as_str).collect();
    let mut snapshot =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(&doing)?;
    let found = sqlx::query(DECISIONS).bind(&wanted).fetch_all(&mut *snapshot).await.map_err(&doing)?;
    let at = moment(&found)?;
    let mut own: Map<CommandKey, Arc<Decision>> = Map::default();
    for row in &found {
        if is_found(row, 1)? {
            let decision = rows::decision(row, 1)?;
            own.insert(decision.key.clone(), Arc::new(decision));
        }
    }
    // What nothing is known of has no followers worth a look: many ask for orders that are not there yet.
    let known: Vec<&str> = own.keys().map(|key| key.id.as_str()).collect();
    let following = match layout {
        _ if known.is_empty() => Vec::new(),
        Layout::Distributed => distributed::following(&mut snapshot, &known, MAX_FOLLOWERS).await?,
        Layout::Plain => sqlx::query(FOLLOWING)
            .bind(known)
            .bind(limit_column(MAX_FOLLOWERS))
            .fetch_all(&mut *snapshot)
            .await
            .map_err(&doing)?
            .iter()
            .map(|row| rows::decision(row, 0))
            .collect::<Result<_, _>>()?,
    };
    let mut lives = Lives::of(ids, own, following)?;
    orders::read_states(&mut snapshot, &mut lives.states).await?;
    snapshot.rollback().await.map_err(&doing)?;
    Ok(of_moment(AsOf::new(lives.finish(), at), before))
}

#[async_trait]
impl LedgerQueries for PostgresStore {
    async fn moment(&self) -> Result<Stamp, StoreError> {
        self.read(async |connection| {
            let now = sqlx::query_scalar("SELECT statement_timestamp()").fetch_one(connection).await;
            now.map(|now: PgStamp| now.0).map_err(failed("asking the database for the time"))
        })
        .await
    }

    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let layout = self.layout().await?;
        self.read(async |connection| {
            let before = moment_before(connection, layout).await?;
            let found = sqlx::query(STOCK).bind(sku.as_str()).bind(limit_column(limit));
            let found = levels(&found.fetch_all(connection).await.map_err(failed("reading the levels"))?)?;
            Ok(of_moment(found, before))
        })
        .await
    }

    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let (skus, locations) = rows::item_columns(items.iter());
        let layout = self.layout().await?;
        self.read(async |connection| {
            let before = moment_before(connection, layout).await?;
            let found = sqlx::query(STOCK_OF).bind(skus).bind(locations);
            let found = levels(&found.fetch_all(connection).await.map_err(failed("reading the levels"))?)?;
            Ok(of_moment(found, before))
        })
        .await
    }

    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
        let layout = self.layout().await?;
        self.read(async |connection| lives(connection, ids, layout).await).await
    }

    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
        let doing = failed("reading the movements");
        let column = |location: Option<&Location>| location.map_or("", Location::as_str).to_owned();
        let (version, beside) = before
            .map_or((i64::MAX, String::new()), |cursor| (cursor.version, column(cursor.location.as_ref())));
        let layout = self.layout().await?;
        self.read(async |connection| {
            if let Some(at) = moment_before(connection, layout).await? {
                let (sku, location) = (sku.as_str(), location.map(column));
                let before = (version, beside);
                let found = distributed::movements(connection, sku, location, before, limit).await?;
                return Ok(AsOf::new(found, at));
            }
            let found = sqlx::query(MOVEMENTS)
                .bind(sku.as_str())
                .bind(location.map(column))
                .bind(version)
                .bind(beside)
                .bind(limit_column(limit))
                .fetch_all(connection)
                .await
                .map_err(&doing)?;
            let at = moment(&found)?;
            let mut value = Vec::new();
            for row in &found {
                if is_found(row, 2)? {
                    let topic: Option<&str> = row.try_get("topic").map_err(&doing)?;
                    let decided_at: Option<PgStamp> = row.try_get("decided_at").map_err(&doing)?;
                    value.push(DatedMovement {
                        movement: rows::movement(row, 1)?,
                        decided_at: decided_at.map(|at| at.0),
                        topic: topic.map(Arc::from),
                    });
                }
            }
            Ok(AsOf::new(value, at))
        })
        .await
    }
}
