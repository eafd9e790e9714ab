//! The `AsyncAPI` 3 document: the topics, and what is on each.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    AdjustmentAccepted, AdjustmentRejected, CancellationAccepted, CommandHeaders, ConfirmationAccepted,
    ConfirmationRejected, DeadLetterHeaders, ExtensionAccepted, ExtensionRejected, HoldDue, HoldExpired,
    HoldExtended, LevelHeaders, LimitsSet, OrderAccepted, OrderCancelled, OrderConfirmed, OrderCreated,
    OrderRejected, OrderReleased, OrderReturned, ReleaseAccepted, ReleaseRejected, ResultHeaders,
    ReturnAccepted, ReturnRejected, StockAdjusted, StockLevel, StockReceived, StockSet,
};

/// The version of the contract: changes when an event's shape does, not with each release.
const CONTRACT_VERSION: &str = "0.3.0";

/// What a result's record is keyed by.
const RESULT_KEY: &str = "As the command's record was keyed, else the command's id.";

/// A schema within this document, whose own schema language is draft 7. Whole in itself: a `$ref` would point into the document.
fn within() -> SchemaSettings {
    SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    })
}

fn read<T: JsonSchema>() -> Value {
    super::read::<T>(within())
}

fn written<T: JsonSchema>() -> Value {
    super::written::<T>(within())
}

