//! What the flags are given by others than the command line: the environment, as containers have it, and the settings
//! file, whose values become the defaults of the flags, so that flags and environment stay stronger.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// The environment variable that names the file when no flag does.
const FILE_VARIABLE: &str = "STOCK_VERIFIER_CONFIG";
/// The variable that other tools name their database with, read when the verifier's own is not set.
const PLAIN_DATABASE_VARIABLE: &str = "DATABASE_URL";

/// Lays the settings file, where one is named, under the command's flags, and makes them read the environment as it is
/// meant.
///
/// # Errors
/// When the file cannot be read, is no TOML, or names a setting that does not exist.
pub fn with_defaults(command: Command, arguments: impl Iterator<Item = OsString>) -> Result<Command> {
    let command = with_plain_database_url(each_command(command, &with_switches));
    let file = named_file(arguments);
    let command = match &file {
        None => command,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the settings file {}", file.display()))?;
            let settings: Table = text.parse().map_err(|error| not_toml(file, &text, &error))?;
            lay_under(command, &settings)
                .with_context(|| format!("in the settings file {}", file.display()))?
        }
    };
    Ok(each_command(command, &with_environment))
}

/// Lets each switch be said in the words that people have for it: 1 and 0, yes and no, on and off.
fn with_switches(command: Command) -> Command {
    command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
        _ => argument,
    })
}

/// Reads variables as those mean who write them: an empty one is not set, and the end of a line is no part of a value.
/// clap would take both as they are.
fn with_environment(command: Command) -> Command {
    command.mut_args(|argument| {
        let Some(raw) = argument.get_env().and_then(std::env::var_os) else { return argument };
        let lines = argument.get_value_delimiter() == Some('\n');
        let Some(values) = values_of(&raw, lines) else { return argument };
        if values.is_empty() {
            return argument.env(Resettable::Reset);
        }
        if raw.to_str() == Some(&*values.join("\n")) {
            return argument;
        }
        // As the settings file's, but after it.
        argument.env(Resettable::Reset).required(false).default_values(values)
    })
}

/// What a variable says: one value, or one a line. `None` where it is not even text, which clap refuses.
fn values_of(raw: &OsStr, lines: bool) -> Option<Vec<String>> {
    let text = raw.to_str()?;
    let values = if lines { text.lines().collect() } else { vec![text] };
    Some(values.into_iter().map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect())
}

/// A variable that is no flag's own, read in the same way.
fn variable(name: &str) -> Option<OsString> {
    let raw = std::env::var_os(name)?;
    match values_of(&raw, false) {
        Some(mut values) => values.pop().map(OsString::from),
        None => Some(raw),
    }
}

/// Says where the file is wrong, and not what stands there, as the parser's own text does: it may be a password.
fn not_toml(file: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    anyhow::anyhow!("the settings file {} is not TOML: line {line}: {}", file.display(), error.message())
}

fn with_plain_database_url(command: Command) -> Command {
    let own = "STOCK_VERIFIER_DATABASE_URL";
    if variable(own).is_some() || variable(PLAIN_DATABASE_VARIABLE).is_none() {
        return command;
    }
    each_command(command, &|command| {
        if argument(&command, "database-url").is_some() {
            command.mut_arg("database_url", |argument| argument.env(PLAIN_DATABASE_VARIABLE))
        } else {
            command
        }
    })
}

/// `--config FILE`, `--config=FILE`, else the environment's.
fn named_file(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else { continue };
        if text == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(file) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(file));
        }
    }
    variable(FILE_VARIABLE).map(PathBuf::from)
}

