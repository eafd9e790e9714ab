//! Text with columns: CSV, and the same with tabs, semicolons or bars between them.
//!
//! The parser takes any text: what stands between a closing quote and the next delimiter is part of the column, and a quote
//! that nobody closes takes in the lines below it. So a row with quotes is looked at as it is written, too.

use anyhow::{Context as _, Result, bail};

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
    let mut read = csv::ByteRecord::new();
    let mut record = FIRST_ROW;
    while reader.read_byte_record(&mut read).context("the file cannot be read as CSV")? {
        let start = read.position().map_or(0, csv::Position::byte);
        let line = lines.of(start);
        let written = between(content, start, reader.position().byte());
        match open_quote(written, line, delimiter) {
            Some(refused) => feed.refused.push(refused),
            None => match read_row(&read, record, line, delimiter, &columns, settings) {
                Ok(row) => feed.rows.push(row),
                Err(found) => feed.refused.extend(found),
            },
        }
        record += 1;
    }
    Ok(feed)
}

fn reader(content: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).delimiter(delimiter).from_reader(content)
}

/// The bytes of a file from here to there.
fn between(content: &[u8], start: u64, end: u64) -> &[u8] {
    let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
    content.get(at(start)..at(end)).unwrap_or_default()
}

/// The names in a header, and what is wrong with its quotes.
type Header = (Vec<String>, Option<Refused>);

fn header(content: &[u8], delimiter: u8) -> Result<Header> {
    let mut reader = reader(content, delimiter);
    let names = reader.byte_headers().context("the header cannot be read")?;
    let names = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let written = between(content, 0, reader.position().byte());
    Ok((names, open_quote(written, Lines::new(content).of(0), delimiter)))
}

/// What stands between the columns, and where they are.
fn look(content: &[u8], settings: &FeedSettings) -> Result<(u8, Columns)> {
    let columns = |(names, fault): &Header| match fault {
        Some(fault) => bail!("{fault}"),
        None => Columns::find(names, settings),
    };
    if let Some(delimiter) = settings.delimiter {
        return Ok((delimiter, columns(&header(content, delimiter)?)?));
    }
    let mut most: Option<Header> = None;
    for delimiter in DELIMITERS {
        let header = header(content, delimiter)?;
        if let Ok(columns) = columns(&header) {
            return Ok((delimiter, columns));
        }
        if most.as_ref().is_none_or(|(most, _)| header.0.len() > most.len()) {
            most = Some(header);
        }
    }
    // Of those that do not fit, what looks most like one says why.
    columns(&most.unwrap_or_default()).map(|columns| (DELIMITERS[0], columns))
}

/// What is wrong with a row, written so, in which a quote opens a column and none closes it where the column ends.
fn open_quote(written: &[u8], line: u64, delimiter: u8) -> Option<Refused> {
    if closes_its_quotes(written, delimiter) {
        return None;
    }
    let what = "a quote that opens a column is not closed before the next delimiter";
    let row = without_line_ends(written);
    let last = line + Lines::new(row).of(row.len() as u64) - 1;
    Some(Refused::new(
        line,
        None,
        if last > line {
            format!("lines {line} to {last} were read as one row: {what}")
        } else {
            what.to_owned()
        },
    ))
}

/// Whether each column that begins with a quote ends with one: what the parser takes besides, it takes as it comes, line ends
/// and all. Goes through a row as the parser does, which ends it where this does.
fn closes_its_quotes(written: &[u8], delimiter: u8) -> bool {
    // Of most rows that is all.
    if !written.contains(&b'"') {
        return true;
    }
    let mut rest = without_line_ends(written);
    loop {
        rest = match rest {
            [b'"', quoted @ ..] => match after_closing_quote(quoted) {
                Some(after) => after_blanks(after, delimiter),
                None => return false,
            },
            // A quote within such a column is a letter like any other.
            plain => {
                &plain[plain.iter().position(|byte| ends_column(*byte, delimiter)).unwrap_or(plain.len())..]
            }
        };
        rest = match rest {
            [mark, next @ ..] if *mark == delimiter => next,
            [mark, ..] => return is_line_end(*mark),
            [] => return true,
        };
    }
}

/// What comes after the quote that closes a column; two of them are one that is part of it.
fn after_closing_quote(mut quoted: &[u8]) -> Option<&[u8]> {
    loop {
        let quote = quoted.iter().position(|byte| *byte == b'"')?;
        match &quoted[quote + 1..] {
            [b'"', more @ ..] => quoted = more,
            after => return Some(after),
        }
    }
}

/// What comes after the blanks that the parser trims.
fn after_blanks(text: &[u8], delimiter: u8) -> &[u8] {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\x0b' | b'\x0c') && byte != delimiter;
    &text[text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len())..]
}

fn ends_column(byte: u8, delimiter: u8) -> bool {
    byte == delimiter || is_line_end(byte)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// A row without the empty lines before it, and without the end of its own.
fn without_line_ends(written: &[u8]) -> &[u8] {
    let start = written.iter().position(|byte| !is_line_end(*byte)).unwrap_or(written.len());
    let end = written.iter().rposition(|byte| !is_line_end(*byte)).map_or(start, |last| last + 1);
    &written[start..end]
}

fn read_row(
    read: &csv::ByteRecord,
    record: u64,
    line: u64,
    delimiter: u8,
    columns: &Columns,
    settings: &FeedSettings,
) -> Result<Row, Vec<Refused>> {
    if read.len() != columns.count {
        let what = format!("has {} columns, {} are needed", read.len(), columns.count);
        return Err(vec![Refused::new(line, None, what)]);
    }
    let fault = |column: &str, what: String| Refused::new(line, Some(column), what);
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
    let pieces = if delimiter == b';' && settings.thousands.is_none() {
        number::pieces_beside_semicolons(written.trim(), &settings.pieces)
    } else {
        number::pieces(written.trim(), settings.thousands, &settings.pieces)
    };
    let pieces = pieces.map_err(|what| fault(&columns.available_name, what));
    match (sku, location.transpose(), pieces) {
        (Ok(sku), Ok(location), Ok(pieces)) => Ok(Row { record, line, item: Item { sku, location }, pieces }),
        (Ok(sku), Ok(location), Err(refused)) => {
            Err(vec![Refused { item: Some(Item { sku, location }), ..refused }])
        }
        (sku, location, pieces) => {
            Err([sku.err(), location.err(), pieces.err()].into_iter().flatten().collect())
        }
    }
}
