//! The door of a flash sale: admission in front of Kafka, by amounts cached in Redis. Estimates only, never a decision:
//! what is let in goes to Kafka and is decided by the ledger like anything else.
//!
//! How an entry lives, and what is subtracted for it meanwhile, is the table at the top of [`rule`]; `scripts/` do the same
//! in Redis, and [`cache`] calls them. Around it, each in a task of its own, all of them in every gate:
//!
//! | task | does | a gate that dies there |
//! |---|---|---|
//! | `door` | lets an order in, sends it, says what became of it | leaves an entry that its bound ends |
//! | `results` | settles entries by the results that Kafka has | leaves them to the others, and to itself when it is back |
//! | `level_reads` | reads levels, and closes what was accepted before | the same |
//! | `ending` | ends entries without a result | the same |
//! | `filling` | fills a cache that is new or was emptied | the same |

mod answers;
mod api;
pub mod audit;
pub mod cache;
mod connection;
mod door;
mod ending;
mod figures;
mod filling;
mod level_reads;
pub mod openapi;
mod orders_topic;
mod page;
mod partitions;
mod results;
pub mod rule;
mod scripts;
mod server_check;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::api::Bounds;
use self::cache::{CacheStatus, RedisCache, RedisSettings};
pub use self::door::WhenCacheIsAway;
use self::door::{Door, RESEND_AFTER, SENT_QUEUE};
use self::ending::Endings;
use self::figures::{Figures, Shown};
use self::filling::Filling;
use self::level_reads::WantedLevels;
use self::orders_topic::OrdersTopic;
pub use self::partitions::CLIENT_ID;
use self::partitions::Partitions;
use self::results::Results;
use crate::config::{KafkaArgs, TopicArgs};
use crate::http::{Api, Extra, Orders, Probe, Server, Token};
use crate::kafka::order_producer::{DELIVERY_LIMIT, OrderProducer};
use crate::store::Store;

/// Longest that orders being let in are waited for when a gate stops: none takes longer than its delivery.
pub const STOP_LIMIT: Duration = Duration::from_secs(DELIVERY_LIMIT.as_secs() + 2);
/// What readiness calls the cache.
const REDIS: &str = "redis";

/// What a gate is told to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where Kafka is.
    pub kafka: KafkaArgs,
    /// Its topics.
    pub topics: TopicArgs,
    /// Whether levels are published there.
    pub follow_levels: bool,
    /// Where Redis is.
    pub redis: RedisSettings,
    /// What is done with orders while it is away.
    pub when_away: WhenCacheIsAway,
    /// After so long without a result an entry is brought to its end.
    pub entry_bound: Duration,
    /// Orders at the door at once.
    pub most_orders: usize,
}

/// Told what a gate does.
pub trait Observer: Send + Sync + 'static {
    /// An order was answered so, so long after it was read; `None` where the door was not asked.
    fn answered(&self, answer: &'static str, took: Option<Duration>);
    /// What there is of entries; `None` while the cache does not answer.
    fn entries(&self, status: Option<&CacheStatus>);
    /// By how many pieces cached amounts differed from the ledger, at rest, when all were compared last.
    fn drift(&self, pieces: u64);
}

/// All that [`Observer::answered`] is told.
pub fn answers() -> impl Iterator<Item = &'static str> {
    door::Entrance::NAMES.into_iter().chain([api::TOO_MANY, api::INVALID])
}

/// The shortest bound of an entry: by then nobody is still sending its order.
pub const SHORTEST_BOUND: Duration = RESEND_AFTER;

/// How the cache is asked whether it is there.
fn ping(cache: RedisCache) -> Probe {
    Box::new(move || {
        let cache = cache.clone();
        Box::pin(async move { Ok(cache.status().await.map(drop)?) })
    })
}

/// Serves the door's addresses beside the read API's. Who waits there for results is found by the orders.
async fn serve(
    listen: SocketAddr,
    api: Api,
    door: Arc<Door>,
    bounds: Bounds,
    figures: Arc<Figures>,
) -> Result<(Server, Orders)> {
    let (known, orders) = std::sync::mpsc::channel();
    let cache = door.cache.clone();
    let shown = Shown { figures, cache: cache.clone() };
    let extra = Extra {
        dependencies: vec![(REDIS, ping(cache))],
        routes: Some(Box::new(move |orders| {
            // Heard right below.
            let _ = known.send(orders.clone());
            api::routes(door, orders, bounds, shown)
        })),
        page: &page::PAGE,
        document: openapi::document,
    };
    let server = Server::start_with(listen, api, extra).await?;
    Ok((server, orders.recv().context("no addresses were made")?))
}

