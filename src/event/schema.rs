//! The published schemas, made of the types in [`super::wire`]: JSON Schema 2020-12 and an `AsyncAPI` 3 document.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde::Serialize;
use serde_json::{Value, json};

use super::wire::{
    ADJUSTMENT_ACCEPTED, ADJUSTMENT_REJECTED, AdjustmentAccepted, AdjustmentRejected, CommandHeaders,
    DeadLetterHeaders, ORDER_ACCEPTED, ORDER_CREATED, ORDER_REJECTED, OrderAccepted, OrderCreated,
    OrderRejected, ResultHeaders, STOCK_ADJUSTED, STOCK_RECEIVED, STOCK_SET, StockAdjusted, StockReceived,
    StockSet,
};

/// The version of the contract in the `AsyncAPI` document: changes when an event's shape does, not with each release.
const CONTRACT_VERSION: &str = "0.2.0";

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
        json(STOCK_RECEIVED, "stock.received.schema.json", read::<StockReceived>(standard())),
        json(STOCK_ADJUSTED, "stock.adjusted.schema.json", read::<StockAdjusted>(standard())),
        json(STOCK_SET, "stock.set.schema.json", read::<StockSet>(standard())),
        json(ORDER_ACCEPTED, "order.accepted.schema.json", written::<OrderAccepted>(standard())),
        json(ORDER_REJECTED, "order.rejected.schema.json", written::<OrderRejected>(standard())),
        json(
            ADJUSTMENT_ACCEPTED,
            "adjustment.accepted.schema.json",
            written::<AdjustmentAccepted>(standard()),
        ),
        json(
            ADJUSTMENT_REJECTED,
            "adjustment.rejected.schema.json",
            written::<AdjustmentRejected>(standard()),
        ),
        json("command.headers", "command.headers.schema.json", read::<CommandHeaders>(standard())),
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

/// One topic, and the messages on it.
struct Topic {
    address: &'static str,
    description: &'static str,
    operation: &'static str,
    action: &'static str,
    /// What its records are keyed by.
    key: &'static str,
    headers: Value,
    messages: Vec<Message>,
}

/// One message.
struct Message {
    name: &'static str,
    description: &'static str,
    payload: Value,
    examples: Value,
}

