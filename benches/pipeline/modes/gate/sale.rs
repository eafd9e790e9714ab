//! A flash sale: 1,000 pieces, and buyers who ask again until the last entry has ended; once as it should be, and once with
//! a gate and Redis killed in the middle of it. A fast wrong answer is no answer: what was sold is held against the ledger.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sqlx::Connection as _;

use super::load::{Answer, Connection, Template, send};
use super::stage::Stage;
use crate::Bench;
use crate::database::connect;
use crate::report::save;
use crate::shapes::sku_name;

/// What is sold.
const PIECES: usize = 1_000;
/// Who wants it, one piece each.
const BUYERS: u64 = 50_000;
/// Requests at least.
const REQUESTS: u64 = 200_000;
/// With crashes: the gate is killed once so many were let in …
const GATE_KILLS: [u64; 3] = [200, 400, 600];
/// … and Redis once.
const REDIS_KILL: u64 = 500;
/// Without crashes, at most so many records for each piece.
const RECORDS_LIMIT: f64 = 1.02;
/// Pause of a buyer whom nobody answered.
const PAUSE: Duration = Duration::from_millis(20);
/// The gates' default bound of an entry, and room for what is done then.
const BOUND: Duration = Duration::from_secs(15 + 15);
/// Longest sale.
const SALE_LIMIT: Duration = Duration::from_secs(180);

/// One who buys.
#[derive(Debug, Clone, Copy)]
struct Buyer {
    number: u64,
    is_in: bool,
}

/// What was answered so far.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    /// Buyers let in.
    let_in: AtomicU64,
    refused: AtomicU64,
    /// Nobody knew, or nobody answered.
    unknown: AtomicU64,
}

/// What a pass over all buyers came to.
#[derive(Debug, Default)]
struct Pass {
    /// Who has no verdict, and was not refused for good.
    left: Vec<Buyer>,
    accepted: Vec<u64>,
    rejected: u64,
    /// How often somebody was let in, or was on the way.
    on_the_way: u64,
}

/// What a sale came to.
#[derive(Debug, serde::Serialize)]
struct Sold {
    with_crashes: bool,
    requests: u64,
    per_second: f64,
    seconds: f64,
    refused: u64,
    unknown: u64,
    rejected: u64,
    records: usize,
    accepted: usize,
    left: i64,
    told: usize,
    /// Seconds from the last answer until the cache was what the ledger says.
    drift_ended_after: f64,
}

/// Both sales.
pub fn run(bench: &mut Bench) -> Result<()> {
    let sold = [sell(bench, false)?, sell(bench, true)?];
    println!(
        "| {PIECES} pieces, {BUYERS} buyers | without crashes | gate killed {} times, Redis once |\n|---|---|---|",
        GATE_KILLS.len()
    );
    let row = |name: &str, value: fn(&Sold) -> String| {
        println!("| {name} | {} | {} |", value(&sold[0]), value(&sold[1]));
    };
    row("requests", |sold| sold.requests.to_string());
    row("answers a second", |sold| format!("{:.0}", sold.per_second));
    row("until the last entry had ended", |sold| format!("{:.1} s", sold.seconds));
    row("refused as sold out", |sold| sold.refused.to_string());
    row("not answered, or told to ask again", |sold| sold.unknown.to_string());
    row("records in Kafka", |sold| sold.records.to_string());
    row("accepted by the ledger", |sold| sold.accepted.to_string());
    row("rejected by the ledger", |sold| (sold.records - sold.accepted).to_string());
    row("left", |sold| sold.left.to_string());
    row("told so when asking", |sold| sold.told.to_string());
    row("cache is the ledger's", |sold| format!("{:.1} s later", sold.drift_ended_after));
    save(&bench.args.json.with_file_name("sale.json"), &serde_json::to_string_pretty(&sold)?)?;
    for sold in &sold {
        ensure!(
            (sold.accepted, sold.left, sold.told) == (PIECES, 0, PIECES),
            "of {PIECES} pieces the ledger accepted {}, {} are left, and {} buyers were told",
            sold.accepted,
            sold.left,
            sold.told
        );
    }
    #[allow(clippy::cast_precision_loss)]
    let records = sold[0].records as f64 / PIECES as f64;
    let mark = if records <= RECORDS_LIMIT { '✓' } else { '✗' };
    println!("records for each piece without crashes: {records:.3} (at most {RECORDS_LIMIT}) {mark}");
    Ok(())
}

