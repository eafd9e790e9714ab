//! What is printed: results on standard output, words to a person on standard error.
//!
//! Nothing else in this crate prints. `println!` panics when its reader is gone, as in `stock get | head -2`; here that
//! is no failure: whoever reads has seen enough, and the command ends with the status that it has anyway. A process that
//! SIGPIPE ends would be simpler, and would also end at a lost connection to Kafka or the database.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

use anyhow::{Context as _, Result};

/// Prints a text, which ends its lines by itself.
///
/// # Errors
/// When it cannot be written, to a disk that is full say. Not when nobody reads it any more.
pub fn print(text: &str) -> Result<()> {
    ended(write(&mut io::stdout().lock(), text)).context("cannot write to standard output")
}

/// The same for who goes on printing: whether somebody still reads it.
///
/// # Errors
/// As [`print()`].
pub fn print_on(text: &str) -> Result<bool> {
    let written = write(&mut io::stdout().lock(), text);
    let is_read = !matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe);
    ended(written).context("cannot write to standard output")?;
    Ok(is_read)
}

/// Whether colours and the like may be written to standard error: to a terminal, unless `NO_COLOR` is there and not empty
/// (<https://no-color.org>).
#[must_use]
pub fn may_colour_what_is_said() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something to a person, in a line of its own beside what is printed. It is no failure that nobody hears it.
pub fn say(line: &str) {
    let _ = write(&mut io::stderr().lock(), &format!("{line}\n"));
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A reader that is gone is no failure.
fn ended(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_gone_is_no_failure_and_a_full_disk_is_one() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let written = write(&mut writer, "text");
        assert_eq!(written.as_ref().unwrap_err().kind(), ErrorKind::BrokenPipe);
        ended(written).unwrap();
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        ended(write(&mut full, "text")).unwrap_err();
    }
}
