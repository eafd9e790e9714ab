//! `stock-verifier run`: verifies orders until stopped.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::hangup::{self, Hangup};
use super::instance;
use super::open::{Access, open_for_writing};
use super::reads::Reads;
use super::signals::Signals;
use super::start_checks::TopicsToCheck;
use super::{mappings, retention, start_checks};
use crate::causes;
use crate::config::{
    BatchArgs, DatabaseArgs, GroupArgs, HttpArgs, KafkaArgs, LevelsArgs, MappingArgs, RegistryArgs, TopicArgs,
};
use crate::ledger::TopicPartition;
use crate::observe::{Metrics, Observed, Totals, Traces};
use crate::pipeline::{self, PipelineError, Settings, Stopped, StoppedPartitions};
use crate::store::postgres::Connections;

/// How often the log says how far it is, while there is something to say.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Database connections beside one for each worker: one for where partitions begin, one each for levels and holds.
pub(super) const CONNECTIONS_BACKGROUND: u32 = 3;
/// And those that read by key.
pub(super) const CONNECTIONS_READERS: u32 = 2;
/// Exit status when a second signal cut a stop short: 128 and SIGINT's number, as shells have it.
const EXIT_ABORTED: i32 = 130;

/// How often the log says that partitions are stopped, while they are.
const STOPPED_SAY: Duration = Duration::from_secs(60);
/// Exit status when a partition stopped, since something of it cannot be published or it may not be read on: a person must
/// look.
const EXIT_STUCK: u8 = 3;

/// Exit status when a stop left something in hand to the next start, since Kafka or the database was away:
/// `EX_TEMPFAIL` of `sysexits.h`.
const EXIT_UNFINISHED: u8 = 75;

/// The arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct RunArgs {
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
    /// so are results that were not published yet. Ids decided before are absorbed, or are dead letters where their content
    /// differs. Give it for one start, not for ever.
    #[arg(long, env = "STOCK_VERIFIER_ACCEPT_DATA_LOSS")]
    accept_data_loss: bool,

    /// Take over a ledger that is another consumer group's: that group must not run any more
    ///
    /// What the ledger decided and does not know to be published is published by this group. Give it for one start.
    #[arg(long, env = "STOCK_VERIFIER_TAKE_OVER_LEDGER")]
    take_over_ledger: bool,

    /// Longest a stop may take; then the process ends all the same, with status 75, and leaves what it has in hand to the
    /// next start
    ///
    /// Finishing takes moments where Kafka and the database answer. Also for calls into librdkafka that hang.
    #[arg(long, env = "STOCK_VERIFIER_STOP_TIMEOUT", value_name = "TIME", default_value = "10s",
          value_parser = humantime::parse_duration)]
    stop_timeout: Duration,

    /// Run although the orders' or the adjustments' topic is compacted: Kafka removes commands from it, unread ones too
    #[arg(long, env = "STOCK_VERIFIER_ACCEPT_COMPACTED_TOPICS")]
    accept_compacted_topics: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    levels: LevelsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    mappings: MappingArgs,
}

