//! No bytes do harm.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::event::schema::{OrderCreated, OrderCreatedLine, OrderPolicy};
use crate::ledger::{HoldSeconds, MAX_HOLD_SECONDS, MAX_QUANTITY};

/// An order's JSON, its content in the ledger's words.
fn good_order() -> impl Strategy<Value = (String, Command)> {
    let id_text = "[a-zA-Z0-9 äß\"\\\\/-]{1,20}";
    let location = prop::option::of("[a-zA-Z0-9é\"-]{1,12}");
    let line = ("[a-zA-Z0-9é\"-]{1,12}", location, 1..=MAX_QUANTITY);
    let policy = prop::option::of(prop::sample::select(vec![OrderPolicy::AllOrNone, OrderPolicy::Partial]));
    let hold = prop::option::of(1..=MAX_HOLD_SECONDS);
    (id_text, prop::collection::vec(line, 1..8), policy, hold).prop_map(|(order_id, asked, policy, hold)| {
        let value = OrderCreated {
            kind: Some(schema::OrderCreatedType::OrderCreated),
            order_id: Cow::Borrowed(&order_id),
            lines: asked
                .iter()
                .map(|(sku, location, quantity)| OrderCreatedLine {
                    sku: Cow::Borrowed(sku),
                    location: location.as_deref().map(Cow::Borrowed),
                    quantity: *quantity,
                })
                .collect(),
            policy,
            hold_seconds: hold,
        };
        let terms = Terms {
            policy: policy.unwrap_or(OrderPolicy::AllOrNone).into(),
            hold: hold.map(|seconds| HoldSeconds::new(seconds).unwrap()),
        };
        let asked = asked
            .iter()
            .map(|(sku, location, quantity)| {
                let location = location.as_deref().map(|location| Location::new(location).unwrap());
                (Item { sku: Sku::new(sku).unwrap(), location }, Quantity::new(*quantity).unwrap())
            })
            .collect();
        (serde_json::to_string(&value).unwrap(), Command::order_created(id(&order_id), asked, terms))
    })
}

/// Whatever came out can be published.
fn publish(record: &Record) {
    match read_command(record) {
        Err(fault) => {
            let letter = dead_letter(record.clone(), &fault, "read");
            assert_eq!((letter.key, letter.value), (record.key.clone(), record.value.clone()));
        }
        Ok(Command { key, digest, action, .. }) => {
            if let Action::Refuse(reasons) = &action {
                assert!(!reasons.is_empty());
            }
            let published = Decision { key, digest, ..decision(false, r#"{"reasons":[]}"#) };
            let value = result(&published, None, TraceContext::NONE).value.unwrap();
            serde_json::from_slice::<serde_json::Value>(&value).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_good_order_is_read_alike_by_the_quick_and_the_careful_reader((text, command) in good_order()) {
        prop_assert_eq!(order_created::read(&text, false), Some(command.clone()));
        prop_assert_eq!(order_created::read_fields(&text, &Reader::strict()), Ok(command.clone()));
        prop_assert_eq!(read_command(&record(text)), Ok(command));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4) {
        let mut any = record(bytes);
        match kind {
            1 => any.headers.push(header("ce_type", b"order.created")),
            2 => any.headers.push(header("content-type", b"application/cloudevents+json")),
            3 => any.headers.push(Header { name: "ce_type".to_owned(), value: None }),
            _ => {}
        }
        publish(&any);
    }

    #[test]
    fn no_damage_to_a_good_order_makes_it_panic(
        (text, _) in good_order(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..6),
        framed in any::<bool>(),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        if framed {
            bytes.splice(0..0, [0, 0, 0, 0, 1]);
        }
        publish(&record(bytes));
    }

    #[test]
    fn json_of_any_shape_does_not_make_it_panic(
        kind in prop::sample::select(types::COMMAND_TYPES.to_vec()),
        fields in prop::collection::vec((
            prop::sample::select(vec![
                "type", "order_id", "lines", "policy", "hold_seconds", "return_id", "confirmation_id", "extension_id",
                "adjustment_id", "sku", "location", "quantity", "available", "backorder_limit", "order_limit",
            ]),
            r#"null|1|-1|1.5|2.0|"2"|"1e0"|"order.created"|"x"|"partial"|\[\]|\[\{"sku":"x","quantity":1\},\{"sku":2\}\]|\{\}"#,
        ), 0..6),
    ) {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value},")).collect();
        let fields = fields.concat();
        publish(&record(format!("{{{fields}\"type\":\"{kind}\"}}")));
    }
}