fn sell(bench: &mut Bench, with_crashes: bool) -> Result<Sold> {
    let mut stage = Stage::start(bench, &[i64::try_from(PIECES)?])?;
    let counts = Arc::new(Counts::default());
    let (mut left, mut rejected) =
        ((0..BUYERS).map(|number| Buyer { number, is_in: false }).collect::<Vec<_>>(), 0);
    let mut told = BTreeSet::new();
    let mut crashes = if with_crashes { crashes() } else { Vec::new() };
    let begun = Instant::now();
    loop {
        let is_at_rest =
            stage.status(bench).is_ok_and(|status| status.filled && status.unsettled + status.accepted == 0);
        let passing = {
            let (addresses, counts) = (stage.addresses(), Arc::clone(&counts));
            let connections = bench.args.connections;
            let buyers = std::mem::take(&mut left);
            std::thread::Builder::new()
                .name("load".to_owned())
                .spawn(move || pass(&addresses, connections, &buyers, &counts))?
        };
        while !passing.is_finished() {
            let let_in = counts.let_in.load(Ordering::Relaxed);
            match crashes.last() {
                Some((at, crash)) if let_in >= *at => {
                    match crash {
                        Crash::Gate => stage.kill_gate(bench, 0)?,
                        Crash::Redis => stage.redis.restart()?,
                    }
                    crashes.pop();
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let passed = passing.join().map_err(|_| anyhow!("the load generator panicked"))??;
        left = passed.left;
        rejected += passed.rejected;
        told.extend(passed.accepted);
        let requests = counts.requests.load(Ordering::Relaxed);
        // Over when all were refused although no entry was open: nothing comes back any more.
        if is_at_rest && passed.on_the_way == 0 && requests >= REQUESTS {
            break;
        }
        ensure!(
            begun.elapsed() < SALE_LIMIT,
            "the sale does not end: {counts:?}, {:?}",
            stage.status(bench)?
        );
    }
    ensure!(crashes.is_empty(), "too few were let in for all crashes");
    let seconds = begun.elapsed();
    let drift_ended_after = await_no_drift(bench, &stage)?;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let requests = load(&counts.requests);
    let accepted = accepted(bench, &stage)?;
    for number in &accepted {
        if is_told(bench, &stage, *number)? {
            told.insert(*number);
        }
    }
    let told = told.iter().filter(|number| accepted.contains(number)).count();
    #[allow(clippy::cast_precision_loss)]
    let sold = Sold {
        with_crashes,
        requests,
        per_second: requests as f64 / seconds.as_secs_f64(),
        seconds: seconds.as_secs_f64(),
        refused: load(&counts.refused),
        unknown: load(&counts.unknown),
        rejected,
        records: bench.kafka.count(&stage.names.orders_topic)?,
        accepted: accepted.len(),
        left: in_ledger(bench, &stage)?,
        told,
        drift_ended_after: drift_ended_after.as_secs_f64(),
    };
    eprintln!("{sold:?}");
    stage.end(bench)?;
    Ok(sold)
}

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Crash {
    Gate,
    Redis,
}

/// All crashes, the last first.
fn crashes() -> Vec<(u64, Crash)> {
    let mut crashes: Vec<_> = GATE_KILLS.map(|at| (at, Crash::Gate)).into();
    crashes.push((REDIS_KILL, Crash::Redis));
    crashes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    crashes
}

/// Asks once for each buyer, on so many connections.
fn pass(
    addresses: &[SocketAddr],
    connections: usize,
    buyers: &[Buyer],
    counts: &Arc<Counts>,
) -> Result<Pass> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (number, share) in buyers.chunks(buyers.len().div_ceil(connections).max(1)).enumerate() {
            let address = addresses[number % addresses.len()];
            tasks.spawn(pass_of_one(address, share.to_vec(), Arc::clone(counts)));
        }
        let mut all = Pass::default();
        while let Some(one) = tasks.join_next().await {
            let Pass { left, accepted, rejected, on_the_way } = one??;
            all.left.extend(left);
            all.accepted.extend(accepted);
            all.rejected += rejected;
            all.on_the_way += on_the_way;
        }
        Ok(all)
    })
}

