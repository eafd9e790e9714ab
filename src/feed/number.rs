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

    /// The digits of a whole number without what stands between its thousands; `None` when it stands elsewhere. No number of
    /// several groups begins with a zero: `0,500` is a half by another's way of writing.
    fn taken_from(self, whole: &str) -> Option<String> {
        let groups: Vec<&str> = whole.split(|letter| self.is(letter)).collect();
        let (first, others) = groups.split_first()?;
        let is_grouped = (1..=3).contains(&first.len())
            && !first.starts_with('0')
            && others.iter().all(|group| group.len() == 3);
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
    value(text, thousands)
        .filter(|pieces| within.contains(pieces))
        .ok_or_else(|| format!("{}{}", expected(text, within), hint(text, thousands)))
}

/// The same where semicolons stand between the columns and nothing is said of thousands. Who writes so mostly has commas before
/// fractions, and points between thousands: whether `1.000` is one piece or a thousand, nobody knows.
///
/// # Errors
/// As [`pieces`], and of such a number.
pub(super) fn pieces_beside_semicolons(text: &str, within: &RangeInclusive<i64>) -> Result<i64, String> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let is_a_thousand_too = unsigned
        .strip_suffix(".000")
        .is_some_and(|whole| (1..=3).contains(&whole.len()) && are_digits(whole) && !whole.starts_with('0'));
    if is_a_thousand_too {
        let expected = expected(text, within);
        return Err(format!(
            "{expected}: if its point is between thousands, say --thousands '.', and if it is before a fraction, --thousands ','"
        ));
    }
    pieces(text, None, within)
}

fn expected(text: &str, within: &RangeInclusive<i64>) -> String {
    let (least, most) = (within.start(), within.end());
    format!("must be a whole number from {least} to {most}, is \"{}\"", visible(&shown(text)))
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
        // Without groups, zeros in front say nothing.
        for (text, mark, number) in [("0012", ",", 12), ("0", ",", 0), ("0.0", ",", 0), ("0,0", ".", 0)] {
            assert_eq!(read(text, Some(mark)), Ok(number), "{text}");
        }
    }

    #[test]
    fn beside_semicolons_a_number_that_may_be_a_thousand_is_not_read_as_one() {
        let read = |text: &str| pieces_beside_semicolons(text, &(0..=MAX_QUANTITY));
        for text in ["1.000", "+1.000", "12.000", "999.000"] {
            let why = read(text).unwrap_err();
            assert!(why.contains(&format!("is \"{text}\": if its point is between thousands")), "{why}");
        }
        for (text, number) in [
            ("1", 1),
            ("1.0", 1),
            ("1.00", 1),
            ("1.0000", 1),
            ("1000.000", 1_000),
            ("0.000", 0),
            ("007.000", 7),
        ] {
            assert_eq!(read(text), Ok(number), "{text}");
        }
        for text in ["1.250", "-1.000", ".000", "x.000", "1,234", "1.000.000", "1.000,0"] {
            assert!(!read(text).unwrap_err().contains("before a fraction"), "{text}");
        }
    }

    #[test]
    fn what_the_hint_says_of_a_point_is_so() {
        assert_eq!((read("1.000", Some(".")), read("1.000", Some(","))), (Ok(1_000), Ok(1)));
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
            // A half, by another's way of writing.
            ("0,500", ","),
            ("-0,500", ","),
            ("0.500", "."),
            ("0 500", " "),
            ("00,500", ","),
            ("0,500,000", ","),
            ("012,500", ","),
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
        for other in ["1,23", "0,500"] {
            assert!(!read(other, None).unwrap_err().contains("--thousands"), "{other}");
        }
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
