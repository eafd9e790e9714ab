//! Numbers by their digits: what a text says exactly, never through a float.

/// What a text says that is a number in JSON's grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// A whole number.
    Whole(i64),
    /// A whole number that 64 bits do not hold.
    Beyond,
    /// A number with something behind its point.
    Fraction,
}

impl Exact {
    /// The value of a number: `2`, `2.0`, `20e-1` and `0.2e1` are one; `None` when the text is none as JSON writes them.
    ///
    /// Takes time by the text's length, whatever its exponent.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let Parts { is_negative, whole, fraction, exponent } = Parts::of(text)?;
        let digits = whole.bytes().chain(fraction.bytes());
        let leading = digits.clone().take_while(|digit| *digit == b'0').count();
        let all = whole.len() + fraction.len();
        if leading == all {
            return Some(Self::Whole(0));
        }
        let trailing = digits.clone().rev().take_while(|digit| *digit == b'0').count();
        // The digits that count, and the power of ten of the last of them.
        let significant = digits.skip(leading).take(all - leading - trailing);
        let power = exponent
            .saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX))
            .saturating_add(i64::try_from(trailing).unwrap_or(i64::MAX));
        if power < 0 {
            return Some(Self::Fraction);
        }
        let zeros = usize::try_from(power).unwrap_or(usize::MAX);
        // One digit more than the longest of 64 bits, so that nothing below overflows.
        if (all - leading - trailing).saturating_add(zeros) > LONGEST_DIGITS {
            return Some(Self::Beyond);
        }
        let number = significant
            .chain(std::iter::repeat_n(b'0', zeros))
            .fold(0_i128, |number, digit| number * 10 + i128::from(digit - b'0'));
        let number = if is_negative { -number } else { number };
        Some(i64::try_from(number).map_or(Self::Beyond, Self::Whole))
    }
}

/// Digits of the longest number of 64 bits, and one more.
const LONGEST_DIGITS: usize = 20;

/// The parts of a number as JSON writes it.
struct Parts<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    /// As large as there is where the text's is larger.
    exponent: i64,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix('-');
        let (mantissa, exponent) = match unsigned.unwrap_or(text).split_once(['e', 'E']) {
            None => (unsigned.unwrap_or(text), 0),
            Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            None => (mantissa, ""),
            Some((_, "")) => return None,
            Some(parts) => parts,
        };
        let is_number = are_digits(whole) && (whole.len() == 1 || !whole.starts_with('0'));
        (is_number && fraction.bytes().all(|byte| byte.is_ascii_digit())).then_some(Self {
            is_negative: unsigned.is_some(),
            whole,
            fraction,
            exponent,
        })
    }
}

fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !are_digits(digits) {
        return None;
    }
    // Only overflow is left to fail.
    let size = digits.parse().unwrap_or(i64::MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

/// Whether a text is digits from 0 to 9 and nothing else.
#[must_use]
pub fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for two in
            ["2", "2.0", "2.0000", "2e0", "2E+0", "20e-1", "0.2e1", "0.0002e4", "200000e-5", "2.000e-0"]
        {
            assert_eq!(Exact::of(two), Some(Exact::Whole(2)), "{two}");
        }
        for zero in ["0", "-0", "0.0", "0e999999999999999999999", "-0.00e-7"] {
            assert_eq!(Exact::of(zero), Some(Exact::Whole(0)), "{zero}");
        }
        assert_eq!(Exact::of("9223372036854775807"), Some(Exact::Whole(i64::MAX)));
        assert_eq!(Exact::of("-9223372036854775808.0"), Some(Exact::Whole(i64::MIN)));
        assert_eq!(Exact::of("9007199254740993.0"), Some(Exact::Whole(9_007_199_254_740_993)));
    }

    #[test]
    fn what_is_no_whole_number_of_64_bits_is_known_as_what_it_is() {
        for beyond in ["9223372036854775808", "1e19", "1e999", "9e99999999999999999999", &"9".repeat(100_000)]
        {
            assert_eq!(Exact::of(beyond), Some(Exact::Beyond), "{beyond}");
        }
        for fraction in ["1.5", "2.00000000000000000001", "1e-1", "1e-99999999999999999999", "-0.1"] {
            assert_eq!(Exact::of(fraction), Some(Exact::Fraction), "{fraction}");
        }
        for none in [
            "", "-", "+2", "02", "00", "2.", ".5", "2.e1", "2e", "2e+", "0x2", " 2", "2 ", "1,000", "2e1.0",
            "--2", "٢", "NaN", "1_0",
        ] {
            assert_eq!(Exact::of(none), None, "{none:?}");
        }
    }

    /// A number's digits with the point moved, and an exponent that moves it back.
    fn written(number: i64, zeros: usize, point: usize, upper: bool) -> String {
        let digits = number.unsigned_abs().to_string() + &"0".repeat(zeros);
        let point = point.min(digits.len());
        let (whole, fraction) = digits.split_at(point);
        let whole = if whole.is_empty() { "0" } else { whole };
        let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
        let back = i64::try_from(digits.len() - point).unwrap() - i64::try_from(zeros).unwrap();
        let sign = if number < 0 { "-" } else { "" };
        format!("{sign}{whole}{fraction}{}{back}", if upper { 'E' } else { 'e' })
    }

    proptest! {
        #[test]
        fn a_moved_point_and_its_exponent_change_nothing(
            number in any::<i64>(), zeros in 0..40_usize, point in 0..60_usize, upper in any::<bool>(),
        ) {
            let text = written(number, zeros, point, upper);
            prop_assert_eq!(Exact::of(&text), Some(Exact::Whole(number)), "{}", text);
        }

        #[test]
        fn a_digit_behind_the_point_is_never_lost(number in any::<i64>(), zeros in 0..60_usize, last in 1..10_u8) {
            let text = format!("{number}.{}{last}", "0".repeat(zeros));
            prop_assert_eq!(Exact::of(&text), Some(Exact::Fraction));
        }

        #[test]
        fn what_json_takes_for_a_number_is_one_here_and_nothing_else(text in "[-+]?[0-9]{0,3}[.]?[0-9]{0,3}([eE][-+]?[0-9]{0,3})?") {
            let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(Exact::of(&text).is_some(), is_json, "{}", text);
        }
    }
}
