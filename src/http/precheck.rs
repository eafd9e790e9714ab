//! Whether a cart could be accepted now.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use super::answer::{answer, id_schema, optional_id_schema, reason_schema, time_schema};
use super::problem::{Body, Problem, ProblemDocument};
use super::state::ApiState;
use crate::event::Object;
use crate::event::schema::OrderPolicy;
use crate::ledger::{
    Item, Location, MAX_LINES, MAX_QUANTITY, Policy, PrecheckedLine, Quantity, Reason, Sku, precheck,
};
use crate::store::{AsOf, ItemLevel, StoreError};

/// A cart that might become an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cart {
    /// As an order has them; lines of one SKU and location are summed.
    #[schema(value_type = Vec<CartLine>, min_items = 1, max_items = 1000)]
    lines: Vec<Object<CartLine>>,
    /// What becomes of the order when not all of it is there; `all_or_none` when it is left out or null.
    #[serde(default)]
    #[schema(schema_with = policy_schema, required = false)]
    policy: Option<OrderPolicy>,
}

/// A line of a cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CartLine {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// Where; absent or null for the default location.
    #[serde(default)]
    #[schema(schema_with = optional_id_schema, required = false)]
    location: Option<Location>,
    /// How many pieces.
    #[serde(deserialize_with = "whole")]
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000_000_000_i64)]
    quantity: Quantity,
}

/// The policies, and null.
fn policy_schema() -> Schema {
    let words = [json!("all_or_none"), json!("partial"), Value::Null];
    let types = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types).enum_values(Some(words)).build().into()
}

/// Reads a whole number as JSON Schema has it: `3.0` is one too. A number with a fraction is read exactly, since the
/// largest quantity is far below the whole numbers that a double does not have.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
    let number = Number::deserialize(deserializer)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "whole, and within the bounds of quantities"
    )]
    let whole = |number: f64| {
        let is_whole = number.fract() == 0.0 && number.abs() <= MAX_QUANTITY as f64;
        is_whole.then_some(number as i64)
    };
    let pieces = number.as_i64().or_else(|| number.as_f64().and_then(whole));
    let pieces = pieces.ok_or_else(|| D::Error::custom(format!("must be a whole number, is {number}")))?;
    Quantity::new(pieces).map_err(D::Error::custom)
}

/// What a cart would get. An estimate: nothing is taken, and the order is decided on the levels of its own moment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PrecheckView {
    /// The moment of the levels that this was decided on.
    #[schema(schema_with = time_schema)]
    as_of: String,
    /// How old those levels were at most when this was answered, in seconds.
    #[schema(minimum = 0.0)]
    age_seconds: f64,
    /// Whether an order for it would be accepted.
    acceptable: bool,
    /// Line by line, sorted by SKU and location.
    #[schema(min_items = 1, max_items = 1000)]
    lines: Vec<PrecheckLineView>,
}

/// What a line of a cart would get.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PrecheckLineView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    location: Option<Location>,
    /// Pieces asked for.
    #[schema(minimum = 1)]
    requested: i64,
    /// Pieces it would get: 0 of each line where the order would be rejected.
    #[schema(minimum = 0)]
    granted: i64,
    /// Of these, pieces that are not there and would be promised.
    #[schema(minimum = 0)]
    backordered: i64,
    /// Why it would not get all, as the contract has it; absent where this line alone could.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = reason_schema, required = false)]
    reason: Option<Reason>,
}

impl From<PrecheckedLine> for PrecheckLineView {
    fn from(line: PrecheckedLine) -> Self {
        Self {
            sku: line.item.sku,
            location: line.item.location,
            requested: line.requested,
            granted: line.granted,
            backordered: line.backordered,
            reason: line.reason,
        }
    }
}

/// The levels of these items: from memory, where they are kept there.
async fn levels_of(api: &ApiState, items: &[Item]) -> Result<AsOf<Vec<ItemLevel>>, StoreError> {
    if let Some(found) = api.levels.as_ref().and_then(|levels| levels.levels_of(items)) {
        return Ok(found);
    }
    let found = api.queries.stock_of(items).await?;
    if let Some(levels) = &api.levels {
        levels.read_from_ledger(&found.value);
    }
    Ok(found)
}

/// Whether an order for this cart would be accepted now, line by line, by the rules that decide orders.
#[utoipa::path(post, path = "/v1/precheck", tag = "stock", operation_id = "precheck",
    request_body = Cart,
    responses(
        (status = 200, description = "What it would get.", body = PrecheckView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn check(
    State(api): State<Arc<ApiState>>,
    Body(cart): Body<Cart>,
) -> Result<Response, Problem> {
    // Now that all of it is there.
    let _admitted = api.admit()?;
    if cart.lines.is_empty() || cart.lines.len() > MAX_LINES {
        let found = cart.lines.len();
        return Err(Problem::body(format!("lines must have 1 to {MAX_LINES} elements, has {found}")));
    }
    let lines: Vec<(Item, Quantity)> = cart
        .lines
        .into_iter()
        .map(|Object(line)| (Item { sku: line.sku, location: line.location }, line.quantity))
        .collect();
    let items: Vec<Item> = lines.iter().map(|(item, _)| item.clone()).collect();
    let asked = Instant::now();
    let found = levels_of(&api, &items).await?;
    let levels = found.value.into_iter().map(|level| (level.item, level.level)).collect();
    let checked = precheck(levels, lines, cart.policy.map_or_else(Policy::default, Policy::from));
    let view = PrecheckView {
        as_of: found.at.rfc3339(),
        age_seconds: (asked.elapsed() + found.behind).as_secs_f64(),
        acceptable: checked.acceptable,
        lines: checked.lines.into_iter().map(PrecheckLineView::from).collect(),
    };
    Ok(answer(found.at, &view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_whole_number_however_it_is_written() {
        let read = |quantity: &str| {
            let line = format!(r#"{{"sku":"MUG","quantity":{quantity}}}"#);
            serde_json::from_str::<CartLine>(&line).map(|line| line.quantity.get()).ok()
        };
        for (written, meant) in
            [("3", 3), ("3.0", 3), ("3e2", 300), ("1e12", MAX_QUANTITY), ("1000000000000", MAX_QUANTITY)]
        {
            assert_eq!(read(written), Some(meant), "{written}");
        }
        for wrong in [
            "0",
            "-1",
            "0.0",
            "1.5",
            "1e-3",
            "1e13",
            "1000000000001",
            "1e300",
            "99999999999999999999",
            "\"1\"",
            "null",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