fn lay_under(mut command: Command, settings: &Table) -> Result<Command> {
    for (name, value) in settings {
        let name = name.replace('_', "-");
        let values = match value {
            // Properties, the one setting with names of its own: [property] "linger.ms" = 5
            Value::Table(table) => table
                .iter()
                .map(|(key, value)| Ok(format!("{key}={}", scalar(key, value)?)))
                .collect::<Result<Vec<_>>>()?,
            Value::Array(items) => {
                items.iter().map(|item| scalar(&name, item)).collect::<Result<Vec<_>>>()?
            }
            single => vec![scalar(&name, single)?],
        };
        // As a variable: what is empty is not set, as where a template had nothing to fill in.
        let values: Vec<String> = values
            .iter()
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect();
        if !knows(&command, &name) {
            bail!("{name} is not a setting; settings have the names of the flags (see --help)");
        }
        if values.is_empty() {
            continue;
        }
        command = each_command(command, &|command| {
            let Some(id) = argument(&command, &name).map(|argument| argument.get_id().to_string()) else {
                return command;
            };
            let values = values.clone();
            // What the file says is there: it need not be given.
            command.mut_arg(id, move |argument| argument.required(false).default_values(values))
        });
    }
    Ok(command)
}

fn scalar(name: &str, value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Float(number) => number.to_string(),
        other => bail!("{name} is a {}, expected a text, a number, or true or false", other.type_str()),
    })
}

fn argument<'c>(command: &'c Command, long: &str) -> Option<&'c Arg> {
    command.get_arguments().find(|argument| argument.get_long() == Some(long))
}

fn knows(command: &Command, long: &str) -> bool {
    argument(command, long).is_some() || command.get_subcommands().any(|inner| knows(inner, long))
}

fn each_command(command: Command, change: &dyn Fn(Command) -> Command) -> Command {
    change(command).mut_subcommands(|inner| each_command(inner, change))
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        Command::new("t").subcommand(
            Command::new("run")
                .arg(Arg::new("group").long("group").default_value("built-in"))
                .arg(Arg::new("property").long("property").short('X').action(ArgAction::Append)),
        )
    }

    fn group(settings: &str, arguments: &[&str]) -> String {
        let command = lay_under(command(), &settings.parse().unwrap()).unwrap();
        let matches = command.get_matches_from(arguments);
        matches.subcommand().unwrap().1.get_one::<String>("group").unwrap().clone()
    }

    #[test]
    fn the_file_is_stronger_than_the_built_in_default_and_weaker_than_a_flag() {
        assert_eq!(group("", &["t", "run"]), "built-in");
        assert_eq!(group("group = 'file'", &["t", "run"]), "file");
        assert_eq!(group("group = 'file'", &["t", "run", "--group", "flag"]), "flag");
    }

    #[test]
    fn a_value_is_read_without_what_surrounds_it_and_an_empty_one_is_not_set() {
        assert_eq!(group("group = ' file '", &["t", "run"]), "file");
        assert_eq!(group("group = ''", &["t", "run"]), "built-in");
        let one = |text: &str| values_of(OsStr::new(text), false).unwrap();
        assert_eq!(one("kafka:9092\r\n"), ["kafka:9092"]);
        assert_eq!(one(" \n"), [""; 0]);
        let lines = values_of(OsStr::new("linger.ms=1\r\n\n  acks=all\n"), true).unwrap();
        assert_eq!(lines, ["linger.ms=1", "acks=all"]);
    }

    #[test]
    fn properties_are_a_table() {
        let settings = "[property]\n\"linger.ms\" = 5\nacks = 'all'".parse().unwrap();
        let matches = lay_under(command(), &settings).unwrap().get_matches_from(["t", "run"]);
        let run = matches.subcommand().unwrap().1;
        let mut properties: Vec<_> = run.get_many::<String>("property").unwrap().collect();
        properties.sort();
        assert_eq!(properties, ["acks=all", "linger.ms=5"]);
    }

    #[test]
    fn a_setting_that_does_not_exist_is_named() {
        let error = lay_under(command(), &"grup = 'x'".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("grup"), "{error}");
    }

    #[test]
    fn the_file_is_named_by_a_flag() {
        let arguments = |texts: &[&str]| texts.iter().map(OsString::from).collect::<Vec<_>>().into_iter();
        assert_eq!(named_file(arguments(&["t", "run", "--config", "a.toml"])), Some("a.toml".into()));
        assert_eq!(named_file(arguments(&["t", "--config=b.toml", "run"])), Some("b.toml".into()));
    }
}