/// Examples of a message that show its value alone.
fn shown<const N: usize>(examples: [(&'static str, Value); N]) -> Value {
    examples.into_iter().map(|(name, payload)| json!({ "name": name, "payload": payload })).collect()
}

/// Every topic, in the order of the way through.
fn topics() -> [Topic; 5] {
    [orders(), adjustments(), accepted(), rejected(), dead_letters()]
}

/// What a result's record is keyed by.
const RESULT_KEY: &str = "As the command's record was keyed, else the command's id.";

fn orders() -> Topic {
    Topic {
        address: "orders",
        description: "Orders to be decided, keyed by order id, so that those of one order keep their order.",
        operation: "takeOrders",
        action: "receive",
        key: "The order's id. The result is keyed as its order was.",
        headers: read::<CommandHeaders>(within_asyncapi()),
        messages: vec![Message {
            name: "orderCreated",
            description: "An order asks for stock. Each record ends as exactly one of: a result, a dead letter, an absorbed repetition.",
            payload: read::<OrderCreated<'_>>(within_asyncapi()),
            examples: json!([{
                "name": "cart",
                "headers": example(&CommandHeaders::example()),
                "payload": example(&OrderCreated::example()),
            }]),
        }],
    }
}

fn adjustments() -> Topic {
    Topic {
        address: "stock-adjustments",
        description: "What changes stock without an order, keyed by SKU, so that changes of one SKU keep their order.",
        operation: "takeAdjustments",
        action: "receive",
        key: "The SKU. The result is keyed as its adjustment was.",
        headers: read::<CommandHeaders>(within_asyncapi()),
        messages: vec![
            Message {
                name: "stockReceived",
                description: "Pieces came in.",
                payload: read::<StockReceived>(within_asyncapi()),
                examples: shown([("delivery", example(&StockReceived::example()))]),
            },
            Message {
                name: "stockAdjusted",
                description: "Pieces were found or are missing.",
                payload: read::<StockAdjusted>(within_asyncapi()),
                examples: shown([("breakage", example(&StockAdjusted::example()))]),
            },
            Message {
                name: "stockSet",
                description: "A level is stated.",
                payload: read::<StockSet>(within_asyncapi()),
                examples: shown([("stocktaking", example(&StockSet::example()))]),
            },
        ],
    }
}

fn accepted() -> Topic {
    Topic {
        address: "stock.accepted",
        description: "Accepted commands, written in transactions: read them with isolation.level=read_committed.",
        operation: "tellAccepted",
        action: "send",
        key: RESULT_KEY,
        headers: written::<ResultHeaders>(within_asyncapi()),
        messages: vec![
            Message {
                name: "orderAccepted",
                description: "An order was accepted and its stock is taken.",
                payload: written::<OrderAccepted>(within_asyncapi()),
                examples: json!([{
                    "name": "accepted",
                    "headers": example(&ResultHeaders::example()),
                    "payload": example(&OrderAccepted::example()),
                }]),
            },
            Message {
                name: "adjustmentAccepted",
                description: "An adjustment was accepted and the level is changed.",
                payload: written::<AdjustmentAccepted>(within_asyncapi()),
                examples: shown([("delivery", example(&AdjustmentAccepted::example()))]),
            },
        ],
    }
}

fn rejected() -> Topic {
    Topic {
        address: "stock.rejected",
        description: "Rejected commands, written in transactions: read them with isolation.level=read_committed.",
        operation: "tellRejected",
        action: "send",
        key: RESULT_KEY,
        headers: written::<ResultHeaders>(within_asyncapi()),
        messages: vec![
            Message {
                name: "orderRejected",
                description: "An order was rejected, for every reason there is; no stock was taken.",
                payload: written::<OrderRejected>(within_asyncapi()),
                examples: shown([
                    ("short of stock", example(&OrderRejected::example())),
                    ("invalid", example(&OrderRejected::invalid_example())),
                ]),
            },
            Message {
                name: "adjustmentRejected",
                description: "An adjustment was rejected; the level is what it was.",
                payload: written::<AdjustmentRejected>(within_asyncapi()),
                examples: shown([("version", example(&AdjustmentRejected::example()))]),
            },
        ],
    }
}

fn dead_letters() -> Topic {
    Topic {
        address: "orders.dlq",
        description: "Records no command could be read from, or whose id was decided before for other content.",
        operation: "keepDeadLetters",
        action: "send",
        key: "The record's key as it came: any bytes, or none.",
        headers: written::<DeadLetterHeaders>(within_asyncapi()),
        messages: vec![Message {
            name: "deadLetter",
            description: "A record as it came, with headers that say where it stood and what is wrong with it.",
            payload: json!({ "description": "The record's value as it came: any bytes, or none." }),
            examples: json!([{ "name": "cut off", "headers": example(&DeadLetterHeaders::example()), "payload": "{" }]),
        }],
    }
}

/// The `AsyncAPI` 3 document.
fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages) = (json!({}), json!({}), json!({}));
    for topic in topics() {
        let Topic { address, operation, .. } = topic;
        let (mut carried, mut told) = (json!({}), Vec::new());
        for message in topic.messages {
            let name = message.name;
            carried[name] = json!({ "$ref": format!("#/components/messages/{name}") });
            told.push(json!({ "$ref": format!("#/channels/{address}/messages/{name}") }));
            messages[name] = json!({
                "name": name,
                "summary": message.description,
                "headers": topic.headers,
                "payload": message.payload,
                "bindings": {
                    "kafka": { "key": { "type": "string", "description": topic.key }, "bindingVersion": "0.5.0" },
                },
                "examples": message.examples,
            });
        }
        channels[address] =
            json!({ "address": address, "description": topic.description, "messages": carried });
        operations[operation] = json!({
            "action": topic.action,
            "channel": { "$ref": format!("#/channels/{address}") },
            "messages": told,
        });
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stock verifier",
            "version": CONTRACT_VERSION,
            "description": "Takes orders and stock adjustments from Kafka, keeps the stock, and tells of each once whether it was accepted. The topics' names can be configured; these are the defaults.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}
