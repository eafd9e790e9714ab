//! JSON lines: an object a line, with the fields that a text has for columns.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::Columns;
use super::{Feed, FeedSettings, Refused, Row, number};
use crate::ledger::{Exact, Item, Location, Sku};

pub(super) fn read(content: &[u8], settings: &FeedSettings) -> Feed {
    let mut feed = Feed::default();
    for (text, line) in content.split(|byte| *byte == b'\n').zip(1..) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // Each line is a record, and its number its identity.
        match read_line(text, line, settings) {
            Ok(row) => feed.rows.push(row),
            Err(refused) => feed.refused.extend(refused),
        }
    }
    feed
}

/// The fields of an object in their order, as they are written, also those that come twice.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    fields.push((name, map.next_value::<&'de RawValue>()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

fn read_line(text: &[u8], line: u64, settings: &FeedSettings) -> Result<Row, Vec<Refused>> {
    let whole = |what: String| vec![Refused::new(line, None, what)];
    let Fields(fields) =
        serde_json::from_slice(text).map_err(|error| whole(format!("is no JSON object: {error}")))?;
    let names: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
    let columns = Columns::find(&names, settings).map_err(|error| {
        // The message of a header, which each line has for itself here.
        let text = error.to_string();
        whole(
            text.strip_prefix("line 1: ")
                .unwrap_or(&text)
                .replace("the header must be", "the fields must be"),
        )
    })?;
    let fault = |column: &str, what: String| Refused::new(line, Some(column), what);
    let field = |index: usize| fields[index].1.get();
    let sku =
        string(field(columns.sku)).and_then(|text| Sku::new(text.trim()).map_err(|error| error.to_string()));
    let location = match columns.location.map(field).filter(|location| *location != "null") {
        None => Ok(None),
        Some(location) => string(location).and_then(|text| match text.trim() {
            "" => Ok(None),
            text => Location::new(text).map(Some).map_err(|error| error.to_string()),
        }),
    };
    let written = field(columns.available);
    let within = &settings.pieces;
    let pieces = match string(written) {
        // Text is what people and spreadsheets write, here as in a column.
        Ok(text) => number::pieces(text.trim(), settings.thousands, within),
        Err(_) => match Exact::of(written) {
            Some(Exact::Whole(pieces)) if within.contains(&pieces) => Ok(pieces),
            _ => {
                let shown: String = written.chars().take(40).collect();
                Err(format!("must be a whole number from {} to {}, is {shown}", within.start(), within.end()))
            }
        },
    };
    match (sku, location, pieces) {
        (Ok(sku), Ok(location), Ok(pieces)) => {
            Ok(Row { record: line, line, item: Item { sku, location }, pieces })
        }
        (Ok(sku), Ok(location), Err(what)) => {
            let item = Some(Item { sku, location });
            Err(vec![Refused { item, ..fault(&columns.available_name, what) }])
        }
        (sku, location, pieces) => {
            let columns = [
                sku.err().map(|what| fault("sku", what)),
                location.err().map(|what| fault("location", what)),
                pieces.err().map(|what| fault(&columns.available_name, what)),
            ];
            Err(columns.into_iter().flatten().collect())
        }
    }
}

/// A JSON string's text.
fn string(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|_| "must be a string".to_owned())
}