async fn pass_of_one(address: SocketAddr, buyers: Vec<Buyer>, counts: Arc<Counts>) -> Result<Pass> {
    let mut request = Template::posted_order(&sku_name(0));
    let (mut pass, mut connection) = (Pass::default(), None);
    for mut buyer in buyers {
        let Answer { status, body } = loop {
            if let Ok(answer) = ask(&mut connection, address, request.numbered(buyer.number)).await {
                break answer;
            }
            connection = None;
            counts.unknown.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        };
        counts.requests.fetch_add(1, Ordering::Relaxed);
        match status {
            200 if is_accepted(&body) => pass.accepted.push(buyer.number),
            200 => pass.rejected += 1,
            202 => {
                if !buyer.is_in {
                    counts.let_in.fetch_add(1, Ordering::Relaxed);
                }
                buyer.is_in = true;
                pass.on_the_way += 1;
                pass.left.push(buyer);
            }
            409 => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                pass.left.push(buyer);
            }
            429 | 503 => {
                counts.unknown.fetch_add(1, Ordering::Relaxed);
                pass.on_the_way += 1;
                pass.left.push(buyer);
                tokio::time::sleep(PAUSE).await;
            }
            _ => bail!("a gate answered {status}: {body}"),
        }
    }
    Ok(pass)
}

async fn ask(connection: &mut Option<Connection>, address: SocketAddr, request: &[u8]) -> Result<Answer> {
    if connection.is_none() {
        *connection = Some(Connection::open(address).await?);
    }
    send(connection.as_mut().context("a connection")?, request).await
}

fn is_accepted(body: &str) -> bool {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["decision"]["accepted"] == true
}

/// Whether a buyer who asks once more is told that the order was accepted.
fn is_told(bench: &Bench, stage: &Stage, number: u64) -> Result<bool> {
    let mut request = Template::posted_order(&sku_name(0));
    let answer = bench.block(ask(&mut None, stage.addresses()[0], request.numbered(number)))?;
    Ok(answer.status == 200 && is_accepted(&answer.body))
}

/// The buyers whose orders the ledger accepted.
fn accepted(bench: &Bench, stage: &Stage) -> Result<BTreeSet<u64>> {
    let ids: Vec<String> = bench.block(async {
        let mut connection = connect(&stage.scratch.url).await?;
        let ids = sqlx::query_scalar("SELECT id FROM decisions WHERE kind = 1 AND accepted")
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        anyhow::Ok(ids)
    })?;
    ids.iter().map(|id| Ok(id.strip_prefix("o-").context("an order of the sale")?.parse()?)).collect()
}

fn in_ledger(bench: &Bench, stage: &Stage) -> Result<i64> {
    bench.block(async {
        let mut connection = connect(&stage.scratch.url).await?;
        let left = sqlx::query_scalar("SELECT available FROM levels").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(left)
    })
}

/// Waits until the cache is what the ledger says; how long that took.
fn await_no_drift(bench: &Bench, stage: &Stage) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let drift = stage.drift(bench)?;
        if drift.is_empty() {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < BOUND, "the cache is not what the ledger says: {drift:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
