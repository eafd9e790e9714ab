//! What neighbours ask, each answer with its moment: this machine's clock before the file was looked at.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::failure::database;
use super::levels::{self, item_levels};
use super::{SqliteStore, now, orders, rows};
use crate::ledger::{Id, Item, Location, Map, Sku, Stamp};
use crate::store::queries::Lives;
use crate::store::{
    AsOf, DatedMovement, ItemLevel, LedgerQueries, MAX_FOLLOWERS, MovementCursor, OrderLife, StoreError,
};

async fn lives(conn: &mut SqliteConnection, ids: &[Id]) -> Result<Map<Id, OrderLife>, StoreError> {
    let own = rows::read_decisions(conn, &ids.iter().collect()).await?;
    let known: BTreeSet<&Id> = own.keys().map(|key| &key.id).collect();
    let following = rows::read_decisions_following(conn, &known, MAX_FOLLOWERS).await?;
    let mut lives = Lives::of(ids, own, following)?;
    orders::read_lines(conn, &mut lives.states).await?;
    orders::read_holds(conn, &mut lives.states).await?;
    Ok(lives.finish())
}

#[async_trait]
impl LedgerQueries for SqliteStore {
    async fn moment(&self) -> Result<Stamp, StoreError> {
        let at = now();
        let doing = "looking at the ledger's file";
        let mut conn = self.readers.acquire().await.map_err(database(doing))?;
        sqlx::query("SELECT only_one FROM ledger_group")
            .fetch_optional(&mut *conn)
            .await
            .map_err(database(doing))?;
        Ok(at)
    }

    async fn stock(&self, sku: &Sku, limit: usize) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let at = now();
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        let value = levels::read_of_sku(&mut conn, sku, limit).await.map(item_levels)?;
        Ok(AsOf::new(value, at))
    }

    async fn stock_of(&self, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
        let at = now();
        let mut conn = self.readers.acquire().await.map_err(database("reading levels"))?;
        let value = levels::read(&mut conn, &items.iter().collect()).await.map(item_levels)?;
        Ok(AsOf::new(value, at))
    }

    async fn orders(&self, ids: &[Id]) -> Result<AsOf<Map<Id, OrderLife>>, StoreError> {
        let at = now();
        // Dropped, it is rolled back: it only reads.
        let mut moment = self.readers.begin().await.map_err(database("reading orders"))?;
        let value = lives(&mut moment, ids).await?;
        Ok(AsOf::new(value, at))
    }

    async fn movements(
        &self,
        sku: &Sku,
        location: Option<Option<&Location>>,
        before: Option<&MovementCursor>,
        limit: usize,
    ) -> Result<AsOf<Vec<DatedMovement>>, StoreError> {
        let at = now();
        let mut conn = self.readers.acquire().await.map_err(database("reading movements"))?;
        let location = location.map(|location| location.map_or("", Location::as_str));
        let value = rows::read_movements_of(&mut conn, sku, location, before, limit).await?;
        Ok(AsOf::new(value, at))
    }
}
