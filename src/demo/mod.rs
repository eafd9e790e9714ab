//! The demo: the main job with nothing installed.
//!
//! The order of the play: a ledger file, a broker in this process, sample
//! stock, a stream of orders, the very verifier that `run` runs, and then
//! the proof: the ledger and the topics read back.

mod broker;
mod feed;
pub mod proof;
pub mod readback;
mod report;
pub mod workload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::HumanCount;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::broker::{Broker, PARTITIONS};
use self::feed::Followers;
use self::readback::{Evidence, Reader, Seen};
use self::workload::Workload;
use crate::config::{BatchArgs, GroupArgs, GroupProtocol, LevelsArgs};
use crate::console;
use crate::http::{self, Api, Server};
use crate::kafka::probe::probe;
use crate::ledger::{Command, Id, Outcome, Request, Sku, TopicPartition};
use crate::observe::{CONTENT_TYPE, Metrics, Tally, Totals};
use crate::pipeline::{self, Settings, StoppedPartitions};
use crate::replay::Progress;
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{CommandBatch, LedgerAdmin as _, Store};

/// SKUs stocked in one batch.
const STOCK_BATCH: usize = 500;
/// Longest wait for the group to be joined; the broker in this process lets a first member wait 3 s.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// Longest time without anything published, once everything is produced, before it is called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// Longest time until a level's change is published: the default of `run`.
const LEVELS_DELAY: Duration = Duration::from_millis(500);
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
    let store = open(file).await?;
    let broker = Broker::start()?;
    print_line(&format!("Broker in this process: {} (kcat -b {0} -L)", broker.kafka.brokers))?;
    print_line(&format!("Ledger: {}", file.display()))?;

    let settings = settings(&broker, options.batch);
    let stopped = StoppedPartitions::default();
    let metrics = Metrics::new(&settings.group.group, stopped.clone());
    let totals = metrics.totals();
    let readers: Arc<dyn Store> = Arc::new(SqliteStore::open_for(&url(file), FileAccess::Read).await?);
    let api = api(&readers, &settings, stopped.clone(), metrics.clone())?;
    let server = Server::start(options.http_listen, api).await?;
    let address = server.address();
    print_line(&format!("Ask it: curl http://{address}/v1/stock/FLASH-CONSOLE (docs/http.md)"))?;
    let seen = Arc::new(Seen::default());
    // Cancelled when everything is published: for the verifier to leave, and for the reader to read the rest and end.
    let done = CancellationToken::new();
    let _done = done.clone().drop_guard();
    let reader = Reader::new(&broker, Arc::clone(&seen))?;
    let reading = spawn_blocking({
        let done = done.clone();
        move || reader.run(&done)
    });
    let mut verifying = tokio::spawn(pipeline::run(
        settings,
        server.ledger(metrics.ledger(store.clone())),
        stopped,
        metrics.clone(),
        done.clone(),
    ));

    let stocked = stock(&*store, options).await?;
    print_line(&format!("Stock: {stocked} SKUs, seed {}", options.seed))?;
    print_line("Joining the group (this broker lets a first member wait 3 s) …")?;
    joined(&*store, &broker, &mut verifying).await?;
    print_line(&format!(
        "Verifying {} orders and what comes with them …",
        HumanCount(options.orders.into())
    ))?;

    let started = Instant::now();
    let stop = CancellationToken::new();
    let feeding = spawn_blocking({
        let stop = stop.clone();
        let (kafka, topic) = (broker.kafka.clone(), broker.topics.orders_topic.clone());
        let workload = Workload::new(options.seed, options.orders);
        let followers = Followers { totals: Arc::clone(totals), seen };
        move || feed::feed(&kafka, &topic, workload, &followers, &stop)
    });
    let (progress, shown) = show();
    progress.expect(u64::from(options.orders) * RECORDS_PER_100 / 100);
    let published = publish_all(&progress, &stop, feeding, &mut verifying, totals).await;
    let took = started.elapsed();
    drop(shown);
    done.cancel();
    if !verifying.is_finished() {
        verifying.await.context("the verifier panicked")??;
    }
    server.stop().await;
    readers.close().await;
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

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

