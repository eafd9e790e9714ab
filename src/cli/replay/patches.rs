//! How `replay reprocess` repairs records: files to [`Repairs`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::record_filter::read;
use crate::event::Repair;
use crate::ledger::{Offset, Source, TopicPartition};
use crate::replay::reprocess::Repairs;

/// How to repair records.
#[derive(Debug, Args)]
pub struct PatchArgs {
    /// A JSON merge patch (RFC 7396) to repair each chosen value with
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,

    /// A JSON object of the headers to change in each chosen record, null for one to remove
    #[arg(long, value_name = "FILE")]
    patch_headers: Option<PathBuf>,

    /// A line for each record to repair by itself; others are left out. A line is a JSON object of `record` (as a report
    /// names it: TOPIC[PARTITION]@OFFSET), or `topic`, `partition` and `offset`; and `patch`, or the whole new `value`; and
    /// `headers`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["patch", "patch_headers"])]
    patch_file: Option<PathBuf>,
}

/// A line of a patch file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    record: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    #[serde(borrow)]
    patch: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
}

impl PatchArgs {
    /// What they mean.
    ///
    /// # Errors
    /// When a file cannot be read, or cannot be a patch; it says which line.
    pub(super) fn repairs(&self) -> Result<Repairs> {
        let in_file = |file: &Path, why: anyhow::Error| why.context(file.display().to_string());
        if let Some(file) = &self.patch_file {
            return each(&read(file)?).map_err(|why| in_file(file, why));
        }
        let mut repair = Repair::default();
        if let Some(file) = &self.patch_headers {
            repair = with_headers(repair, &read(file)?).map_err(|why| in_file(file, why))?;
        }
        if let Some(file) = &self.patch {
            repair = repair.merge(&read(file)?).map_err(|why| in_file(file, anyhow!(why)))?;
        }
        Ok(Repairs::Alike(repair))
    }
}

/// A line for each record.
fn each(text: &str) -> Result<Repairs> {
    let mut repairs = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let (source, repair) = one(line).with_context(|| format!("line {number}"))?;
        if repairs.contains_key(&source) {
            bail!("line {number}: {source} comes twice");
        }
        repairs.insert(source, repair);
    }
    ensure!(!repairs.is_empty(), "it has no lines");
    Ok(Repairs::Each(repairs))
}

fn one(line: &str) -> Result<(Source, Repair)> {
    let line: Line<'_> = serde_json::from_str(line).context("it is not as it should be")?;
    let source = match (&line.record, &line.topic, line.partition, line.offset) {
        (Some(text), None, None, None) => source_of(text)
            .with_context(|| format!("{text:?} names no record: write it as in \"orders[3]@8841\""))?,
        (None, Some(topic), Some(partition), Some(offset)) if partition >= 0 && offset >= 0 => {
            Source { at: TopicPartition::new(&**topic, partition), offset: Offset(offset) }
        }
        _ => bail!(
            "it names no record: give \"record\" (\"orders[3]@8841\"), or \"topic\", \"partition\" and \"offset\""
        ),
    };
    let mut repair = Repair::default();
    if let Some(headers) = line.headers {
        repair = with_headers(repair, headers.get())?;
    }
    repair = match (line.patch, line.value) {
        (Some(_), Some(_)) => bail!("\"patch\" changes a value and \"value\" replaces it: give one of them"),
        (Some(patch), None) => repair.merge(patch.get()).map_err(|why| anyhow!(why))?,
        (None, Some(value)) => repair.replace(value),
        (None, None) => repair,
    };
    ensure!(!repair.is_empty(), "it changes nothing: give \"patch\", \"value\" or \"headers\"");
    Ok((source, repair))
}

/// A record by its text, as reports write it.
fn source_of(text: &str) -> Option<Source> {
    let (at, offset) = text.trim().rsplit_once("]@")?;
    let (topic, partition) = at.rsplit_once('[')?;
    let partition: u16 = partition.parse().ok()?;
    let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
    let is_named = !topic.is_empty();
    is_named.then(|| Source { at: TopicPartition::new(topic, i32::from(partition)), offset: Offset(offset) })
}

/// Adds the changes of an object of headers.
fn with_headers(mut repair: Repair, text: &str) -> Result<Repair> {
    let headers: HashMap<String, Option<String>> = serde_json::from_str(text).map_err(|error| {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let what = if is_json { "headers are an object of texts, null for one to remove" } else { "no JSON" };
        anyhow!("{what}: {error}")
    })?;
    let mut headers: Vec<_> = headers.into_iter().collect();
    headers.sort_unstable();
    for (name, value) in headers {
        repair = repair.header(&name, value.as_deref()).map_err(|why| anyhow!(why))?;
    }
    Ok(repair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        format!("{:#}", each(text).unwrap_err())
    }

    #[test]
    fn a_line_names_its_record_in_either_way() {
        let text = "{\"record\":\"or[d]ers[3]@41\",\"patch\":{\"a\":1}}\n\n\
                    {\"topic\":\"orders\",\"partition\":0,\"offset\":7,\"value\":{},\"headers\":{\"ce_type\":null}}\n";
        let Ok(Repairs::Each(repairs)) = each(text) else { panic!("two lines") };
        let mut named: Vec<_> = repairs.keys().map(ToString::to_string).collect();
        named.sort_unstable();
        assert_eq!(named, ["or[d]ers[3]@41", "orders[0]@7"]);
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_its_line() {
        let good = "{\"record\":\"orders[3]@41\",\"patch\":{}}\n";
        for (line, says) in [
            (r#"{"record":"orders[3]@41","patch":{"b":2}}"#, "line 2: orders[3]@41 comes twice"),
            (r#"{"record":"orders-3-41","patch":{}}"#, "names no record: write it as in \"orders[3]@8841\""),
            (r#"{"topic":"orders","offset":1,"patch":{}}"#, "it names no record"),
            (r#"{"topic":"orders","partition":0,"offset":-1,"patch":{}}"#, "it names no record"),
            (r#"{"record":"orders[3]@42"}"#, "it changes nothing"),
            (r#"{"record":"orders[3]@42","patch":{},"value":{}}"#, "give one of them"),
            (r#"{"record":"orders[3]@42","patch":[1]}"#, "a merge patch is a JSON object"),
            (r#"{"record":"orders[3]@42","headers":{"ce_type":1}}"#, "headers are an object of texts"),
            (r#"{"record":"orders[3]@42","headers":{"stock_verifier.replay.topic":"x"}}"#, "program's own"),
            (r#"{"record":"orders[3]@42","pach":{}}"#, "unknown field `pach`"),
            ("{", "line 2: it is not as it should be"),
        ] {
            let found = said(&(good.to_owned() + line));
            assert!(found.starts_with("line 2: ") && found.contains(says), "{line}: {found}");
        }
        assert_eq!(said("\n"), "it has no lines");
    }
}
