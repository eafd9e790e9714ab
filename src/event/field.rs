//! Single fields of a command that may be faulty: the value, or what is wrong with it.

use std::cell::Cell;
use std::ops::RangeInclusive;

use super::envelope::repeated;
use super::fault::echo;
use super::json::{Field, ValueKind};
use super::order::OrderPolicy;
use super::{Fault, FaultCode};
use crate::ledger::{
    Exact, HoldSeconds, Id, IdError, Item, Location, MAX_HOLD_SECONDS, MAX_QUANTITY, Policy, Quantity,
    Reason, Sku, are_digits,
};

/// Longest piece of a field that a reason repeats, in characters: the reasons
/// of [`crate::ledger::MAX_LINES`] lines together must fit into one record of the result topic.
const MAX_ECHO_CHARS: usize = 40;

/// What is wrong with a string that is none.
const NO_TEXT: &str = "is not text: it escapes half of a surrogate pair";

/// Reads fields, and knows whether it took one that earlier versions refused.
pub(super) struct Reader {
    is_strict: bool,
    was_lenient: Cell<bool>,
}

impl Reader {
    /// As this version reads: what is exactly a number is one, however it is written.
    pub(super) fn lenient() -> Self {
        Self { is_strict: false, was_lenient: Cell::new(false) }
    }

    /// As versions up to 0.1 read, and said why they did not: only what is written as the contract has it. Its words stand
    /// in ledgers, and never change.
    pub(super) fn strict() -> Self {
        Self { is_strict: true, was_lenient: Cell::new(false) }
    }

    /// Whether something was read that a strict reader refuses.
    pub(super) fn was_lenient(&self) -> bool {
        self.was_lenient.get()
    }

    /// The command's id.
    ///
    /// # Errors
    /// [`Fault`] when it is missing, ambiguous or no id: then the command cannot be known by it.
    pub(super) fn id(&self, field: &Field<'_>) -> Result<Id, Fault> {
        if field.repeated {
            return Err(repeated(field));
        }
        let Some(kind) = field.kind() else {
            return Err(Fault::new(FaultCode::MissingId, format_args!("\"{}\" is missing", field.name)));
        };
        self.id_text(&kind)
            .map_err(|fault| Fault::new(FaultCode::InvalidId, format_args!("{} {fault}", field.name)))
    }

    /// The id of the order a command follows, where that is not the command's own.
    pub(super) fn order_id(&self, field: &Field<'_>) -> Result<Id, String> {
        self.id_text(&once(field)?).map_err(|fault| format!("{} {fault}", field.name))
    }

    /// An id: a string, or a whole number, of which every digit is kept.
    fn id_text(&self, kind: &ValueKind<'_>) -> Result<Id, String> {
        match kind {
            ValueKind::Number(written) if !self.is_strict => {
                if !are_digits(written.strip_prefix('-').unwrap_or(written)) {
                    return Err(format!(
                        "must be a string or a whole number written as its digits, is {}",
                        echo(written, MAX_ECHO_CHARS)
                    ));
                }
                self.was_lenient.set(true);
                Id::new(written).map_err(|error| error.to_string())
            }
            other => text(other, Id::new),
        }
    }

    /// How long a hold lasts, or how much longer.
    pub(super) fn hold_seconds(&self, field: &Field<'_>) -> Result<HoldSeconds, String> {
        let seconds = self.integer(field, 1..=MAX_HOLD_SECONDS)?;
        // Holds because the range is that of holds; as an error it would only say the same.
        HoldSeconds::new(seconds).map_err(|error| format!("{} {error}", field.name))
    }

    /// How many pieces.
    pub(super) fn quantity(&self, field: &Field<'_>) -> Result<Quantity, String> {
        let pieces = self.integer(field, 1..=MAX_QUANTITY)?;
        // Holds because the range is that of quantities; as an error it would only say the same.
        Quantity::new(pieces).map_err(|error| format!("{} {error}", field.name))
    }

