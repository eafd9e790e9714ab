//! What answers have in common: the moment they are of, and how ids are described.

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, Ref, RefOr};

use super::problem::Problem;
use crate::ledger::{Id, Item, Location, MAX_ID_BYTES, Sku, Source, Stamp};

/// The header that says which moment an answer is of.
pub const AS_OF: HeaderName = HeaderName::from_static("stock-as-of");

/// An answer of this moment. Not for caches: the next may be another.
pub(super) fn answer(at: Stamp, body: &impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(at) = HeaderValue::from_str(&at.rfc3339()) {
        headers.insert(AS_OF, at);
    }
    response
}

/// An item as a request names it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedItem {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    pub(super) sku: Sku,
    /// Where; absent or null for the default location.
    #[serde(default)]
    #[schema(schema_with = optional_id_schema, required = false)]
    pub(super) location: Option<Location>,
}

impl From<NamedItem> for Item {
    fn from(named: NamedItem) -> Self {
        Self { sku: named.sku, location: named.location }
    }
}

/// The record that a decision came from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordView {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl From<&Source> for RecordView {
    fn from(source: &Source) -> Self {
        Self { topic: source.at.topic.to_string(), partition: source.at.partition, offset: source.offset.0 }
    }
}

/// The command that caused something.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CauseView {
    /// What it is about: `order.created`, `order.cancelled`, `order.returned`, `order.confirmed`, `order.released`,
    /// `order.hold_extended`, `hold.expired` or `adjustment`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The id its producer gave it.
    #[schema(schema_with = id_schema)]
    pub(crate) id: Id,
}

impl From<&crate::ledger::CommandKey> for CauseView {
    fn from(key: &crate::ledger::CommandKey) -> Self {
        Self { kind: key.kind.name(), id: key.id.clone() }
    }
}

/// An id, SKU or location: at most so many bytes of UTF-8, no control characters.
pub(crate) fn id_schema() -> Schema {
    Schema::Object(id_object())
}

/// The same, where null counts as absent, as in the contract.
pub(super) fn optional_id_schema() -> Schema {
    let mut schema = id_object();
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    Schema::Object(schema)
}

fn id_object() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_ID_BYTES))
        .pattern(Some(ID_PATTERN))
        .build()
}

/// What an id is made of. The bound is of bytes, which no schema can say.
pub(super) const ID_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]+$";

/// A time as every answer writes it.
pub(super) fn time_schema() -> Schema {
    use utoipa::openapi::schema::{KnownFormat, SchemaFormat};
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .description(Some("By the ledger's clock: RFC 3339, UTC, microseconds."))
        .build()
        .into()
}

/// The name that the ledger's reasons have in the document; their shape comes from the ledger's own type.
pub(super) const REASON: &str = "Reason";

pub(super) fn reason_schema() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(REASON))
}

pub(super) fn reasons_schema() -> Schema {
    ArrayBuilder::new().items(reason_schema()).build().into()
}

/// Reads a SKU of a path or query.
pub(super) fn sku(text: &str) -> Result<Sku, Problem> {
    Sku::new(text).map_err(|error| Problem::parameter("sku", error))
}

/// Reads a location of a query: empty is the default one.
pub(super) fn location(text: &str) -> Result<Option<Location>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    Location::new(text).map(Some).map_err(|error| Problem::parameter("location", error))
}