/// A gate that runs.
pub struct Gate {
    server: Server,
    cache: RedisCache,
    stop: CancellationToken,
    entering: TaskTracker,
    tasks: TaskTracker,
}

impl Gate {
    /// Listens, and lets orders in until [`Gate::stop`]. Levels and decisions are read from `store`, which must be the
    /// primary. `ended` is cancelled when it cannot go on.
    ///
    /// # Errors
    /// When Redis is none that a gate can rely on, or nothing can be listened on.
    pub async fn start(
        settings: Settings,
        listen: SocketAddr,
        api: Api,
        store: Arc<dyn Store>,
        observer: Arc<dyn Observer>,
        ended: CancellationToken,
    ) -> Result<Self> {
        if settings.entry_bound < SHORTEST_BOUND {
            bail!(
                "an entry's bound (--entry-bound) must be {SHORTEST_BOUND:?} or longer: an order may be under way for so long, \
                 {DELIVERY_LIMIT:?} of it to Kafka"
            );
        }
        let figures = Arc::new(Figures::new(observer));
        let observer: Arc<dyn Observer> = figures.clone();
        let cache = RedisCache::new(&settings.redis).context("--redis-url names no Redis")?;
        server_check::check(&cache).await?;
        let (sent, noted) = mpsc::channel(SENT_QUEUE);
        let (fill, wanted) = (Arc::new(Notify::new()), Arc::new(WantedLevels::default()));
        let (entering, tasks, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let door = Arc::new(Door {
            cache: cache.clone(),
            producer: OrderProducer::new(&settings.kafka, &settings.topics.orders_topic)?,
            when_away: settings.when_away,
            fill: Arc::clone(&fill),
            wanted: Arc::clone(&wanted),
            sent,
            observer: Arc::clone(&observer),
            under_way: entering.clone(),
        });
        let bounds = Bounds { orders: settings.most_orders };
        let (server, orders) = serve(listen, api, door, bounds, figures).await?;
        let orders_topic = OrdersTopic {
            partitions: Partitions::new(&settings.kafka),
            name: settings.topics.orders_topic.clone(),
            positions: store.clone(),
        };
        let filling = Filling {
            cache: cache.clone(),
            ledger: store.clone(),
            orders: orders_topic.clone(),
            partitions: Partitions::new(&settings.kafka),
            topics: settings.topics.clone(),
            asked: Arc::clone(&fill),
        };
        let endings = Endings {
            cache: cache.clone(),
            ledger: store.clone(),
            orders: orders_topic,
            bound: settings.entry_bound,
            observer: Arc::clone(&observer),
        };
        let results = Results {
            cache: cache.clone(),
            partitions: Partitions::new(&settings.kafka),
            kafka: settings.kafka,
            topics: settings.topics,
            follow_levels: settings.follow_levels,
            wanted: Arc::clone(&wanted),
            orders,
            fill,
        };
        tasks.spawn(door::note_sent(cache.clone(), noted));
        tasks.spawn(filling.run(stop.clone()));
        tasks.spawn(level_reads::run(cache.clone(), store.clone(), wanted, stop.clone()));
        tasks.spawn(level_reads::go_round(cache.clone(), store, observer, stop.clone()));
        tasks.spawn(endings.run(stop.clone()));
        tasks.spawn({
            let stop = stop.clone();
            async move {
                if let Err(error) = results.run(stop).await {
                    tracing::error!("{error:#}");
                    ended.cancel();
                }
            }
        });
        Ok(Self { server, cache, stop, entering, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How the token is changed that requests must bring.
    pub fn change_token(&self) -> impl Fn(Token) + Send + Sync + 'static {
        self.server.change_token()
    }

    /// How the password of Redis is changed. It fails when no connection can be made ready.
    pub fn change_redis_password(&self) -> impl Fn(&SecretString) -> Result<()> + Send + Sync + 'static {
        let cache = self.cache.clone();
        move |password| Ok(cache.set_password(password)?)
    }

    /// Finishes what is under way, within a bound.
    pub async fn stop(self) {
        self.server.stop().await;
        self.entering.close();
        self.stop.cancel();
        let finished = async {
            self.entering.wait().await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        if tokio::time::timeout(STOP_LIMIT, finished).await.is_err() {
            tracing::warn!("orders were still being let in: their entries end by their bound");
        }
    }
}
