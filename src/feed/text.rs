//! A file's bytes as text, and where its lines are.

use std::borrow::Cow;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use encoding_rs::{DecoderResult, UTF_8};

/// How bytes make text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(&'static encoding_rs::Encoding);

impl FromStr for Encoding {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        encoding_rs::Encoding::for_label_no_replacement(name.as_bytes()).map(Self).ok_or_else(|| {
            "is not known; known are the names that browsers know, such as UTF-8, windows-1252, ISO-8859-15, UTF-16LE, \
             Shift_JIS"
                .to_owned()
        })
    }
}

/// A file's text as UTF-8, without its byte order mark. Not checked where the file is said to be UTF-8: then a field that
/// is not is named with its line.
///
/// # Errors
/// When the byte order mark contradicts the encoding, or the bytes are no text in it.
pub(super) fn decode(content: &[u8], said: Option<Encoding>) -> Result<Cow<'_, [u8]>> {
    let said = said.map(|Encoding(encoding)| encoding);
    let (encoding, content) = match (encoding_rs::Encoding::for_bom(content), said) {
        (Some((marked, _)), Some(said)) if marked != said => bail!(
            "the file begins with a byte order mark of {}, and --encoding says {}: leave --encoding out",
            marked.name(),
            said.name()
        ),
        (Some((marked, length)), _) => (marked, &content[length..]),
        (None, said) => (said.unwrap_or(UTF_8), content),
    };
    if encoding == UTF_8 {
        return Ok(Cow::Borrowed(content));
    }
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length_without_replacement(content.len());
    // Holds because a file's length is far below what three times of it would overflow.
    let mut text = String::with_capacity(room.expect("a file is shorter than memory"));
    let (result, _) = decoder.decode_to_string_without_replacement(content, &mut text, true);
    if let DecoderResult::Malformed(..) = result {
        let line = Lines::new(text.as_bytes()).of(text.len() as u64);
        bail!("line {line}: is not {}", encoding.name());
    }
    ensure!(result == DecoderResult::InputEmpty, "the file is too large to be decoded");
    Ok(Cow::Owned(text.into_bytes()))
}

/// Counts lines as editors do, where a line ends with LF, CR LF or CR: the parser takes all three and counts LF alone.
pub(super) struct Lines<'a> {
    content: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    /// Of a text, from its beginning.
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self { content, at: 0, line: 1 }
    }

    /// The line of the record that begins at this byte, or after empty lines from there on. Records come in order.
    pub(super) fn of(&mut self, byte: u64) -> u64 {
        while let Some(letter) = self.content.get(self.at) {
            let ends = *letter == b'\n' || *letter == b'\r' && self.content.get(self.at + 1) != Some(&b'\n');
            if self.at as u64 >= byte && !matches!(letter, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(ends);
            self.at += 1;
        }
        self.line
    }
}
