//! The read API of `run`.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::open::{Access, open_ledger};
use crate::config::{DatabaseArgs, HttpArgs, PrecheckSource};
use crate::event::{TraceContext, read_level};
use crate::http::{self, Api, AskMembers, LevelCache, Live, Member, Server, Token};
use crate::kafka::following::topic::{Told, TopicFollower};
use crate::kafka::groups::MemberDescription;
use crate::kafka::probe::{members, probe};
use crate::ledger::Stamp;
use crate::observe::{CONTENT_TYPE, Observed, Traces};
use crate::pipeline::{Settings, StoppedPartitions};
use crate::store::postgres::{Connections, Replicas};
use crate::store::{Gathered, LedgerQueries, Store};

/// Connections to PostgreSQL for reads: look-ups by index take a fraction of a millisecond each, so few answer thousands
/// a second. Their own, so that who reads never waits with who decides, nor the other way round.
const CONNECTIONS: Connections = Connections { batches: 1, readers: 4, others: 1 };
/// How many that is. Where replicas are read, the primary has as many.
pub(super) const CONNECTIONS_READS: u32 = CONNECTIONS.batches + CONNECTIONS.readers + CONNECTIONS.others;

/// How much reads stand back where processors are short: a third of the share that a deciding thread gets. Not further, since
/// probes are to be answered too.
const NICENESS: i32 = 5;

/// The read API, with the ledger it reads.
pub(super) struct Reads {
    pub(super) server: Server,
    source: Source,
    serving: Serving,
    /// Keeps the levels in memory up to date, where any are.
    _follower: Option<TopicFollower>,
}

/// The thread that serves: its own, so that thousands who ask take no turn from batches that are decided.
struct Serving(Option<Runtime>);

impl Serving {
    fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("reads")
            .on_thread_start(|| {
                // It is of this thread alone; where it is refused, reads count as much as deciding.
                let _ = rustix::process::nice(NICENESS);
            })
            .enable_all()
            .build();
        Ok(Self(Some(runtime.context("no thread can be started that serves reads")?)))
    }

    /// Runs this there to its end.
    async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        // Holds because it is taken away only when this is dropped.
        let runtime = self.0.as_ref().expect("it runs");
        runtime.spawn(future).await.context("serving reads panicked")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Not waited for, which must not be done here; what was under way is finished before, or was given up.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is read.
#[derive(Clone)]
pub(super) enum Source {
    Ledger(Arc<dyn Store>),
    Replicas(Arc<Replicas>),
}

impl Source {
    pub(super) async fn open(http: &HttpArgs, database: &DatabaseArgs) -> Result<Self> {
        if http.read_database_url.is_empty() {
            return Ok(Self::Ledger(open_ledger(database, CONNECTIONS, Access::Read).await?));
        }
        let url = database.url()?;
        if url.expose().starts_with("sqlite:") {
            bail!("--read-database-url names a replica, and a SQLite ledger has none: leave it out");
        }
        let replicas: Vec<String> =
            http.read_database_url.iter().map(|replica| replica.expose().to_owned()).collect();
        let replicas = Replicas::open(url.expose(), &replicas, url.password(), http.read_max_lag)
            .await
            .context("cannot read from replicas (check --database-url and --read-database-url)")?;
        Ok(Self::Replicas(Arc::new(replicas)))
    }

    pub(super) fn queries(&self) -> Arc<dyn LedgerQueries> {
        match self {
            Self::Ledger(store) => Arc::new(Gathered::new(store.clone())),
            Self::Replicas(replicas) => Arc::new(Gathered::new(replicas.clone())),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Ledger(store) => store.close().await,
            Self::Replicas(replicas) => replicas.close().await,
        }
    }
}