/// Verifies until SIGTERM or Ctrl-C, then finishes the batches in hand. A second signal ends at once.
///
/// # Errors
/// When a server cannot be reached, a topic is missing, or going on would not be exact.
pub async fn run(args: RunArgs) -> Result<ExitCode> {
    args.topics.check()?;
    let mappings = mappings::load(&args.mappings, &args.topics)?;
    let mut group = args.group;
    let _claim = instance::claim(&mut group);
    let settings = Settings {
        kafka: args.kafka,
        topics: args.topics,
        group,
        batch: args.batch,
        registry: args.registry,
        levels: args.levels,
        workers: usize::from(args.workers),
        accept_data_loss: args.accept_data_loss,
        mappings,
        may_have_older: true,
    };
    let connections = Connections {
        batches: u32::from(args.workers),
        readers: CONNECTIONS_READERS,
        others: CONNECTIONS_BACKGROUND,
    };
    let store = open_for_writing(&args.database, connections, Access::migrating(args.migrate)).await?;
    let topics = TopicsToCheck {
        kafka: settings.kafka.clone(),
        topics: settings.topics.clone(),
        levels: settings.levels.delay().is_some(),
        accept_compacted: args.accept_compacted_topics,
    };
    start_checks::check(&topics).await?;
    start_checks::claim(&*store, &settings.group.group, args.take_over_ledger).await?;
    instance::warn_of_namesake(&settings.kafka, &settings.group).await?;

    let stop = CancellationToken::new();
    let signals = Signals::listen().context("signals cannot be heard")?;
    tokio::spawn(stop_on_signal(signals, stop.clone(), args.stop_timeout));
    let stopped = StoppedPartitions::default();
    let metrics = Metrics::new(&settings.group.group, stopped.clone());
    let traces = Traces::from_environment(&settings.group.group, settings.group.instance(), &settings.topics);
    let observed = Observed { metrics: metrics.clone(), traces };
    tokio::spawn(report(Arc::clone(metrics.totals())));
    tokio::spawn(remind(stopped.clone()));
    tokio::spawn(retention::watch(settings.clone()));
    tracing::info!(
        brokers = settings.kafka.brokers,
        group = settings.group.group,
        instance = settings.group.instance(),
        workers = settings.workers,
        "verifying {} and {}",
        settings.topics.orders_topic,
        settings.topics.adjustments_topic
    );
    let hangups = hangup::listen()?;
    let kafka = settings.kafka.clone();
    let mut ledger = observed.ledger(store.clone());
    let reads =
        Reads::start(&args.http, &args.database, &settings, stopped.clone(), &observed, stop.clone()).await?;
    if let Some(reads) = &reads {
        ledger = reads.server.ledger(ledger);
    }
    let hangup = Hangup {
        database: args.database,
        kafka,
        http: args.http,
        store: store.clone(),
        reads: reads.as_ref().map(Reads::rereads),
        redis: None,
    };
    tokio::spawn(hangup.run(hangups));
    let ended = pipeline::run(settings, ledger, stopped.clone(), observed.clone(), stop).await;
    if let Some(reads) = reads {
        reads.stop().await;
    }
    store.close().await;
    if let Some(traces) = observed.traces {
        traces.stop().await;
    }
    let total = metrics.totals().so_far();
    tracing::info!(
        accepted = total.accepted,
        rejected = total.rejected,
        dead_letters = total.dead_letters,
        absorbed = total.absorbed,
        ignored = total.ignored,
        republished = total.republished,
        "stopped"
    );
    let unfinished = match ended {
        Err(unfinished @ PipelineError::Unfinished(_)) => {
            tracing::warn!("{}", causes::of(&unfinished));
            true
        }
        ended => ended.map(|()| false)?,
    };
    let stopped = stopped.all();
    if !stopped.is_empty() {
        tracing::error!("partitions were stopped, and a person must look: {}", named(&stopped));
        return Ok(ExitCode::from(EXIT_STUCK));
    }
    Ok(if unfinished { ExitCode::from(EXIT_UNFINISHED) } else { ExitCode::SUCCESS })
}

/// Cancels at the first SIGTERM or Ctrl-C; ends the process at the second, or when stopping takes too long.
pub(super) async fn stop_on_signal(mut signals: Signals, stop: CancellationToken, limit: Duration) {
    signals.next().await;
    tracing::info!("stopping: finishing the batches in hand (a second signal ends at once)");
    stop.cancel();
    tokio::select! {
        () = signals.next() => {
            tracing::warn!("ended by a second signal");
            std::process::exit(EXIT_ABORTED);
        }
        () = tokio::time::sleep(limit) => {
            tracing::warn!(
                "stopping took longer than {limit:?} (--stop-timeout); ending all the same: the next start finishes what \
                 is in hand"
            );
            std::process::exit(EXIT_UNFINISHED.into());
        }
    }
}

/// The partitions that are stopped, and why each is.
fn named(stopped: &[(TopicPartition, Stopped)]) -> String {
    let named: Vec<_> = stopped.iter().map(|(at, stopped)| format!("{at} ({})", stopped.why)).collect();
    named.join("; ")
}

/// Says in the log, from time to time, that partitions are stopped: the line that says why is far up by then.
async fn remind(stopped: StoppedPartitions) {
    loop {
        tokio::time::sleep(STOPPED_SAY).await;
        let stopped = stopped.all();
        if !stopped.is_empty() {
            tracing::error!("partitions are stopped, and others go on: {}", named(&stopped));
        }
    }
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
                "said"
            );
            before = records;
        }
    }
}
