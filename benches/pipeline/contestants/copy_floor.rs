//! Contestant 6, the floor: the very rows the ledger writes, by COPY, and nothing else.
//!
//! The rows are taken from a ledger after contestant 2 wrote them, cut into
//! its batches by the transaction that wrote each row, and put into the same
//! tables of another database. So the floor follows the ledger's tables,
//! whatever they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::{Run, store};
use crate::Bench;
use crate::database::{Tables, connect};
use crate::shapes::Shape;

/// Tables of the ledger that are changed in place, not added to.
const NOT_APPENDED: &str =
    "('levels', 'order_lines', 'holds', 'unannounced_levels', 'positions', '_sqlx_migrations')";
/// The signature, flags and header extension of a binary COPY.
const HEADER_BYTES: usize = 19;

/// What one batch adds to each table, ready to be sent.
type Rows = Vec<(String, Vec<u8>)>;

/// The rows of a shape, batch by batch; taken once and used in every round.
#[derive(Default)]
pub struct Captured(HashMap<(Shape, usize), Arc<Vec<Rows>>>);

pub fn run(bench: &mut Bench, shape: Shape, connections: usize) -> Result<Run> {
    let key = (shape, bench.batch());
    if !bench.captured.0.contains_key(&key) {
        let captured = capture(bench, shape)?;
        bench.captured.0.insert(key, Arc::new(captured));
    }
    let batches = Arc::clone(&bench.captured.0[&key]);
    let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
    let orders = bench.args.orders;
    let before = bench.used();
    let time = bench.block(async {
        let mut ready = Vec::new();
        for _ in 0..connections {
            ready.push(connect(&scratch.url).await?);
        }
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (share, mut connection) in ready.into_iter().enumerate() {
            let batches = Arc::clone(&batches);
            tasks.spawn(async move {
                for batch in batches.iter().skip(share).step_by(connections) {
                    write(&mut connection, batch).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        anyhow::Ok(start.elapsed())
    })?;
    let after = bench.used();
    bench.drop_scratch(scratch)?;
    #[allow(clippy::cast_precision_loss)]
    let bytes = batches.iter().flatten().map(|(_, rows)| rows.len()).sum::<usize>() as f64;
    #[allow(clippy::cast_precision_loss)]
    let per_order = bytes / orders as f64;
    Ok(Run::new(orders, time).using(&before, &after, orders).note("bytes an order", per_order))
}

async fn write(connection: &mut PgConnection, batch: &Rows) -> Result<()> {
    let mut transaction = connection.begin().await?;
    for (table, rows) in batch {
        let sql = format!("COPY {table} FROM STDIN WITH (FORMAT binary)");
        let mut copy = transaction.copy_in_raw(&sql).await?;
        copy.send(rows.as_slice()).await?;
        copy.finish().await?;
    }
    transaction.commit().await?;
    Ok(())
}

fn capture(bench: &mut Bench, shape: Shape) -> Result<Vec<Rows>> {
    let orders = bench.orders(shape);
    let batch = bench.batch();
    let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
    let batches = bench.block(async {
        let mut connection = connect(&scratch.url).await?;
        let seeded: i64 = sqlx::query_scalar("SELECT pg_current_xact_id()::text::bigint")
            .fetch_one(&mut connection)
            .await?;
        store::apply(&scratch.url, "orders", &orders, batch, 1).await?;
        take(&mut connection, seeded).await
    })?;
    bench.drop_scratch(scratch)?;
    ensure!(batches.len() == orders.len().div_ceil(batch), "{} batches captured", batches.len());
    Ok(batches)
}

/// Reads what transactions after `seeded` added, by transaction.
async fn take(connection: &mut PgConnection, seeded: i64) -> Result<Vec<Rows>> {
    let tables: Vec<String> = sqlx::query_scalar(&format!(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND relname NOT IN {NOT_APPENDED} ORDER BY relname"
    ))
    .fetch_all(&mut *connection)
    .await?;
    let mut batches: BTreeMap<i64, Rows> = BTreeMap::new();
    for table in &tables {
        let written = format!("FROM {table} WHERE xmin::text::bigint > {seeded}");
        let counts = sqlx::query(&format!(
            "SELECT xmin::text::bigint AS batch, count(*) AS rows {written} GROUP BY 1 ORDER BY 1"
        ))
        .fetch_all(&mut *connection)
        .await?;
        let sql = format!(
            "COPY (SELECT * {written} ORDER BY xmin::text::bigint, ctid) TO STDOUT WITH (FORMAT binary)"
        );
        let mut stream = connection.copy_out_raw(&sql).await?;
        let mut data = Vec::new();
        while let Some(part) = stream.try_next().await? {
            data.extend_from_slice(&part);
        }
        drop(stream);
        let mut place = HEADER_BYTES;
        for count in counts {
            let mut rows = data[..HEADER_BYTES].to_vec();
            let start = place;
            for _ in 0..count.try_get::<i64, _>("rows")? {
                place = after_row(&data, place).context("a COPY that ends early")?;
            }
            rows.extend_from_slice(&data[start..place]);
            rows.extend_from_slice(&(-1_i16).to_be_bytes());
            batches.entry(count.try_get("batch")?).or_default().push((table.clone(), rows));
        }
    }
    Ok(batches.into_values().collect())
}

/// Where the row that starts here ends.
fn after_row(data: &[u8], mut place: usize) -> Option<usize> {
    let fields = i16::from_be_bytes(data.get(place..place + 2)?.try_into().ok()?);
    place += 2;
    for _ in 0..fields {
        let length = i32::from_be_bytes(data.get(place..place + 4)?.try_into().ok()?);
        // A null has length -1 and no bytes.
        place += 4 + usize::try_from(length).unwrap_or(0);
    }
    Some(place)
}
