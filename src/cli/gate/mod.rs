//! `stock-verifier gate`: lets orders in by HTTP until stopped; `open`, `close` and `status` are a sale's.

mod sale;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use secrecy::ExposeSecret as _;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::sale::SaleCommand;
use super::hangup::{self, Hangup, RedisAgain};
use super::open::{Access, open_ledger};
use super::reads::{Rereads, Source};
use super::run::stop_on_signal;
use super::signals::Signals;
use crate::config::{DatabaseArgs, HttpArgs, KafkaArgs, RedisArgs, TopicArgs};
use crate::gate::cache::RedisSettings;
use crate::gate::{CLIENT_ID, Gate, Settings, WhenCacheIsAway};
use crate::http::{Api, Metrics, Token};
use crate::kafka::probe::probe;
use crate::kafka::topics::Topics;
use crate::observe::{CONTENT_TYPE, GateMetrics};
use crate::store::postgres::Connections;

/// Connections to PostgreSQL: levels, decisions and positions are read one after the other, each by its task.
const CONNECTIONS: Connections = Connections { batches: 1, readers: 3, others: 1 };

/// The arguments of `gate`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GateArgs {
    #[command(subcommand)]
    command: Option<SaleCommand>,

    #[command(flatten)]
    run: RunArgs,
}

/// What is done with orders while the cache is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhenAway {
    /// They pass without a judgement: the verifier decides, and Kafka has all of them.
    Admit,
    /// They are refused for now.
    Refuse,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What is done with orders while Redis is away, or is being filled from the ledger
    #[arg(long, env = "STOCK_VERIFIER_WHEN_CACHE_IS_AWAY", value_enum, default_value_t = WhenAway::Refuse)]
    when_cache_is_away: WhenAway,

    /// Orders at the door at once; who comes when there are so many is told to ask again
    #[arg(long, env = "STOCK_VERIFIER_MOST_ORDERS", value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    most_orders: u32,

    /// After so long without a result it is looked whether an order was decided at all; longer than one may be under way to
    /// Kafka
    #[arg(long, env = "STOCK_VERIFIER_ENTRY_BOUND", value_name = "TIME", default_value = "15s",
          value_parser = humantime::parse_duration)]
    entry_bound: Duration,

    /// Publish no levels; the levels topic need not be there
    #[arg(long, env = "STOCK_VERIFIER_NO_LEVELS")]
    no_levels: bool,

    /// Longest a stop may take; then the process ends all the same, and entries of orders that were being sent end by their
    /// bound
    #[arg(long, env = "STOCK_VERIFIER_STOP_TIMEOUT", value_name = "TIME", default_value = "10s",
          value_parser = humantime::parse_duration)]
    stop_timeout: Duration,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    http: HttpArgs,
}

/// How to reach Redis.
pub(super) fn redis_settings(args: &RedisArgs) -> Result<RedisSettings> {
    Ok(RedisSettings {
        url: args.url(),
        password: args.password()?,
        prefix: args.redis_prefix.clone(),
        remember: args.redis_remember,
    })
}

/// Lets orders in until stopped, or does what a sale needs.
///
/// # Errors
/// When a server cannot be reached, or something is not as it must be.
pub async fn run(args: GateArgs) -> Result<ExitCode> {
    match args.command {
        Some(command) => sale::run(command).await,
        None => let_in(args.run).await,
    }
}

/// Checks that the topics are there that a gate writes and reads.
async fn check_topics(args: &RunArgs) -> Result<()> {
    let (kafka, topics, no_levels) = (args.kafka.clone(), args.topics.clone(), args.no_levels);
    spawn_blocking(move || {
        let asked = Topics::connect(&kafka, CLIENT_ID)?;
        let levels = (!no_levels).then_some(&topics.levels_topic);
        let needed =
            [&topics.orders_topic, &topics.accepted_topic, &topics.rejected_topic].into_iter().chain(levels);
        needed.into_iter().try_for_each(|topic| asked.partitions(topic).map(drop))
    })
    .await
    .context("asking Kafka panicked")?
}

async fn let_in(args: RunArgs) -> Result<ExitCode> {
    args.topics.check()?;
    let Some(listen) = args.http.http_listen else {
        bail!("a gate answers over HTTP: say where (--http-listen 127.0.0.1:8080)");
    };
    let token = args.http.token()?.map(|token| Token::new(token.expose_secret()));
    let store = open_ledger(&args.database, CONNECTIONS, Access::Read).await?;
    check_topics(&args).await?;
    let source = Source::open(&args.http, &args.database).await?;
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let metrics = GateMetrics::new();
    let rendered = metrics.clone();
    let api = Api {
        levels: None,
        live: None,
        queries: source.queries(),
        kafka: Box::new(probe(&args.kafka, &args.topics.orders_topic)?),
        stopped: Box::new(Vec::new),
        stopping: stop.clone(),
        metrics: Some(Metrics { render: Arc::new(move || rendered.render()), content_type: CONTENT_TYPE }),
        token,
        watch: None,
    };
    let settings = Settings {
        kafka: args.kafka.clone(),
        topics: args.topics,
        follow_levels: !args.no_levels,
        redis: redis_settings(&args.redis)?,
        when_away: match args.when_cache_is_away {
            WhenAway::Admit => WhenCacheIsAway::Admit,
            WhenAway::Refuse => WhenCacheIsAway::Refuse,
        },
        entry_bound: args.entry_bound,
        most_orders: usize::try_from(args.most_orders).unwrap_or(usize::MAX),
    };
    let signals = Signals::listen().context("signals cannot be heard")?;
    tokio::spawn(stop_on_signal(signals, stop.clone(), args.stop_timeout));
    let hangups = hangup::listen()?;
    let gate = Gate::start(settings, listen, api, store.clone(), Arc::new(metrics), ended.clone()).await?;
    tracing::info!("letting orders in, and answering reads, probes and metrics at http://{}", gate.address());
    let rereads = Rereads { source: source.clone(), change_token: Box::new(gate.change_token()) };
    let hangup = Hangup {
        database: args.database,
        kafka: args.kafka,
        http: args.http,
        store: store.clone(),
        reads: Some(rereads),
        redis: Some(RedisAgain { args: args.redis, change: Box::new(gate.change_redis_password()) }),
    };
    tokio::spawn(hangup.run(hangups));
    let failed = tokio::select! {
        () = stop.cancelled() => false,
        () = ended.cancelled() => true,
    };
    gate.stop().await;
    source.close().await;
    store.close().await;
    if failed {
        bail!("results cannot be read any more");
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
