//! What the orders of a demo come to: a ledger, a broker in this process, the verifier, and the read API.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::broker::{Broker, PARTITIONS};
use super::print_line;
use super::workload::Stock;
use crate::config::{BatchArgs, GroupArgs, GroupProtocol, LevelsArgs, RegistryArgs};
use crate::http::{self, Api, Live, Server};
use crate::kafka::probe::probe;
use crate::kafka::{self, asker::Asker};
use crate::ledger::{Command, Id, Outcome, Request, Sku, TopicPartition};
use crate::mapping::Mappings;
use crate::observe::{CONTENT_TYPE, Metrics, Totals};
use crate::pipeline::{self, PipelineError, Settings, StoppedPartitions};
use crate::store::sqlite::{FileAccess, SqliteStore};
use crate::store::{CommandBatch, LedgerAdmin as _, Store};

/// SKUs stocked in one batch.
const STOCK_BATCH: usize = 500;
/// Longest wait for the group to be joined; the broker in this process lets a first member wait 3 s, and 4 s more whenever
/// a member has to join again.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until a level's change is published: the default of `run`.
const LEVELS_DELAY: Duration = Duration::from_millis(500);
/// How often to look whether the group is joined.
const LOOK: Duration = Duration::from_millis(20);
/// The group that the verifier is in.
const GROUP: &str = "stock-verifier";

/// All of it, running.
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) store: Arc<dyn Store>,
    /// Cancelled when everything is published: for the verifier to leave, and for the reader to read the rest and end.
    pub(super) done: CancellationToken,
    metrics: Metrics,
    readers: Arc<dyn Store>,
    server: Server,
    /// `None` once it has ended by itself, and said why.
    verifying: Option<JoinHandle<Result<(), PipelineError>>>,
    _done: DropGuard,
}

impl Stage {
    /// Opens the ledger, and starts everything else. The verifier joins its group meanwhile.
    pub(super) async fn set(file: &Path, batch: BatchArgs, listen: SocketAddr) -> Result<Self> {
        let store = open(file).await?;
        let broker = Broker::start()?;
        let settings = settings(&broker, batch);
        let stopped = StoppedPartitions::default();
        let metrics = Metrics::new(&settings.group.group, stopped.clone());
        let readers: Arc<dyn Store> = Arc::new(SqliteStore::open_for(&url(file), FileAccess::Read).await?);
        let done = CancellationToken::new();
        let api = api(&readers, &settings, stopped.clone(), metrics.clone(), done.clone())?;
        let server = Server::start(listen, api).await?;
        let ledger = server.ledger(metrics.ledger(store.clone()));
        let verifier = pipeline::run(settings, ledger, stopped, metrics.clone(), done.clone());
        let verifying = Some(tokio::spawn(verifier));
        let guard = done.clone().drop_guard();
        Ok(Self { broker, store, done, metrics, readers, server, verifying, _done: guard })
    }

    /// Where it is asked.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What was done so far.
    pub(super) fn totals(&self) -> &Arc<Totals> {
        self.metrics.totals()
    }

    /// Puts the sample stock into the ledger, and waits until the verifier has its partitions.
    pub(super) async fn begin(&mut self, sample: &[Stock], seed: u64) -> Result<()> {
        stock(&*self.store, sample).await?;
        print_line(&format!("Stock: {} SKUs, seed {seed}", sample.len()))?;
        print_line("Joining the group (this broker lets a first member wait 3 s) …")?;
        self.joined().await
    }

