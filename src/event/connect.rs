//! Kafka Connect's envelope: `{"schema": …, "payload": …}`, whose decimals are bytes in base64.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::json::{self, Field, Members, ValueKind};
use super::{Fault, FaultCode};

/// What names a schema of decimals: bytes of a whole number, most significant first, and a scale in the schema.
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// The same of Debezium's, whose scale is beside the bytes.
const VARIABLE_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";
/// Part of both names, so that a schema without it needs no looking at.
const DECIMAL_MARK: &str = "Decimal";

/// Deepest nesting of a payload that has decimals. Rows are flat, and documents some levels deep.
const MAX_DEPTH: usize = 64;
/// Longest decimal, in bytes: 300 digits, far more than any database has.
const MAX_DECIMAL_BYTES: usize = 128;
/// Largest scale either way.
const MAX_SCALE: i32 = 1_000;

/// The payload, with each decimal as a number that has every digit.
pub(super) fn payload(schema: Option<&RawValue>, payload: &RawValue) -> Result<String, Fault> {
    let Some(schema) = schema.filter(|schema| schema.get().contains(DECIMAL_MARK)) else {
        return Ok(payload.get().to_owned());
    };
    let mut text = String::with_capacity(payload.get().len());
    write(&mut text, &Schema::read(schema, 0), payload, 0)?;
    Ok(text)
}

fn bad(detail: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::BadEnvelope, detail)
}

/// What a schema says of a value. It is read once: a value may have a hundred thousand elements of one schema.
enum Schema<'s> {
    /// A decimal, with the scale that the schema's parameters give; none where the schema has no parameters.
    Decimal(Option<Cow<'s, str>>),
    /// A decimal whose scale is beside its bytes.
    VariableDecimal,
    /// The fields that it speaks of, by their names.
    Struct(HashMap<Cow<'s, str>, Schema<'s>>),
    /// What its values are, where it says so.
    Map(Option<Box<Schema<'s>>>),
    /// What its items are, where it says so.
    Array(Option<Box<Schema<'s>>>),
    /// Stays as it is written.
    Other,
}

impl<'s> Schema<'s> {
    /// Reads the schema of values at this depth.
    fn read(schema: &'s RawValue, depth: usize) -> Self {
        // A value at that depth is refused, whatever its schema says.
        if depth > MAX_DEPTH {
            return Self::Other;
        }
        let found = json::fields(schema.get(), ["type", "name", "fields", "items", "values", "parameters"]);
        let Ok([kind, name, fields, items, values, parameters]) = found else { return Self::Other };
        let inner = |schema: &'s RawValue| Box::new(Self::read(schema, depth + 1));
        match (&*word(&kind), &*word(&name)) {
            ("bytes", DECIMAL) => {
                let known = parameters.value.and_then(|known| json::fields(known.get(), ["scale"]).ok());
                Self::Decimal(known.map(|[scale]| word(&scale)))
            }
            ("struct", VARIABLE_DECIMAL) => Self::VariableDecimal,
            ("struct", _) => {
                Self::Struct(fields.value.map(|fields| by_name(fields, depth + 1)).unwrap_or_default())
            }
            ("map", _) => Self::Map(values.value.map(inner)),
            ("array", _) => Self::Array(items.value.map(inner)),
            _ => Self::Other,
        }
    }
}

/// A field's text; empty where it has none.
fn word<'a>(field: &Field<'a>) -> Cow<'a, str> {
    match field.kind() {
        Some(ValueKind::String(Some(word))) => word,
        _ => Cow::Borrowed(""),
    }
}

/// The schemas of a struct's fields, by their names; of two of one name the last counts.
fn by_name(fields: &RawValue, depth: usize) -> HashMap<Cow<'_, str>, Schema<'_>> {
    let fields: Vec<&RawValue> = serde_json::from_str(fields.get()).unwrap_or_default();
    let named = fields.into_iter().filter_map(|schema| match json::fields(schema.get(), ["field"]) {
        Ok([field]) => match field.kind() {
            Some(ValueKind::String(Some(name))) => Some((name, Schema::read(schema, depth))),
            _ => None,
        },
        Err(_) => None,
    });
    named.collect()
}

