//! Which functions a mapping has: those of jq, but for what makes it depend on more than the record.

use jaq_core::load::parse::Def;
use jaq_core::native::{Fun, bome, run, v};
use jaq_json::{Error, Val, ValR};

use super::value;
use super::watch::JqData;

/// What a program may have heard of, and does not find here: each depends on a clock, the machine or other records, writes
/// somewhere, or ends the process.
const LEFT_OUT: [&str; 18] = [
    "now",
    "localtime",
    "strflocaltime",
    "env",
    "$ENV",
    "input",
    "inputs",
    "input_filename",
    "input_line_number",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "halt",
    "halt_error",
    "get_search_list",
    "$__prog_args",
    "$__loc__",
];

/// jaq's own `range` counts in one step that nothing can break off, so it is defined by steps that can.
const RANGE: &str = "
    def range($from; $to; $by):
      def up: if . < $to then ., (. + $by | up) else {}[] as $x | . end;
      def down: if . > $to then ., (. + $by | down) else {}[] as $x | . end;
      def on: if . != $to then ., (. + $by | on) else {}[] as $x | . end;
      $from | if $by > 0 then up elif $by < 0 then down else on end;
";

/// What jaq has in Rust and is defined here in another way: [`RANGE`], and [`from_json`].
const REPLACED: [&str; 2] = ["range", "fromjson"];

/// What jq has and jaq has not.
const MORE: &str = "
    def IN(values): . as $one | any(values; . == $one);
    def IN(source; values): any(source; IN(values));
";

/// Whether a name is left out on purpose.
pub(super) fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name)
}

/// Functions that are written in jq.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    // Holds for texts that never change; the tests compile programs with them.
    let own =
        |text: &'static str| jaq_core::load::parse(text, |parser| parser.defs()).expect("definitions of jq");
    let library = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let library = library.filter(|definition| !is_left_out(definition.name));
    own(RANGE).into_iter().chain(library).chain(own(MORE))
}

/// Functions that are written in Rust.
pub(super) fn natives() -> impl Iterator<Item = Fun<JqData>> {
    let library = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let library = library.filter(|(name, _, _)| !is_left_out(name) && !REPLACED.contains(name));
    library.chain([run::<JqData>(("fromjson", v(0), |(_, text)| bome(from_json(&text))))])
}

/// The value of a text, which is read as a record's value is: jaq reads by recursion, so a text of brackets alone would end
/// the process.
fn from_json(text: &Val) -> ValR {
    let Val::TStr(bytes) = text else { return Err(Error::typ(text.clone(), "string")) };
    // The text last: it may be long, and messages are cut.
    value::read_text(bytes).map_err(|why| Error::str(format_args!("fromjson: {why}: {text}")))
}
