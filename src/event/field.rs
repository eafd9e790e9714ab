//! Single fields of a command that may be faulty: the value, or what is wrong with it.

use std::ops::RangeInclusive;

use super::envelope::repeated;
use super::fault::echo;
use super::json::{Field, Kind};
use super::{Fault, FaultCode};
use crate::ledger::{Id, IdError, MAX_QUANTITY, Quantity, Sku};

/// Longest piece of a field that a reason repeats, in characters: the reasons
/// of [`crate::ledger::MAX_LINES`] lines together must fit into one record of the result topic.
const MAX_ECHO_CHARS: usize = 40;

/// The command's id.
///
/// # Errors
/// [`Fault`] when it is missing, ambiguous or no id: then the command cannot be told by it.
pub(super) fn id(field: &Field<'_>) -> Result<Id, Fault> {
    if field.repeated {
        return Err(repeated(field));
    }
    let Some(kind) = field.kind() else {
        return Err(Fault::new(FaultCode::MissingId, format_args!("\"{}\" is missing", field.name)));
    };
    text(&kind, Id::new)
        .map_err(|fault| Fault::new(FaultCode::InvalidId, format_args!("{} {fault}", field.name)))
}

pub(super) fn sku(field: &Field<'_>) -> Result<Sku, String> {
    let kind = once(field)?;
    text(&kind, Sku::new).map_err(|fault| format!("{} {fault}", field.name))
}

pub(super) fn quantity(field: &Field<'_>) -> Result<Quantity, String> {
    let pieces = integer(field, 1..=MAX_QUANTITY)?;
    // Holds because the range is that of quantities; as an error it would only say the same.
    Quantity::new(pieces).map_err(|error| format!("{} {error}", field.name))
}

/// A whole number within bounds, written as one.
pub(super) fn integer(field: &Field<'_>, range: RangeInclusive<i64>) -> Result<i64, String> {
    let name = field.name;
    let kind = once(field)?;
    let Kind::Number(written) = kind else {
        return Err(format!("{name} must be a whole number, is {}", kind.name()));
    };
    let shown = echo(written, MAX_ECHO_CHARS);
    if written.contains(['.', 'e', 'E']) {
        return Err(format!(
            "{name} must be a whole number written without fraction or exponent, is {shown}"
        ));
    }
    // An integer that does not parse is one beyond i64, so beyond the bounds as well.
    let number: Result<i64, _> = written.parse();
    number
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("{name} must be between {} and {}, is {shown}", range.start(), range.end()))
}

/// A field that must be there, once.
fn once<'a>(field: &Field<'a>) -> Result<Kind<'a>, String> {
    if field.repeated {
        return Err(format!("{} comes more than once", field.name));
    }
    field.kind().ok_or_else(|| format!("{} is missing", field.name))
}

/// An id from a field's value, or what is wrong with it. An id that cannot be used is not repeated: it may be huge.
fn text<T>(kind: &Kind<'_>, make: impl FnOnce(&str) -> Result<T, IdError>) -> Result<T, String> {
    match kind {
        Kind::String(Some(text)) => make(text).map_err(|error| error.to_string()),
        Kind::String(None) => Err("is not text: it escapes half of a surrogate pair".to_owned()),
        other => Err(format!("must be a string, is {}", other.name())),
    }
}
