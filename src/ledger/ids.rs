//! Identifiers and quantities, checked once at the edge so that nothing deeper has to.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// Longest id (order, SKU, return, adjustment) in UTF-8 bytes.
///
/// Ids are index keys: a longer one would make every look-up pay for it, and
/// a PostgreSQL index row ends near 2,700 bytes anyway.
pub const MAX_ID_BYTES: usize = 128;

/// Largest quantity of one order line, one level and one adjustment.
///
/// Far above any real stock, and small enough that [`MAX_LINES`] of them
/// cannot overflow an `i64` whatever the sum.
pub const MAX_QUANTITY: i64 = 1_000_000_000_000;

/// Most lines one order may have.
pub const MAX_LINES: usize = 1_000;

/// Longest a hold lasts, and longest one extension of it: 31 days. What is held for longer is sold or it is not.
pub const MAX_HOLD_SECONDS: i64 = 31 * 24 * 60 * 60;

/// Why a text cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("is {0} bytes long, at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
    /// The text holds a control character. NUL cannot be stored by PostgreSQL at all; the others only hide in logs.
    #[error("must not contain control characters")]
    ControlCharacter,
}

fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        Err(IdError::Empty)
    } else if text.len() > MAX_ID_BYTES {
        Err(IdError::TooLong(text.len()))
    } else if text.chars().any(char::is_control) {
        Err(IdError::ControlCharacter)
    } else {
        Ok(())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text and makes an id of it.
            ///
            /// # Errors
            /// [`IdError`] when it is empty, longer than [`MAX_ID_BYTES`] or holds a control character.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_id(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        // By hand: a derive would make a String first, for each line of each decision.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        // By hand: a derive would take the bounds from the String that serde goes through.
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES })
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }
    };
}

id!(
    /// A stock keeping unit: what is counted.
    Sku
);
id!(
    /// The id a producer gave to a command's subject: an order, return, extension or adjustment id.
    Id
);
id!(
    /// A place that keeps stock of its own: a warehouse, a shop.
    Location
);

/// What a level counts: a SKU, at one of the locations where they are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// The stock keeping unit.
    pub sku: Sku,
    /// Where; `None` is the default location, the only one of those who tell none apart.
    pub location: Option<Location>,
}

impl From<Sku> for Item {
    fn from(sku: Sku) -> Self {
        Self { sku, location: None }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            None => f.write_str(&visible(self.sku.as_str())),
            Some(location) => {
                write!(f, "{} at {}", visible(self.sku.as_str()), visible(location.as_str()))
            }
        }
    }
}

/// A text for people, with each character that nobody sees by its number: `MUG<U+00A0>` ends in a non-breaking space. So
/// are spaces at its ends. What is seen stays as it is; a text so written is not for machines.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    let inner = text.len() - text.trim_start_matches(' ').len()..text.trim_end_matches(' ').len();
    let is_hidden = |at: usize, letter: char| is_invisible(letter) || letter == ' ' && !inner.contains(&at);
    if !text.char_indices().any(|(at, letter)| is_hidden(at, letter)) {
        return Cow::Borrowed(text);
    }
    let show = |(at, letter)| {
        if is_hidden(at, letter) { format!("<U+{:04X}>", u32::from(letter)) } else { letter.to_string() }
    };
    Cow::Owned(text.char_indices().map(show).collect())
}

/// Whether nobody sees this character, or takes it for a space: all white space but the space itself, control characters,
/// and what Unicode has to format, join and fill. Not what changes how the character before it looks.
#[must_use]
pub fn is_invisible(letter: char) -> bool {
    (letter.is_whitespace() && letter != ' ')
        || letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// How many pieces: at least 1, at most [`MAX_QUANTITY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Quantity(i64);

/// Why a number cannot be a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be between 1 and {MAX_QUANTITY}, is {0}")]
pub struct QuantityError(pub i64);

impl Quantity {
    /// Checks a number and makes a quantity of it.
    ///
    /// # Errors
    /// [`QuantityError`] when it is below 1 or above [`MAX_QUANTITY`].
    pub fn new(pieces: i64) -> Result<Self, QuantityError> {
        if (1..=MAX_QUANTITY).contains(&pieces) { Ok(Self(pieces)) } else { Err(QuantityError(pieces)) }
    }

    /// The number of pieces.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Quantity {
    type Error = QuantityError;
    fn try_from(pieces: i64) -> Result<Self, QuantityError> {
        Self::new(pieces)
    }
}

impl From<Quantity> for i64 {
    fn from(quantity: Quantity) -> i64 {
        quantity.0
    }
}

/// How long a hold lasts, in seconds: at least 1, at most [`MAX_HOLD_SECONDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct HoldSeconds(i64);

/// Why a number cannot be the length of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be between 1 and {MAX_HOLD_SECONDS}, is {0}")]
pub struct HoldSecondsError(pub i64);

impl HoldSeconds {
    /// The shortest there is.
    pub const MIN: Self = Self(1);

    /// Checks a number of seconds.
    ///
    /// # Errors
    /// [`HoldSecondsError`] when it is below 1 or above [`MAX_HOLD_SECONDS`].
    pub fn new(seconds: i64) -> Result<Self, HoldSecondsError> {
        if (1..=MAX_HOLD_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(HoldSecondsError(seconds))
        }
    }

    /// The number of seconds.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for HoldSeconds {
    type Error = HoldSecondsError;
    fn try_from(seconds: i64) -> Result<Self, HoldSecondsError> {
        Self::new(seconds)
    }
}

impl From<HoldSeconds> for i64 {
    fn from(seconds: HoldSeconds) -> i64 {
        seconds.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_and_printable() {
        assert_eq!(Sku::new(""), Err(IdError::Empty));
        assert_eq!(Sku::new(&"x".repeat(129)), Err(IdError::TooLong(129)));
        assert_eq!(Sku::new("a\0b"), Err(IdError::ControlCharacter));
        assert_eq!(Sku::new("Größe 42 / 红").unwrap().as_str(), "Größe 42 / 红");
    }

    #[test]
    fn what_nobody_sees_is_named_by_its_number() {
        for (text, shown) in [
            ("MUG", "MUG"),
            ("MUG, red / Größe 42 🏷️", "MUG, red / Größe 42 🏷️"),
            ("MUG\u{a0}", "MUG<U+00A0>"),
            ("M\u{200b}UG", "M<U+200B>UG"),
            ("\u{feff}MUG", "<U+FEFF>MUG"),
            (" MUG red ", "<U+0020>MUG red<U+0020>"),
            ("  ", "<U+0020><U+0020>"),
            ("MUG\u{e0041}", "MUG<U+E0041>"),
        ] {
            assert_eq!(visible(text), shown);
        }
        let item =
            Item { sku: Sku::new("MUG\u{2009}").unwrap(), location: Some(Location::new("B ").unwrap()) };
        assert_eq!(item.to_string(), "MUG<U+2009> at B<U+0020>");
    }

    #[test]
    fn a_quantity_is_positive_and_bounded() {
        assert_eq!(Quantity::new(0), Err(QuantityError(0)));
        assert_eq!(Quantity::new(-1), Err(QuantityError(-1)));
        assert!(Quantity::new(MAX_QUANTITY).is_ok());
        assert!(Quantity::new(MAX_QUANTITY + 1).is_err());
    }

    #[test]
    fn no_order_can_overflow_a_sum() {
        let most = i64::try_from(MAX_LINES).unwrap();
        assert!(MAX_QUANTITY.checked_mul(most).is_some());
    }
}
