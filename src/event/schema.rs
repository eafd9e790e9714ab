//! The published schemas, made of the types in [`super::wire`]: JSON Schema 2020-12 and an `AsyncAPI` 3 document.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde::Serialize;
use serde_json::{Value, json};

use super::wire::{
    DeadLetterHeaders, ORDER_ACCEPTED, ORDER_CREATED, ORDER_REJECTED, OrderAccepted, OrderCreated,
    OrderHeaders, OrderRejected, ResultHeaders,
};

/// The version of the contract in the `AsyncAPI` document: changes when an event's shape does, not with each release.
const CONTRACT_VERSION: &str = "0.1.0";

/// A published document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is asked for by.
    pub name: &'static str,
    /// The file it is kept in.
    pub file: &'static str,
    /// Its text, ending in a line feed.
    pub text: String,
}

/// Every document, in the order of `schema --list`.
#[must_use]
pub fn documents() -> Vec<Document> {
    let json = |name, file, schema: Value| Document { name, file, text: format!("{schema:#}\n") };
    vec![
        json(ORDER_CREATED, "order.created.schema.json", read::<OrderCreated<'_>>(standard())),
        json(ORDER_ACCEPTED, "order.accepted.schema.json", written::<OrderAccepted>(standard())),
        json(ORDER_REJECTED, "order.rejected.schema.json", written::<OrderRejected>(standard())),
        json("order.headers", "order.headers.schema.json", read::<OrderHeaders>(standard())),
        json("result.headers", "result.headers.schema.json", written::<ResultHeaders>(standard())),
        json(
            "dead-letter.headers",
            "dead-letter.headers.schema.json",
            written::<DeadLetterHeaders>(standard()),
        ),
        Document { name: "asyncapi", file: "asyncapi.yaml", text: yaml(&asyncapi()) },
    ]
}

/// A schema that stands in a file of its own.
fn standard() -> SchemaSettings {
    SchemaSettings::draft2020_12()
}

/// A schema within the `AsyncAPI` document, whose own schema language is draft 7. Whole in itself: a `$ref` would point into that document.
fn within_asyncapi() -> SchemaSettings {
    SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    })
}

fn read<T: JsonSchema>(settings: SchemaSettings) -> Value {
    SchemaGenerator::new(settings.for_deserialize()).into_root_schema_for::<T>().to_value()
}

fn written<T: JsonSchema>(settings: SchemaSettings) -> Value {
    SchemaGenerator::new(settings.for_serialize()).into_root_schema_for::<T>().to_value()
}

fn yaml(value: &Value) -> String {
    // Holds because a JSON value is a tree of strings, numbers, lists and maps with text for keys: all of it YAML too.
    let text = serde_saphyr::to_string(value).expect("a JSON value is always valid YAML");
    format!(
        "# Made by `stock-verifier schema --write schemas` from the types in src/event/wire.rs: do not edit.\n{}\n",
        text.trim_end()
    )
}

fn example(value: &impl Serialize) -> Value {
    // Holds because the wire types are plain structs and enums of strings and integers.
    serde_json::to_value(value).expect("a wire type is always valid JSON")
}

/// One topic, and the one message on it.
struct Topic {
    address: &'static str,
    channel: &'static str,
    message: &'static str,
    operation: &'static str,
    action: &'static str,
    description: &'static str,
    key: &'static str,
    headers: Value,
    payload: Value,
    examples: Value,
}

fn topics() -> Vec<Topic> {
    vec![
        Topic {
            address: "orders",
            channel: "Orders to be decided, keyed by order id, so that those of one order keep their order.",
            message: "orderCreated",
            operation: "takeOrders",
            action: "receive",
            description: "An order asks for stock. Each record ends as exactly one of: a result, a dead letter, an absorbed repetition.",
            key: "The order's id. The result is keyed as its order was.",
            headers: read::<OrderHeaders>(within_asyncapi()),
            payload: read::<OrderCreated<'_>>(within_asyncapi()),
            examples: json!([{
                "name": "cart",
                "headers": example(&OrderHeaders::example()),
                "payload": example(&OrderCreated::example()),
            }]),
        },
        Topic {
            address: "stock.accepted",
            channel: "Accepted orders, written in transactions: read them with isolation.level=read_committed.",
            message: "orderAccepted",
            operation: "tellAccepted",
            action: "send",
            description: "An order was accepted and its stock is taken.",
            key: "As the order's record was keyed, else the order's id.",
            headers: written::<ResultHeaders>(within_asyncapi()),
            payload: written::<OrderAccepted>(within_asyncapi()),
            examples: json!([{
                "name": "accepted",
                "headers": example(&ResultHeaders::example()),
                "payload": example(&OrderAccepted::example()),
            }]),
        },
        Topic {
            address: "stock.rejected",
            channel: "Rejected orders, written in transactions: read them with isolation.level=read_committed.",
            message: "orderRejected",
            operation: "tellRejected",
            action: "send",
            description: "An order was rejected, for every reason there is; no stock was taken.",
            key: "As the order's record was keyed, else the order's id.",
            headers: written::<ResultHeaders>(within_asyncapi()),
            payload: written::<OrderRejected>(within_asyncapi()),
            examples: json!([
                { "name": "short of stock", "payload": example(&OrderRejected::example()) },
                { "name": "invalid", "payload": example(&OrderRejected::invalid_example()) },
            ]),
        },
        Topic {
            address: "orders.dlq",
            channel: "Records no command could be read from, or whose id was decided before for other content.",
            message: "deadLetter",
            operation: "keepDeadLetters",
            action: "send",
            description: "A record as it came, with headers that say where it stood and what is wrong with it.",
            key: "The record's key as it came: any bytes, or none.",
            headers: written::<DeadLetterHeaders>(within_asyncapi()),
            payload: json!({ "description": "The record's value as it came: any bytes, or none." }),
            examples: json!([{ "name": "cut off", "headers": example(&DeadLetterHeaders::example()), "payload": "{" }]),
        },
    ]
}

/// The `AsyncAPI` 3 document.
fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages) = (json!({}), json!({}), json!({}));
    for topic in topics() {
        let Topic { address, message, operation, .. } = topic;
        channels[address] = json!({
            "address": address,
            "description": topic.channel,
            "messages": { message: { "$ref": format!("#/components/messages/{message}") } },
        });
        operations[operation] = json!({
            "action": topic.action,
            "channel": { "$ref": format!("#/channels/{address}") },
            "messages": [{ "$ref": format!("#/channels/{address}/messages/{message}") }],
        });
        messages[message] = json!({
            "name": message,
            "summary": topic.description,
            "headers": topic.headers,
            "payload": topic.payload,
            "bindings": {
                "kafka": { "key": { "type": "string", "description": topic.key }, "bindingVersion": "0.5.0" },
            },
            "examples": topic.examples,
        });
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stock verifier",
            "version": CONTRACT_VERSION,
            "description": "Takes orders from Kafka, deducts stock, and tells of each order once whether it was accepted. The topics' names can be configured; these are the defaults.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}