    /// Waits until the verifier reads every partition: the group has then committed where it begins. Before that a member
    /// may have to join again, and what came meanwhile would wait for it.
    async fn joined(&mut self) -> Result<()> {
        let topics = &self.broker.topics;
        let partitions: Arc<[_]> = [&topics.orders_topic, &topics.adjustments_topic]
            .into_iter()
            .flat_map(|topic| (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)))
            .collect();
        let asker = Arc::new(Asker::new(&self.broker.kafka, "demo-group", Some(GROUP))?);
        let since = Instant::now();
        loop {
            let begins = spawn_blocking({
                let (asker, partitions) = (Arc::clone(&asker), Arc::clone(&partitions));
                move || begins_everywhere(&asker, &partitions)
            });
            match begins.await.context("asking the broker panicked")? {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "asking whether the group is joined"),
            }
            self.ended_early().await?;
            if since.elapsed() > JOIN_LIMIT {
                bail!("the verifier did not join its group within {JOIN_LIMIT:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The verifier runs until it is stopped; when it ended before, this says why.
    pub(super) async fn ended_early(&mut self) -> Result<()> {
        if let Some(ended) = self.verifying.take_if(|verifying| verifying.is_finished()) {
            ended.await.context("the verifier panicked")??;
            bail!("the verifier ended before it was stopped");
        }
        Ok(())
    }

    /// Ends all but the ledger and the broker, which may still be read: the verifier publishes what it has in hand.
    pub(super) async fn end(self) -> Result<(Arc<dyn Store>, Broker)> {
        self.done.cancel();
        let verified = match self.verifying {
            Some(verifying) => verifying.await.context("the verifier panicked").and_then(|ended| Ok(ended?)),
            None => Ok(()),
        };
        self.server.stop().await;
        self.readers.close().await;
        verified?;
        Ok((self.store, self.broker))
    }
}

/// Whether the group has committed where each of these begins. Blocks.
fn begins_everywhere(asker: &Asker, partitions: &[TopicPartition]) -> Result<bool, kafka::Error> {
    let mut committed = asker.committed(partitions)?;
    for at in partitions {
        if committed.take(at)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
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
    stopping: CancellationToken,
) -> Result<Api> {
    Ok(Api {
        queries: readers.clone(),
        levels: None,
        kafka: Box::new(probe(&settings.kafka, &settings.topics.orders_topic)?),
        stopped: Box::new(move || {
            stopped.all().into_iter().map(|(at, stopped)| (at, stopped.since)).collect()
        }),
        stopping,
        live: Some(Live {
            watched: Arc::new(metrics.clone()),
            instance: settings.group.instance().to_owned(),
            group: settings.group.group.clone(),
            // The broker in this process does not know that question.
            members: None,
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
            group: GROUP.to_owned(),
            instance_id: Some("demo".to_owned()),
            transactional_id: None,
            group_protocol: GroupProtocol::Classic,
        },
        batch,
        registry: RegistryArgs::default(),
        levels: LevelsArgs { levels_delay: LEVELS_DELAY, no_levels: false },
        workers: 1,
        accept_data_loss: false,
        mappings: Mappings::default(),
        may_have_older: false,
    }
}

/// Puts the sample stock into the ledger, the way an operator does.
async fn stock(store: &dyn Store, stock: &[Stock]) -> Result<()> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_group_is_joined_once_it_committed_where_every_partition_begins() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger.db");
        std::fs::File::create_new(&file).unwrap();
        let batch_max_bytes = "4MiB".parse().unwrap();
        let batch_max_age = Duration::from_millis(10);
        let batch = BatchArgs { batch_max_orders: 1_000, batch_max_bytes, batch_max_age };
        let mut stage = Stage::set(&file, batch, ([127, 0, 0, 1], 0).into()).await.unwrap();
        // As where a member joins again in the middle of that.
        stage.broker.mock.refuse_next_commits(4);
        stage.begin(&[], 0).await.unwrap();
        let topics = &stage.broker.topics;
        let asker = Asker::new(&stage.broker.kafka, "test", Some(GROUP)).unwrap();
        for topic in [&topics.orders_topic, &topics.adjustments_topic] {
            let partitions: Vec<_> =
                (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect();
            assert!(begins_everywhere(&asker, &partitions).unwrap(), "{topic}");
        }
        stage.end().await.unwrap();
    }
}
