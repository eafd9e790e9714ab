//! The demo that goes on: a shop that is open, until it is stopped; then the proof.

mod proof;
mod readback;
mod shop;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::{block_in_place, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::readback::Reader;
use self::shop::Shop;
use super::stage::Stage;
use super::{Options, ledger_file, print_line, remove, workload};
use crate::config::{KafkaArgs, TopicArgs};
use crate::kafka::in_process::{ShopProducer, Tail};
use crate::ledger::{NextOffset, TopicPartition};
use crate::observe::Totals;

/// The sample stock is that for so many orders: little enough that some SKUs run out within a minute.
const STOCKED_ORDERS: u32 = 12_000;
/// How often the shop produces what has come meanwhile.
const TICK: Duration = Duration::from_millis(10);
/// Records that may be on their way: the broker in this process drops records of a partition past 5 MiB.
const WINDOW: u64 = 6_000;
/// Longest wait until less are on their way, before something must be broken.
const STALLED: Duration = Duration::from_secs(30);
/// How often to look whether all is decided.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time without any progress, once nothing is produced any more, before it is called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(15);

/// Serves until `stop`, proves and reports; whether every invariant holds. Of the options, how many orders there are counts
/// nothing.
///
/// # Errors
/// When the ledger's file, the broker or the verifier fails.
pub async fn serve(options: &Options, stop: &CancellationToken) -> Result<bool> {
    let file = ledger_file(options.ledger.as_deref())?;
    let mut stage = Stage::set(&file, options.batch, options.http_listen).await?;
    let address = stage.address();
    print_line(&format!("Watch it: http://{address}/"))?;
    print_line(&format!("Ask it: curl http://{address}/v1/stock/FLASH-CONSOLE (docs/http.md)"))?;
    print_line(&format!("Broker in this process: {} (kcat -b {0} -L)", stage.broker.kafka.brokers))?;
    print_line(&format!("Ledger: {}", file.display()))?;
    let seen = Arc::new(AtomicU64::new(0));
    let reader = Reader::new(&stage.broker, Arc::clone(&seen))?;
    let published = CancellationToken::new();
    let _read = published.clone().drop_guard();
    let reading = spawn_blocking({
        let published = published.clone();
        move || reader.run(&published)
    });
    stage.begin(&workload::stock(options.seed, STOCKED_ORDERS), options.seed).await?;
    print_line("Orders flow, holds expire, returns come. Ctrl-C ends it, and proves the ledger.")?;
    // The shop closes however this ends.
    let closing = stop.child_token();
    let _closed = closing.clone().drop_guard();
    let mut sales = spawn_blocking({
        let (kafka, topics) = (stage.broker.kafka.clone(), stage.broker.topics.clone());
        let totals = Arc::clone(stage.totals());
        let (own_shop, closing) = (Shop::new(options.seed), closing.clone());
        move || open(&kafka, &topics, own_shop, &totals, &seen, &closing)
    });
    let closed = loop {
        tokio::select! {
            closed = &mut sales => break closed,
            () = tokio::time::sleep(LOOK) => stage.ended_early().await?,
        }
    };
    closed.context("the shop panicked")??;
    print_line("No more orders; the rest is published and proved (Ctrl-C again ends at once).")?;
    decide_all(&mut stage).await?;
    let totals = Arc::clone(stage.totals());
    // The broker is read to its end.
    let (store, _broker) = stage.end().await?;
    published.cancel();
    let read = reading.await.context("reading back panicked")??;
    let since = Instant::now();
    let claims = proof::prove(&*store, &read).await?;
    store.close().await;
    print_line(&proof::summary(&totals.so_far(), &claims))?;
    print_line(&format!("Proved in {:.1} s.", since.elapsed().as_secs_f64()))?;
    let holds = claims.iter().all(super::proof::Claim::holds);
    print_line(&last_line(holds, &file, options.ledger.is_some()))?;
    Ok(holds)
}

fn last_line(holds: bool, file: &Path, is_kept: bool) -> String {
    if !holds {
        return format!("Not every invariant holds. The ledger is left in {}", file.display());
    }
    if is_kept {
        return format!("All six hold. The ledger is in {}", file.display());
    }
    remove(file);
    "All six hold. The ledger is removed again; keep it with --ledger FILE.".to_owned()
}

/// Produces what the shop has, until it closes, and no faster than it is verified and read back. Blocks.
fn open(
    kafka: &KafkaArgs,
    topics: &TopicArgs,
    mut shop: Shop,
    totals: &Totals,
    seen: &AtomicU64,
    closing: &CancellationToken,
) -> Result<()> {
    let producer = ShopProducer::new(kafka, "demo-shop")?;
    let opened = Instant::now();
    let mut sent: u64 = 0;
    let mut moved = Instant::now();
    while !closing.is_cancelled() {
        let followed = totals.so_far().records().min(seen.load(Ordering::Relaxed));
        if sent.saturating_sub(followed) < WINDOW {
            moved = Instant::now();
            for record in shop.until(opened.elapsed()) {
                let topic =
                    if record.is_adjustment { &topics.adjustments_topic } else { &topics.orders_topic };
                producer.send(topic, record.key.as_bytes(), record.value.as_deref())?;
                sent += 1;
            }
        } else if moved.elapsed() > STALLED {
            bail!(
                "of {sent} records {followed} are published and read back, and nothing moved for {STALLED:?}"
            );
        }
        std::thread::sleep(TICK);
    }
    producer.finish()
}

/// Waits until the ledger stands at the end of every partition. The verifier's own questions may come even then. Stops
/// waiting, but does not fail, when nothing moves any more: the proof then says what is missing.
async fn decide_all(stage: &mut Stage) -> Result<()> {
    let topics = stage.broker.topics.clone();
    let partitions: Vec<TopicPartition> = topics
        .read()
        .into_iter()
        .flat_map(|topic| {
            let topic: Arc<str> = topic.into();
            (0..super::broker::PARTITIONS)
                .map(move |partition| TopicPartition::new(Arc::clone(&topic), partition))
        })
        .collect();
    let tail = Tail::new(&stage.broker.kafka, "demo-ends", &[])?;
    let ends = |tail: &Tail| partitions.iter().map(|at| tail.end(at)).collect::<Result<Vec<NextOffset>>>();
    // What comes after are questions of the verifier itself.
    let ends = block_in_place(|| ends(&tail))?;
    let (mut before, mut moved) = (0, Instant::now());
    loop {
        let positions = stage.store.positions(&partitions).await?;
        let reached = |at: &TopicPartition| positions.get(at).map_or(NextOffset(0), |position| position.next);
        if partitions.iter().zip(&ends).all(|(at, end)| reached(at) >= *end) {
            return Ok(());
        }
        let done: i64 = partitions.iter().map(|at| reached(at).0).sum();
        if done != before {
            (before, moved) = (done, Instant::now());
        } else if moved.elapsed() > STUCK_AFTER {
            tracing::error!(
                "not all is decided, and nothing moved for {STUCK_AFTER:?}; going on to the proof"
            );
            return Ok(());
        }
        stage.ended_early().await?;
        tokio::time::sleep(LOOK).await;
    }
}
