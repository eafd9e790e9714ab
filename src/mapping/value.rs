//! JSON texts to the values that programs work on, and back, with every digit.
//!
//! jaq reads a whole number as one of any length and a decimal as its text, so what a program passes on is what came. What
//! it calculates with decimals is a float's.

use std::fmt::Write as _;

use jaq_json::{Num, Val, read};
use serde::de::IgnoredAny;

/// Deepest nesting of what a program is given, and of what it gives: jaq reads by recursion. No shop nests half as deep.
const MAX_DEPTH: usize = 128;
/// Longest value that a program gives, in bytes. An order of ten thousand lines has a tenth.
const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;

/// A text's value.
///
/// # Errors
/// Why it is none, or not read.
pub(super) fn read(json: &str) -> Result<Val, String> {
    // jaq reads more than JSON: comments, NaN, bytes.
    serde_json::from_str::<IgnoredAny>(json).map_err(|error| format!("the value is not JSON: {error}"))?;
    if depth(json.as_bytes()) > MAX_DEPTH {
        return Err(format!("the value is nested deeper than {MAX_DEPTH} levels"));
    }
    read::parse_single(json.as_bytes()).map_err(|error| format!("the value is not JSON: {error}"))
}

/// How deep a JSON text is nested.
fn depth(json: &[u8]) -> usize {
    // As many as open anywhere, strings included: nearly always that is few enough, and quick to count.
    let opened = json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if opened <= MAX_DEPTH {
        return opened;
    }
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value's text.
///
/// # Errors
/// Why JSON has none for it, or it is not written.
pub(super) fn write(value: &Val) -> Result<String, String> {
    let mut text = String::new();
    write_into(&mut text, value, 0)?;
    Ok(text)
}

fn write_into(text: &mut String, value: &Val, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the mapping's value is nested deeper than {MAX_DEPTH} levels"));
    }
    if text.len() > MAX_VALUE_BYTES {
        return Err(format!("the mapping's value has more than {MAX_VALUE_BYTES} bytes"));
    }
    match value {
        Val::Null => text.push_str("null"),
        Val::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Val::Num(Num::Float(number)) if !number.is_finite() => {
            return Err(format!("the mapping gives a number that JSON does not have: {number}"));
        }
        // Writing to a string fails only when a Display does, and these do not.
        Val::Num(number) => drop(write!(text, "{number}")),
        Val::TStr(bytes) => write_text(text, bytes)?,
        Val::BStr(_) => return Err("the mapping gives bytes, which JSON does not have".to_owned()),
        Val::Arr(items) => {
            text.push('[');
            for (number, item) in items.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { "," });
                write_into(text, item, depth + 1)?;
            }
            text.push(']');
        }
        Val::Obj(members) => {
            text.push('{');
            for (number, (name, member)) in members.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { "," });
                let Val::TStr(name) = name else {
                    return Err("the mapping gives an object whose field's name is no text".to_owned());
                };
                write_text(text, name)?;
                text.push(':');
                write_into(text, member, depth + 1)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn write_text(text: &mut String, bytes: &[u8]) -> Result<(), String> {
    let content =
        str::from_utf8(bytes).map_err(|_| "the mapping gives a text that is not UTF-8".to_owned())?;
    // Holds because a str has no way to fail.
    text.push_str(&serde_json::to_string(content).expect("text is always valid JSON"));
    Ok(())
}

/// Bytes of a record as a value: text where they are UTF-8, else bytes; null where there are none.
pub(super) fn bytes(bytes: Option<&[u8]>) -> Val {
    match bytes {
        None => Val::Null,
        Some(bytes) if str::from_utf8(bytes).is_ok() => Val::utf8_str(bytes.to_vec()),
        Some(bytes) => Val::byte_str(bytes.to_vec()),
    }
}

/// What a value says to people: a text as it is, anything else as JSON.
pub(super) fn plain(value: &Val) -> String {
    match value {
        Val::TStr(text) => String::from_utf8_lossy(text).into_owned(),
        other => write(other).unwrap_or_else(|why| why),
    }
}
