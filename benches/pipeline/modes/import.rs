//! What an import costs a verifier at its top speed, and how long it takes: of items that are new, and of the same once more.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use sqlx::Row as _;

use crate::Bench;
use crate::contestants::verifier;
use crate::database::{Tables, connect};
use crate::probe;
use crate::report::{median, save};
use crate::shapes::Shape;

/// How long the verifier runs before the import begins: it has its speed then.
const WARM_UP: Duration = Duration::from_secs(3);

/// One import beside a verifier.
struct Measured {
    /// How long it took, as its user waits.
    took: Duration,
    /// Orders a second that were decided meanwhile.
    beside: f64,
    /// Orders a second of the same backlog without it.
    alone: f64,
}

pub fn run(bench: &mut Bench, rows: usize) -> Result<()> {
    let shape = Shape::Zipf;
    let orders = bench.args.orders;
    let backlog = bench.backlog(shape)?;
    let file = tempfile::Builder::new().suffix(".csv").tempfile()?;
    write_feed(file.path(), rows)?;
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for round in 1..=bench.args.rounds.min(3) {
        let quiet = probe::probe(&bench.services.disk)?;
        let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
        let alone = verifier::drain(bench, &scratch.url, &backlog, orders, 0)?.rate();
        bench.drop_scratch(scratch)?;
        for (name, to) in [("new", &mut new), ("known", &mut known)] {
            let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
            if name == "known" {
                import(&scratch.url, file.path(), "first")?;
            }
            let (drained, imported) = std::thread::scope(|scope| {
                let importing = scope.spawn(|| {
                    std::thread::sleep(WARM_UP);
                    import(&scratch.url, file.path(), name)
                });
                let drained = verifier::drain(bench, &scratch.url, &backlog, orders, 0);
                (drained, importing.join().map_err(|_| anyhow!("the import panicked")))
            });
            drained?;
            let took = imported??;
            let beside = bench.block(decided_beside(&scratch.url, took))?;
            bench.drop_scratch(scratch)?;
            eprintln!(
                "round {round}, {name} items: {:.1} s, verifier {beside:.0}/s, alone {alone:.0}/s (others {:.0} %)",
                took.as_secs_f64(),
                quiet.busy * 100.0
            );
            to.push(Measured { took, beside, alone });
        }
    }
    report(bench, rows, &[("new items", &new), ("known items", &known)])
}

fn write_feed(file: &Path, rows: usize) -> Result<()> {
    let mut feed = std::io::BufWriter::new(std::fs::File::create(file)?);
    writeln!(feed, "sku,available")?;
    for row in 0..rows {
        writeln!(feed, "feed-{row:08},{}", row % 1_000)?;
    }
    feed.flush().context("cannot write the feed")
}

/// Imports as an operator does.
fn import(database_url: &str, file: &Path, name: &str) -> Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_stock-verifier"))
        .args(["stock", "import", "--name", name])
        .arg(file)
        .env("STOCK_VERIFIER_DATABASE_URL", database_url)
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "the import failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed())
}

/// Orders a second that were decided while the last import was: as many as the ledger has between its rows.
async fn decided_beside(database_url: &str, took: Duration) -> Result<f64> {
    let mut connection = connect(database_url).await?;
    let row = sqlx::query(
        "WITH import AS (
             SELECT max(decided_at) - make_interval(secs => $1) AS begun, max(decided_at) AS ended
             FROM decisions WHERE topic IS NULL AND id LIKE 'import-%'
         ), orders AS (SELECT max(decided_at) AS ended FROM decisions WHERE topic IS NOT NULL)
         SELECT (SELECT count(*) FROM decisions, import
                 WHERE topic IS NOT NULL AND decided_at BETWEEN import.begun AND import.ended) AS decided,
                orders.ended > import.ended AS outlasted
         FROM import, orders",
    )
    .bind(took.as_secs_f64())
    .fetch_one(&mut connection)
    .await?;
    ensure!(row.try_get::<bool, _>("outlasted")?, "the backlog ended before the import: give more --orders");
    #[allow(clippy::cast_precision_loss)]
    let decided = row.try_get::<i64, _>("decided")? as f64;
    Ok(decided / took.as_secs_f64())
}

fn report(bench: &Bench, rows: usize, kinds: &[(&str, &Vec<Measured>)]) -> Result<()> {
    println!("{rows} rows beside a verifier at its top speed; medians");
    let mut measured = Vec::new();
    for (name, all) in kinds {
        let of = |value: fn(&Measured) -> f64| median(all.iter().map(value).collect());
        let (took, ratio) = (of(|one| one.took.as_secs_f64()), of(|one| one.beside / one.alone));
        println!("{name:>12}: {took:.1} s, and the verifier keeps {ratio:.2} × its speed");
        measured.push(serde_json::json!({"items": name, "rows": rows, "seconds": took, "ratio": ratio}));
    }
    save(&bench.args.json.with_file_name("import.json"), &serde_json::to_string_pretty(&measured)?)
}
