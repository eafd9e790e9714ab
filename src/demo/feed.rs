//! Produces the orders, no faster than they are published and read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tokio_util::sync::CancellationToken;

use super::readback::Seen;
use super::workload::Workload;
use crate::config::KafkaArgs;
use crate::tally::Totals;

/// Records that may be on their way. Three batches: one in each stage of the verifier. It also keeps every
/// partition far below the 5 MiB past which the mock drops records: about 300 KiB before compression.
const WINDOW: u64 = 6_000;
/// How often to look whether there is room again.
const LOOK: Duration = Duration::from_micros(500);
/// Longest wait for room before something must be broken.
const STALLED: Duration = Duration::from_secs(30);
/// Longest wait for the last records to arrive.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Counts records the broker did not take.
#[derive(Default)]
struct Refused(AtomicU64);

impl ClientContext for Refused {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "the demo's producer");
    }
}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How far producing is ahead of what follows it.
pub(super) struct Followers {
    /// What the verifier published.
    pub totals: Arc<Totals>,
    /// What was read back.
    pub seen: Arc<Seen>,
}

impl Followers {
    fn behind(&self, sent: u64) -> u64 {
        let published = self.totals.so_far();
        let events = published.records() - published.absorbed;
        (sent - published.records().min(sent))
            .max(sent - self.seen.inputs().min(sent))
            .max(events - self.seen.outputs().min(events))
    }
}

/// Produces the workload until its end, or `stop`; says how many records that were. Blocks: runs on a thread of its own.
///
/// # Errors
/// When the broker refuses a record, or nothing is published for too long.
pub(super) fn feed(
    kafka: &KafkaArgs,
    topic: &str,
    workload: Workload,
    followers: &Followers,
    stop: &CancellationToken,
) -> Result<u64> {
    let mut config = kafka.client()?;
    config
        .set("client.id", "demo-shop")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "2");
    let producer: ThreadedProducer<Refused> =
        config.create_with_context(Refused::default()).context("cannot make the demo's producer")?;
    let mut sent = 0;
    let mut room = WINDOW;
    for delivery in workload {
        if stop.is_cancelled() {
            break;
        }
        if room == 0 {
            room = wait_for_room(sent, followers, stop)?;
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(delivery.key.as_bytes());
        record.payload = delivery.value.as_deref();
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot produce an order");
            }
            record = back;
            std::thread::sleep(LOOK);
        }
        room -= 1;
        sent += 1;
    }
    producer.flush(FLUSH_LIMIT).context("the last orders did not reach the broker")?;
    match producer.context().0.load(Ordering::Relaxed) {
        0 => Ok(sent),
        refused => bail!("the broker refused {refused} records"),
    }
}

/// Waits until a third of the window is free: so the producer sends whole bursts, as a busy shop does.
fn wait_for_room(sent: u64, followers: &Followers, stop: &CancellationToken) -> Result<u64> {
    let since = Instant::now();
    loop {
        let behind = followers.behind(sent);
        if behind <= WINDOW / 3 * 2 {
            return Ok(WINDOW - behind);
        }
        if stop.is_cancelled() {
            return Ok(1);
        }
        if since.elapsed() > STALLED {
            bail!(
                "{behind} of {sent} records are neither published nor read back, and nothing moved for {STALLED:?}"
            );
        }
        std::thread::sleep(LOOK);
    }
}
