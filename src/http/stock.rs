//! How much there is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{NamedItem, answer, id_schema, location, sku, time_schema};
use super::bounds::{MAX_ITEMS, MAX_LOCATIONS};
use super::problem::{Asked, Body, Kind, Named, Problem, ProblemDocument};
use super::state::{Admitted, ApiState};
use crate::event::Object;
use crate::ledger::{Item, Location, Map, Sku};
use crate::store::ItemLevel;

/// How much there is of an item.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LevelView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    location: Option<Location>,
    /// Pieces that can be taken, backorders not counted; below zero, the pieces promised beyond what was there.
    available: i64,
    /// The level's version: how many changes made it.
    #[schema(minimum = 0)]
    version: i64,
    /// How far below zero orders may take it.
    #[schema(minimum = 0)]
    backorder_limit: i64,
    /// Most pieces that one order may take; absent for any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    order_limit: Option<i64>,
}

impl From<ItemLevel> for LevelView {
    fn from(ItemLevel { item, level }: ItemLevel) -> Self {
        Self {
            sku: item.sku,
            location: item.location,
            available: level.available,
            version: level.version,
            backorder_limit: level.limits.backorder,
            order_limit: level.limits.order,
        }
    }
}

/// The levels of a SKU.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StockView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// The moment this is of.
    #[schema(schema_with = time_schema)]
    as_of: String,
    /// At each location, sorted by it.
    #[schema(min_items = 1, max_items = 1000)]
    levels: Vec<LevelView>,
    /// Whether there are more locations than one answer has.
    more: bool,
}

/// Which level of a SKU.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StockQuery {
    /// One location; empty for the default one. All of them where it is left out.
    #[param(max_length = 128, required = false, nullable = false, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    location: Option<String>,
}

/// The levels of a SKU, at one location or at all.
#[utoipa::path(get, path = "/v1/stock/{sku}", tag = "stock", operation_id = "stock",
    params(("sku" = String, Path, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The stock keeping unit."), StockQuery),
    responses(
        (status = 200, description = "What there is.", body = StockView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn stock(
    State(api): State<Arc<ApiState>>,
    _admitted: Admitted,
    Named(name): Named,
    Asked(query): Asked<StockQuery>,
) -> Result<Response, Problem> {
    let sku = sku(&name)?;
    let found = match query.location {
        Some(text) => {
            let item = Item { sku: sku.clone(), location: location(&text)? };
            api.queries.stock_of(&[item]).await?
        }
        // One more than is shown, to know whether there are more.
        None => api.queries.stock(&sku, MAX_LOCATIONS + 1).await?,
    };
    if found.value.is_empty() {
        return Err(Problem::new(Kind::UnknownSku, format!("no stock of {sku} was ever recorded there")));
    }
    let more = found.value.len() > MAX_LOCATIONS;
    let levels = found.value.into_iter().take(MAX_LOCATIONS).map(LevelView::from).collect();
    Ok(answer(found.at, &StockView { sku, as_of: found.at.rfc3339(), levels, more }))
}

/// Which levels.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StockBatch {
    /// Each a SKU at one location.
    #[schema(value_type = Vec<NamedItem>, min_items = 1, max_items = 1000)]
    items: Vec<Object<NamedItem>>,
}

/// The levels of some items.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StockBatchView {
    /// The moment this is of.
    #[schema(schema_with = time_schema)]
    as_of: String,
    /// In the order asked, each item once.
    #[schema(max_items = 1000)]
    levels: Vec<LevelView>,
    /// Those that no stock was ever recorded of.
    #[schema(max_items = 1000)]
    unknown: Vec<UnknownItem>,
}

/// An item that no stock was ever recorded of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UnknownItem {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    location: Option<Location>,
}

/// The levels of up to 1,000 items, all of one moment.
#[utoipa::path(post, path = "/v1/stock:batch", tag = "stock", operation_id = "stockBatch",
    request_body = StockBatch,
    responses(
        (status = 200, description = "What there is.", body = StockBatchView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn batch(
    State(api): State<Arc<ApiState>>,
    Body(asked): Body<StockBatch>,
) -> Result<Response, Problem> {
    // Now that all of it is there.
    let _admitted = api.admit()?;
    if asked.items.is_empty() || asked.items.len() > MAX_ITEMS {
        let found = asked.items.len();
        return Err(Problem::body(format!("items must have 1 to {MAX_ITEMS} elements, has {found}")));
    }
    let items: Vec<Item> = asked.items.into_iter().map(|Object(named)| named.into()).collect();
    let found = api.queries.stock_of(&items).await?;
    let mut levels: Map<Item, ItemLevel> =
        found.value.into_iter().map(|level| (level.item.clone(), level)).collect();
    let mut view = StockBatchView { as_of: found.at.rfc3339(), levels: Vec::new(), unknown: Vec::new() };
    let mut seen = crate::ledger::Set::default();
    for item in items {
        if !seen.insert(item.clone()) {
            continue;
        }
        match levels.remove(&item) {
            Some(level) => view.levels.push(level.into()),
            None => view.unknown.push(UnknownItem { sku: item.sku, location: item.location }),
        }
    }
    Ok(answer(found.at, &view))
}
