//! Does the cost grow with history? Shape z on ledgers of several sizes.

use std::time::Instant;

use anyhow::{Result, ensure};
use sqlx::Connection as _;

use crate::Bench;
use crate::contestants::{store, verifier};
use crate::database::{connect, execute, seed_ledger};
use crate::probe;
use crate::report::{median, save};
use crate::shapes::{self, Shape};

/// Points of the curve, as parts of the whole history.
const POINTS: [usize; 4] = [0, 20, 4, 1];
/// Orders added in one transaction while filling.
const STEP: usize = 1_000_000;

/// Adds `$rounds` orders for each SKU, as the ledger itself would have: each
/// order takes one piece, its movement follows from the one before, and its
/// decision says what the movement says. (Only the digest is no digest.)
const FILL: &str = r#"
WITH placed AS (
    SELECT sku, available, version, row_number() OVER (ORDER BY sku) - 1 AS place, count(*) OVER () AS skus FROM levels
), made AS MATERIALIZED (
    SELECT sku, version + round AS version, available - round AS balance,
           $from + (round - 1) * skus + place AS number
    FROM generate_series(1, $rounds) AS round CROSS JOIN placed
), first AS (
    SELECT nextval('ledger_seq') AS seq
), decided AS (
    INSERT INTO decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
    SELECT first.seq + number - $from, now(), number / 6, number % 6, 1, true, 'h-' || lpad(number::text, 12, '0'),
           'history', decode(md5(number::text), 'hex'),
           '{"lines":[{"sku":"' || sku || '","quantity":1,"balance":' || balance || '}]}'
    FROM made, first ORDER BY number
), moved AS (
    INSERT INTO movements (version, quantity, balance, seq, "offset", partition, kind, sku, location, id)
    SELECT version, -1, balance, first.seq + number - $from, number / 6, number % 6, 1, sku, '',
           'h-' || lpad(number::text, 12, '0')
    FROM made, first ORDER BY number
)
UPDATE levels SET version = version + $rounds, available = available - $rounds;
SELECT setval('ledger_seq', (currval('ledger_seq') / 100000 + $rounds * (SELECT count(*) FROM levels) / 100000 + 1) * 100000);
"#;

pub fn run(bench: &mut Bench, orders: usize) -> Result<()> {
    let shape = Shape::Zipf;
    let skus = usize::try_from(shape.skus())?;
    ensure!(orders.is_multiple_of(20 * skus), "a history is a multiple of {} orders", 20 * skus);
    let name = format!("bench_history_{}", std::process::id());
    let url = bench.databases.url_of(&name);
    bench.block(async {
        let mut admin = bench.databases.admin().await?;
        execute(&mut admin, format!("CREATE DATABASE {name}")).await?;
        seed_ledger(&url, shape.skus()).await
    })?;
    let measured = curve(bench, &url, orders);
    bench.block(bench.databases.drop_database(&name))?;
    save(&bench.args.json.with_file_name("history.json"), &serde_json::to_string_pretty(&measured?)?)
}

fn curve(bench: &mut Bench, url: &str, orders: usize) -> Result<Vec<serde_json::Value>> {
    let shape = Shape::Zipf;
    let mut measured = Vec::new();
    let mut filled = 0;
    println!("orders in the ledger | store alone, orders/s | end to end, orders/s | peak memory");
    for part in POINTS {
        let wanted = orders.checked_div(part).unwrap_or(0);
        bench.block(fill(url, filled, wanted, usize::try_from(shape.skus())?))?;
        filled = wanted;
        // The first second after a checkpoint writes whole pages to the WAL, in a large ledger many; a shop that runs
        // has that once in five minutes, not in each of its seconds.
        let warm = shapes::orders(shape, bench.args.orders, bench.args.ids, &format!("w{part}-"));
        bench.block(store::apply(url, &format!("warm-{part}"), &warm, bench.batch(), 1))?;
        let (mut alone, mut whole, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
        for round in 0..bench.args.rounds {
            let probe = probe::probe(&bench.services.disk)?;
            // Ids and offsets of each run are its own: what was decided before would only be absorbed.
            let fresh = |what: &str| {
                shapes::orders(shape, bench.args.orders, bench.args.ids, &format!("{what}{part}-{round}-"))
            };
            let run = bench.block(store::apply(
                url,
                &format!("store-{part}-{round}"),
                &fresh("s"),
                bench.batch(),
                1,
            ))?;
            alone.push(run.rate());
            let end_to_end = fresh("e");
            let backlog = bench.new_backlog(&end_to_end)?;
            let run = verifier::drain(bench, url, &backlog, end_to_end.len(), 0)?;
            bench.block(bench.kafka.delete(&[&backlog]))?;
            whole.push(run.rate());
            peak = peak.max(run.notes["peak MiB"]);
            eprintln!(
                "{wanted} orders before, round {round}: {:.0}/s and {:.0}/s (disk {:.2} ms, others {:.0} %)",
                alone[round],
                whole[round],
                probe.fdatasync_ms,
                probe.busy * 100.0
            );
        }
        let (alone, whole) = (median(alone), median(whole));
        println!("{wanted:>20} | {alone:>21.0} | {whole:>20.0} | {peak:.0} MiB");
        measured.push(serde_json::json!({
            "orders_before": wanted, "store_orders_per_second": alone, "end_to_end_orders_per_second": whole,
            "peak_mib": peak,
        }));
    }
    Ok(measured)
}

async fn fill(url: &str, mut from: usize, to: usize, skus: usize) -> Result<()> {
    let start = Instant::now();
    let mut connection = connect(url).await?;
    while from < to {
        let count = STEP.min(to - from);
        let sql = FILL.replace("$from", &from.to_string()).replace("$rounds", &(count / skus).to_string());
        execute(&mut connection, sql).await?;
        from += count;
        eprintln!("filled to {from} orders ({:.0} s)", start.elapsed().as_secs_f64());
    }
    execute(&mut connection, "VACUUM (ANALYZE)").await?;
    execute(&mut connection, "CHECKPOINT").await?;
    connection.close().await?;
    Ok(())
}
