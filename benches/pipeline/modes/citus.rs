//! What a distributed ledger costs: the store alone, on a cluster with several numbers of shards next to a plain database on
//! the same coordinator's server.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use stock_verifier::store::LedgerAdmin as _;
use stock_verifier::store::postgres::{Connections, PostgresStore};

use crate::Bench;
use crate::contestants::store;
use crate::database::{connect, execute, seed_ledger};
use crate::probe;
use crate::report::{median, save};
use crate::shapes::Shape;

/// Shards of each distributed table; none for a plain ledger, which the others are compared with.
const SHARDS: [Option<u16>; 4] = [None, Some(1), Some(8), Some(32)];
/// Orders that are batches of their own: what they take is what a batch takes that has next to nothing to do.
const ALONE: usize = 200;

/// A cluster, by a database of its coordinator.
struct Cluster {
    coordinator: url::Url,
    /// Host and port of each node, the coordinator's first.
    nodes: Vec<(String, u16)>,
}

impl Cluster {
    async fn find() -> Result<Self> {
        let url = std::env::var("CITUS_URL")
            .context("--citus needs a cluster: CITUS_URL names a database of its coordinator")?;
        let coordinator = url::Url::parse(&url).context("CITUS_URL is no URL")?;
        let mut connection = connect(&url).await?;
        let rows: Vec<(String, i32)> = sqlx::query_as(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' AND isactive ORDER BY groupid",
        )
        .fetch_all(&mut connection)
        .await?;
        let nodes = rows.into_iter().map(|(host, port)| Ok((host, u16::try_from(port)?)));
        Ok(Self { coordinator, nodes: nodes.collect::<Result<_>>()? })
    }

    /// The URL of a database on a node.
    fn url(&self, node: usize, name: &str) -> Result<String> {
        let (host, port) = &self.nodes[node];
        let mut url = self.coordinator.clone();
        url.set_host(Some(host))?;
        url.set_port(Some(*port)).ok().context("a port")?;
        url.set_path(name);
        Ok(url.into())
    }

    /// Does something in the database that `CITUS_URL` names, on each node that a ledger of so many shards is on.
    async fn everywhere(&self, shards: Option<u16>, sql: &str) -> Result<()> {
        for node in 0..if shards.is_some() { self.nodes.len() } else { 1 } {
            let mut connection = connect(&self.url(node, self.coordinator.path())?).await?;
            execute(&mut connection, sql).await?;
        }
        Ok(())
    }

    /// A seeded ledger of its own.
    async fn ledger(&self, name: &str, shards: Option<u16>, skus: u64) -> Result<String> {
        self.everywhere(shards, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        self.everywhere(shards, &format!("CREATE DATABASE {name}")).await?;
        let url = self.url(0, name)?;
        if let Some(shards) = shards {
            for node in 0..self.nodes.len() {
                execute(&mut connect(&self.url(node, name)?).await?, "CREATE EXTENSION citus").await?;
            }
            let mut connection = connect(&url).await?;
            for (number, (host, port)) in self.nodes.iter().enumerate() {
                let add = if number == 0 { "citus_set_coordinator_host" } else { "citus_add_node" };
                execute(&mut connection, format!("SELECT {add}('{host}', {port})")).await?;
            }
            let store = PostgresStore::open(&url, Connections { batches: 1, readers: 1, others: 1 }).await?;
            store.migrate().await?;
            store.distribute(Some(shards)).await?;
            store.close().await;
        }
        seed_ledger(&url, skus).await?;
        let mut connection = connect(&url).await?;
        execute(&mut connection, "VACUUM (FREEZE, ANALYZE) levels, movements, decisions").await?;
        connection.close().await?;
        // So that no checkpoint of what went before falls into the measurement.
        self.everywhere(shards, "CHECKPOINT").await?;
        Ok(url)
    }
}

/// Orders a second, and milliseconds of a batch of one order; each measured once a round.
type Measured = BTreeMap<(Shape, Option<u16>), Vec<(f64, f64)>>;

pub fn run(bench: &mut Bench) -> Result<()> {
    let cluster = bench.block(Cluster::find())?;
    let name = format!("bench_citus_{}", std::process::id());
    let mut measured = Measured::new();
    for round in 1..=bench.args.rounds {
        for shape in bench.args.shapes.clone() {
            let orders = bench.orders(shape);
            let (alone, rest) = orders.split_at(ALONE);
            for shards in SHARDS {
                let url = bench.block(cluster.ledger(&name, shards, shape.skus()))?;
                let quiet = probe::probe(&bench.services.disk)?;
                let one = bench.block(store::apply(&url, "alone", alone, 1, 1))?;
                let many = bench.block(store::apply(&url, "orders", rest, bench.batch(), 1))?;
                bench.block(cluster.everywhere(shards, &format!("DROP DATABASE {name} WITH (FORCE)")))?;
                let (rate, millis) = (many.rate(), 1_000.0 / one.rate());
                eprintln!(
                    "round {round}, shape {}, {}: {rate:.0} orders/s, {millis:.2} ms alone; {quiet:?}",
                    shape.letter(),
                    called(shards)
                );
                measured.entry((shape, shards)).or_default().push((rate, millis));
            }
        }
    }
    report(bench, &measured)
}

fn called(shards: Option<u16>) -> String {
    shards.map_or_else(|| "plain".to_owned(), |shards| format!("{shards} shards"))
}

fn report(bench: &Bench, measured: &Measured) -> Result<()> {
    let medians = |key: (Shape, Option<u16>)| {
        let (rates, millis): (Vec<f64>, Vec<f64>) = measured[&key].iter().copied().unzip();
        (median(rates), median(millis))
    };
    println!("shape | ledger | orders/s | × plain | ms for a batch of one order");
    let mut lines = Vec::new();
    for (shape, shards) in measured.keys().copied() {
        let (rate, millis) = medians((shape, shards));
        let times = rate / medians((shape, None)).0;
        println!("{} | {} | {rate:.0} | {times:.2} | {millis:.1}", shape.letter(), called(shards));
        lines.push(serde_json::json!({
            "shape": shape.letter(), "shards": shards, "orders_per_second": rate, "times_plain": times,
            "ms_of_one": millis,
        }));
    }
    save(&bench.args.json.with_file_name("citus.json"), &serde_json::to_string_pretty(&lines)?)
}
