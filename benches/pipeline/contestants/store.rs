//! Contestant 2: batches applied, without Kafka.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use stock_verifier::ledger::{
    Command, HoldSeconds, Id, Item, NextOffset, Offset, Quantity, Request, Sku, Source, Terms, TopicPartition,
};
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{Advance, CommandBatch, LedgerAdmin as _, LedgerWriter as _};

use super::Run;
use crate::Bench;
use crate::database::Tables;
use crate::kafka::PARTITIONS;
use crate::shapes::{Asks, Line, Order, Shape, sku_name};

pub fn run(bench: &mut Bench, shape: Shape, connections: usize) -> Result<Run> {
    let orders = bench.orders(shape);
    let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
    let before = bench.used();
    let run = bench.block(apply(&scratch.url, "orders", &orders, bench.batch(), connections))?;
    let run = run.using(&before, &bench.used(), orders.len());
    bench.drop_scratch(scratch)?;
    Ok(run)
}

/// Applies the orders in batches over so many connections and measures.
pub async fn apply(
    url: &str,
    topic: &str,
    orders: &[Order],
    batch: usize,
    connections: usize,
) -> Result<Run> {
    let shares = shares(topic, orders, batch, connections)?;
    let store = Arc::new(
        PostgresStore::open(url, Connections { batches: u32::try_from(connections)?, readers: 1, others: 1 })
            .await?,
    );
    // Connections are made before the clock starts.
    for _ in 0..connections {
        store.positions(&[]).await?;
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for share in shares {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut outcomes = 0;
            for batch in share {
                outcomes += store.apply(&batch).await?.outcomes.len();
            }
            anyhow::Ok(outcomes)
        });
    }
    let mut outcomes = 0;
    while let Some(done) = tasks.join_next().await {
        outcomes += done??;
    }
    let time = start.elapsed();
    store.close().await;
    anyhow::ensure!(outcomes == orders.len(), "{outcomes} outcomes of {} orders", orders.len());
    Ok(Run::new(outcomes, time))
}

/// The batches of each connection. A partition belongs to one connection, as it does to one worker.
fn shares(topic: &str, orders: &[Order], batch: usize, connections: usize) -> Result<Vec<Vec<CommandBatch>>> {
    let topic: Arc<str> = Arc::from(topic);
    let mut nexts = vec![0_i64; usize::try_from(PARTITIONS)?];
    let mut shares = vec![Vec::new(); connections];
    for (number, chunk) in orders.chunks(batch).enumerate() {
        let share = number % connections;
        let mine: Vec<usize> =
            (0..nexts.len()).filter(|partition| partition % connections == share).collect();
        let before = nexts.clone();
        let requests = chunk
            .iter()
            .enumerate()
            .map(|(place, order)| {
                let partition = mine[place % mine.len()];
                let offset = Offset(nexts[partition]);
                nexts[partition] += 1;
                let at = TopicPartition::new(Arc::clone(&topic), i32::try_from(partition)?);
                Ok(Request { command: command(order)?, source: Some(Source { at, offset }) })
            })
            .collect::<Result<_>>()?;
        let advances = mine
            .iter()
            .filter(|partition| nexts[**partition] > before[**partition])
            .map(|partition| {
                Ok(Advance {
                    at: TopicPartition::new(Arc::clone(&topic), i32::try_from(*partition)?),
                    expected: NextOffset(before[*partition]),
                    next: NextOffset(nexts[*partition]),
                    applied: None,
                    published: None,
                })
            })
            .collect::<Result<_>>()?;
        shares[share].push(CommandBatch { advances, requests, epoch: None });
    }
    Ok(shares)
}

fn command(order: &Order) -> Result<Command> {
    let id = Id::new(&order.id)?;
    let lines = || {
        let line = |line: &Line| Ok((Sku::new(&sku_name(line.sku))?.into(), Quantity::new(line.quantity)?));
        order.lines.iter().map(line).collect::<Result<Vec<(Item, Quantity)>>>()
    };
    Ok(match &order.asks {
        Asks::Order => Command::order_created(id, lines()?, Terms::default()),
        Asks::Hold => {
            let terms = Terms { hold: Some(HoldSeconds::new(86_400)?), ..Terms::default() };
            Command::order_created(id, lines()?, terms)
        }
        Asks::Cancel => Command::order_cancelled(id),
        Asks::Return { order } => Command::order_returned(id, Id::new(order)?, lines()?),
        Asks::Restock => {
            let (item, quantity) = lines()?.remove(0);
            Command::stock_received(id, item, quantity)
        }
    })
}
