//! JSON texts to the values that programs work on, and back, with every digit.
//!
//! jaq reads a whole number as one of any length and a decimal as its text, so what a program passes on is what came. What
//! it calculates with decimals is a float's.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use jaq_json::{Num, Rc, Val, read};
use serde::de::IgnoredAny;

use super::MapError;

/// Deepest nesting of what a program is given, and of what it gives: jaq reads by recursion. No shop nests half as deep.
const MAX_DEPTH: usize = 128;
/// Longest value that a program gives, in bytes. An order of ten thousand lines has a tenth.
const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;
/// Longest number that a program is given, in characters, and about the longest that it gives: a whole number is read and
/// written in the square of its length, in one step that nothing breaks off. A million digits take seconds, ten million minutes.
const MAX_NUMBER_CHARS: usize = 1_000;

/// A text's value.
///
/// # Errors
/// [`MapError`] when it is none, or not read.
pub(super) fn read(json: &str) -> Result<Val, MapError> {
    // jaq reads more than JSON: comments, NaN, bytes.
    serde_json::from_str::<IgnoredAny>(json).map_err(not_json)?;
    check(json)?;
    read::parse_single(json.as_bytes()).map_err(not_json)
}

/// What `fromjson` makes of a text, and with it `tonumber`: what [`read()`] does, where anything can be nested in it. What
/// cannot is read as jaq reads it, which takes numbers with a plus or with zeros in front, and comments before them.
///
/// # Errors
/// As [`read()`].
pub(super) fn read_text(text: &[u8]) -> Result<Val, MapError> {
    if text.iter().any(|byte| matches!(byte, b'[' | b'{')) {
        read(str::from_utf8(text).map_err(not_json)?)
    } else {
        // What begins as a string is one or nothing, and digits in it are letters like others.
        let first = text.trim_ascii_start();
        if !first.starts_with(b"\"") && !first.starts_with(b"b\"") {
            for word in text.split(|byte| !is_of_number(*byte)) {
                check_number(word.len())?;
            }
        }
        read::parse_single(text).map_err(not_json)
    }
}

fn not_json(error: impl fmt::Display) -> MapError {
    MapError::NotJson(format!("the value is not JSON: {error}"))
}

/// What numbers are made of. Of other words of JSON a letter or two is, too.
fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

fn check_number(length: usize) -> Result<(), MapError> {
    if length > MAX_NUMBER_CHARS {
        let why = format!("the value has a number of more than {MAX_NUMBER_CHARS} characters");
        return Err(MapError::NotJson(why));
    }
    Ok(())
}

/// Refuses what is nested too deeply, a number that is too long, and an object with two fields of one name: jaq would take the
/// last of them, and nobody knows which was meant. The text is known to be JSON, so it is enough to look at where strings,
/// numbers and objects begin and end.
fn check(json: &str) -> Result<(), MapError> {
    // What is open at a place: of an object how many names were met before it, of an array nothing.
    let mut open: Vec<Option<usize>> = Vec::new();
    // The names of all objects that are open, those of the innermost last.
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    let mut is_name = false;
    let mut at = 0;
    while let Some(byte) = json.as_bytes().get(at) {
        at += 1;
        match byte {
            b'"' => {
                let end = end_of_string(json.as_bytes(), at);
                if is_name {
                    names.push(unescaped(json.get(at..end).unwrap_or_default())?);
                }
                at = end + 1;
            }
            b'{' | b'[' => {
                is_name = *byte == b'{';
                open.push(is_name.then_some(names.len()));
                if open.len() > MAX_DEPTH {
                    let why = format!("the value is nested deeper than {MAX_DEPTH} levels");
                    return Err(MapError::NotJson(why));
                }
            }
            b'}' | b']' => {
                if let Some(Some(first)) = open.pop() {
                    if let Some(name) = repeated(&mut names[first..]) {
                        return Err(MapError::Repeated(name.to_owned()));
                    }
                    names.truncate(first);
                }
            }
            b':' => is_name = false,
            b',' => is_name = matches!(open.last(), Some(Some(_))),
            b'0'..=b'9' | b'-' => {
                let rest = json.as_bytes().get(at..).unwrap_or_default();
                let more = rest.iter().take_while(|byte| is_of_number(**byte)).count();
                check_number(1 + more)?;
                at += more;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the quote stands that ends a string whose content begins here.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    loop {
        match json.get(at) {
            Some(b'"') | None => return at,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// A field's name as it is meant: `"sku"` and `"\u0073ku"` are one.
fn unescaped(name: &str) -> Result<Cow<'_, str>, MapError> {
    if name.contains('\\') {
        serde_json::from_str::<String>(&format!("\"{name}\"")).map(Cow::Owned).map_err(not_json)
    } else {
        Ok(Cow::Borrowed(name))
    }
}

/// One of the names that come more than once.
fn repeated<'n>(names: &'n mut [Cow<'_, str>]) -> Option<&'n str> {
    // By their lengths first: most names differ in that, and it costs least to compare.
    names.sort_unstable_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &*pair[0])
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
        // A digit has a little more than three bits.
        Val::Num(Num::BigInt(number)) if number.bits() > 4 * MAX_NUMBER_CHARS as u64 => {
            return Err(format!("the mapping gives a number of more than {MAX_NUMBER_CHARS} digits"));
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

/// Lets go of a value, level by level: by itself it would do so by recursion, and what a program nests in itself often enough
/// would end the process. Of what others hold, too, only this hold is let go.
pub(super) fn dismantle(value: Val) {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Val::Arr(items) => left.extend(Rc::into_inner(items).unwrap_or_default()),
            Val::Obj(members) => {
                let members = Rc::into_inner(members).unwrap_or_default();
                left.extend(members.into_iter().flat_map(|(name, member)| [name, member]));
            }
            _ => {}
        }
    }
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