fn example(value: &impl Serialize) -> Value {
    // Holds because the published shapes are plain structs and enums of strings and integers.
    serde_json::to_value(value).expect("a published shape is always valid JSON")
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

impl Message {
    /// One that is read, with named examples of its value.
    fn read<T: JsonSchema + Serialize>(
        name: &'static str,
        description: &'static str,
        examples: &[(&str, T)],
    ) -> Self {
        Self { name, description, payload: read::<T>(), examples: shown(examples) }
    }

    /// One that is written, with named examples of its value.
    fn written<T: JsonSchema + Serialize>(
        name: &'static str,
        description: &'static str,
        examples: &[(&str, T)],
    ) -> Self {
        Self { name, description, payload: written::<T>(), examples: shown(examples) }
    }

    /// With the headers beside the first example.
    fn with_headers(mut self, headers: &impl Serialize) -> Self {
        let payload = self.examples[0]["payload"].take();
        let name = self.examples[0]["name"].take();
        self.examples[0] = json!({ "name": name, "headers": example(headers), "payload": payload });
        self
    }
}

fn shown<T: Serialize>(examples: &[(&str, T)]) -> Value {
    examples.iter().map(|(name, value)| json!({ "name": name, "payload": example(value) })).collect()
}

/// Every topic, in the order of the way through.
fn topics() -> [Topic; 6] {
    [orders(), adjustments(), accepted(), rejected(), levels(), dead_letters()]
}

fn orders() -> Topic {
    Topic {
        address: "orders",
        description: "Orders to be decided, and what becomes of them, keyed by order id, so that the commands of one order keep their order. Each record ends as exactly one of: a result, a dead letter, an absorbed repetition.",
        operation: "takeOrders",
        action: "receive",
        key: "The order's id. The result is keyed as its command was.",
        headers: read::<CommandHeaders>(),
        messages: vec![
            Message::read(
                "orderCreated",
                "An order asks for stock, for good or as a hold.",
                &[("cart", OrderCreated::example()), ("hold", OrderCreated::hold_example())],
            )
            .with_headers(&CommandHeaders::example()),
            Message::read(
                "orderCancelled",
                "An order is cancelled: all that it still has is given back.",
                &[("cancellation", OrderCancelled::example())],
            ),
            Message::read(
                "orderReturned",
                "Some of what an order took comes back.",
                &[("return", OrderReturned::example())],
            ),
            Message::read(
                "orderConfirmed",
                "A hold becomes final, all of it or some.",
                &[("whole", OrderConfirmed::example()), ("some lines", OrderConfirmed::lines_example())],
            ),
            Message::read(
                "orderReleased",
                "A hold is given back before its time is over.",
                &[("release", OrderReleased::example())],
            ),
            Message::read(
                "orderHoldExtended",
                "A hold lasts longer.",
                &[("extension", HoldExtended::example())],
            ),
            Message::read(
                HOLD_DUE,
                "A hold's time seems to be over: asked by the verifier itself, harmless from anybody else.",
                &[("question", HoldDue::example())],
            ),
        ],
    }
}

/// The one command this program also sends.
const HOLD_DUE: &str = "orderHoldDue";

fn adjustments() -> Topic {
    Topic {
        address: "stock-adjustments",
        description: "What changes stock without an order, keyed by SKU, so that changes of one SKU keep their order.",
        operation: "takeAdjustments",
        action: "receive",
        key: "The SKU. The result is keyed as its adjustment was.",
        headers: read::<CommandHeaders>(),
        messages: vec![
            Message::read(
                "stockReceived",
                "Pieces came in.",
                &[
                    ("delivery", StockReceived::example()),
                    ("at a location", StockReceived::location_example()),
                ],
            ),
            Message::read(
                "stockAdjusted",
                "Pieces were found or are missing.",
                &[("breakage", StockAdjusted::example())],
            ),
            Message::read("stockSet", "A level is stated.", &[("stocktaking", StockSet::example())]),
            Message::read(
                "stockLimitsSet",
                "The limits of a SKU are stated, both of them.",
                &[("backorders", LimitsSet::example())],
            ),
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
        headers: written::<ResultHeaders>(),
        messages: vec![
            Message::written(
                "orderAccepted",
                "An order was accepted and its stock is taken, for good or as a hold.",
                &[
                    ("accepted", OrderAccepted::example()),
                    ("partial hold", OrderAccepted::hold_example()),
                    ("backorder", OrderAccepted::backorder_example()),
                ],
            )
            .with_headers(&ResultHeaders::example()),
            Message::written(
                "cancellationAccepted",
                "An order was cancelled; what it still had is given back.",
                &[("cancelled", CancellationAccepted::example())],
            ),
            Message::written(
                "returnAccepted",
                "A return was accepted; what came back is in stock.",
                &[("returned", ReturnAccepted::example())],
            ),
            Message::written(
                "confirmationAccepted",
                "A hold is final; what was not confirmed of it is given back.",
                &[("some lines", ConfirmationAccepted::example())],
            ),
            Message::written(
                "releaseAccepted",
                "A hold was given back before its time was over.",
                &[("released", ReleaseAccepted::example())],
            ),
            Message::written(
                "extensionAccepted",
                "A hold lasts longer.",
                &[("extended", ExtensionAccepted::example())],
            ),
            Message::written(
                "holdExpired",
                "A hold's time was over and it was given back.",
                &[("expired", HoldExpired::example())],
            ),
            Message::written(
                "adjustmentAccepted",
                "An adjustment was accepted; the level or its limits are changed.",
                &[
                    ("delivery", AdjustmentAccepted::example()),
                    ("limits", AdjustmentAccepted::limits_example()),
                ],
            ),
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
        headers: written::<ResultHeaders>(),
        messages: vec![
            Message::written(
                "orderRejected",
                "An order was rejected, for every reason there is; no stock was taken.",
                &[
                    ("short of stock", OrderRejected::example()),
                    ("invalid", OrderRejected::invalid_example()),
                ],
            ),
            Message::written(
                "returnRejected",
                "A return was rejected; nothing was given back.",
                &[("too many", ReturnRejected::example()), ("invalid", ReturnRejected::invalid_example())],
            ),
            Message::written(
                "confirmationRejected",
                "A confirmation was rejected; nothing was made final.",
                &[("too late", ConfirmationRejected::example())],
            ),
            Message::written(
                "releaseRejected",
                "A release was rejected; nothing was given back.",
                &[("no hold", ReleaseRejected::example())],
            ),
            Message::written(
                "extensionRejected",
                "An extension was rejected; the hold's end is what it was.",
                &[("too late", ExtensionRejected::example())],
            ),
            Message::written(
                "adjustmentRejected",
                "An adjustment was rejected; the level and its limits are what they were.",
                &[("version", AdjustmentRejected::example())],
            ),
        ],
    }
}

fn levels() -> Topic {
    Topic {
        address: "stock.levels",
        description: "How much of each SKU there is at each location: compacted, so that the last record of a key is its level. Not written in transactions, so a level may come twice, and an older one may for a moment follow a newer: keep the one with the higher version.",
        operation: "tellLevels",
        action: "send",
        key: "The SKU; at a location that is not the default one the SKU, U+001F (unit separator, which neither can hold) and the location.",
        headers: written::<LevelHeaders>(),
        messages: vec![
            Message::written(
                "stockLevel",
                "How much of a SKU there is at a location.",
                &[("level", StockLevel::example()), ("at a location", StockLevel::location_example())],
            )
            .with_headers(&LevelHeaders::example()),
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
        headers: written::<DeadLetterHeaders>(),
        messages: vec![Message {
            name: "deadLetter",
            description: "A record as it came, with headers that say where it stood and what is wrong with it.",
            payload: json!({ "description": "The record's value as it came: any bytes, or none." }),
            examples: json!([{ "name": "cut off", "headers": example(&DeadLetterHeaders::example()), "payload": "{" }]),
        }],
    }
}

/// The whole document.
pub(super) fn document() -> Value {
    let (mut channels, mut operations, mut messages) = (json!({}), json!({}), json!({}));
    for topic in topics() {
        let Topic { address, operation, .. } = topic;
        let (mut carried, mut published) = (json!({}), Vec::new());
        for message in topic.messages {
            let name = message.name;
            carried[name] = json!({ "$ref": format!("#/components/messages/{name}") });
            published.push(json!({ "$ref": format!("#/channels/{address}/messages/{name}") }));
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
            "messages": published,
        });
    }
    operations["askHoldDue"] = json!({
        "action": "send",
        "channel": { "$ref": "#/channels/orders" },
        "messages": [{ "$ref": format!("#/channels/orders/messages/{HOLD_DUE}") }],
    });
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stock verifier",
            "version": CONTRACT_VERSION,
            "description": "Takes orders, what becomes of them, and stock adjustments from Kafka, keeps the stock, and tells of each once whether it was accepted. The topics' names can be configured; these are the defaults.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    })
}
