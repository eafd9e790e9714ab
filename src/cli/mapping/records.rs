//! Records to look at: of files, and of a topic.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::block_in_place;

use crate::config::KafkaArgs;
use crate::event::{Header, Record};
use crate::kafka::topics::Topics;
use crate::ledger::{Offset, Source, TopicPartition};

/// The topic of a record that does not say of which it is.
const NO_TOPIC: &str = "orders";
/// The group under which nothing is committed: reading a topic needs a name.
const GROUP: &str = "stock-verifier-mapping-test";

/// A record as `kcat -J` prints it: headers are names and values in turn, and the payload is text. JSON in its place is
/// taken as it is written.
#[derive(Deserialize)]
struct Printed<'a> {
    topic: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    offset: i64,
    ts: Option<i64>,
    key: Option<String>,
    #[serde(default)]
    headers: Vec<Option<String>>,
}

/// The records of a file, each with its name: file and line.
pub(super) fn of_file(file: &Path) -> Result<Vec<(String, Record)>> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let records =
        lines.map(|(number, line)| (format!("{}:{}", file.display(), number + 1), of_line(line, number)));
    Ok(records.collect())
}

/// A line's record: one that was printed, else the line itself is the value.
fn of_line(line: &[u8], number: usize) -> Record {
    let offset = i64::try_from(number).unwrap_or(i64::MAX);
    match serde_json::from_slice::<Printed<'_>>(line) {
        Ok(printed) if has_payload(line) => {
            let payload = printed.payload.map(RawValue::get).filter(|payload| *payload != "null");
            let value = payload.map(|payload| {
                serde_json::from_str::<String>(payload).unwrap_or_else(|_| payload.to_owned()).into_bytes()
            });
            let headers = printed.headers.chunks(2).filter_map(|pair| {
                let value = pair.get(1).cloned().flatten().map(String::into_bytes);
                Some(Header { name: pair.first()?.clone()?, value })
            });
            Record {
                source: Source {
                    at: TopicPartition::new(&*printed.topic, printed.partition),
                    offset: Offset(printed.offset),
                },
                key: printed.key.map(String::into_bytes),
                value,
                headers: headers.collect(),
                timestamp_ms: printed.ts,
                decoded: None,
            }
        }
        _ => Record {
            source: Source { at: TopicPartition::new(NO_TOPIC, 0), offset: Offset(offset) },
            key: None,
            value: Some(line.to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
            decoded: None,
        },
    }
}

/// Whether a line has a field of that name: one that is null is a tombstone's.
fn has_payload(line: &[u8]) -> bool {
    serde_json::from_slice::<HashMap<String, &RawValue>>(line)
        .is_ok_and(|fields| fields.contains_key("payload"))
}

/// The first records of each partition of a topic, at most so many of all, each with its name.
pub(super) fn of_topic(kafka: &KafkaArgs, topic: &str, limit: usize) -> Result<Vec<(String, Record)>> {
    block_in_place(|| {
        let topics = Topics::connect(kafka, GROUP)?;
        let whole = topics.whole_topic(topic)?;
        if whole.is_empty() {
            bail!("topic {topic:?} does not exist");
        }
        let mut reader = topics.read(&whole)?;
        let mut records = Vec::new();
        while records.len() < limit
            && let Some(record) = reader.take_next()?
        {
            records.push((record.source.to_string(), record));
        }
        Ok(records)
    })
}
