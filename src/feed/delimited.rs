//! Text with columns: CSV, and the same with tabs, semicolons or bars between them.

use anyhow::{Context as _, Result};

use super::columns::Columns;
use super::text::Lines;
use super::{Feed, FeedSettings, Refused, Row, number};
use crate::ledger::{Item, Location, Sku};

/// What may stand between two columns; the first that makes a header of the first line does.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// The record that comes after the header.
const FIRST_ROW: u64 = 2;

pub(super) fn read(content: &[u8], settings: &FeedSettings) -> Result<Feed> {
    let (delimiter, columns) = look(content, settings)?;
    let mut lines = Lines::new(content);
    let mut reader = reader(content, delimiter);
    let mut feed = Feed::default();
    for (read, record) in reader.byte_records().zip(FIRST_ROW..) {
        let read = read.context("the file cannot be read as CSV")?;
        let line = lines.of(read.position().map_or(0, csv::Position::byte));
        match read_row(&read, record, line, &columns, settings) {
            Ok(row) => feed.rows.push(row),
            Err(found) => feed.refused.extend(found),
        }
    }
    Ok(feed)
}

fn reader(content: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).delimiter(delimiter).from_reader(content)
}

/// What stands between the columns, and where they are.
fn look(content: &[u8], settings: &FeedSettings) -> Result<(u8, Columns)> {
    let header = |delimiter| -> Result<Vec<String>> {
        let mut reader = reader(content, delimiter);
        let header = reader.byte_headers().context("the header cannot be read")?;
        Ok(header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    };
    if let Some(delimiter) = settings.delimiter {
        return Ok((delimiter, Columns::find(&header(delimiter)?, settings)?));
    }
    let mut most: Option<Vec<String>> = None;
    for delimiter in DELIMITERS {
        let header = header(delimiter)?;
        if let Ok(columns) = Columns::find(&header, settings) {
            return Ok((delimiter, columns));
        }
        if most.as_ref().is_none_or(|most| header.len() > most.len()) {
            most = Some(header);
        }
    }
    // Of those that do not fit, what looks most like one says why.
    Columns::find(&most.unwrap_or_default(), settings).map(|columns| (DELIMITERS[0], columns))
}

fn read_row(
    read: &csv::ByteRecord,
    record: u64,
    line: u64,
    columns: &Columns,
    settings: &FeedSettings,
) -> Result<Row, Vec<Refused>> {
    if read.len() != columns.count {
        let what = format!("has {} columns, {} are needed", read.len(), columns.count);
        return Err(vec![Refused { line, column: None, what }]);
    }
    let fault = |column: &str, what: String| Refused { line, column: Some(column.to_owned()), what };
    let text = |column: &str, index: usize| {
        let text = std::str::from_utf8(&read[index])
            .map_err(|_| fault(column, "is not UTF-8: --encoding says what it is (windows-1252)".to_owned()));
        // The parser has trimmed what ASCII has of white space; spreadsheets and web pages leave other.
        text.map(str::trim)
    };
    let sku = text("sku", columns.sku)
        .and_then(|text| Sku::new(text).map_err(|error| fault("sku", error.to_string())));
    let location = columns.location.map(|index| text("location", index)).and_then(|read| match read {
        Ok("") => None,
        read => Some(
            read.and_then(|text| Location::new(text).map_err(|error| fault("location", error.to_string()))),
        ),
    });
    let written = String::from_utf8_lossy(&read[columns.available]);
    let pieces = number::pieces(written.trim(), settings.thousands, &settings.pieces)
        .map_err(|what| fault(&columns.available_name, what));
    match (sku, location.transpose(), pieces) {
        (Ok(sku), Ok(location), Ok(pieces)) => Ok(Row { record, line, item: Item { sku, location }, pieces }),
        (sku, location, pieces) => {
            Err([sku.err(), location.err(), pieces.err()].into_iter().flatten().collect())
        }
    }
}
