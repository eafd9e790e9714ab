//! What is measured instead of a comparison.

use anyhow::Result;

use crate::Bench;

mod backlog;
mod citus;
mod gate;
mod history;
mod import;
mod latency;
mod reads;

/// Runs the modes that were asked for; `false` when there was none.
pub fn run(bench: &mut Bench) -> Result<bool> {
    let mut ran = false;
    if bench.args.latency {
        latency::run(bench)?;
        ran = true;
    }
    if bench.args.reads {
        reads::run(bench)?;
        ran = true;
    }
    if bench.args.citus {
        citus::run(bench)?;
        ran = true;
    }
    if bench.args.gate {
        gate::rates(bench)?;
        ran = true;
    }
    if bench.args.sale {
        gate::sales(bench)?;
        ran = true;
    }
    if let Some(orders) = bench.args.backlog {
        backlog::run(bench, orders)?;
        ran = true;
    }
    if let Some(orders) = bench.args.history {
        history::run(bench, orders)?;
        ran = true;
    }
    if let Some(rows) = bench.args.import {
        import::run(bench, rows)?;
        ran = true;
    }
    Ok(ran)
}
