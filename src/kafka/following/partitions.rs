//! Reads partitions as they grow, from given offsets on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Commands, Sender as Commander, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use tokio::sync::mpsc;

use super::{Quiet, consumer};
use crate::config::KafkaArgs;
use crate::event::Record;
use crate::kafka::consumer::own;
use crate::kafka::offsets::{list, list_at};
use crate::ledger::{NextOffset, Offset, Source, TopicPartition};

/// Longest sleep in one poll; a command waits no longer.
const POLL: Duration = Duration::from_millis(20);
/// Most records of a turn: what one call settles.
const TURN: usize = 500;
/// Turns that wait to be taken; then reading pauses.
const TURNS: usize = 16;
/// Records and KiB prefetched at most. What a fetch has less of than is worth a call is gathered for a moment that nobody
/// notices: else each batch of the verifier is a fetch, and each of its partitions a call that settles a few.
const BUFFERS: [(&str, &str); 5] = [
    ("queued.min.messages", "5000"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.min.bytes", "100000"),
    ("fetch.wait.max.ms", "25"),
    ("fetch.queue.backoff.ms", "5"),
];

/// Records of one partition, without a gap to those before them.
#[derive(Debug)]
pub struct Followed {
    /// Which partition.
    pub at: TopicPartition,
    /// Where those before them ended.
    pub from: NextOffset,
    /// The offset after the last of them.
    pub next: NextOffset,
    /// In their order. There may be fewer than offsets: marks of transactions are none.
    pub records: Vec<Record>,
}

enum Command {
    Read(TopicPartition, NextOffset),
}

/// Follows; ends when it is dropped.
pub struct Follower {
    commands: Commander<Command>,
    turns: mpsc::Receiver<Followed>,
}

impl Follower {
    /// Begins with no partitions.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn new(kafka: &KafkaArgs, client_id: &str) -> Result<Self> {
        let consumer = consumer(kafka, client_id, client_id, &BUFFERS)?;
        let (commands, commanded) = channel();
        let (turns, taken) = mpsc::channel(TURNS);
        std::thread::Builder::new()
            .name("follower".to_owned())
            .spawn(move || follow(&consumer, &commanded, &turns))
            .context("no thread to read on")?;
        Ok(Self { commands, turns: taken })
    }

    /// Reads a partition from here on: one more, or one that is read already and goes to another offset.
    pub fn read(&self, at: TopicPartition, from: NextOffset) {
        // Nobody hears it only when the thread has ended, and then `next` says so.
        let _ = self.commands.send(Command::Read(at, from));
    }

    /// The next records of some partition; `None` when it cannot go on.
    pub async fn next(&mut self) -> Option<Followed> {
        self.turns.recv().await
    }
}

/// Polls until nobody takes what it reads.
fn follow(consumer: &BaseConsumer<Quiet>, commands: &Commands<Command>, turns: &mpsc::Sender<Followed>) {
    let mut positions: HashMap<TopicPartition, NextOffset> = HashMap::new();
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    while !turns.is_closed() {
        for Command::Read(at, from) in commands.try_iter() {
            names.entry(at.topic.to_string()).or_insert_with(|| Arc::clone(&at.topic));
            if let Err(error) = begin(consumer, &at, from, positions.contains_key(&at)) {
                tracing::error!(%at, %error, "a partition cannot be followed");
            }
            positions.insert(at, from);
        }
        let mut turn: HashMap<TopicPartition, Followed> = HashMap::new();
        let mut wait = POLL;
        for _ in 0..TURN {
            match consumer.poll(wait) {
                None => break,
                Some(Err(error)) => say(&error),
                Some(Ok(message)) => {
                    let Some(topic) = names.get(message.topic()) else { continue };
                    let at = TopicPartition { topic: Arc::clone(topic), partition: message.partition() };
                    let Some(position) = positions.get_mut(&at) else { continue };
                    let offset = Offset(message.offset());
                    // From before it went to another offset.
                    if position.covers(offset) {
                        continue;
                    }
                    let (record, _) = own(&message, Source { at: at.clone(), offset });
                    let from = *position;
                    *position = NextOffset(offset.0 + 1);
                    let followed = turn.entry(at.clone()).or_insert_with(|| Followed {
                        at,
                        from,
                        next: from,
                        records: Vec::new(),
                    });
                    followed.next = *position;
                    followed.records.push(record);
                }
            }
            wait = Duration::ZERO;
        }
        for followed in turn.into_values() {
            if turns.blocking_send(followed).is_err() {
                return;
            }
        }
    }
}

/// Reads a partition from an offset on. What was fetched of it before is dropped with its assignment.
fn begin(consumer: &BaseConsumer<Quiet>, at: &TopicPartition, from: NextOffset, is_read: bool) -> Result<()> {
    if is_read {
        consumer.incremental_unassign(&list([at]))?;
    }
    consumer.incremental_assign(&list_at([&(at.clone(), from)])?)?;
    Ok(())
}

fn say(error: &KafkaError) {
    tracing::debug!(%error, "following topics");
}
