//! The document that describes a gate: `OpenAPI` 3.1, from the types; with the reads, which it serves too.

use std::sync::OnceLock;

use serde_json::json;
use utoipa::OpenApi;

use super::{api, figures};
use crate::event::schema::order_created;
use crate::http::openapi::with_reads;
use crate::ledger::MAX_ID_BYTES;

/// What the order is called in the document; its shape comes from the contract's own type.
const ORDER: &str = "OrderCreated";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stock verifier: the gate",
        version = "1",
        description = "Orders are let in or not, by estimates; what is let in is decided by the verifier. And the reads: what \
                       there is, and what became of an order.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(api::submit, figures::serve),
    tags(
        (name = "orders", description = "Orders, on their way in."),
        (name = "gate", description = "What the gate does now."),
    ),
)]
struct Described;

/// The document, ending in a line feed.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut document = with_reads(Described::openapi());
        let mut order = order_created();
        // The gate's alone: the ledger does not look at it.
        order["properties"]["buyer_id"] = json!({
            "type": ["string", "null"],
            "description": "Who buys: what a buyer's limit counts by. Needed for a SKU that has one.",
            "minLength": 1,
            "maxLength": MAX_ID_BYTES,
        });
        document["components"]["schemas"][ORDER] = order;
        format!("{document:#}\n")
    })
}