/// Writes a value as its schema says it is meant. What the schema does not speak of stays as it is written.
fn write(text: &mut String, schema: &Schema<'_>, value: &RawValue, depth: usize) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(bad(format_args!("the payload is nested deeper than {MAX_DEPTH} levels")));
    }
    match (schema, ValueKind::of(value)) {
        (Schema::Decimal(scale), ValueKind::String(Some(encoded))) => {
            let scale = scale.as_deref().ok_or_else(|| bad("a Decimal's schema has no scale"))?;
            text.push_str(&decimal(&encoded, scale)?);
        }
        (Schema::VariableDecimal, ValueKind::Object) => match json::fields(value.get(), ["scale", "value"]) {
            Ok([scale, encoded]) if scale.value.is_some() && encoded.value.is_some() => {
                let scale = scale.value.map_or("", RawValue::get);
                text.push_str(&decimal(&word(&encoded), scale)?);
            }
            _ => return Err(bad("a VariableScaleDecimal has no scale or no value")),
        },
        (Schema::Struct(fields), ValueKind::Object) => {
            write_members(text, value, |name| fields.get(name), depth)?;
        }
        (Schema::Map(values), ValueKind::Object) => {
            write_members(text, value, |_| values.as_deref(), depth)?;
        }
        (Schema::Array(items), ValueKind::Array) => {
            // It was read once as a whole, so its syntax holds.
            let elements: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            text.push('[');
            for (number, element) in elements.into_iter().enumerate() {
                text.push_str(if number == 0 { "" } else { "," });
                match items {
                    Some(items) => write(text, items, element, depth + 1)?,
                    None => text.push_str(element.get()),
                }
            }
            text.push(']');
        }
        _ => text.push_str(value.get()),
    }
    Ok(())
}

fn write_members<'s>(
    text: &mut String,
    object: &RawValue,
    schema_of: impl Fn(&str) -> Option<&'s Schema<'s>>,
    depth: usize,
) -> Result<(), Fault> {
    let Members(members) = serde_json::from_str(object.get())
        .map_err(|error| bad(format_args!("the payload has a field name that is not text: {error}")))?;
    text.push('{');
    for (number, (name, value)) in members.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        match schema_of(name) {
            Some(schema) => write(text, schema, value, depth + 1)?,
            None => text.push_str(value.get()),
        }
    }
    text.push('}');
    Ok(())
}

/// A decimal's digits, with its point where its scale says.
fn decimal(encoded: &str, scale: &str) -> Result<String, Fault> {
    let scale: i32 = scale
        .parse()
        .map_err(|_| bad(format_args!("a Decimal's scale must be between -{MAX_SCALE} and {MAX_SCALE}")))?;
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| bad("a Decimal is not base64"))?;
    decimal_text(bytes, scale)
}

/// The digits of a decimal: a whole number in two's complement, most significant byte first, and how many of its digits
/// stand after the point. Nothing is rounded.
///
/// # Errors
/// When it has no bytes or more than 128, or its scale is not between -1000 and 1000.
pub fn decimal_text(bytes: Vec<u8>, scale: i32) -> Result<String, Fault> {
    if !(-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        return Err(bad(format_args!("a Decimal's scale must be between -{MAX_SCALE} and {MAX_SCALE}")));
    }
    if bytes.is_empty() || bytes.len() > MAX_DECIMAL_BYTES {
        return Err(bad(format_args!(
            "a Decimal has {} bytes, 1 to {MAX_DECIMAL_BYTES} are read",
            bytes.len()
        )));
    }
    let (is_negative, digits) = digits(bytes);
    let sign = if is_negative { "-" } else { "" };
    let Ok(fraction) = usize::try_from(scale) else {
        let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() as usize };
        return Ok(format!("{sign}{digits}{}", "0".repeat(zeros)));
    };
    if fraction == 0 {
        return Ok(format!("{sign}{digits}"));
    }
    let digits = format!("{digits:0>width$}", width = fraction + 1);
    let (whole, fraction) = digits.split_at(digits.len() - fraction);
    Ok(format!("{sign}{whole}.{fraction}"))
}

