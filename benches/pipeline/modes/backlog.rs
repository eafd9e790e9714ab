//! A large backlog: the time until the first result, and memory, which must not grow with it.

use anyhow::Result;

use crate::Bench;
use crate::contestants::verifier;
use crate::database::Tables;
use crate::report::save;
use crate::shapes::{self, Shape};

/// How much smaller the backlog is that the large one is compared to.
const SMALLER: usize = 10;

pub fn run(bench: &mut Bench, orders: usize) -> Result<()> {
    let shape = Shape::Zipf;
    let mut lines = vec!["orders waiting | first result after | peak memory | orders/s".to_owned()];
    let mut measured = Vec::new();
    for count in [orders / SMALLER, orders] {
        let backlog = bench.new_backlog(&shapes::orders(shape, count, bench.args.ids, ""))?;
        for _ in 0..bench.args.rounds {
            let scratch = bench.scratch(Tables::Ledger, shape.skus())?;
            let run = verifier::drain(bench, &scratch.url, &backlog, count, 0)?;
            bench.drop_scratch(scratch)?;
            let (start, peak, rate) = (run.notes["start-up s"], run.notes["peak MiB"], run.rate());
            lines.push(format!("{count:>14} | {start:>16.2} s | {peak:>7.0} MiB | {rate:>8.0}"));
            measured.push(serde_json::json!({
                "orders": count, "first_result_s": start, "peak_mib": peak, "orders_per_second": rate,
            }));
        }
        bench.block(bench.kafka.delete(&[&backlog]))?;
    }
    println!("{}", lines.join("\n"));
    save(&bench.args.json.with_file_name("backlog.json"), &serde_json::to_string_pretty(&measured)?)
}
