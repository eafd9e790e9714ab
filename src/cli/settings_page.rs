//! `stock-verifier settings`: the page of all settings, made from the flags of all commands; printed, written or checked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::console;

/// Print all settings as one page of Markdown: flag, environment variable, key of the settings file, default, meaning.
#[derive(Debug, Clone, clap::Args)]
pub struct SettingsArgs {
    /// Write the page to this file
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    write: Option<PathBuf>,
    /// Compare this file with what would be written, and fail if it differs
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Does what the arguments say.
///
/// # Errors
/// When a file cannot be read or written, or `--check` finds that it differs.
pub fn run(args: &SettingsArgs) -> anyhow::Result<()> {
    // The bare flags: neither a settings file nor the environment gets into the page.
    let page = page(&super::Cli::command());
    if let Some(file) = &args.write {
        return fs::write(file, page).with_context(|| format!("writing {}", file.display()));
    }
    if let Some(file) = &args.check {
        return check(file, &page);
    }
    console::print(&page)
}

fn check(file: &Path, page: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    if text == page {
        return Ok(());
    }
    let file = file.display();
    bail!(
        "{file} is not made from this program's flags; `stock-verifier settings --write {file}` makes it anew"
    )
}

/// Defaults that depend on the machine: the page says where they come from instead.
const COMPUTED_DEFAULTS: [(&str, &str); 1] = [("instance-id", "the host's name")];

/// Words in a flag's name by which its value is or holds a secret: its default is never shown.
const SECRET_WORDS: [&str; 5] = ["password", "secret", "token", "url", "property"];

/// Flags that name the settings file itself and so cannot be in it.
const NOT_IN_THE_FILE: [&str; 1] = ["config"];

const INTRODUCTION: &str = "\
# Configuration

This page is made from the program's flags: `stock-verifier settings --write docs/configuration.md`. Do not edit it.

Every flag has the same name in the settings file. What a deployment sets has an environment variable too. The order of
strength:

1. the flag on the command line;
2. the environment variable;
3. the key in the settings file, which `--config FILE` or `STOCK_VERIFIER_CONFIG` names;
4. the default.

The settings file is TOML. A key is the flag's name without the two dashes; `_` may stand for `-`. A key that no command
has is an error. A key counts for every command that has a flag of this name. So do not put flags there that you want to
give only once, such as `execute`.

```toml
brokers = \"kafka-1:9092,kafka-2:9092\"
database-url = \"postgres://stock@db/stock\"
database-password-file = \"/run/secrets/database\"
batch-max-age = \"10ms\"
migrate = true

[property] # any librdkafka property
\"security.protocol\" = \"SASL_SSL\"
\"sasl.mechanism\" = \"SCRAM-SHA-512\"
```

How values are written:

* TIME: a number and its unit: `500ms`, `10s`, `2m`.
* SIZE: bytes, or a number and its unit: `65536`, `64KiB`, `4MiB`.
* A flag without a value is `on` when it is given. In the environment and the file it is `true` or `false`; `yes` and
  `no`, `on` and `off`, `1` and `0` mean the same.
* A flag that may be given many times is a list in the file.
* In the environment and the file, spaces and line ends around a value are no part of it, and an empty value is not set.

Passwords: give the files that hold them (`--database-password-file`, `--kafka-password-file`, `--redis-password-file`,
`--schema-registry-password-file`, `--into-password-file`). A password in a flag can be seen in the list of processes. Such a file is the password as it is, without one line end at
its end. In a URL some signs of a password are to be escaped: `/` as `%2F`, `?` as `%3F`, `#` as `%23`, `@` as `%40` and
`%` as `%25`. No value of a setting that may hold a secret is shown by `--help`, an error or the log.

What is exported as traces, and where to, OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on):
[operations.md](operations.md#traces) has them. `NO_COLOR` turns colours off.

## The database URL

| what | as |
|---|---|
| a server | `postgres://stock@db.example:5432/stock` |
| an IPv6 address | `postgres://stock@[2001:db8::1]/stock` |
| a Unix socket | `postgres://stock@/stock?host=/var/run/postgresql` |
| several servers | `postgres://stock@db-1:5432,db-2:5432/stock?target_session_attrs=read-write` |
| a schema of its own | `postgres://stock@db/stock?options=-c%20search_path%3Dstock` |
| a file | `sqlite:///var/lib/stock/ledger.db` |

Of several servers, each is tried in its order, for up to 3 s, when the ledger is opened and before each new connection;
the first that will do is taken. `target_session_attrs` says which will: `any` (the default), `read-write`, `read-only`,
`primary`, `standby` or `prefer-standby`, as in libpq. To write, say `read-write`. A connection stays where it is until it
fails, as it does on a server that is gone or takes no writes any more.

Encryption: without `sslmode` a connection is encrypted where the server offers it, and nobody looks who the server is
(`prefer`). Say `?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem`: then it is always encrypted, and the server must
have a certificate for its name that this authority signed. Without `sslrootcert` the system's authorities count.
`sslcert` and `sslkey` name a certificate and a key of your own. A password that goes to another host without encryption
is warned of at the start.

PgBouncer and other poolers: with `pool_mode = session` they are as good as the server. `transaction` and `statement` are
refused at the start, since time-outs and prepared statements are a session's; so give the ledger's user or database in
PgBouncer `pool_mode = session`, or name PostgreSQL itself. It needs a pool of a session for each worker and five more for
each instance, with `--http-listen` eleven. Set TCP keepalives in PgBouncer (`tcp_keepidle = 10`, `tcp_keepintvl = 5`, `tcp_keepcnt = 3`):
without them it does not notice that a host is gone, and that host's locks stay. `options` in the URL are not for PgBouncer: use `ALTER ROLE … SET` instead.

## The flags

The headings below name the commands that have the flags. `replay` stands for all commands of `replay`, and so do `topics`,
`stock` and `orders` for theirs; `gate` is the gate itself, and `gate …` stands for all commands of `gate`. A dash says that
there is none.

These environment variables have no flag:

| variable | meaning |
|---|---|
| `DATABASE_URL` | the ledger, where neither `STOCK_VERIFIER_DATABASE_URL` nor the flag is given |
| `PGPASSWORD` | the database's password, where neither the URL nor `--database-password-file` has one |
| `RUST_LOG` | what is logged: a level (`debug`), or one for each module (`info,rdkafka=debug`) |
| `MALLOC_CONF` | settings of jemalloc, the allocator |
";

/// One flag, with the commands that have it.
struct Setting<'a> {
    arg: &'a Arg,
    long: &'a str,
    commands: Vec<String>,
}