/// The decimal digits of a whole number in two's complement, most significant byte first.
fn digits(mut bytes: Vec<u8>) -> (bool, String) {
    let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    if is_negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    // Least significant first, nine digits each.
    let mut parts: Vec<u64> = vec![0];
    for byte in bytes {
        let mut carry = u64::from(byte);
        for part in &mut parts {
            let value = *part * 256 + carry;
            *part = value % 1_000_000_000;
            carry = value / 1_000_000_000;
        }
        if carry > 0 {
            parts.push(carry);
        }
    }
    let (first, others) = parts.split_last().expect("one part at least");
    let others = others.iter().rev().map(|part| format!("{part:09}"));
    (is_negative, others.fold(first.to_string(), |digits, part| digits + &part))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn read(schema: &str, value: &str) -> Result<String, String> {
        payload(Some(&raw(schema)), &raw(value)).map_err(|fault| fault.detail)
    }

    const ROW: &str = r#"{"type":"struct","fields":[
        {"field":"qty","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"4"}},
        {"field":"total","type":"struct","name":"io.debezium.data.VariableScaleDecimal"},
        {"field":"list","type":"array","items":{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"0"}}},
        {"field":"map","type":"map","values":{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"-2"}}},
        {"field":"note","type":"string"}]}"#;

    #[test]
    fn decimals_get_every_digit_and_all_else_stays_as_it_is_written() {
        let value = r#"{"qty":"TiA=","total":{"scale":1,"value":"+w=="},"list":["AQ==","/w==",null],"map":{"a":"AQ=="},
            "note":"AQ==","more":1.50,"null":null}"#;
        assert_eq!(
            read(ROW, value).unwrap(),
            r#"{"qty":2.0000,"total":-0.5,"list":[1,-1,null],"map":{"a":100},"note":"AQ==","more":1.50,"null":null}"#
        );
        assert_eq!(read(ROW, r#"{"qty":2.5}"#).unwrap(), r#"{"qty":2.5}"#);
        assert_eq!(read(r#"{"type":"struct"}"#, r#"{ "a" : 1e2 }"#).unwrap(), r#"{ "a" : 1e2 }"#);
    }

    #[test]
    fn decimals_that_are_none_are_named() {
        let long = BASE64_STANDARD.encode([1; MAX_DECIMAL_BYTES + 1]);
        for (value, says) in [
            (r#"{"qty":"!"}"#, "a Decimal is not base64"),
            (r#"{"qty":""}"#, "a Decimal has 0 bytes"),
            (&format!(r#"{{"qty":"{long}"}}"#), "a Decimal has 129 bytes"),
            (r#"{"total":{"value":"AQ=="}}"#, "has no scale or no value"),
            (r#"{"total":{"scale":99999,"value":"AQ=="}}"#, "scale must be between"),
            (r#"{"total":{"scale":1.5,"value":"AQ=="}}"#, "scale must be between"),
        ] {
            let said = read(ROW, value).unwrap_err();
            assert!(said.contains(says), "{value}: {said}");
        }
        let no_scale = r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal"}"#;
        assert!(read(no_scale, "\"AQ==\"").unwrap_err().contains("no scale"));
        let deep = 10_000;
        let schema = r#"{"type":"array","items":"#.repeat(deep) + r#"{"name":"Decimal"}"# + &"}".repeat(deep);
        let value = "[".repeat(deep) + &"]".repeat(deep);
        assert!(read(&schema, &value).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn of_two_fields_of_one_name_the_last_counts_and_what_is_deep_in_a_schema_alone_is_not_looked_at() {
        let number = |name: &str, scale: i32| {
            format!(
                r#"{{"field":"{name}","type":"bytes","name":"{DECIMAL}","parameters":{{"scale":"{scale}"}}}}"#
            )
        };
        let fields = [number("a", 0), number("b", 0), number("\\u0061", 2)].join(",");
        let schema = format!(r#"{{"type":"struct","fields":[{fields},7,{{"field":null,"type":"string"}}]}}"#);
        assert_eq!(read(&schema, r#"{"a":"AQ==","b":"AQ=="}"#).unwrap(), r#"{"a":0.01,"b":1}"#);
        let deep = MAX_DEPTH * 2;
        let schema = r#"{"type":"array","items":"#.repeat(deep) + &number("n", 0) + &"}".repeat(deep);
        assert_eq!(read(&schema, "[[[1.50]]]").unwrap(), "[[[1.50]]]");
    }

    #[test]
    fn a_schema_is_read_once_however_many_elements_its_values_have() {
        // Read anew for each element, this takes minutes.
        const FIELDS: usize = 5_000;
        const ELEMENTS: usize = 50_000;
        const SOON: Duration = Duration::from_secs(30);
        let fields: Vec<String> =
            (0..FIELDS).map(|number| format!(r#"{{"field":"f{number}","type":"string"}}"#)).collect();
        let scale = r#""parameters":{"scale":"1"}"#;
        let item = format!(
            r#"{{"type":"struct","fields":[{},{{"field":"n","type":"bytes","name":"{DECIMAL}",{scale}}}]}}"#,
            fields.join(",")
        );
        for (schema, element) in [
            (format!(r#"{{"type":"array","items":{item}}}"#), r#"{"n":"AQ=="}"#),
            (
                format!(r#"{{"type":"array","items":{{"type":"map","values":{item}}}}}"#),
                r#"{"k":{"n":"AQ=="}}"#,
            ),
        ] {
            let listed = |element: &str| format!("[{}]", vec![element; ELEMENTS].join(","));
            let begun = Instant::now();
            let text = read(&schema, &listed(element)).unwrap();
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            assert!(text == listed(&element.replace("\"AQ==\"", "0.1")), "{}", &text[..100]);
        }
    }

    proptest! {
        #[test]
        fn a_decimals_digits_are_those_of_its_number(number in any::<i128>(), scale in 0..40_usize, padding in 0..3_usize) {
            let fill = if number < 0 { 0xff } else { 0 };
            let bytes = [vec![fill; padding], number.to_be_bytes().to_vec()].concat();
            let text = decimal(&BASE64_STANDARD.encode(bytes), &scale.to_string()).unwrap();
            // Without its point it is the number again.
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert_eq!(fraction.len(), scale);
            prop_assert_eq!(format!("{whole}{fraction}").parse::<i128>().unwrap(), number);
            prop_assert!(crate::ledger::Exact::of(&text).is_some(), "{}", text);
        }
    }
}
