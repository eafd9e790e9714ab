//! The demo: the main job with nothing installed.
//!
//! The order of the play: a ledger file, a broker in this process, sample
//! stock, a stream of orders, the very verifier that `run` runs, and then
//! the proof: the ledger and the topics read back. [`serve`] goes on instead, until it is stopped.

mod broker;
mod feed;
pub mod proof;
pub mod readback;
mod report;
mod serve;
mod stage;
mod topic_tail;
pub mod workload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::HumanCount;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::feed::Followers;
use self::readback::{Evidence, Reader, Seen};
pub use self::serve::serve;
use self::stage::Stage;
use self::workload::Workload;
use crate::config::BatchArgs;
use crate::console;
use crate::observe::Tally;
use crate::replay::Progress;
use crate::store::Store;

/// Longest time without anything published, once everything is produced, before it is called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// How many records come for 100 orders, more or less: repetitions, conflicts and garbage come on top.
const RECORDS_PER_100: u64 = 104;

/// What is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many orders; repetitions, conflicts and garbage come on top.
    pub orders: u32,
    /// The same seed makes the same stock and orders.
    pub seed: u64,
    /// Where the ledger is kept; else it is in the temp directory and removed at the end.
    pub ledger: Option<PathBuf>,
    /// Where reads, probes and metrics are answered over HTTP.
    pub http_listen: SocketAddr,
    /// What bounds a batch.
    pub batch: BatchArgs,
}

/// What was played: the ledger still open, and what the topics held.
pub struct Played {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// What was read back.
    pub evidence: Evidence,
    /// What was published.
    pub total: Tally,
    /// From the first order produced to the last record published.
    pub took: Duration,
    /// From produced to published, at the 50th, 95th and 99th percentile.
    pub latencies: [Duration; 3],
}

/// Plays, proves and reports; whether every invariant holds.
///
/// `show` begins to show how far it is, as long as what it returns beside lives, and may stop the orders.
///
/// # Errors
/// When the ledger's file, the broker or the verifier fails.
pub async fn run<S>(options: &Options, show: impl FnOnce() -> (Progress, S)) -> Result<bool> {
    let file = ledger_file(options.ledger.as_deref())?;
    let played = play(options, &file, show).await?;
    let since = Instant::now();
    let proof = proof::prove(&*played.store, &played.evidence).await?;
    played.store.close().await;
    print_line(&report::summary(&played, &proof))?;
    print_line(&format!("Read back and proved in {:.1} s.", since.elapsed().as_secs_f64()))?;
    if !proof.holds() {
        print_line(&format!("Not every invariant holds. The ledger is left in {}", file.display()))?;
        return Ok(false);
    }
    if options.ledger.is_some() {
        print_line(&format!("All six hold. The ledger is in {}", file.display()))?;
    } else {
        remove(&file);
        print_line("All six hold. The ledger is removed again; keep it with --ledger FILE.")?;
    }
    Ok(true)
}

/// Plays: everything up to the proof.
///
/// # Errors
/// When the ledger's file, the broker or the verifier fails.
pub async fn play<S>(options: &Options, file: &Path, show: impl FnOnce() -> (Progress, S)) -> Result<Played> {
    let mut stage = Stage::set(file, options.batch, options.http_listen).await?;
    print_line(&format!("Broker in this process: {} (kcat -b {0} -L)", stage.broker.kafka.brokers))?;
    print_line(&format!("Ledger: {}", file.display()))?;
    print_line(&format!("Ask it: curl http://{}/v1/stock/FLASH-CONSOLE (docs/http.md)", stage.address()))?;
    let seen = Arc::new(Seen::default());
    let reader = Reader::new(&stage.broker, Arc::clone(&seen))?;
    let reading = spawn_blocking({
        let done = stage.done.clone();
        move || reader.run(&done)
    });
    stage.begin(&workload::stock(options.seed, options.orders), options.seed).await?;
    print_line(&format!(
        "Verifying {} orders and what comes with them …",
        HumanCount(options.orders.into())
    ))?;

    let started = Instant::now();
    let stop = CancellationToken::new();
    let feeding = spawn_blocking({
        let stop = stop.clone();
        let (kafka, topic) = (stage.broker.kafka.clone(), stage.broker.topics.orders_topic.clone());
        let workload = Workload::new(options.seed, options.orders);
        let followers = Followers { totals: Arc::clone(stage.totals()), seen };
        move || feed::feed(&kafka, &topic, workload, &followers, &stop)
    });
    let (progress, shown) = show();
    progress.expect(u64::from(options.orders) * RECORDS_PER_100 / 100);
    let published = publish_all(&progress, &stop, feeding, &mut stage).await;
    let took = started.elapsed();
    drop(shown);
    let totals = Arc::clone(stage.totals());
    // The broker is read to its end.
    let (store, _broker) = stage.end().await?;
    published?;
    let evidence = reading.await.context("reading back panicked")??;
    Ok(Played {
        store,
        evidence,
        total: totals.so_far(),
        took,
        latencies: [0.50, 0.95, 0.99].map(|quantile| totals.latency(quantile)),
    })
}

fn print_line(line: &str) -> Result<()> {
    console::print(&format!("{line}\n"))
}

/// The ledger's file, made now and empty: so that no other process, and no earlier demo, has it.
fn ledger_file(named: Option<&Path>) -> Result<PathBuf> {
    let file = named.map_or_else(
        || std::env::temp_dir().join(format!("stock-verifier-demo-{}.db", std::process::id())),
        Path::to_path_buf,
    );
    match std::fs::File::create_new(&file) {
        Ok(_) => Ok(file),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
            "{} exists already: each demo begins with a new broker, so it needs a new ledger. Remove the file or \
             name another",
            file.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot create the ledger {}", file.display())),
    }
}

/// Removes the ledger and what SQLite keeps beside it.
fn remove(file: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        // SQLite removes its own files when it closes well; what is left over is only a temporary file.
        let _ = std::fs::remove_file(path);
    }
}

/// Reports how far it is until every record is published; no more orders come once the work shall stop. Stops waiting, but
/// does not fail, when nothing is published any more: the proof then says what is missing.
async fn publish_all(
    progress: &Progress,
    stop: &CancellationToken,
    mut feeding: JoinHandle<Result<u64>>,
    stage: &mut Stage,
) -> Result<()> {
    let totals = Arc::clone(stage.totals());
    let mut fed: Option<u64> = None;
    let (mut published, mut moved) = (0, Instant::now());
    loop {
        let before = std::mem::replace(&mut published, totals.so_far().records());
        if published != before {
            moved = Instant::now();
        }
        if progress.add(usize::try_from(published - before).unwrap_or(usize::MAX)).is_err() {
            stop.cancel();
        }
        match fed {
            Some(fed) if published >= fed => return Ok(()),
            Some(fed) if moved.elapsed() > STUCK_AFTER => {
                tracing::error!(
                    "{published} of {fed} records are published and nothing moved for {STUCK_AFTER:?}; going on to the \
                     proof"
                );
                return Ok(());
            }
            None if feeding.is_finished() => {
                fed = Some((&mut feeding).await.context("producing panicked")??);
                continue;
            }
            _ => {}
        }
        stage.ended_early().await?;
        tokio::time::sleep(LOOK).await;
    }
}