impl Setting<'_> {
    /// Whether the other is this very flag, met in another command.
    fn is(&self, other: &Arg) -> bool {
        other.get_long() == Some(self.long)
            && other.get_env() == self.arg.get_env()
            && other.get_default_values() == self.arg.get_default_values()
            && meaning(other) == meaning(self.arg)
    }

    /// What stands over its table: the commands that have it.
    ///
    /// Not the heading that `--help` has for it: the flags of several commands stand under one such heading.
    fn title(&self, parents: &[Parent]) -> String {
        if self.arg.is_global_set() {
            return "All commands".to_owned();
        }
        let mut commands: Vec<&str> = self.commands.iter().map(String::as_str).collect();
        for parent in parents {
            // All of them: said by the name that they begin with.
            if parent.inner.iter().all(|inner| commands.contains(&inner.as_str())) {
                let first = commands.iter().position(|command| *command == parent.inner[0]);
                // Holds because all of them are there, and a parent has at least two.
                commands[first.expect("the first is there")] = &parent.title;
                commands.retain(|command| !parent.inner.iter().any(|inner| inner == command));
            }
        }
        commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(", ")
    }

    fn row(&self) -> String {
        let code = |text: &str| format!("`{text}`");
        let short = self.arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        let value = match value_names(self.arg) {
            Some(names) => format!(" {names}"),
            None => String::new(),
        };
        let flag = code(&format!("{short}--{}{value}", self.long));
        let variable = self.arg.get_env().map_or_else(none, |name| code(&name.to_string_lossy()));
        let key = if NOT_IN_THE_FILE.contains(&self.long) { none() } else { code(self.long) };
        let cells = [flag, variable, key, default(self.arg, self.long), meaning(self.arg)];
        format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
    }
}

/// A command with several below it.
struct Parent {
    /// What stands for all of those.
    title: String,
    inner: Vec<String>,
}

fn none() -> String {
    "–".to_owned()
}

fn value_names(arg: &Arg) -> Option<String> {
    if !arg.get_action().takes_values() {
        return None;
    }
    let names = arg.get_value_names().unwrap_or_default();
    Some(match names {
        [] => arg.get_id().as_str().to_uppercase(),
        names => names.iter().map(clap::builder::Str::as_str).collect::<Vec<_>>().join(" "),
    })
}

fn default(arg: &Arg, long: &str) -> String {
    if let Some((_, words)) = COMPUTED_DEFAULTS.iter().find(|(name, _)| *name == long) {
        return (*words).to_owned();
    }
    if may_be_secret(arg, long) {
        return none();
    }
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "off".to_owned();
    }
    if arg.is_required_set() {
        return "must be given".to_owned();
    }
    // An empty one is none.
    let values = arg.get_default_values().iter().filter(|value| !value.is_empty());
    let values: Vec<_> = values.map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if values.is_empty() { none() } else { values.join(", ") }
}

fn may_be_secret(arg: &Arg, long: &str) -> bool {
    arg.is_hide_default_value_set()
        || arg.is_hide_env_values_set()
        || SECRET_WORDS.iter().any(|word| long.contains(word))
}

