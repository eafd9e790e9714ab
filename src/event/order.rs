//! An order as it is written: the one shape that a command is read with as a whole. The others are read field by field.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::json::{self, Object};
use crate::ledger::{MAX_HOLD_SECONDS, MAX_ID_BYTES, MAX_LINES, MAX_QUANTITY, Policy};

event_type!(OrderCreatedType: OrderCreated = "order.created", "An order asks for stock.");

/// An order asks for stock, for good or, with `hold_seconds`, as a hold. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order.created", example = OrderCreated::example(), example = OrderCreated::hold_example())]
pub struct OrderCreated<'a> {
    /// What this is. May be left out when the `ce_type` header or a structured `CloudEvent` says it; must not differ from it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderCreatedType")]
    pub kind: Option<OrderCreatedType>,
    /// The order's id, chosen by its producer: at most 128 bytes of UTF-8, no control characters. The same id asks for the same order.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub order_id: Cow<'a, str>,
    /// What is ordered. Lines of one SKU and location are summed; their order does not matter.
    #[serde(borrow, deserialize_with = "lines")]
    #[schemars(length(min = 1, max = MAX_LINES))]
    pub lines: Vec<OrderCreatedLine<'a>>,
    /// What becomes of the order when not all of it is there; `all_or_none` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OrderPolicy")]
    pub policy: Option<OrderPolicy>,
    /// Makes the order a hold that ends after so many seconds unless it is confirmed: a JSON integer, at most 31 days. Absent takes the stock for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = MAX_HOLD_SECONDS))]
    pub hold_seconds: Option<i64>,
}

/// What becomes of an order when not all of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub enum OrderPolicy {
    /// All lines or none.
    AllOrNone,
    /// Line by line, as many pieces as there are; rejected only when there are none at all.
    Partial,
}

impl OrderPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("all_or_none", Self::AllOrNone), ("partial", Self::Partial)];

    /// The policy this word stands for.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, policy)| *policy)
    }
}

impl<'de> Deserialize<'de> for OrderPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::word(deserializer, Self::WORDS)
    }
}

impl From<OrderPolicy> for Policy {
    fn from(policy: OrderPolicy) -> Self {
        match policy {
            OrderPolicy::AllOrNone => Self::AllOrNone,
            OrderPolicy::Partial => Self::Partial,
        }
    }
}

/// One line of an order, a return or a confirmation. Fields not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "order line")]
pub struct OrderCreatedLine<'a> {
    /// The stock keeping unit: at most 128 bytes of UTF-8, no control characters.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub sku: Cow<'a, str>,
    /// Where: at most 128 bytes of UTF-8, no control characters. Absent for the default location.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::borrowed_text"
    )]
    #[schemars(with = "String", length(min = 1, max = MAX_ID_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub location: Option<Cow<'a, str>>,
    /// How many pieces: a JSON integer, written without fraction or exponent.
    #[schemars(range(min = 1, max = MAX_QUANTITY))]
    pub quantity: i64,
}

impl OrderCreatedLine<'static> {
    pub(super) fn example(sku: &'static str, quantity: i64) -> Self {
        Self { sku: Cow::Borrowed(sku), location: None, quantity }
    }
}

/// Lines, each an object.
pub(super) fn lines<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<OrderCreatedLine<'de>>, D::Error> {
    struct Lines;
    impl<'de> serde::de::Visitor<'de> for Lines {
        type Value = Vec<OrderCreatedLine<'de>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array of order lines")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut lines = Vec::new();
            while let Some(Object(line)) = seq.next_element()? {
                lines.push(line);
            }
            Ok(lines)
        }
    }
    deserializer.deserialize_seq(Lines)
}

impl OrderCreated<'static> {
    /// The order shown in the documentation.
    #[must_use]
    pub fn example() -> Self {
        Self {
            kind: Some(OrderCreatedType::OrderCreated),
            order_id: Cow::Borrowed("o-1001"),
            lines: vec![OrderCreatedLine::example("TSHIRT-M", 2), OrderCreatedLine::example("MUG", 1)],
            policy: None,
            hold_seconds: None,
        }
    }

    /// An order that holds what there is of it for a quarter of an hour.
    #[must_use]
    pub fn hold_example() -> Self {
        let at_berlin = |line| OrderCreatedLine { location: Some(Cow::Borrowed("berlin")), ..line };
        Self {
            order_id: Cow::Borrowed("o-1004"),
            lines: vec![
                at_berlin(OrderCreatedLine::example("MUG", 6)),
                at_berlin(OrderCreatedLine::example("TSHIRT-M", 1)),
            ],
            policy: Some(OrderPolicy::Partial),
            hold_seconds: Some(900),
            ..Self::example()
        }
    }
}
