//! Reads what the levels topic says: the other half of [`level`](super::level).

use serde::Deserialize;

use super::Record;
use super::outgoing::KEY_SEPARATOR;
use crate::ledger::{Item, Location, Sku};

/// What a record of the levels topic says of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PublishedLevel {
    /// Pieces that can be taken; below zero, the pieces promised beyond what was there.
    pub available: i64,
    /// How many movements made it.
    pub version: i64,
}

/// The item that a record of the levels topic is about, by its key; `None` where it is none of ours.
#[must_use]
pub fn level_item(key: &[u8]) -> Option<Item> {
    let text = str::from_utf8(key).ok()?;
    let (sku, location) = match text.split_once(char::from(KEY_SEPARATOR)) {
        Some((sku, location)) => (sku, Some(Location::new(location).ok()?)),
        None => (text, None),
    };
    Some(Item { sku: Sku::new(sku).ok()?, location })
}

/// What a record of the levels topic says; `None` where it is no level.
#[must_use]
pub fn read_level(record: &Record) -> Option<(Item, PublishedLevel)> {
    let item = level_item(record.key.as_deref()?)?;
    Some((item, serde_json::from_slice(record.value.as_deref()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::level;
    use crate::ledger::{Level, Offset, Source, TopicPartition};

    fn record(key: &[u8], value: &[u8]) -> Record {
        let source = Source { at: TopicPartition::new("stock.levels", 0), offset: Offset(0) };
        Record {
            source,
            key: Some(key.to_vec()),
            value: Some(value.to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
            decoded: None,
        }
    }

    #[test]
    fn what_is_published_is_read_as_it_was() {
        for location in [None, Some(Location::new("BERLIN").unwrap())] {
            let item = Item { sku: Sku::new("T\"SHIRT").unwrap(), location };
            let published = level(&item, &Level { available: -3, version: 7, ..Level::default() });
            let read = read_level(&record(&published.key.unwrap(), &published.value.unwrap()));
            assert_eq!(read, Some((item, PublishedLevel { available: -3, version: 7 })));
        }
    }

    #[test]
    fn what_is_no_level_is_none() {
        for (key, value) in [
            (&b""[..], &br#"{"available":1,"version":1}"#[..]),
            (b"\xff", br#"{"available":1,"version":1}"#),
            (b"MUG", br#"{"available":1}"#),
            (b"MUG", b"level"),
        ] {
            assert_eq!(read_level(&record(key, value)), None, "{}", String::from_utf8_lossy(value));
        }
    }
}
