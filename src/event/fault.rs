//! Why no command could be read from a record.

use std::fmt;

use crate::ledger::{Source, visible};

/// Longest detail of a fault, in characters. It becomes a header of the dead letter, and headers are read by people.
const MAX_DETAIL_CHARS: usize = 400;

/// Longest piece of a record that a fault's detail repeats, in characters.
pub(super) const MAX_ECHO_CHARS: usize = 100;

/// The kind of a [`Fault`], for machines: its name is part of the contract and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FaultCode {
    /// The record has no value: a tombstone, or no bytes.
    EmptyValue,
    /// The value starts as a schema registry's frame does, but ends within it.
    BadFraming,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not one JSON document: cut off, followed by more, or no JSON at all.
    NotJson,
    /// The value is JSON, but not an object.
    NotAnObject,
    /// The `CloudEvents` envelope contradicts itself, lacks its data, or is in a format this program does not read.
    BadEnvelope,
    /// Nothing says what the record is.
    MissingType,
    /// The type is none this program knows.
    UnknownType,
    /// The envelope and the value name different types.
    TypeConflict,
    /// A field that says which command this is comes more than once; or any field of what a mapping is given.
    DuplicateField,
    /// The command has no id.
    MissingId,
    /// The command's id breaks the rules for ids.
    InvalidId,
    /// The mapping of its topic says that it is wrong, or fails on it.
    MappingFailed,
    /// The command id was decided before, for other content.
    OrderConflict,
    /// The ledger's position says this record was applied, yet no decision of its command is stored.
    UndecidedBelowPosition,
}

impl FaultCode {
    /// Every code, in the order of reading.
    pub const ALL: [Self; 15] = [
        Self::EmptyValue,
        Self::BadFraming,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotAnObject,
        Self::BadEnvelope,
        Self::MissingType,
        Self::UnknownType,
        Self::TypeConflict,
        Self::DuplicateField,
        Self::MissingId,
        Self::InvalidId,
        Self::MappingFailed,
        Self::OrderConflict,
        Self::UndecidedBelowPosition,
    ];

    /// The code's name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyValue => "empty_value",
            Self::BadFraming => "bad_framing",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::BadEnvelope => "bad_envelope",
            Self::MissingType => "missing_type",
            Self::UnknownType => "unknown_type",
            Self::TypeConflict => "type_conflict",
            Self::DuplicateField => "duplicate_field",
            Self::MissingId => "missing_id",
            Self::InvalidId => "invalid_id",
            Self::MappingFailed => "mapping_failed",
            Self::OrderConflict => "order_conflict",
            Self::UndecidedBelowPosition => "undecided_below_position",
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a record becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Fault {
    /// The kind, for machines.
    pub code: FaultCode,
    /// What is wrong and what is expected, for people: bounded in length whatever the record held.
    pub detail: String,
}

impl Fault {
    /// A fault; a long detail is cut.
    #[must_use]
    pub fn new(code: FaultCode, detail: impl fmt::Display) -> Self {
        Self { code, detail: cut(&detail.to_string(), MAX_DETAIL_CHARS) }
    }

    /// The same command id was decided before, for other content, in the record `first`.
    #[must_use]
    pub fn order_conflict(first: Option<&Source>) -> Self {
        let decided = first.map_or_else(|| "before".to_owned(), |source| format!("from {source}"));
        Self::new(
            FaultCode::OrderConflict,
            format_args!("this id was decided {decided} for other content; that decision stands"),
        )
    }

    /// The record lies below the ledger's position but its command was never decided.
    #[must_use]
    pub fn undecided_below_position() -> Self {
        Self::new(
            FaultCode::UndecidedBelowPosition,
            "the ledger's position says this record was applied, but no decision of its command is stored",
        )
    }
}

/// A piece of a record for a person to recognise: one line, at most `most` characters.
pub(super) fn echo(text: &str, most: usize) -> String {
    cut(text, most).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same for a dead letter's message, with what nobody sees by its number. Not for a reason: those are kept as they
/// were decided, and are decided again.
pub(super) fn visible_echo(text: &str) -> String {
    visible(&echo(text, MAX_ECHO_CHARS)).into_owned()
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_bounded_whatever_the_record_held() {
        let fault = Fault::new(FaultCode::NotJson, "ö".repeat(1_000_000));
        assert_eq!(fault.detail.chars().count(), MAX_DETAIL_CHARS + 1);
        assert!(fault.detail.ends_with('…'));
    }

    #[test]
    fn an_echo_stays_on_one_line() {
        assert_eq!(echo("a\nb\0c", 100), "a\u{fffd}b\u{fffd}c");
        assert_eq!(echo("abcdef", 3), "abc…");
        assert_eq!(visible_echo("order.created\u{200b}"), "order.created<U+200B>");
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = FaultCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), FaultCode::ALL.len());
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        );
    }
}
