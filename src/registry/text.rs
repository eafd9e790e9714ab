//! JSON as it is written, bounded.

use serde::Serialize;

/// Longest JSON of one value, in bytes: sixteen times what Kafka takes for a record by default. A value may say of itself
/// that it holds a billion nothings.
pub(super) const MOST_TEXT_BYTES: usize = 16 << 20;
/// Deepest nesting: as deep as Connect's envelope is read. Orders have some levels.
pub(super) const MOST_DEPTH: usize = 64;

/// JSON that is being written.
#[derive(Default)]
pub(super) struct Json(String);

impl Json {
    /// Adds JSON as it stands.
    pub(super) fn raw(&mut self, json: &str) -> Result<(), String> {
        if self.0.len() + json.len() > MOST_TEXT_BYTES {
            return Err(format!("as JSON it is longer than {MOST_TEXT_BYTES} bytes"));
        }
        self.0.push_str(json);
        Ok(())
    }

    /// Adds a value as serde writes it: a text with its escapes, a number by its shortest digits.
    pub(super) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), String> {
        let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
        self.raw(&json)
    }

    /// Adds a number; what JSON has no number for is a text, as Protobuf's JSON has it.
    pub(super) fn float(&mut self, value: f64) -> Result<(), String> {
        if value.is_finite() {
            self.value(&value)
        } else if value.is_nan() {
            self.raw("\"NaN\"")
        } else {
            self.raw(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" })
        }
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}