/// What the read API of the demo answers from.
fn api(
    readers: &Arc<dyn Store>,
    settings: &Settings,
    stopped: StoppedPartitions,
    metrics: Metrics,
) -> Result<Api> {
    Ok(Api {
        queries: readers.clone(),
        levels: None,
        kafka: Box::new(probe(&settings.kafka, &settings.topics.orders_topic)?),
        stopped: Box::new(move || {
            stopped.all().into_iter().map(|(at, stopped)| (at, stopped.since)).collect()
        }),
        metrics: Some(http::Metrics {
            render: Arc::new(move || metrics.render()),
            content_type: CONTENT_TYPE,
        }),
        token: None,
        watch: None,
    })
}

async fn open(file: &Path) -> Result<Arc<dyn Store>> {
    let store = SqliteStore::open(&url(file))
        .await
        .with_context(|| format!("cannot open the ledger {}", file.display()))?;
    store.migrate().await?;
    Ok(Arc::new(store))
}

fn settings(broker: &Broker, batch: BatchArgs) -> Settings {
    Settings {
        kafka: broker.kafka.clone(),
        topics: broker.topics.clone(),
        group: GroupArgs {
            group: "stock-verifier".to_owned(),
            instance_id: Some("demo".to_owned()),
            transactional_id: None,
            group_protocol: GroupProtocol::Classic,
        },
        batch,
        levels: LevelsArgs { levels_delay: LEVELS_DELAY, no_levels: false },
        workers: 1,
        accept_data_loss: false,
        may_have_older: false,
    }
}

/// Puts the sample stock into the ledger, the way an operator does.
async fn stock(store: &dyn Store, options: &Options) -> Result<usize> {
    let stock = workload::stock(options.seed, options.orders);
    for batch in stock.chunks(STOCK_BATCH) {
        let requests = batch
            .iter()
            .map(|item| {
                let id = Id::new(&format!("demo-stock-{}", item.sku))?;
                let command = Command::stock_set(id, Sku::new(&item.sku)?.into(), item.available, None);
                Ok(Request { command, source: None })
            })
            .collect::<Result<_>>()?;
        let applied = store.apply(&CommandBatch { advances: Vec::new(), requests, epoch: None }).await?;
        if !applied
            .outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Decided(decision) if decision.accepted))
        {
            bail!("the ledger did not take the sample stock");
        }
    }
    Ok(stock.len())
}

/// Waits until the verifier owns every partition: it then says in the ledger where it begins.
async fn joined(store: &dyn Store, broker: &Broker, verifying: &mut JoinHandle<Result<()>>) -> Result<()> {
    let topic: Arc<str> = broker.topics.orders_topic.as_str().into();
    let partitions: Vec<_> =
        (0..PARTITIONS).map(|partition| TopicPartition::new(Arc::clone(&topic), partition)).collect();
    let since = Instant::now();
    while store.positions(&partitions).await?.len() < partitions.len() {
        ended_early(verifying).await?;
        if since.elapsed() > JOIN_LIMIT {
            bail!("the verifier did not join its group within {JOIN_LIMIT:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The verifier runs until it is stopped; when it ended before, this says why.
async fn ended_early(verifying: &mut JoinHandle<Result<()>>) -> Result<()> {
    if verifying.is_finished() {
        verifying.await.context("the verifier panicked")??;
        bail!("the verifier ended before it was stopped");
    }
    Ok(())
}

/// Reports how far it is until every record is published; no more orders come once the work shall stop. Stops waiting, but
/// does not fail, when nothing is published any more: the proof then says what is missing.
async fn publish_all(
    progress: &Progress,
    stop: &CancellationToken,
    mut feeding: JoinHandle<Result<u64>>,
    verifying: &mut JoinHandle<Result<()>>,
    totals: &Totals,
) -> Result<()> {
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
        ended_early(verifying).await?;
        tokio::time::sleep(LOOK).await;
    }
}
