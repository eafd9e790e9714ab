//! Values that wait for a schema: their partition alone waits with them.
//!
//! A record whose schema is not known is set aside, and so is all that comes after it of its partition, while the schema is
//! asked for. Where the registry is away, or too much is set aside, the partition is *held*: what comes of it is dropped,
//! the others go on, and it is read again from its committed offset once the registry has answered. What was read before is
//! decided meanwhile. Where much is dropped, a rewind ends its fetching: that costs the others a moment, so not at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::ownership::Ownership;
use crate::event::SchemaId;
use crate::kafka::consumer::FetchedRecord;
use crate::ledger::TopicPartition;
use crate::registry::{Away, Registry};

/// Most bytes set aside by a pipeline, and most that are dropped of a partition before it is fetched no more: a batch's.
const MOST_ASIDE_BYTES: usize = 4 << 20;
/// What a record takes beside its content.
const RECORD_BYTES: usize = 256;
/// The pauses between asking a registry that is away.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What asking for a schema came to.
pub(super) enum Answer {
    /// The registry said what it knows.
    Said(SchemaId),
    /// It does not answer; it is asked again.
    Away(SchemaId, Away),
}

/// A partition's records that wait.
struct Aside {
    schema: SchemaId,
    records: VecDeque<FetchedRecord>,
    bytes: usize,
}

/// A partition that is read no further.
struct Held {
    schema: SchemaId,
    dropped_bytes: usize,
}

impl Aside {
    fn push(&mut self, fetched: FetchedRecord) {
        self.bytes += fetched.bytes + RECORD_BYTES;
        self.records.push_back(fetched);
    }
}

/// Decodes what comes, and sets aside what cannot be decoded yet.
pub(super) struct Decoding {
    registry: Option<Arc<Registry>>,
    aside: HashMap<TopicPartition, Aside>,
    /// Records whose wait is over, to be taken before those that are fetched.
    ready: VecDeque<FetchedRecord>,
    /// Partitions that are read no further until their schema is known.
    held: HashMap<TopicPartition, Held>,
    /// Schemas that are being asked for.
    asked: HashSet<SchemaId>,
    /// Asks for them; ends when this ends.
    asking: JoinSet<()>,
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Decoding {
    /// Nothing waits yet. Without a registry, nothing ever does.
    pub(super) fn new(registry: Option<Arc<Registry>>) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            registry,
            aside: HashMap::new(),
            ready: VecDeque::new(),
            held: HashMap::new(),
            asked: HashSet::new(),
            asking: JoinSet::new(),
            sender,
            answers,
        }
    }

    /// The next record that waits no more.
    pub(super) fn next_ready(&mut self) -> Option<FetchedRecord> {
        self.ready.pop_front()
    }

    /// Whether there is one.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Decodes a record; `None` when it is set aside.
    pub(super) fn decode(
        &mut self,
        mut fetched: FetchedRecord,
        ownership: &Ownership,
    ) -> Option<FetchedRecord> {
        let Some(registry) = &self.registry else { return Some(fetched) };
        let at = &fetched.record.source.at;
        if let Some(held) = self.held.get_mut(at) {
            let before = held.dropped_bytes;
            held.dropped_bytes += fetched.bytes + RECORD_BYTES;
            if before <= MOST_ASIDE_BYTES && held.dropped_bytes > MOST_ASIDE_BYTES {
                ownership.request_rewind();
            }
            return None;
        }
        if let Some(aside) = self.aside.get_mut(at) {
            let (at, schema) = (at.clone(), aside.schema);
            aside.push(fetched);
            if self.aside.values().map(|aside| aside.bytes).sum::<usize>() > MOST_ASIDE_BYTES {
                self.hold(&at, schema, "the schema registry is slow", ownership);
            }
            return None;
        }
        match registry.decode(&mut fetched.record) {
            Ok(()) => Some(fetched),
            Err(schema) => {
                let registry = Arc::clone(registry);
                self.ask(registry, schema);
                let mut aside = Aside { schema, records: VecDeque::new(), bytes: 0 };
                let at = fetched.record.source.at.clone();
                aside.push(fetched);
                self.aside.insert(at, aside);
                None
            }
        }
    }

    /// Asks for a schema until the registry says what it knows of it, on a thread that may block.
    fn ask(&mut self, registry: Arc<Registry>, schema: SchemaId) {
        if !self.asked.insert(schema) {
            return;
        }
        let answers = self.sender.clone();
        self.asking.spawn(async move {
            let pauses = ExponentialBuilder::new()
                .with_min_delay(PAUSE_MIN)
                .with_max_delay(PAUSE_MAX)
                .without_max_times()
                .with_jitter()
                .build();
            for pause in pauses {
                let registry = Arc::clone(&registry);
                let answer = match spawn_blocking(move || registry.fetch(schema)).await {
                    Ok(Ok(())) => Answer::Said(schema),
                    Ok(Err(away)) => Answer::Away(schema, away),
                    // The process ends, or asking panicked, which the log says.
                    Err(_) => return,
                };
                let is_done = matches!(answer, Answer::Said(_));
                // Nobody takes it where the pipeline has ended.
                if answers.send(answer).is_err() || is_done {
                    return;
                }
                sleep(pause).await;
            }
        });
    }

    /// Waits for what asking comes to. A wait that is cut short loses nothing.
    pub(super) async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // Not while this has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Goes on with what waited for a schema, or holds its partitions.
    pub(super) fn take(&mut self, answer: Answer, ownership: &Ownership) {
        while self.asking.try_join_next().is_some() {}
        match answer {
            Answer::Said(schema) => {
                self.asked.remove(&schema);
                let over = self.aside.extract_if(|_, aside| aside.schema == schema);
                self.ready.extend(over.flat_map(|(_, aside)| aside.records));
                let released: Vec<TopicPartition> =
                    self.held.extract_if(|_, held| held.schema == schema).map(|(at, _)| at).collect();
                for at in &released {
                    tracing::info!(partition = %at, "the schema registry answers: reading on");
                    ownership.release(at);
                }
            }
            Answer::Away(schema, away) => {
                let waiting: Vec<TopicPartition> = self
                    .aside
                    .iter()
                    .filter(|(_, aside)| aside.schema == schema)
                    .map(|(at, _)| at.clone())
                    .collect();
                for at in waiting {
                    self.hold(&at, schema, &away.to_string(), ownership);
                }
            }
        }
    }

    /// Reads a partition no further until its schema is known. What was set aside of it is read again then.
    fn hold(&mut self, at: &TopicPartition, schema: SchemaId, why: &str, ownership: &Ownership) {
        self.aside.remove(at);
        tracing::warn!(
            partition = %at,
            "waiting for schema {schema}, which this partition's next record is written by; others go on: {why}"
        );
        self.held.insert(at.clone(), Held { schema, dropped_bytes: 0 });
        ownership.hold(at, format!("it waits for schema {schema}: {why}"));
    }

    /// Drops what is set aside: it is read again. What is held stays so.
    pub(super) fn drop_records(&mut self) {
        self.aside.clear();
        self.ready.clear();
    }

    /// Partitions are another's now.
    pub(super) fn drop_partitions(&mut self, gone: &[TopicPartition]) {
        for at in gone {
            self.aside.remove(at);
            self.held.remove(at);
        }
        self.ready.retain(|ready| !gone.contains(&ready.record.source.at));
    }
}
