//! The document that describes the read API: `OpenAPI` 3.1, from the types.

use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::answer::REASON;
use super::live::LiveView;
use super::{movements, orders, page, precheck, probes, stock};
use crate::ledger::Reason;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stock verifier: reads",
        version = "1",
        description = "What there is, whether a cart could be accepted, and what became of an order. Nothing is changed \
                       here: orders and adjustments go by Kafka.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        stock::stock,
        stock::batch,
        precheck::check,
        orders::order,
        movements::movements,
        page::live,
        probes::livez,
        probes::readyz,
        probes::metrics,
    ),
    components(schemas(LiveView)),
    tags(
        (name = "stock", description = "What there is now."),
        (name = "ledger", description = "What was decided and moved."),
        (name = "live", description = "What the verifier does now."),
        (name = "probes", description = "How the verifier is."),
    ),
    // Without a token too, where none is required.
    security((), ("token" = [])),
    modifiers(&Token),
)]
struct Described;

/// What another process answers too that serves the reads: all but what a verifier does now.
#[derive(OpenApi)]
#[openapi(
    paths(
        stock::stock,
        stock::batch,
        precheck::check,
        orders::order,
        movements::movements,
        probes::livez,
        probes::readyz,
        probes::metrics,
    ),
    tags(
        (name = "stock", description = "What there is now."),
        (name = "ledger", description = "What was decided and moved."),
        (name = "probes", description = "How it is."),
    ),
    security((), ("token" = [])),
    modifiers(&Token),
)]
struct Reads;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", token);
    }
}

/// The document, ending in a line feed.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{:#}\n", complete(Described::openapi())))
}

/// A document that describes the reads and `more`, whose title and description it has.
pub(crate) fn with_reads(more: utoipa::openapi::OpenApi) -> Value {
    let mut all = Reads::openapi();
    all.info = more.info.clone();
    all.merge(more);
    complete(all)
}

/// With the ledger's own types.
fn complete(document: utoipa::openapi::OpenApi) -> Value {
    // Holds because the document is made of strings, numbers, lists and maps with text for keys.
    let mut document = serde_json::to_value(document).expect("a document is always JSON");
    // As the published schemas have it: OpenAPI 3.1 takes JSON Schema 2020-12 as it is.
    let settings =
        SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.meta_schema = None);
    let mut reason: Value = settings.into_generator().into_root_schema_for::<Reason>().to_value();
    if let Some(reason) = reason.as_object_mut() {
        reason.remove("title");
    }
    document["components"]["schemas"][REASON] = reason;
    document
}

/// Answers with a document.
pub(super) fn serve(document: fn() -> &'static str) -> Response {
    ([(CONTENT_TYPE, "application/json")], document()).into_response()
}
