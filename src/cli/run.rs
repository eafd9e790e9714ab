//! `stock-verifier run`: verifies orders until stopped.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::open_for_writing;
use crate::config::{BatchArgs, DatabaseArgs, GroupArgs, KafkaArgs, LevelsArgs, TopicArgs};
use crate::store::postgres::Connections;
use crate::tally::Totals;
use crate::verifier::{self, Settings};

/// Longest wait for the brokers when starting.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a topic to appear: one just created is not known to every broker yet.
const TOPICS_LIMIT: Duration = Duration::from_secs(3);
/// How often to look for it.
const TOPICS_LOOK: Duration = Duration::from_millis(100);
/// Longest a stop may take before the process ends all the same; a hung consumer close must not keep it
/// (rust-rdkafka#453, #509).
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often the log says how far it is, while there is something to say.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Database connections beside one for each worker: one for where partitions begin, one each for levels and holds.
const CONNECTIONS_BESIDE: u32 = 3;
/// Exit status when a second signal cut a stop short: 128 and SIGINT's number, as shells have it.
const EXIT_ABORTED: i32 = 130;

/// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    levels: LevelsArgs,
    #[command(flatten)]
    database: DatabaseArgs,

    /// Pipelines in this process, each a member of the group
    #[arg(long, env = "STOCK_VERIFIER_WORKERS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,

    /// Create or update the ledger's tables first
    #[arg(long, env = "STOCK_VERIFIER_MIGRATE")]
    migrate: bool,

    /// Go on from the earliest record left where records are gone from a topic, or the topic was made anew
    ///
    /// Of a topic made anew all is decided, from its first record on. What of the one before was not decided is gone, and
    /// so are results that were not told yet. Ids decided before are absorbed, or are dead letters where their content
    /// differs. Give it for one start, not for ever.
    #[arg(long, env = "STOCK_VERIFIER_ACCEPT_DATA_LOSS")]
    accept_data_loss: bool,
}

/// Verifies until SIGTERM or Ctrl-C, then finishes the batches in hand. A second signal ends at once.
///
/// # Errors
/// When a server cannot be reached, a topic is missing, or going on would not be exact.
pub async fn run(args: RunArgs) -> Result<ExitCode> {
    let settings = Settings {
        kafka: args.kafka,
        topics: args.topics,
        group: args.group,
        batch: args.batch,
        levels: args.levels,
        workers: usize::from(args.workers),
        accept_data_loss: args.accept_data_loss,
    };
    let connections = Connections { batches: u32::from(args.workers), others: CONNECTIONS_BESIDE };
    let store = open_for_writing(&args.database, connections, args.migrate).await?;
    let reached = settings.clone();
    tokio::task::spawn_blocking(move || check_kafka(&reached)).await??;

    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let totals = Arc::new(Totals::default());
    tokio::spawn(report(Arc::clone(&totals)));
    tracing::info!(
        brokers = settings.kafka.brokers,
        group = settings.group.group,
        instance = settings.group.instance_id,
        workers = settings.workers,
        "verifying {} and {}",
        settings.topics.orders_topic,
        settings.topics.adjustments_topic
    );
    let ended = verifier::run(settings, Arc::clone(&store), Arc::clone(&totals), stop).await;
    store.close().await;
    let total = totals.so_far();
    tracing::info!(
        accepted = total.accepted,
        rejected = total.rejected,
        dead_letters = total.dead_letters,
        absorbed = total.absorbed,
        told_again = total.told_again,
        "stopped"
    );
    ended.map(|()| ExitCode::SUCCESS)
}

/// Cancels at the first SIGTERM or Ctrl-C; ends the process at the second, or when stopping takes too long.
async fn stop_on_signal(stop: CancellationToken) {
    if let Err(error) = signal().await {
        tracing::error!(%error, "signals cannot be heard");
        return;
    }
    tracing::info!("stopping: finishing the batches in hand (a second signal ends at once)");
    stop.cancel();
    tokio::select! {
        _ = signal() => {
            tracing::warn!("ended by a second signal");
            std::process::exit(EXIT_ABORTED);
        }
        () = tokio::time::sleep(STOP_LIMIT) => {
            tracing::warn!("stopping took longer than {STOP_LIMIT:?}; ending all the same, nothing is lost");
            std::process::exit(0);
        }
    }
}

async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Says in the log how far it is, while it moves.
async fn report(totals: Arc<Totals>) {
    let mut before = 0;
    let mut tick = tokio::time::interval(REPORT_EVERY);
    tick.tick().await;
    loop {
        tick.tick().await;
        let total = totals.so_far();
        let records = total.records();
        if records != before {
            let rate = (records - before) / REPORT_EVERY.as_secs();
            tracing::info!(
                rate,
                accepted = total.accepted,
                rejected = total.rejected,
                dead_letters = total.dead_letters,
                p99 = ?totals.latency(0.99),
                "told"
            );
            before = records;
        }
    }
}

/// Remembers the last error of a client, to say why a broker could not be reached.
#[derive(Default)]
struct LastError(std::sync::Mutex<Option<String>>);

impl ClientContext for LastError {
    fn error(&self, _: KafkaError, reason: &str) {
        // The latest is the one to show; a poisoned lock only means an older one is shown.
        if let Ok(mut last) = self.0.lock() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for LastError {}

/// Checks that the brokers answer and the topics are there, so that a wrong setting is said at once.
fn check_kafka(settings: &Settings) -> Result<()> {
    let mut config = settings.kafka.client()?;
    settings.kafka.overlay(&mut config);
    let consumer: BaseConsumer<LastError> =
        config.create_with_context(LastError::default()).context("the Kafka configuration is refused")?;
    let begun = Instant::now();
    loop {
        let missing = missing_topics(&consumer, settings)?;
        if missing.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > TOPICS_LIMIT {
            bail!(
                "missing on {}: {}. Create what is missing with `stock-verifier topics create`, or name other topics",
                settings.kafka.brokers,
                missing.join(", ")
            );
        }
        std::thread::sleep(TOPICS_LOOK);
    }
}

/// The topics that are needed and not there.
fn missing_topics<'a>(consumer: &BaseConsumer<LastError>, settings: &'a Settings) -> Result<Vec<&'a str>> {
    let metadata = consumer.fetch_metadata(None, REACH_LIMIT).map_err(|error| {
        // Serves the error callbacks that say why.
        let _ = consumer.poll(Duration::from_millis(100));
        let why = consumer.context().0.lock().ok().and_then(|mut last| last.take());
        anyhow!(
            "no answer from Kafka at {} within {REACH_LIMIT:?}: {}. Check --brokers, and the security.protocol, \
             sasl.* and ssl.* properties given with -X",
            settings.kafka.brokers,
            why.unwrap_or_else(|| error.to_string())
        )
    })?;
    let topics = &settings.topics;
    let needed = [
        &*topics.orders_topic,
        &topics.adjustments_topic,
        &topics.accepted_topic,
        &topics.rejected_topic,
        &topics.dead_letter_topic,
    ];
    let levels = settings.levels.delay().map(|_| &*topics.levels_topic);
    let is_there =
        |name: &str| metadata.topics().iter().any(|topic| topic.name() == name && topic.error().is_none());
    Ok(needed.into_iter().chain(levels).filter(|name| !is_there(name)).collect())
}
