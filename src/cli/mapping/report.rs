//! What records come to, for people and for machines.

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::Reading;
use crate::ledger::Action;

/// What one record comes to.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    record: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// What the mapping gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What is a command and decided by what there is.
const COMMAND: &str = "command";
/// What asks for nothing.
const IGNORED: &str = "ignored";

impl Shown {
    /// The record of this name was read so, of this value.
    pub(super) fn of(record: String, reading: Reading, value: Option<String>) -> Self {
        let mut shown =
            Self { record, outcome: COMMAND, command: None, value: None, error: None, detail: None };
        // What a mapping gives is JSON; what is none has no other way to be shown.
        shown.value = value.and_then(|value| RawValue::from_string(value).ok());
        match reading {
            Reading::Command(command) => {
                if let Action::Refuse(reasons) = &command.action {
                    shown.outcome = "refused";
                    shown.detail = serde_json::to_string(reasons).ok();
                }
                shown.command = Some(command.key.to_string());
            }
            Reading::Ignored => shown.outcome = IGNORED,
            Reading::Faulty(fault) => {
                shown.outcome = "dead_letter";
                (shown.error, shown.detail) = (Some(fault.code.name()), Some(fault.detail));
            }
            too_slow @ Reading::TooSlow => {
                shown.outcome = "too_slow";
                shown.detail = too_slow.command().err();
            }
        }
        shown
    }

    /// Whether it is a command that is decided by what there is, or asks for nothing.
    pub(super) fn is_good(&self) -> bool {
        [COMMAND, IGNORED].contains(&self.outcome)
    }
}

/// One object a line.
pub(super) fn json(shown: &[Shown]) -> Result<String> {
    let mut lines = String::new();
    for one in shown {
        lines += &serde_json::to_string(one).context("a record cannot be shown")?;
        lines.push('\n');
    }
    Ok(lines)
}

/// A table, and the sums.
pub(super) fn table(shown: &[Shown]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["RECORD", "OUTCOME", "COMMAND", "DETAIL"]);
    for one in shown {
        let detail = match (&one.error, &one.detail) {
            (Some(error), Some(detail)) => format!("{error}: {detail}"),
            (_, Some(detail)) => detail.clone(),
            _ => one.value.as_ref().map_or_else(String::new, |value| value.get().to_owned()),
        };
        table.add_row([&*one.record, one.outcome, one.command.as_deref().unwrap_or_default(), &*detail]);
    }
    let bad = shown.iter().filter(|one| !one.is_good()).count();
    let ignored = shown.iter().filter(|one| one.outcome == IGNORED).count();
    let sums = format!(
        "\n{} records: {} commands, {ignored} ignored, {bad} that are no good\n",
        shown.len(),
        shown.len() - ignored - bad
    );
    table.trim_fmt() + "\n" + &sums
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    reads: &'a str,
}

/// Names, and what they read.
pub(super) fn list_json(each: &[(&str, &str)]) -> Result<String> {
    let listed: Vec<Listed<'_>> = each.iter().map(|(name, reads)| Listed { name, reads }).collect();
    Ok(serde_json::to_string_pretty(&listed).context("the list cannot be written")? + "\n")
}

/// The same as a table.
pub(super) fn list(each: &[(&str, &str)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAME", "READS"]);
    for (name, reads) in each {
        table.add_row([name, reads]);
    }
    table.trim_fmt() + "\n"
}
