//! Produces the orders, no faster than they are published and read back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::readback::Seen;
use super::workload::Workload;
use crate::config::KafkaArgs;
use crate::kafka::in_process::ShopProducer;
use crate::observe::Totals;

/// Records that may be on their way. Three batches: one in each stage of the verifier. It also keeps every
/// partition far below the 5 MiB past which the mock drops records: about 300 KiB before compression.
const WINDOW: u64 = 6_000;
/// How often to look whether there is room again.
const LOOK: Duration = Duration::from_micros(500);
/// Longest wait for room before something must be broken.
const STALLED: Duration = Duration::from_secs(30);

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
    let producer = ShopProducer::new(kafka, "demo-shop")?;
    let mut sent = 0;
    let mut room = WINDOW;
    for delivery in workload {
        if stop.is_cancelled() {
            break;
        }
        if room == 0 {
            room = wait_for_room(sent, followers, stop)?;
        }
        producer.send(topic, delivery.key.as_bytes(), delivery.value.as_deref())?;
        room -= 1;
        sent += 1;
    }
    producer.finish()?;
    Ok(sent)
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