impl Reads {
    /// Listens and serves, where an address is given. It says that it is not ready from when `stopping` is cancelled.
    pub(super) async fn start(
        http: &HttpArgs,
        database: &DatabaseArgs,
        settings: &Settings,
        stopped: StoppedPartitions,
        observed: &Observed,
        stopping: CancellationToken,
    ) -> Result<Option<Self>> {
        let Some(listen) = http.http_listen else { return Ok(None) };
        let token = http.token()?.map(|token| Token::new(token.expose_secret()));
        let (levels, follower) = match follow_levels(http, settings)? {
            Some((levels, follower)) => {
                let counted = Arc::clone(&levels);
                observed.metrics.prechecks(move || counted.answered());
                (Some(levels), Some(follower))
            }
            None => (None, None),
        };
        let serving = Serving::start()?;
        let source = {
            let (http, database) = (http.clone(), database.clone());
            serving.run(async move { Source::open(&http, &database).await }).await??
        };
        let metrics = observed.metrics.clone();
        if let Source::Replicas(replicas) = &source {
            metrics.replicas(replicas);
        }
        let live = Live {
            watched: Arc::new(metrics.clone()),
            instance: settings.group.instance().to_owned(),
            group: settings.group.group.clone(),
            members: Some(ask_members(settings)?),
        };
        let api = Api {
            queries: source.queries(),
            levels,
            kafka: Box::new(probe(&settings.kafka, &settings.topics.orders_topic)?),
            stopped: Box::new(move || {
                stopped.all().into_iter().map(|(at, stopped)| (at, stopped.since)).collect()
            }),
            stopping,
            metrics: Some(http::Metrics {
                render: Arc::new(move || metrics.render()),
                content_type: CONTENT_TYPE,
            }),
            live: Some(live),
            token,
            watch: observed.traces.clone().map(watch),
        };
        let server = match serving.run(Server::start(listen, api)).await? {
            Ok(server) => server,
            Err(error) => {
                source.close().await;
                return Err(error);
            }
        };
        tracing::info!("answering reads, probes and metrics at http://{}", server.address());
        Ok(Some(Self { server, source, serving, _follower: follower }))
    }

    /// How its secrets are changed.
    pub(super) fn rereads(&self) -> Rereads {
        Rereads { source: self.source.clone(), change_token: Box::new(self.server.change_token()) }
    }

    /// Finishes what is under way, and closes its ledger.
    pub(super) async fn stop(self) {
        let Self { server, source, serving, _follower } = self;
        let ended = serving.run(async move {
            server.stop().await;
            source.close().await;
        });
        if let Err(error) = ended.await {
            tracing::error!("{error:#}");
        }
    }
}

/// Asks Kafka who is in the group, as the live page shows it.
fn ask_members(settings: &Settings) -> Result<AskMembers> {
    let ask = members(&settings.kafka, &settings.group.group)?;
    Ok(Box::new(move || {
        let members = ask();
        Box::pin(async move {
            let shown = |member: MemberDescription| Member {
                client_id: member.client_id,
                host: member.host,
                partitions: member
                    .partitions
                    .into_iter()
                    .map(|(topic, partitions)| (topic, partitions.into_iter().collect()))
                    .collect(),
            };
            Ok(members.await?.into_iter().map(shown).collect())
        })
    }))
}

/// Levels in memory, and what keeps them up to date, where prechecks are answered from them.
fn follow_levels(http: &HttpArgs, settings: &Settings) -> Result<Option<(Arc<LevelCache>, TopicFollower)>> {
    if http.precheck_from == PrecheckSource::Database {
        return Ok(None);
    }
    if settings.levels.delay().is_none() {
        bail!(
            "--precheck-from levels-topic follows what --no-levels does not publish: leave one of them out"
        );
    }
    let cache = Arc::new(LevelCache::new(http.read_max_lag));
    let told = {
        let cache = Arc::clone(&cache);
        move |followed| match followed {
            Told::Record(record) => {
                // Another program's record is nothing of ours; the audit names it.
                if let Some((item, level)) = read_level(&record) {
                    cache.published(item, level);
                }
            }
            Told::UpTo(time, looked) => {
                let micros = time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
                cache.followed_until(Stamp(i64::try_from(micros).unwrap_or(i64::MAX)), looked);
            }
        }
    };
    let follower =
        TopicFollower::start(&settings.kafka, &settings.group.group, &settings.topics.levels_topic, told)?;
    Ok(Some((cache, follower)))
}

/// How each request becomes a span.
fn watch(traces: Traces) -> Arc<http::Watch> {
    Arc::new(move |begun: http::Begun<'_>| {
        let http::Begun { method, route, path, traceparent, tracestate } = begun;
        let span = traces.request(method, route, path, TraceContext { traceparent, tracestate });
        Box::new(move |status| span.answered(status))
    })
}

/// Changes the secrets of a read API that runs.
pub(super) struct Rereads {
    pub(super) source: Source,
    pub(super) change_token: Box<dyn Fn(Token) + Send + Sync>,
}

impl Rereads {
    /// Connects to the database with this password from here on.
    pub(super) fn set_password(&self, password: &SecretString) {
        match &self.source {
            Source::Ledger(store) => store.set_password(password),
            Source::Replicas(replicas) => replicas.set_password(password),
        }
    }

    /// Requires this token from here on.
    pub(super) fn set_token(&self, token: &SecretString) {
        (self.change_token)(Token::new(token.expose_secret()));
    }
}
