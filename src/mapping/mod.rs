//! Mappings: jq programs that make commands of what shops really send.
//!
//! A program is given one record's value, unwrapped, and `$headers`, `$key`, `$topic`, `$timestamp`, `$type` and
//! `$aggregateid`. It gives one command of the contract; or nothing, and the record asks for nothing; or `error("…")`, and
//! the record is a dead letter that says so. Pure: what it gives follows from the record alone, so the past can be read
//! again. There is no clock, environment, input or output (`functions`); numbers keep their digits, and of two fields of one
//! name none is taken (`value`); and what a program may take is bounded (`watch`).
//!
//! The programs are jq as `jaq` has it. A program is its operator's own: it is trusted not to ask for a text of ten
//! gigabytes (`"x" * 10000000000`) or for a number of as many digits, which nothing here prevents. Nor to nest a value in
//! itself tens of thousands of times and then drop it, compare it or print it: jaq does so by recursion, which ends the
//! process. Only what a program gives is let go of in another way, so such a value may be its output.

mod functions;
mod presets;
mod programs;
mod value;
mod watch;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use jaq_core::compile::Undefined;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, unwrap_valr};
use jaq_json::{Val, ValR};

pub use presets::{NoPreset, PRESETS, Preset, preset};
pub use programs::{Mappings, Programs};
use watch::{Broken, JqData, Watch};

/// Longest text of a program, in bytes: each is kept in the ledger. The longest preset has a twentieth.
pub const MAX_PROGRAM_BYTES: usize = 131_072;
/// Longest a program may take for one record. A good one takes microseconds.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What the program is given besides the value, in this order.
const VARIABLES: [&str; 6] = ["$headers", "$key", "$topic", "$timestamp", "$type", "$aggregateid"];

/// A program, compiled.
pub struct Mapping {
    name: String,
    text: String,
    filter: jaq_core::Filter<JqData>,
}

/// The text alone: what is compiled follows from it.
impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("name", &self.name).field("text", &self.text).finish_non_exhaustive()
    }
}

/// Why a program was not compiled, and where it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}:{column}: {why}")]
pub struct NotCompiled {
    /// What the program was called.
    pub name: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub why: String,
}

/// What a program is given of a record besides its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Names and values; of two of one name the last counts.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Its topic.
    pub topic: &'a str,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The type that its envelope gives it.
    pub kind: Option<&'a str>,
    /// What it is about as a row of an outbox, whose column is called so; empty where that does not say.
    pub aggregate_id: Option<&'a str>,
}

/// What a program makes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// One value, as JSON.
    Value(String),
    /// Nothing.
    Nothing,
}

/// Why a program made nothing of a record, and not on purpose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The value is no JSON, or more than is read.
    #[error("{0}")]
    NotJson(String),
    /// Two fields of one object have this name.
    #[error("\"{0}\" comes more than once")]
    Repeated(String),
    /// The record, or what the program does with it, is at fault: it would be so again.
    #[error("{0}")]
    Failed(String),
    /// It was not done after [`TIME_LIMIT`]. On a faster machine it may be.
    #[error("its mapping takes longer than {TIME_LIMIT:?}")]
    TooSlow,
}

impl Mapping {
    /// Compiles a program. The name is for messages: its file's, or its preset's.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn compile(name: &str, text: &str) -> Result<Self, NotCompiled> {
        let wrong = |found: &str, why: String| {
            let (line, column) = position(text, found);
            NotCompiled { name: name.to_owned(), line, column, why }
        };
        if text.len() > MAX_PROGRAM_BYTES {
            let why = format!("the program has {} bytes, more than {MAX_PROGRAM_BYTES}", text.len());
            return Err(wrong(text, why));
        }
        let arena = Arena::default();
        let loader = Loader::new(functions::definitions());
        let modules = loader.load(&arena, File { code: text, path: () }).map_err(|errors| {
            let (found, why) =
                errors.into_iter().find_map(|(_, error)| load_error(error)).unwrap_or((text, String::new()));
            wrong(found, why)
        })?;
        let compiler = Compiler::default().with_funs(functions::natives()).with_global_vars(VARIABLES);
        let filter = compiler.compile(modules).map_err(|errors| {
            let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
            first.map_or_else(
                || wrong(text, String::new()),
                |(found, what)| wrong(found, undefined(found, &what)),
            )
        })?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), filter })
    }

    /// What it was called when it was compiled.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text: compiled again, it is the same program.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the program makes of a JSON text.
    ///
    /// # Errors
    /// [`MapError`] when it makes no one value of it, and not nothing.
    pub fn run(&self, json: &str, facts: &Facts<'_>) -> Result<Mapped, MapError> {
        self.run_for(value::read(json)?, facts, TIME_LIMIT)
    }

    fn run_for(&self, input: Val, facts: &Facts<'_>, limit: Duration) -> Result<Mapped, MapError> {
        let watch = Watch::new(&self.filter.lut, limit);
        // Nothing that is seen afterwards can be half done: all that the program changes is its own.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let context = Ctx::<JqData>::new(&watch, Vars::new(variables(facts)));
            let mut outputs = self.filter.id.run((context, input)).map(unwrap_valr);
            let Some(first) = outputs.next() else { return Ok(Mapped::Nothing) };
            let second = if first.is_ok() { outputs.next() } else { None };
            // Before what it gave: whoever has that last lets go of it.
            drop(outputs);
            made_of(first, second)
        }));
        ran.unwrap_or_else(|broken| match broken.downcast_ref() {
            Some(Broken::TooSlow) => Err(MapError::TooSlow),
            Some(Broken::TooDeep) => Err(MapError::Failed("the mapping calls itself too deeply".to_owned())),
            // The panic's own text is in the log.
            None => Err(MapError::Failed("the mapping cannot be run on this value: jq broke off".to_owned())),
        })
    }
}