    /// A whole number within bounds, as a number or in a string.
    pub(super) fn integer(&self, field: &Field<'_>, range: RangeInclusive<i64>) -> Result<i64, String> {
        let name = field.name;
        let kind = once(field)?;
        let (written, is_quoted) = match &kind {
            ValueKind::Number(written) => (*written, false),
            ValueKind::String(Some(text)) if !self.is_strict && Exact::of(text).is_some() => (&**text, true),
            _ => return Err(format!("{name} must be a whole number, is {}", kind.name())),
        };
        let shown = echo(written, MAX_ECHO_CHARS);
        let is_plain = !is_quoted && !written.contains(['.', 'e', 'E']);
        if self.is_strict && !is_plain {
            return Err(format!(
                "{name} must be a whole number written without fraction or exponent, is {shown}"
            ));
        }
        let number = match Exact::of(written) {
            Some(Exact::Fraction) => return Err(format!("{name} must be a whole number, is {shown}")),
            Some(Exact::Whole(number)) => Some(number),
            // Beyond 64 bits, so beyond the bounds as well.
            Some(Exact::Beyond) | None => None,
        };
        let number = number.filter(|number| range.contains(number)).ok_or_else(|| {
            format!("{name} must be between {} and {}, is {shown}", range.start(), range.end())
        })?;
        if !is_plain {
            self.was_lenient.set(true);
        }
        Ok(number)
    }
}

/// A SKU and where it is; all that is wrong with either.
pub(super) fn item(sku: &Field<'_>, location: &Field<'_>) -> Result<Item, String> {
    let sku = named(sku, Sku::new);
    match (sku, optional(location, |location| named(location, Location::new))) {
        (Ok(sku), Ok(location)) => Ok(Item { sku, location }),
        (sku, location) => Err(both_wrong(sku, location)),
    }
}

/// What is wrong with one or both of two values, in one sentence.
pub(super) fn both_wrong<A, B>(one: Result<A, String>, other: Result<B, String>) -> String {
    let wrong: Vec<String> = one.err().into_iter().chain(other.err()).collect();
    wrong.join("; ")
}

/// What becomes of an order that is not all there; the default when it does not say.
pub(super) fn policy(field: &Field<'_>) -> Result<Policy, String> {
    let policy = optional(field, |field| match once(field)? {
        ValueKind::String(Some(word)) => OrderPolicy::of(&word).ok_or_else(|| {
            let shown = echo(&word, MAX_ECHO_CHARS);
            format!("policy must be \"all_or_none\" or \"partial\", is \"{shown}\"")
        }),
        ValueKind::String(None) => Err(format!("policy {NO_TEXT}")),
        other => Err(format!("policy must be a string, is {}", other.name())),
    })?;
    Ok(policy.map_or_else(Policy::default, Policy::from))
}

/// A field that may be left out.
pub(super) fn optional<'a, T>(
    field: &Field<'a>,
    read: impl FnOnce(&Field<'a>) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if field.is_absent() { Ok(None) } else { read(field).map(Some) }
}

/// A field that must be there and hold an id of some sort.
fn named<T>(field: &Field<'_>, make: impl FnOnce(&str) -> Result<T, IdError>) -> Result<T, String> {
    text(&once(field)?, make).map_err(|fault| format!("{} {fault}", field.name))
}

/// A field that must be there, once.
fn once<'a>(field: &Field<'a>) -> Result<ValueKind<'a>, String> {
    if field.repeated {
        return Err(format!("{} comes more than once", field.name));
    }
    field.kind().ok_or_else(|| format!("{} is missing", field.name))
}

/// An id from a field's value, or what is wrong with it. An id that cannot be used is not repeated: it may be huge.
fn text<T>(kind: &ValueKind<'_>, make: impl FnOnce(&str) -> Result<T, IdError>) -> Result<T, String> {
    match kind {
        ValueKind::String(Some(text)) => make(text).map_err(|error| error.to_string()),
        ValueKind::String(None) => Err(NO_TEXT.to_owned()),
        other => Err(format!("must be a string, is {}", other.name())),
    }
}

/// All that is wrong with a command outside of its lines, collected field by field.
#[derive(Default)]
pub(super) struct Faults(Vec<Reason>);

impl Faults {
    /// The value, or nothing once what is wrong with it is noted.
    pub(super) fn keep<T>(&mut self, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.0.push(Reason::InvalidOrder { line: None, detail })).ok()
    }

    /// The lines, or nothing once what is wrong with them is noted.
    pub(super) fn keep_lines<T>(&mut self, read: Result<T, Vec<Reason>>) -> Option<T> {
        read.map_err(|reasons| self.0.extend(reasons)).ok()
    }

    /// Why the command is refused.
    pub(super) fn reasons(self) -> Vec<Reason> {
        self.0
    }
}
