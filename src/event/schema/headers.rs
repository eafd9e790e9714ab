//! The headers: of what is read and of what is published.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::types::{COMMAND_TYPES, ORDER_ACCEPTED, ORDER_CREATED, RESULT_TYPES, STOCK_LEVEL};
use crate::event::{CE_SOURCE, FaultCode, MAX_TRACEPARENT_BYTES, MAX_TRACESTATE_BYTES};

/// The headers of a command: none is needed. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "command headers", example = CommandHeaders::example())]
pub struct CommandHeaders {
    /// The event's type in `CloudEvents` binary mode; then the value may leave `type` out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = COMMAND_TYPES))]
    pub ce_type: Option<String>,
    /// `application/cloudevents+json` says that the value is a structured `CloudEvent` with the command in `data` or `data_base64`.
    #[serde(rename = "content-type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub content_type: Option<String>,
    /// A W3C trace context, passed on to the command's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = MAX_TRACEPARENT_BYTES))]
    pub traceparent: Option<String>,
    /// What tracing systems add to the trace context, passed on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = MAX_TRACESTATE_BYTES))]
    pub tracestate: Option<String>,
}

impl CommandHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_type: Some(ORDER_CREATED.to_owned()),
            content_type: Some("application/json".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: None,
        }
    }
}

/// The headers of a result: `CloudEvents` 1.0, Kafka binary mode. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "result headers", example = ResultHeaders::example())]
pub struct ResultHeaders {
    /// The version of `CloudEvents`: always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub ce_specversion: String,
    /// The event's id, made of the command's kind and id alone: a result told twice has one id, so drop those you have seen.
    #[schemars(length(min = 1))]
    pub ce_id: String,
    /// Who tells it.
    #[schemars(extend("const" = CE_SOURCE))]
    pub ce_source: String,
    /// The same as the value's `type`.
    #[schemars(extend("enum" = RESULT_TYPES))]
    pub ce_type: String,
    /// When it was decided, by the ledger's clock: RFC 3339, UTC, microseconds.
    #[schemars(extend("format" = "date-time"))]
    pub ce_time: String,
    /// The media type of the value.
    #[serde(rename = "content-type")]
    #[schemars(extend("const" = "application/json"))]
    pub content_type: String,
    /// The W3C trace context of the command's record, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<String>,
    /// What tracing systems added to it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub tracestate: Option<String>,
}

impl ResultHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_specversion: "1.0".to_owned(),
            ce_id: "order.created/o-1001".to_owned(),
            ce_source: CE_SOURCE.to_owned(),
            ce_type: ORDER_ACCEPTED.to_owned(),
            ce_time: "2026-01-02T03:04:05.678901Z".to_owned(),
            content_type: "application/json".to_owned(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: None,
        }
    }
}

/// The headers of a level: `CloudEvents` 1.0, Kafka binary mode. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "level headers", example = LevelHeaders::example())]
pub struct LevelHeaders {
    /// The version of `CloudEvents`: always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub ce_specversion: String,
    /// The event's id: `stock.level/`, the record's key, `/`, the version.
    #[schemars(length(min = 1))]
    pub ce_id: String,
    /// Who tells it.
    #[schemars(extend("const" = CE_SOURCE))]
    pub ce_source: String,
    /// The same as the value's `type`.
    #[schemars(extend("const" = STOCK_LEVEL))]
    pub ce_type: String,
    /// The media type of the value.
    #[serde(rename = "content-type")]
    #[schemars(extend("const" = "application/json"))]
    pub content_type: String,
}

impl LevelHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            ce_specversion: "1.0".to_owned(),
            ce_id: "stock.level/MUG/18".to_owned(),
            ce_source: CE_SOURCE.to_owned(),
            ce_type: STOCK_LEVEL.to_owned(),
            content_type: "application/json".to_owned(),
        }
    }
}

/// The headers a dead letter has beside those of its record. Each value is UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "dead letter headers", example = DeadLetterHeaders::example())]
pub struct DeadLetterHeaders {
    /// The topic the record stood in.
    #[serde(rename = "__connect.errors.topic")]
    pub topic: String,
    /// The partition it stood in, in decimal.
    #[serde(rename = "__connect.errors.partition")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    pub partition: String,
    /// Its offset, in decimal.
    #[serde(rename = "__connect.errors.offset")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    pub offset: String,
    /// What was being done with it.
    #[serde(rename = "__connect.errors.stage")]
    pub stage: String,
    /// The kind of fault, for machines.
    #[serde(rename = "__connect.errors.exception.class.name")]
    #[schemars(extend("enum" = FaultCode::ALL.map(FaultCode::name)))]
    pub class_name: String,
    /// What is wrong and what is expected, for people.
    #[serde(rename = "__connect.errors.exception.message")]
    pub message: String,
}

impl DeadLetterHeaders {
    /// The headers shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            topic: "orders".to_owned(),
            partition: "3".to_owned(),
            offset: "8844".to_owned(),
            stage: "read".to_owned(),
            class_name: FaultCode::NotJson.name().to_owned(),
            message: "the value is not JSON: expected value at line 1 column 1".to_owned(),
        }
    }
}