/// What a program's first output comes to, which is to be its only one.
fn made_of(first: ValR, second: Option<ValR>) -> Result<Mapped, MapError> {
    let first = first.map_err(|error| MapError::Failed(error_text(error)))?;
    let why = match second {
        None => match value::write(&first) {
            // Then it is not nested deeply.
            Ok(text) => return Ok(Mapped::Value(text)),
            Err(why) => why,
        },
        Some(Ok(second)) => {
            value::dismantle(second);
            "the mapping gives more than one value".to_owned()
        }
        Some(Err(error)) => error_text(error),
    };
    value::dismantle(first);
    Err(MapError::Failed(why))
}

/// What `error(…)` said, or what jq says of a failure of its own.
fn error_text(error: jaq_core::Error<Val>) -> String {
    let said = error.into_val();
    let text = value::plain(&said);
    value::dismantle(said);
    text
}

/// The values of [`VARIABLES`].
fn variables(facts: &Facts<'_>) -> [Val; VARIABLES.len()] {
    let text = |text: &str| Val::utf8_str(text.to_owned());
    let headers = facts.headers.iter().map(|(name, value)| (text(name), value::bytes(*value)));
    [
        Val::obj(headers.collect()),
        value::bytes(facts.key),
        text(facts.topic),
        // Holds on every machine that Kafka's offsets fit on; elsewhere it is not known.
        facts.timestamp_ms.and_then(|ms| isize::try_from(ms).ok()).map_or(Val::Null, Val::from),
        facts.kind.map_or(Val::Null, text),
        facts.aggregate_id.map_or(Val::Null, text),
    ]
}

/// Line and column of a piece of a text, from 1; those of its beginning, where it is none.
fn position(text: &str, piece: &str) -> (usize, usize) {
    let offset = (piece.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The first error of loading: where, and what.
fn load_error(error: load::Error<&str>) -> Option<(&str, String)> {
    match error {
        load::Error::Io(errors) => errors
            .into_iter()
            .next()
            .map(|(path, _)| (path, "a mapping is one text: it imports nothing".to_owned())),
        load::Error::Lex(errors) => errors.into_iter().next().map(|(expected, found)| match expected {
            load::lex::Expect::Delim(open) => (open, format!("{open} is not closed")),
            expected => (found, format!("expected {}, found {}", expected.as_str(), start_of(found))),
        }),
        load::Error::Parse(errors) => errors.into_iter().next().map(|(expected, found)| {
            (found, format!("expected {}, found {}", expected.as_str(), start_of(found)))
        }),
    }
}

/// As much of the rest of a program as shows where it is wrong.
fn start_of(rest: &str) -> String {
    let word: String = rest.chars().take(20).take_while(|letter| !letter.is_whitespace()).collect();
    if word.is_empty() { "the end of the program".to_owned() } else { format!("{word:?}") }
}

/// What is not there, with the reason where it is left out on purpose.
fn undefined(name: &str, what: &Undefined) -> String {
    let why = if functions::is_left_out(name) {
        ": a mapping has no clock, environment, input or output, so that it reads a record alike at all times"
    } else {
        ""
    };
    format!("undefined {} {name}{why}", what.as_str())
}

#[cfg(test)]
mod tests;
