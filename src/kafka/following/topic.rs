//! Follows a topic from its beginning, in no group: what a cache of it is made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::{Quiet, consumer};
use crate::config::KafkaArgs;
use crate::event::Record;
use crate::kafka::asker::Asker;
use crate::kafka::closing::BoundedClose;
use crate::kafka::consumer::{Watermarks, own};
use crate::kafka::password::WithPassword;
use crate::kafka::topic_ids::Described;
use crate::ledger::{Offset, Source, TopicPartition};

/// The client id that reads.
const CLIENT_ID: &str = "stock-verifier-levels";
/// Small: a record is dealt with in no time, and this stands beside the clients that decide.
const BUFFERS: [(&str, &str); 2] = [("queued.max.messages.kbytes", "4096"), ("fetch.max.bytes", "1048576")];
/// Longest wait for the next record: how soon a stop is seen.
const POLL: Duration = Duration::from_millis(100);
/// How often the topic's end is asked for: so much older than need be is what a follower knows.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest time between two looks while records still come. Meanwhile what is known ages.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// The pause before a topic is looked for again that could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that it cannot be.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What a follower tells.
#[derive(Debug)]
pub enum Told {
    /// The next record of a partition.
    Record(Record),
    /// All that stood in the topic at this moment has been told: by this machine's clock, and by this process's.
    UpTo(SystemTime, Instant),
}

/// Reads on until dropped.
#[derive(Debug)]
pub struct TopicFollower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TopicFollower {
    /// Tells `told` all that stands in `topic`, and then what comes, on a thread of its own. While the topic is not there,
    /// or Kafka is away, it tells nothing; then it goes on, where the topic was made anew from its beginning.
    ///
    /// # Errors
    /// When a password file cannot be read, or the configuration is refused.
    pub fn start(
        kafka: &KafkaArgs,
        group: &str,
        topic: &str,
        mut told: impl FnMut(Told) + Send + 'static,
    ) -> Result<Self> {
        let consumer = consumer(kafka, CLIENT_ID, group, &BUFFERS)?;
        let asker = Asker::new(kafka, CLIENT_ID, None)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (Arc::clone(&stop), Arc::<str>::from(topic));
        let thread = std::thread::Builder::new()
            .name("follower".to_owned())
            .spawn(move || {
                let mut following = Following { consumer, asker, topic, nexts: Vec::new(), read: None };
                let mut said: Option<Instant> = None;
                while !stopped.load(Ordering::Acquire) {
                    if let Err(error) = following.go_on(&stopped, &mut told) {
                        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                            tracing::warn!("topic {} cannot be followed: {error:#}", following.topic);
                            said = Some(Instant::now());
                        }
                        std::thread::sleep(RETRY_PAUSE);
                    }
                }
            })
            .context("no thread can be started")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for TopicFollower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("following a topic panicked");
        }
    }
}

struct Following {
    consumer: BoundedClose<WithPassword<BaseConsumer<Quiet>>>,
    asker: Asker,
    topic: Arc<str>,
    /// Where each partition is read next.
    nexts: Vec<i64>,
    /// The topic that is read; `None` before it is found, and where it is gone.
    read: Option<Described>,
}

impl Following {
    /// Looks where the topic ends, and reads until it is time to look again.
    fn go_on(&mut self, stop: &AtomicBool, told: &mut impl FnMut(Told)) -> Result<()> {
        self.find()?;
        let (looked, begun) = (SystemTime::now(), Instant::now());
        let ends = self.ends()?;
        let mut is_told = false;
        while !stop.load(Ordering::Acquire) {
            let is_reached = self.nexts.iter().zip(&ends).all(|(next, end)| next >= end);
            if is_reached && !is_told {
                told(Told::UpTo(looked, begun));
                is_told = true;
            }
            if begun.elapsed() >= LOOK_EVERY && (is_reached || begun.elapsed() >= LOOK_LIMIT) {
                break;
            }
            let Some(message) = self.consumer.poll(POLL) else { continue };
            let message = message.context("the topic cannot be read")?;
            let (partition, offset) = (message.partition(), Offset(message.offset()));
            if let Some(next) = usize::try_from(partition).ok().and_then(|index| self.nexts.get_mut(index)) {
                *next = offset.next().0;
            }
            let at = TopicPartition { topic: Arc::clone(&self.topic), partition };
            told(Told::Record(own(&message, Source { at, offset }).0));
        }
        Ok(())
    }

    /// Finds the topic, and begins to read it where it is another than before.
    fn find(&mut self) -> Result<()> {
        let found = self.asker.describe(&[&*self.topic])?.pop();
        if found.is_some() && found == self.read {
            return Ok(());
        }
        let Some(Described::There { partitions, .. }) = &found else {
            self.read = None;
            self.consumer.unassign()?;
            bail!("it is not there, or may not be read");
        };
        let mut all = TopicPartitionList::new();
        for partition in 0..*partitions {
            all.add_partition_offset(&self.topic, partition, KafkaOffset::Beginning)?;
        }
        self.consumer.assign(&all)?;
        self.nexts = (0..*partitions).map(|_| 0).collect();
        self.read = found;
        Ok(())
    }

    /// Where each partition ends. What was removed before its beginning is not waited for.
    fn ends(&mut self) -> Result<Vec<i64>> {
        let mut ends = Vec::with_capacity(self.nexts.len());
        for (partition, next) in (0..).zip(&mut self.nexts) {
            // Not by the client that reads: there each question waits behind a fetch.
            let at = TopicPartition { topic: Arc::clone(&self.topic), partition };
            let Watermarks { low, high } = self.asker.watermarks(&at)?;
            *next = (*next).max(low.0);
            ends.push(high.0);
        }
        Ok(ends)
    }
}