/// The flag's help, all of it, as one paragraph of sentences.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let paragraphs = help.split("\n\n").map(|paragraph| {
        let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.ends_with(['.', ':']) || text.is_empty() { text } else { format!("{text}.") }
    });
    let mut meaning = paragraphs.collect::<Vec<_>>().join(" ");
    let values = arg.get_possible_values();
    if arg.get_action().takes_values() && !values.is_empty() {
        let values = values.iter().filter(|value| !value.is_hide_set()).map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), help.to_string().trim_end_matches('.')),
            None => format!("`{}`", value.get_name()),
        });
        let _ = write!(meaning, " {}.", values.collect::<Vec<_>>().join("; "));
    }
    meaning
}

/// Every flag of the command and those below it, in the order of the help.
fn gather<'a>(command: &'a Command, path: &str, settings: &mut Vec<Setting<'a>>, parents: &mut Vec<Parent>) {
    for arg in command.get_arguments() {
        // Without a long name it is no setting but what the command is about, such as the file to import.
        let Some(long) = arg.get_long() else { continue };
        match settings.iter_mut().find(|setting| setting.is(arg)) {
            Some(setting) => setting.commands.push(path.to_owned()),
            None => settings.push(Setting { arg, long, commands: vec![path.to_owned()] }),
        }
    }
    let mut inner = Vec::new();
    for command in command.get_subcommands() {
        let name = command.get_name();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path} {name}") };
        gather(command, &path, settings, parents);
        inner.push(path);
    }
    if inner.len() > 1 {
        // Where it does something by itself too, its name alone is that.
        let itself = !command.is_subcommand_required_set();
        let title = if itself { format!("{path} …") } else { path.to_owned() };
        parents.push(Parent { title, inner });
    }
}

fn page(command: &Command) -> String {
    let (mut settings, mut parents) = (Vec::new(), Vec::new());
    gather(command, "", &mut settings, &mut parents);
    let mut sections: Vec<(String, String)> = Vec::new();
    for setting in &settings {
        let title = setting.title(&parents);
        match sections.iter_mut().find(|(known, _)| *known == title) {
            Some((_, rows)) => rows.push_str(&setting.row()),
            None => sections.push((title, setting.row())),
        }
    }
    let mut page = INTRODUCTION.to_owned();
    for (title, rows) in sections {
        let _ = write!(
            page,
            "\n## {title}\n\n| flag | environment variable | key in the file | default | meaning |\n\
             |---|---|---|---|---|\n{rows}"
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_that_of_the_flags() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        check(&file, &page(&super::super::Cli::command())).unwrap();
    }

    #[test]
    fn a_page_that_differs_is_named_with_the_way_to_make_it_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "the page").unwrap();
        check(file.path(), "the page").unwrap();
        let drift = check(file.path(), "another page").unwrap_err().to_string();
        assert!(drift.contains("settings --write"), "{drift}");
        let missing = check(Path::new("/no/such/page.md"), "the page").unwrap_err().to_string();
        assert!(missing.contains("/no/such/page.md"), "{missing}");
    }

    #[test]
    fn every_flag_of_every_command_is_on_the_page() {
        fn longs(command: &Command) -> Vec<String> {
            let own = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
            own.chain(command.get_subcommands().flat_map(longs)).collect()
        }
        let command = super::super::Cli::command();
        let (page, longs) = (page(&command), longs(&command));
        assert!(longs.len() > 50, "{}", longs.len());
        for long in longs {
            let named = page.lines().any(|line| {
                line.starts_with("| `") && line.split([' ', '`']).any(|word| word == format!("--{long}"))
            });
            assert!(named, "--{long} is not on the page");
        }
    }

    #[test]
    fn a_heading_names_each_command_once_and_a_command_apart_from_those_below_it() {
        let page = page(&super::super::Cli::command());
        for heading in page.lines().filter(|line| line.starts_with("## `")) {
            let mut names: Vec<&str> = heading["## ".len()..].split(", ").collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{heading}");
        }
        assert!(page.contains("\n## `gate`, `gate …`, `audit`\n"), "{page}");
        assert!(page.contains("\n## `run`, `audit`, `replay`\n"), "{page}");
    }

    #[test]
    fn no_default_shows_a_secret() {
        let secret = |name: &'static str| Arg::new(name).long(name).default_value("hunter2");
        let mut command = Command::new("t");
        for word in SECRET_WORDS {
            command = command.arg(secret(word));
        }
        let command = command
            .arg(secret("hidden-environment").env("T").hide_env_values(true))
            .arg(secret("hidden-default").hide_default_value(true))
            .arg(Arg::new("group").long("group").default_value("shown"));
        let page = page(&command);
        assert!(!page.contains("hunter2"), "{page}");
        assert!(page.contains("| `shown` |"), "{page}");
    }
}
