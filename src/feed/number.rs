//! The number of pieces in a column.

use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::ledger::{are_digits, visible};

/// What stands between the thousands of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thousands(char);

impl FromStr for Thousands {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.chars().collect::<Vec<_>>()[..] {
            [mark @ (',' | '.' | '\'' | '’' | ' ' | '_')] => Ok(Self(mark)),
            _ => Err("is one of , . ' ’ _ and the space".to_owned()),
        }
    }
}

impl Thousands {
    /// Where a point stands between thousands, a comma stands before a fraction.
    fn decimal_mark(of: Option<Self>) -> char {
        if of == Some(Self('.')) { ',' } else { '.' }
    }

    /// Whether this character is it. Of spaces, those are too that do not break.
    fn is(self, letter: char) -> bool {
        self.0 == letter || self.0 == ' ' && matches!(letter, '\u{a0}' | '\u{202f}')
    }

    /// The digits of a whole number without what stands between its thousands; `None` when it stands elsewhere.
    fn taken_from(self, whole: &str) -> Option<String> {
        let groups: Vec<&str> = whole.split(|letter| self.is(letter)).collect();
        let (first, others) = groups.split_first()?;
        let is_grouped = (1..=3).contains(&first.len()) && others.iter().all(|group| group.len() == 3);
        (others.is_empty() || is_grouped).then(|| groups.concat())
    }
}

/// A whole number of pieces within bounds, by its digits alone: `12`, `0012`, `+12` and `12.0` are one number.
///
/// # Errors
/// Says what is expected.
pub(super) fn pieces(
    text: &str,
    thousands: Option<Thousands>,
    within: &RangeInclusive<i64>,
) -> Result<i64, String> {
    value(text, thousands).filter(|pieces| within.contains(pieces)).ok_or_else(|| {
        let expected = format!("must be a whole number from {} to {}", within.start(), within.end());
        format!("{expected}, is \"{}\"{}", visible(&shown(text)), hint(text, thousands))
    })
}

/// Longest piece of a column that a message repeats, in characters.
const MOST_SHOWN: usize = 40;

fn shown(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// What a person may have meant.
fn hint(text: &str, thousands: Option<Thousands>) -> String {
    let marks = [',', '.', '\'', '’', ' ', '_'].map(Thousands);
    let fits = |mark: &Thousands| text.contains(mark.0) && value(text, Some(*mark)).is_some();
    match marks.into_iter().find(fits) {
        Some(Thousands(mark)) if thousands.is_none() => {
            format!(": if that is between thousands, say --thousands '{mark}'").replace("'''", "\"'\"")
        }
        _ => String::new(),
    }
}

fn value(text: &str, thousands: Option<Thousands>) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once(Thousands::decimal_mark(thousands)) {
        None => (unsigned, "0"),
        Some(parts) => parts,
    };
    let digits = match thousands {
        Some(mark) => mark.taken_from(whole)?,
        None => whole.to_owned(),
    };
    if !are_digits(&digits) || fraction.is_empty() || fraction.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::MAX_QUANTITY;

    fn read(text: &str, thousands: Option<&str>) -> Result<i64, String> {
        pieces(text, thousands.map(|mark| mark.parse().unwrap()), &(0..=MAX_QUANTITY))
    }

    #[test]
    fn a_whole_number_is_read_as_people_write_it() {
        for text in ["12", "+12", "0012", "12.0", "12.000"] {
            assert_eq!(read(text, None), Ok(12), "{text}");
        }
        for (text, mark) in [
            ("1,234", ","),
            ("1,234.00", ","),
            ("1.234", "."),
            ("1.234,00", "."),
            ("1'234", "'"),
            ("1’234", "’"),
            ("1 234", " "),
            ("1\u{202f}234", " "),
            ("1_234", "_"),
            ("1234", ","),
        ] {
            assert_eq!(read(text, Some(mark)), Ok(1234), "{text}");
        }
        assert_eq!(read("1,000,000,000,000", Some(",")), Ok(MAX_QUANTITY));
        assert_eq!(read("-0", None), Ok(0));
    }

    #[test]
    fn what_is_not_exactly_a_number_is_none() {
        for text in [
            "",
            "-1",
            "1.5",
            "12.",
            ".0",
            "1e3",
            "1E+06",
            "0x10",
            "12 pcs",
            "1,234",
            "1.234,0",
            "--1",
            "+",
            "١٢",
            "NaN",
            "99999999999999999999",
            "1000000000001",
            "1 2",
        ] {
            assert!(
                read(text, None).unwrap_err().starts_with("must be a whole number from 0 to 1000000000000"),
                "{text}"
            );
        }
        for (text, mark) in [
            ("12,34", ","),
            ("1,23", ","),
            (",123", ","),
            ("1,,234", ","),
            ("1234,567", ","),
            ("1,234,5", ","),
            ("1.234.0", ","),
            ("12.0", "."),
        ] {
            assert!(read(text, Some(mark)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_with_marks_between_its_thousands_gets_a_hint() {
        assert!(
            read("1,234", None)
                .unwrap_err()
                .ends_with(", is \"1,234\": if that is between thousands, say --thousands ','")
        );
        assert!(read("1'234", None).unwrap_err().ends_with("say --thousands \"'\""));
        assert!(!read("1,23", None).unwrap_err().contains("--thousands"));
        assert!(read(&"9".repeat(1_000), None).unwrap_err().len() < 150);
    }

    proptest! {
        #[test]
        fn grouping_changes_no_digit(number in 0..=MAX_QUANTITY, mark in "[,.' _]", zeros in 0..5_usize) {
            let digits = number.to_string();
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push_str(&mark);
                }
                grouped.push(digit);
            }
            if zeros > 0 {
                grouped.push(if mark == "." { ',' } else { '.' });
                grouped.push_str(&"0".repeat(zeros));
            }
            prop_assert_eq!(read(&grouped, Some(&mark)), Ok(number));
        }
    }
}
