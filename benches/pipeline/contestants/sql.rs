//! Contestants 3 and 4: what people write in SQL.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sqlx::{Connection as _, Row as _};

use super::Run;
use crate::Bench;
use crate::database::{Tables, connect};
use crate::shapes::{REJECT_EVERY, SPREAD, Shape, TOO_MUCH, sku_name};

/// Numbers of clients that are tried for the best.
const CLIENTS: [usize; 4] = [8, 16, 32, 64];
/// Batch sizes that are tried for the procedure's best: a hot row gets slower the more often one transaction updates it.
const PROCEDURE_BATCHES: [usize; 5] = [50, 200, 500, 2_000, 10_000];
/// Of the orders, the share that a try of the procedure gets: it is slow.
const PROCEDURE_TRY: usize = 15;

/// Contestant 3 by pgbench, at its best number of clients for this shape.
pub fn per_order(bench: &mut Bench, shape: Shape) -> Result<Run> {
    let clients = if let Some(best) = bench.best.clients.get(&shape) {
        *best
    } else {
        let mut tried = Vec::new();
        for clients in CLIENTS {
            tried.push((pgbench(bench, shape, clients, bench.args.try_seconds())?.rate(), clients));
        }
        let best = best(&tried);
        bench.best.clients.insert(shape, best);
        best
    };
    #[allow(clippy::cast_precision_loss)]
    Ok(pgbench(bench, shape, clients, bench.args.sql_seconds())?.note("clients", clients as f64))
}

fn best(tried: &[(f64, usize)]) -> usize {
    tried.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(1, |(_, what)| *what)
}

fn pgbench(bench: &mut Bench, shape: Shape, clients: usize, seconds: u64) -> Result<Run> {
    let scratch = bench.scratch(Tables::Plain, shape.skus())?;
    let mut script = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut script, pgbench_script(shape).as_bytes())?;
    let before = bench.used();
    let output = Command::new("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--define=i=0"])
        .args([format!("--client={clients}"), format!("--time={seconds}")])
        .arg("--file")
        .arg(script.path())
        .arg(&scratch.url)
        .output()
        .context("cannot run pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let number = |line: &str| -> Option<f64> {
        text.lines().find_map(|found| found.strip_prefix(line))?.split_whitespace().next()?.parse().ok()
    };
    let done = number("number of transactions actually processed: ").context("pgbench says no count")?;
    let after = bench.used();
    // It says no rate when there was no time for even one transaction.
    let time =
        number("tps = ").map_or(Duration::from_secs(seconds), |rate| Duration::from_secs_f64(done / rate));
    bench.drop_scratch(scratch)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let done = done as usize;
    Ok(Run::new(done, time).using(&before, &after, done.max(1)))
}

/// One transaction for each order; for each line, in SKU order, a guarded update and a flow row.
fn pgbench_script(shape: Shape) -> String {
    let skus = shape.skus();
    let mut script = String::from("\\set i :i + 1\n");
    // Writing to a string does not fail.
    let _ = match shape {
        Shape::Hot => writeln!(script, "\\set sku0 0"),
        Shape::Uniform | Shape::Mixed => writeln!(script, "\\set sku0 random(0, {skus} - 1)"),
        // The nearest to exponent 1 that pgbench takes.
        Shape::Zipf | Shape::Rejects => writeln!(
            script,
            "\\set rank random_zipfian(1, {skus}, 1.001) - 1\n\\set sku0 (:rank * {SPREAD}) % {skus}"
        ),
        Shape::Cart => (0..3_u64).try_for_each(|third| {
            let (low, size) = (third * skus / 3, skus / 3);
            writeln!(script, "\\set sku{third} random({low}, {low} + {size} - 1)")
        }),
    };
    let lines = if shape == Shape::Cart { 3 } else { 1 };
    if shape == Shape::Rejects {
        let _ =
            writeln!(script, "\\set quantity case when :i % {REJECT_EVERY} = 0 then {TOO_MUCH} else 1 end");
    } else {
        script.push_str("\\set quantity 1\n");
    }
    script.push_str("BEGIN;\n");
    for line in 0..lines {
        let sku = format!("('SKU-' || lpad((:sku{line})::text, 6, '0'))");
        let update = format!(
            "UPDATE inventory SET available = available - :quantity WHERE sku = {sku} AND available >= :quantity"
        );
        let insert = format!(
            "INSERT INTO flow (order_id, sku, quantity) \
             VALUES ('o-' || (:client_id::bigint * 100000000 + :i::bigint), {sku}, :quantity);"
        );
        if shape == Shape::Rejects {
            // pgbench sees no row counts, so the statement counts for it.
            let _ = writeln!(
                script,
                "WITH taken AS ({update} RETURNING 1) SELECT count(*) AS taken FROM taken \\gset\n\
                 \\if :taken\n{insert}\nCOMMIT;\n\\else\nROLLBACK;\n\\endif"
            );
        } else {
            let _ = writeln!(script, "{update};\n{insert}");
        }
    }
    if shape != Shape::Rejects {
        script.push_str("COMMIT;\n");
    }
    script
}

/// Contestant 4: batches fed to a procedure that loops, at its best batch size for this shape.
pub fn procedure(bench: &mut Bench, shape: Shape) -> Result<Run> {
    let batch = if let Some(best) = bench.best.procedure_batch.get(&shape) {
        *best
    } else {
        let mut tried = Vec::new();
        for batch in PROCEDURE_BATCHES {
            tried.push((take(bench, shape, batch, bench.args.orders / PROCEDURE_TRY)?.rate(), batch));
        }
        let best = best(&tried);
        bench.best.procedure_batch.insert(shape, best);
        best
    };
    #[allow(clippy::cast_precision_loss)]
    Ok(take(bench, shape, batch, bench.args.orders)?.note("batch", batch as f64))
}

fn take(bench: &mut Bench, shape: Shape, batch: usize, count: usize) -> Result<Run> {
    let orders = bench.orders(shape);
    let orders = &orders[..count];
    let scratch = bench.scratch(Tables::Plain, shape.skus())?;
    let before = bench.used();
    let run = bench.block(async {
        let mut connection = connect(&scratch.url).await?;
        let start = Instant::now();
        let mut accepted = 0;
        for chunk in orders.chunks(batch) {
            let lines = || chunk.iter().flat_map(|order| order.lines.iter().map(move |line| (order, line)));
            let ids: Vec<&str> = lines().map(|(order, _)| order.id.as_str()).collect();
            let skus: Vec<String> = lines().map(|(_, line)| sku_name(line.sku)).collect();
            let quantities: Vec<i64> = lines().map(|(_, line)| line.quantity).collect();
            let verdicts = sqlx::query("SELECT * FROM take_batch($1, $2, $3)")
                .bind(ids)
                .bind(skus)
                .bind(quantities)
                .fetch_all(&mut connection)
                .await?;
            for verdict in &verdicts {
                accepted += usize::from(verdict.try_get::<bool, _>("decided_accepted")?);
            }
        }
        let time = start.elapsed();
        connection.close().await?;
        let expected =
            orders.len() - orders.iter().filter(|order| order.lines[0].quantity == TOO_MUCH).count();
        anyhow::ensure!(accepted == expected, "the procedure accepted {accepted} of {expected}");
        anyhow::Ok(Run::new(orders.len(), time))
    })?;
    let run = run.using(&before, &bench.used(), count);
    bench.drop_scratch(scratch)?;
    Ok(run)
}
